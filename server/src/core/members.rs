//! The cohort of a round and what became of each member's answer, with how many of each kind there are: a round looks at
//! that after every input, and its members may be ten thousand.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use sheaf_common::id::ClientId;
use sheaf_common::status::Answer;

use super::verdict::Accepted;

/// A member of the cohort.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) enum Member {
    Pending,
    Accepted(Box<Accepted>),
    /// With secure aggregation: its update is ready, and stays at the site.
    Ready,
    Rejected(String),
    Declined(String),
}

/// All members. What is written down is who they are; the rest follows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(from = "BTreeMap<ClientId, Member>", into = "BTreeMap<ClientId, Member>")]
pub(super) struct Members {
    all: BTreeMap<ClientId, Member>,
    /// Who has not answered.
    pending: usize,
    /// Whose updates count.
    counting: usize,
}

impl Member {
    pub(super) fn counts(&self) -> bool {
        matches!(self, Self::Accepted(_) | Self::Ready)
    }

    pub(super) fn answer(&self) -> Answer {
        match self {
            Self::Pending => Answer::Pending,
            Self::Ready => Answer::Ready,
            Self::Accepted(_) => Answer::Accepted,
            Self::Rejected(reason) => Answer::Rejected(reason.clone()),
            Self::Declined(reason) => Answer::Declined(reason.clone()),
        }
    }
}

impl Members {
    /// A cohort of which nobody has answered.
    pub(super) fn of(cohort: BTreeSet<ClientId>) -> Self {
        cohort.into_iter().map(|site| (site, Member::Pending)).collect::<BTreeMap<_, _>>().into()
    }

    pub(super) fn all(&self) -> &BTreeMap<ClientId, Member> {
        &self.all
    }

    /// How many have not answered.
    pub(super) fn pending(&self) -> usize {
        self.pending
    }

    /// How many updates count.
    pub(super) fn counting(&self) -> usize {
        self.counting
    }

    /// What is now true of a member; nobody becomes one.
    pub(super) fn set(&mut self, site: &ClientId, to: Member) {
        let Some(member) = self.all.get_mut(site) else { return };
        self.pending -= usize::from(*member == Member::Pending);
        self.counting -= usize::from(member.counts());
        self.pending += usize::from(to == Member::Pending);
        self.counting += usize::from(to.counts());
        *member = to;
    }
}

impl From<BTreeMap<ClientId, Member>> for Members {
    fn from(all: BTreeMap<ClientId, Member>) -> Self {
        let pending = all.values().filter(|member| **member == Member::Pending).count();
        let counting = all.values().filter(|member| member.counts()).count();
        Self { all, pending, counting }
    }
}

impl From<Members> for BTreeMap<ClientId, Member> {
    fn from(members: Members) -> Self {
        members.all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_counted_is_what_is_there() {
        let site = |name: &str| -> ClientId { name.parse().unwrap() };
        let mut members = Members::of(["a", "b", "c"].map(site).into());
        assert_eq!((members.pending(), members.counting()), (3, 0));
        let none = || Member::Declined("no".into());
        for (name, member) in [("a", Member::Ready), ("b", none()), ("a", none()), ("d", Member::Ready)] {
            members.set(&site(name), member);
            assert_eq!(members, Members::from(members.all().clone()), "{name}");
        }
        assert_eq!((members.pending(), members.counting()), (1, 0));
        assert!(!members.all().contains_key(&site("d")));
    }
}
