//! A site that misbehaves: the attempt goes on or is abandoned, and the culprit is named where it can be known.

use super::*;
use crate::secagg::layout::Head;
use crate::secagg::mask::Checks;
use crate::secagg::message::RevealedShare;
use crate::secagg::secret::Secret;
use crate::secagg::server::WrongShares;

fn name(site: usize) -> ClientId {
    names(5)[site].parse().unwrap()
}

/// An attempt in which the answers of site 0 are altered.
fn altered(alter: impl Fn(&mut Answer)) -> (Attempt, Result<Unmasking, String>) {
    let params = params(&[9], 0, 16, 5);
    let mut attempt = Attempt::new(&params, contributions(5, 9, 0));
    loop {
        for site in attempt.server.awaited().clone() {
            let ask = attempt.server.ask(&site).unwrap();
            let Some(mut answer) = attempt.answer(&site, ask) else { continue };
            if site == name(0) {
                alter(&mut answer);
            }
            attempt.take(&site, answer);
        }
        match attempt.server.clone().proceed() {
            Ok(Next::Stage(server)) => attempt.server = server,
            Ok(Next::Open(unmasking)) => return (attempt, Ok(unmasking)),
            Err(aborted) => return (attempt, Err(aborted.to_string())),
        }
    }
}

fn rejected(alter: impl Fn(&mut Answer)) -> Rejected {
    let (attempt, outcome) = altered(alter);
    assert_eq!(attempt.rejections.len(), 1, "{:?}", attempt.rejections);
    assert_eq!(attempt.rejections[0].0, name(0));
    let unmasking = outcome.expect("the others go on");
    assert!(attempt.open(&unmasking).is_some());
    attempt.rejections[0].1.clone()
}

#[test]
fn what_is_wrong_on_its_face_costs_its_sender() {
    let forged = rejected(|answer| {
        if let Answer::Advertisement(entry) = answer {
            entry.body.nonce[0] ^= 1;
        }
    });
    assert_eq!(forged, Rejected::ForgedKeys);
    let missing = rejected(|answer| {
        if let Answer::Shares(shares) = answer {
            shares.pop();
        }
    });
    assert_eq!(missing, Rejected::Shares);
    let doubled = rejected(|answer| {
        if let Answer::Shares(shares) = answer {
            shares[1] = shares[0].clone();
        }
    });
    assert_eq!(doubled, Rejected::Shares);
    let nowhere = rejected(|answer| {
        if let Answer::Masked(blob) = answer {
            *blob = BlobId::of(b"nowhere");
        }
    });
    assert!(matches!(nowhere, Rejected::Length { found: 0, .. }));
    let unsigned = rejected(|answer| {
        if let Answer::Confirmed(signature) = answer {
            *signature = [7; 64].into();
        }
    });
    assert_eq!(unsigned, Rejected::Signature);
    let few = rejected(|answer| {
        if let Answer::Unmasking(shares) = answer {
            shares.pop();
        }
    });
    assert_eq!(few, Rejected::Revealed);
}

#[test]
fn a_wrong_share_is_found_and_its_giver_named() {
    let garbage = |answer: &mut Answer| {
        if let Answer::Unmasking(shares) = answer {
            for share in shares {
                share.share = Secret::new([5; 32]);
            }
        }
    };
    let (attempt, unmasking) = altered(garbage);
    let unmasking = unmasking.unwrap();
    let (_, _, culprits) = attempt.open(&unmasking).unwrap();
    assert!(!culprits.is_empty() && culprits.iter().all(|culprit| *culprit == name(0)), "{culprits:?}");
}

