//! The program `sheaf` against a real server over loopback: what it prints, what it writes, and how it ends.

#![allow(clippy::unwrap_used, reason = "a failed unwrap is a failed test")]

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::{Value, json};
use sheaf_common::blob::BlobId;
use sheaf_common::id::Role;
use sheaf_common::message::{Hello, Open, ServerMessage, SiteMessage, Update};
use sheaf_common::model::{ModelConfig, tensors};
use sheaf_common::params;
use sheaf_common::run::Pooling;
use sheaf_common::wire::PROTOCOL_VERSION;
use sheaf_server::config::ServerConfig;
use sheaf_server::pki::{self, IssueOptions, Issued};
use sheaf_server::retention::Retention;
use sheaf_server::server::{Server, ServerError};
use sheaf_transport::blobs::BlobDir;
use sheaf_transport::dial::Dialer;
use sheaf_transport::gate::Limits;
use sheaf_transport::network::{Congestion, Network};
use sheaf_transport::tls::{CredentialPaths, Credentials};
use sheaf_transport::{frames, transfer};
use tempfile::TempDir;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

const RUN: &str = r#"
name = "lines"
rounds = 2
secure_aggregation = "off"
[model]
architecture = "softmax"
[task]
type = "tabular-classification"
dataset = "points"
label = "side"
labels = ["left", "right"]
features = [{ column = "x", type = "numeric" }]
[cohort]
min_sites = 1
min_updates = 1
round_timeout = "1m"
"#;

/// A federation in a folder of its own, with its server running.
struct Federation {
    dir: TempDir,
    config: ServerConfig,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl Federation {
    async fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let pki = dir.path().join("pki");
        pki::init(&pki, &"lines".parse().unwrap()).unwrap();
        let server = party(&pki, Role::Server, "main");
        let config = ServerConfig {
            listen: "127.0.0.1:0".parse().unwrap(),
            listen_tcp: None,
            congestion: Congestion::default(),
            limits: Limits::default(),
            data_dir: dir.path().join("data"),
            identity: paths(server),
            retention: Retention::default(),
            enrolment: None,
        };
        let mut federation = Self { dir, config, running: None };
        federation.start().await;
        federation.configure("operator.toml", &party(&pki, Role::Operator, "ada"));
        fs::write(federation.path("run.toml"), RUN).unwrap();
        federation
    }

