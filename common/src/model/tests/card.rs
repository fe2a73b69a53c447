//! The card says what a user must know.

use super::*;
use crate::metrics::{Classification, Counts, Kind};
use crate::status::{Answer, Participant, RoundOutcome, RoundRecord};
use crate::time::Timestamp;

fn record(round: u32, sites: &[&str]) -> RoundRecord {
    let accepted = |site: &&str| Participant {
        site: site.parse().unwrap(),
        answer: Answer::Accepted,
        num_examples: Some(10),
    };
    RoundRecord {
        round,
        attempt: 1,
        started: Timestamp(0),
        ended: Timestamp(1),
        outcome: RoundOutcome::Completed(BlobId::of(b"global")),
        participants: sites.iter().map(accepted).collect(),
        global_metrics: None,
        local_metrics: None,
        train_loss: None,
        secure: None,
        record: None,
    }
}

fn text_plan(model: &str) -> ExportPlan {
    let spec = text_spec(model);
    let params = plan(&spec, Some(&config(TINY_BERT))).unwrap();
    export_plan(&spec, params)
}

#[test]
fn it_counts_the_sites_and_says_what_is_off() {
    let mut plan = text_plan("trainable = \"head\"");
    plan.status.history = vec![record(1, &["a", "b"]), record(2, &["b", "c", "d"])];
    let card = card(&plan, None);
    assert!(card.contains("# trial-2\n"), "{card}");
    assert!(card.contains("- Sites: 4 in all, 2 to 3 per round\n"), "{card}");
    assert!(card.contains("- Trained: the head, 15 values\n"), "{card}");
    assert!(card.contains("**Secure aggregation was off: the server saw the update of every single site.**"));
    assert!(card.contains("The model was not evaluated at the sites."));
}

#[test]
fn its_metrics_are_those_of_the_exported_round() {
    let mut plan = text_plan("");
    let mut counts = Classification::new(3);
    let kind = Kind::of(&plan.job.spec);
    counts.observe(1, &[0.0, 2.0, 1.0]);
    let right = Counts::from(counts.clone()).report(&kind);
    counts.observe(0, &[0.0, 2.0, 1.0]);
    let half = Counts::from(counts).report(&kind);
    plan.status.history = vec![record(1, &["a"]), record(2, &["a"]), record(3, &["a"])];
    plan.status.history[2].global_metrics = Some(half);
    plan.status.final_metrics = Some(right);
    assert!(card(&plan, None).contains("| accuracy | 1.0000 |"));
    plan.round = 2;
    assert!(card(&plan, None).contains("| accuracy | 0.5000 |"));
    assert!(card(&plan, None).contains("| ship | 0.0000 | 0.0000 | 0.0000 | – | – | 0 |"));
    plan.round = 1;
    assert!(card(&plan, None).contains("The model was not evaluated"));
}

#[test]
fn a_test_is_of_the_result_alone_and_apart_from_validation() {
    let mut plan = text_plan("");
    let kind = Kind::of(&plan.job.spec);
    let mut counts = Classification::new(3);
    counts.observe(1, &[0.0, 2.0, 1.0]);
    plan.status.test_metrics = Some(Counts::from(counts).report(&kind));
    plan.status.result = plan.round;
    let text = card(&plan, None);
    assert!(
        text.contains("\n## Test\n\nOn the test examples of the sites (1 in all), which neither"),
        "{text}"
    );
    assert!(text.contains("| accuracy | 1.0000 |") && !text.contains("## Metrics"), "{text}");
    plan.status.final_metrics = plan.status.test_metrics.clone();
    plan.status.summary.completed_rounds = plan.round;
    let text = card(&plan, None);
    assert!(text.contains("## Metrics") && text.contains("\n\n## Test\n"), "{text}");
    plan.round -= 1;
    assert!(!card(&plan, None).contains("## Test"));
}

#[test]
fn its_snippet_pools_as_the_run_did() {
    let mean = card(&text_plan("pooling = \"mean\""), None);
    assert!(mean.contains("    logits = dense((hidden * mask).sum(1) / mask.sum(1))\n"), "{mean}");
    assert!(mean.contains("max_length=16"), "{mean}");
    let cls = card(&text_plan("pooling = \"cls\""), None);
    assert!(cls.contains("    logits = model(**batch).logits\n") && !cls.contains("nonsense"), "{cls}");
}

#[test]
fn its_snippet_prints_what_the_run_learned_of_images() {
    let mut plan = text_plan("");
    plan.job.spec.task.input = crate::run::TaskInput::Image { column: "image".into(), size: None };
    let labels = card(&plan, None);
    assert!(labels.contains("print(config[\"labels\"][logits.argmax(-1)[0].item()])\n```\n"), "{labels}");
    let number = crate::run::NumberTarget { column: "age".into(), mean: 50.0, std: 9.5 };
    plan.job.spec.task.target = crate::run::Target::Number(number);
    assert!(card(&plan, None).contains("print(logits[0].item() * 9.5 + 50)\n"));
}

#[test]
fn a_label_cannot_break_its_table() {
    let mut plan = text_plan("");
    let crate::run::Target::Label { labels, .. } = &mut plan.job.spec.task.target else { panic!("labels") };
    labels[0] = "a|b\n# c".into();
    assert!(card(&plan, None).contains("- Labels: a\\|b # c, acq, ship\n"));
}
