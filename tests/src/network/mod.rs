//! Networks of the tests' own making, in user space: a firewall that lets only TCP through, an HTTP proxy, and a bad
//! line for UDP. Each runs on a thread with a runtime of its own, so that a test may block, and ends with its value.

mod tcp;
mod udp;

use std::future::Future;
use std::io;
use std::thread::JoinHandle;

use anyhow::Result;
use tokio::sync::oneshot;

pub use tcp::{Firewall, Proxy};
pub use udp::{Line, Relay};

/// Work on a thread of its own, until the value is dropped.
struct Worker {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Runs what `work` makes inside of the new runtime; returns when that is made.
    fn start<T: Send + 'static, F: Future<Output = ()>>(
        work: impl FnOnce() -> io::Result<(T, F)> + Send + 'static,
    ) -> Result<(T, Self)> {
        let (stop, stopped) = oneshot::channel();
        let (ready, made) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                match work() {
                    Ok((value, future)) => {
                        let _ = ready.send(Ok(value));
                        tokio::select! { () = future => {}, _ = stopped => {} }
                    }
                    Err(error) => drop(ready.send(Err(error))),
                }
            });
        });
        let value = made.recv()??;
        Ok((value, Self { stop: Some(stop), thread: Some(thread) }))
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        drop(self.stop.take());
        // A panic of the thread has been printed already.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

/// A socket of std's that tokio can take.
fn nonblocking<T>(socket: T, set: impl FnOnce(&T, bool) -> io::Result<()>) -> io::Result<T> {
    set(&socket, true)?;
    Ok(socket)
}