    /// Starts the server; the second time on the same port.
    async fn start(&mut self) {
        // The kernel gives a port back a moment after the endpoint that had it is gone.
        let mut attempts = 0;
        let server = loop {
            match Server::start(&self.config).await {
                Ok(server) => break server,
                Err(ServerError::Endpoint(_)) if attempts < 100 => attempts += 1,
                Err(error) => panic!("{error}"),
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        };
        self.config.listen = server.address();
        let (stop, stopped) = oneshot::channel::<()>();
        let task = tokio::spawn(async move {
            server.run(async { drop(stopped.await) }).await.unwrap();
        });
        self.running = Some((stop, task));
    }

    async fn stop(&mut self) {
        let (stop, task) = self.running.take().unwrap();
        stop.send(()).unwrap();
        task.await.unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn issue(&self, role: Role, name: &str) -> Issued {
        party(&self.path("pki"), role, name)
    }

    fn configure(&self, file: &str, who: &Issued) {
        let quoted = |path: &Path| Value::from(path.to_str().unwrap());
        let text = format!(
            "server = \"{}\"\ncertificate = {}\nkey = {}\nca = {}\n",
            self.config.listen,
            quoted(&who.certificate),
            quoted(&who.key),
            quoted(&who.ca)
        );
        fs::write(self.path(file), text).unwrap();
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_sheaf"));
        command.current_dir(self.dir.path()).env_remove("SHEAF_CONFIG").args(words.split(' '));
        command
    }

    /// Runs `sheaf` to its end without holding up the server, which lives in this program.
    async fn sheaf(&self, words: &str) -> Output {
        let mut command = self.command(words);
        tokio::task::spawn_blocking(move || command.output().unwrap()).await.unwrap()
    }

    async fn text(&self, words: &str) -> String {
        let output = self.sheaf(words).await;
        assert!(output.status.success(), "sheaf {words}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).unwrap()
    }

    async fn json(&self, words: &str) -> Value {
        serde_json::from_str(&self.text(&format!("{words} --json")).await).unwrap()
    }

    async fn error(&self, words: &str) -> String {
        let output = self.sheaf(words).await;
        assert_eq!(output.status.code(), Some(1), "sheaf {words}");
        assert!(output.stdout.is_empty());
        let text = String::from_utf8(output.stderr).unwrap();
        text.strip_prefix("error: ").unwrap_or_else(|| panic!("{text}")).trim_end().to_owned()
    }

    /// Starts a site that answers every task with an update of halves.
    fn site(&self, name: &str) -> JoinHandle<()> {
        let credentials = Credentials::load(&paths(self.issue(Role::Site, name))).unwrap();
        let blobs = BlobDir::open(self.path(name)).unwrap();
        tokio::spawn(answer(self.config.listen.to_string(), credentials, blobs))
    }
}

fn party(pki: &Path, role: Role, name: &str) -> Issued {
    pki::issue(pki, role, &name.parse().unwrap(), &IssueOptions::default()).unwrap()
}

fn paths(issued: Issued) -> CredentialPaths {
    CredentialPaths { certificate: issued.certificate, key: issued.key, ca: issued.ca }
}

async fn answer(server: String, credentials: Credentials, blobs: BlobDir) {
    let link = Dialer::new(server, Network::default()).connect(&credentials).await.unwrap();
    let (mut send, mut recv) = link.connection.open_bi().await.unwrap();
    let hello = Hello { protocol: PROTOCOL_VERSION, software: "test".into() };
    frames::write(&mut send, &Open::Site(hello)).await.unwrap();
    while let Ok(message) = frames::read::<ServerMessage>(&mut recv).await {
        let reply = match message {
            ServerMessage::Train(task) => {
                let halves = vec![0.5; usize::try_from(task.job.params.numel()).unwrap()];
                let delta = blobs.insert(&params::to_bytes(&halves)).unwrap();
                transfer::put(&link.connection, &blobs, delta, &mut |_, _| {}).await.unwrap();
                SiteMessage::Update(Box::new(Update {
                    task: task.id,
                    delta,
                    num_examples: 10,
                    train_loss: 0.5,
                    global_metrics: None,
                    local_metrics: None,
                }))
            }
            ServerMessage::Announce { run, .. } => SiteMessage::Standby { run, held: None },
            ServerMessage::Evaluate(task) => SiteMessage::Evaluated { task: task.id, metrics: None },
            ServerMessage::Refused(why) => panic!("{why}"),
            ServerMessage::Secure { .. } => panic!("the run is not encrypted"),
            ServerMessage::Welcome { .. }
            | ServerMessage::Rejected { .. }
            | ServerMessage::Certificate(_)
            | ServerMessage::Over(_) => {
                continue;
            }
        };
        frames::write(&mut send, &reply).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_run_from_submission_to_its_exported_model() {
    let federation = Federation::new().await;
    assert!(federation.text("run list").await.starts_with("no runs yet"));
    let site = federation.site("oslo");

    let told = federation.text("run submit run.toml --watch").await;
    assert!(told.contains("lines: "), "{told}");
    assert!(told.contains("round 2/2: completed in"), "{told}");
    assert!(told.contains("1/1 answered, train loss 0.5000"), "{told}");
    assert_eq!(told.lines().last(), Some("lines completed"));

    let run = federation.json("run show lines").await;
    assert_eq!((&run["state"], &run["completed_rounds"]), (&json!("completed"), &json!(2)));
    assert_eq!(run["history"][1]["participants"][0]["site"], "oslo");
    let shown = federation.text("run show lines").await;
    assert!(shown.contains("secure aggregation is off: the server sees each site's update"), "{shown}");
    assert_eq!(federation.json("run list").await[0]["submitted_by"], "ada");
    assert_eq!(federation.json("site list").await[0]["connected"], true);

    let exported = federation.json("model export lines --out models/lines").await;
    assert_eq!((&exported["run"], &exported["round"]), (&json!("lines"), &json!(2)));
    let config: Value =
        serde_json::from_slice(&fs::read(federation.path("models/lines/config.json")).unwrap()).unwrap();
    assert_eq!(config["model_type"], "softmax");
    let weights = fs::read(federation.path("models/lines/model.safetensors")).unwrap();
    let values: u64 = run["num_params"].as_u64().unwrap();
    let trained = safetensors_values(&weights);
    assert_eq!(trained.len() as u64, values);
    assert!(trained.iter().all(|value| *value == 1.0), "two rounds of halves on zeros: {trained:?}");
    assert!(federation.path("models/lines/README.md").is_file());
    let left: Vec<_> = fs::read_dir(federation.path("models")).unwrap().collect();
    assert_eq!(left.len(), 1, "the workshop was not cleared: {left:?}");
    assert!(federation.error("model export lines --out models/lines").await.contains("is already there"));
    assert!(federation.error("model export lines --round 9 --out x").await.contains('9'));
    assert!(!federation.path("x").exists());
    site.abort();
}

/// The values behind the header.
fn safetensors_values(file: &[u8]) -> Vec<f32> {
    let (length, rest) = file.split_first_chunk::<8>().unwrap();
    params::from_bytes(&rest[usize::try_from(u64::from_le_bytes(*length)).unwrap()..])
}

#[tokio::test(flavor = "multi_thread")]
async fn watching_outlives_the_server_and_ends_with_the_run() {
    let mut federation = Federation::new().await;
    assert_eq!(federation.json("run submit run.toml").await, json!({ "run": "lines" }));
    let mut watch = federation.command("run watch lines --json");
    let mut watching = watch.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    federation.stop().await;
    federation.start().await;
    let site = federation.site("oslo");
    let output = tokio::task::spawn_blocking(move || {
        watching.wait().unwrap();
        watching.wait_with_output().unwrap()
    });
    let output = output.await.unwrap();
    let remarks = String::from_utf8(output.stderr).unwrap();
    assert!(output.status.success(), "{remarks}");
    assert_eq!(remarks.matches("waiting for it to come back").count(), 1, "{remarks}");
    assert_eq!(remarks.matches("the server is back").count(), 1, "{remarks}");
    let told = String::from_utf8(output.stdout).unwrap();
    let events: Vec<Value> = told.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(events[0]["event"], "found");
    assert_eq!(events.iter().filter(|event| event["event"] == "round_over").count(), 2, "{told}");
    assert_eq!(events.last().unwrap()["state"], "completed");
    site.abort();

    federation.text("run submit run.toml").await;
    federation.text("run stop lines-2").await;
    let output = federation.sheaf("run watch lines-2").await;
    assert_eq!(output.status.code(), Some(1), "a run that was stopped is no success");
    assert!(String::from_utf8(output.stdout).unwrap().contains("lines-2 stopped"));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_is_one_sentence() {
    let federation = Federation::new().await;
    let errors = [
        ("run show nope", "there is no run nope"),
        ("run submit none.toml", "cannot read none.toml"),
        ("model import none --name m", "none is not there"),
        (
            "model import run.toml --name m",
            "run.toml holds weights and no description: say what they are with --kind",
        ),
        ("model import run.toml --kind resnet18 --name m", "run.toml is neither GGUF"),
        ("model import pki --kind vit --name m", "pki says itself what it is"),
        (
            "model import run.toml --kind torchscript --name m",
            "run.toml cannot be imported: it is no whole zip archive",
        ),
        (
            "model import run.toml --kind vit --inputs 3 --name m",
            "--inputs, --image-size, --mean, --std and --outputs describe",
        ),
        ("model import pki --name m", "config.json is missing from pki"),
        ("run list --server 127.0.0.1", "`127.0.0.1` is not a server: write host:port"),
        ("run list --config none.toml", "cannot read none.toml"),
        ("pki show run.toml", "run.toml is not a PEM certificate"),
    ];
    for (words, sentence) in errors {
        let error = federation.error(words).await;
        assert!(error.starts_with(sentence) && error.lines().count() == 1, "sheaf {words}: {error}");
    }
    fs::write(federation.path("bad.toml"), RUN.replace("rounds = 2", "rounds = 0")).unwrap();
    assert!(federation.error("run submit bad.toml").await.starts_with("bad.toml:3: rounds: "));

    federation.configure("site.toml", &federation.issue(Role::Site, "oslo"));
    assert!(federation.error("run list --config site.toml").await.contains("is a site's certificate"));
    federation.configure("viewer.toml", &federation.issue(Role::Viewer, "vic"));
    federation.text("run list --config viewer.toml").await;
    let error = federation.error("run submit run.toml --config viewer.toml").await;
    assert!(error.contains("viewer"), "{error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn strangers_are_told_why_nobody_talks_to_them() {
    let federation = Federation::new().await;
    pki::init(&federation.path("other"), &"lines".parse().unwrap()).unwrap();
    let stranger = party(&federation.path("other"), Role::Operator, "ada");

    federation.configure("other-ca.toml", &stranger);
    let error = federation.error("run list --config other-ca.toml").await;
    assert!(error.contains("we do not trust each other") && error.contains("`sheaf pki show`"), "{error}");

    let own_ca = federation.path("pki/ca.crt");
    federation.configure("other-cert.toml", &Issued { ca: own_ca, ..stranger });
    let error = federation.error("run list --config other-cert.toml").await;
    let expected = "the server does not accept your certificate: another authority than the server's made it";
    assert!(error.starts_with(expected), "{error}");
}

/// The smallest BERT that can be written down.
fn write_bert(dir: &Path) {
    fs::create_dir(dir).unwrap();
    let json = json!({
        "model_type": "bert", "vocab_size": 8, "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 4, "max_position_embeddings": 8, "type_vocab_size": 2, "layer_norm_eps": 1e-12,
        "pad_token_id": 0, "hidden_act": "gelu",
    });
    fs::write(dir.join("config.json"), json.to_string()).unwrap();
    let Ok(ModelConfig::Encoder(config)) = ModelConfig::parse(json.to_string().as_bytes()) else {
        panic!("it is a BERT")
    };
    let mut end = 0;
    let mut header = serde_json::Map::new();
    for tensor in tensors::encoder(&config, Pooling::Cls, None).all() {
        let start = end;
        end += tensor.numel() * 4;
        let entry = json!({ "dtype": "F32", "shape": tensor.shape, "data_offsets": [start, end] });
        header.insert(tensor.name.clone(), entry);
    }
    let header = Value::Object(header).to_string();
    let mut file = (header.len() as u64).to_le_bytes().to_vec();
    file.extend_from_slice(header.as_bytes());
    file.resize(file.len() + usize::try_from(end).unwrap(), 0);
    fs::write(dir.join("model.safetensors"), file).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_is_sent_once() {
    let federation = Federation::new().await;
    let dir = federation.path("bert");
    write_bert(&dir);
    let missing = federation.error("model import bert --name tiny").await;
    assert!(missing.starts_with("tokenizer.json is missing from bert"), "{missing}");
    fs::write(dir.join("tokenizer.json"), "{}").unwrap();
    fs::write(dir.join("pytorch_model.bin"), "not needed").unwrap();

    let first = federation.json("model import bert --name tiny").await;
    let bytes = first["bytes"].as_u64().unwrap();
    assert!(first["bytes_sent"].as_u64().unwrap() > bytes, "all files and their list: {first}");
    let second = federation.text("model import bert --name tiny").await;
    assert!(second.contains("the server had all of it already"), "{second}");
    assert!(
        second.contains("trainable = \"head\": 10 parameters, 40 B each way per site and round"),
        "{second}"
    );

    let models = federation.json("model list").await;
    assert_eq!((models.as_array().unwrap().len(), &models[0]["name"]), (1, &json!("tiny")));
    assert_eq!((&models[0]["model_type"], &models[0]["id"]), (&json!("bert"), &first["id"]));
    let id: BlobId = first["id"].as_str().unwrap().parse().unwrap();
    assert!(federation.text("model list").await.contains(&id.short()));
    assert!(federation.error("model import bert --name a/b").await.contains("cannot name a model"));

    fs::write(dir.join("config.json"), "{}").unwrap();
    let error = federation.error("model import bert --name tiny").await;
    assert!(error.contains("has no `model_type`") && error.ends_with("(bert/config.json)"), "{error}");
}
