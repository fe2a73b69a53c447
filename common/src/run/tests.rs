//! `run.toml`: a whole one, one as short as can be, and the sentence for each way to get it wrong.

use super::*;
use crate::compression::Compression;

mod compression;
mod secagg;

/// A run with nothing left out.
const TEXT: &str = r#"name = "newswire"
rounds = 5
seed = 42
secure_aggregation = "off"

[model]
name = "minilm"
trainable = "last:2"
pooling = "cls"
dropout = 0.2

[task]
type = "text-classification"
dataset = "news"
text = "body"
max_length = 96
label = "topic"
labels = ["earn", "acq", "ship"]

[training]
optimizer = "adamw"
learning_rate = 2e-4
beta1 = 0.8
beta2 = 0.99
epsilon = 1e-7
weight_decay = 0.02
batch_size = 8
local_epochs = 2
schedule = "cosine"
warmup_steps = 10
max_grad_norm = 1.0
validation_split = 0.2

[cohort]
sites = ["north", "south", "east"]
count = 2
min_sites = 3
min_updates = 2
round_timeout = "90s"
max_attempts = 4
max_examples = 1000

[server]
learning_rate = 0.5

[validation]
every = 2
monitor = "macro_f1"
min_delta = 0.001
patience = 3
restore_best = false
"#;

/// As little as a tabular run can say.
const TABLE: &str = r#"name = "heart"
rounds = 1
secure_aggregation = "off"
[model]
architecture = "mlp"
[task]
type = "tabular-classification"
dataset = "hearts"
label = "disease"
labels = ["healthy", "ill"]
[[task.features]]
column = "age"
type = "numeric"
[[task.features]]
column = "sex"
type = "categorical"
categories = ["f", "m", "x"]
missing = ["?"]
"#;

fn parse(text: &str) -> Result<RunSpec, String> {
    RunSpec::parse("run.toml", text).map_err(|error| error.to_string())
}

/// The sentence for `text` with one part of it written otherwise.
fn sentence(text: &str, part: &str, otherwise: &str) -> String {
    assert_eq!(text.matches(part).count(), 1, "`{part}` stands once in the file");
    parse(&text.replace(part, otherwise)).expect_err(otherwise)
}

fn check(text: &str, cases: &[(&str, &str, &str)]) {
    for (part, otherwise, expected) in cases {
        assert_eq!(sentence(text, part, otherwise), *expected);
    }
}

/// The same, whatever the line.
fn check_ends(text: &str, cases: &[(&str, &str, &str)]) {
    for (part, otherwise, expected) in cases {
        let said = sentence(text, part, otherwise);
        assert!(said.ends_with(&format!(": {expected}")), "{said}");
    }
}

#[test]
fn a_whole_file_is_read() {
    let expected = RunSpec {
        name: "newswire".parse().unwrap(),
        purpose: None,
        rounds: 5,
        seed: 42,
        secure_aggregation: SecureAggregation::Off,
        model: ModelSpec {
            source: ModelSource::Imported("minilm".into()),
            trainable: Trainable::Last(2),
            unfreeze: BTreeMap::new(),
            lora: None,
            pooling: Pooling::Cls,
            dropout: 0.2,
            batch_norm: BatchNorm::Frozen,
        },
        task: Task {
            dataset: "news".into(),
            group: None,
            input: TaskInput::Text { column: "body".into(), max_length: 96 },
            target: Target::Label {
                column: "topic".into(),
                labels: vec!["earn".into(), "acq".into(), "ship".into()],
            },
        },
        training: Training {
            optimizer: Optimizer::AdamW(AdamSpec { beta1: 0.8, beta2: 0.99, epsilon: 1e-7 }),
            learning_rate: 2e-4,
            weight_decay: 0.02,
            weight_decay_on: DecayOn::Weights,
            batch_size: 8,
            local: LocalWork::Epochs(2),
            schedule: Schedule { kind: ScheduleKind::Cosine, per: Per::Step, warmup_steps: 10 },
            max_grad_norm: Some(1.0),
            ..Training::default()
        },
        validation: Validation {
            every: 2,
            monitor: Monitor::MacroF1,
            min_delta: 0.001,
            patience: Some(3),
            restore_best: false,
            held_out: HeldOut::Share(0.2),
            test_split: 0.0,
            leave_out: None,
        },
        cohort: CohortSpec {
            sites: Some(["north", "south", "east"].map(|site| site.parse().unwrap()).into()),
            selection: Selection::Count(2),
            min_sites: 3,
            min_updates: 2,
            round_timeout: Duration::from_secs(90),
            max_attempts: 4,
            max_examples: 1000,
        },
        server: ServerSpec { learning_rate: 0.5 },
        compression: Compression::default(),
    };
    assert_eq!(parse(TEXT), Ok(expected));
}

#[test]
fn what_is_left_out_has_a_default() {
    let spec = parse(TABLE).unwrap();
    assert_eq!(spec.seed, 0);
    assert_eq!(spec.model.source, ModelSource::Fresh(Architecture::Mlp(vec![64])));
    assert_eq!((&spec.model.trainable, spec.model.dropout), (&Trainable::All, 0.0));
    let TaskInput::Table { features } = &spec.task.input else { panic!("a table") };
    assert_eq!(features[0].kind, FeatureKind::Numeric { mean: 0.0, std: 1.0 });
    assert_eq!(features[1].missing, ["?"]);
    assert_eq!((spec.task.num_inputs(), spec.task.num_outputs()), (5, 2));
    assert_eq!(
        spec.training.optimizer,
        Optimizer::AdamW(AdamSpec { beta1: 0.9, beta2: 0.999, epsilon: 1e-8 })
    );
    assert_eq!((spec.training.learning_rate, spec.training.weight_decay), (1e-3, 0.01));
    assert_eq!((spec.training.batch_size, spec.training.local), (16, LocalWork::Epochs(1)));
    assert_eq!((spec.cohort.sites, spec.cohort.selection), (None, Selection::All));
    assert_eq!((spec.cohort.min_sites, spec.cohort.min_updates, spec.cohort.max_attempts), (1, 1, 3));
    assert_eq!(spec.cohort.round_timeout, Duration::from_secs(3600));
    assert_eq!(spec.server.learning_rate, 1.0);
}

