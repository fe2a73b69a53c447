//! The record of a round: of which run, by which program, from whose updates, and which model came of them. The server
//! signs it and chains it to the record before, and no site takes a model without the record that made it.
//!
//! Where updates are summed securely, a site whose update is in the sum goes further: it checks the published sum against
//! what the sites sent ([`crate::secagg::client::SumCheck`]), makes the new model of it by itself, and takes no other.
//! Where they are sent in the open the server could make any model of them, and a site only writes down what it said:
//! two sites that lay their audit logs side by side see whether they were told the same.

use serde::{Deserialize, Serialize};

use crate::blob::BlobId;
use crate::id::{ClientId, RunId};
use crate::message::TaskId;
use crate::secagg::client::{Party, Witness};
use crate::secagg::message::Signature;
use crate::secagg::transcript::{self, Digest};

/// What the server says that it did in a round.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Run, round and attempt.
    pub task: TaskId,
    /// Hash of all that is fixed in the run ([`crate::message::Job::origin`]).
    pub origin: BlobId,
    /// Version of the server's program.
    pub software: String,
    /// Whose updates are in the model.
    pub made_of: MadeOf,
    /// The global parameters before the round.
    pub model_in: BlobId,
    /// The global parameters after it.
    pub model_out: BlobId,
    /// Digest of the record of the round before; none in the first.
    pub previous: Option<Digest>,
}

impl Record {
    /// What the next record calls this one; the same of one in short.
    pub fn digest(&self) -> Digest {
        Digest::of("record", &self.in_short())
    }

    /// What the server signs; the same of one in short.
    pub fn signable(&self) -> Vec<u8> {
        transcript::signable("record", &self.in_short())
    }

    /// With a list of updates replaced by its digest.
    pub fn in_short(&self) -> Self {
        let Self { task, origin, software, made_of, model_in, model_out, previous } = self;
        let made_of = match made_of {
            MadeOf::Updates(updates) => MadeOf::Listed {
                sites: u32::try_from(updates.len()).unwrap_or(u32::MAX),
                list: Digest::of("updates", updates),
            },
            MadeOf::Sum(_) | MadeOf::Listed { .. } => made_of.clone(),
        };
        let (task, software) = (task.clone(), software.clone());
        let (origin, model_in, model_out, previous) = (*origin, *model_in, *model_out, *previous);
        Self { task, origin, software, made_of, model_in, model_out, previous }
    }

    /// The published sum, where updates are not sent in the open.
    pub fn sum(&self) -> Option<&Sum> {
        match &self.made_of {
            MadeOf::Sum(sum) => Some(sum),
            MadeOf::Updates(_) | MadeOf::Listed { .. } => None,
        }
    }
}

/// What a model was made of, besides the one before.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum MadeOf {
    /// A secure sum.
    Sum(Sum),
    /// Updates in the open, in the order of the sites' names.
    Updates(Vec<Counted>),
    /// The same in short: every site gets the record of every round, and there may be thousands.
    Listed {
        /// How many updates.
        sites: u32,
        /// Digest of the list.
        list: Digest,
    },
}

/// A secure sum, as it is published.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sum {
    /// T2 of the attempt, which binds terms, keys and senders.
    pub t2: Digest,
    /// The sites whose updates are in the sum, in the order of names.
    pub survivors: Vec<ClientId>,
    /// Ring elements as they travel, then the head's slots.
    pub blob: BlobId,
}

/// An update in the open that counts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Whose.
    pub site: ClientId,
    /// The delta.
    pub update: BlobId,
    /// Its weight in the mean.
    pub num_examples: u64,
}

/// A record and the server's signature over it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignedRecord {
    /// What is said.
    pub body: Record,
    /// The server's certificate, DER.
    pub certificate: Vec<u8>,
    /// By the certificate's key.
    pub signature: Signature,
}

/// What a site is asked to start from: the parameters after so many rounds of a run.
#[derive(Clone, Copy, Debug)]
pub struct Start<'a> {
    /// The run.
    pub run: &'a RunId,
    /// Hash of all that is fixed in it.
    pub origin: BlobId,
    /// Rounds completed.
    pub completed: u32,
    /// The parameters.
    pub model: BlobId,
}

impl SignedRecord {
    /// The same record as sites get it; the signature holds.
    pub fn in_short(&self) -> Self {
        let Self { body, certificate, signature } = self;
        Self { body: body.in_short(), certificate: certificate.clone(), signature: *signature }
    }

