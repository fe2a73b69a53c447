//! Our keys are shown; the roster of everybody's is awaited.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha20Rng;
use serde::{Deserialize, Serialize};

use super::roster::Roster;
use super::shared::Shared;
use super::{Expectation, Party, Refusal};
use crate::id::ClientId;
use crate::secagg::message::{Advertisement, Answer, KemPublic, SignedAdvertisement};
use crate::secagg::params::RoundParams;
use crate::secagg::secret::Secret;
use crate::secagg::transcript::{self, Digest};
use crate::secagg::{kem, keys};

/// The secrets of one attempt and what we showed of them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Advertised {
    params: RoundParams,
    sites: Option<Vec<ClientId>>,
    min_updates: u32,
    released_with: Vec<Digest>,
    own: SignedAdvertisement,
    secrets: Secrets,
}

/// What only we know.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(super) struct Secrets {
    /// Of the self mask: revealed, by shares, when we survive.
    pub(super) beta: Secret,
    /// Of the pairwise masks: revealed, by shares, when we drop out.
    pub(super) sigma: Secret,
    /// Opens what peers seal for us. Never revealed.
    pub(super) share: Secret,
    /// Seeds the polynomials, our part of the check key, and the rounding.
    pub(super) seed: Secret,
}

impl Advertised {
    pub(super) fn join(
        params: RoundParams,
        expectation: &Expectation,
        party: &dyn Party,
        entropy: [u8; 32],
    ) -> Result<(Self, Answer), Refusal> {
        compare(&params, &expectation.params)?;
        params.check()?;
        let mut rng = ChaCha20Rng::from_seed(entropy);
        let secrets = Secrets {
            beta: Secret::random_scalar(&mut rng),
            sigma: Secret::random_scalar(&mut rng),
            share: Secret::new(rng.random()),
            seed: Secret::new(rng.random()),
        };
        let t0 = params.digest();
        let (_, mask_key) = keys::mask_key_pair(&secrets.sigma);
        let body = Advertisement {
            site: party.name().clone(),
            certificate: party.certificate(),
            share_key: keys::public(&secrets.share),
            mask_key,
            commitment: keys::commitment(&t0.0, &secrets.beta),
            post_quantum: params.post_quantum.then(|| {
                let [share, mask] = [kem::share_keys(&secrets.share), kem::mask_keys(&secrets.sigma)];
                Box::new(KemPublic { share: share.public(), mask: mask.public() })
            }),
            nonce: rng.random(),
        };
        let message = transcript::advertisement(&t0, &body);
        let signature = party.sign(&message).map_err(Refusal::CannotSign)?;
        let own = SignedAdvertisement { body, signature };
        let state = Self {
            params,
            sites: expectation.sites.clone(),
            min_updates: expectation.min_updates,
            released_with: expectation.released_with.clone(),
            own: own.clone(),
            secrets,
        };
        Ok((state, Answer::Advertisement(Box::new(own))))
    }

    pub(super) fn share(
        self,
        entries: &[SignedAdvertisement],
        party: &dyn Party,
    ) -> Result<(Shared, Answer), Refusal> {
        let Self { params, sites, min_updates, released_with, own, secrets } = self;
        let roster = Roster::verify(params, &own, sites.as_deref(), min_updates, entries, party)?;
        Shared::start(roster, secrets, released_with)
    }
}

/// The server's terms against what we know by ourselves; the ranges and the ring are its to choose.
fn compare(offered: &RoundParams, known: &RoundParams) -> Result<(), Refusal> {
    let terms = [
        ("federation", offered.federation == known.federation),
        ("task", offered.task == known.task),
        ("run", offered.origin == known.origin),
        ("global model", offered.model == known.model),
        ("record of the round before", offered.previous == known.previous),
        ("layout", offered.layout == known.layout),
        ("quantization", offered.encoding.bits() == known.encoding.bits()),
        ("weight cap", offered.weight_cap == known.weight_cap),
        ("min_updates", offered.min_updates == known.min_updates),
        ("max_colluding", offered.max_colluding == known.max_colluding),
        ("graph", offered.graph == known.graph),
        ("post_quantum", offered.post_quantum == known.post_quantum),
    ];
    match terms.iter().find(|(_, same)| !same) {
        Some((term, _)) => Err(Refusal::Terms(term)),
        None => Ok(()),
    }
}
