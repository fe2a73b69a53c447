//! Whole searches without a server: what is planned, which run comes next, and what is told at the end.

use proptest::prelude::*;
use sheaf_common::run::Monitor;
use sheaf_common::status::RunState;

use super::file::Search;
use super::outcome::Outcome;
use super::plan::{Job, Plan, Source};
use super::report::Report;

const RUN: &str = r#"
name = "toy"
rounds = 9
secure_aggregation = "off"
model = { architecture = "mlp", hidden = [4] }
[task]
type = "tabular-classification"
dataset = "data"
label = "label"
labels = ["no", "yes"]
features = [{ column = "x", type = "numeric" }, { column = "z", type = "numeric" }]
[training]
local_epochs = 2
"#;

const HALVING: &str = r#"run = "run.toml"
method = "halving"
budget_rounds = 60
trials = 9
metric = "accuracy"
[search]
"training.learning_rate" = { log_uniform = [1e-3, 1.0] }
"model.hidden" = [[4], [8, 8]]
"#;

const GRID: &str = r#"run = "run.toml"
method = "grid"
budget_rounds = 60
[search]
"training.optimizer" = ["sgd", "adamw"]
"training.batch_size" = [8, 16, 32]
"#;

fn plan_of(search: &str, run: &str) -> Result<Plan, String> {
    let (file, base) = ("search.toml", Source { file: "run.toml", text: run });
    let read = Search::parse(file, search).map_err(|e| e.to_string())?;
    Plan::new(&read, Source { file, text: search }, base).map_err(|e| e.to_string())
}

fn plan(search: &str) -> Plan {
    plan_of(search, RUN).unwrap()
}

fn outcome(plan: &Plan, job: Job, score: Option<f64>) -> Outcome {
    let document = plan.document(job).unwrap();
    let (state, detail) = match score {
        Some(_) => (RunState::Completed, String::new()),
        None => (RunState::Failed, "round 1 was abandoned 3 times".to_owned()),
    };
    Outcome {
        job,
        run: document.run.clone(),
        rounds: document.spec.rounds,
        completed_rounds: score.map_or(0, |_| document.spec.rounds),
        state,
        detail,
        score,
    }
}

/// Carries a search on after `done`; a run scores what `score` says.
fn go_on(plan: &Plan, mut done: Vec<Outcome>, score: impl Fn(Job) -> Option<f64>) -> Vec<Outcome> {
    while let Some(job) = plan.next(&done) {
        done.push(outcome(plan, job, score(job)));
    }
    done
}

fn runs(done: &[Outcome]) -> Vec<&str> {
    done.iter().map(|outcome| outcome.run.as_str()).collect()
}

#[test]
fn a_trial_is_the_run_but_for_its_keys() {
    let plan = plan(HALVING);
    assert_eq!(
        plan.to_string(),
        "toy: 9 trials of 1 round, the best 3 again with 3, the best 1 again with 9: at most 27 rounds, of budget_rounds = 60"
    );
    let base = sheaf_common::run::RunSpec::parse("run.toml", RUN).unwrap();
    for (rung, rounds) in [1, 3, 9].into_iter().enumerate() {
        let document = plan.document(Job { rung, trial: 1 }).unwrap();
        let mut expected = base.clone();
        expected.name = document.spec.name.clone();
        expected.rounds = rounds;
        expected.validation.monitor = Monitor::Accuracy;
        expected.model.source = document.spec.model.source.clone();
        expected.training.learning_rate = plan.trials[1][0].1.as_float().unwrap();
        assert_eq!(document.spec, expected);
        assert_eq!(document.run.as_str(), ["toy-t002", "toy-t002-r2", "toy-t002-r3"][rung]);
        assert_eq!(document.run.as_str(), document.spec.name.as_str());
    }
}

