//! What people have of a model, and how it becomes a folder in Sheaf's form: `config.json` beside f32
//! `model.safetensors`.
//!
//! A folder whose weights are f32 is taken as it is. Everything else is converted, a piece at a time, into a folder that
//! is gone after the import. A further file format is read in [`index`], a further model in
//! [`Kind`](sheaf_common::model::foreign::kind::Kind).

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Write};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use sheaf_common::model::config::{is_vit, with_pixels};
use sheaf_common::model::foreign::convert::Conversion;
use sheaf_common::model::foreign::kind::{Kind, NotOfKind, UnknownKind};
use sheaf_common::model::foreign::torch::{self, BadTorch};
use sheaf_common::model::foreign::{Format, Index};
use sheaf_common::model::{CONFIG_FILE, PREPROCESSOR_FILE, WEIGHTS_FILE};
use tempfile::TempDir;

use super::super::folder::{FolderError, read_short, read_weights};
use super::super::screen::transfer_bar;
use super::gguf::{self, GgufError};
use super::script::{self, ScriptArgs, ScriptError};

/// What a file is that does not say it itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileKind {
    /// Weights of a model whose description Sheaf knows.
    Weights(Kind),
    /// A TorchScript module.
    TorchScript,
}

impl FromStr for FileKind {
    type Err = UnknownKind;

    fn from_str(written: &str) -> Result<Self, UnknownKind> {
        if written == "torchscript" { Ok(Self::TorchScript) } else { written.parse().map(Self::Weights) }
    }
}

