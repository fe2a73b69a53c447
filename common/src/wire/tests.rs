//! Golden bytes: every message of the protocol, as its bytes must stay for this [`PROTOCOL_VERSION`].
//!
//! When one of these fails, peers of the released version no longer understand each other: either take the
//! change back, or raise the version. The encoder numbers enum variants from 0 in their order, writes integers
//! below 251 as one byte (`fb`, `fc`, `fd` and `fe` announce 2, 4, 8 and 16), and lengths in front of lists
//! and texts.

use std::fmt::Debug;
use std::num::NonZeroU64;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::author::Author;
use crate::blob::BlobId;
use crate::enrolment::{Enroll, EnrollReply, Pin, Waiting};
use crate::id::{ClientId, Name};
use crate::message::*;
use crate::metrics::{
    Asked, Asks, Classification, Counts, Kind, Language, MultiLabel, Occurs, Regression, Report, Scale,
    Survey, Value,
};
use crate::model::ModelInfo;
use crate::params::{ParamSpec, ParamTensor};
use crate::record::{Counted, MadeOf, Record, SignedRecord, Sum};
use crate::run::{Best, RunSpec};
use crate::secagg::secret::Secret;
use crate::status::*;
use crate::time::Timestamp;

/// `message` is written as these bytes (given in pieces, in hexadecimal with spaces) and read back from them.
#[track_caller]
fn golden<T: Serialize + DeserializeOwned + PartialEq + Debug>(message: &T, bytes: &[&str]) {
    let bytes = bytes.concat().replace(' ', "");
    assert_eq!(hex::encode(encode(message).unwrap()), bytes, "{message:?}");
    assert_eq!(decode::<T>(&hex::decode(&bytes).unwrap()).unwrap(), *message);
}

const SPEC: &str = "027238 00 05 2a 00 00066d696e696c6d 0102 00 00 00 9a9999999999b93f 00 046e657773 00 0004626f647980 \
    00 05746f706963 0201610162 02cdccccccccccec3f2b8716d9cef7ef3f3a8c30e28e79453e fca9f1d24d62503f \
    7b14ae47e17a843f 00 10 01 0001 000000 000000000000f03f 00 01000000000000f03f \
    0000000000000000 0000000000000000 00 0000000000000000 00 00 00 00 00 01 00 0000000000000000 0000 00 9a9999999999b93f 0000000000000000 00 0102056e6f72746805736f757468 \
    0202 02 02 fb100e00 03 fc80969800 000000000000f03f 00 00";
const PARAMS: &str = "01 11636c61737369666965722e776569676874 02 02 fb8001";
const BLOB: &str = "7017b0b8e44b3d0c57538692d17e462a7292043b9cb6358734b472f3b77756f4";
/// The bytes of a round's secure sum.
const SECURE: &str = "01 03 96 0000000000000000 000000000000e03f 00";
const TASK: &str = "0472382d32 03 01";
const COUNTS: &str = "00 0401000100 fda4ef2fe462010000 fd0000000000010000 000000 000000 000000 000000 \
    0201fd0000000000010000 000000 000000 000000 000000 000000 02 01fb00180101fb001801 01fb00180101fb001801";
/// The report on [`COUNTS`], a line per group: kind and examples; loss and accuracies; micro, macro and weighted
/// averages; curves; coefficients; each bin of the calibration; each label; confusion.
const REPORT: &str = "00 02 \
    0040fafe422ee63f 000000000000e03f 000000000000e03f \
    000000000000e03f 000000000000e03f 000000000000e03f \
    000000000000d03f 000000000000e03f 555555555555d53f \
    000000000000d03f 000000000000e03f 555555555555d53f \
    01000000000000e03f 01000000000000e03f 01000000000000e03f 01000000000000e03f \
    0000000000000000 0000000000000000 000000000000d03f 0000000000000000 \
    0a \
    0000000000000000 9a9999999999b93f 00 00 00 \
    9a9999999999b93f 9a9999999999c93f 00 00 00 \
    9a9999999999c93f 333333333333d33f 00 00 00 \
    333333333333d33f 9a9999999999d93f 00 00 00 \
    9a9999999999d93f 000000000000e03f 02 01000000000000e03f 01000000000000e03f \
    000000000000e03f 333333333333e33f 00 00 00 \
    333333333333e33f 666666666666e63f 00 00 00 \
    666666666666e63f 9a9999999999e93f 00 00 00 \
    9a9999999999e93f cdccccccccccec3f 00 00 00 \
    cdccccccccccec3f 000000000000f03f 00 00 00 \
    02 \
    0161 000000000000e03f 000000000000f03f 555555555555e53f 01 \
    01000000000000e03f 01000000000000e03f 01000000000000e03f 01000000000000e03f \
    0162 0000000000000000 0000000000000000 0000000000000000 01 \
    01000000000000e03f 01000000000000e03f 01000000000000e03f 01000000000000e03f \
    02020100020100";
