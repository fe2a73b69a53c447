//! A model for blobs on this machine, where there is no server to give it to: in a simulation.

use std::path::Path;

use sheaf_common::blob::BlobId;
use sheaf_common::model::foreign::kind::Kind;
use sheaf_transport::blobs::{BlobDir, BlobError};

use super::{FileKind, ImportError, ScriptArgs, read};

/// The model is not among the blobs.
#[derive(Debug, thiserror::Error)]
pub enum PutError {
    /// What is at the path is not a model that can be imported.
    #[error(transparent)]
    Import(#[from] ImportError),
    /// It cannot be stored, or was changed meanwhile.
    #[error(transparent)]
    Blob(#[from] BlobError),
}

/// Has the files of the model at `path` among `blobs`, and its manifest, whose name is returned: those that `sheaf model import`
/// would send under that name. A file that is there already is not copied again.
pub fn put_model(blobs: &BlobDir, path: &Path, kind: Option<Kind>, name: &str) -> Result<BlobId, PutError> {
    let model = read(path, kind.map(FileKind::Weights), &ScriptArgs::default(), name)?;
    for file in model.manifest.files.iter().filter(|file| blobs.length(file.blob).is_none()) {
        let found = blobs.insert_file(&model.source.dir().join(&file.path))?;
        if found != file.blob {
            blobs.remove(found)?;
            return Err(BlobError::Mismatch { expected: file.blob, found }.into());
        }
    }
    Ok(blobs.insert(&model.manifest.to_json())?)
}
