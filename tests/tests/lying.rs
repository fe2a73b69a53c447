//! A server that lies about a round's sum, end to end: the real server, whose memory of the round was doctored, with
//! its real key. The sites see for themselves, decline by name, and train on nothing that did not come of the sum.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use rusqlite::Connection;
use sheaf_common::blob::BlobId;
use sheaf_common::checked;
use sheaf_common::id::Role;
use sheaf_common::record::{MadeOf, Record, SignedRecord, Sum};
use sheaf_common::secagg::message::Signature;
use sheaf_common::status::{RunState, RunStatus};
use sheaf_common::wire;
use sheaf_tests::perceptron::{self, Perceptron};
use sheaf_tests::{Federation, Operator, Part, credential_paths, wait_for};
use sheaf_transport::blobs::BlobDir;
use sheaf_transport::tls::Credentials;

const VALUES: usize = 5000;

const RUN: &str = r#"
name = "toy"
rounds = 2
model = { architecture = "constant", parameters = 5000 }
task = { type = "none" }
[secagg]
stage_timeout = "2s"
[cohort]
min_sites = 4
min_updates = 2
round_timeout = "60s"
max_attempts = 1
"#;

/// A server that waits for a fourth site before round 2, stopped, and the honest record of round 1.
struct Stopped {
    federation: Federation,
    record: SignedRecord,
}

impl Stopped {
    async fn after_one_round() -> Result<Self> {
        Self::after_one_round_of(RUN, "", |_| Ok(())).await
    }

    /// The same of another run, on these data, before which something is done.
    async fn after_one_round_of(
        text: &str,
        csv: &str,
        before: impl FnOnce(&Federation) -> Result<()>,
    ) -> Result<Self> {
        let mut federation = Federation::new()?;
        federation.start_server()?;
        before(&federation)?;
        for name in ["a", "b", "c"] {
            federation.start_site_by("min_updates = 2\n", name, csv, "")?;
        }
        let mut fourth = federation.connect_site("d").await?;
        let mut operator = federation.connect(Role::Operator, "op").await?;
        let run = operator.submit(text).await?;
        let task = fourth.task().await?;
        let nothing = vec![0.0; usize::try_from(task.job.params.numel())?];
        fourth.take_part(&task.id, &nothing, Part::Vector).await?;
        // It is in the sum and gone before its shares are asked for: the next round waits for it.
        drop(fourth);
        let status = loop {
            let status = operator.status(&run).await?;
            if status.summary.completed_rounds == 1 {
                break status;
            }
        };
        let record = *status.history[0].record.clone().context("nothing was published of the round")?;
        let sum = record.body.sum().context("the round was not summed securely")?;
        assert_eq!(sum.survivors.len(), 4);
        federation.terminate_server()?;
        Ok(Self { federation, record })
    }

    fn data(&self) -> PathBuf {
        self.federation.path().join("server")
    }

    fn blobs(&self) -> Result<BlobDir> {
        Ok(BlobDir::open(self.data().join("blobs"))?)
    }

    /// A copy of a blob with one bit of its byte number `at` flipped.
    fn altered(&self, blob: BlobId, at: usize) -> Result<BlobId> {
        let mut bytes = self.blobs()?.read(blob)?;
        bytes[at] ^= 1;
        Ok(self.blobs()?.insert(&bytes)?)
    }

    /// Puts a lie, signed like the truth, in the place of the truth.
    fn doctor(&self, lie: &Record) -> Result<()> {
        let hub =
            Credentials::load(&credential_paths(&self.federation.path().join("pki"), Role::Server, "hub"))?;
        let signature = Signature::from(hub.sign(&lie.signable())?);
        let truth = &self.record.body;
        replace(
            &self.data().join("sheaf.db"),
            &[
                (wire::encode(&truth.model_out)?, wire::encode(&lie.model_out)?),
                (wire::encode(&truth.made_of)?, wire::encode(&lie.made_of)?),
                (wire::encode(&self.record.signature)?, wire::encode(&signature)?),
            ],
        )
    }

    /// Starts the server again, brings the fourth site back, and waits until every other site has seen this for itself: the run
    /// fails when the last of them has said so, and none trains on it.
    async fn assert_seen(mut self, why: &str) -> Result<()> {
        self.federation.start_server()?;
        let mut operator = self.federation.connect(Role::Operator, "op").await?;
        let _fourth = self.federation.connect_site("d").await?;
        let status = end(&mut operator).await?;
        assert_eq!(status.summary.state, RunState::Failed, "{:?}", status.summary);
        assert_eq!(status.summary.completed_rounds, 1);
        let sites = ["a", "b", "c"];
        for name in sites {
            wait_for(&format!("{name} to see that {why}"), || {
                self.federation.log(name).contains(why).then_some(())
            })?;
        }
        for name in sites {
            let log = self.federation.log(name);
            let trained =
                |round: &str| log.lines().any(|line| line.contains(" trained ") && line.contains(round));
            assert_eq!([trained("toy round 1"), trained("toy round 2")], [true, false], "{name}: {log}");
        }
        Ok(())
    }
}

