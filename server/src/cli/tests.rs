//! What an operator reads, from statuses made by hand; the commands themselves are tried in `tests/cli.rs`.

use std::num::NonZeroU64;
use std::time::Duration;

use clap::CommandFactory;
use sheaf_common::blob::BlobId;
use sheaf_common::message::TaskId;
use sheaf_common::metrics::{Classification, Counts, Kind, Report};
use sheaf_common::record::{MadeOf, Record, SignedRecord, Sum};
use sheaf_common::run::RunSpec;
use sheaf_common::secagg::transcript::Digest;
use sheaf_common::status::{
    Answer, MemberStatus, Participant, Phase, Progress, RoundOutcome, RoundRecord, RoundStatus, RunState,
    RunStatus, RunSummary, SecureSum, SiteConnection, SiteStatus, Standing, Transport,
};
use sheaf_common::time::Timestamp;

use super::event::changes;
use super::run_card::run_card;
use super::screen::time_left;
use super::{Args, json, runs, sites};

const SPEC: &str = r#"
name = "news"
rounds = 3
secure_aggregation = "off"
[model]
name = "minilm"
trainable = "last:2"
[task]
type = "text-classification"
dataset = "newswire"
text = "body"
label = "topic"
labels = ["a", "b"]
[training]
learning_rate = 0.001
local_epochs = 2
[cohort]
min_sites = 2
min_updates = 2
round_timeout = "10m"
"#;

/// What was made of a hundred examples, of which the model took so many for what they were.
fn report(right: usize) -> Report {
    let mut counts = Classification::new(2);
    for example in 0..100 {
        let label = usize::from(example % 2 == 0);
        let logits = if (example < right) == (label == 1) { [0.0, 2.0] } else { [2.0, 0.0] };
        counts.observe(label, &logits);
    }
    Counts::from(counts).report(&Kind::of(&RunSpec::parse("run.toml", SPEC).unwrap()))
}

fn status(state: RunState) -> RunStatus {
    RunStatus {
        summary: RunSummary {
            run: "news".parse().unwrap(),
            state,
            completed_rounds: 0,
            rounds: 3,
            submitted_by: "ada".parse().unwrap(),
            submitted_at: Timestamp(1_000_000),
            detail: String::new(),
        },
        spec: RunSpec::parse("run.toml", SPEC).unwrap(),
        num_params: 3_550_000,
        held: Vec::new(),
        current: None,
        earlier_records: 0,
        history: Vec::new(),
        best: None,
        result: 2,
        final_metrics: None,
        test_metrics: None,
        global: BlobId::of(b"global"),
    }
}

fn round(round: u32, attempt: u32, answers: &[(&str, Answer)]) -> RoundStatus {
    let member = |(site, answer): &(&str, Answer)| MemberStatus {
        site: site.parse().unwrap(),
        connected: true,
        answer: answer.clone(),
        progress: None,
    };
    RoundStatus {
        round,
        attempt,
        started: Timestamp(1_000_000),
        time_left: Duration::from_secs(590),
        stage: "training".into(),
        members: answers.iter().map(member).collect(),
    }
}

fn record(round: u32, attempt: u32, outcome: RoundOutcome, answers: &[(&str, Answer)]) -> RoundRecord {
    let participant = |(site, answer): &(&str, Answer)| Participant {
        site: site.parse().unwrap(),
        answer: answer.clone(),
        num_examples: if *answer == Answer::Accepted { Some(150) } else { Some(0) },
    };
    RoundRecord {
        round,
        attempt,
        started: Timestamp(1_000_000),
        ended: Timestamp(1_020_000),
        outcome,
        participants: answers.iter().map(participant).collect(),
        global_metrics: Some(report(90)),
        local_metrics: None,
        train_loss: Some(0.25),
        secure: None,
        record: None,
    }
}

fn completed() -> RoundOutcome {
    RoundOutcome::Completed(BlobId::of(b"after"))
}

fn rejected() -> Answer {
    Answer::Rejected("its delta holds NaN".into())
}

