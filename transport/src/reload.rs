//! Certificates that change while a program runs: renewed, or under new authorities. Nobody is restarted for it.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::tls::{CredentialPaths, Credentials};

/// How often the files are looked at.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Our credentials, always as the files have them.
pub type Current = watch::Receiver<Arc<Credentials>>;

/// Follows the files from which `first` was read, for as long as somebody looks at the result.
pub fn follow(paths: CredentialPaths, first: Credentials) -> Current {
    let (sender, receiver) = watch::channel(Arc::new(first));
    let (mut seen, mut refused) = (stamp(&paths), None);
    tokio::spawn(async move {
        while !sender.is_closed() {
            tokio::time::sleep(LOOK_EVERY).await;
            let now = stamp(&paths);
            if now == seen {
                continue;
            }
            let former = sender.borrow().clone();
            match reload(&paths, &former) {
                Ok(next) => {
                    info!(identity = %next.identity, "certificate, key and authorities were read again");
                    // Whoever looked may be gone.
                    let _ = sender.send(Arc::new(next));
                    (seen, refused) = (now, None);
                }
                // Files are replaced one after the other: the next look may find them whole.
                Err(why) if refused != Some(now) => {
                    warn!(%why, "the changed certificate, key or authorities cannot be used; going on with the former");
                    refused = Some(now);
                }
                Err(_) => {}
            }
        }
    });
    receiver
}

fn reload(paths: &CredentialPaths, former: &Credentials) -> Result<Credentials, String> {
    let next = Credentials::load(paths).map_err(|e| e.to_string())?;
    if next.identity == former.identity {
        Ok(next)
    } else {
        Err(format!(
            "they are of {}, but this is {}: restart to become another",
            next.identity, former.identity
        ))
    }
}

/// What tells one version of the files from another.
fn stamp(paths: &CredentialPaths) -> [Option<(u64, u64, i64, i64)>; 3] {
    [&paths.certificate, &paths.key, &paths.ca].map(|path| {
        let meta = fs::metadata(path).ok()?;
        Some((meta.ino(), meta.size(), meta.mtime(), meta.mtime_nsec()))
    })
}
