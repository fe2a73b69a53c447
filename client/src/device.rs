//! Where training runs: the site's `device = "auto" | "cpu" | "cuda:N"`, and CUDA loaded when it is at hand.
//!
//! Nothing links `libtorch_cuda.so`, so one program serves every site. That library asks for the very
//! `libtorch_cpu.so` that this program has loaded already, and registers its kernels there as it is loaded: to
//! load it, before libtorch first looks for CUDA, is all that CUDA takes.

use std::{
    env,
    fmt::{self, Display, Formatter},
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
    sync::OnceLock,
};

use serde::{Deserialize, Serialize};
use sheaf_common::run::Training;
use thiserror::Error;

/// The libtorch that this program is built with. CUDA's part must be of the same version, to the last digit:
/// the two share C++ types, and nothing else would notice a difference.
const LIBTORCH_VERSION: &str = "2.11.0";

/// Names the folder of a CUDA libtorch; where it is not set, the one that `make setup CUDA=1` installs is used.
const FOLDER_VARIABLE: &str = "SHEAF_LIBTORCH_CUDA";

/// Has this thread compute on one core alone, for a program that has a model for each of them.
pub fn use_one_core() {
    tch::set_num_threads(1);
}

/// The device as a site's configuration writes it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub enum DeviceChoice {
    /// The first GPU where there is one, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// The GPU with this index, from 0. `cuda` alone is `cuda:0`.
    Cuda(usize),
}

/// A text that names no device.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(r#"there is no device "{0}": write "auto", "cpu" or "cuda:N" (N from 0)"#)]
pub struct UnknownDevice(String);

impl FromStr for DeviceChoice {
    type Err = UnknownDevice;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "auto" => Ok(Self::Auto),
            "cpu" => Ok(Self::Cpu),
            "cuda" => Ok(Self::Cuda(0)),
            _ => text
                .strip_prefix("cuda:")
                .filter(|index| index.bytes().all(|byte| byte.is_ascii_digit()))
                .and_then(|index| index.parse().ok())
                .map(Self::Cuda)
                .ok_or_else(|| UnknownDevice(text.to_owned())),
        }
    }
}

impl Display for DeviceChoice {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(index) => write!(f, "cuda:{index}"),
        }
    }
}

impl TryFrom<String> for DeviceChoice {
    type Error = UnknownDevice;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<DeviceChoice> for String {
    fn from(choice: DeviceChoice) -> Self {
        choice.to_string()
    }
}

/// Why CUDA cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DeviceError {
    /// No folder holds CUDA's part of libtorch.
    #[error(
        "CUDA needs a CUDA libtorch {LIBTORCH_VERSION}, and {0:?} holds none: run `make setup CUDA=1`, or name \
         its folder in {FOLDER_VARIABLE}"
    )]
    Missing(PathBuf),
    /// The folder says that it holds another version.
    #[error(
        "CUDA needs libtorch {LIBTORCH_VERSION}, and {folder:?} holds {found}: run `make setup CUDA=1`, or name \
         another folder in {FOLDER_VARIABLE}"
    )]
    WrongVersion {
        /// The folder looked at.
        folder: PathBuf,
        /// What its `build-version` says.
        found: String,
    },
    /// The dynamic loader refused it.
    #[error("CUDA's part of libtorch could not be loaded from {library:?}: {reason}")]
    Unloadable {
        /// `libtorch_cuda.so`.
        library: PathBuf,
        /// The loader's words.
        reason: String,
    },
    /// libtorch can do CUDA, and sees no such GPU.
    #[error(
        "cuda:{index} was asked for, and {count} GPUs can be used here: check `nvidia-smi`, the driver (CUDA 13) \
         and CUDA_VISIBLE_DEVICES"
    )]
    NoSuchGpu {
        /// The GPU asked for.
        index: usize,
        /// How many there are.
        count: usize,
    },
}

/// The device of a site for a run, which may ask for results that are the same each time. Some of libtorch's kernels
/// on a GPU add in an order that nobody fixes, and the binding has no switch to leave those out.
pub fn for_run(choice: DeviceChoice, training: &Training) -> DeviceChoice {
    if training.deterministic && choice != DeviceChoice::Cpu {
        tracing::info!("training on the CPU, since the run is deterministic");
        return DeviceChoice::Cpu;
    }
    choice
}

/// The device to train on. To be called before anything else of libtorch, which looks for CUDA only once.
///
/// # Errors
/// When a GPU is asked for by name and cannot be used. `auto` falls back to the CPU, and logs why.
pub fn resolve(choice: DeviceChoice) -> Result<tch::Device, DeviceError> {
    match choice {
        DeviceChoice::Cpu => Ok(tch::Device::Cpu),
        DeviceChoice::Cuda(index) => cuda(index),
        DeviceChoice::Auto => Ok(cuda(0).unwrap_or_else(|reason| {
            tracing::info!(%reason, "training on the CPU");
            tch::Device::Cpu
        })),
    }
}

fn cuda(index: usize) -> Result<tch::Device, DeviceError> {
    load_cuda()?;
    let count = usize::try_from(tch::Cuda::device_count()).unwrap_or(0);
    if index < count { Ok(tch::Device::Cuda(index)) } else { Err(DeviceError::NoSuchGpu { index, count }) }
}

/// Loads CUDA's part of libtorch into this process, once; a failure stays the answer.
///
/// # Errors
/// When there is none of the right version, or it cannot be loaded.
pub fn load_cuda() -> Result<(), DeviceError> {
    static LOADED: OnceLock<Result<(), DeviceError>> = OnceLock::new();
    LOADED.get_or_init(|| loader::load_global(&find(folder())?)).clone()
}

