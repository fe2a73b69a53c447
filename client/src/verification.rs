//! Seeing for ourselves: the published sum is the sum of what the sites sent, and the new model is the one that
//! follows from it. What a site trains on next it has made itself. Before round 1 it follows from the run and its model.

use std::fs::File;
use std::os::unix::fs::FileExt;

use sheaf_common::aggregate::{FedAvg, ServerOptimizer};
use sheaf_common::message::Job;
use sheaf_common::model::phases;
use sheaf_common::params::{VALUE_BYTES, from_bytes, to_bytes};
use sheaf_common::record::Record;
use sheaf_common::secagg::client::{Witness, WrongSum};
use sheaf_common::secagg::layout::{HEAD, Head};
use sheaf_common::secagg::mask::Tally;
use sheaf_common::secagg::outcome;
use sheaf_common::secagg::ring::unpack_add;
use sheaf_transport::base::{BadBase, BaseModel, finish_round, initial_id};
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::chunks::in_order;

use crate::config::Policy;
use crate::session::Task;

/// Values per chunk.
const CHUNK: usize = 1 << 18;

/// The server's account of a round does not hold, or cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum Unverified {
    /// The updates were sent in the open.
    #[error("the record of the round before names no sum")]
    NoSum,
    /// Not what the sites sent.
    #[error(transparent)]
    Sum(#[from] WrongSum),
    /// It has not the length that the model asks for.
    #[error("the published sum has not the length of the model's")]
    Length,
    /// The server names others than the run's.
    #[error("the task's parameters are not those that its run trains in this round")]
    Params,
    /// They are more than the site sends.
    #[error("{0}")]
    Policy(String),
    /// Round 1 starts from others.
    #[error("what round 1 starts from does not follow from the run and its model")]
    Start,
    /// Not what the sum gives.
    #[error("the model is not the one that follows from the published sum")]
    Model,
    /// What the next round begins to train could not be had.
    #[error("the base model: {0}")]
    Base(#[from] BadBase),
    /// The disk said no.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// A blob could not be read to its end.
    #[error("cannot read what the round was made of: {0}")]
    Read(#[from] std::io::Error),
}

impl Unverified {
    /// One sentence for the operator, without a path of the site's.
    pub fn for_operator(&self) -> String {
        match self {
            Self::NoSum
            | Self::Sum(_)
            | Self::Length
            | Self::Params
            | Self::Policy(_)
            | Self::Start
            | Self::Model => self.to_string(),
            Self::Base(_) => "the imported model cannot be used; the site's log says why".into(),
            Self::Blob(_) | Self::Read(_) => "the site's disk failed; its log says how".into(),
        }
    }
}

/// What a round trains follows from the run and its model, whatever the server says, and so does what all rounds send, of which the
/// site's policy may have a limit. The model's files are here.
pub fn check_plan(blobs: &BlobDir, task: &Task, policy: &Policy) -> Result<(), Unverified> {
    let (job, rounds) = (task.job(), task.job().spec.rounds);
    let base = base(blobs, job)?;
    let phases = phases(&job.spec, base.as_ref().map(|base| &base.config)).map_err(BadBase::from)?;
    if *phases.after(task.id().completed()) != job.params {
        return Err(Unverified::Params);
    }
    if job.spec.is_survey() {
        return Ok(());
    }
    let bytes =
        (0..rounds).fold(0, |sum: u64, completed| sum.saturating_add(phases.after(completed).bytes()));
    policy.bytes_objection(rounds, bytes).map_or(Ok(()), |why| Err(Unverified::Policy(why)))
}

/// So does what it trains from, before round 1. Blocks.
pub fn check_start(blobs: &BlobDir, task: &Task) -> Result<(), Unverified> {
    let job = task.job();
    if task.id().completed() > 0 || job.spec.is_survey() {
        return Ok(());
    }
    let start = initial_id(blobs, &job.spec, base(blobs, job)?.as_ref(), &job.params)?;
    if start == job.global { Ok(()) } else { Err(Unverified::Start) }
}

fn base(blobs: &BlobDir, job: &Job) -> Result<Option<BaseModel>, BadBase> {
    job.model.map(|model| BaseModel::open(blobs, model)).transpose()
}

/// Checks the sum of the round before and makes of it, in `blobs`, the parameters that `job` starts from. Blocks.
pub fn rebuild(blobs: &BlobDir, job: &Job, record: &Record, witness: &Witness) -> Result<(), Unverified> {
    let published = record.sum().ok_or(Unverified::NoSum)?;
    let params = &witness.params;
    let ring_bytes = params.encoding.ring_bytes();
    let (values, ring) = (params.layout.values(), u64::from(ring_bytes));
    if blobs.length(published.blob) != Some(params.layout.sum_bytes(ring_bytes)) {
        return Err(Unverified::Length);
    }
    let (sum, before) = (blobs.reader(published.blob)?, blobs.reader(record.model_in)?);
    let head = head(&read(&sum, values * ring, 8 * HEAD)?);
    let (check, optimizer) = (witness.check(), FedAvg { learning_rate: job.spec.server.learning_rate });
    let mut writer = blobs.writer()?;
    let mut tally = Tally::default();
    let make = |start: u64, len: usize| {
        let mut sums = vec![0; len];
        unpack_add(&read(&sum, start * ring, len * ring as usize)?, ring_bytes, &mut sums);
        let mut values = from_bytes(&read(&before, start * VALUE_BYTES, len * VALUE_BYTES as usize)?);
        let mean = outcome::mean(params, &head, start, &sums);
        optimizer.step(&mut values, &mean);
        Ok::<_, Unverified>((to_bytes(&values), check.chunk(start, &sums)))
    };
    in_order(values, CHUNK, make, |_, (bytes, part)| {
        tally.add(&part);
        Ok(writer.write(&bytes)?)
    })?;
    check.finish(tally, &head, published.survivors.len())?;
    let made = finish_round(writer, blobs, job, record.task.round)?;
    if made != job.global {
        blobs.remove(made)?;
        return Err(Unverified::Model);
    }
    Ok(blobs.remove(published.blob)?)
}

fn head(bytes: &[u8]) -> Head {
    let (slots, _) = bytes.as_chunks::<8>();
    Head::from_slots(std::array::from_fn(|at| slots.get(at).map_or(0, |slot| u64::from_le_bytes(*slot))))
}

fn read(file: &File, offset: u64, len: usize) -> Result<Vec<u8>, std::io::Error> {
    let mut bytes = vec![0; len];
    file.read_exact_at(&mut bytes, offset)?;
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use sheaf_common::blob::BlobId;
    use sheaf_common::message::{TaskId, TrainTask};
    use sheaf_common::model::{CONFIG_FILE, Manifest, ManifestFile, WEIGHTS_FILE};
    use sheaf_common::run::RunSpec;
    use sheaf_common::time::Timestamp;

    use super::*;

    const RUN: &str = r#"
name = "hearts"
rounds = 3
secure_aggregation = "off"
[model]
name = "base"
unfreeze = [{ round = 1, trainable = "head" }, { round = 3, trainable = "all" }]
[task]
type = "tabular-classification"
dataset = "hearts"
label = "ill"
labels = ["no", "yes"]
features = [{ column = "age", type = "numeric" }]
"#;

    /// A perceptron without a tensor, which is enough to plan with.
    fn import(blobs: &BlobDir) -> BlobId {
        let config = br#"{"model_type": "mlp", "hidden": [3], "inputs": 2, "labels": ["no", "yes"],
            "features": [{"column": "age", "type": "numeric", "mean": 0.0, "std": 1.0}]}"#;
        let file = |path: &str, content: &[u8]| {
            let (blob, bytes) = (blobs.insert(content).unwrap(), content.len() as u64);
            ManifestFile { path: path.into(), blob, bytes }
        };
        let files = vec![file(CONFIG_FILE, config), file(WEIGHTS_FILE, b"\x02\0\0\0\0\0\0\0{}")];
        blobs.insert(&Manifest::new("base", files).unwrap().to_json()).unwrap()
    }

    #[test]
    fn what_a_round_does_not_train_is_not_trained_in_it() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(folder.path()).unwrap();
        let spec = RunSpec::parse("run.toml", RUN).unwrap();
        let model = import(&blobs);
        let base = BaseModel::open(&blobs, model).unwrap();
        let planned = phases(&spec, Some(&base.config)).unwrap();
        let task = |round, completed| {
            let params = planned.after(completed).clone();
            let job = Job {
                spec: spec.clone(),
                model: Some(model),
                params,
                global: model,
                submitted_at: Timestamp(0),
                author: None,
            };
            let id = TaskId { run: "hearts".parse().unwrap(), round, attempt: 1 };
            Task::Train(Box::new(TrainTask { id, job, record: None, time_left_ms: 0 }))
        };
        let check = |round, completed| check_plan(&blobs, &task(round, completed), &Policy::default());
        assert!(check(1, 0).is_ok() && check(2, 0).is_ok() && check(3, 2).is_ok());
        for (round, completed) in [(1, 2), (2, 2), (3, 0)] {
            let said = check(round, completed).unwrap_err().for_operator();
            assert_eq!(said, "the task's parameters are not those that its run trains in this round");
        }
        // Two weights and a bias for each of three hidden units, and then as many for each of two labels.
        let (head, all) = ((3 * 2 + 2) * 4, (3 * 2 + 2 + 2 * 3 + 3) * 4);
        let most = |bytes| Policy { max_bytes: Some(bytes), ..Policy::default() };
        for (round, completed) in [(1, 0), (3, 2)] {
            let check = |bytes| check_plan(&blobs, &task(round, completed), &most(bytes));
            assert!(check(head + head + all).is_ok());
            let said = check(head + head + all - 1).unwrap_err().for_operator();
            assert!(said.starts_with("its updates in 3 rounds take 132 bytes"), "{said}");
        }
    }

    #[test]
    fn round_one_starts_from_what_the_run_says() {
        let folder = tempfile::tempdir().unwrap();
        let blobs = BlobDir::open(folder.path()).unwrap();
        let text = "name = \"toy\"\nrounds = 2\nmodel = { architecture = \"constant\", parameters = 5 }\ntask = { type = \"none\" }\n";
        let spec = RunSpec::parse("run.toml", text).unwrap();
        let params = phases(&spec, None).unwrap().after(0).clone();
        let task = |round, global: &[f32]| {
            let global = BlobId::of(&to_bytes(global));
            let (spec, params) = (spec.clone(), params.clone());
            let job = Job { spec, model: None, params, global, submitted_at: Timestamp(0), author: None };
            let id = TaskId { run: "toy".parse().unwrap(), round, attempt: 1 };
            Task::Train(Box::new(TrainTask { id, job, record: None, time_left_ms: 0 }))
        };
        check_start(&blobs, &task(1, &[0.0; 5])).unwrap();
        let other = task(1, &[0.0, 0.0, 0.0, 0.0, 1e-3]);
        assert!(matches!(check_start(&blobs, &other), Err(Unverified::Start)));
        // What round 2 starts from is made of the sum.
        check_start(&blobs, &task(2, &[1.0; 5])).unwrap();
    }
}
