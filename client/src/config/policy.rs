//! What a site agrees to, whatever a run asks for: the table `[policy]` of `site.toml`.

use std::collections::BTreeSet;

use sheaf_common::blob::BlobId;
use sheaf_common::run::{RunSpec, SecureAggregation};

/// The site's own rules. A server that lies can only ask for less than them, and is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// No update leaves the site but in sums over several sites.
    pub require_secure_aggregation: bool,
    /// A sum is over at least so many sites.
    pub min_updates: u32,
    /// No metric leaves the site that was measured on fewer examples.
    pub min_metric_count: u64,
    /// Metrics of this site alone may leave it, in the open, when a run leaves it out to be evaluated on it.
    pub own_metrics: bool,
    /// Counts of what the site holds are given to surveys.
    pub surveys: bool,
    /// The TorchScript modules that may run here, by the hash of their file: each is a program.
    pub torchscript: BTreeSet<BlobId>,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            require_secure_aggregation: true,
            min_updates: 3,
            min_metric_count: 10,
            own_metrics: false,
            surveys: true,
            torchscript: BTreeSet::new(),
        }
    }
}

impl Policy {
    /// Why the site takes no part in a run, if it does not: one sentence for the operator.
    pub fn objection(&self, spec: &RunSpec) -> Option<String> {
        if spec.is_survey() && !self.surveys {
            return Some(
                "this site takes part in no survey: write the constants into run.toml by other means, or set policy.surveys = true in its site.toml".into(),
            );
        }
        match spec.secure_aggregation {
            SecureAggregation::Off if self.require_secure_aggregation => Some(
                "this site sends no update that is not encrypted: use secure_aggregation = \"required\" in run.toml, or set policy.secure_aggregation = \"optional\" in its site.toml".into(),
            ),
            SecureAggregation::Required(_) if spec.cohort.min_updates < self.min_updates => Some(format!(
                "the run may be summed over {} sites, this site asks for {}: raise cohort.min_updates in run.toml, or lower policy.min_updates in its site.toml",
                spec.cohort.min_updates, self.min_updates
            )),
            SecureAggregation::Off | SecureAggregation::Required(_) => None,
        }
    }

    /// Why metrics of the site alone stay there, if they do: one sentence for the operator.
    pub fn keeps_own_metrics(&self) -> Option<String> {
        (!self.own_metrics).then(|| {
            "this site's metrics leave it only in sums over several sites: to be left out and evaluated by itself, it must set policy.own_metrics = true in its site.toml".into()
        })
    }

    /// Why metrics of so many examples stay at the site, if they do: of few they tell about each.
    pub fn withholds(&self, examples: u64) -> Option<String> {
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
    use super::*;

    fn spec(more: &str) -> RunSpec {
        let text = format!(
            "name = \"toy\"\nrounds = 1\n{more}\nmodel = {{ architecture = \"constant\", parameters = 4 }}\ntask = {{ type = \"none\" }}"
        );
        RunSpec::parse("run.toml", &text).unwrap()
    }

    const OFF: &str = "secure_aggregation = \"off\"";
    const TWO: &str = "cohort = { min_updates = 2 }";

    #[test]
    fn a_run_by_the_defaults_is_fine() {
        assert_eq!(Policy::default().objection(&spec("")), None);
    }

    #[test]
    fn an_update_leaves_in_the_clear_only_where_the_site_says_so() {
        let objection = Policy::default().objection(&spec(OFF)).unwrap();
        assert!(
            objection.contains("set policy.secure_aggregation = \"optional\" in its site.toml"),
            "{objection}"
        );
        let optional = Policy { require_secure_aggregation: false, ..Policy::default() };
        assert_eq!(optional.objection(&spec(OFF)), None);
    }

    #[test]
    fn a_sum_over_too_few_is_refused_even_where_none_is_required() {
        for require_secure_aggregation in [true, false] {
            let policy = Policy { require_secure_aggregation, ..Policy::default() };
            let objection = policy.objection(&spec(TWO)).unwrap();
            assert_eq!(
                objection,
                "the run may be summed over 2 sites, this site asks for 3: raise cohort.min_updates in run.toml, or \
                 lower policy.min_updates in its site.toml"
            );
            assert_eq!(Policy { min_updates: 2, ..policy }.objection(&spec(TWO)), None);
        }
    }

    #[test]
    fn a_site_may_keep_out_of_surveys() {
        let text = "name = \"toy\"\nrounds = 1\nmodel = { architecture = \"softmax\" }\n[task]\ntype = \"tabular-classification\"\n\
            dataset = \"d\"\nlabel = \"y\"\nlabels = [\"a\", \"b\"]\nfeatures = [{ column = \"x\", type = \"numeric\" }]\n";
        let (run, survey) = (RunSpec::parse("run.toml", text), RunSpec::parse_survey("run.toml", text));
        let policy = Policy { surveys: false, ..Policy::default() };
        assert_eq!(policy.objection(&run.unwrap()), None);
        let survey = survey.unwrap();
        assert!(policy.objection(&survey).unwrap().contains("set policy.surveys = true in its site.toml"));
        assert_eq!(Policy::default().objection(&survey), None);
    }

    #[test]
    fn metrics_of_few_examples_stay() {
        let policy = Policy { min_metric_count: 2, ..Policy::default() };
        let reason = "they are of 1 examples, and policy.min_metric_count of site.toml asks for 2";
        assert_eq!(policy.withholds(1).as_deref(), Some(reason));
        assert_eq!(policy.withholds(2), None);
    }
}
