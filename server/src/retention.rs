//! What of the server's blobs something still needs, and for how long after a run: `[retention]` in `server.toml`.
//!
//! Imported models are always kept, and everything of a run that is not over. Of one that is over, its result and the
//! models after its other rounds are kept for as long as the operator says.

use std::collections::BTreeSet;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sheaf_common::blob::BlobId;
use sheaf_common::model::{BadManifest, Manifest};
use sheaf_common::status::RoundOutcome;
use sheaf_common::time::Timestamp;
use sheaf_transport::blobs::{BlobDir, BlobError};

use crate::core::Coordinator;
use crate::store::{Store, StoreError};

/// What nothing names is kept for so long: it may be on its way to a name.
const GRACE: Duration = Duration::from_secs(24 * 60 * 60);

/// How long blobs outlive their run; `None` is for ever.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Models after single rounds.
    pub rounds: Option<Duration>,
    /// The result, with the imported model that it builds on.
    pub results: Option<Duration>,
}

impl Default for Retention {
    fn default() -> Self {
        Self { rounds: Some(30 * GRACE), results: None }
    }
}

/// What must stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Needed {
    /// Models and global parameters.
    pub blobs: BTreeSet<BlobId>,
    /// Sites' updates.
    pub updates: BTreeSet<BlobId>,
}

/// What is needed cannot be told.
#[derive(Debug, thiserror::Error)]
pub enum NeededError {
    /// The database failed.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A model's list of files cannot be read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// It is no list of files.
    #[error(transparent)]
    Manifest(#[from] BadManifest),
}

impl Needed {
    /// What `runs`, which are all runs in `store`, and the imported models need at `now`.
    pub fn of(
        runs: &[Coordinator],
        store: &Store,
        blobs: &BlobDir,
        retention: Retention,
        now: Timestamp,
    ) -> Result<Self, NeededError> {
        let mut needed = Self::default();
        for model in store.models()? {
            needed.model(model.manifest, blobs)?;
        }
        for run in runs {
            needed.run(run, store, blobs, retention, now)?;
        }
        Ok(needed)
    }

    fn run(
        &mut self,
        run: &Coordinator,
        store: &Store,
        blobs: &BlobDir,
        retention: Retention,
        now: Timestamp,
    ) -> Result<(), NeededError> {
        let age = store.ended(&run.run().id)?.map(|ended| now.since(ended));
        let keeps = |limit: Option<Duration>| age.zip(limit).is_none_or(|(age, limit)| age < limit);
        self.updates.extend(run.held());
        if keeps(retention.results) {
            self.blobs.extend(store.global_after(&run.run().id, run.result())?.or(Some(run.run().initial)));
            if let Some(manifest) = run.run().model {
                self.model(manifest, blobs)?;
            }
        }
        if keeps(retention.rounds) {
            self.blobs.extend([run.run().initial, run.global()]);
            let published =
                run.record().and_then(|record| Some([record.body.sum()?.blob, record.body.model_in]));
            self.blobs.extend(published.into_iter().flatten());
            for record in store.history(&run.run().id)? {
                if let RoundOutcome::Completed(global) = record.outcome {
                    self.blobs.insert(global);
                }
            }
        }
        Ok(())
    }

    fn model(&mut self, manifest: BlobId, blobs: &BlobDir) -> Result<(), NeededError> {
        if self.blobs.insert(manifest) {
            let files = Manifest::parse(&blobs.read(manifest)?)?.files;
            self.blobs.extend(files.into_iter().map(|file| file.blob));
        }
        Ok(())
    }