#[test]
fn a_grid_runs_every_combination_and_the_best_is_told() {
    let plan = plan(GRID);
    let done =
        go_on(
            &plan,
            Vec::new(),
            |job| if job.trial == 2 { None } else { Some(1.0 - 0.1 * job.trial as f64) },
        );
    assert_eq!(runs(&done), ["toy-t001", "toy-t002", "toy-t003", "toy-t004", "toy-t005", "toy-t006"]);
    let report = Report { plan: &plan, done: &done };
    let text = report.text();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[0],
        "RUN       training.optimizer  training.batch_size  ROUNDS    LOSS  STATE      DETAIL"
    );
    assert_eq!(lines[1], "toy-t006               adamw                   32     9/9  0.5000  completed");
    assert_eq!(
        lines[6],
        "toy-t003                 sgd                   32     0/9       -  failed     round 1 was abandoned 3 times"
    );
    assert!(text.contains("toy-t006 is best, with loss 0.5000. These are validation metrics"), "{text}");
    assert!(text.ends_with("\n\n[training]\noptimizer = \"adamw\"\nbatch_size = 32"), "{text}");

    let json = report.json();
    assert_eq!(
        json["best"]["settings"],
        serde_json::json!({ "training.optimizer": "adamw", "training.batch_size": 32 })
    );
    assert_eq!((&json["planned_rounds"], &json["completed_rounds"]), (&54.into(), &45.into()));
    assert_eq!(json["runs"][5]["detail"], "round 1 was abandoned 3 times");
    let csv = String::from_utf8(report.csv().unwrap()).unwrap();
    let rows: Vec<&str> = csv.lines().collect();
    assert_eq!(
        rows[0],
        "run,trial,training.optimizer,training.batch_size,rounds,completed_rounds,loss,state,detail"
    );
    assert_eq!(rows[1], "toy-t006,6,adamw,32,9,9,0.5,completed,");
    assert_eq!(rows.len(), 7);
}

#[test]
fn the_best_go_on_and_what_failed_does_not() {
    let plan = plan(HALVING);
    // The later trials are the better ones, and the last fails.
    let done = go_on(&plan, Vec::new(), |job| (job.trial != 8).then_some(0.1 * job.trial as f64));
    let later: Vec<&str> = runs(&done)[9..].to_vec();
    assert_eq!(later, ["toy-t006-r2", "toy-t007-r2", "toy-t008-r2", "toy-t008-r3"]);
    let report = Report { plan: &plan, done: &done };
    assert_eq!(report.best().unwrap().run.as_str(), "toy-t008-r3");
    // A single round that was worth more is worth less than nine.
    let mut lucky = done.clone();
    lucky[0].score = Some(1.0);
    assert_eq!(Report { plan: &plan, done: &lucky }.best().unwrap().run.as_str(), "toy-t008-r3");
}

#[test]
fn a_search_of_which_all_fails_ends() {
    let plan = plan(HALVING);
    let done = go_on(&plan, Vec::new(), |_| None);
    assert_eq!(done.len(), 9);
    let report = Report { plan: &plan, done: &done };
    assert!(report.best().is_none() && report.text().ends_with("no trial could be measured"));
}

#[test]
fn what_the_budget_allows_is_said() {
    let few = HALVING.replace("budget_rounds = 60", "budget_rounds = 20");
    assert_eq!(
        plan(&few).to_string(),
        "toy: 5 trials of 1 round, the best 2 again with 3, the best 1 again with 9: at most 20 rounds, of budget_rounds = 20; \
         trials = 9 are more than the budget, or the searched keys, allow"
    );
    let random = HALVING.replace("halving", "random").replace("trials = 9\n", "");
    assert!(plan(&random).to_string().starts_with("toy: 6 trials of 9 rounds: at most 54 rounds"));
    let error = plan_of(&GRID.replace("60", "53"), RUN).unwrap_err();
    assert_eq!(
        error,
        "search.toml:3: budget_rounds: 53 do not pay for the grid: 6 combinations of 9 rounds are 54; list fewer values, or write method = \"random\""
    );
    let error = plan_of(&HALVING.replace("60", "8"), RUN).unwrap_err();
    assert_eq!(error, "search.toml:3: budget_rounds: 8 do not pay for one trial of 9 rounds");
    let error = plan_of(&HALVING.replace("trials = 9", "min_rounds = 10"), RUN).unwrap_err();
    assert_eq!(error, "search.toml:4: min_rounds: 10 is more than the run's 9 rounds");
}

