//! `sheaf model import`: a folder as Hugging Face publishes it, checked and given to the server file by file.

use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::path::{Path, PathBuf};

use sheaf_common::blob::BlobId;
use sheaf_common::message::{Reply, Request};
use sheaf_common::model::{
    self, BadManifest, CONFIG_FILE, Manifest, ManifestFile, ModelConfig, ModelInfo, TOKENIZER_FILE,
    WEIGHTS_FILE,
};
use sheaf_common::params::ParamSpec;
use sheaf_common::run::RunSpec;
use sheaf_transport::transfer;
use tempfile::TempDir;

use super::folder::{FolderError, read_config, read_weights};
use super::gguf::{self, GgufError};
use super::screen::transfer_bar;
use super::session::{Session, SessionError};
use super::settings::Settings;
use super::table;
use super::units::{bytes, count};

/// Files that some tokenizers of Hugging Face consist of, taken along when they are there.
const ALONG: [&str; 4] =
    ["chat_template.jinja", "special_tokens_map.json", "tokenizer_config.json", "vocab.txt"];
const CHUNK: usize = 1 << 20;

/// The folder is not a model that can be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// Not a folder.
    #[error("{0} is neither a folder that holds {CONFIG_FILE} and {WEIGHTS_FILE} nor a .gguf file")]
    NoFolder(PathBuf),
    /// A file is missing.
    #[error("{0} is missing from {1}{2}")]
    Missing(&'static str, PathBuf, &'static str),
    /// A file is not what it should be.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A GGUF file cannot be converted.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// Names that cannot be used.
    #[error(transparent)]
    Manifest(#[from] BadManifest),
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
}

