//! What a site agrees to, whatever a run asks for: the table `[policy]` of `site.toml`.

use std::collections::BTreeSet;

use sheaf_common::blob::BlobId;
use sheaf_common::id::Name;
use sheaf_common::message::Job;
use sheaf_common::run::SecureAggregation;
use sheaf_transport::pace::Hours;

/// The site's own rules. A server that lies can only ask for less than them, and is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// No update leaves the site but in sums over several sites.
    pub require_secure_aggregation: bool,
    /// A sum is over at least so many sites.
    pub min_updates: u32,
    /// No metric leaves the site that was measured on fewer examples.
    pub min_metric_count: u64,
    /// Metrics leave the site at all.
    pub metrics: bool,
    /// Metrics of this site alone may leave it, in the open, when a run leaves it out to be evaluated on it.
    pub own_metrics: bool,
    /// Counts of what the site holds are given to surveys.
    pub surveys: bool,
    /// The TorchScript modules that may run here, by the hash of their file: each is a program.
    pub torchscript: BTreeSet<BlobId>,
    /// The operators whose runs the site takes part in; all of the federation when not given.
    pub authors: Option<BTreeSet<Name>>,
    /// The models that it trains; all when not given.
    pub models: Option<Models>,
    /// What a run may be for; anything, or nothing said, when not given.
    pub purposes: Option<BTreeSet<String>>,
    /// Rounds of a run, at most.
    pub max_rounds: Option<u32>,
    /// Bytes that the updates of a run take, at most, 4 for each trained value and round.
    pub max_bytes: Option<u64>,
    /// Nothing is begun but at these hours.
    pub hours: Option<Hours>,
    /// A person approves of each run before anything is done for it.
    pub ask: bool,
}

/// The models that a site trains.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Models {
    /// Imported ones.
    pub imported: BTreeSet<BlobId>,
    /// Those that start from a run's seed.
    pub fresh: bool,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            require_secure_aggregation: true,
            min_updates: 3,
            min_metric_count: 10,
            metrics: true,
            own_metrics: false,
            surveys: true,
            authors: None,
            models: None,
            purposes: None,
            max_rounds: None,
            max_bytes: None,
            hours: None,
            ask: false,
            torchscript: BTreeSet::new(),
        }
    }
}

impl Policy {
    /// Why the site takes no part in a run of `author`, if it does not: one sentence for the operator.
    pub fn objection(&self, job: &Job, author: &Name) -> Option<String> {
        let spec = &job.spec;
        if self.authors.as_ref().is_some_and(|authors| !authors.contains(author)) {
            return Some(format!(
                "this site takes part in no run of operator {author} (policy.authors in its site.toml)"
            ));
        }
        if let Some(purposes) = &self.purposes
            && spec.purpose.as_ref().is_none_or(|purpose| !purposes.contains(purpose))
        {
            let list: Vec<String> = purposes.iter().map(|purpose| format!("{purpose:?}")).collect();
            return Some(format!(
                "this site takes part in runs for certain purposes only: give `purpose` in run.toml as one of {}",
                list.join(", ")
            ));
        }
        if spec.is_survey() && !self.surveys {
            return Some(
                "this site takes part in no survey: write the constants into run.toml by other means, or set policy.surveys = true in its site.toml".into(),
            );
        }
        let secure = match spec.secure_aggregation {
            SecureAggregation::Off if self.require_secure_aggregation => Some(
                "this site sends no update that is not encrypted: use secure_aggregation = \"required\" in run.toml, or set policy.secure_aggregation = \"optional\" in its site.toml".into(),
            ),
            SecureAggregation::Required(_) if spec.cohort.min_updates < self.min_updates => Some(format!(
                "the run may be summed over {} sites, this site asks for {}: raise cohort.min_updates in run.toml, or lower policy.min_updates in its site.toml",
                spec.cohort.min_updates, self.min_updates
            )),
            SecureAggregation::Off | SecureAggregation::Required(_) => None,
        };
        // A survey trains no model.
        secure.or_else(|| {
            if spec.is_survey() {
                None
            } else {
                self.model_objection(job).or_else(|| self.size_objection(job))
            }
        })
    }

