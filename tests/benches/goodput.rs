//! How much of a line's rate a transfer gets: `cargo bench -p sheaf-tests --bench goodput`. A real server, and a
//! line in user space (`sheaf_tests::network`); the table is in `docs/operations.md`.

use std::time::{Duration, Instant};

use anyhow::Result;
use sheaf_common::id::Role;
use sheaf_tests::Federation;
use sheaf_tests::credential_paths;
use sheaf_tests::network::{Line, Relay};
use sheaf_transport::blobs::BlobDir;
use sheaf_transport::dial::Dialer;
use sheaf_transport::network::{Congestion, Network};
use sheaf_transport::tls::Credentials;
use sheaf_transport::transfer;

/// So long a transfer would take at the line's rate.
const LENGTH: Duration = Duration::from_secs(10);

/// Rate in Mbit/s, round trip in ms, share lost.
const LINES: [(f64, u64, f64); 8] = [
    (1.0, 50, 0.0),
    (10.0, 50, 0.0),
    (100.0, 50, 0.0),
    (10.0, 50, 0.001),
    (10.0, 200, 0.0),
    (10.0, 200, 0.001),
    (1.0, 200, 0.02),
    (10.0, 200, 0.02),
];

#[tokio::main]
async fn main() -> Result<()> {
    println!("| rate Mbit/s | round trip | loss | cubic | bbr |\n|---|---|---|---|---|");
    let mut federation = Federation::new()?;
    let server = federation.start_server()?;
    federation.connect(Role::Operator, "op").await?;
    let credentials =
        Credentials::load(&credential_paths(&federation.path().join("pki"), Role::Operator, "op"))?;
    for (number, (mbit, rtt, loss)) in LINES.into_iter().enumerate() {
        let line = Line {
            delay: Duration::from_millis(rtt / 2),
            loss,
            rate: Some(mbit * 1e6 / 8.0),
            queue: Duration::from_millis(rtt.max(100)),
        };
        let mut cells = Vec::new();
        for (choice, congestion) in [Congestion::Cubic, Congestion::Bbr].into_iter().enumerate() {
            let relay = Relay::to(server, line, line, number as u64)?;
            let network = Network { congestion, ..Network::default() };
            let link = Dialer::new(relay.address.to_string(), network).connect(&credentials).await?;
            // Only what was not sent before is sent.
            let seed = (number * 2 + choice) as u64;
            let length = (mbit * 1e6 / 8.0 * LENGTH.as_secs_f64()) as usize;
            let mut bytes = vec![0; length];
            let mut reader =
                blake3::Hasher::new_derive_key("goodput").update(&seed.to_le_bytes()).finalize_xof();
            reader.fill(&mut bytes);
            let blobs = BlobDir::open(federation.path().join(format!("bench-{seed}")))?;
            let blob = blobs.insert(&bytes)?;
            let start = Instant::now();
            transfer::put(&link.connection, &blobs, blob, &mut |_, _| {}).await?;
            let share = LENGTH.as_secs_f64() / start.elapsed().as_secs_f64();
            cells.push(format!("{:.0} %", share * 100.0));
            link.close().await;
        }
        println!("| {mbit} | {rtt} ms | {} % | {} |", loss * 100.0, cells.join(" | "));
    }
    Ok(())
}
