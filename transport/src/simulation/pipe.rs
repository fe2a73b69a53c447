//! A slow way for bytes in order, as TCP is one.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, ReadHalf, WriteHalf, duplex, split};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::connection::tcp::UNSENT;

/// Bytes carried at a time.
const SEGMENT: usize = 1460;

/// Both ends of a way that carries `rate` bytes per second in each direction for as long as `works` is true. Before
/// each end a kernel holds a little.
pub(super) fn pipe(rate: f64, works: &watch::Sender<bool>) -> (DuplexStream, DuplexStream) {
    let (ours, a) = duplex(UNSENT as usize);
    let (theirs, b) = duplex(UNSENT as usize);
    let ((from_a, to_a), (from_b, to_b)) = (split(a), split(b));
    tokio::spawn(carry(from_a, to_b, rate, works.subscribe()));
    tokio::spawn(carry(from_b, to_a, rate, works.subscribe()));
    (ours, theirs)
}

async fn carry(
    mut from: ReadHalf<DuplexStream>,
    mut to: WriteHalf<DuplexStream>,
    rate: f64,
    mut works: watch::Receiver<bool>,
) {
    let mut segment = [0; SEGMENT];
    while let Ok(length @ 1..) = from.read(&mut segment).await {
        sleep(Duration::from_secs_f64(length as f64 / rate)).await;
        if works.wait_for(|works| *works).await.is_err() || to.write_all(&segment[..length]).await.is_err() {
            break;
        }
    }
    // The other side may have gone first.
    let _ = to.shutdown().await;
}
