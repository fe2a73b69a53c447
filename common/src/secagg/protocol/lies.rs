//! A server that lies: each lie is refused by the sites, by name, and nothing more leaves them.

use super::*;
use crate::secagg::client::Witness;
use crate::secagg::message::SignedAdvertisement;
use crate::secagg::params::BadParams;

/// An attempt of five sites that has come to the question of this stage.
fn at(stage: usize) -> Attempt {
    let params = params(&[9], 0, 16, 5);
    let mut attempt = Attempt::new(&params, contributions(5, 9, 0));
    for _ in 0..stage {
        attempt.stage(&BTreeSet::new());
        let Next::Stage(server) = attempt.server.clone().proceed().unwrap() else { unreachable!() };
        attempt.server = server;
    }
    attempt
}

fn name(site: usize) -> ClientId {
    names(5)[site].parse().unwrap()
}

/// The honest question to a site.
fn ask(attempt: &Attempt, site: usize) -> Ask {
    attempt.server.ask(&name(site)).unwrap()
}

/// A site's refusal of a question, after which it answers nothing any more.
fn refusal(attempt: &mut Attempt, site: usize, ask: Ask) -> Refusal {
    assert_eq!(attempt.answer(&name(site), ask), None);
    let refusal = attempt.refusals[&name(site)].clone();
    let honest = attempt.server.ask(&name(site)).unwrap();
    assert_eq!(attempt.answer(&name(site), honest), None, "it answers after {refusal:?}");
    refusal
}

fn roster(attempt: &Attempt) -> Vec<SignedAdvertisement> {
    let Ask::ShareKeys(roster) = ask(attempt, 0) else { unreachable!() };
    roster.to_vec()
}

fn join(change: impl FnOnce(&mut RoundParams)) -> Refusal {
    let honest = params(&[9], 0, 16, 5);
    let mut offered = honest.clone();
    change(&mut offered);
    Client::join(offered, &expectation(&honest), &Site::new("site-000"), [1; 32]).unwrap_err()
}

#[test]
fn other_terms_than_the_runs() {
    assert_eq!(join(|p| p.model = BlobId::of(b"crafted")), Refusal::Terms("global model"));
    assert_eq!(join(|p| p.origin = BlobId::of(b"other run")), Refusal::Terms("run"));
    assert_eq!(join(|p| p.task.round = 2), Refusal::Terms("task"));
    assert_eq!(join(|p| p.min_updates = 1), Refusal::Terms("min_updates"));
    assert_eq!(join(|p| p.max_colluding = Some(0)), Refusal::Terms("max_colluding"));
    assert_eq!(join(|p| p.weight_cap = 1), Refusal::Terms("weight cap"));
    assert_eq!(join(|p| p.graph = GraphKind::Regular), Refusal::Terms("graph"));
    assert_eq!(join(|p| p.layout.metrics = 7), Refusal::Terms("layout"));
    assert_eq!(join(|p| p.federation = "other".parse().unwrap()), Refusal::Terms("federation"));
    assert_eq!(join(|p| p.ranges = vec![f32::NAN]), Refusal::Params(BadParams::Ranges));
    assert_eq!(join(|p| p.ranges = Vec::new()), Refusal::Params(BadParams::Ranges));
}

#[test]
fn a_roster_with_swapped_keys() {
    let mut attempt = at(1);
    let mut lie = roster(&attempt);
    lie[1].body.mask_key = lie[2].body.mask_key;
    assert_eq!(refusal(&mut attempt, 0, Ask::ShareKeys(lie.into())), Refusal::ForgedKeys(name(1)));
    let mut lie = roster(&attempt);
    lie[3].body.share_key = [9; 32];
    assert_eq!(refusal(&mut attempt, 3, Ask::ShareKeys(lie.into())), Refusal::NotOurKeys);
}