/// A model that can be imported.
pub(super) struct Model {
    dir: PathBuf,
    /// The folder, when it was made of another file.
    _converted: Option<TempDir>,
    manifest: Manifest,
    /// What travels per round, by setting of `trainable`, for two labels.
    trainable: Vec<(&'static str, ParamSpec)>,
}

/// Checks the folder, or the GGUF file in its place, and names its files by their hashes.
pub(super) fn read(path: &Path, name: &str) -> Result<Model, ImportError> {
    // The name is checked before a gigabyte is hashed.
    let placeholder = ManifestFile { path: CONFIG_FILE.to_owned(), blob: BlobId::of(&[]), bytes: 0 };
    Manifest::new(name, vec![placeholder])?;
    let converted = gguf::is_gguf(path).then(|| gguf::convert(path)).transpose()?;
    let dir = converted.as_ref().map_or(path, TempDir::path);
    if !dir.is_dir() {
        return Err(ImportError::NoFolder(dir.to_owned()));
    }
    let required = |file, hint| {
        let path = dir.join(file);
        if path.is_file() { Ok(path) } else { Err(ImportError::Missing(file, dir.to_owned(), hint)) }
    };
    let (_, config) = read_config(&required(CONFIG_FILE, "")?)?;
    let hint = ": save the model with `save_pretrained(…, safe_serialization=True)`";
    let weights_path = required(WEIGHTS_FILE, hint)?;
    let weights = read_weights(&weights_path)?;
    let mut names = vec![CONFIG_FILE, WEIGHTS_FILE];
    if config.reads_text() {
        required(TOKENIZER_FILE, ": save the fast tokenizer beside the model with `save_pretrained`")?;
        names.push(TOKENIZER_FILE);
        names.extend(ALONG.into_iter().filter(|file| dir.join(file).is_file()));
    }
    config.check_weights(&weights).map_err(|e| FolderError::Weights(weights_path, e))?;
    let trainable = settings(&config);
    let files = names.into_iter().map(|file| hash(dir, file)).collect::<Result<_, _>>()?;
    Ok(Model { dir: dir.to_owned(), manifest: Manifest::new(name, files)?, trainable, _converted: converted })
}

/// Gives the server what it does not have yet, and the model's name. Returns the bytes that were sent.
pub(super) async fn send(model: &Model, settings: &Settings) -> Result<(ModelInfo, u64), super::CliError> {
    let mut session = Session::open(settings).await?;
    let mut sent = 0;
    for file in &model.manifest.files {
        let path = model.dir.join(&file.path);
        let open = File::open(&path).map_err(|e| ImportError::Read(path, e))?;
        sent += put(&session, open, file.blob, &file.path).await?;
    }
    let manifest = model.manifest.to_json();
    let file = temporary(&manifest).map_err(|e| ImportError::Read("a temporary file".into(), e))?;
    sent += put(&session, file, model.manifest.id(), "manifest").await?;
    let request = Request::ImportModel { name: model.manifest.name.clone(), manifest: model.manifest.id() };
    let expect = |reply| {
        if let Reply::Imported(info) = reply { Some(info) } else { None }
    };
    let info = session.ask(&request, expect).await?;
    session.close().await;
    Ok((info, sent))
}

async fn put(session: &Session, file: File, blob: BlobId, name: &str) -> Result<u64, SessionError> {
    let bar = transfer_bar(name);
    let moved = transfer::put_file(session.connection(), file, blob, &mut |done, total| {
        bar.set_length(total);
        bar.set_position(done);
    })
    .await;
    bar.finish_and_clear();
    Ok(moved?)
}

/// What is said of an imported model.
pub(super) fn card(model: &Model, info: &ModelInfo, sent: u64) -> String {
    let news = if sent == 0 {
        "the server had all of it already".to_owned()
    } else {
        format!("{} sent", bytes(sent))
    };
    let files: Vec<&str> = model.manifest.files.iter().map(|file| file.path.as_str()).collect();
    let travels: Vec<String> = model
        .trainable
        .iter()
        .map(|(setting, spec)| {
            let size = bytes(spec.bytes());
            let named =
                if *setting == "lora" { "lora = {}".into() } else { format!("trainable = \"{setting}\"") };
            format!("{named}: {} parameters, {size} each way per site and round", count(spec.numel()))
        })
        .collect();
    let mut lines = vec![
        ("model", info.name.clone()),
        ("type", info.model_type.clone()),
        ("parameters", count(info.num_params)),
        ("files", format!("{} ({}; {news})", files.join(", "), bytes(info.bytes))),
        ("id", info.manifest.to_string()),
    ];
    if !travels.is_empty() {
        lines.push(("travels", travels.join("\n")));
    }
    table::card(&lines)
}

fn hash(dir: &Path, file: &str) -> Result<ManifestFile, ImportError> {
    let path = dir.join(file);
    let hashed = || {
        let mut open = File::open(&path)?;
        let total = open.metadata()?.len();
        let bar = transfer_bar(&format!("checking {file}"));
        bar.set_length(total);
        let mut hasher = blake3::Hasher::new();
        let mut buffer = vec![0; CHUNK];
        let mut length = 0;
        loop {
            match open.read(&mut buffer)? {
                0 => break,
                read => {
                    hasher.update(&buffer[..read]);
                    length += read as u64;
                    bar.set_position(length);
                }
            }
        }
        bar.finish_and_clear();
        Ok((BlobId::from(hasher.finalize()), length))
    };
    let (blob, bytes) = hashed().map_err(|e| ImportError::Read(path.clone(), e))?;
    Ok(ManifestFile { path: file.to_owned(), blob, bytes })
}

fn temporary(content: &[u8]) -> io::Result<File> {
    let mut file = tempfile::tempfile()?;
    file.write_all(content)?;
    file.rewind()?;
    Ok(file)
}

/// What travels by setting of `trainable`; settings that do not suit the model are left out.
fn settings(config: &ModelConfig) -> Vec<(&'static str, ParamSpec)> {
    let settings = match config {
        ModelConfig::Bert(_) => ["head", "last:1", "last:2", "all"].as_slice(),
        ModelConfig::Gpt2(_) | ModelConfig::Llama(_) => &["last:1", "all", "lora"],
        ModelConfig::Mlp(_) => &[],
    };
    let planned = settings.iter().filter_map(|setting| {
        let params = model::plan(&example_run(setting, config.is_decoder()).ok()?, Some(config)).ok()?;
        Some((*setting, params))
    });
    planned.collect()
}

/// A run like those that the model may serve.
fn example_run(setting: &str, of_language: bool) -> Result<RunSpec, sheaf_common::config::ConfigError> {
    let trained =
        if setting == "lora" { "lora = {}".to_owned() } else { format!("trainable = \"{setting}\"") };
    let task = if of_language {
        "type = \"causal-lm\""
    } else {
        "type = \"text-classification\"\nlabel = \"l\"\nlabels = [\"a\", \"b\"]"
    };
    let text = format!(
        "name = \"example\"\nrounds = 1\nsecure_aggregation = \"off\"\n\
         [model]\nname = \"model\"\n{trained}\n[task]\n{task}\ndataset = \"d\"\ntext = \"t\"\nmax_length = 3\n"
    );
    RunSpec::parse("example", &text)
}