const SEVENS: &str = "0707070707070707070707070707070707070707070707070707070707070707";
const SUMMARY: &str = "0472382d32 02 02 05 03616461 fd0068e5cf8b010000 00";

fn spec() -> RunSpec {
    let text = r#"
        name = "r8"
        rounds = 5
        seed = 42
        secure_aggregation = "off"
        [model]
        name = "minilm"
        trainable = "last:2"
        [task]
        type = "text-classification"
        dataset = "news"
        text = "body"
        label = "topic"
        labels = ["a", "b"]
        [training]
        max_grad_norm = 1.0
        [cohort]
        sites = ["north", "south"]
        count = 2
    "#;
    RunSpec::parse("run.toml", text).unwrap()
}

fn table_spec() -> RunSpec {
    let text = r#"
        name = "heart"
        rounds = 1
        secure_aggregation = "off"
        [model]
        architecture = "mlp"
        hidden = [8, 4]
        [task]
        type = "tabular-classification"
        dataset = "hearts"
        label = "ill"
        labels = ["no", "yes"]
        [[task.features]]
        column = "age"
        type = "numeric"
        mean = 54.0
        std = 9.0
        [[task.features]]
        column = "sex"
        type = "categorical"
        categories = ["f", "m"]
        missing = ["?"]
        [training]
        optimizer = "sgd"
        local_steps = 30
        schedule = "cosine"
        warmup_steps = 300
        [cohort]
        fraction = 0.5
    "#;
    RunSpec::parse("run.toml", text).unwrap()
}

fn blob() -> BlobId {
    BlobId::of(b"sheaf")
}

fn params() -> ParamSpec {
    ParamSpec { tensors: vec![ParamTensor { name: "classifier.weight".into(), shape: vec![2, 384] }] }
}

fn task() -> TaskId {
    TaskId { run: "r8-2".parse().unwrap(), round: 3, attempt: 1 }
}

fn job() -> Job {
    Job {
        spec: spec(),
        model: Some(blob()),
        params: params(),
        global: blob(),
        submitted_at: Timestamp(7),
        author: Some(author()),
    }
}

fn author() -> Author {
    Author { certificate: vec![7, 8], signed_at: Timestamp(10), signature: [9; 64].into() }
}

/// The bytes of [`author`].
const AUTHOR: &str = "020708 0a \
    0909090909090909090909090909090909090909090909090909090909090909 \
    0909090909090909090909090909090909090909090909090909090909090909";

/// The bytes of [`job`], in pieces.
const JOB: [&str; 8] = [SPEC, "01", BLOB, PARAMS, BLOB, "07", "01", AUTHOR];

fn counts() -> Counts {
    let mut counts = Classification::new(2);
    counts.observe(0, &[0.0, 0.0]);
    counts.observe(1, &[0.0, 0.0]);
    counts.into()
}

fn report() -> Report {
    counts().report(&Kind::Classification { labels: vec!["a".into(), "b".into()] })
}

fn summary() -> RunSummary {
    RunSummary {
        run: "r8-2".parse().unwrap(),
        state: RunState::Running,
        completed_rounds: 2,
        rounds: 5,
        submitted_by: "ada".parse().unwrap(),
        submitted_at: Timestamp(1_700_000_000_000),
        detail: String::new(),
    }
}

