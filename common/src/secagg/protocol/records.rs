//! A server that lies about what it did with a sum: each lie is refused by name.

use super::*;
use crate::id::RunId;
use crate::record::{BadRecord, Counted, History, MadeOf, Record, SignedRecord, Start, Sum};

fn run() -> RunId {
    "toy".parse().unwrap()
}

fn model(name: &str) -> BlobId {
    BlobId::of(name.as_bytes())
}

/// A site whose update is in a sum of round 3, what it remembers, and the server's honest record of that round.
fn took_part() -> (Site, History, Record) {
    let params = params(&[9], 0, 16, 5);
    let mut attempt = Attempt::new(&params, contributions(5, 9, 0));
    let unmasking = attempt.run(&BTreeMap::new()).unwrap();
    let (site, client) = attempt.sites.remove(&"site-000".parse().unwrap()).unwrap();
    let mut history = History::default();
    history.took_part(client.unwrap().witness().unwrap());
    let record = Record {
        task: params.task,
        origin: model("origin"),
        software: "0.1.0".into(),
        made_of: MadeOf::Sum(Sum {
            t2: unmasking.transcript(),
            survivors: unmasking.masked().keys().cloned().collect(),
            blob: model("sum"),
        }),
        model_in: params.model,
        model_out: model("next"),
        previous: None,
    };
    (site, history, record)
}

fn signed_by(name: &str, ca: &str, body: Record) -> SignedRecord {
    let signature = signing_key(name).sign(&body.signable()).to_bytes().into();
    SignedRecord { body, certificate: certificate(name, ca), signature }
}

fn signed(body: Record) -> SignedRecord {
    signed_by("hub", "ca", body)
}

fn start(run: &RunId, completed: u32, model: BlobId) -> Start<'_> {
    Start { run, origin: self::model("origin"), completed, model }
}

/// What a record says of its sum.
fn sum(record: &mut Record) -> &mut Sum {
    let MadeOf::Sum(sum) = &mut record.made_of else { unreachable!() };
    sum
}

fn judge(history: &mut History, site: &Site, record: Option<&SignedRecord>) -> Result<bool, BadRecord> {
    let witness = history.judge(start(&run(), 3, model("next")), record, site)?;
    *history = revived(history);
    Ok(witness.is_some())
}

#[test]
fn an_honest_record_is_checked_once_and_known_from_then_on() {
    let (site, mut history, record) = took_part();
    let signed = signed(record.clone());
    assert_eq!(judge(&mut history, &site, Some(&signed)), Ok(true));
    assert!(history.needs(model("model")));
    assert_eq!(history.checked(&record), Some(model("model")));
    assert!(!history.needs(model("model")));
    assert_eq!(history.digest(), Some(record.digest()));
    // After a restart of the server the same task comes again.
    assert_eq!(judge(&mut history, &site, Some(&signed)), Ok(false));
}

#[test]
fn a_record_that_is_missing_or_forged() {
    let (site, mut history, record) = took_part();
    assert_eq!(judge(&mut history, &site, None), Err(BadRecord::Missing));
    for forged in [
        signed_by("hub", "another ca", record.clone()),
        signed_by("site-001", "ca", record.clone()),
        SignedRecord { certificate: certificate("hub", "ca"), ..signed_by("site-001", "ca", record.clone()) },
    ] {
        assert_eq!(judge(&mut history, &site, Some(&forged)), Err(BadRecord::Forged));
    }
    let mut altered = signed(record);
    sum(&mut altered.body).blob = model("other sum");
    assert_eq!(judge(&mut history, &site, Some(&altered)), Err(BadRecord::Forged));
    assert_eq!(history.judge(start(&run(), 0, model("initial")), None, &site), Ok(None));
}