#[test]
fn a_shrunken_disordered_or_padded_roster() {
    let mut attempt = at(1);
    let mut lie = roster(&attempt);
    lie.truncate(1);
    assert_eq!(refusal(&mut attempt, 0, Ask::ShareKeys(lie.into())), Refusal::NoThreshold(1));
    let mut lie = roster(&attempt);
    lie.swap(3, 4);
    assert_eq!(refusal(&mut attempt, 1, Ask::ShareKeys(lie.into())), Refusal::RosterOrder);
    let mut lie = roster(&attempt);
    lie.insert(4, lie[4].clone());
    assert_eq!(refusal(&mut attempt, 2, Ask::ShareKeys(lie.into())), Refusal::RosterOrder);
}

#[test]
fn a_roster_below_what_the_site_asks_for() {
    let attempt = at(1);
    let params = params(&[9], 0, 16, 5);
    let strict = Expectation { min_updates: 4, ..expectation(&params) };
    let site = Site::new("site-000");
    let entropy = Sha256::digest("entropy of site-000").into();
    let mut client = Client::join(params, &strict, &site, entropy).unwrap();
    let lie: Vec<_> = roster(&attempt).into_iter().take(3).collect();
    assert_eq!(
        client.handle(Ask::ShareKeys(lie.into()), &site),
        Err(Refusal::TooFew { found: 3, needed: 4 })
    );
}

#[test]
fn strangers_and_other_authorities_in_the_roster() {
    let params = params(&[9], 0, 16, 5);
    let site = Site::new("site-000");
    let entropy = [3; 32];
    let own = Client::join(params.clone(), &expectation(&params), &site, entropy).unwrap();
    let Some(Answer::Advertisement(own)) = own.answer() else { unreachable!() };
    let entry = |name: &str, ca: &str| {
        let party = Site { certificate: certificate(name, ca), ..Site::new(name) };
        let client = Client::join(params.clone(), &expectation(&params), &party, [4; 32]).unwrap();
        let Some(Answer::Advertisement(entry)) = client.answer() else { unreachable!() };
        *entry
    };
    let told = |sites: Option<Vec<ClientId>>, others: [SignedAdvertisement; 2]| {
        let expectation = Expectation { sites, ..expectation(&params) };
        let mut client = Client::join(params.clone(), &expectation, &site, entropy).unwrap();
        let roster = [vec![(*own).clone()], others.to_vec()].concat();
        client.handle(Ask::ShareKeys(roster.into()), &site).unwrap_err()
    };
    let [one, two] = [entry("site-001", "ca"), entry("site-002", "ca")];
    let listed = vec![name(0), name(1)];
    assert_eq!(told(Some(listed), [one.clone(), two]), Refusal::Stranger(name(2)));
    let forged = told(None, [one.clone(), entry("site-002", "another ca")]);
    assert!(matches!(forged, Refusal::Certificate { site, .. } if site == name(2)));
    // A good certificate of somebody else under this name.
    let mut posing = entry("site-003", "ca");
    posing.body.site = name(2);
    assert_eq!(told(None, [one, posing]), Refusal::ForgedKeys(name(2)));
}

#[test]
fn a_small_order_key_that_a_colluding_site_signed() {
    let mut attempt = at(1);
    let mut lie = roster(&attempt);
    lie[4].body.share_key = [0; 32];
    let t0 = params(&[9], 0, 16, 5).digest();
    let message = crate::secagg::transcript::advertisement(&t0, &lie[4].body);
    lie[4].signature = Site::new("site-004").sign(&message).unwrap();
    assert_eq!(refusal(&mut attempt, 0, Ask::ShareKeys(lie.into())), Refusal::SmallOrder(name(4)));
}

