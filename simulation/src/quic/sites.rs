//! The clients: each the daemon that runs at a site, with a thread of its own, of which only so many train at a time.

use std::num::NonZeroUsize;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use sheaf_client::config::SiteConfig;
use sheaf_client::device;
use sheaf_client::session::{Outcome, Task, WorkFailure};
use sheaf_client::trainer::Watch;
use sheaf_client::worker::{self, Perform, Site};
use sheaf_common::id::{ClientId, Role};
use sheaf_transport::network::{Choice, Network};

use super::{Live, QuicError};
use crate::client;
use crate::data::Examples;

/// A client that waits for its turn looks so often whether it is still to train.
const LOOK: Duration = Duration::from_millis(50);

/// What a client's daemon reads of itself.
pub(super) fn config(live: &Live<'_>, name: &ClientId, server: &str) -> Result<SiteConfig, QuicError> {
    Ok(SiteConfig {
        server: server.to_owned(),
        state_dir: live.dir.join("sites").join(name.as_str()),
        device: live.setting.simulation.device,
        network: Network { transport: Choice::Quic, ..Network::default() },
        identity: live.identities.files(Role::Site, &name.0)?,
        policy: client::policy(),
        datasets: std::collections::BTreeMap::new(),
    })
}

/// Places to train, for all clients together: each has a model in memory for as long as it has one.
#[derive(Clone)]
pub(super) struct Workers {
    examples: Arc<Examples>,
    places: Arc<Places>,
}

struct Places {
    free: Mutex<usize>,
    freed: Condvar,
}

impl Workers {
    pub(super) fn new(workers: NonZeroUsize, examples: Arc<Examples>) -> Self {
        let places = Arc::new(Places { free: Mutex::new(workers.get()), freed: Condvar::new() });
        Self { examples, places }
    }

    /// How a client does its tasks.
    pub(super) fn perform(&self, client: u32) -> Perform {
        let Self { examples, places } = self.clone();
        Arc::new(move |site: &Site, task: &Task, watch: &dyn Watch| {
            let Some(_place) = places.take(watch) else { return Err(WorkFailure::Cancelled) };
            // As in memory: the order in which a sum is made depends on how many make it.
            device::use_one_core();
            let opener = |site: &Site, task: &Task, folder: Option<&std::path::Path>| {
                examples.open(client, site, task, folder)
            };
            worker::once(site, task, &opener, watch) as Result<Outcome, WorkFailure>
        })
    }
}

impl Places {
    /// A place, when one is free; nothing if nobody wants the work any more.
    fn take(&self, watch: &dyn Watch) -> Option<Place<'_>> {
        let mut free = self.lock();
        while *free == 0 {
            if watch.is_cancelled() {
                return None;
            }
            (free, _) = self.freed.wait_timeout(free, LOOK).unwrap_or_else(PoisonError::into_inner);
        }
        *free -= 1;
        Some(Place(self))
    }

    fn lock(&self) -> MutexGuard<'_, usize> {
        self.free.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place, until it is dropped.
struct Place<'a>(&'a Places);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        *self.0.lock() += 1;
        self.0.freed.notify_one();
    }
}
