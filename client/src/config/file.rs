//! `site.toml` as it is written, and how it becomes a [`SiteConfig`] or one sentence.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use sheaf_common::blob::BlobId;
use sheaf_common::config::Invalid;
use sheaf_common::id::Name;
use sheaf_transport::network::{self, NetworkFile};
use sheaf_transport::pace::BadHours;
use sheaf_transport::tls::CredentialPaths;

use super::{DatasetConfig, Format, Header, Models, Policy, SiteConfig};
use crate::device::DeviceChoice;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct SiteFile {
    server: String,
    state_dir: PathBuf,
    #[serde(default)]
    device: DeviceChoice,
    #[serde(default)]
    network: NetworkFile,
    identity: IdentityFile,
    #[serde(default)]
    policy: PolicyFile,
    #[serde(default)]
    datasets: BTreeMap<String, DatasetFile>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct IdentityFile {
    certificate: PathBuf,
    key: PathBuf,
    ca: PathBuf,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct PolicyFile {
    secure_aggregation: Option<String>,
    min_updates: Option<u32>,
    min_metric_count: Option<u64>,
    metrics: Option<bool>,
    own_metrics: bool,
    surveys: Option<bool>,
    authors: Option<BTreeSet<Name>>,
    models: Option<Vec<String>>,
    purposes: Option<BTreeSet<String>>,
    max_rounds: Option<u32>,
    max_bytes: Option<u64>,
    hours: Option<String>,
    approve: Option<String>,
    torchscript: Vec<String>,
}

impl TryFrom<PolicyFile> for Policy {
    type Error = Invalid;

    fn try_from(file: PolicyFile) -> Result<Self, Invalid> {
        let require_secure_aggregation = match file.secure_aggregation.as_deref() {
            None | Some("required") => true,
            Some("optional") => false,
            Some(other) => {
                return Err(Invalid::new(
                    "policy.secure_aggregation",
                    format!(
                        "`{other}` is unknown; write \"required\", or \"optional\" to let runs turn it off"
                    ),
                ));
            }
        };
        let min_updates = file.min_updates.unwrap_or(Self::default().min_updates);
        if min_updates < 2 {
            return Err(Invalid::new(
                "policy.min_updates",
                "must be at least 2: a sum over one site is its update",
            ));
        }
        let min_metric_count = file.min_metric_count.unwrap_or(Self::default().min_metric_count);
        if min_metric_count < 1 {
            return Err(Invalid::new(
                "policy.min_metric_count",
                "must be at least 1: a metric of no examples does not exist",
            ));
        }
        let ask = match file.approve.as_deref() {
            None | Some("all") => false,
            Some("ask") => true,
            Some(other) => {
                return Err(Invalid::new(
                    "policy.approve",
                    format!(
                        "`{other}` is unknown; write \"ask\", or \"all\" to take part in all runs that the policy allows"
                    ),
                ));
            }
        };
        let hours = file.hours.map(|hours| hours.parse()).transpose();
        let torchscript = file.torchscript.iter().enumerate().map(module).collect::<Result<_, _>>()?;
        Ok(Self {
            require_secure_aggregation,
            min_updates,
            min_metric_count,
            metrics: file.metrics.unwrap_or(Self::default().metrics),
            own_metrics: file.own_metrics,
            surveys: file.surveys.unwrap_or(Self::default().surveys),
            authors: file.authors,
            models: file.models.map(models).transpose()?,
            purposes: file.purposes,
            max_rounds: file.max_rounds,
            max_bytes: file.max_bytes,
            hours: hours.map_err(|e: BadHours| Invalid::new("policy.hours", e.to_string()))?,
            ask,
            torchscript,
        })
    }
}

fn models(written: Vec<String>) -> Result<Models, Invalid> {
    let mut models = Models { imported: BTreeSet::new(), fresh: false };
    for model in written {
        if model == "fresh" {
            models.fresh = true;
        } else {
            let id = model.parse().map_err(|_| {
                let problem = format!(
                    "`{model}` is neither \"fresh\" nor a model's id, which `sheaf model import` and `sheaf model list --json` show"
                );
                Invalid::new("policy.models", problem)
            })?;
            models.imported.insert(id);
        }
    }
    Ok(models)
}

fn module((number, written): (usize, &String)) -> Result<BlobId, Invalid> {
    written.parse().map_err(|_| {
        Invalid::new(
            format!("policy.torchscript.{number}"),
            format!("`{written}` is no BLAKE3 hash; write the 64 hexadecimal digits that `b3sum` gives of the module's file"),
        )
    })
}

/// A data set as it is written: the keys of `[datasets.NAME]`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DatasetFile {
    path: PathBuf,
    format: Option<Written>,
    delimiter: Option<String>,
    quotes: Option<bool>,
    has_header: Option<bool>,
    columns: Option<Vec<String>>,
    #[serde(default)]
    skip_rows: u64,
    #[serde(default)]
    rename: BTreeMap<String, String>,
    images: Option<PathBuf>,
    labels: Option<PathBuf>,
    #[serde(default)]
    classes: Vec<String>,
    memory_mib: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Written {
    Csv,
    Tsv,
    Jsonl,
    Parquet,
    ImageFolder,
    Idx,
}

/// Memory that images take at most when nothing is said, in MiB.
const MEMORY_MIB: u64 = 4096;

impl TryFrom<SiteFile> for SiteConfig {
    type Error = Invalid;

    fn try_from(file: SiteFile) -> Result<Self, Invalid> {
        let IdentityFile { certificate, key, ca } = file.identity;
        let paths = [
            ("state_dir", &file.state_dir),
            ("identity.certificate", &certificate),
            ("identity.key", &key),
            ("identity.ca", &ca),
        ];
        for (key, path) in paths {
            named(key, path)?;
        }
        let datasets = file
            .datasets
            .into_iter()
            .map(|(name, written)| {
                let key = format!("datasets.{name}");
                DatasetConfig::of(&key, written, &file.state_dir).map(|dataset| (name, dataset))
            })
            .collect::<Result<_, _>>()?;
        Ok(Self {
            server: network::address("server", file.server)?,
            network: file.network.try_into()?,
            state_dir: file.state_dir,
            device: file.device,
            identity: CredentialPaths { certificate, key, ca },
            policy: file.policy.try_into()?,
            datasets,
        })
    }
}

impl DatasetConfig {
    /// The meaning of what is written at `place` of a file, paths as they are written. Examples that memory is too small
    /// for go to `spill`.
    pub fn of(place: &str, file: DatasetFile, spill: &Path) -> Result<Self, Invalid> {
        let key = |part: &str| format!("{place}.{part}");
        named(&key("path"), &file.path)?;
        let written = match (file.format, &file.delimiter) {
            (Some(written), _) => written,
            (None, Some(_)) => Written::Csv,
            (None, None) => format_of(&key("format"), &file.path)?,
        };
        check_keys(&key, written, &file)?;
        let delimiter = match (file.delimiter, written) {
            (Some(delimiter), _) => single_byte(&key("delimiter"), &delimiter)?,
            (None, Written::Tsv) => b'\t',
            (
                None,
                Written::Csv | Written::Jsonl | Written::Parquet | Written::ImageFolder | Written::Idx,
            ) => b',',
        };
        let format = match written {
            Written::Csv | Written::Tsv => Format::Delimited,
            Written::Jsonl => Format::JsonLines,
            Written::Parquet => Format::Parquet,
            Written::ImageFolder => Format::ImageFolder,
            Written::Idx => Format::Idx,
        };
        for (part, path) in [("images", &file.images), ("labels", &file.labels)] {
            path.as_deref().map_or(Ok(()), |path| named(&key(part), path))?;
        }
        let header = header(&key("columns"), file.has_header, file.columns)?;
        let mut renamed = BTreeSet::new();
        for (run, own) in &file.rename {
            if !renamed.insert(own) {
                return Err(Invalid::new(
                    key(&format!("rename.{run}")),
                    format!("the file's column `{own}` already has another name"),
                ));
            }
        }
        Ok(Self {
            path: file.path,
            format,
            delimiter,
            quotes: file.quotes.unwrap_or(true),
            header,
            skip_rows: file.skip_rows,
            rename: file.rename,
            images: file.images,
            labels: file.labels,
            classes: file.classes,
            memory_mib: file.memory_mib.unwrap_or(MEMORY_MIB),
            spill: spill.to_owned(),
        })
    }
}

/// Whether each key that is given means something for the format.
fn check_keys(key: &dyn Fn(&str) -> String, written: Written, file: &DatasetFile) -> Result<(), Invalid> {
    let (is_text, is_table) = match written {
        Written::Csv | Written::Tsv => (true, true),
        Written::Jsonl | Written::Parquet => (false, true),
        Written::ImageFolder | Written::Idx => (false, false),
    };
    let is_idx = written == Written::Idx;
    let why = match written {
        Written::Csv | Written::Tsv => "is for \"idx\" only",
        Written::Jsonl => "is not for JSON lines, whose keys are the columns",
        Written::Parquet => "is not for Parquet, which names its columns itself",
        Written::ImageFolder => "is not for \"image-folder\", whose folders are the labels",
        Written::Idx => "is not for \"idx\", which has images and labels alone",
    };
    let keys = [
        ("delimiter", file.delimiter.is_some(), is_text),
        ("quotes", file.quotes.is_some(), is_text),
        ("has_header", file.has_header.is_some(), is_text),
        ("columns", file.columns.is_some(), is_text),
        ("skip_rows", file.skip_rows > 0, is_text),
        ("rename", !file.rename.is_empty(), is_table),
        ("images", file.images.is_some(), is_table),
        ("labels", file.labels.is_some(), is_idx),
        ("classes", !file.classes.is_empty(), is_idx),
    ];
    if let Some((other, ..)) = keys.iter().find(|(_, given, fits)| *given && !fits) {
        return Err(Invalid::new(key(other), why));
    }
    if is_idx && file.labels.is_none() {
        return Err(Invalid::new(key("labels"), "is missing: name the file of labels beside that of images"));
    }
    let mut seen = BTreeSet::new();
    match file.classes.iter().find(|class| !seen.insert(class.as_str())) {
        Some(twice) => Err(Invalid::new(key("classes"), format!("`{twice}` is listed twice"))),
        None => Ok(()),
    }
}

fn header(key: &str, has_header: Option<bool>, columns: Option<Vec<String>>) -> Result<Header, Invalid> {
    match (has_header.unwrap_or(true), columns) {
        (true, None) => Ok(Header::FirstRow),
        (true, Some(_)) => Err(Invalid::new(
            key,
            "names the columns of a file without a header: add `has_header = false`, or use `rename` instead",
        )),
        (false, None) => {
            Err(Invalid::new(key, "is missing: list the names of the file's columns, as it has no header"))
        }
        (false, Some(columns)) => {
            let mut seen = BTreeSet::new();
            match columns.iter().find(|column| !seen.insert(column.as_str())) {
                Some(twice) => Err(Invalid::new(key, format!("`{twice}` is listed twice"))),
                None if columns.is_empty() => Err(Invalid::new(key, "lists no column")),
                None => Ok(Header::Named(columns)),
            }
        }
    }
}

fn format_of(key: &str, path: &Path) -> Result<Written, Invalid> {
    let extension = path.extension().and_then(|extension| extension.to_str()).map(str::to_ascii_lowercase);
    match extension.as_deref() {
        Some("csv") => Ok(Written::Csv),
        Some("tsv" | "tab") => Ok(Written::Tsv),
        Some("jsonl" | "ndjson") => Ok(Written::Jsonl),
        Some("parquet") => Ok(Written::Parquet),
        _ => Err(Invalid::new(
            key,
            format!(
                "is missing, and the name of {} does not tell it: write \"csv\", \"tsv\", \"jsonl\", \"parquet\", \"image-folder\" or \"idx\"",
                path.display()
            ),
        )),
    }
}

fn single_byte(key: &str, written: &str) -> Result<u8, Invalid> {
    match written.as_bytes() {
        [byte] if byte.is_ascii() && !matches!(byte, b'"' | b'\n' | b'\r') => Ok(*byte),
        _ => Err(Invalid::new(
            key,
            format!("{written:?} is no delimiter; write one ASCII character, such as \";\""),
        )),
    }
}

fn named(key: &str, path: &Path) -> Result<(), Invalid> {
    if path.as_os_str().is_empty() { Err(Invalid::new(key, "is empty; name a path")) } else { Ok(()) }
}