    /// Removes everything else, unless it came a short while before `now`. Returns how many blobs went, and their bytes.
    pub fn keep_only(
        &self,
        blobs: &BlobDir,
        updates: &BlobDir,
        now: Timestamp,
    ) -> Result<(u64, u64), BlobError> {
        let before: SystemTime = UNIX_EPOCH + Duration::from_millis(now.0).saturating_sub(GRACE);
        let (count, bytes) = blobs.remove_others(&self.blobs, before)?;
        let (more, further) = updates.remove_others(&self.updates, before)?;
        Ok((count + more, bytes + further))
    }
}

#[cfg(test)]
mod tests {
    use ed25519_dalek::{Signer, SigningKey};
    use sheaf_common::aggregate::Finding;
    use sheaf_common::author::{self, Author};
    use sheaf_common::message::{TaskId, Update};
    use sheaf_common::model::{ManifestFile, ModelInfo};
    use sheaf_common::run::RunSpec;

    use super::*;
    use crate::core::{Input, Inspection, Run};
    use crate::journal::step;
    use crate::store::Write;
    use crate::submit::Submission;

    const DAY: u64 = 24 * 60 * 60 * 1000;

    const RUN: &str = r#"
name = "toy"
rounds = 2
secure_aggregation = "off"
model = { architecture = "constant", parameters = 4 }
task = { type = "none" }
cohort = { sites = ["a"] }
"#;

    /// A server with an imported model and a run, and the time that a test says.
    struct Bench {
        store: Store,
        blobs: BlobDir,
        updates: BlobDir,
        run: Coordinator,
        now: Timestamp,
        _dir: tempfile::TempDir,
    }

    impl Bench {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let blobs = BlobDir::open(dir.path().join("blobs")).unwrap();
            let updates = BlobDir::open(dir.path().join("updates")).unwrap();
            let mut store = Store::in_memory().unwrap();
            let weights = blobs.insert(b"weights").unwrap();
            let file = ManifestFile { path: "model.safetensors".into(), blob: weights, bytes: 7 };
            let manifest = Manifest::new("base", vec![file]).unwrap();
            let info = ModelInfo {
                name: "base".into(),
                manifest: blobs.insert(&manifest.to_json()).unwrap(),
                model_type: "mlp".into(),
                num_params: 1,
                bytes: 7,
            };
            let spec = RunSpec::parse("run.toml", RUN).unwrap();
            let key = SigningKey::from_bytes(&[7; 32]);
            let signature = key.sign(&author::statement(&spec, None, Timestamp(0))).to_bytes().into();
            let submission = Submission {
                parse: RunSpec::parse,
                file: "run.toml".into(),
                text: RUN.into(),
                author: Author { certificate: Vec::new(), signed_at: Timestamp(0), signature },
                key: key.verifying_key().to_bytes(),
            };
            let run = crate::submit::prepare(&blobs, &[], submission).unwrap();
            let run = Coordinator::new(Run {
                id: "toy".parse().unwrap(),
                federation: "test".parse().unwrap(),
                spec: run.spec,
                submitted_by: "op".parse().unwrap(),
                author: Some(run.author),
                submitted_at: Timestamp(0),
                model: None,
                phases: run.phases,
                initial: run.initial,
            });
            store.commit(&[Write::Run(Box::new(run.clone())), Write::Model(info)]).unwrap();
            let mut bench = Self { store, blobs, updates, run, now: Timestamp(1000 * DAY), _dir: dir };
            bench.feed(Input::Start);
            bench.feed(Input::Connected("a".parse().unwrap()));
            bench
        }

        fn feed(&mut self, input: Input) {
            let step = step(&mut self.run, input, self.now);
            self.store.commit(&step.writes).unwrap();
        }

        fn task(&self) -> TaskId {
            self.run.round().unwrap().task
        }

        fn answer(&mut self) -> BlobId {
            let task = self.task();
            let delta = self.updates.insert(task.to_string().as_bytes()).unwrap();
            let update = Update {
                task,
                delta,
                num_examples: 1,
                train_loss: 0.0,
                global_metrics: None,
                local_metrics: None,
            };
            let inspection = Some(Inspection { numel: 4, form: None, finding: Finding::Sound });
            self.feed(Input::Update { from: "a".parse().unwrap(), update: Box::new(update), inspection });
            delta
        }

        fn complete(&mut self) -> BlobId {
            let task = self.task();
            let global = self.blobs.insert(format!("after {task}").as_bytes()).unwrap();
            self.feed(Input::Aggregated { task, global, record: None, summed: None });
            global
        }