#[test]
fn named_sites_must_all_answer_unless_it_says_otherwise() {
    let text = TEXT.replace("count = 2\nmin_sites = 3\nmin_updates = 2\n", "");
    let cohort = parse(&text).unwrap().cohort;
    assert_eq!((cohort.min_sites, cohort.min_updates), (3, 3));
}

#[test]
fn each_optimizer_is_read() {
    let with = |keys: &str| parse(&format!("{TABLE}[training]\n{keys}")).unwrap().training;
    let sgd = with("optimizer = \"sgd\"\nmomentum = 0.9\nnesterov = true\nlocal_steps = 30");
    assert_eq!(sgd.optimizer, Optimizer::Sgd { momentum: 0.9, nesterov: true });
    assert_eq!((sgd.learning_rate, sgd.weight_decay, sgd.local), (0.01, 0.0, LocalWork::Steps(30)));
    assert!(matches!(with("optimizer = \"adam\"").optimizer, Optimizer::Adam(_)));
}

#[test]
fn models_without_weights_are_read() {
    let softmax = parse(&TABLE.replace("\"mlp\"", "\"softmax\"")).unwrap();
    assert_eq!(softmax.model.source, ModelSource::Fresh(Architecture::Softmax));
    let head = "name = \"load\"\nrounds = 1\nsecure_aggregation = \"off\"\n";
    let constant =
        format!("{head}[model]\narchitecture = \"constant\"\nparameters = 100\n[task]\ntype = \"none\"\n");
    let constant = parse(&constant).unwrap();
    assert_eq!(constant.model.source, ModelSource::Fresh(Architecture::Constant(100)));
    assert_eq!(
        (constant.task.input.clone(), constant.task.num_outputs(), constant.task.num_inputs()),
        (TaskInput::Nothing, 0, 0)
    );
}

#[test]
fn what_is_no_toml_has_its_line() {
    let message = sentence(TEXT, "rounds = 5", "rounds = ");
    assert!(message.starts_with("run.toml:2: "), "{message}");
    let message = sentence(TEXT, "rounds = 5", "rounds = \"five\"");
    assert_eq!(message, "run.toml:2: invalid type: string \"five\", expected u32");
    let message = sentence(TEXT, "rounds = 5", "rounds = -1");
    assert!(message.starts_with("run.toml:2: invalid value: integer `-1`"), "{message}");
    let message = sentence(TEXT, "seed = 42", "sede = 42");
    assert!(
        message.starts_with("run.toml:3: unknown field `sede`, expected one of `name`, `purpose`, `rounds`"),
        "{message}"
    );
    let message = sentence(TEXT, "batch_size = 8", "batchsize = 8");
    assert!(message.starts_with("run.toml:27: unknown field `batchsize`"), "{message}");
    assert_eq!(sentence(TEXT, "rounds = 5\n", ""), "run.toml:1: missing field `rounds`");
}

#[test]
fn wrong_values_of_the_run() {
    check(
        TEXT,
        &[
            (
                "\"newswire\"",
                "\"News Wire\"",
                "run.toml:1: name: `News Wire` is not a name: use 1 to 63 lower-case letters, digits and hyphens, with a \
                 letter or digit at both ends",
            ),
            ("rounds = 5", "rounds = 0", "run.toml:2: rounds: 0 is not between 1 and 100000"),
            (
                "\"off\"",
                "\"on\"",
                "run.toml:4: secure_aggregation: `on` is unknown; write \"required\", or \"off\" to let the server see \
                 each site's update",
            ),
            (
                "learning_rate = 0.5",
                "learning_rate = inf",
                "run.toml:44: server.learning_rate: inf is not a finite number above 0",
            ),
        ],
    );
}

#[test]
fn wrong_values_of_the_model() {
    check(
        TEXT,
        &[
            (
                "name = \"minilm\"",
                "",
                "run.toml:6: model: give `name` (an imported model) or `architecture` (\"mlp\", \"softmax\")",
            ),
            (
                "name = \"minilm\"",
                "name = \"minilm\"\narchitecture = \"mlp\"",
                "run.toml:6: model: give either `name` (an imported model) or `architecture`, not both",
            ),
            (
                "name = \"minilm\"",
                "name = \"minilm\"\nhidden = [3]",
                "run.toml:8: model.hidden: an imported model brings its own layers",
            ),
            (
                "\"last:2\"",
                "\"last:0\"",
                "run.toml:8: model.trainable: `last:0` is unknown; use \"head\", \"last:K\" with K from 1, \"all\", \
                 or a list of regular expressions",
            ),
            ("dropout = 0.2", "dropout = 1.0", "run.toml:10: model.dropout: 1 is not in [0, 1)"),
            (
                "name = \"minilm\"",
                "architecture = \"softmax\"",
                "run.toml:13: task.type: does not fit the model: texts and images need an imported model, \
                 tables an mlp, or softmax for one label an example; \"none\" is for the \"constant\" architecture",
            ),
        ],
    );
    let message = sentence(TEXT, "\"cls\"", "\"max\"");
    assert!(message.starts_with("run.toml:9: unknown variant `max`, expected `mean` or `cls`"), "{message}");
}