#[test]
fn what_messages_are_made_of() {
    golden(&blob(), &[BLOB]);
    golden(&params(), &[PARAMS]);
    golden(&task(), &[TASK]);
    golden(&spec(), &[SPEC]);
    golden(
        &table_spec(),
        &["056865617274 00 01 00 00 01 00 020804 02 00 00 00 0000000000000000 00 06686561727473 00 \
                01 02 03616765 00 0000000000004b40 0000000000002240 00 03736578 01 \
                020166016d 00 01013f 00 03696c6c 02026e6f03796573 00 0000000000000000 00 7b14ae47e17a843f 0000000000000000 00 10 01 011e \
                02 00 fb2c01 000000000000f03f 00 00 0000000000000000 0000000000000000 00 0000000000000000 00 00 00 00 00 01 00 0000000000000000 0000 00 9a9999999999b93f 0000000000000000 00 00 01 000000000000e03f 01 01 fb100e00 03 fc80969800 \
                000000000000f03f 00 00"],
    );
    golden(&counts(), &[COUNTS]);
    let mut labels = MultiLabel::new(1);
    labels.observe(&[true], &[0.0]);
    golden(&Counts::from(labels), &["01 01 00 fdd2f71772b1000000 01 00 00 01fb001801 00"]);
    let mut number = Regression::default();
    number.observe(1.0, 1.5);
    golden(
        &Counts::from(number),
        &["02 01 fc00000008 fd0000000000004000 fd0000001040000000 fe00000000000000010810000000000000"],
    );
    let mut text = Language::default();
    text.observe([(1.0, true), (0.0, false)]);
    golden(&Counts::from(text), &["03 01 02 01 fd0000000000010000"]);
    golden(&report(), &[REPORT]);
    let asked = |asks| Asked { column: String::new(), asks };
    let words = Asks::Words { words: vec!["a".into(), "b".into()], occurs: Occurs::Once };
    let columns = vec![asked(Asks::Number(Scale { mean: 0.0, std: 1.0 })), asked(words)];
    let mut survey = Survey::new(&columns);
    survey.observe([Value::Number(1.0), Value::Word(1)]);
    let survey = Counts::from(survey);
    golden(
        &survey,
        &["04 01 02 00 01 00 fd0000100000000010 fd0000000000010000 fd0000020000000001 01 02 00 01"],
    );
    golden(
        &survey.report(&Kind::Survey { columns }),
        &["04 01 02 00 00 01 01 00 01000000000000f03f 010000000000000000 00 \
           00 00 00 02 0161 00 00 0162 01 01000000000000e03f"],
    );
    golden(&summary(), &[SUMMARY]);
}

#[test]
fn opening_frames() {
    let hello = Hello { protocol: 1, software: "0.1.0".into() };
    golden(&Open::Site(hello.clone()), &["00", "01", "05302e312e30"]);
    golden(&Open::Operator(hello), &["01", "01", "05302e312e30"]);
    golden(&Open::Get { blob: blob(), offset: 65_536 }, &["02", BLOB, "fc00000100"]);
    golden(&Open::Put { blob: blob(), length: 400_000_000_000 }, &["03", BLOB, "fd00a0db215d000000"]);
}

#[test]
fn answers_on_blob_streams() {
    golden(&BlobReply::Found { length: 250 }, &["00fa"]);
    golden(&BlobReply::Send { offset: 251 }, &["01fbfb00"]);
    golden(&BlobReply::Stored, &["02"]);
    golden(&BlobReply::Refused("no".into()), &["03026e6f"]);
    golden(&BlobReply::Busy, &["04"]);
}

#[test]
fn the_names_of_tasks() {
    golden(&task(), &[TASK]);
    golden(&TaskId { attempt: TaskId::TEST, ..task() }, &["0472382d32 03 fcffffffff"]);
}