        /// What is left after so many days; everything on disk is as old as that.
        fn left_after(&self, days: u64, retention: Retention) -> (Vec<BlobId>, Vec<BlobId>) {
            let past = UNIX_EPOCH + Duration::from_millis(self.now.0);
            for (dir, blobs) in [(&self.blobs, self.blobs.list()), (&self.updates, self.updates.list())] {
                for blob in blobs.unwrap() {
                    dir.reader(blob).unwrap().set_modified(past).unwrap();
                }
            }
            let (runs, now) = ([self.run.clone()], Timestamp(self.now.0 + days * DAY));
            let needed = Needed::of(&runs, &self.store, &self.blobs, retention, now).unwrap();
            needed.keep_only(&self.blobs, &self.updates, now).unwrap();
            (self.blobs.list().unwrap(), self.updates.list().unwrap())
        }
    }

    #[test]
    fn a_run_that_goes_on_loses_nothing_and_one_that_is_over_keeps_what_is_asked_for() {
        let mut bench = Bench::new();
        let stray = bench.blobs.insert(b"nobody names this").unwrap();
        let held = bench.answer();
        let strict = Retention { rounds: Some(Duration::ZERO), results: Some(Duration::ZERO) };
        assert!(bench.left_after(0, strict).0.contains(&stray), "it may be on its way to a name");
        let before = bench.blobs.list().unwrap();
        let (blobs, updates) = bench.left_after(10_000, strict);
        assert_eq!(blobs.len() + 1, before.len());
        assert!(!blobs.contains(&stray));
        assert_eq!(updates, [held]);

        let first = bench.complete();
        bench.answer();
        let last = bench.complete();
        assert!(bench.run.state().0.is_final());
        let (blobs, updates) = bench.left_after(29, Retention::default());
        assert!(blobs.contains(&first) && blobs.contains(&bench.run.run().initial));
        assert_eq!(updates, []);
        let (blobs, _) = bench.left_after(30, Retention::default());
        let model = bench.store.models().unwrap().remove(0).manifest;
        let mut expected = vec![last, model, BlobId::of(b"weights")];
        expected.sort();
        assert_eq!(blobs, expected);
        let (blobs, _) = bench.left_after(100, strict);
        expected.retain(|blob| *blob != last);
        assert_eq!(blobs, expected, "an imported model stays for ever");
    }

    #[test]
    fn the_newest_attempts_come_first_and_the_rest_is_counted() {
        let mut bench = Bench::new();
        let task = bench.task();
        bench.answer();
        bench.feed(Input::AggregationFailed { task, why: "a model is gone".into() });
        bench.answer();
        let first = bench.complete();
        bench.answer();
        let last = bench.complete();
        let run = &bench.run.run().id;
        let attempts = |count: usize| {
            let mut left = count;
            let wanted = |_: &_| left.checked_sub(1).map(|less| left = less).is_some();
            let records = bench.store.newest(run, wanted).unwrap();
            records.iter().map(|record| (record.round, record.attempt)).collect::<Vec<_>>()
        };
        assert_eq!(attempts(2), [(1, 2), (2, 1)]);
        assert_eq!(attempts(9), [(1, 1), (1, 2), (2, 1)]);
        assert_eq!(bench.store.attempts(run).unwrap(), 3);
        let after = |round| bench.store.global_after(run, round).unwrap();
        assert_eq!([1, 2, 3].map(after), [Some(first), Some(last), None]);
    }

    #[test]
    fn nothing_goes_when_what_is_needed_cannot_be_told() {
        let bench = Bench::new();
        let model = bench.store.models().unwrap().remove(0).manifest;
        bench.blobs.remove(model).unwrap();
        let runs = [bench.run.clone()];
        let needed = Needed::of(&runs, &bench.store, &bench.blobs, Retention::default(), bench.now);
        assert!(matches!(needed, Err(NeededError::Blob(BlobError::Missing(_)))));
    }
}