#[test]
fn adapters_are_read_and_refused_where_they_cannot_be() {
    let with = |line: &str| parse(&TEXT.replace("trainable = \"last:2\"", line));
    let lora = with("trainable = \"last:2\"\nlora = { rank = 4 }").unwrap().model.lora;
    let plain = Lora { rank: 4, alpha: 4.0, targets: Vec::new(), dropout: 0.0, bias: LoraBias::None };
    assert_eq!(lora, Some(plain.clone()));
    let lora = with("lora = { rank = 4, dropout = 0.1, bias = \"lora_only\" }").unwrap().model.lora;
    assert_eq!(lora, Some(Lora { dropout: 0.1, bias: LoraBias::LoraOnly, ..plain }));
    let wrong = |line: &str| with(line).unwrap_err().split_once(": ").unwrap().1.to_owned();
    assert_eq!(wrong("lora = { rank = 0 }"), "model.lora.rank: 0 is not between 1 and 1024");
    assert_eq!(wrong("lora = { alpha = -1 }"), "model.lora.alpha: -1 is not a finite number above 0");
    assert_eq!(wrong("lora = { dropout = 1 }"), "model.lora.dropout: 1 is not in [0, 1)");
    assert!(wrong("lora = { bias = \"some\" }").contains("expected one of `none`, `all`, `lora_only`"));
    assert_eq!(wrong("lora = { targets = [] }"), "model.lora.targets: names no layer");
    assert!(
        wrong("trainable = \"head\"\nlora = {}")
            .starts_with("model.trainable: says in which layers adapters are")
    );
    let table = TABLE.replace("architecture = \"mlp\"", "architecture = \"mlp\"\nlora = {}");
    assert!(parse(&table).unwrap_err().ends_with("model.lora: is for pretrained models of texts and images"));
}

#[test]
fn what_becomes_of_batch_normalisation_is_for_images_and_kept_in_bounds() {
    let image = "type = \"image-classification\"\ndataset = \"d\"\nlabel = \"l\"\nlabels = [\"a\", \"b\"]";
    let with = |batch_norm: &str, rest: &str| {
        parse(&format!(
            "name = \"scans\"\nrounds = 5\n[model]\nname = \"net\"\nbatch_norm = \"{batch_norm}\"\n[task]\n{image}\n{rest}"
        ))
    };
    assert_eq!(with("averaged", "").unwrap().model.batch_norm, BatchNorm::Averaged);
    assert_eq!(
        with("local", "").unwrap().model.trained(),
        "everything; batch normalisation local to each site"
    );
    let wrong = |batch_norm: &str, rest: &str| with(batch_norm, rest).unwrap_err();
    assert!(wrong("adaptive", "").contains("unknown variant `adaptive`, expected one of `frozen`"));
    let said = wrong("averaged", "[server]\nlearning_rate = 1.5");
    assert!(said.contains("server.learning_rate: is at most 1 with batch_norm = \"averaged\""), "{said}");
    assert!(with("averaged", "[server]\nlearning_rate = 0.5").is_ok());
    let said = wrong("local", "[validation]\npatience = 2");
    assert!(said.contains("set validation.restore_best to false"), "{said}");
    assert!(with("local", "[validation]\npatience = 2\nrestore_best = false").is_ok());
    let text = TEXT.replace("trainable = \"last:2\"", "batch_norm = \"frozen\"");
    assert!(parse(&text).unwrap_err().ends_with("model.batch_norm: is for models of images"));
}