/// What is at a path cannot be brought into Sheaf's form.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// Nothing is there.
    #[error(
        "{0} is not there: give a folder that holds {CONFIG_FILE} and {WEIGHTS_FILE}, a .gguf file, or a file of \
         weights and its --kind"
    )]
    Nothing(PathBuf),
    /// A file of weights alone.
    #[error("{0} holds weights and no description: say what they are with --kind {kinds} or torchscript", kinds = Kind::names())]
    NoKind(PathBuf),
    /// A kind of what describes itself.
    #[error("{0} says itself what it is: leave out --kind")]
    Described(PathBuf),
    /// Inputs or outputs of something else than a TorchScript module.
    #[error(
        "--inputs, --image-size, --mean, --std and --outputs describe a TorchScript module: add --kind torchscript, or leave them out"
    )]
    NotScript,
    /// A TorchScript module that cannot be converted.
    #[error(transparent)]
    Script(#[from] ScriptError),
    /// A GGUF file that cannot be converted.
    #[error(transparent)]
    Gguf(#[from] GgufError),
    /// A file of another format.
    #[error("{0} is neither GGUF, nor a state dict of PyTorch (.pth, .pt), nor safetensors")]
    Format(PathBuf),
    /// It cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    /// A safetensors file that is damaged.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A state dict that is damaged, or would run code.
    #[error("{0} cannot be imported: {1}")]
    Torch(PathBuf, BadTorch),
    /// Weights of something else.
    #[error("{0} cannot be imported: {1}")]
    Kind(PathBuf, NotOfKind),
    /// Our disk.
    #[error("cannot convert {0} into the folder for temporary files: {1}")]
    Convert(PathBuf, io::Error),
}

/// The folder of a model in Sheaf's form.
pub(super) enum Source {
    /// The operator's own.
    Folder(PathBuf),
    /// Ours, which is removed when it is dropped.
    Converted(TempDir),
}

impl Source {
    /// Brings what is at `path` into Sheaf's form.
    pub(super) fn open(
        path: &Path,
        kind: Option<FileKind>,
        script: &ScriptArgs,
    ) -> Result<Self, SourceError> {
        if kind != Some(FileKind::TorchScript) && !script.is_empty() {
            return Err(SourceError::NotScript);
        }
        match kind {
            Some(_) if path.is_dir() || gguf::is_gguf(path) => Err(SourceError::Described(path.to_owned())),
            None if gguf::is_gguf(path) => Ok(Self::Converted(gguf::convert(path)?)),
            None if path.is_dir() => from_folder(path),
            Some(FileKind::Weights(kind)) if path.is_file() => from_file(path, kind),
            Some(FileKind::TorchScript) if path.is_file() => {
                Ok(Self::Converted(script::convert(path, script)?))
            }
            None if path.is_file() => Err(SourceError::NoKind(path.to_owned())),
            Some(_) | None => Err(SourceError::Nothing(path.to_owned())),
        }
    }

    /// The folder.
    pub(super) fn dir(&self) -> &Path {
        match self {
            Self::Folder(dir) => dir,
            Self::Converted(dir) => dir.path(),
        }
    }
}

/// A folder as Hugging Face publishes it. What is missing from it is found later.
fn from_folder(dir: &Path) -> Result<Source, SourceError> {
    let path = dir.join(WEIGHTS_FILE);
    if !path.is_file() {
        return Ok(Source::Folder(dir.to_owned()));
    }
    let index = Index::of_safetensors(&read_weights(&path)?);
    let config = described(dir)?;
    if config.is_none() && index.tensors().all(|tensor| tensor.format == Format::F32) {
        return Ok(Source::Folder(dir.to_owned()));
    }
    convert(&path, &Conversion::all(&index), |target| {
        for entry in fs::read_dir(dir)? {
            let entry = entry?;
            if entry.path() != path && entry.file_type()?.is_file() {
                fs::copy(entry.path(), target.join(entry.file_name()))?;
            }
        }
        config.map_or(Ok(()), |config| fs::write(target.join(CONFIG_FILE), config))
    })
}

/// The `config.json` of a model of which a second file of Hugging Face's says what it reads of pixels.
fn described(dir: &Path) -> Result<Option<Vec<u8>>, SourceError> {
    let [config_path, processor_path] = [CONFIG_FILE, PREPROCESSOR_FILE].map(|file| dir.join(file));
    if !config_path.is_file() || !processor_path.is_file() {
        return Ok(None);
    }
    let config = read_short(&config_path)?;
    if !is_vit(&config) {
        return Ok(None);
    }
    let described = with_pixels(&config, &read_short(&processor_path)?);
    Ok(Some(described.map_err(|e| FolderError::Config(config_path, e))?))
}

/// Weights alone, of which the kind says the rest.
fn from_file(path: &Path, kind: Kind) -> Result<Source, SourceError> {
    let index = index(path)?;
    let (config, conversion) = kind.convert(&index).map_err(|e| SourceError::Kind(path.to_owned(), e))?;
    convert(path, &conversion, |target| {
        let mut json = serde_json::to_vec_pretty(&config)?;
        json.push(b'\n');
        fs::write(target.join(CONFIG_FILE), json)
    })
}

/// The tensors of a file in any of the formats that are known, by its first bytes.
fn index(path: &Path) -> Result<Index, SourceError> {
    let unreadable = |e| SourceError::Read(path.to_owned(), e);
    let mut file = File::open(path).map_err(unreadable)?;
    let bytes = file.metadata().map_err(unreadable)?.len();
    let mut start = Vec::new();
    (&file).take(9).read_to_end(&mut start).map_err(unreadable)?;
    match start.as_slice() {
        [_, _, _, _, _, _, _, _, b'{'] => Ok(Index::of_safetensors(&read_weights(path)?)),
        [b'P', b'K', 3, 4, ..] | [0x80, ..] => {
            torch::index(&mut file, bytes).map_err(|e| SourceError::Torch(path.to_owned(), e))
        }
        _ => Err(SourceError::Format(path.to_owned())),
    }
}

/// Converts the weights at `path` into a folder of ours, to which `rest` adds the other files.
fn convert(
    path: &Path,
    conversion: &Conversion,
    rest: impl FnOnce(&Path) -> io::Result<()>,
) -> Result<Source, SourceError> {
    let converted = || {
        let dir = tempfile::tempdir()?;
        rest(dir.path())?;
        let bar = transfer_bar("converting");
        bar.set_length(conversion.bytes());
        let mut out = BufWriter::with_capacity(1 << 20, File::create_new(dir.path().join(WEIGHTS_FILE))?);
        conversion.write(&mut File::open(path)?, &mut out, &mut |done| bar.set_position(done))?;
        out.flush()?;
        bar.finish_and_clear();
        Ok(dir)
    };
    converted().map(Source::Converted).map_err(|e| SourceError::Convert(path.to_owned(), e))
}

#[cfg(test)]
mod tests {
    use sheaf_common::model::ModelConfig;
    use sheaf_common::model::weights::f32_header;

    use super::*;

    const VIT: &str = r#"{"model_type": "vit", "hidden_size": 4, "num_hidden_layers": 1, "num_attention_heads": 2,
        "intermediate_size": 4, "image_size": 32, "patch_size": 16}"#;

    #[test]
    fn what_a_second_file_says_of_pixels_comes_into_the_description() {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, content: &[u8]| fs::write(dir.path().join(name), content).unwrap();
        write(CONFIG_FILE, VIT.as_bytes());
        write(WEIGHTS_FILE, &f32_header([]));
        let processor = br#"{"image_mean": [0.1, 0.2, 0.3], "image_std": [1, 1, 1], "size": 32}"#;
        write(PREPROCESSOR_FILE, processor);
        let source = Source::open(dir.path(), None, &ScriptArgs::default()).unwrap();
        let ModelConfig::Image(image) =
            ModelConfig::parse(&fs::read(source.dir().join(CONFIG_FILE)).unwrap()).unwrap()
        else {
            panic!("an image classifier")
        };
        assert_eq!(image.mean, [0.1, 0.2, 0.3]);
        assert_eq!(fs::read(source.dir().join(PREPROCESSOR_FILE)).unwrap(), processor);
        assert_eq!(
            fs::read(dir.path().join(CONFIG_FILE)).unwrap(),
            VIT.as_bytes(),
            "the operator's own stays"
        );

        write(PREPROCESSOR_FILE, br#"{"image_mean": [0, 0, 0], "image_std": [1, 1, 1], "size": 64}"#);
        let refused = Source::open(dir.path(), None, &ScriptArgs::default()).err().unwrap().to_string();
        assert!(refused.contains("images of 64 x 64 pixels, and `image_size` is 32"), "{refused}");
    }
}
