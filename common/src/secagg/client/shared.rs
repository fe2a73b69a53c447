//! Our secrets are shared out, sealed; the peers' shares are awaited.

use std::collections::BTreeMap;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::advertised::Secrets;
use super::masking::{Held, Masking};
use super::roster::Roster;
use super::{Refusal, survivors_digest};
use crate::id::ClientId;
use crate::run::GraphKind;
use crate::secagg::mask::MaskPlan;
use crate::secagg::message::{Answer, Encapsulated, SealedShare};
use crate::secagg::prg::Sign;
use crate::secagg::secret::Secret;
use crate::secagg::transcript::{self, Digest};
use crate::secagg::{kem, keys, seal, shamir};

/// Bytes of a site's part of the check key.
const KAPPA: usize = 16;

/// What we sent and hold.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Shared {
    roster: Roster,
    secrets: Secrets,
    released_with: Vec<Digest>,
    /// Our own shares of our own secrets, when we are one of their holders.
    own: Option<Held>,
    kappa: [u8; KAPPA],
    noise: [u8; 16],
}

impl Shared {
    pub(super) fn start(
        roster: Roster,
        secrets: Secrets,
        released_with: Vec<Digest>,
    ) -> Result<(Self, Answer), Refusal> {
        let mut rng = ChaCha20Rng::from_seed(*secrets.seed.bytes());
        let (kappa, noise) = (rng.random(), rng.random());
        let holders = roster.graph.holders(roster.rank);
        let xs: Vec<u32> = holders.iter().map(|rank| rank + 1).collect();
        let threshold = roster.graph.threshold() as usize;
        let betas = shamir::split(&secrets.beta, threshold, &xs, &mut rng);
        let sigmas = shamir::split(&secrets.sigma, threshold, &xs, &mut rng);
        let (mut own, mut answer) = (None, Vec::new());
        for ((holder, beta), sigma) in holders.into_iter().zip(betas).zip(sigmas) {
            let held = Held { beta, sigma };
            if holder == roster.rank {
                own = Some(held);
                continue;
            }
            let peer = roster.member(holder);
            let small = || Refusal::SmallOrder(peer.site.clone());
            let dh = keys::agree(&secrets.share, &peer.share_key).ok_or_else(small)?;
            let (encapsulated, secret) = encapsulate(&roster, &secrets, holder)?.unzip();
            let key = keys::share_key(&dh, secret.as_ref(), &roster.t1.0, roster.rank, holder);
            let plain = plaintext(&held, &kappa, encapsulated.as_deref());
            let sealed = seal::seal(&key, &roster.t1.0, roster.rank, holder, &plain);
            answer.push(SealedShare { peer: peer.site.clone(), sealed, encapsulated });
        }
        Ok((Self { roster, secrets, released_with, own, kappa, noise }, Answer::Shares(answer)))
    }

    pub(super) fn mask(self, senders: Vec<ClientId>, shares: Vec<SealedShare>) -> Result<Masking, Refusal> {
        let Self { roster, secrets, released_with, own, kappa, noise } = self;
        let ranks = roster.ranks(&senders, |_| true, Refusal::Senders)?;
        let t2 = transcript::senders(&roster.t1, &senders);
        let mut held = BTreeMap::new();
        let mut kappas = BTreeMap::from([(roster.rank, kappa)]);
        held.extend(own.map(|own| (roster.rank, own)));
        let (share_kem, mask_kem) = (kem::share_keys(&secrets.share), kem::mask_keys(&secrets.sigma));
        let mut mask_secrets = BTreeMap::new();
        for SealedShare { peer, sealed, encapsulated } in shares {
            let from = roster.rank_of(&peer).filter(|rank| ranks.binary_search(rank).is_ok());
            let from = from.ok_or(Refusal::Shares)?;
            let forged = || Refusal::ForgedShare(peer.clone());
            let dh = keys::agree(&secrets.share, &roster.member(from).share_key)
                .ok_or_else(|| Refusal::SmallOrder(peer.clone()))?;
            if encapsulated.is_some() != roster.params.post_quantum {
                return Err(Refusal::PostQuantum(peer.clone()));
            }
            let secret = encapsulated
                .as_ref()
                .map(|both| share_kem.decapsulate(&both.share).ok_or_else(forged))
                .transpose()?;
            let key = keys::share_key(&dh, secret.as_ref(), &roster.t1.0, from, roster.rank);
            let plain = seal::open(&key, &roster.t1.0, from, roster.rank, &sealed).ok_or_else(forged)?;
            let (share, kappa) = parse(&plain, encapsulated.as_deref()).ok_or_else(forged)?;
            if let Some(both) = encapsulated.filter(|_| from < roster.rank) {
                mask_secrets.insert(from, mask_kem.decapsulate(&both.mask).ok_or_else(forged)?);
            }
            if held.insert(from, share).is_some() {
                return Err(Refusal::Shares);
            }
            kappas.insert(from, kappa);
        }
        let neighbours: Vec<u32> = roster
            .graph
            .neighbours(roster.rank)
            .into_iter()
            .filter(|rank| ranks.binary_search(rank).is_ok())
            .collect();
        if !neighbours.iter().all(|rank| held.contains_key(rank))
            || held.len() != neighbours.len() + usize::from(held.contains_key(&roster.rank))
        {
            return Err(Refusal::Shares);
        }
        let mut masks = vec![(Sign::Add, keys::self_mask(&secrets.beta, &t2.0, roster.rank))];
        let (secret, _) = keys::mask_key_pair(&secrets.sigma);
        for peer in neighbours {
            let member = roster.member(peer);
            let dh = keys::agree(&secret, &member.mask_key)
                .ok_or_else(|| Refusal::SmallOrder(member.site.clone()))?;
            let sign = if roster.rank < peer { Sign::Add } else { Sign::Subtract };
            let (low, high) = (roster.rank.min(peer), roster.rank.max(peer));
            if let Some(theirs) = member.post_quantum.as_deref().filter(|_| roster.rank < peer) {
                let ours = kem::encapsulate(&theirs.mask, &secrets.sigma);
                let (_, ours) = ours.ok_or_else(|| Refusal::PostQuantum(member.site.clone()))?;
                mask_secrets.insert(peer, ours);
            }
            masks.push((sign, keys::pair_mask(&dh, mask_secrets.get(&peer), &t2.0, low, high)));
        }
        let checks = (roster.params.graph == GraphKind::Complete).then(|| check_keys(&t2, &kappas));
        let plan = MaskPlan { masks, checks, t2, noise };
        Ok(Masking::new(roster, senders, held, plan, released_with))
    }
}