#[test]
fn messages_of_a_site() {
    let progress = |phase| SiteMessage::Progress { task: task(), progress: Progress::new(phase, 7, 300) };
    golden(&progress(Phase::Fetching), &["00", TASK, "00", "07fb2c01", "0000"]);
    golden(&progress(Phase::Preparing), &["00", TASK, "01", "07fb2c01", "0000"]);
    golden(&progress(Phase::Evaluating), &["00", TASK, "02", "07fb2c01", "0000"]);
    golden(&progress(Phase::Training), &["00", TASK, "03", "07fb2c01", "0000"]);
    golden(&progress(Phase::Uploading), &["00", TASK, "04", "07fb2c01", "0000"]);
    let trained = Progress {
        steps_per_epoch: NonZeroU64::new(100),
        time_left: Some(Duration::from_millis(2500)),
        ..Progress::new(Phase::Training, 7, 300)
    };
    let trained = SiteMessage::Progress { task: task(), progress: trained };
    golden(&trained, &["00", TASK, "03", "07fb2c01", "0164", "0102fc0065cd1d"]);
    let update = Update {
        task: task(),
        delta: blob(),
        num_examples: 150,
        train_loss: 0.5,
        global_metrics: Some(counts()),
        local_metrics: None,
    };
    golden(
        &SiteMessage::Update(Box::new(update)),
        &["01", TASK, BLOB, "96", "000000000000e03f", "01", COUNTS, "00"],
    );
    golden(&SiteMessage::Evaluated { task: task(), metrics: Some(counts()) }, &["02", TASK, "01", COUNTS]);
    golden(&SiteMessage::Declined { task: task(), reason: "no".into() }, &["03", TASK, "026e6f"]);
    golden(&SiteMessage::Renew(vec![1, 2]), &["07", "020102"]);
    let standby = |held| SiteMessage::Standby { run: "r8".parse().unwrap(), held };
    golden(&standby(None), &["06", "027238", "00"]);
    golden(&standby(Some("no".into())), &["06", "027238", "01026e6f"]);
}

#[test]
fn messages_of_the_server_to_a_site() {
    let welcome = ServerMessage::Welcome { federation: "hearts".parse().unwrap(), software: "0.1.0".into() };
    golden(&welcome, &["00", "06686561727473", "05302e312e30"]);
    golden(&ServerMessage::Refused("no".into()), &["01026e6f"]);
    let train = TrainTask { id: task(), job: job(), record: None, time_left_ms: 90_000 };
    golden(
        &ServerMessage::Train(Box::new(train)),
        &[&["02", TASK], &JOB[..], &["00", "fc905f0100"]].concat(),
    );
    let evaluate = EvaluateTask { id: task(), job: job(), record: None };
    golden(&ServerMessage::Evaluate(Box::new(evaluate)), &[&["03", TASK], &JOB[..], &["00"]].concat());
    golden(&ServerMessage::Rejected { task: task(), reason: "no".into() }, &["04", TASK, "026e6f"]);
    golden(&ServerMessage::Over(task()), &["05", TASK]);
    let announce = ServerMessage::Announce { run: "r8".parse().unwrap(), job: Box::new(job()) };
    golden(&announce, &[&["07", "027238"], &JOB[..]].concat());
    golden(&ServerMessage::Certificate(EnrollReply::Pending), &["08", "02"]);
}

