//! The masked vector is being made or has left; the survivors are awaited.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::confirmed::Confirmed;
use super::released::Witness;
use super::roster::Roster;
use super::shared::same_survivors;
use super::{Party, Refusal};
use crate::id::ClientId;
use crate::secagg::mask::MaskPlan;
use crate::secagg::message::Answer;
use crate::secagg::params::RoundParams;
use crate::secagg::secret::Secret;
use crate::secagg::transcript::{self, Digest};

/// Shares of one peer's two secrets, of which at most one is ever given away.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) beta: Secret,
    pub(super) sigma: Secret,
}

/// What we hold of the senders.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Masking {
    pub(super) roster: Roster,
    pub(super) senders: Vec<ClientId>,
    /// By rank.
    pub(super) held: BTreeMap<u32, Held>,
    pub(super) t2: Digest,
    pub(super) checks: Option<[[u8; 16]; 2]>,
    /// Gone once the vector is made.
    plan: Option<MaskPlan>,
    released_with: Vec<Digest>,
}

impl Masking {
    pub(super) fn new(
        roster: Roster,
        senders: Vec<ClientId>,
        held: BTreeMap<u32, Held>,
        plan: MaskPlan,
        released_with: Vec<Digest>,
    ) -> Self {
        let (t2, checks) = (plan.t2, plan.checks);
        Self { roster, senders, held, t2, checks, plan: Some(plan), released_with }
    }

    pub(super) fn plan(&self) -> Option<(&RoundParams, &MaskPlan)> {
        self.plan.as_ref().map(|plan| (&self.roster.params, plan))
    }

    /// Checks the sum that our vector is in, among the `survivors` that we signed.
    pub(super) fn witness(&self, survivors: Option<Vec<ClientId>>) -> Option<Witness> {
        let params = self.plan.is_none().then(|| self.roster.params.clone())?;
        Some(Witness { params, t2: self.t2, survivors, checks: self.checks })
    }

    pub(super) fn done(&mut self) {
        self.plan = None;
    }

    pub(super) fn confirm(
        self,
        survivors: Vec<ClientId>,
        party: &dyn Party,
    ) -> Result<(Confirmed, Answer), Refusal> {
        if self.plan.is_some() {
            return Err(Refusal::NotMasked);
        }
        let sent = |rank: u32| self.senders.binary_search(&self.roster.member(rank).site).is_ok();
        self.roster.ranks(&survivors, sent, Refusal::Survivors)?;
        if !same_survivors(&self.released_with, &survivors) {
            return Err(Refusal::OtherSurvivors);
        }
        let message = transcript::survivors(&self.t2, &survivors);
        let signature = party.sign(&message).map_err(Refusal::CannotSign)?;
        Ok((Confirmed { masking: self, survivors }, Answer::Confirmed(signature)))
    }
}