/// A run in its second round, of which nearly everything can be seen.
pub(super) fn busy() -> RunStatus {
    let mut status = status(RunState::Running);
    status.summary.completed_rounds = 1;
    status.summary.detail = "round 2, second attempt".into();
    let abandoned = RoundOutcome::Abandoned("1 of 2 updates at the deadline".into());
    status.history = vec![
        record(1, 1, completed(), &[("paris", Answer::Accepted), ("tokyo", Answer::Accepted)]),
        record(2, 1, abandoned, &[("paris", Answer::Accepted), ("tokyo", rejected())]),
    ];
    let declined = Answer::Declined("no data set newswire".into());
    let pending = Answer::Pending;
    let answers =
        [("lima", declined), ("oslo", pending.clone()), ("paris", Answer::Accepted), ("tokyo", pending)];
    let mut current = round(2, 2, &answers);
    current.members[1].connected = false;
    current.members[3].progress = Some(Progress {
        steps_per_epoch: NonZeroU64::new(60),
        time_left: Some(Duration::from_secs(190)),
        ..Progress::new(Phase::Training, 30, 120)
    });
    status.current = Some(current);
    status
}

#[test]
fn the_command_line_is_sound() {
    Args::command().debug_assert();
}

#[test]
fn a_run_in_full() {
    let text = run_card(&busy(), Timestamp(1_260_000));
    let expected = "\
run        news
state      running, 1 of 3 rounds completed
           round 2, second attempt
submitted  by ada, 4m20s ago
model      minilm; trains the last 2 layers and the head, mean pooling
travels    3,550,000 parameters, 14.2 MB each way per site and round
task       `topic` (2 labels) from text in `body`, up to 128 tokens; data set newswire
training   AdamW, learning rate 0.001, batches of 16, 2 epochs per round
cohort     all connected sites; starts with 2 sites connected, counts with 2 updates, waits 10m00s
held out   10% of each site's examples
privacy    secure aggregation is off: the server sees each site's update
global     ";
    assert!(text.starts_with(expected), "{text}");
    let rest = text.split_once("\n\n").unwrap().1;
    assert_eq!(
        rest,
        "\
ROUND   TIME  ANSWERED  TRAIN LOSS    LOSS  ACCURACY  MACRO F1  ROC AUC
    1  20.0s       2/2      0.2500  0.3269    0.9000    0.9000   0.9000
LOSS to ROC AUC: the global model that a round started from, on the sites' validation splits

the model that round 2 started from, on 100 validation examples
loss                  0.3269
accuracy              0.9000
balanced accuracy     0.9000
macro precision       0.9000
macro recall          0.9000
macro F1              0.9000
weighted precision    0.9000
weighted recall       0.9000
weighted F1           0.9000
ROC AUC               0.9000 ± 0.0900
PR AUC                0.8600 ± 0.1326
Matthews correlation  0.8000
Cohen's kappa         0.8000
Brier score           0.0904
calibration error     0.0192

LABEL  PRECISION  RECALL      F1  ROC AUC  PR AUC  EXAMPLES
a         0.9000  0.9000  0.9000   0.9000  0.8600        50
b         0.9000  0.9000  0.9000   0.9000  0.8600        50

round 2 (attempt 2), training, 9m50s until its deadline
SITE   DOES
lima   declined: no data set newswire
oslo   away
paris  answered
tokyo  training 30 of 120, epoch 1 of 2, about 3m10s left

abandoned attempts
  round 2, attempt 1 (1/2 answered): 1 of 2 updates at the deadline

updates that were not counted
  round 2, tokyo rejected: its delta holds NaN"
    );
}

#[test]
fn what_the_server_can_see_is_said() {
    let privacy = |graph: &str| {
        let mut status = busy();
        let text = SPEC.replace("secure_aggregation = \"off\"\n", "") + graph;
        status.spec = RunSpec::parse("run.toml", &text).unwrap();
        let card = run_card(&status, Timestamp(1_260_000));
        let line = card.lines().find_map(|line| line.strip_prefix("privacy    ")).unwrap().to_owned();
        (line, json::status(&status)["secure_aggregation"].as_str().unwrap().to_owned())
    };
    let sums = "secure aggregation: the server sees only sums over at least 2 sites";
    assert_eq!(privacy(""), (sums.into(), "required".into()));
    let regular = format!("{sums}; regular graph: against a server that follows the protocol");
    let for_programs = "required (regular graph: against a semi-honest server)";
    assert_eq!(privacy("[secagg]\ngraph = \"regular\"\n"), (regular, for_programs.into()));
}