    /// Whether the federation's server signed it, and of the round that made what a site is to start from. Before round
    /// 1 there is none.
    pub fn check<'a>(
        record: Option<&'a Self>,
        start: Start<'_>,
        party: &dyn Party,
    ) -> Result<Option<&'a Record>, BadRecord> {
        let Some(Self { body, certificate, signature }) = record else {
            return if start.completed == 0 { Ok(None) } else { Err(BadRecord::Missing) };
        };
        let key = party.verify_server(certificate).map_err(|_| BadRecord::Forged)?;
        if !signature.is_valid(&key, &body.signable()) {
            return Err(BadRecord::Forged);
        }
        if body.task.run != *start.run || body.task.round != start.completed || body.origin != start.origin {
            return Err(BadRecord::OtherRound);
        }
        if body.model_out != start.model {
            return Err(BadRecord::OtherModel);
        }
        Ok(Some(body))
    }
}

/// The server's account of the rounds does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadRecord {
    /// There is none, or one where there can be none.
    #[error("the server does not show the record of the round that made this model")]
    Missing,
    /// The federation's server did not sign it.
    #[error("the record of the round before does not carry the signature of the federation's server")]
    Forged,
    /// It is of another run or round.
    #[error("the record that the server shows is not that of the round before")]
    OtherRound,
    /// Another model came of it.
    #[error("the model is not the one that the record of the round before names")]
    OtherModel,
    /// There are two records of one round.
    #[error("the server shows another record of the round before than it did earlier")]
    Rewritten,
    /// It does not follow the record that we know.
    #[error("the record of the round before does not follow the one that this site knows")]
    Unchained,
    /// It says that our update is in the sum, of which we know nothing.
    #[error("the record names this site in a sum that it did not take part in")]
    NotOurs,
    /// It is about another sum than the one that we took part in.
    #[error("the record is not about the sum that this site took part in")]
    OtherSum,
}

/// What a site remembers of one run's records.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The newest record that was found good: its round and digest.
    newest: Option<(u32, Digest)>,
    /// What checks the sum that our newest update is in, until it is checked.
    witness: Option<Witness>,
}

impl History {
    /// Our update is in a sum, or may be.
    pub fn took_part(&mut self, witness: Witness) {
        self.witness = Some(witness);
    }

    /// Judges the record of a secure sum that comes with a task. Gives back what to check the sum with when our update
    /// is in it: the record counts once that was done ([`Self::checked`]).
    pub fn judge(
        &mut self,
        start: Start<'_>,
        record: Option<&SignedRecord>,
        party: &dyn Party,
    ) -> Result<Option<Witness>, BadRecord> {
        let Some(body) = SignedRecord::check(record, start, party)? else { return Ok(None) };
        let (completed, sum) = (start.completed, body.sum().ok_or(BadRecord::OtherSum)?);
        let digest = body.digest();
        match self.newest {
            Some((round, known)) if round == completed && known != digest => {
                return Err(BadRecord::Rewritten);
            }
            Some((round, _)) if round > completed => return Err(BadRecord::OtherRound),
            Some((round, known))
                if completed.checked_sub(1) == Some(round) && body.previous != Some(known) =>
            {
                return Err(BadRecord::Unchained);
            }
            Some(_) | None => {}
        }
        let ours = self.witness.as_ref().filter(|witness| witness.params.task == body.task);
        if let Some(witness) = ours {
            return if witness.is_of(body, sum) {
                Ok(Some(witness.clone()))
            } else {
                Err(BadRecord::OtherSum)
            };
        }
        if sum.survivors.contains(party.name()) && self.newest != Some((completed, digest)) {
            return Err(BadRecord::NotOurs);
        }
        self.newest = Some((completed, digest));
        Ok(None)
    }

    /// The sum of this record was checked and its model made: gives back the model before, which is no longer
    /// needed for that.
    pub fn checked(&mut self, record: &Record) -> Option<BlobId> {
        self.newest = Some((record.task.round, record.digest()));
        self.witness.take().map(|witness| witness.params.model)
    }

    /// The run is over without another record: gives back the model that is no longer needed.
    pub fn ended(&mut self) -> Option<BlobId> {
        self.witness.take().map(|witness| witness.params.model)
    }

    /// Digest of the newest record, which the terms of the next attempt name.
    pub fn digest(&self) -> Option<Digest> {
        self.newest.map(|(_, digest)| digest)
    }

    /// Whether these parameters are needed to check a sum.
    pub fn needs(&self, model: BlobId) -> bool {
        self.witness.as_ref().is_some_and(|witness| witness.params.model == model)
    }
}

impl Witness {
    /// Whether a record is about the sum that we took part in.
    fn is_of(&self, record: &Record, sum: &Sum) -> bool {
        let survivors = self.survivors.as_ref().is_none_or(|signed| *signed == sum.survivors);
        survivors && self.t2 == sum.t2 && self.params.model == record.model_in
    }
}
