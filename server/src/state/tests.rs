//! What a site says, as the loop takes it.

use sheaf_common::aggregate::Finding as Values;
use sheaf_common::message::Update;
use sheaf_common::params::{ParamSpec, ParamTensor};
use sheaf_common::run::RunSpec;
use tempfile::TempDir;

use super::*;
use crate::core::Inspection;

const RUN: &str = r#"
name = "toy"
rounds = 1
secure_aggregation = "off"
model = { architecture = "constant", parameters = 4 }
task = { type = "none" }
[cohort]
sites = ["a", "b", "c"]
min_updates = 2
"#;

/// A server with a run that waits for the updates of three sites.
fn collecting() -> (State, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("sheaf.db")).unwrap();
    let [blobs, updates] = ["blobs", "updates"].map(|name| BlobDir::open(dir.path().join(name)).unwrap());
    let federation: Federation = "test".parse().unwrap();
    let mut state = State::open(federation.clone(), store, blobs, updates, Registrar::default()).unwrap();
    let tensors = vec![ParamTensor { name: "w".into(), shape: vec![4] }];
    state.runs.push(Coordinator::new(Run {
        id: "toy".parse().unwrap(),
        federation,
        spec: RunSpec::parse("run.toml", RUN).unwrap(),
        submitted_by: "op".parse().unwrap(),
        author: None,
        submitted_at: now(),
        model: None,
        phases: ParamSpec { tensors }.into(),
        initial: BlobId::of(b"initial"),
    }));
    let connected = ["a", "b", "c"].map(|site| Input::Connected(site.parse().unwrap()));
    for input in [Input::Start].into_iter().chain(connected) {
        state.feed(0, input, now());
    }
    state.effects.clear();
    (state, dir)
}

#[test]
fn a_site_that_comes_and_goes_without_end_keeps_no_journal_without_end() {
    let (mut state, _dir) = collecting();
    let (a, run): (ClientId, RunId) = ("a".parse().unwrap(), "toy".parse().unwrap());
    state.writes.clear();
    for why in ["night", "Sunday", "holiday"] {
        state.on_standby(&a, run.clone(), Some(why.into()));
    }
    assert_eq!(state.writes.len(), 1, "for whatever reason, it is away");
    state.writes = vec![Write::Run(Box::new(state.runs[0].clone()))];
    for _ in 0..JOURNAL_MAX {
        state.on_standby(&a, run.clone(), None);
        state.on_standby(&a, run.clone(), Some("night".into()));
    }
    assert_eq!(state.writes.iter().filter(|write| matches!(write, Write::Snapshot(_))).count(), 2);
    state.store.commit(&std::mem::take(&mut state.writes)).unwrap();
    assert_eq!(state.store.runs().unwrap(), state.runs);
}

/// An update was inspected, and is heard of.
fn hear(state: &mut State, site: &str, delta: BlobId) {
    let task = TaskId { run: "toy".parse().unwrap(), round: 1, attempt: 1 };
    let update =
        Update { task, delta, num_examples: 1, train_loss: 0.0, global_metrics: None, local_metrics: None };
    let inspection = Some(Inspection { numel: 4, form: None, finding: Values::Sound });
    let finding = Finding { inspection, evidence: Evidence::Nothing };
    state.on_message(&site.parse().unwrap(), SiteMessage::Update(Box::new(update)), finding);
}

#[test]
fn an_update_that_was_given_up_while_it_was_inspected_does_not_count() {
    let (mut state, _dir) = collecting();
    let given_up = state.updates.insert(&[1; 16]).unwrap();
    state.updates.remove(given_up).unwrap();
    hear(&mut state, "a", given_up);
    assert!(!state.runs[0].holds(given_up));
    let reasons: Vec<String> = state
        .effects
        .drain(..)
        .filter_map(
            |(_, effect)| if let Effect::Reject { reason, .. } = effect { Some(reason) } else { None },
        )
        .collect();
    assert_eq!(reasons, ["its blob never arrived"]);
    let kept = state.updates.insert(&[2; 16]).unwrap();
    hear(&mut state, "b", kept);
    assert!(state.runs[0].holds(kept) && state.effects.is_empty());
}