#[test]
fn without_a_spare_share_the_attempt_is_abandoned() {
    let params = params(&[9], 0, 16, 3);
    let mut attempt = Attempt::new(&params, contributions(3, 9, 0));
    for _ in 0..4 {
        attempt.stage(&BTreeSet::new());
        let Next::Stage(server) = attempt.server.clone().proceed().unwrap() else { unreachable!() };
        attempt.server = server;
    }
    for site in attempt.server.awaited().clone() {
        let ask = attempt.server.ask(&site).unwrap();
        let Some(Answer::Unmasking(mut shares)) = attempt.answer(&site, ask) else { unreachable!() };
        if site == name(1) {
            shares[2] = RevealedShare { of: shares[2].of.clone(), share: Secret::new([5; 32]) };
        }
        attempt.take(&site, Answer::Unmasking(shares));
    }
    let Next::Open(unmasking) = attempt.server.clone().proceed().unwrap() else { unreachable!() };
    assert_eq!(unmasking.open().err(), Some(WrongShares { of: name(2) }));
}

#[test]
fn shares_sealed_with_the_wrong_key_make_their_receivers_leave() {
    let (attempt, outcome) = altered(|answer| {
        if let Answer::Shares(shares) = answer {
            shares[0].sealed[0] ^= 1;
        }
    });
    // One site of five is lost with the share; the rest is enough.
    assert_eq!(attempt.refusals, [(name(1), Refusal::ForgedShare(name(0)))].into());
    assert!(attempt.open(&outcome.unwrap()).is_some());
}

#[test]
fn a_vector_that_is_no_masked_update_contradicts_the_checksum() {
    let params = params(&[9], 0, 16, 5);
    let mut attempt = Attempt::new(&params, contributions(5, 9, 0));
    let unmasking = attempt.run(&BTreeMap::new()).unwrap();
    let blob = unmasking.masked()[&name(3)];
    attempt.blobs.get_mut(&blob).unwrap()[4] ^= 1;
    assert!(attempt.open(&unmasking).is_none());
}

/// Whether the sum of sites with 120 examples among them opens when one changes its weight so that this is theirs,
/// and its checksum with it.
fn opens_with_weight(weight: u64) -> bool {
    let params = params(&[9], 0, 16, 5);
    let mut attempt = Attempt::new(&params, contributions(5, 9, 0));
    let unmasking = attempt.run(&BTreeMap::new()).unwrap();
    let change = Head { weight: weight.wrapping_sub(120), ..Head::default() };
    let check = Checks::new(&unmasking.transcript(), None).fold_head(9, &change).checksum;
    let vector = attempt.blobs.get_mut(&unmasking.masked()[&name(3)]).unwrap();
    let after = vector.len() - 8 * params.layout.slots();
    for (slot, added) in vector[after..].as_chunks_mut::<8>().0.iter_mut().zip(change.slots()) {
        *slot = u64::from_le_bytes(*slot).wrapping_add(added).to_le_bytes();
    }
    let checksum = &mut vector[after..].as_chunks_mut::<8>().0[5];
    *checksum = u64::from_le_bytes(*checksum).wrapping_add(check).to_le_bytes();
    attempt.open(&unmasking).is_some()
}

#[test]
fn a_weight_that_takes_the_others_away_contradicts_the_sum() {
    assert!(opens_with_weight(120) && opens_with_weight(121));
    assert!(!opens_with_weight(1), "fewer examples than sites");
    assert!(!opens_with_weight(5), "an example each, and more than that in the sum");
    assert!(!opens_with_weight(501), "more than the cap");
}

#[test]
fn answers_of_another_stage_a_stranger_or_a_second_time_are_not_awaited() {
    let params = params(&[9], 0, 16, 5);
    let mut attempt = Attempt::new(&params, contributions(5, 9, 0));
    let own = attempt.answer(&name(0), attempt.server.ask(&name(0)).unwrap()).unwrap();
    attempt.take(&name(0), Answer::Masked(BlobId::of(b"early")));
    attempt.take(&name(0), own.clone());
    attempt.take(&name(0), own.clone());
    // Somebody else's keys are no keys of site 1.
    attempt.take(&name(1), own);
    let reasons: Vec<Rejected> = attempt.rejections.iter().map(|(_, rejected)| rejected.clone()).collect();
    assert_eq!(reasons, [Rejected::NotAwaited, Rejected::NotAwaited, Rejected::ForgedKeys]);
}
