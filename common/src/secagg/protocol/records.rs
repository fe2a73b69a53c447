//! A server that lies about what it did with a sum: each lie is refused by name.

use super::*;
use crate::id::RunId;
use crate::secagg::record::{BadRecord, History, Record, SignedRecord};

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
        t2: unmasking.transcript(),
        survivors: unmasking.masked().keys().cloned().collect(),
        sum: model("sum"),
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

fn judge(history: &mut History, site: &Site, record: Option<&SignedRecord>) -> Result<bool, BadRecord> {
    let witness = history.judge(&run(), 3, model("next"), record, site)?;
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
    altered.body.sum = model("other sum");
    assert_eq!(judge(&mut history, &site, Some(&altered)), Err(BadRecord::Forged));
    assert_eq!(history.judge(&run(), 0, model("initial"), None, &site), Ok(None));
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
    assert_eq!(lie(|record| record.model_out = model("crafted")), Err(BadRecord::OtherModel));
    assert_eq!(lie(|record| record.model_in = model("crafted")), Err(BadRecord::OtherSum));
    assert_eq!(
        lie(|record| record.t2 = record.previous.unwrap_or(record.digest())),
        Err(BadRecord::OtherSum)
    );
    assert_eq!(lie(|record| drop(record.survivors.pop())), Err(BadRecord::OtherSum));
    // An attempt that never was, so that nobody could check it.
    assert_eq!(lie(|record| record.task.attempt = 2), Err(BadRecord::NotOurs));
}

#[test]
fn a_history_that_is_rewritten_or_does_not_hang_together() {
    let (site, mut history, record) = took_part();
    judge(&mut history, &site, Some(&signed(record.clone()))).unwrap();
    history.checked(&record);
    let others = vec!["site-001".parse().unwrap()];
    let other = Record { sum: model("other sum"), survivors: others.clone(), ..record.clone() };
    assert_eq!(judge(&mut history, &site, Some(&signed(other))), Err(BadRecord::Rewritten));
    let next = |previous| {
        let task = TaskId { round: 4, ..record.task.clone() };
        let (model_in, model_out) = (model("next"), model("fourth"));
        let survivors = others.clone();
        signed(Record { task, previous, model_in, model_out, survivors, ..record.clone() })
    };
    let mut go_on = |record: &SignedRecord, completed| {
        history.judge(&run(), completed, record.body.model_out, Some(record), &site).map(|_| ())
    };
    assert_eq!(go_on(&next(None), 4), Err(BadRecord::Unchained));
    assert_eq!(go_on(&next(Some(record.digest())), 4), Ok(()));
    assert_eq!(go_on(&signed(record.clone()), 3), Err(BadRecord::OtherRound));
}
