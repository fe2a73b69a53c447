//! What a search found, for people, for programs and as `results.csv`.

use serde_json::{Value as Json, json};

use super::outcome::{Outcome, ranked};
use super::plan::{Plan, short};
use crate::cli::table::{Align, table};

/// A search and what became of its runs so far.
pub(super) struct Report<'a> {
    pub(super) plan: &'a Plan,
    pub(super) done: &'a [Outcome],
}

impl Report<'_> {
    /// The outcome that everything was for; `None` when no run could be measured.
    pub(super) fn best(&self) -> Option<&Outcome> {
        self.ranked().into_iter().next().filter(|outcome| outcome.score.is_some())
    }

    /// The runs, the best first, and the best one's settings.
    pub(super) fn text(&self) -> String {
        let mut text = self.table();
        match self.best() {
            None => text.push_str("\n\nno trial could be measured"),
            Some(best) => {
                let (metric, score) = (self.plan.metric, best.score.unwrap_or_default());
                text.push_str(&format!(
                    "\n\n{} is best, with {metric} {score:.4}. These are validation metrics, and the best of many is better by luck too: \
                     measure on examples that no trial was compared by.\n\n{}",
                    best.run,
                    self.plan.snippet(best.job.trial).trim_end()
                ));
            }
        }
        text
    }

    /// The trials that are planned.
    pub(super) fn planned(&self) -> String {
        let keys = self.keys().map(|key| (key, Align::Right));
        let columns: Vec<(&str, Align)> = [("TRIAL", Align::Right)].into_iter().chain(keys).collect();
        let rows = self.plan.trials.iter().enumerate().map(|(index, settings)| {
            let values = settings.iter().map(|(_, value)| cell(value));
            [(index + 1).to_string()].into_iter().chain(values).collect::<Vec<_>>()
        });
        format!("{}\n\n{}", table(&columns, rows), self.plan)
    }

    /// Everything for programs: the fields are an interface.
    pub(super) fn json(&self) -> Json {
        let plan = self.plan;
        let rungs =
            plan.schedule.rungs.iter().map(|rung| json!({ "trials": rung.trials, "rounds": rung.rounds }));
        json!({
            "search": plan.name,
            "method": plan.method.as_str(),
            "metric": plan.metric,
            "budget_rounds": plan.budget_rounds,
            "planned_rounds": plan.schedule.rounds(),
            "completed_rounds": self.done.iter().map(|run| u64::from(run.completed_rounds)).sum::<u64>(),
            "rungs": rungs.collect::<Json>(),
            "trials": (0..plan.trials.len()).map(|trial| self.settings(trial)).collect::<Json>(),
            "runs": self.ranked().into_iter().map(|outcome| self.run(outcome)).collect::<Json>(),
            "best": self.best().map(|best| {
                let mut value = self.run(best);
                value["run_toml"] = plan.snippet(best.job.trial).into();
                value
            }),
        })
    }

    /// The same table as comma-separated values.
    pub(super) fn csv(&self) -> Result<Vec<u8>, csv::Error> {
        let metric = self.plan.metric.to_string();
        let mut file = csv::Writer::from_writer(Vec::new());
        let (start, end) = (["run", "trial"], ["rounds", "completed_rounds", &metric, "state", "detail"]);
        file.write_record(start.into_iter().chain(self.keys()).chain(end))?;
        for outcome in self.ranked() {
            let start = [outcome.run.to_string(), (outcome.job.trial + 1).to_string()];
            let values = self.plan.trials[outcome.job.trial].iter().map(|(_, value)| plain(value));
            let end = [
                outcome.rounds.to_string(),
                outcome.completed_rounds.to_string(),
                outcome.score.map_or_else(String::new, |score| score.to_string()),
                outcome.state.to_string(),
                outcome.detail.clone(),
            ];
            file.write_record(start.into_iter().chain(values).chain(end))?;
        }
        file.into_inner().map_err(|e| e.into_error().into())
    }

    fn table(&self) -> String {
        let metric = self.plan.metric.to_string().to_uppercase();
        let keys = self.keys().map(|key| (key, Align::Right));
        let end = [
            ("ROUNDS", Align::Right),
            (metric.as_str(), Align::Right),
            ("STATE", Align::Left),
            ("DETAIL", Align::Left),
        ];
        let columns: Vec<(&str, Align)> = [("RUN", Align::Left)].into_iter().chain(keys).chain(end).collect();
        let rows = self.ranked().into_iter().map(|outcome| {
            let values = self.plan.trials[outcome.job.trial].iter().map(|(_, value)| cell(value));
            let end = [
                format!("{}/{}", outcome.completed_rounds, outcome.rounds),
                outcome.score.map_or_else(|| "-".into(), |score| format!("{score:.4}")),
                outcome.state.to_string(),
                outcome.detail.clone(),
            ];
            [outcome.run.to_string()].into_iter().chain(values).chain(end).collect::<Vec<_>>()
        });
        table(&columns, rows)
    }

    fn keys(&self) -> impl Iterator<Item = &str> {
        self.plan.trials.first().into_iter().flatten().map(|(key, _)| key.as_str())
    }

    fn ranked(&self) -> Vec<&Outcome> {
        ranked(self.done.iter(), self.plan.metric)
    }

    fn run(&self, outcome: &Outcome) -> Json {
        json!({
            "run": outcome.run,
            "trial": outcome.job.trial + 1,
            "settings": self.settings(outcome.job.trial),
            "rounds": outcome.rounds,
            "completed_rounds": outcome.completed_rounds,
            "value": outcome.score,
            "state": outcome.state,
            "detail": outcome.detail,
        })
    }

    fn settings(&self, trial: usize) -> Json {
        let settings = self.plan.trials.get(trial).into_iter().flatten();
        let pairs =
            settings.map(|(key, value)| (key.clone(), serde_json::to_value(value).unwrap_or(Json::Null)));
        Json::Object(pairs.collect())
    }
}

/// A value as people read it in a table, without quotes.
fn cell(value: &toml::Value) -> String {
    value.as_str().map_or_else(|| short(value), str::to_owned)
}

/// A value in full, and text without its quotes.
fn plain(value: &toml::Value) -> String {
    match (value.as_str(), value.as_float()) {
        (Some(text), _) => text.to_owned(),
        // `1e-6`, where TOML would write all the zeros.
        (None, Some(number)) => format!("{number:?}"),
        (None, None) => value.to_string(),
    }
}
