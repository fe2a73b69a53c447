//! The three commands on small files, with softmax regression where libtorch does not matter.

use std::fs;
use std::path::PathBuf;

use sheaf_common::metrics::Report;

use super::evaluate::{EvaluateError, evaluate};
use super::folder::WeightsFile;
use super::run::LocalRun;
use super::train::{Baseline, BaselineError, train};
use super::*;
use crate::trainer::Unwatched;

/// A site with one data set and room for models and runs.
struct Bench {
    folder: tempfile::TempDir,
}

impl Bench {
    fn new() -> Self {
        let bench = Self { folder: tempfile::tempdir().unwrap() };
        bench.write(
            "site.toml",
            r#"
            server = "localhost:4433"
            state_dir = "state"
            device = "cpu"
            [identity]
            certificate = "site.pem"
            key = "site.key"
            ca = "ca.pem"
            [datasets.points]
            path = "points.csv"
            [datasets.test]
            path = "test.csv"
            "#,
        );
        bench.write("points.csv", points(0..60));
        bench.write("test.csv", points(60..100));
        bench
    }

    fn path(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn write(&self, name: &str, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, content).unwrap();
        path
    }

    fn run(&self, model: &str) -> PathBuf {
        self.write("run.toml", run_toml(model))
    }

    fn train_args(&self, run: PathBuf, model: Option<&str>, out: &str) -> TrainArgs {
        TrainArgs {
            run,
            model: model.map(|model| self.path(model)),
            out: self.path(out),
            dataset: None,
            site: None,
            json: false,
        }
    }

    fn train(&self, run: PathBuf, model: Option<&str>, out: &str) -> Result<Baseline, BaselineError> {
        train(&self.path("site.toml"), &self.train_args(run, model, out), &Unwatched, &mut |_| {})
    }

    fn evaluate(&self, run: PathBuf, models: &[&str]) -> Result<evaluate::Evaluation, EvaluateError> {
        let models = models.iter().map(|model| self.path(model)).collect();
        let args = EvaluateArgs { run, dataset: Some("test".to_owned()), models, json: false };
        evaluate(&self.path("site.toml"), &args)
    }

    fn check(&self, run: Option<PathBuf>) -> check::CheckReport {
        check::check(&self.path("site.toml"), &CheckArgs { run, model: None, json: false })
    }
}

/// Two classes in the plane, apart but for a little.
fn points(range: std::ops::Range<u32>) -> String {
    let row = |i: u32| {
        let sign = if i.is_multiple_of(2) { 1.0 } else { -1.0 };
        let wobble = f64::from(i * 37 % 23) / 23.0 - 0.5;
        format!("{},{},{}\n", sign + wobble, sign * 0.5 - wobble, if sign > 0.0 { "up" } else { "down" })
    };
    format!("x,y,class\n{}", range.map(row).collect::<String>())
}

fn run_toml(model: &str) -> String {
    format!(
        r#"
name = "plane"
rounds = 3
seed = 7
secure_aggregation = "off"
[model]
{model}
[task]
type = "tabular-classification"
dataset = "points"
label = "class"
labels = ["down", "up"]
[[task.features]]
column = "x"
type = "numeric"
[[task.features]]
column = "y"
type = "numeric"
[training]
optimizer = "sgd"
learning_rate = 0.5
batch_size = 8
local_epochs = 2
validation_split = 0.2
"#
    )
}

const SOFTMAX: &str = "architecture = \"softmax\"";

fn accuracy(report: &Report) -> f64 {
    report.classification().unwrap().accuracy
}

#[test]
fn a_baseline_learns_and_is_scored_from_its_folder() {
    let bench = Bench::new();
    let baseline = bench.train(bench.run(SOFTMAX), None, "model").unwrap();
    assert_eq!((baseline.site.as_str(), baseline.dataset.as_str()), ("local", "points"));
    assert_eq!(baseline.num_examples, 48);
    assert_eq!(baseline.rounds.iter().map(|round| round.round).collect::<Vec<_>>(), [1, 2, 3]);
    assert_eq!(baseline.initial_metrics.as_ref().map(Report::num_examples), Some(12));
    assert!(baseline.rounds[2].train_loss < baseline.rounds[0].train_loss);

    let evaluation = bench.evaluate(bench.run(SOFTMAX), &["model", "model"]).unwrap();
    assert_eq!((evaluation.dataset.as_str(), evaluation.num_examples), ("test", 40));
    assert_eq!(evaluation.models[0].metrics, evaluation.models[1].metrics);
    assert!(accuracy(&evaluation.models[0].metrics) > 0.9, "{evaluation:?}");
}

