//! Where set-up keeps what it fetched: the user's cache, shared by all checkouts (`scripts/cache.py`).

use std::env;
use std::path::PathBuf;

/// Something was not fetched.
#[derive(Debug, thiserror::Error)]
#[error("{0} is not there: fetch it with `python3 scripts/fetch_data.py {1}`, as `make demo` does")]
pub(crate) struct NotFetched(PathBuf, &'static str);

/// The folder of a data set or model, by its name in `scripts/fetch_data.py`.
pub(crate) fn find(name: &'static str) -> Result<PathBuf, NotFetched> {
    let set = |variable| env::var_os(variable).filter(|value| !value.is_empty()).map(PathBuf::from);
    let cache = set("XDG_CACHE_HOME").or_else(|| Some(set("HOME")?.join(".cache"))).unwrap_or_default();
    let folder = cache.join("sheaf").join("data").join(name);
    if folder.is_dir() { Ok(folder) } else { Err(NotFetched(folder, name)) }
}