#[test]
fn a_record_of_something_else() {
    let (site, mut history, honest) = took_part();
    let mut lie = |change: fn(&mut Record)| {
        let mut record = honest.clone();
        change(&mut record);
        judge(&mut history, &site, Some(&signed(record)))
    };
    assert_eq!(lie(|record| record.task.round = 2), Err(BadRecord::OtherRound));
    assert_eq!(lie(|record| record.task.run = "other".parse().unwrap()), Err(BadRecord::OtherRound));
    assert_eq!(lie(|record| record.origin = model("other terms")), Err(BadRecord::OtherRound));
    assert_eq!(lie(|record| record.model_out = model("crafted")), Err(BadRecord::OtherModel));
    assert_eq!(lie(|record| record.model_in = model("crafted")), Err(BadRecord::OtherSum));
    assert_eq!(
        lie(|record| sum(record).t2 = record.previous.unwrap_or(record.digest())),
        Err(BadRecord::OtherSum)
    );
    assert_eq!(lie(|record| drop(sum(record).survivors.pop())), Err(BadRecord::OtherSum));
    assert_eq!(lie(|record| record.made_of = MadeOf::Updates(Vec::new())), Err(BadRecord::OtherSum));
    // An attempt that never was, so that nobody could check it.
    assert_eq!(lie(|record| record.task.attempt = 2), Err(BadRecord::NotOurs));
}

#[test]
fn a_history_that_is_rewritten_or_does_not_hang_together() {
    let (site, mut history, record) = took_part();
    judge(&mut history, &site, Some(&signed(record.clone()))).unwrap();
    history.checked(&record);
    let others = vec!["site-001".parse().unwrap()];
    let mut other = record.clone();
    *sum(&mut other) = Sum { blob: model("other sum"), survivors: others.clone(), ..sum(&mut other).clone() };
    assert_eq!(judge(&mut history, &site, Some(&signed(other))), Err(BadRecord::Rewritten));
    let next = |previous| {
        let task = TaskId { round: 4, ..record.task.clone() };
        let (model_in, model_out) = (model("next"), model("fourth"));
        let mut next = Record { task, previous, model_in, model_out, ..record.clone() };
        sum(&mut next).survivors.clone_from(&others);
        signed(next)
    };
    let mut go_on = |record: &SignedRecord, completed| {
        history.judge(start(&run(), completed, record.body.model_out), Some(record), &site).map(|_| ())
    };
    assert_eq!(go_on(&next(None), 4), Err(BadRecord::Unchained));
    assert_eq!(go_on(&next(Some(record.digest())), 4), Ok(()));
    assert_eq!(go_on(&signed(record.clone()), 3), Err(BadRecord::OtherRound));
}

/// Of updates in the open there is nothing to recompute; who said it, of what, and which model follows is checked.
#[test]
fn a_record_of_updates_in_the_open() {
    let (site, _, record) = took_part();
    let counted = Counted { site: "site-001".parse().unwrap(), update: model("update"), num_examples: 48 };
    let open = Record { made_of: MadeOf::Updates(vec![counted]), ..record };
    let check = |record: Option<&SignedRecord>, completed, next| {
        SignedRecord::check(record, start(&run(), completed, model(next)), &site).map(|body| body.cloned())
    };
    assert_eq!(check(Some(&signed(open.clone())), 3, "next"), Ok(Some(open.clone())));
    // Sites get it in short: of the same name and signature, and no other list is behind it.
    let short = signed(open.clone()).in_short();
    assert_eq!(check(Some(&short), 3, "next"), Ok(Some(open.in_short())));
    assert_eq!((short.body.digest(), short.in_short()), (open.digest(), short.clone()));
    let none = Record { made_of: MadeOf::Updates(Vec::new()), ..open.clone() };
    assert_ne!(none.digest(), open.digest());
    let other = SignedRecord { body: none.in_short(), ..short };
    assert_eq!(check(Some(&other), 3, "next"), Err(BadRecord::Forged));
    assert_eq!(check(Some(&signed(open.clone())), 3, "crafted"), Err(BadRecord::OtherModel));
    assert_eq!(check(Some(&signed(open.clone())), 4, "next"), Err(BadRecord::OtherRound));
    assert_eq!(check(Some(&signed_by("site-001", "ca", open)), 3, "next"), Err(BadRecord::Forged));
    assert_eq!(check(None, 3, "next"), Err(BadRecord::Missing));
    assert_eq!(check(None, 0, "initial"), Ok(None));
}