#[test]
fn the_same_run_gives_the_same_model() {
    let bench = Bench::new();
    let weights = |out: &str| {
        bench.train(bench.run(SOFTMAX), None, out).unwrap();
        fs::read(bench.path(out).join("model.safetensors")).unwrap()
    };
    assert_eq!(weights("a"), weights("b"));
}

#[test]
fn another_site_shuffles_another_way() {
    let bench = Bench::new();
    let loss = |site: &str, out| {
        let mut args = bench.train_args(bench.run(SOFTMAX), None, out);
        args.site = Some(site.parse().unwrap());
        train(&bench.path("site.toml"), &args, &Unwatched, &mut |_| {}).unwrap().rounds[0].train_loss
    };
    assert_ne!(loss("st-mary", "a"), loss("st-john", "b"));
}

#[test]
fn a_perceptron_is_pretrained_imported_and_its_head_trained() {
    let bench = Bench::new();
    bench.train(bench.run("architecture = \"mlp\"\nhidden = [8]"), None, "base").unwrap();

    let head = || bench.run("name = \"base\"\ntrainable = \"head\"");
    let baseline = bench.train(head(), Some("base"), "tuned").unwrap();
    let before = baseline.initial_metrics.unwrap();
    assert!(accuracy(&before) > 0.9, "it starts from the pretrained weights");
    let evaluation = bench.evaluate(head(), &["base", "tuned"]).unwrap();
    let each: Vec<f64> = evaluation.models.iter().map(|score| accuracy(&score.metrics)).collect();
    assert!(each.iter().all(|accuracy| *accuracy > 0.9), "{each:?}");

    bench.train(bench.run("name = \"base\""), Some("base"), "whole").unwrap();
    let error = bench.evaluate(head(), &["base", "whole"]).unwrap_err().to_string();
    assert!(error.contains("which the run does not train: evaluate them one at a time"), "{error}");
}

/// Round by round by hand: the head alone for two rounds, then, from the file with that head, all of it.
#[test]
fn gradual_unfreezing_is_the_rounds_of_each_part_one_after_the_other() {
    let bench = Bench::new();
    bench.train(bench.run("architecture = \"mlp\"\nhidden = [8, 8]"), None, "base").unwrap();
    let run = |model: &str| bench.run(&format!("name = \"base\"\n{model}"));
    let phases = "unfreeze = [{ round = 1, trainable = \"head\" }, { round = 3, trainable = \"last:1\" }]";
    let baseline = bench.train(run(phases), Some("base"), "unfrozen").unwrap();
    assert_eq!(baseline.rounds.len(), 3);

    let site = crate::config::SiteConfig::load(&bench.path("site.toml")).unwrap();
    let part = |trainable: &str| {
        let base = bench.path("base");
        LocalRun::read(&run(&format!("trainable = \"{trainable}\"")), Some(&base)).unwrap()
    };
    let open = |run: &LocalRun| {
        crate::trainer::open::open(
            &run.job,
            run.model_dir(),
            &site.datasets,
            "local",
            site.device,
            &site.policy,
        )
        .unwrap()
    };
    let round = |number| crate::trainer::Round { number, of: 3 };
    let (head, last) = (part("head"), part("last:1"));
    let mut trainer = open(&head);
    let mut trained = head.initial_params().unwrap();
    for number in [1, 2] {
        trained = trainer.train(trained, round(number), &Unwatched).unwrap().params;
    }
    let mut params = last.initial_params().unwrap();
    let start = params.len() - trained.len();
    params[start..].copy_from_slice(&trained);
    let params = open(&last).train(params, round(3), &Unwatched).unwrap().params;

    let bits = |values: Vec<f32>| values.into_iter().map(f32::to_bits).collect::<Vec<_>>();
    let [base, unfrozen] = ["base", "unfrozen"].map(|name| WeightsFile::open(&bench.path(name)).unwrap());
    assert_eq!(bits(unfrozen.params(&last.job.params).unwrap()), bits(params));
    for (name, shape) in [("layers.0.weight", [8, 4].as_slice()), ("layers.0.bias", &[8])] {
        assert_eq!(bits(unfrozen.tensor(name, shape).unwrap()), bits(base.tensor(name, shape).unwrap()));
    }

    let check = CheckArgs { run: Some(run(phases)), model: Some(bench.path("base")), json: false };
    let cost = check::check(&bench.path("site.toml"), &check).cost.unwrap();
    assert_eq!(cost.parameters, last.job.params.numel(), "a round of the last phase is told");
    let evaluation = bench.evaluate(run(phases), &["unfrozen"]).unwrap();
    assert!(accuracy(&evaluation.models[0].metrics) > 0.9, "{evaluation:?}");
}