/// Whether `survivors` are those with whom the update was summed before, if it was.
pub(super) fn same_survivors(released_with: &[Digest], survivors: &[ClientId]) -> bool {
    let now = survivors_digest(survivors);
    released_with.iter().all(|before| *before == now)
}

/// The keys of the checks that all senders know and the server does not.
fn check_keys(t2: &Digest, kappas: &BTreeMap<u32, [u8; KAPPA]>) -> [[u8; 16]; 2] {
    let mut hash = Sha256::new_with_prefix(t2.0);
    for kappa in kappas.values() {
        hash.update(kappa);
    }
    let key: [u8; 32] = hash.finalize().into();
    let half = |from: usize| std::array::from_fn(|at| key[from + at]);
    [half(0), half(16)]
}

/// What a holder gets of us by ML-KEM, and the secret that goes into the key of its shares.
fn encapsulate(
    roster: &Roster,
    secrets: &Secrets,
    holder: u32,
) -> Result<Option<(Box<Encapsulated>, Secret)>, Refusal> {
    let peer = roster.member(holder);
    let Some(theirs) = &peer.post_quantum else { return Ok(None) };
    let bad = || Refusal::PostQuantum(peer.site.clone());
    let (share, secret) = kem::encapsulate(&theirs.share, &secrets.seed).ok_or_else(bad)?;
    // Made of the very secret that the server gets back when we drop out, so that it can be made again.
    let mask = if roster.rank < holder {
        kem::encapsulate(&theirs.mask, &secrets.sigma).ok_or_else(bad)?.0
    } else {
        Vec::new()
    };
    Ok(Some((Box::new(Encapsulated { share, mask }), secret)))
}

/// The mask's encapsulation travels in the open, since the server needs it when the receiver drops out; its hash is
/// sealed, so that the server cannot put another in its place.
fn plaintext(
    held: &Held,
    kappa: &[u8; KAPPA],
    encapsulated: Option<&Encapsulated>,
) -> zeroize::Zeroizing<Vec<u8>> {
    let hash = encapsulated.map(|both| Sha256::digest(&both.mask));
    let hash = hash.as_ref().map_or(&[][..], |hash| hash.as_slice());
    zeroize::Zeroizing::new([held.beta.bytes().as_slice(), held.sigma.bytes(), kappa, hash].concat())
}

fn parse(plain: &[u8], encapsulated: Option<&Encapsulated>) -> Option<(Held, [u8; KAPPA])> {
    let (beta, rest) = plain.split_first_chunk::<32>()?;
    let (sigma, rest) = rest.split_first_chunk::<32>()?;
    let (kappa, hash) = rest.split_first_chunk::<KAPPA>()?;
    let expected = encapsulated.map(|both| Sha256::digest(&both.mask));
    let same = hash == expected.as_ref().map_or(&[][..], |hash| hash.as_slice());
    same.then(|| (Held { beta: Secret::new(*beta), sigma: Secret::new(*sigma) }, *kappa))
}