    fn model_objection(&self, job: &Job) -> Option<String> {
        let models = self.models.as_ref()?;
        match job.model {
            None if !models.fresh => {
                Some("this site trains no model that starts from a run's seed: add \"fresh\" to policy.models in its site.toml".into())
            }
            Some(model) if !models.imported.contains(&model) => {
                Some(format!("this site does not train model {model}: add it to policy.models in its site.toml"))
            }
            None | Some(_) => None,
        }
    }

    fn size_objection(&self, job: &Job) -> Option<String> {
        let rounds = job.spec.rounds;
        if let Some(most) = self.max_rounds.filter(|most| rounds > *most) {
            return Some(format!(
                "the run has {rounds} rounds, this site takes part in at most {most}: lower `rounds` in run.toml, or raise policy.max_rounds in its site.toml"
            ));
        }
        // What grows from round to round is summed up when the model is here, which says by how much.
        if !job.spec.model.unfreeze.is_empty() {
            return None;
        }
        self.bytes_objection(rounds, u64::from(rounds).saturating_mul(job.params.bytes()))
    }

    /// Why updates of so many bytes in all rounds do not leave the site, if they do not: one sentence for the operator.
    pub fn bytes_objection(&self, rounds: u32, bytes: u64) -> Option<String> {
        self.max_bytes.filter(|most| bytes > *most).map(|most| {
            format!(
                "its updates in {rounds} rounds take {bytes} bytes, and this site sends at most {most} for a run: train less or fewer rounds, or raise policy.max_bytes in its site.toml"
            )
        })
    }

    /// Why metrics of the site alone stay there, if they do: one sentence for the operator.
    pub fn keeps_own_metrics(&self) -> Option<String> {
        (!self.own_metrics).then(|| {
            "this site's metrics leave it only in sums over several sites: to be left out and evaluated by itself, it must set policy.own_metrics = true in its site.toml".into()
        })
    }

    /// Why metrics of so many examples stay at the site, if they do: of few they tell about each.
    pub fn withholds(&self, examples: u64) -> Option<String> {
        if !self.metrics {
            return Some("policy.metrics of site.toml is false".into());
        }
        let least = self.min_metric_count;
        (examples < least).then(|| {
            format!(
                "they are of {examples} examples, and policy.min_metric_count of site.toml asks for {least}"
            )
        })
    }
}

#[cfg(test)]
mod tests {
    use sheaf_common::params::{ParamSpec, ParamTensor};
    use sheaf_common::run::{RunSpec, Trainable};
    use sheaf_common::time::Timestamp;

    use super::*;

    fn of(spec: RunSpec) -> Job {
        let tensor = ParamTensor { name: "values".into(), shape: vec![4] };
        let params = ParamSpec { tensors: vec![tensor] };
        let (global, submitted_at) = (BlobId::of(b""), Timestamp(0));
        Job { spec, model: None, params, global, submitted_at, author: None }
    }

    fn job(more: &str) -> Job {
        let text = format!(
            "name = \"toy\"\nrounds = 3\n{more}\nmodel = {{ architecture = \"constant\", parameters = 4 }}\ntask = {{ type = \"none\" }}"
        );
        of(RunSpec::parse("run.toml", &text).unwrap())
    }

    fn ada() -> Name {
        "ada".parse().unwrap()
    }

    const OFF: &str = "secure_aggregation = \"off\"";
    const TWO: &str = "cohort = { min_updates = 2 }";

    #[test]
    fn a_run_by_the_defaults_is_fine() {
        assert_eq!(Policy::default().objection(&job(""), &ada()), None);
    }

    #[test]
    fn an_update_leaves_in_the_clear_only_where_the_site_says_so() {
        let objection = Policy::default().objection(&job(OFF), &ada()).unwrap();
        assert!(
            objection.contains("set policy.secure_aggregation = \"optional\" in its site.toml"),
            "{objection}"
        );
        let optional = Policy { require_secure_aggregation: false, ..Policy::default() };
        assert_eq!(optional.objection(&job(OFF), &ada()), None);
    }

    #[test]
    fn a_sum_over_too_few_is_refused_even_where_none_is_required() {
        for require_secure_aggregation in [true, false] {
            let policy = Policy { require_secure_aggregation, ..Policy::default() };
            let objection = policy.objection(&job(TWO), &ada()).unwrap();
            assert_eq!(
                objection,
                "the run may be summed over 2 sites, this site asks for 3: raise cohort.min_updates in run.toml, or \
                 lower policy.min_updates in its site.toml"
            );
            assert_eq!(Policy { min_updates: 2, ..policy.clone() }.objection(&job(TWO), &ada()), None);
        }
    }