async fn end(operator: &mut Operator) -> Result<RunStatus> {
    operator.wait_for_end(&"toy".parse()?).await
}

/// Replaces bytes by others of the same length wherever the server's database remembers a run in binary, as a server that
/// lies would have written them.
fn replace(database: &Path, pairs: &[(Vec<u8>, Vec<u8>)]) -> Result<()> {
    let db = Connection::open(database)?;
    let mut replaced = vec![0; pairs.len()];
    // The places that the records' checksums cover.
    let tables = [("runs", "snapshot", "run"), ("journal", "input", "run || ' ' || at")];
    for (table, column, place) in tables {
        let mut rows = db.prepare(&format!("SELECT rowid, {place}, {column} FROM {table}"))?;
        let rows: Vec<(i64, String, Vec<u8>)> = rows
            .query_map([], |row| Ok((row.get(0)?, row.get(1)?, row.get(2)?)))?
            .collect::<Result<_, _>>()?;
        for (row, place, mut bytes) in rows {
            bytes.truncate(bytes.len() - checked::CHECKSUM);
            for ((old, new), count) in pairs.iter().zip(&mut replaced) {
                anyhow::ensure!(old.len() == new.len(), "the lie is longer than the truth");
                while let Some(at) = bytes.windows(old.len()).position(|window| window == old && old != new) {
                    bytes[at..at + new.len()].copy_from_slice(new);
                    *count += 1;
                }
            }
            let sealed = checked::seal(&place, bytes);
            db.execute(&format!("UPDATE {table} SET {column} = ?1 WHERE rowid = ?2"), (sealed, row))?;
        }
    }
    let changed = pairs.iter().zip(&replaced).all(|((old, new), count)| old == new || *count > 0);
    anyhow::ensure!(changed, "the server remembers the round in another form");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn the_truth_is_checked_by_every_site_and_the_run_goes_on() -> Result<()> {
    let Stopped { mut federation, record } = Stopped::after_one_round().await?;
    federation.start_server()?;
    let mut operator = federation.connect(Role::Operator, "op").await?;
    let mut fourth = federation.connect_site("d").await?;
    let task = fourth.task().await?;
    assert_eq!(task.record.as_deref(), Some(&record));
    fourth.take_part(&task.id, &vec![0.0; VALUES], Part::Whole).await?;
    let status = end(&mut operator).await?;
    assert_eq!(status.summary.state, RunState::Completed, "{:?}", status.summary);
    let chained = status.history[1].record.as_ref();
    assert_eq!(chained.context("no record")?.body.previous, Some(record.body.digest()));
    // The server keeps the newest sum only.
    let sum = record.body.sum().context("no sum")?.blob;
    let blobs = BlobDir::open(federation.path().join("server/blobs"))?;
    assert_eq!(blobs.length(sum), None);
    for name in ["a", "b", "c"] {
        let log = federation.log(name);
        assert!(log.contains("the published sum is what the sites sent"), "{log}");
        // What served the check is gone.
        let blobs = BlobDir::open(federation.path().join(name).join("blobs"))?;
        assert_eq!((blobs.length(sum), blobs.length(record.body.model_in)), (None, None));
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_model_that_does_not_follow_from_the_sum_is_refused_by_every_site() -> Result<()> {
    let stopped = Stopped::after_one_round().await?;
    let model_out = stopped.altered(stopped.record.body.model_out, 4 * VALUES - 2)?;
    stopped.doctor(&Record { model_out, ..stopped.record.body.clone() })?;
    stopped.assert_seen("the model is not the one that follows from the published sum").await
}

#[tokio::test(flavor = "multi_thread")]
async fn a_sum_that_is_not_what_the_sites_sent_is_refused_by_every_site() -> Result<()> {
    let stopped = Stopped::after_one_round().await?;
    let truth = stopped.record.body.sum().context("no sum")?;
    let blob = stopped.altered(truth.blob, 17)?;
    let made_of = MadeOf::Sum(Sum { blob, ..truth.clone() });
    stopped.doctor(&Record { made_of, ..stopped.record.body.clone() })?;
    stopped.assert_seen("the published sum is not the sum of what the sites sent").await
}

/// The server has nothing to hide in what it puts in between the trained parameters: every site has the imported model.
#[tokio::test(flavor = "multi_thread")]
async fn a_lie_about_what_begins_to_be_trained_is_refused_by_every_site() -> Result<()> {
    let phases = r#"unfreeze = [{ round = 1, trainable = "head" }, { round = 2, trainable = "last:1" }]"#;
    let cohort = "min_sites = 4\nmin_updates = 2\nround_timeout = \"60s\"\nmax_attempts = 1\n[secagg]\nstage_timeout = \"2s\"";
    let text = perceptron::run(2, phases, cohort);
    let import = |federation: &Federation| Perceptron::import(federation).map(drop);
    let stopped = Stopped::after_one_round_of(&text, &perceptron::csv(0), import).await?;
    // The hidden layer, which the round did not train, comes first.
    let model_out = stopped.altered(stopped.record.body.model_out, 2)?;
    stopped.doctor(&Record { model_out, ..stopped.record.body.clone() })?;
    stopped.assert_seen("the model is not the one that follows from the published sum").await
}