#[test]
fn shares_that_were_rerouted_reflected_left_out_or_garbled() {
    let shares = |attempt: &Attempt, site| match ask(attempt, site) {
        Ask::MaskInput { senders, shares } => (senders, shares),
        Ask::Advertise(_) | Ask::ShareKeys(_) | Ask::Confirm(_) | Ask::Unmask(_) => unreachable!(),
    };
    let mut attempt = at(2);
    let (senders, mut lie) = shares(&attempt, 0);
    lie[0] = shares(&attempt, 2).1[0].clone();
    let lie = Ask::MaskInput { senders: senders.clone(), shares: lie };
    assert!(matches!(refusal(&mut attempt, 0, lie), Refusal::Shares | Refusal::ForgedShare(_)));
    let (_, mut lie) = shares(&attempt, 1);
    lie[1].sealed = shares(&attempt, 3).1[2].sealed.clone();
    let lie = Ask::MaskInput { senders: senders.clone(), shares: lie };
    assert_eq!(refusal(&mut attempt, 1, lie), Refusal::ForgedShare(name(2)));
    let (_, mut lie) = shares(&attempt, 2);
    lie.pop();
    let lie = Ask::MaskInput { senders: senders.clone(), shares: lie };
    assert_eq!(refusal(&mut attempt, 2, lie), Refusal::Shares);
    let (_, mut lie) = shares(&attempt, 3);
    lie[0].sealed[5] ^= 1;
    let lie = Ask::MaskInput { senders, shares: lie };
    assert_eq!(refusal(&mut attempt, 3, lie), Refusal::ForgedShare(name(0)));
}

#[test]
fn what_was_encapsulated_for_a_mask_and_exchanged_on_the_way() {
    let mut params = params(&[9], 0, 16, 5);
    params.post_quantum = true;
    let mut attempt = Attempt::new(&params, contributions(5, 9, 0));
    for _ in 0..2 {
        attempt.stage(&BTreeSet::new());
        let Next::Stage(server) = attempt.server.clone().proceed().unwrap() else { unreachable!() };
        attempt.server = server;
    }
    // The server encapsulates a secret of its own to the site's public key.
    let Ask::MaskInput { shares, .. } = ask(&attempt, 3) else { unreachable!() };
    let other = shares[0].encapsulated.clone().unwrap();
    let Ask::MaskInput { senders, shares: mut swapped } = ask(&attempt, 4) else { unreachable!() };
    swapped[0].encapsulated.as_mut().unwrap().mask = other.mask;
    let swapped = Ask::MaskInput { senders, shares: swapped };
    assert_eq!(refusal(&mut attempt, 4, swapped), Refusal::ForgedShare(name(0)));
    let Ask::MaskInput { senders, mut shares } = ask(&attempt, 2) else { unreachable!() };
    shares[1].encapsulated = None;
    let without = Ask::MaskInput { senders, shares };
    assert_eq!(refusal(&mut attempt, 2, without), Refusal::PostQuantum(name(1)));
}

#[test]
fn survivors_that_are_too_few_without_us_or_strangers() {
    let mut attempt = at(3);
    let few = Ask::Confirm(vec![name(0), name(1)]);
    assert_eq!(refusal(&mut attempt, 0, few), Refusal::TooFew { found: 2, needed: 4 });
    let others = Ask::Confirm(vec![name(0), name(2), name(3), name(4)]);
    assert_eq!(refusal(&mut attempt, 1, others), Refusal::Survivors);
    let stranger = Ask::Confirm([name(0), name(1), name(2), "zoe".parse().unwrap()].to_vec());
    assert_eq!(refusal(&mut attempt, 2, stranger), Refusal::Survivors);
}

#[test]
fn different_survivors_told_to_different_sites() {
    let mut attempt = at(3);
    let all: Vec<ClientId> = (0..5).map(name).collect();
    let mut signatures = Vec::new();
    for site in 0..5 {
        let told = if site < 3 { all.clone() } else { all[1..].to_vec() };
        let Some(Answer::Confirmed(signature)) = attempt.answer(&name(site), Ask::Confirm(told)) else {
            panic!("{:?}", attempt.refusals);
        };
        signatures.push((name(site), signature));
    }
    assert_eq!(attempt.answer(&name(0), Ask::Unmask(signatures.clone())), None);
    assert_eq!(attempt.refusals[&name(0)], Refusal::NoQuorum { found: 3, needed: 4 });
    // The same signature many times is one.
    let often =
        vec![signatures[3].clone(), signatures[3].clone(), signatures[4].clone(), signatures[4].clone()];
    assert_eq!(attempt.answer(&name(4), Ask::Unmask(often)), None);
    assert_eq!(attempt.refusals[&name(4)], Refusal::NoQuorum { found: 2, needed: 4 });
}