#[test]
fn the_final_model_ends_the_table() {
    let mut done = busy();
    done.current = None;
    done.final_metrics = Some(report(95));
    let text = run_card(&done, Timestamp(0));
    assert!(
        text.contains("\n  end      -         -           -  0.2269    0.9500    0.9500   0.9500\n"),
        "{text}"
    );
    assert!(text.contains("\n\nthe final model, on 100 validation examples\n"), "{text}");
}

#[test]
fn a_test_is_shown_apart() {
    let mut done = busy();
    (done.test_metrics, done.result) = (Some(report(93)), 2);
    let text = run_card(&done, Timestamp(0));
    assert!(text.contains("test: the model after round 2, on 100 test examples\nloss"), "{text}");
    assert_eq!(json::status(&done)["test_metrics"]["accuracy"], 0.93);
    done.summary.state = RunState::Completed;
    let end = lines(Some(&status(RunState::Evaluating)), &done).pop().unwrap();
    assert!(end.contains("; test of the result: ") && end.contains("accuracy 0.93"), "{end}");
}

#[test]
fn a_run_for_programs() {
    let value = json::status(&busy());
    let at = |pointer| value.pointer(pointer).unwrap_or_else(|| panic!("no {pointer} in {value:#}"));
    assert_eq!(at("/run"), "news");
    assert_eq!(at("/state"), "running");
    assert_eq!(at("/secure_aggregation"), "off");
    assert_eq!(at("/bytes_per_transfer"), 14_200_000);
    assert_eq!(at("/submitted_at"), "1970-01-01T00:16:40.000Z");
    assert_eq!(at("/global"), BlobId::of(b"global").to_string().as_str());
    assert_eq!(at("/spec/cohort/round_timeout"), 600.0);
    assert_eq!(at("/history/0/outcome"), "completed");
    assert_eq!(at("/history/0/seconds"), 20.0);
    assert_eq!(at("/history/0/global_metrics/accuracy"), 0.9);
    assert_eq!(at("/history/0/global_metrics/task"), "classification");
    assert_eq!(at("/history/0/global_metrics/mcc"), 0.8);
    assert_eq!(at("/history/0/global_metrics/calibration/8/num_examples"), 100);
    assert_eq!(at("/history/0/local_metrics"), &serde_json::Value::Null);
    assert_eq!(at("/history/1/reason"), "1 of 2 updates at the deadline");
    assert_eq!(at("/history/1/participants/1/answer"), "rejected");
    assert_eq!(at("/history/1/participants/0/num_examples"), 150);
    assert_eq!(at("/current/seconds_left"), 590.0);
    assert_eq!(at("/current/members/3/phase"), "training");
    assert_eq!(at("/current/members/3/done"), 30);
    assert_eq!(at("/current/members/0/reason"), "no data set newswire");
}

#[test]
fn lists() {
    let runs = [busy().summary];
    assert_eq!(
        runs::list(&runs, Timestamp(1_061_000)),
        "RUN   STATE    ROUNDS  BY     AGE  DETAIL\nnews  running     1/3  ada  1m01s  round 2, second attempt"
    );
    let site = SiteStatus {
        site: "tokyo".parse().unwrap(),
        connection: Some(SiteConnection { transport: Transport::Quic, silent_secs: 4 }),
        standing: Standing::Admitted,
        address: "10.0.0.7:5001".into(),
        software: "0.1.0".into(),
        since: Timestamp(0),
        run: None,
        bytes_down: 90_900_000,
        bytes_up: 0,
        expires: Timestamp(7_200_000 + 45 * 86_400_000),
    };
    assert_eq!(
        sites::list(std::slice::from_ref(&site), Timestamp(7_200_000)),
        "SITE   STATE      TRANSPORT  SINCE  RUN  FETCHED  SENT  CERTIFICATE   VERSION  ADDRESS\n\
         tokyo  connected  quic       2h00m  -    90.9 MB   0 B  45 days left  0.1.0    10.0.0.7:5001"
    );
    let days = |days: u64| sites::days_left(&site, Timestamp(site.expires.0 - days * 86_400_000));
    assert_eq!((days(31), days(30), days(1)), (None, Some(30), Some(1)));
    assert_eq!(sites::days_left(&site, site.expires), Some(0));
    let silent = SiteStatus {
        connection: Some(SiteConnection { transport: Transport::Tcp, silent_secs: 50 }),
        ..site
    };
    assert!(sites::list(&[silent], Timestamp(7_200_000)).contains("\ntokyo  silent 50s  tcp        2h00m  "),);
    assert!(runs::list(&[], Timestamp(0)).starts_with("no runs yet"));
}