#[test]
fn a_trial_that_cannot_be_run_names_its_key() {
    let with = |line: &str| plan_of(&format!("{GRID}{line}\n"), RUN).unwrap_err();
    let first = "(in the trial with training.optimizer = \"sgd\", training.batch_size = 8, ";
    for (line, error) in [
        (
            "\"training.learning_rate\" = [0]",
            "search.toml:7: search.training.learning_rate: 0 is not a finite number above 0",
        ),
        (
            "\"training.lerning_rate\" = [0.1]",
            "search.toml:7: search.training.lerning_rate: unknown field `lerning_rate`",
        ),
        (
            "\"training.learning_rate\" = [\"fast\"]",
            "search.toml:7: search.training.learning_rate: invalid type: string \"fast\"",
        ),
        ("\"training.gamma\" = [0.5]", "search.toml:7: search.training.gamma: only the schedules"),
        (
            "\"training.schedule\" = [\"exponential\"]",
            "search.toml:4: search: training.gamma: say by which factor",
        ),
        ("\"model.lora\" = [{ rank = 4 }]", "search.toml:7: search.model.lora: is for pretrained"),
        (
            "\"model.architecture.x\" = [1]",
            "search.toml:7: search.model.architecture.x: `architecture` is a single value",
        ),
    ] {
        let told = with(line);
        assert!(told.starts_with(error), "{told}");
        assert!(told.contains(first) || line.contains("architecture"), "{told}");
    }
    let error = plan_of(&HALVING.replace("accuracy", "rmse"), RUN).unwrap_err();
    assert!(error.starts_with("search.toml:5: metric: ") && !error.contains("trial"), "{error}");
    let error = plan_of(GRID, &RUN.replace("rounds = 9", "rounds = 0")).unwrap_err();
    assert_eq!(error, "run.toml:3: rounds: 0 is not between 1 and 100000");
    let error = plan_of(GRID, &RUN.replace("local_epochs = 2", "validation_split = 0.0")).unwrap_err();
    assert!(error.starts_with("run.toml:13: training.validation_split: a search compares"), "{error}");
    let error = plan_of(&format!("name = \"{}\"\n{GRID}", "x".repeat(60)), RUN).unwrap_err();
    assert!(error.starts_with("search.toml:1: name: `xxx"), "{error}");
    let error = plan_of(&GRID.replace("[8, 16, 32]", &format!("{:?}", (1..600).collect::<Vec<_>>())), RUN)
        .unwrap_err();
    assert!(error.starts_with("search.toml:4: search: makes more than 999 combinations"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever scores and failures there are, and wherever the search was interrupted.
    #[test]
    fn the_budget_holds_and_an_interrupted_search_goes_on_as_it_would_have(
        budget in 9u64..80, halving in any::<bool>(), scores in prop::collection::vec(prop::option::of(-5i32..5), 40), cut in 0usize..40,
    ) {
        let method = if halving { "halving" } else { "random" };
        let search = HALVING.replace("60", &budget.to_string()).replace("halving", method);
        let plan = plan(&search);
        let score = |job: Job| scores[(job.trial * 7 + job.rung * 3) % scores.len()].map(f64::from);
        let whole = go_on(&plan, Vec::new(), score);
        let asked: u64 = whole.iter().map(|outcome| u64::from(outcome.rounds)).sum();
        prop_assert!(asked <= plan.schedule.rounds() && plan.schedule.rounds() <= budget);
        let mut names = runs(&whole);
        let again = go_on(&plan, whole[..cut.min(whole.len())].to_vec(), score);
        prop_assert_eq!(&names, &runs(&again));
        names.sort_unstable();
        names.dedup();
        prop_assert_eq!(names.len(), whole.len());
    }
}