#[test]
fn what_is_trained_may_be_told_by_patterns() {
    let with = |line: &str| parse(&TEXT.replace("trainable = \"last:2\"", line));
    let patterns = with(r#"trainable = ["^classifier", 'layer\.[45]\..*bias']"#).unwrap().model.trainable;
    assert_eq!(patterns, Trainable::Matching(vec!["^classifier".into(), r"layer\.[45]\..*bias".into()]));
    let wrong = |line: &str| with(line).unwrap_err().split_once(": ").unwrap().1.to_owned();
    assert_eq!(wrong("trainable = []"), "model.trainable: 0 patterns are listed; give 1 to 64");
    assert_eq!(
        wrong(r#"trainable = ["(bias"]"#),
        "model.trainable: this is no regular expression that can be used: unclosed group"
    );
    assert_eq!(
        wrong("trainable = 2"),
        "trainable is \"head\", \"last:K\", \"all\" or a list of regular expressions"
    );
    let adapters = wrong("trainable = [\"query\"]\nlora = {}");
    assert!(adapters.starts_with("model.trainable: says in which layers adapters are"), "{adapters}");
}

#[test]
fn what_is_trained_may_grow_from_round_to_round() {
    let with = |phases: &str| {
        parse(
            &TEXT
                .replace("trainable = \"last:2\"", &format!("unfreeze = [{phases}]"))
                .replace("rounds = 5", "rounds = 9"),
        )
    };
    let model = with(
        r#"{ round = 1, trainable = "head" }, { round = 4, trainable = "last:2" }, { round = 9, trainable = ["."] }"#,
    );
    let model = model.unwrap().model;
    assert_eq!(model.trainable, Trainable::Head);
    let later = [(4, Trainable::Last(2)), (9, Trainable::Matching(vec![".".into()]))];
    assert_eq!(model.unfreeze, later.into());
    assert_eq!(
        model.trained(),
        "the head, from round 4 the last 2 layers and the head, from round 9 what `.` finds"
    );

    let wrong = |phases: &str| with(phases).unwrap_err().split_once(": ").unwrap().1.to_owned();
    let head = |round: u32| format!("{{ round = {round}, trainable = \"head\" }}");
    assert_eq!(wrong(""), "model.unfreeze: lists no phase");
    assert_eq!(wrong(&head(2)), "model.unfreeze.0.round: 2 is not 1: the first phase begins with the run");
    let pair = |a, b| format!("{}, {}", head(a), head(b));
    assert_eq!(wrong(&pair(1, 1)), "model.unfreeze.1.round: 1 does not come after 1");
    assert_eq!(wrong(&pair(1, 10)), "model.unfreeze.1.round: the run has only 9 rounds");
    assert!(
        wrong("{ round = 1, trainable = \"top\" }")
            .starts_with("model.unfreeze.0.trainable: `top` is unknown; use")
    );
    assert!(wrong("{ round = 1 }").contains("missing field `trainable`"));
    let refused = |text: String| parse(&text).unwrap_err().split_once(": ").unwrap().1.to_owned();
    let both = TEXT.replace("trainable = ", &format!("unfreeze = [{}]\ntrainable = ", head(1)));
    assert_eq!(refused(both), "model.unfreeze: says what is trained in every round: leave `trainable` out");
    let adapters = TEXT.replace(
        "trainable = \"last:2\"",
        "unfreeze = [{ round = 1, trainable = \"all\" }, { round = 2, trainable = \"all\" }]\nlora = {}",
    );
    assert_eq!(refused(adapters), "model.unfreeze: goes without adapters: leave `lora` or `unfreeze` out");
    let fresh = format!("architecture = \"mlp\"\nunfreeze = [{}]", head(1));
    assert_eq!(
        refused(TABLE.replace("architecture = \"mlp\"", &fresh)),
        "model.trainable: a model that starts from the seed must be trained whole: write \"all\""
    );
}

#[test]
fn wrong_values_of_a_fresh_model() {
    let mlp = "architecture = \"mlp\"";
    check(
        TABLE,
        &[
            (
                mlp,
                "architecture = \"gpt\"",
                "run.toml:5: model.architecture: `gpt` is unknown; use \"mlp\", \"softmax\" or \"constant\", or `name` for \
                 an imported model",
            ),
            (
                mlp,
                "architecture = \"mlp\"\nhidden = [0]",
                "run.toml:6: model.hidden: give at most 16 layers of 1 to 65536 units each",
            ),
            (
                mlp,
                "architecture = \"softmax\"\nhidden = [4]",
                "run.toml:6: model.hidden: only \"mlp\" has hidden layers",
            ),
            (
                mlp,
                "architecture = \"mlp\"\nparameters = 4",
                "run.toml:6: model.parameters: only \"constant\" has it",
            ),
            (mlp, "architecture = \"constant\"", "run.toml:4: model.parameters: say how many values"),
            (
                mlp,
                "architecture = \"constant\"\nparameters = 0",
                "run.toml:6: model.parameters: 0 is not between 1 and 68719476736",
            ),
            (
                mlp,
                "architecture = \"mlp\"\ntrainable = \"head\"",
                "run.toml:6: model.trainable: a model that starts from the seed must be trained whole: write \"all\"",
            ),
        ],
    );
}

#[test]
fn wrong_values_of_the_task() {
    check(
        TEXT,
        &[
            (
                "\"text-classification\"",
                "\"regression\"",
                "run.toml:13: task.type: `regression` is unknown; use \"text-classification\", \"tabular-classification\", \
                 \"image-classification\", \"text-regression\", \"tabular-regression\", \"image-regression\" or \"causal-lm\"",
            ),
            ("dataset = \"news\"\n", "", "run.toml:12: task.dataset: is missing"),
            ("text = \"body\"\n", "", "run.toml:12: task.text: name the column that holds the text"),
            (
                "max_length = 96",
                "max_length = 2",
                "run.toml:16: task.max_length: 2 is not between 3 and 8192",
            ),
            ("label = \"topic\"\n", "", "run.toml:12: task.label: is missing"),
            ("\"earn\", \"acq\", \"ship\"", "\"earn\"", "run.toml:18: task.labels: list 2 to 64 labels"),
            ("\"acq\"", "\"earn\"", "run.toml:18: task.labels: `earn` is listed twice"),
            (
                "[training]",
                "[[task.features]]\ncolumn = \"age\"\ntype = \"numeric\"\n[training]",
                "run.toml:20: task.features: is not for \"text-classification\"",
            ),
        ],
    );
}

#[test]
fn other_targets_have_keys_of_their_own() {
    let of = |old: &str, new: &str| {
        RunSpec::parse(
            "run.toml",
            &TABLE
                .replace("tabular-classification", old)
                .replace("softmax", "mlp")
                .replace("labels = [\"healthy\", \"ill\"]", new),
        )
        .unwrap()
    };
    let any = of("tabular-classification", "multi_label = true\nlabels = [\"flu\", \"gout\"]").task;
    let expected = Target::Labels {
        column: "disease".into(),
        separator: ";".into(),
        labels: vec!["flu".into(), "gout".into()],
    };
    assert_eq!((any.num_outputs(), any.target), (2, expected));
    let number = of("tabular-regression", "label_mean = 3.5\nlabel_std = 2");
    let expected = NumberTarget { column: "disease".into(), mean: 3.5, std: 2.0 };
    assert_eq!((number.task.num_outputs(), &number.task.target), (1, &Target::Number(expected)));
    assert_eq!(number.validation.monitor, Monitor::Rmse);

    let text = TEXT
        .replace("text-classification", "causal-lm")
        .replace("label = \"topic\"\n", "")
        .replace("pooling = \"cls\"\n", "")
        .replace("macro_f1", "perplexity");
    let text = text.replace("labels = [\"earn\", \"acq\", \"ship\"]", "answer = \"summary\"");
    let spec = RunSpec::parse("run.toml", &text).unwrap();
    assert_eq!(
        spec.task.target,
        Target::NextToken { answer: Some("summary".into()), template: "{text}".into() }
    );
}

#[test]
fn keys_of_other_targets_are_refused() {
    let labels = "labels = [\"healthy\", \"ill\"]";
    check(
        TABLE,
        &[
            (
                labels,
                "labels = [\"a\", \"b\"]\nlabel_std = 2",
                "run.toml:11: task.label_std: is not for \"tabular-classification\"",
            ),
            (
                labels,
                "labels = [\"a\", \"b\"]\nlabel_separator = \"|\"",
                "run.toml:11: task.label_separator: needs multi_label = true",
            ),
            (
                labels,
                "multi_label = true\nlabels = [\"a;b\", \"b\"]",
                "run.toml:11: task.labels: `a;b` contains the separator `;`; write another `label_separator`",
            ),
            (
                "\"tabular-classification\"",
                "\"tabular-regression\"",
                "run.toml:10: task.labels: is not for \"tabular-regression\"",
            ),
        ],
    );
    let number = TABLE
        .replace("tabular-classification", "tabular-regression")
        .replace("softmax", "mlp")
        .replace(labels, "");
    let more =
        |table: &str| RunSpec::parse("run.toml", &format!("{number}\n{table}")).unwrap_err().to_string();
    let said = more("[validation]\nmonitor = \"accuracy\"\n");
    assert!(
        said.ends_with(
            "validation.monitor: \"accuracy\" is no metric of this task; use \"rmse\", \"mae\", \"r2\""
        ),
        "{said}"
    );
}

#[test]
fn wrong_columns() {
    check(
        TABLE,
        &[
            (
                "label = \"disease\"",
                "label = \"disease\"\ntext = \"body\"",
                "run.toml:10: task.text: is not for \"tabular-classification\"",
            ),
            (
                "\"categorical\"",
                "\"ordinal\"",
                "run.toml:16: task.features.1.type: `ordinal` is unknown; use \"numeric\" or \"categorical\"",
            ),
            ("column = \"sex\"", "column = \"age\"", "run.toml:11: task.features: `age` is listed twice"),
            (
                "categories = [\"f\", \"m\", \"x\"]\n",
                "",
                "run.toml:14: task.features.1.categories: list the categories, or give `buckets` if nobody can",
            ),
            ("\"f\", \"m\"", "\"m\", \"m\"", "run.toml:17: task.features.1.categories: `m` is listed twice"),
            (
                "\"numeric\"",
                "\"numeric\"\ncategories = [\"a\"]",
                "run.toml:14: task.features.0.categories: a numeric column has none",
            ),
            (
                "\"numeric\"",
                "\"numeric\"\nbuckets = 8",
                "run.toml:14: task.features.0.buckets: a numeric column has none",
            ),
            (
                "missing = [\"?\"]",
                "buckets = 8",
                "run.toml:18: task.features.1.buckets: is for values that are not listed; give it or `categories`, not both",
            ),
            (
                "categories = [\"f\", \"m\", \"x\"]",
                "buckets = 1",
                "run.toml:17: task.features.1.buckets: 1 is not between 2 and 65536",
            ),
            (
                "\"numeric\"",
                "\"numeric\"\nstd = 0.0",
                "run.toml:14: task.features.0.std: 0 is not a finite number above 0",
            ),
            (
                "\"numeric\"",
                "\"numeric\"\nmean = nan",
                "run.toml:14: task.features.0.mean: must be a finite number",
            ),
            (
                "\"categorical\"",
                "\"categorical\"\nmean = 1.0",
                "run.toml:17: task.features.1.mean: a categorical column has no mean and std",
            ),
        ],
    );
    let none = TABLE.split("[[task.features]]").next().unwrap();
    assert_eq!(parse(none).unwrap_err(), "run.toml:6: task.features: list at least one [[task.features]]");
}

#[test]
fn wrong_values_of_training() {
    check(
        TEXT,
        &[
            (
                "\"adamw\"",
                "\"lion\"",
                "run.toml:21: training.optimizer: `lion` is unknown; use \"sgd\", \"adam\", \"adamw\", \"rmsprop\" or \"adagrad\"",
            ),
            ("\"adamw\"", "\"sgd\"", "run.toml:23: training.beta1: \"sgd\" has none"),
            ("\"adamw\"", "\"adam\"\nmomentum = 0.9", "run.toml:22: training.momentum: \"adam\" has none"),
            (
                "learning_rate = 2e-4",
                "learning_rate = 0.0",
                "run.toml:22: training.learning_rate: 0 is not a finite number above 0",
            ),
            ("beta1 = 0.8", "beta1 = 1.0", "run.toml:23: training.beta1: 1 is not in [0, 1)"),
            ("beta2 = 0.99", "beta2 = -0.5", "run.toml:24: training.beta2: -0.5 is not in [0, 1)"),
            (
                "epsilon = 1e-7",
                "epsilon = nan",
                "run.toml:25: training.epsilon: NaN is not a finite number above 0",
            ),
            (
                "weight_decay = 0.02",
                "weight_decay = -1.0",
                "run.toml:26: training.weight_decay: must be 0 or above",
            ),
            (
                "batch_size = 8",
                "batch_size = 0",
                "run.toml:27: training.batch_size: 0 is not between 1 and 65536",
            ),
            (
                "local_epochs = 2",
                "local_epochs = 0",
                "run.toml:28: training.local_epochs: 0 is not between 1 and 10000",
            ),
            (
                "local_epochs = 2",
                "local_steps = 0",
                "run.toml:28: training.local_steps: 0 is not between 1 and 10000000",
            ),
            (
                "local_epochs = 2",
                "local_epochs = 2\nlocal_steps = 9",
                "run.toml:29: training.local_steps: give `local_epochs` or `local_steps`, not both",
            ),
            (
                "max_grad_norm = 1.0",
                "max_grad_norm = -1.0",
                "run.toml:31: training.max_grad_norm: -1 is not a finite number above 0",
            ),
            (
                "validation_split = 0.2",
                "validation_split = 0.95",
                "run.toml:32: training.validation_split: 0.95 is not in [0, 0.9]",
            ),
        ],
    );
    let sgd = format!("{TABLE}[training]\noptimizer = \"sgd\"\nmomentum = 0.0\n");
    check(
        &sgd,
        &[
            ("momentum = 0.0", "momentum = 1.0", "run.toml:21: training.momentum: 1 is not in [0, 1)"),
            ("momentum = 0.0", "nesterov = true", "run.toml:21: training.nesterov: needs a momentum above 0"),
        ],
    );
}

/// What is wrong with the table heart.toml when these lines are added to its training.
fn wrong_training(lines: &str) -> String {
    let text = TEXT.replace("[training]", &format!("[training]\n{lines}"));
    assert_ne!(text, TEXT);
    let sentence = parse(&text).unwrap_err();
    sentence.split_once(": ").unwrap().1.to_owned()
}

#[test]
fn wrong_values_of_schedules_and_losses() {
    let cases = [
        ("alpha = 0.9", "training.alpha: \"adamw\" has none"),
        ("accumulation_steps = 0", "training.accumulation_steps: 0 is not between 1 and 65536"),
        ("layer_decay = 1.5", "training.layer_decay: 1.5 is not in (0, 1]"),
        ("max_grad_value = 0", "training.max_grad_value: 0 is not a finite number above 0"),
        ("label_smoothing = 1", "training.label_smoothing: 1 is not in [0, 1)"),
        ("focal_gamma = -1", "training.focal_gamma: must be 0 or above"),
        (
            "focal_gamma = 2\nlabel_smoothing = 0.1",
            "training.label_smoothing: cannot be had with focal_gamma, which needs one true label",
        ),
        ("class_weights = [1, 2]", "training.class_weights: has 2 numbers for 3 labels"),
        ("class_weights = [1, 2, 0]", "training.class_weights: 0 is not a finite number above 0"),
        (
            "class_weights = \"balanced\"",
            "training.class_weights: takes the sites' pooled counts to be balanced, which `sheaf run submit` asks them for: write numbers here, as `sheaf survey --class-weights` does, or \"balanced-local\", by each site's own counts",
        ),
        ("proximal_mu = -0.1", "training.proximal_mu: must be 0 or above"),
        ("gamma = 0.5", "training.gamma: only the schedules \"step\" and \"exponential\" have it"),
        ("power = 2", "training.power: only the schedule \"polynomial\" has it"),
        ("step_size = 5", "training.step_size: only the schedule \"step\" has it"),
    ];
    for (lines, sentence) in cases {
        assert_eq!(wrong_training(lines), sentence);
    }
    let schedule = |written: &str| {
        let text = TEXT.replace("schedule = \"cosine\"", written);
        assert_ne!(text, TEXT);
        parse(&text).unwrap_err().split_once(": ").unwrap().1.to_owned()
    };
    assert!(schedule("schedule = \"sine\"").starts_with("training.schedule: `sine` is unknown; use"));
    let by_itself = "training.warmup_steps: the schedule \"one-cycle\" warms up by itself";
    assert_eq!(schedule("schedule = \"one-cycle\""), by_itself);
    assert_eq!(
        schedule("schedule = \"step\""),
        "training.step_size: say after how many steps the rate falls"
    );
    assert_eq!(
        schedule("schedule = \"polynomial\"\npower = -1"),
        "training.power: -1 is not a finite number above 0"
    );
    let decay = wrong_training("weight_decay_on = \"biases\"");
    assert!(decay.starts_with("unknown variant `biases`, expected `weights` or `all`"), "{decay}");
    let half = wrong_training("precision = \"f16\"");
    assert!(half.starts_with("unknown variant `f16`, expected `f32` or `bf16`"), "{half}");
    assert_eq!(schedule("schedule = \"exponential\""), "training.gamma: say by which factor the rate falls");
}

#[test]
fn every_optimizer_and_loss_is_read() {
    let training = |lines: &str| {
        let text = TABLE.split("[training]").next().unwrap().to_owned();
        let spec = parse(&format!("{text}\n[training]\n{lines}\n")).unwrap();
        spec.training
    };
    let rms = training("optimizer = \"rmsprop\"\nmomentum = 0.5\ncentered = true");
    let expected = RmsPropSpec { alpha: 0.99, epsilon: 1e-8, momentum: 0.5, centered: true };
    assert_eq!((rms.optimizer, rms.learning_rate), (Optimizer::RmsProp(expected), 0.01));
    let adagrad = training("optimizer = \"adagrad\"\ninitial_accumulator_value = 0.1");
    let expected = AdagradSpec { lr_decay: 0.0, initial_accumulator_value: 0.1, epsilon: 1e-10 };
    assert_eq!(adagrad.optimizer, Optimizer::Adagrad(expected));
    let step = training("schedule = \"step\"\nstep_size = 3\nschedule_per = \"round\"").schedule;
    let kind = ScheduleKind::Step { step_size: 3, gamma: 0.1 };
    assert_eq!(step, Schedule { kind, per: Per::Round, warmup_steps: 0 });
    let loss = training("class_weights = \"balanced-local\"\nlabel_smoothing = 0.1").loss;
    assert_eq!(
        loss,
        Loss { label_smoothing: 0.1, focal_gamma: 0.0, class_weights: ClassWeights::BalancedLocal }
    );
    let polynomial = training("schedule = \"polynomial\"").schedule.kind;
    assert_eq!(polynomial, ScheduleKind::Polynomial { power: 1.0 });
    assert_eq!(training("weight_decay_on = \"all\"").weight_decay_on, DecayOn::All);
    assert_eq!(training("precision = \"bf16\"").precision, Precision::Bf16);
    assert!(training("deterministic = true").deterministic);
    assert_eq!(training("sampling = \"balanced\"").sampling, Sampling::Balanced);
}

#[test]
fn augmentation_is_read_and_fits_the_task() {
    let of = |model: &str, task: &str, lines: &str| {
        let text = format!(
            "name = \"a\"\nrounds = 1\n[model]\n{model}\n[task]\ndataset = \"d\"\nlabel = \"l\"\nlabels = [\"a\", \"b\"]\n\
             {task}\n[training.augmentation]\n{lines}\n"
        );
        parse(&text).map(|spec| spec.training.augmentation)
    };
    let image = |lines: &str| of("name = \"m\"", "type = \"image-classification\"", lines);
    let text = |lines: &str| of("name = \"m\"", "type = \"text-classification\"\ntext = \"t\"", lines);
    let table = |model: &str, lines: &str| {
        let feature =
            "type = \"tabular-classification\"\nfeatures = [{ column = \"c\", type = \"numeric\" }]";
        of(model, feature, lines)
    };
    let flips = Augmentation { horizontal_flip: 0.5, rotation: 15.0, ..Augmentation::default() };
    assert_eq!(image("horizontal_flip = 0.5\nrotation = 15"), Ok(Some(flips)));
    let crop = Augmentation { crop: Some([0.5, 1.0]), ..Augmentation::default() };
    assert_eq!(image("crop = [0.5, 1]"), Ok(Some(crop)));
    assert_eq!(text("token_masking = 0.1").unwrap().unwrap().token_masking, 0.1);
    assert_eq!(table("architecture = \"mlp\"", "noise = 0.1").unwrap().unwrap().noise, 0.1);
    assert_eq!(image(""), Ok(None), "a table that asks for nothing");
    for (refused, sentence) in [
        (image("flip = 0.5"), "unknown field `flip`"),
        (image("horizontal_flip = 1.5"), "training.augmentation.horizontal_flip: 1.5 is not in [0, 1]"),
        (image("noise = nan"), "training.augmentation.noise: NaN is not in [0, 10]"),
        (image("crop = [0.9, 0.5]"), "training.augmentation.crop: give the least and the largest share"),
        (
            image("crop = [0.5, 1.0]\ncrop_padding = 4"),
            "training.augmentation.crop_padding: cannot be had with `crop`",
        ),
        (image("token_masking = 0.1"), "training.augmentation.token_masking: is for text encoders"),
        (text("rotation = 5.0"), "training.augmentation.rotation: is for images"),
        (text("noise = 0.5"), "training.augmentation.noise: is for images and tables"),
        (text("mixup = 0.2"), "training.augmentation.mixup: is for images and tables"),
        (image("mixup = 11.0"), "training.augmentation.mixup: 11 is not in [0, 10]"),
        (
            table("architecture = \"softmax\"", "noise = 0.5"),
            "training.augmentation.noise: is not for softmax",
        ),
    ] {
        let said = refused.unwrap_err();
        assert!(said.contains(sentence), "{said}\n{sentence}");
    }
}

#[test]
fn wrong_values_of_validation() {
    check(
        TEXT,
        &[
            ("every = 2", "every = 0", "run.toml:47: validation.every: 0 is not between 1 and 100000"),
            (
                "min_delta = 0.001",
                "min_delta = -1",
                "run.toml:49: validation.min_delta: -1 is not 0 or above",
            ),
            (
                "patience = 3",
                "patience = 0",
                "run.toml:50: validation.patience: 0 is not between 1 and 100000",
            ),
            (
                "validation_split = 0.2",
                "validation_split = 0.0",
                "run.toml:50: validation.patience: needs something to validate on: set training.validation_split above 0",
            ),
        ],
    );
    let unknown = sentence(TEXT, "\"macro_f1\"", "\"f1\"");
    assert!(unknown.contains("unknown variant `f1`"), "{unknown}");
}

#[test]
fn a_test_part_is_held_out_of_what_is_trained_and_validated_on() {
    let test = "[validation]\ntest_split = 0.2\n";
    let spec = parse(&format!("{TABLE}{test}")).unwrap();
    assert_eq!((spec.validation.test_split, spec.tests(), spec.validates()), (0.2, true, true));
    assert!(!parse(TABLE).unwrap().tests());
    assert!(!RunSpec::parse_survey("run.toml", &format!("{TABLE}{test}")).unwrap().tests());
    let both = |other: &str| {
        format!(
            "validation.test_split: give it or `{other}`, not both: each measures the model on data of its own"
        )
    };
    check_ends(
        &format!("{TABLE}{test}"),
        &[
            ("0.2", "0.91", "validation.test_split: 0.91 is not in [0, 0.9]"),
            ("0.2", "nan", "validation.test_split: NaN is not in [0, 0.9]"),
            ("0.2", "0.2\nfolds = 5\nfold = 1", &both("folds")),
            ("0.2", "0.2\nleave_out = \"a\"", &both("leave_out")),
        ],
    );
}

#[test]
fn one_of_several_folds_is_held_out() {
    let folds = "[validation]\nfolds = 5\nfold = 2\n";
    let spec = parse(&format!("{TABLE}{folds}")).unwrap();
    assert_eq!(spec.validation.held_out, HeldOut::Fold(Fold { number: 2, of: 5 }));
    assert!(spec.validates());
    check_ends(
        &format!("{TABLE}{folds}"),
        &[
            ("folds = 5", "folds = 1", "validation.folds: 1 is not between 2 and 1000"),
            ("fold = 2", "fold = 0", "validation.fold: 0 is not between 1 and 5"),
            ("fold = 2", "fold = 6", "validation.fold: 6 is not between 1 and 5"),
            ("folds = 5\n", "", "validation.fold: say with `folds` of how many"),
            (
                "fold = 2",
                "",
                "validation.folds: say with `fold`, from 1 to 5, which is held out; `sheaf cross-validate` makes a run of each",
            ),
            (
                "[validation]",
                "[training]\nvalidation_split = 0.1\n[validation]",
                "training.validation_split: give it or `validation.folds`, not both: of folds, one is what is held out",
            ),
        ],
    );
}

#[test]
fn one_site_is_left_out() {
    let text = TEXT.replace("patience = 3", "leave_out = \"south\"");
    let spec = parse(&text.replace("min_sites = 3\nmin_updates = 2\n", "")).unwrap();
    assert!(spec.validation.leaves_out("south") && !spec.validation.leaves_out("north"));
    assert_eq!((spec.cohort.min_sites, spec.cohort.min_updates), (2, 2), "those that train");
    assert_eq!(spec.num_trainers(), Some(2));
    check_ends(
        &text,
        &[
            (
                "leave_out = \"south\"",
                "leave_out = \"west\"",
                "validation.leave_out: `west` is not among cohort.sites: name it there too",
            ),
            ("min_sites = 3", "min_sites = 4", "cohort.min_sites: 4 is not between 2 and 2"),
            (
                "restore_best = false",
                "restore_best = true",
                "validation.restore_best: with `leave_out` it is the last model that is evaluated: write restore_best = false",
            ),
        ],
    );
    let alone = text
        .replace("[\"north\", \"south\", \"east\"]", "[\"south\"]")
        .replace("min_sites = 3\nmin_updates = 2\n", "");
    let error = parse(&alone).unwrap_err();
    assert!(
        error.ends_with("validation.leave_out: leaves nobody to train: name more sites in cohort.sites"),
        "{error}"
    );
    let both = format!("{TABLE}[validation]\nfolds = 5\nfold = 1\nleave_out = \"a\"\n");
    let error = parse(&both).unwrap_err();
    assert!(error.ends_with("validation.leave_out: give it or `folds`, not both"), "{error}");
}

#[test]
fn wrong_values_of_the_cohort() {
    check(
        TEXT,
        &[
            (
                "[\"north\", \"south\", \"east\"]",
                "[]",
                "run.toml:35: cohort.sites: name at least one site, or leave it out for all",
            ),
            ("\"south\"", "\"north\"", "run.toml:35: cohort.sites: `north` is listed twice"),
            (
                "\"south\"",
                "\"So\"",
                "run.toml:35: cohort.sites.1: `So` is not a name: use 1 to 63 lower-case letters, digits and hyphens, with \
                 a letter or digit at both ends",
            ),
            (
                "count = 2",
                "count = 2\nfraction = 0.5",
                "run.toml:36: cohort.count: give `fraction` or `count`, not both",
            ),
            ("count = 2", "fraction = 1.5", "run.toml:36: cohort.fraction: 1.5 is not in (0, 1]"),
            ("count = 2", "fraction = nan", "run.toml:36: cohort.fraction: NaN is not in (0, 1]"),
            ("count = 2", "count = 0", "run.toml:36: cohort.count: 0 is not between 1 and 1000000"),
            ("count = 2", "count = 1", "run.toml:36: cohort.count: 1 sites can never give min_updates = 2"),
            ("min_sites = 3", "min_sites = 4", "run.toml:37: cohort.min_sites: 4 is not between 2 and 3"),
            (
                "min_updates = 2",
                "min_updates = 0",
                "run.toml:38: cohort.min_updates: 0 is not between 1 and 3",
            ),
            (
                "\"90s\"",
                "\"soon\"",
                "run.toml:39: cohort.round_timeout: `soon` is no duration; write \"90s\", \"10m\" or \"2h\"",
            ),
            (
                "\"90s\"",
                "\"31days\"",
                "run.toml:39: cohort.round_timeout: must be between 1 second and 30 days",
            ),
            (
                "max_attempts = 4",
                "max_attempts = 0",
                "run.toml:40: cohort.max_attempts: 0 is not between 1 and 1000",
            ),
            (
                "max_examples = 1000",
                "max_examples = 0",
                "run.toml:41: cohort.max_examples: 0 is not between 1 and 1099511627776",
            ),
        ],
    );
}

#[test]
fn a_schedule_warms_up_and_falls() {
    let factor = |kind, step| Schedule { kind, per: Per::Step, warmup_steps: 4 }.factor(step, 12);
    for kind in [ScheduleKind::Constant, ScheduleKind::Linear, ScheduleKind::Cosine] {
        let warmup: Vec<f64> = (0..5).map(|step| factor(kind, step)).collect();
        assert_eq!(warmup, [0.2, 0.4, 0.6, 0.8, 1.0]);
        assert!((4..11).all(|step| factor(kind, step) >= factor(kind, step + 1)));
    }
    assert_eq!(factor(ScheduleKind::Constant, 11), 1.0);
    assert_eq!(factor(ScheduleKind::Linear, 8), 0.5);
    assert!((factor(ScheduleKind::Cosine, 8) - 0.5).abs() < 1e-15);
    assert_eq!((factor(ScheduleKind::Linear, 12), factor(ScheduleKind::Linear, 1000)), (0.0, 0.0));
}

#[test]
fn schedules_are_those_of_pytorch_and_transformers() {
    let reference: BTreeMap<String, Vec<f64>> =
        serde_json::from_str(include_str!("tests/schedules.json")).unwrap();
    let kinds = [
        ("one-cycle", ScheduleKind::OneCycle),
        ("step", ScheduleKind::Step { step_size: 6, gamma: 0.3 }),
        ("exponential", ScheduleKind::Exponential { gamma: 0.9 }),
        ("polynomial", ScheduleKind::Polynomial { power: 2.5 }),
        ("linear", ScheduleKind::Linear),
        ("cosine", ScheduleKind::Cosine),
        ("constant", ScheduleKind::Constant),
    ];
    for (name, kind) in kinds {
        // Hugging Face's three, with their warm-up.
        let warmup_steps = if matches!(name, "linear" | "cosine" | "constant") { 6 } else { 0 };
        let schedule = Schedule { kind, per: Per::Step, warmup_steps };
        for (step, expected) in (0..).zip(&reference[name]) {
            let found = schedule.factor(step, 20);
            assert!((found - expected).abs() < 1e-12, "{name} at {step}: {found} is not {expected}");
        }
        assert_eq!(reference[name].len(), 20);
    }
}

proptest::proptest! {
    #[test]
    fn no_text_panics(text in "(\\PC|\n){0,200}", at in 0usize..1200, otherwise in "[ -~\n]{0,12}") {
        let _ = parse(&text);
        let mut damaged = TEXT.to_owned();
        damaged.insert_str(at.min(TEXT.len()), &otherwise);
        let _ = parse(&damaged);
        damaged.truncate(at.min(TEXT.len()));
        let _ = parse(&damaged);
    }
}