#[test]
fn both_secrets_of_one_site() {
    let mut attempt = at(4);
    let Some(Answer::Unmasking(given)) = attempt.answer(&name(0), ask(&attempt, 0)) else { panic!() };
    // Site 4 survived, so its self mask was given; now the server says that it dropped out.
    let others = Ask::Confirm((0..4).map(name).collect());
    assert_eq!(attempt.answer(&name(0), others), None);
    assert_eq!(attempt.refusals[&name(0)], Refusal::Twice);
    assert_eq!(given.len(), 5);
}

#[test]
fn the_same_stage_in_other_words_and_a_stage_left_out() {
    let mut attempt = at(3);
    let Some(_) = attempt.answer(&name(0), ask(&attempt, 0)) else { panic!() };
    let again = Ask::Confirm((0..4).map(name).collect());
    assert_eq!(attempt.answer(&name(0), again), None);
    assert_eq!(attempt.refusals[&name(0)], Refusal::Twice);
    let mut attempt = at(1);
    assert_eq!(refusal(&mut attempt, 0, Ask::Confirm(vec![name(0)])), Refusal::Skipped);
}

#[test]
fn the_same_words_get_the_same_answer() {
    let mut attempt = at(4);
    let ask = ask(&attempt, 2);
    let first = attempt.answer(&name(2), ask.clone()).unwrap();
    assert_eq!(attempt.answer(&name(2), ask), Some(first));
}

#[test]
fn a_second_sum_with_one_site_left_out() {
    let mut first = at(0);
    first.run(&BTreeMap::new()).unwrap();
    let before = first.sites[&name(0)].1.as_ref().unwrap().released_with();
    assert!(before.is_some());
    // The same update in the next attempt, in which the server drops site 4 after it has sent its shares.
    let mut params = params(&[9], 0, 16, 5);
    params.task.attempt = 2;
    let mut second = Attempt::new(&params, contributions(5, 9, 0));
    let known = Expectation { released_with: before.into_iter().collect(), ..expectation(&params) };
    let site = Site::new("site-000");
    let client = Client::join(params, &known, &site, [8; 32]).unwrap();
    let own = client.answer().unwrap();
    second.sites.insert(name(0), (site, Some(client)));
    second.take(&name(0), own);
    assert_eq!(second.run(&[(name(4), 2)].into()).unwrap_err(), "3 of 4 needed sites signed the survivors");
    assert_eq!(second.refusals[&name(0)], Refusal::OtherSurvivors);
}

#[test]
fn a_published_sum_that_was_altered() {
    let mut attempt = at(0);
    let unmasking = attempt.run(&BTreeMap::new()).unwrap();
    let (sums, opened, _) = attempt.open(&unmasking).unwrap();
    for (_, client) in attempt.sites.values() {
        let witness: Witness = client.as_ref().unwrap().witness().unwrap();
        let check = witness.check();
        let says = |sums: &[u32], head| check.finish(check.chunk(0, sums), head, 5).is_ok();
        assert!(says(&sums, &opened.head));
        for at in 0..sums.len() {
            let mut altered = sums.clone();
            altered[at] ^= 1;
            assert!(!says(&altered, &opened.head));
        }
        let mut head = opened.head;
        head.weight += 1;
        assert!(!says(&sums, &head));
        let mut head = opened.head;
        head.sites -= 1;
        assert!(!says(&sums, &head));
        // The server knows the key of the plain checksum, and can mend that one; the keyed ones it cannot.
        let mut altered = sums.clone();
        altered[0] += 1;
        let mut head = opened.head;
        head.checksum = check.chunk(0, &altered).checksum.wrapping_sub(check.chunk(0, &sums).checksum);
        head.checksum = head.checksum.wrapping_add(opened.head.checksum);
        assert!(!says(&altered, &head));
    }
}