    #[test]
    fn a_site_may_keep_out_of_surveys() {
        let text = "name = \"toy\"\nrounds = 1\nmodel = { architecture = \"softmax\" }\n[task]\ntype = \"tabular-classification\"\n\
            dataset = \"d\"\nlabel = \"y\"\nlabels = [\"a\", \"b\"]\nfeatures = [{ column = \"x\", type = \"numeric\" }]\n";
        let (run, survey) = (RunSpec::parse("run.toml", text), RunSpec::parse_survey("run.toml", text));
        let policy = Policy { surveys: false, ..Policy::default() };
        assert_eq!(policy.objection(&of(run.unwrap()), &ada()), None);
        let survey = of(survey.unwrap());
        assert!(
            policy.objection(&survey, &ada()).unwrap().contains("set policy.surveys = true in its site.toml")
        );
        assert_eq!(Policy::default().objection(&survey, &ada()), None);
    }

    #[test]
    fn metrics_of_few_examples_stay() {
        let policy = Policy { min_metric_count: 2, ..Policy::default() };
        let reason = "they are of 1 examples, and policy.min_metric_count of site.toml asks for 2";
        assert_eq!(policy.withholds(1).as_deref(), Some(reason));
        assert_eq!(policy.withholds(2), None);
    }

    #[test]
    fn metrics_may_stay_whatever_they_are_of() {
        let policy = Policy { metrics: false, ..Policy::default() };
        assert_eq!(policy.withholds(1_000_000).as_deref(), Some("policy.metrics of site.toml is false"));
    }

    /// What is said of `job` by a site that agrees to `policy` only, and that other jobs and policies pass.
    fn said(policy: &Policy, job: &Job) -> String {
        assert_eq!(Policy::default().objection(job, &ada()), None);
        policy.objection(job, &ada()).expect("it does not fit")
    }

    #[test]
    fn a_site_chooses_for_whom_it_works_and_for_what() {
        let by = |name: &str| Policy { authors: Some([name.parse().unwrap()].into()), ..Policy::default() };
        assert_eq!(by("ada").objection(&job(""), &ada()), None);
        assert!(said(&by("bob"), &job("")).contains("no run of operator ada"));
        let policy = Policy { purposes: Some(["sepsis".to_owned()].into()), ..Policy::default() };
        assert_eq!(policy.objection(&job("purpose = \"sepsis\""), &ada()), None);
        for other in ["", "purpose = \"sepsis and more\""] {
            assert!(said(&policy, &job(other)).ends_with("give `purpose` in run.toml as one of \"sepsis\""));
        }
    }

    #[test]
    fn a_site_chooses_what_it_trains() {
        let model = BlobId::of(b"model");
        let imported = Job { model: Some(model), ..job("") };
        let only = |imported: &[BlobId], fresh| Policy {
            models: Some(Models { imported: imported.iter().copied().collect(), fresh }),
            ..Policy::default()
        };
        assert_eq!(only(&[model], false).objection(&imported, &ada()), None);
        assert_eq!(only(&[], true).objection(&job(""), &ada()), None);
        assert!(said(&only(&[], true), &imported).contains(&format!("does not train model {model}")));
        assert!(said(&only(&[model], false), &job("")).contains("add \"fresh\" to policy.models"));
    }

    #[test]
    fn a_site_chooses_how_much_leaves_it() {
        let rounds = |most| Policy { max_rounds: Some(most), ..Policy::default() };
        assert_eq!(rounds(3).objection(&job(""), &ada()), None);
        assert!(
            said(&rounds(2), &job("")).starts_with("the run has 3 rounds, this site takes part in at most 2")
        );
        let bytes = |most| Policy { max_bytes: Some(most), ..Policy::default() };
        assert_eq!(bytes(48).objection(&job(""), &ada()), None);
        assert!(
            said(&bytes(47), &job(""))
                .starts_with("its updates in 3 rounds take 48 bytes, and this site sends at most 47")
        );
        let mut growing = job("");
        growing.spec.model.unfreeze.insert(2, Trainable::All);
        assert_eq!(bytes(47).objection(&growing, &ada()), None, "its model says how much it is");
    }
}
