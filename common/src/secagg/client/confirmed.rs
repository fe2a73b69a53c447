//! We signed the survivors; a quorum's signatures over the same are awaited.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use super::Refusal;
use super::masking::Masking;
use super::released::{Released, Witness};
use crate::id::ClientId;
use crate::secagg::message::{Answer, RevealedShare, Signature};
use crate::secagg::transcript;

/// What we signed.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Confirmed {
    pub(super) masking: Masking,
    pub(super) survivors: Vec<ClientId>,
}

impl Confirmed {
    /// Gives one share per peer: of the self mask of a survivor, of the mask key of a dropout.
    pub(super) fn release(self, signatures: &[(ClientId, Signature)]) -> Result<(Released, Answer), Refusal> {
        let Self { masking, survivors } = self;
        let message = transcript::survivors(&masking.t2, &survivors);
        let signers: BTreeSet<&ClientId> = signatures
            .iter()
            .filter(|(site, signature)| {
                let rank = masking.roster.rank_of(site).filter(|_| survivors.contains(site));
                let key = rank.map(|rank| &masking.roster.member(rank).verifying_key);
                key.is_some_and(|key| signature.is_valid(key, &message))
            })
            .map(|(site, _)| site)
            .collect();
        let needed = masking.roster.quorum;
        if signers.len() < needed {
            return Err(Refusal::NoQuorum { found: signers.len(), needed });
        }
        let shares = masking
            .held
            .iter()
            .map(|(rank, held)| {
                let of = masking.roster.member(*rank).site.clone();
                let survived = survivors.binary_search(&of).is_ok();
                RevealedShare { share: if survived { held.beta.clone() } else { held.sigma.clone() }, of }
            })
            .collect();
        let witness = Witness {
            params: masking.roster.params,
            t2: masking.t2,
            survivors: Some(survivors),
            checks: masking.checks,
        };
        Ok((Released { witness }, Answer::Unmasking(shares)))
    }
}