#[test]
fn requests_of_an_operator() {
    golden(
        &Request::Submit { file: "run.toml".into(), text: "x".into(), author: author() },
        &["00", "0872756e2e746f6d6c", "0178", AUTHOR],
    );
    golden(
        &Request::Survey { file: "run.toml".into(), text: "x".into(), author: author() },
        &["09", "0872756e2e746f6d6c", "0178", AUTHOR],
    );
    golden(&Request::Runs, &["01"]);
    golden(&Request::Run("r8".parse().unwrap()), &["02", "027238"]);
    golden(&Request::Stop("r8".parse().unwrap()), &["03", "027238"]);
    golden(&Request::Sites, &["04"]);
    let stand =
        Request::Stand { site: "north".parse().unwrap(), standing: Standing::Suspended, keep_updates: true };
    golden(&stand, &["08", "056e6f727468", "01", "01"]);
    golden(&Request::ImportModel { name: "m".into(), manifest: blob() }, &["05", "016d", BLOB]);
    golden(&Request::Models, &["06"]);
    let pin = Pin([7; 32]);
    let invite = Request::Invite { site: "north".parse().unwrap(), valid_ms: 250, pin };
    golden(&invite, &["0a", "056e6f727468", "fa", SEVENS]);
    golden(&Request::Waiting, &["0b"]);
    let chain = vec![vec![1, 2], vec![3]];
    golden(
        &Request::Approve { site: "north".parse().unwrap(), chain },
        &["0c", "056e6f727468", "02", "020102", "0103"],
    );
    golden(&Request::Export { run: "r8".parse().unwrap(), round: None }, &["07", "027238", "00"]);
    golden(&Request::Export { run: "r8".parse().unwrap(), round: Some(2) }, &["07", "027238", "0102"]);
}

#[test]
fn enrolment() {
    let hello = Hello { protocol: 1, software: "0.1.0".into() };
    golden(&Enroll::Hello(hello), &["00", "01", "05302e312e30"]);
    let (site, secret) = ("north".parse().unwrap(), Secret::new([7; 32]));
    golden(&Enroll::Present { site, secret, request: vec![1, 2] }, &["01", "056e6f727468", SEVENS, "020102"]);
    golden(&EnrollReply::Welcome(vec![vec![1], vec![2]]), &["00", "02", "0101", "0102"]);
    golden(&EnrollReply::Issued(vec![vec![1], vec![2]]), &["01", "02", "0101", "0102"]);
    golden(&EnrollReply::Pending, &["02"]);
    golden(&EnrollReply::Refused("no".into()), &["03", "026e6f"]);
}

#[test]
fn the_record_of_a_round() {
    let digest = |byte| crate::secagg::transcript::Digest([byte; 32]);
    let record = SignedRecord {
        body: Record {
            task: task(),
            origin: blob(),
            software: "0.1.0".into(),
            made_of: MadeOf::Sum(Sum {
                t2: digest(1),
                survivors: vec!["north".parse().unwrap(), "south".parse().unwrap()],
                blob: blob(),
            }),
            model_in: blob(),
            model_out: blob(),
            previous: Some(digest(2)),
        },
        certificate: vec![7, 8],
        signature: [9; 64].into(),
    };
    let (one, two, nine) = ("01".repeat(32), "02".repeat(32), "09".repeat(64));
    let (before, after) = ([TASK, BLOB, "05302e312e30"], [BLOB, BLOB, "01", &two, "020708", &nine]);
    let sum = ["00", &one, "02 056e6f727468 05736f757468", BLOB];
    golden(&record, &[&before[..], &sum, &after].concat());
    let mut open = record.clone();
    let counted = Counted { site: "north".parse().unwrap(), update: blob(), num_examples: 48 };
    open.body.made_of = MadeOf::Updates(vec![counted]);
    golden(&open, &[&before[..], &["01", "01 056e6f727468", BLOB, "30"], &after].concat());
    let list = "451ff98df1e8004dd9dddec2df8c0d2d0b59c1b62eae9c8ae979a72e614aecf4";
    let digest = "ced0647c41941c059850c2e2a29774a36f02176de3bbcbfdfd2af9aa8e3ff9c7";
    assert_eq!(open.body.digest().to_string(), digest);
    let short = open.in_short();
    golden(&short, &[&before[..], &["02", "01", list], &after].concat());
    let train = TrainTask { id: task(), job: job(), record: Some(Box::new(record)), time_left_ms: 1 };
    let message = encode(&ServerMessage::Train(Box::new(train.clone()))).unwrap();
    assert_eq!(decode::<ServerMessage>(&message).unwrap(), ServerMessage::Train(Box::new(train)));
}