#[test]
fn nothing_is_written_over() {
    let bench = Bench::new();
    fs::create_dir(bench.path("model")).unwrap();
    let error = bench.train(bench.run(SOFTMAX), None, "model").unwrap_err().to_string();
    assert!(error.ends_with("model is already there: choose another folder with --out"), "{error}");
}

#[test]
fn what_cannot_be_trained_is_said() {
    let bench = Bench::new();
    let said = |run: PathBuf, model| bench.train(run, model, "out").unwrap_err().to_string();
    let missing = said(bench.path("nowhere.toml"), None);
    assert!(missing.contains("nowhere.toml cannot be read"), "{missing}");
    let imported = said(bench.run("name = \"base\""), None);
    assert!(
        imported.starts_with("the run starts from the imported model `base`: name the folder"),
        "{imported}"
    );
    let fresh = said(bench.run(SOFTMAX), Some("base"));
    assert_eq!(fresh, "the run's model starts from its seed: leave out --model");
    let unknown = said(bench.write("run.toml", run_toml(SOFTMAX).replace("\"points\"", "\"planes\"")), None);
    assert!(unknown.contains("asks for data set `planes`, and site.toml has `points`, `test`"), "{unknown}");
    let column = said(bench.write("run.toml", run_toml(SOFTMAX).replace("\"y\"", "\"z\"")), None);
    assert!(column.contains("has no column `z`; it has `x`, `y` and `class`"), "{column}");
    assert!(!bench.path("out").exists());
}

