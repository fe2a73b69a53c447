//! A model's folder as a list of blobs. The list is a blob itself, and its hash is the model's identity.

use serde::{Deserialize, Serialize};

use crate::blob::BlobId;

/// Most files of a model.
pub const FILES_MAX: usize = 64;

/// Longest manifest, in bytes.
pub const MANIFEST_MAX: u64 = 1 << 16;

/// Longest name of a model or a file, in bytes.
const NAME_MAX: usize = 128;

/// A model's folder as a list of blobs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Manifest {
    /// The name under which it was imported.
    pub name: String,
    /// Its files, in the order of their paths, each path once.
    pub files: Vec<ManifestFile>,
}

/// One file of a model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestFile {
    /// Its name in the folder; there are no folders below it.
    pub path: String,
    /// Its content.
    pub blob: BlobId,
    /// Its length in bytes.
    pub bytes: u64,
}

/// A list of files that is no model's manifest.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadManifest {
    /// Not JSON of the expected form.
    #[error("the model's manifest cannot be read: {0}")]
    Json(String),
    /// Longer than [`MANIFEST_MAX`].
    #[error("the model's manifest has {0} bytes; at most {MANIFEST_MAX} are allowed")]
    TooLong(u64),
    /// The model's name is not made of the allowed letters.
    #[error(
        "`{0}` cannot name a model: use 1 to {NAME_MAX} letters, digits, `.`, `_` and `-`, starting with a letter \
         or digit"
    )]
    Name(String),
    /// A file name with other letters, which could leave the folder or hide in it.
    #[error(
        "`{0}` cannot be a file of a model: use plain names, without folders, of letters, digits, `.`, `_` and `-`, \
         starting with a letter or digit"
    )]
    Path(String),
    /// A file is listed twice.
    #[error("the model lists the file `{0}` twice")]
    Duplicate(String),
    /// No files or more than [`FILES_MAX`].
    #[error("the model has {0} files; it needs 1 to {FILES_MAX}")]
    Files(usize),
    /// The lengths of the files do not add up to a 64-bit number.
    #[error("the model's files are impossibly long")]
    Bytes,
    /// The same content written in another way, which would have another identity.
    #[error("the model's manifest is not written as Sheaf writes it; import the model again")]
    NotCanonical,
}

/// The written form: hashes as people read them.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct ManifestJson {
    name: String,
    files: Vec<FileJson>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct FileJson {
    path: String,
    blob: String,
    bytes: u64,
}

impl Manifest {
    /// The manifest of a folder, with its files sorted by path.
    pub fn new(name: impl Into<String>, mut files: Vec<ManifestFile>) -> Result<Self, BadManifest> {
        files.sort_by(|a, b| a.path.cmp(&b.path));
        let manifest = Self { name: name.into(), files };
        manifest.check()?;
        Ok(manifest)
    }

    /// Reads the manifest of which `json` is the blob. Only what [`to_json`](Self::to_json) writes is read.
    pub fn parse(json: &[u8]) -> Result<Self, BadManifest> {
        if json.len() as u64 > MANIFEST_MAX {
            return Err(BadManifest::TooLong(json.len() as u64));
        }
        let written: ManifestJson =
            serde_json::from_slice(json).map_err(|e| BadManifest::Json(e.to_string()))?;
        let files = written.files.into_iter().map(ManifestFile::try_from).collect::<Result<_, _>>()?;
        let manifest = Self::new(written.name, files)?;
        if manifest.to_json() == json { Ok(manifest) } else { Err(BadManifest::NotCanonical) }
    }

    /// The manifest's blob: JSON, always written the same way.
    pub fn to_json(&self) -> Vec<u8> {
        let files = self.files.iter().map(FileJson::from).collect();
        let written = ManifestJson { name: self.name.clone(), files };
        let mut json = serde_json::to_vec_pretty(&written).expect("strings and numbers are always JSON");
        json.push(b'\n');
        json
    }

    /// The model's identity.
    pub fn id(&self) -> BlobId {
        BlobId::of(&self.to_json())
    }

    /// The file of this name.
    pub fn file(&self, path: &str) -> Option<&ManifestFile> {
        self.files.iter().find(|file| file.path == path)
    }

    /// Bytes of all files.
    pub fn bytes(&self) -> u64 {
        self.files.iter().fold(0, |sum, file| sum.saturating_add(file.bytes))
    }

    fn check(&self) -> Result<(), BadManifest> {
        if !is_plain_name(&self.name) {
            return Err(BadManifest::Name(shown(&self.name)));
        }
        if self.files.is_empty() || self.files.len() > FILES_MAX {
            return Err(BadManifest::Files(self.files.len()));
        }
        if let Some(file) = self.files.iter().find(|file| !is_plain_name(&file.path)) {
            return Err(BadManifest::Path(shown(&file.path)));
        }
        if let Some(pair) = self.files.windows(2).find(|pair| pair[0].path == pair[1].path) {
            return Err(BadManifest::Duplicate(pair[0].path.clone()));
        }
        self.files
            .iter()
            .try_fold(0u64, |sum, file| sum.checked_add(file.bytes))
            .ok_or(BadManifest::Bytes)?;
        Ok(())
    }
}

impl TryFrom<FileJson> for ManifestFile {
    type Error = BadManifest;

    fn try_from(file: FileJson) -> Result<Self, BadManifest> {
        let blob = file
            .blob
            .parse()
            .map_err(|_| BadManifest::Json(format!("`{}` has no blob id", shown(&file.path))))?;
        Ok(Self { path: file.path, blob, bytes: file.bytes })
    }
}

impl From<&ManifestFile> for FileJson {
    fn from(file: &ManifestFile) -> Self {
        Self { path: file.path.clone(), blob: file.blob.to_string(), bytes: file.bytes }
    }
}

/// Whether the name stays where it is put on every system: no separators, no `..`, nothing hidden.
fn is_plain_name(name: &str) -> bool {
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-');
    name.len() <= NAME_MAX
        && name.bytes().next().is_some_and(|first| first.is_ascii_alphanumeric())
        && name.bytes().all(allowed)
}

/// As much of a bad name as a message should show.
fn shown(text: &str) -> String {
    text.chars().take(80).collect()
}