#[test]
fn short_replies_to_an_operator() {
    let welcome = Reply::Welcome { federation: "hearts".parse().unwrap(), software: "0.1.0".into() };
    golden(&welcome, &["00", "06686561727473", "05302e312e30"]);
    golden(&Reply::Refused("no".into()), &["01026e6f"]);
    let submitted = Reply::Submitted { run: "r8".parse().unwrap(), warnings: vec!["w".into()] };
    golden(&submitted, &["02", "027238", "010177"]);
    golden(&Reply::Runs(vec![summary()]), &["03", "01", SUMMARY]);
    golden(&Reply::Stopping("r8".parse().unwrap()), &["05", "027238"]);
    let north: ClientId = "north".parse().unwrap();
    let (site, counted) = (north.clone(), vec!["r8".parse().unwrap()]);
    let revoked = Reply::Stands { site, standing: Standing::Revoked, counted };
    golden(&revoked, &["0a", "056e6f727468", "02", "01", "027238"]);
    let (site, secret) = (north.clone(), Secret::new([7; 32]));
    let invited = Reply::Invited { site, secret, expires: Timestamp(1000), at_once: true };
    golden(&invited, &["0b", "056e6f727468", SEVENS, "fbe803", "01"]);
    let waiting = Waiting {
        site: north.clone(),
        request: vec![1, 2],
        address: "a".into(),
        since: Timestamp(1000),
        renewal: false,
    };
    golden(&Reply::Waiting(vec![waiting]), &["0c", "01", "056e6f727468", "020102", "0161", "fbe803", "00"]);
    golden(&Reply::Approved(north), &["0d", "056e6f727468"]);
    let site = SiteStatus {
        site: "north".parse().unwrap(),
        connection: Some(SiteConnection { transport: Transport::Tcp, silent_secs: 4 }),
        standing: Standing::Suspended,
        address: "[::1]:9".into(),
        software: "0.1.0".into(),
        since: Timestamp(1),
        run: Some("r8".parse().unwrap()),
        bytes_down: 2,
        bytes_up: 3,
        expires: Timestamp(4),
    };
    golden(
        &Reply::Sites(vec![site]),
        &[
            "06",
            "01",
            "056e6f727468",
            "010104",
            "01",
            "075b3a3a315d3a39",
            "05302e312e30",
            "01",
            "01027238",
            "02",
            "03",
            "04",
        ],
    );
    let model = ModelInfo {
        name: "m".into(),
        manifest: blob(),
        model_type: "bert".into(),
        num_params: 22_713_216,
        bytes: 90_868_376,
    };
    golden(&Reply::Imported(model.clone()), &["07", "016d", BLOB, "0462657274", "fc80935a01", "fc988a6a05"]);
    golden(&Reply::Models(vec![model]), &["0801", "016d", BLOB, "0462657274", "fc80935a01", "fc988a6a05"]);
}

/// A run in its third round: one site of each kind of answer, one round completed and one attempt abandoned.
fn status() -> RunStatus {
    let member = |site: &str, answer| MemberStatus {
        site: site.parse().unwrap(),
        connected: true,
        answer,
        progress: Some(Progress::new(Phase::Training, 1, 2)),
    };
    let record = |round, outcome| RoundRecord {
        round,
        attempt: 1,
        started: Timestamp(1),
        ended: Timestamp(2),
        outcome,
        participants: vec![Participant {
            site: "north".parse().unwrap(),
            answer: Answer::Accepted,
            num_examples: Some(150),
        }],
        global_metrics: Some(report()),
        local_metrics: None,
        train_loss: Some(0.5),
        secure: Some(SecureSum { sites: 3, num_examples: 150, clamped: 0.0, rounding_error: 0.5 }),
        record: None,
    };
    RunStatus {
        summary: summary(),
        spec: spec(),
        num_params: 768,
        held: vec![("e".parse().unwrap(), "w".into())],
        current: Some(RoundStatus {
            round: 3,
            attempt: 1,
            started: Timestamp(3),
            time_left: Duration::from_millis(1500),
            stage: "training".into(),
            members: vec![
                member("a", Answer::Pending),
                member("b", Answer::Accepted),
                member("c", Answer::Rejected("x".into())),
                member("d", Answer::Declined("y".into())),
            ],
        }),
        earlier_records: 7,
        history: vec![
            record(1, RoundOutcome::Completed(blob())),
            record(2, RoundOutcome::Abandoned("z".into())),
        ],
        final_metrics: None,
        test_metrics: None,
        best: Some(Best { round: 1, value: 0.5, since: 1 }),
        result: 2,
        global: blob(),
    }
}