#[test]
fn a_model_that_does_not_fit_is_not_scored() {
    let bench = Bench::new();
    bench.train(bench.run(SOFTMAX), None, "softmax").unwrap();
    bench.train(bench.run("architecture = \"mlp\""), None, "mlp").unwrap();
    let error = bench.evaluate(bench.run(SOFTMAX), &["softmax", "mlp"]).unwrap_err().to_string();
    assert!(error.contains("has no tensor `weight`"), "{error}");

    let swapped = run_toml("architecture = \"mlp\"").replace("[\"down\", \"up\"]", "[\"up\", \"down\"]");
    let error = bench.evaluate(bench.write("run.toml", swapped), &["mlp"]).unwrap_err().to_string();
    assert!(error.contains(r#"tells apart ["down", "up"], and the run ["up", "down"]"#), "{error}");
}

#[test]
fn a_run_without_a_task_has_nothing_to_score() {
    let bench = Bench::new();
    let text = "name = \"a\"\nrounds = 1\nsecure_aggregation = \"off\"\n[model]\narchitecture = \"constant\"\n\
                parameters = 5\n[task]\ntype = \"none\"\n";
    let run = bench.write("run.toml", text);
    let trained = bench.train(run.clone(), None, "model").unwrap();
    assert_eq!(trained.rounds.len(), 1);
    let error = bench.evaluate(run.clone(), &["model"]).unwrap_err();
    assert!(matches!(error, EvaluateError::NoTask), "{error}");
    assert_eq!(bench.check(Some(run)).cost.unwrap().bytes_up_per_round, 20);
}

#[test]
fn a_check_looks_at_everything_and_goes_on() {
    let bench = Bench::new();
    let report = bench.check(Some(bench.run(SOFTMAX)));
    let failed: Vec<&str> = report
        .findings
        .iter()
        .filter(|finding| !finding.passed)
        .map(|finding| finding.what.as_str())
        .collect();
    assert_eq!(failed, ["certificate"], "only the certificate is not there: {:?}", report.findings);
    assert!(!report.passed);
    let points = report.findings.iter().find(|finding| finding.what == "data set points").unwrap();
    assert_eq!(points.detail, "60 rows, 3 columns");
    let metrics = |report: &check::CheckReport| {
        report.findings.iter().find(|finding| finding.what == "metrics").unwrap().detail.clone()
    };
    assert_eq!(metrics(&report), "are sent, of 12 validation examples");

    let cost = report.cost.unwrap();
    assert_eq!((cost.train_examples, cost.validation_examples), (48, 12));
    assert_eq!(cost.steps_per_round, 12);
    assert_eq!((cost.parameters, cost.bytes_up_per_round, cost.bytes_down_per_round), (10, 40, 40));
    let counts: Vec<(u64, u64)> = cost.classes.iter().map(|class| (class.train, class.validation)).collect();
    assert_eq!(counts, [(24, 6), (24, 6)]);

    let config = fs::read_to_string(bench.path("site.toml")).unwrap();
    bench.write("site.toml", format!("{config}\n[policy]\nmin_metric_count = 13\n"));
    let strict = bench.check(Some(bench.run(SOFTMAX)));
    assert!(metrics(&strict).starts_with("are not sent: they are of 12 examples"), "{strict:?}");
}

#[test]
fn a_check_says_what_is_wrong_with_the_data() {
    let bench = Bench::new();
    bench.write("points.csv", "x,y,class\n1,2,up\n1,two,down\n");
    let report = bench.check(Some(bench.run(SOFTMAX)));
    let contract = report.findings.iter().find(|finding| finding.what == "contract").unwrap();
    assert!(
        !contract.passed && contract.detail.contains("line 3, column `y`: \"two\" is not a number"),
        "{contract:?}"
    );
    assert!(report.cost.is_none());
}

#[test]
fn what_is_printed_is_for_people_or_for_programs() {
    let bench = Bench::new();
    let site = bench.path("site.toml");
    let printed = |command: &Command| {
        let mut out = Vec::new();
        command.execute(&site, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    };
    let run = bench.run(SOFTMAX);
    let train = bench.train_args(run.clone(), None, "model");
    let text = printed(&Command::Train(train.clone()));
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(text.starts_with("round   1  train loss 0."), "{text}");
    assert!(text.contains("trained on 48 examples of `points` as `local` in "), "{text}");
    let json = printed(&Command::Train(TrainArgs { out: bench.path("again"), json: true, ..train }));
    assert_eq!(
        serde_json::from_str::<serde_json::Value>(&json).unwrap()["rounds"].as_array().unwrap().len(),
        3
    );

    let evaluate =
        EvaluateArgs { run: run.clone(), dataset: None, models: vec![bench.path("model")], json: false };
    let text = printed(&Command::Evaluate(evaluate.clone()));
    assert!(text.starts_with("60 examples of `points`\n\n    LOSS  ACCURACY"), "{text}");
    let json = printed(&Command::Evaluate(EvaluateArgs { json: true, ..evaluate }));
    let json: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert!(json["models"][0]["metrics"]["roc_auc"].is_number(), "{json}");

    let check = CheckArgs { run: Some(run), model: None, json: false };
    let text = printed(&Command::Check(check.clone()));
    assert!(text.contains("FAIL  certificate"), "{text}");
    assert!(text.contains("ok    contract         data set `points` meets it"), "{text}");
    assert!(text.contains("(12 steps of ") && text.ends_with("1 thing needs attention\n"), "{text}");
    let json = printed(&Command::Check(CheckArgs { json: true, ..check }));
    assert_eq!(serde_json::from_str::<serde_json::Value>(&json).unwrap()["passed"], false);
}
