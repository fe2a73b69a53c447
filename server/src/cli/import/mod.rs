//! `sheaf model import`: what people have of a model, checked and given to the server file by file.
//!
//! In this order: `source` makes of a path the folder of a model in Sheaf's form, converting what is in another (`gguf`, `script`); this file
//! checks the folder; `send` gives it to the server, or `local` has it on this machine; `card` says what it is.

mod card;
mod gguf;
mod local;
mod script;
mod send;
mod source;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use sheaf_common::blob::BlobId;
use sheaf_common::model::{
    BadManifest, CONFIG_FILE, MODULE_FILE, Manifest, ManifestFile, ModelConfig, PREPROCESSOR_FILE,
    TOKENIZER_FILE, WEIGHTS_FILE,
};
use sheaf_common::params::ParamSpec;

use super::folder::{FolderError, read_config, read_weights};
use super::screen::transfer_bar;

pub(super) use self::card::card;
use self::card::settings;
pub use self::local::{PutError, put_model};
pub(super) use self::script::ScriptArgs;
use self::script::ScriptError;
pub(super) use self::send::send;
pub(super) use self::source::FileKind;
use self::source::{Source, SourceError};

/// Files that some tokenizers of Hugging Face consist of, and what its image processors are made of, taken along when they
/// are there.
const ALONG: [&str; 8] = [
    "chat_template.jinja",
    "merges.txt",
    PREPROCESSOR_FILE,
    "sentencepiece.bpe.model",
    "special_tokens_map.json",
    "tokenizer_config.json",
    "vocab.json",
    "vocab.txt",
];
const CHUNK: usize = 1 << 20;

/// What is at the path is not a model that can be imported.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// What is there cannot be brought into Sheaf's form.
    #[error(transparent)]
    Source(#[from] SourceError),
    /// A TorchScript module is not what it should be.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// A file is missing.
    #[error("{0} is missing from {1}{2}")]
    Missing(&'static str, PathBuf, &'static str),
    /// A file is not what it should be.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// Names that cannot be used.
    #[error(transparent)]
    Manifest(#[from] BadManifest),
    /// A file cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
}

/// A model that can be imported.
pub(super) struct Model {
    source: Source,
    manifest: Manifest,
    /// What travels per round, by setting of `trainable`, for two labels.
    trainable: Vec<(&'static str, ParamSpec)>,
}

impl Model {
    /// The hash of a TorchScript module's file, which a site's policy must list.
    pub(super) fn module(&self) -> Option<BlobId> {
        self.manifest.file(MODULE_FILE).map(|file| file.blob)
    }
}

/// Brings what is at `path` into Sheaf's form, checks it and names its files by their hashes.
pub(super) fn read(
    path: &Path,
    kind: Option<FileKind>,
    script: &ScriptArgs,
    name: &str,
) -> Result<Model, ImportError> {
    // The name is checked before a gigabyte is converted or hashed.
    let placeholder = ManifestFile { path: CONFIG_FILE.to_owned(), blob: BlobId::of(&[]), bytes: 0 };
    Manifest::new(name, vec![placeholder])?;
    let source = Source::open(path, kind, script)?;
    let dir = source.dir();
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
    }
    if let ModelConfig::Script(config) = &config {
        required(MODULE_FILE, "")?;
        script::check(dir, config)?;
        names.push(MODULE_FILE);
    }
    names.extend(ALONG.into_iter().filter(|file| dir.join(file).is_file()));
    config.check_weights(&weights).map_err(|e| FolderError::Weights(weights_path, e))?;
    let files = names.into_iter().map(|file| hash(dir, file)).collect::<Result<_, _>>()?;
    let manifest = Manifest::new(name, files)?;
    Ok(Model { trainable: settings(&config), source, manifest })
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
