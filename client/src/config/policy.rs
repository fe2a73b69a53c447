//! What a site agrees to, whatever a run asks for: the table `[policy]` of `site.toml`.

use sheaf_common::run::{RunSpec, SecureAggregation};

/// The site's own rules. A server that lies can only ask for less than them, and is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Nothing leaves the site but in sums over several sites.
    pub require_secure_aggregation: bool,
    /// A sum is over at least so many sites.
    pub min_updates: u32,
}

impl Default for Policy {
    fn default() -> Self {
        Self { require_secure_aggregation: true, min_updates: 3 }
    }
}

impl Policy {
    /// Why the site takes no part in a run, if it does not: one sentence for the operator.
    pub fn objection(&self, spec: &RunSpec) -> Option<String> {
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
}