/// The bytes of [`status`], in pieces.
const STATUS: [&str; 28] = [
    SUMMARY,
    SPEC,
    "fb0003 01 01650177",
    "01 03 01 03 01fc0065cd1d 08747261696e696e67 04",
    "0161 01 00 01030102 0000",
    "0162 01 01 01030102 0000",
    "0163 01 020178 01030102 0000",
    "0164 01 030179 01030102 0000",
    "07",
    "02",
    "01 01 01 02",
    "00",
    BLOB,
    "01 056e6f727468 01 0196",
    "01",
    REPORT,
    "00 01000000000000e03f",
    SECURE,
    "02 01 01 02 01017a 01 056e6f727468 01 0196",
    "01",
    REPORT,
    "00 01000000000000e03f",
    SECURE,
    "00",
    "00",
    "01 01 000000000000e03f 01",
    "02",
    BLOB,
];

#[test]
fn long_replies_to_an_operator() {
    golden(&Reply::Run(Box::new(status())), &[&["04"], &STATUS[..]].concat());
    let export = ExportPlan { status: status(), round: 3, job: job() };
    golden(&Reply::Export(Box::new(export)), &[&["09"], &STATUS[..], &["03"], &JOB[..]].concat());
}

#[test]
fn states_of_a_run() {
    let states = [
        RunState::Queued,
        RunState::Waiting,
        RunState::Running,
        RunState::Evaluating,
        RunState::Completed,
        RunState::Failed,
        RunState::Stopped,
    ];
    for (number, state) in states.iter().enumerate() {
        golden(state, &[&format!("{number:02x}")]);
    }
}

#[test]
fn a_frame_is_its_length_and_its_body() {
    assert_eq!(frame(&Request::Run("r8".parse().unwrap())).unwrap(), [4, 0, 0, 0, 2, 2, b'r', b'8']);
}

#[test]
fn what_does_not_fit_a_frame_is_not_sent() {
    assert!(encode(&"x".repeat(FRAME_MAX)).is_err());
    assert!(frame(&"x".repeat(FRAME_MAX - 16)).is_ok());
}

#[test]
fn bytes_left_over_are_refused() {
    assert!(decode::<Request>(&[1]).is_ok());
    let error = decode::<Request>(&[1, 0]).unwrap_err().to_string();
    assert!(error.ends_with("1 bytes are left over"), "{error}");
}

#[test]
fn a_bad_name_does_not_get_in() {
    assert!(decode::<Name>(b"\x02ok").is_ok());
    assert!(decode::<Name>(b"\x02..").is_err());
}

#[test]
fn a_length_that_lies_allocates_nothing() {
    let huge = [0xfd, 0, 0, 0, 0, 0, 1, 0, 0];
    assert!(decode::<String>(&huge).is_err());
    assert!(decode::<Vec<u64>>(&huge).is_err());
    let reply = [&[3][..], &huge].concat();
    assert!(decode::<Reply>(&reply).is_err());
}

proptest! {
    #[test]
    fn no_bytes_panic(mut bytes in prop::collection::vec(any::<u8>(), 1..300), variant in 0u8..10) {
        let _ = decode::<Open>(&bytes);
        bytes[0] = variant;
        let _ = (decode::<Open>(&bytes), decode::<BlobReply>(&bytes), decode::<SiteMessage>(&bytes));
        let _ = (decode::<ServerMessage>(&bytes), decode::<Request>(&bytes), decode::<Reply>(&bytes));
    }

    #[test]
    fn no_damaged_message_panics(at in 0usize..2000, byte in any::<u8>()) {
        let mut body = encode(&Reply::Run(Box::new(status()))).unwrap();
        let at = at % body.len();
        body[at] = byte;
        let _ = decode::<Reply>(&body);
    }
}