fn lines(old: Option<&RunStatus>, new: &RunStatus) -> Vec<String> {
    changes(old, new).iter().map(ToString::to_string).collect()
}

#[test]
fn the_first_look_says_where_it_stands() {
    let mut waiting = status(RunState::Waiting);
    waiting.summary.detail = "1 of 2 sites are connected".into();
    assert_eq!(lines(None, &waiting), ["news: waiting, 0 of 3 rounds completed: 1 of 2 sites are connected"]);
    assert_eq!(lines(Some(&waiting), &waiting), [""; 0]);
    assert_eq!(
        lines(None, &busy()),
        [
            "news: running, 1 of 3 rounds completed: round 2, second attempt",
            "round 1/3: completed in 20.0s, 2/2 answered, train loss 0.2500; model before it: loss 0.3269, accuracy 0.9000, macro F1 0.9000, ROC AUC 0.9000",
            "round 2/3: abandoned after 20.0s, 1/2 answered: 1 of 2 updates at the deadline",
            "round 2/3, attempt 2: started with 4 sites: lima, oslo, paris, tokyo",
            "round 2/3, attempt 2: lima declined: no data set newswire",
            "round 2/3, attempt 2: paris answered (1/4)",
        ]
    );
}

#[test]
fn a_round_is_told_as_it_goes_on() {
    let waiting = status(RunState::Waiting);
    let with = |answers: &[(&str, Answer)]| RunStatus {
        current: Some(round(1, 1, answers)),
        ..status(RunState::Running)
    };
    let started = with(&[("paris", Answer::Pending), ("tokyo", Answer::Pending)]);
    assert_eq!(lines(Some(&waiting), &started), ["round 1/3: started with 2 sites: paris, tokyo"]);

    let first = with(&[("paris", Answer::Pending), ("tokyo", Answer::Accepted)]);
    assert_eq!(lines(Some(&started), &first), ["round 1/3: tokyo answered (1/2)"]);

    let at = |done| {
        let mut later = first.clone();
        let progress = Progress {
            steps_per_epoch: NonZeroU64::new(40),
            time_left: (done > 50).then_some(Duration::from_secs(75)),
            ..Progress::new(Phase::Training, done, 120)
        };
        later.current.as_mut().unwrap().members[0].progress = Some(progress);
        later
    };
    assert_eq!(lines(Some(&first), &at(39)), [""; 0]);
    assert_eq!(lines(Some(&at(39)), &at(40)), ["round 1/3: paris is in epoch 2 of 3"]);
    assert_eq!(lines(Some(&at(40)), &at(79)), [""; 0]);
    assert_eq!(lines(Some(&at(79)), &at(119)), ["round 1/3: paris is in epoch 3 of 3, about 1m15s left"]);
    assert_eq!(lines(Some(&at(119)), &first), [""; 0]);

    let mut next = with(&[]);
    next.current = Some(round(2, 1, &[("paris", Answer::Pending)]));
    next.summary.completed_rounds = 1;
    next.history =
        vec![record(1, 1, completed(), &[("paris", Answer::Accepted), ("tokyo", Answer::Accepted)])];
    assert_eq!(
        lines(Some(&first), &next),
        [
            "round 1/3: paris answered (2/2)",
            "round 1/3: completed in 20.0s, 2/2 answered, train loss 0.2500; model before it: loss 0.3269, accuracy 0.9000, macro F1 0.9000, ROC AUC 0.9000",
            "round 2/3: started with 1 site: paris",
        ]
    );
    assert_eq!(lines(Some(&next), &next), [""; 0]);
}

