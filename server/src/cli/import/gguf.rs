//! A GGUF file as the folder that Hugging Face would publish, every value in single precision. It costs the memory of the
//! largest tensor and the disk of the whole model.

use std::fs::{self, File};
use std::io::{self, BufWriter, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sheaf_common::model::foreign::gguf::{BadGguf, Converted, Gguf, HEADER_MAX};
use sheaf_common::model::weights::f32_header;
use sheaf_common::model::{CONFIG_FILE, TOKENIZER_FILE, WEIGHTS_FILE};
use sheaf_common::params::to_bytes;
use tempfile::TempDir;

use super::super::screen::transfer_bar;

/// The file cannot be converted.
#[derive(Debug, thiserror::Error)]
pub enum GgufError {
    /// It cannot be read.
    #[error("cannot read {0}: {1}")]
    Read(PathBuf, io::Error),
    /// It holds no model that Sheaf reads.
    #[error("{0} cannot be imported: {1}")]
    Bad(PathBuf, BadGguf),
    /// The temporary folder.
    #[error("cannot write the converted model into a temporary folder: {0}; set TMPDIR to a larger disk")]
    Write(io::Error),
}

/// Whether this path names a GGUF file.
pub(super) fn is_gguf(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("gguf")) && path.is_file()
}

/// Converts the file; the folder is gone when it is dropped.
pub(super) fn convert(path: &Path) -> Result<TempDir, GgufError> {
    let unreadable = |e| GgufError::Read(path.to_owned(), e);
    let mut file = File::open(path).map_err(unreadable)?;
    let length = file.metadata().map_err(unreadable)?.len();
    let mut start = Vec::new();
    (&file).take(HEADER_MAX).read_to_end(&mut start).map_err(unreadable)?;
    let converted = Gguf::parse(&start, length).and_then(|gguf| gguf.convert());
    let converted = converted.map_err(|e| GgufError::Bad(path.to_owned(), e))?;
    drop(start);
    let folder = tempfile::tempdir().map_err(GgufError::Write)?;
    let texts = [
        (CONFIG_FILE, &converted.config),
        (TOKENIZER_FILE, &converted.tokenizer),
        ("tokenizer_config.json", &converted.tokenizer_config),
    ];
    for (name, content) in texts {
        fs::write(folder.path().join(name), content).map_err(GgufError::Write)?;
    }
    let out = File::create_new(folder.path().join(WEIGHTS_FILE)).map_err(GgufError::Write)?;
    write_weights(&converted, &mut file, path, BufWriter::with_capacity(1 << 20, out))?;
    Ok(folder)
}

fn write_weights(
    converted: &Converted,
    file: &mut File,
    path: &Path,
    mut out: BufWriter<File>,
) -> Result<(), GgufError> {
    let unreadable = |e| GgufError::Read(path.to_owned(), e);
    let tensors =
        converted.tensors.iter().map(|tensor| (tensor.name.as_str(), tensor.stored.shape.as_slice()));
    out.write_all(&f32_header(tensors)).map_err(GgufError::Write)?;
    let bar = transfer_bar(&format!("converting {}", path.display()));
    bar.set_length(converted.tensors.iter().map(|tensor| tensor.stored.bytes).sum());
    for tensor in &converted.tensors {
        let mut stored = Vec::new();
        file.seek(SeekFrom::Start(tensor.stored.offset)).map_err(unreadable)?;
        (&*file).take(tensor.stored.bytes).read_to_end(&mut stored).map_err(unreadable)?;
        out.write_all(&to_bytes(&tensor.values(&stored))).map_err(GgufError::Write)?;
        bar.inc(tensor.stored.bytes);
    }
    bar.finish_and_clear();
    out.flush().map_err(GgufError::Write)
}