/// Where a CUDA libtorch should be.
fn folder() -> PathBuf {
    let set = |name| env::var_os(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    set(FOLDER_VARIABLE).unwrap_or_else(|| {
        let cache = set("XDG_CACHE_HOME").or_else(|| env::home_dir().map(|home| home.join(".cache")));
        cache.unwrap_or_default().join(format!("sheaf/libtorch-{LIBTORCH_VERSION}-cuda"))
    })
}

/// `libtorch_cuda.so` in `folder`, laid out as a wheel or as PyTorch's own archive, if it is of our version.
fn find(folder: PathBuf) -> Result<PathBuf, DeviceError> {
    let library = ["torch/lib", "lib"].map(|lib| folder.join(lib).join("libtorch_cuda.so"));
    let (Some(library), Ok(found)) =
        (library.into_iter().find(|library| library.is_file()), version(&folder))
    else {
        return Err(DeviceError::Missing(folder));
    };
    // "2.11.0+cu130": what follows the plus sign names the build, not the version.
    if found.split('+').next() == Some(LIBTORCH_VERSION) {
        Ok(library)
    } else {
        Err(DeviceError::WrongVersion { folder, found })
    }
}

fn version(folder: &Path) -> io::Result<String> {
    Ok(fs::read_to_string(folder.join("build-version"))?.trim().to_owned())
}

/// Besides `memory`, the crate's one piece of unsafe code.
#[allow(unsafe_code, reason = "to load a library is to run its initialisers")]
mod loader {
    use std::path::Path;

    use libloading::os::unix::{Library, RTLD_GLOBAL, RTLD_NOW};

    use super::DeviceError;

    /// Loads `library` for the life of the process, its symbols visible to what is loaded later.
    pub(super) fn load_global(library: &Path) -> Result<(), DeviceError> {
        // SAFETY: the file is libtorch's, of the version that this program is built with (`find`); its
        // initialisers register kernels with the libtorch already loaded and have no other precondition.
        let loaded = unsafe { Library::open(Some(library), RTLD_NOW | RTLD_GLOBAL) };
        let handle = loaded.map_err(|error| DeviceError::Unloadable {
            library: library.to_owned(),
            reason: error.to_string(),
        })?;
        // Never closed: from now on libtorch holds pointers into it.
        std::mem::forget(handle);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_back() {
        for choice in [DeviceChoice::Auto, DeviceChoice::Cpu, DeviceChoice::Cuda(0), DeviceChoice::Cuda(11)] {
            assert_eq!(choice.to_string().parse(), Ok(choice));
            let json = serde_json::to_string(&choice).unwrap();
            assert_eq!(serde_json::from_str::<DeviceChoice>(&json).unwrap(), choice);
        }
        assert_eq!("cuda".parse(), Ok(DeviceChoice::Cuda(0)));
    }

    #[test]
    fn what_names_no_device_is_refused() {
        for text in ["", "gpu", "CPU", "cuda:", "cuda:-1", "cuda:+1", "cuda:1 ", "cuda:99999999999999999999"]
        {
            let error = text.parse::<DeviceChoice>().unwrap_err();
            assert_eq!(error, UnknownDevice(text.to_owned()));
            assert!(error.to_string().contains(r#"write "auto", "cpu" or "cuda:N""#));
        }
    }

    #[test]
    fn a_missing_cuda_libtorch_is_named_with_its_remedy() {
        let error = find(PathBuf::from("/nowhere/libtorch")).unwrap_err();
        assert_eq!(
            error.to_string(),
            "CUDA needs a CUDA libtorch 2.11.0, and \"/nowhere/libtorch\" holds none: run `make setup CUDA=1`, \
             or name its folder in SHEAF_LIBTORCH_CUDA"
        );
    }

    #[test]
    fn only_our_version_is_loaded() {
        let folder = tempfile::tempdir().unwrap();
        fs::create_dir(folder.path().join("lib")).unwrap();
        let library = folder.path().join("lib/libtorch_cuda.so");
        fs::write(&library, "").unwrap();
        for (text, ours) in
            [("2.11.0", true), ("2.11.0+cu130\n", true), ("2.11.1", false), ("2.10.0+cu130", false)]
        {
            fs::write(folder.path().join("build-version"), text).unwrap();
            let found = find(folder.path().to_owned());
            if ours {
                assert_eq!(found.as_ref(), Ok(&library));
            } else {
                let found = found.unwrap_err();
                assert!(matches!(found, DeviceError::WrongVersion { .. }), "{found}");
            }
        }
    }

    #[test]
    fn what_the_loader_refuses_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let library = folder.path().join("libtorch_cuda.so");
        fs::write(&library, "not a library").unwrap();
        let error = loader::load_global(&library).unwrap_err().to_string();
        assert!(error.starts_with("CUDA's part of libtorch could not be loaded from"), "{error}");
    }

    #[test]
    fn the_cpu_needs_nothing() {
        let deterministic = Training { deterministic: true, ..Training::default() };
        let gpu = DeviceChoice::Cuda(1);
        assert_eq!(for_run(gpu, &deterministic), DeviceChoice::Cpu);
        assert_eq!(for_run(gpu, &Training::default()), gpu);
        assert_eq!(resolve(DeviceChoice::Cpu), Ok(tch::Device::Cpu));
        assert!(resolve(DeviceChoice::Auto).is_ok());
    }
}