#[test]
fn a_round_between_two_looks_is_told_whole() {
    let waiting = status(RunState::Waiting);
    let mut done = status(RunState::Failed);
    done.summary.detail = "round 1 was abandoned 3 times".into();
    let abandoned = RoundOutcome::Abandoned("nobody answered".into());
    done.history = vec![record(1, 3, abandoned, &[("paris", rejected()), ("tokyo", Answer::Pending)])];
    assert_eq!(
        lines(Some(&waiting), &done),
        [
            "round 1/3, attempt 3: started with 2 sites: paris, tokyo",
            "round 1/3, attempt 3: paris rejected: its delta holds NaN",
            "round 1/3, attempt 3: abandoned after 20.0s, 0/2 answered: nobody answered",
            "news failed: round 1 was abandoned 3 times",
        ]
    );
}

#[test]
fn the_end_is_told_with_its_metrics() {
    let mut done = status(RunState::Completed);
    done.final_metrics = Some(report(96));
    let end = "news completed; final model: loss 0.2069, accuracy 0.9600, macro F1 0.9600, ROC AUC 0.9600";
    assert_eq!(lines(Some(&status(RunState::Evaluating)), &done), [end]);
    assert_eq!(lines(None, &done), ["news: completed, 0 of 3 rounds completed", end]);
    let lasting: Vec<bool> = changes(None, &done).iter().map(super::event::Event::is_lasting).collect();
    assert_eq!(lasting, [false, true]);
}

#[test]
fn time_left_follows_from_completed_rounds() {
    let mut status = status(RunState::Running);
    assert_eq!(time_left(&status), None);
    status.current = Some(round(1, 1, &[("paris", Answer::Pending)]));
    assert_eq!(time_left(&status), None, "no round is completed yet");
    status.history = vec![record(1, 1, completed(), &[])];
    status.summary.completed_rounds = 1;
    // Two rounds of 20 s to go, 10 s of which are spent: the deadline was 600 s away and is 590 s away.
    assert_eq!(time_left(&status), Some(Duration::from_secs(30)));
}

#[test]
fn a_secure_run_shows_its_newest_record_and_in_json_the_whole_chain() {
    let published = |round: u32, previous| {
        let body = Record {
            task: TaskId { run: "news".parse().unwrap(), round, attempt: 1 },
            origin: BlobId::of(b"origin"),
            software: "0.1.0".into(),
            made_of: MadeOf::Sum(Sum {
                t2: Digest([7; 32]),
                survivors: vec!["paris".parse().unwrap(), "tokyo".parse().unwrap()],
                blob: BlobId::of(b"sum"),
            }),
            model_in: BlobId::of(b"before"),
            model_out: BlobId::of(b"after"),
            previous,
        };
        SignedRecord { body, certificate: vec![0xab], signature: [1; 64].into() }
    };
    let first = published(1, None);
    let second = published(2, Some(first.body.digest()));
    let mut status = status(RunState::Completed);
    status.history = [&first, &second]
        .into_iter()
        .map(|signed| RoundRecord {
            secure: Some(SecureSum { sites: 2, num_examples: 150, clamped: 0.0, rounding_error: 0.001 }),
            record: Some(Box::new(signed.clone())),
            ..record(signed.body.task.round, 1, completed(), &[])
        })
        .collect();
    let text = run_card(&status, Timestamp(2_000_000));
    let [digest, previous] = [&second, &first].map(|signed| signed.body.digest().to_string());
    let line = format!(
        "record of round 2: {}, after {}; sum {} over 2 sites makes model {} of {}",
        &digest[..12],
        &previous[..12],
        BlobId::of(b"sum").short(),
        BlobId::of(b"after").short(),
        BlobId::of(b"before").short(),
    );
    assert!(text.contains(&line), "{text}");
    let json = json::status(&status);
    let at = |path: &str| json.pointer(&format!("/history/{path}")).unwrap().clone();
    assert_eq!(at("0/record/previous"), serde_json::Value::Null);
    assert_eq!(at("1/record/previous"), at("0/record/digest"));
    assert_eq!(at("1/record/certificate"), "ab");
    assert_eq!(at("1/record/made_of/survivors/1"), "tokyo");
}
