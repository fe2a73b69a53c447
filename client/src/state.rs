//! What a site must not forget, in its own state directory: blobs, and the updates that wait for their round
//! to be over. Every record carries a checksum: one that changed on the disk is never taken for another.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use sheaf_common::blob::BlobId;
use sheaf_common::checked;
use sheaf_common::id::RunId;
use sheaf_common::message::{Job, TaskId};
use sheaf_common::model::{MANIFEST_MAX, Manifest};
use sheaf_common::params::{from_bytes, to_bytes};
use sheaf_common::wire;
use sheaf_transport::blobs::{BlobDir, BlobError};
use sheaf_transport::durable::{self, Outlive, UNFINISHED};

use crate::session::{Finished, Memory};
use crate::trainer::Local;

/// Version of what lies in the directory; another one is refused, never misread.
const FORMAT: &str = "2\n";

/// The file that says since which start of the machine the blobs are known to be whole.
const BOOT: &str = "boot";

/// What Linux calls the start of the machine that it has been running since (random(4)).
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The file of what is remembered of secure sums.
const MEMORY: &str = "secagg";

/// Its folders that are none of blobs.
const FOLDERS: [&str; 4] = ["updates", "models", "local", "rests"];

/// The state directory.
#[derive(Clone, Debug)]
pub struct SiteState {
    root: PathBuf,
    outlive: Outlive,
    /// Models and global parameters. The server has them too, so nobody waits until the disk has them; what a
    /// loss of power damaged goes when the directory is taken ([`SiteState::lock`]).
    pub blobs: BlobDir,
    /// What our updates consist of.
    pub deltas: BlobDir,
    /// Masked vectors: what leaves the site in a secure sum.
    pub masked: BlobDir,
}

/// The state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// The disk said no.
    #[error("cannot {what} {path}: {source}")]
    Io {
        /// What was tried.
        what: &'static str,
        /// On which file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A blob could not be stored or read.
    #[error(transparent)]
    Blob(#[from] BlobError),
    /// It was written by another version.
    #[error(
        "{0} was written by another version of sheaf-client: use that one until its runs are over, then move the directory away"
    )]
    Version(PathBuf),
    /// What was remembered of secure sums is lost.
    #[error(
        "{path} is damaged: {why}; it says which updates were given away, so bring it back from a backup, or move the whole state directory away once the runs that this site took part in are over"
    )]
    Memory {
        /// The file.
        path: PathBuf,
        /// Why.
        why: String,
    },
    /// Another daemon uses it.
    #[error("{0} is in use by another sheaf-client")]
    InUse(PathBuf),
    /// A model's folder cannot be laid out.
    #[error("the model cannot be laid out: {0}")]
    Model(String),
    /// An update is too large to be described; never with a sound model.
    #[error(transparent)]
    Encode(#[from] wire::EncodeError),
}

impl SiteState {
    /// Opens or makes the directory.
    pub fn open(root: &Path) -> Result<Self, StateError> {
        Self::open_to(Outlive::Power, root)
    }

    /// The same, and whatever is kept is to outlive this.
    pub fn open_to(outlive: Outlive, root: &Path) -> Result<Self, StateError> {
        for folder in FOLDERS.map(|name| root.join(name)) {
            fs::create_dir_all(&folder).map_err(|e| io_error("make", &folder, e))?;
        }
        let blobs = BlobDir::open_to(Outlive::Program, root.join("blobs"))?;
        let deltas = BlobDir::open_to(outlive, root.join("deltas"))?;
        let masked = BlobDir::open_to(outlive, root.join("masked"))?;
        let state = Self { root: root.to_owned(), outlive, blobs, deltas, masked };
        state.check_format()?;
        Ok(state)
    }

    /// The directory.
    pub fn root(&self) -> &Path {
        &self.root
    }

    fn check_format(&self) -> Result<(), StateError> {
        let path = self.root.join("format");
        match fs::read_to_string(&path) {
            Ok(format) if format == FORMAT => Ok(()),
            Ok(_) => Err(StateError::Version(self.root.clone())),
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(io_error("read", &path, error)),
            // The very first version said nothing of itself.
            Err(_) if self.root.join(MEMORY).exists() || !self.records()?.is_empty() => {
                Err(StateError::Version(self.root.clone()))
            }
            Err(_) => {
                self.outlive.write(&path, FORMAT.as_bytes(), 0o600).map_err(|e| io_error("write", &path, e))
            }
        }
    }

    /// Takes the directory for this process, for as long as the file lives, and clears what a crash left over.
    pub fn lock(&self) -> Result<File, StateError> {
        let path = self.root.join("lock");
        let file = File::create(&path).map_err(|e| io_error("create", &path, e))?;
        file.try_lock().map_err(|_| StateError::InUse(self.root.clone()))?;
        self.blobs.remove_unnamed()?;
        self.deltas.remove_unnamed()?;
        self.masked.remove_unnamed()?;
        let unfinished = self.root.join(format!("{MEMORY}{UNFINISHED}"));
        let records = self.records()?.into_iter().filter(|path| place(path).ends_with(UNFINISHED));
        for path in records.chain(unfinished.exists().then_some(unfinished)) {
            fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
        }
        if self.outlive == Outlive::Power {
            self.look_again(&fs::read_to_string(BOOT_ID).unwrap_or_default())?;
        }
        Ok(file)
    }

    /// Fetched blobs are verified but not synced: when the machine was started anew, the power may have been lost before the disk
    /// had them. Damaged ones go, and are fetched again. Without a name of the start it is looked every time.
    fn look_again(&self, boot: &str) -> Result<(), StateError> {
        let path = self.root.join(BOOT);
        if !boot.is_empty() && fs::read_to_string(&path).is_ok_and(|before| before == boot) {
            return Ok(());
        }
        let damaged = self.blobs.remove_damaged()?;
        if damaged > 0 {
            tracing::warn!(damaged, "blobs did not reach the disk and are fetched again");
            // They hold links to the same files.
            for folder in entries(&self.root.join("models"))? {
                fs::remove_dir_all(&folder).map_err(|e| io_error("remove", &folder, e))?;
            }
        }
        self.outlive.write(&path, boot.as_bytes(), 0o600).map_err(|e| io_error("write", &path, e))
    }

    /// The updates that were finished and not known to be over. One that cannot be read is dropped: its round
    /// will be trained again.
    pub fn updates(&self) -> Result<Vec<Finished>, StateError> {
        let mut updates = Vec::new();
        for path in self.records()? {
            match read_update(&path)? {
                Some(found) if self.deltas.length(found.update.delta).is_some() => updates.push(found),
                Some(_) | None => {
                    tracing::warn!(path = %path.display(), "an unusable update is dropped");
                    fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
                }
            }
        }
        Ok(updates)
    }

    /// Files of updates, finished or not.
    fn records(&self) -> Result<Vec<PathBuf>, StateError> {
        entries(&self.root.join("updates"))
    }

    /// Lets go of what a crash left over: blobs that belong to no update and no attempt. Nothing is under way yet.
    pub fn tidy(&self, updates: &[Finished], memory: &Memory) -> Result<(), StateError> {
        let now = SystemTime::now();
        self.deltas.remove_others(&updates.iter().map(|kept| kept.update.delta).collect(), now)?;
        self.masked.remove_others(&memory.masked().into_iter().collect::<BTreeSet<_>>(), now)?;
        Ok(())
    }

    /// Lets go of global parameters and sums that nothing `needs`, whole or half: of rounds that ended, or in which the daemon stopped,
    /// while they were fetched. Imported models stay.
    pub fn tidy_models(&self, needs: impl Fn(BlobId) -> bool) -> Result<(), StateError> {
        let all = self.blobs.list()?;
        let mut models = BTreeSet::new();
        for blob in &all {
            if self.blobs.length(*blob).is_some_and(|bytes| bytes <= MANIFEST_MAX)
                && let Ok(manifest) = Manifest::parse(&self.blobs.read(*blob)?)
            {
                models.extend(manifest.files.iter().map(|file| file.blob).chain([*blob]));
            }
        }
        let is_over = |blob: &BlobId| !models.contains(blob) && !needs(*blob);
        all.into_iter().filter(is_over).try_for_each(|blob| self.blobs.remove(blob))?;
        Ok(self.blobs.remove_partials(is_over)?)
    }

    /// Lets go of everything: the directory is as it was made.
    pub fn clear(&self) -> Result<(), StateError> {
        let mut paths = Vec::from_iter(Some(self.memory_path()).filter(|path| path.exists()));
        for folder in FOLDERS {
            paths.extend(entries(&self.root.join(folder))?);
        }
        for path in paths {
            let removed = if path.is_dir() { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
            removed.map_err(|e| io_error("remove", &path, e))?;
        }
        [&self.blobs, &self.deltas, &self.masked].into_iter().try_for_each(BlobDir::clear)?;
        Ok(())
    }

    /// Makes an update durable; its blob is already.
    pub fn keep(&self, finished: &Finished) -> Result<(), StateError> {
        self.write_record(&self.update_path(&finished.update.task), finished)
    }

    /// What was remembered of secure sums; nothing when there is no such file.
    ///
    /// A file that cannot be read is an error: forgetting what was released could release it again.
    pub fn memory(&self) -> Result<Memory, StateError> {
        let path = self.memory_path();
        match fs::read(&path) {
            Ok(bytes) => {
                checked::decode(MEMORY, &bytes).map_err(|e| StateError::Memory { path, why: e.to_string() })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Memory::default()),
            Err(error) => Err(io_error("read", &path, error)),
        }
    }

    /// Makes what must be remembered of secure sums durable. It holds secrets.
    pub fn remember(&self, memory: &Memory) -> Result<(), StateError> {
        self.write_record(&self.memory_path(), memory)
    }

    /// What the site keeps to itself of a run, as it was when so many rounds were over for it: what the newest of them left.
    /// Nothing when it has trained in none, or in those of another run of that name.
    pub fn local(&self, run: &RunId, job: &Job, completed: u32) -> Result<Local, StateError> {
        let of = self.run_of(job)?;
        let rounds = self.local_rounds(run)?;
        let Some((_, path)) = rounds.range(..=completed).next_back() else { return Ok(Local::new()) };
        let bytes = fs::read(path).map_err(|e| io_error("read", path, e))?;
        let (found, kept): (BlobId, Local) = checked::decode(&place(path), &bytes)
            .map_err(|e| io_error("understand", path, io::Error::other(e.to_string())))?;
        Ok(if found == of { kept } else { Local::new() })
    }

    /// Makes durable what a round leaves to the site, before the update that goes with it. What the round began with stays
    /// until the next: it may have to be trained again.
    pub fn keep_local(&self, task: &TaskId, job: &Job, kept: &Local) -> Result<(), StateError> {
        let path = self.root.join("local").join(format!("{}.{}", task.run, task.round));
        self.write_record(&path, &(self.run_of(job)?, kept))?;
        let rounds = self.local_rounds(&task.run)?;
        for (_, path) in rounds.range(..task.round).rev().skip(1) {
            fs::remove_file(path).map_err(|e| io_error("remove", path, e))?;
        }
        Ok(())
    }

    /// What the update before this task's left out, of as many values as it has now. Nothing when the site was not in the round
    /// before, or what travels changed since: it would not fit the model any more.
    pub fn rest(&self, task: &TaskId, job: &Job) -> Result<Vec<f32>, StateError> {
        let path = self.rest_path(&task.run, task.round.saturating_sub(1));
        let bytes = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            bytes => bytes.map_err(|e| io_error("read", &path, e))?,
        };
        let values = checked::open(&self.rest_place(&path, job)?, &bytes);
        let fitting = values.filter(|values| values.len() as u64 == job.params.bytes());
        Ok(fitting.map(from_bytes).unwrap_or_default())
    }

    /// Makes durable what a task's update leaves out, before the update that goes with it. What the round before left stays
    /// until the next: this one may have to be trained again. What other runs left goes: a site is in one round at a time, and
    /// whoever comes back after others has not been in the round before.
    pub fn keep_rest(&self, task: &TaskId, job: &Job, rest: &[f32]) -> Result<(), StateError> {
        let (new, before) =
            (self.rest_path(&task.run, task.round), self.rest_path(&task.run, task.round.saturating_sub(1)));
        for path in entries(&self.root.join("rests"))?.iter().filter(|path| **path != before) {
            fs::remove_file(path).map_err(|e| io_error("remove", path, e))?;
        }
        // Of an update that is refused nothing is made up for.
        if rest.iter().any(|value| !value.is_finite()) {
            return Ok(());
        }
        let content = checked::seal(&self.rest_place(&new, job)?, to_bytes(rest));
        self.outlive.write(&new, &content, 0o600).map_err(|e| io_error("write", &new, e))
    }

    /// Another run of the name has another place.
    fn rest_place(&self, path: &Path, job: &Job) -> Result<String, StateError> {
        Ok(format!("{} of {}", place(path), self.run_of(job)?))
    }

    fn rest_path(&self, run: &RunId, round: u32) -> PathBuf {
        self.root.join("rests").join(format!("{run}.{round}"))
    }

    /// The files of what the site keeps to itself of a run, by round.
    fn local_rounds(&self, run: &RunId) -> Result<BTreeMap<u32, PathBuf>, StateError> {
        let mut rounds = BTreeMap::new();
        for path in entries(&self.root.join("local"))? {
            let name = path.file_name().and_then(|name| name.to_str()).and_then(|name| name.rsplit_once('.'));
            if let Some((of, round)) = name
                && of == run.as_str()
                && let Ok(round) = round.parse()
            {
                rounds.insert(round, path);
            }
        }
        Ok(rounds)
    }

    /// What tells a run from another of its name.
    fn run_of(&self, job: &Job) -> Result<BlobId, StateError> {
        Ok(BlobId::of(&wire::encode_record(&(&job.spec, &job.model, &job.submitted_at))?))
    }

    /// An update serves another task: its record moves, its blob stays.
    pub fn rename(&self, from: &TaskId, finished: &Finished) -> Result<(), StateError> {
        self.keep(finished)?;
        let path = self.update_path(from);
        fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))
    }

    /// Lets go of what belongs to a task: its update, and the global parameters that it started from.
    pub fn forget(&self, task: &TaskId, global: Option<BlobId>) -> Result<(), StateError> {
        let path = self.update_path(task);
        if path.exists() {
            let found = read_update(&path)?;
            fs::remove_file(&path).map_err(|e| io_error("remove", &path, e))?;
            // Two that trained alike have one delta.
            if let Some(found) = found
                && !self.updates()?.iter().any(|other| other.update.delta == found.update.delta)
            {
                self.deltas.remove(found.update.delta)?;
            }
        }
        if let Some(global) = global {
            self.blobs.remove(global)?;
        }
        Ok(())
    }

    /// The folder of a job's imported model, laid out from its blobs, which are here.
    pub fn model_dir(&self, job: &Job) -> Result<Option<PathBuf>, StateError> {
        let Some(id) = job.model else { return Ok(None) };
        let folder = self.root.join("models").join(id.to_string());
        lay_out(&self.blobs, id, &folder)?;
        Ok(Some(folder))
    }

    fn write_record(&self, path: &Path, record: &impl serde::Serialize) -> Result<(), StateError> {
        let content = checked::encode(&place(path), record)?;
        self.outlive.write(path, &content, 0o600).map_err(|e| io_error("write", path, e))
    }

    fn memory_path(&self) -> PathBuf {
        self.root.join(MEMORY)
    }

    fn update_path(&self, task: &TaskId) -> PathBuf {
        let TaskId { run, round, attempt } = task;
        self.root.join("updates").join(format!("{run}.{round}.{attempt}"))
    }
}

/// Makes `folder` that of the imported model with this manifest, of links to its blobs, which are all there.
pub fn lay_out(blobs: &BlobDir, manifest: BlobId, folder: &Path) -> Result<(), StateError> {
    let manifest = Manifest::parse(&blobs.read(manifest)?).map_err(|e| StateError::Model(e.to_string()))?;
    fs::create_dir_all(folder).map_err(|e| io_error("make", folder, e))?;
    for file in &manifest.files {
        let path = folder.join(&file.path);
        match fs::hard_link(blobs.path(file.blob), &path) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                return Err(io_error("link", &path, error));
            }
            Ok(()) | Err(_) => {}
        }
    }
    Ok(())
}

/// Writes what only its owner may read, whole or not at all.
pub(crate) fn write_private(path: &Path, content: &[u8]) -> Result<(), StateError> {
    durable::write(path, content, 0o600).map_err(|e| io_error("write", path, e))
}

/// The update in a file; none when it is not whole, or not of this task.
fn read_update(path: &Path) -> Result<Option<Finished>, StateError> {
    let bytes = fs::read(path).map_err(|e| io_error("read", path, e))?;
    Ok(checked::decode(&place(path), &bytes).ok())
}

fn entries(folder: &Path) -> Result<Vec<PathBuf>, StateError> {
    let listed = fs::read_dir(folder).and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect());
    listed.map_err(|e| io_error("list", folder, e))
}

/// What a record's checksum calls its place: the file's name.
fn place(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

pub(crate) fn io_error(what: &'static str, path: &Path, source: io::Error) -> StateError {
    StateError::Io { what, path: path.to_owned(), source }
}

#[cfg(test)]
mod tests {
    use sheaf_common::message::Update;
    use sheaf_common::model::ManifestFile;
    use sheaf_common::params::{ParamSpec, ParamTensor};
    use sheaf_common::run::RunSpec;
    use sheaf_common::time::Timestamp;

    use super::*;

    const RUN: &str = "name = \"scans\"\nrounds = 9\nsecure_aggregation = \"off\"\n[model]\narchitecture = \"constant\"\n\
        parameters = 1\n[task]\ntype = \"none\"\ndataset = \"d\"\n";

    fn job(submitted_at: u64) -> Job {
        let spec = RunSpec::parse("run.toml", RUN).unwrap();
        let (params, global) = (ParamSpec::default(), BlobId::of(&[]));
        Job { spec, model: None, params, global, submitted_at: Timestamp(submitted_at), author: None }
    }

    fn kept(value: f32) -> Local {
        [("bn1.running_mean".to_owned(), vec![value])].into()
    }

    #[test]
    fn a_round_begins_with_what_the_site_kept_of_the_round_before_however_often_it_is_trained() {
        let folder = tempfile::tempdir().unwrap();
        let state = SiteState::open(folder.path()).unwrap();
        let (run, job): (RunId, Job) = ("scans".parse().unwrap(), job(1));
        let local = |completed| state.local(&run, &job, completed).unwrap();
        let keep = |round, value| {
            let task = TaskId { run: run.clone(), round, attempt: 1 };
            state.keep_local(&task, &job, &kept(value)).unwrap();
        };
        assert_eq!(local(0), Local::new());
        keep(1, 1.0);
        assert_eq!(local(0), Local::new(), "the first round may be trained again");
        keep(3, 3.0);
        assert_eq!(local(2), kept(1.0), "it was not asked in the second");
        keep(3, 3.5);
        assert_eq!([local(2), local(3), local(9)], [kept(1.0), kept(3.5), kept(3.5)]);
        keep(12, 12.0);
        let files = fs::read_dir(folder.path().join("local")).unwrap().count();
        assert_eq!((local(11), local(12), files), (kept(3.5), kept(12.0), 2));
    }

    #[test]
    fn what_another_run_of_the_name_left_is_not_gone_on_with() {
        let folder = tempfile::tempdir().unwrap();
        let state = SiteState::open(folder.path()).unwrap();
        let run: RunId = "scans".parse().unwrap();
        let task = TaskId { run: run.clone(), round: 1, attempt: 1 };
        state.keep_local(&task, &job(1), &kept(1.0)).unwrap();
        assert_eq!(state.local(&run, &job(2), 1).unwrap(), Local::new());
        assert_eq!(state.local(&"scans-2".parse().unwrap(), &job(1), 1).unwrap(), Local::new());
    }

    #[test]
    fn what_an_update_left_out_is_for_the_next_round_and_no_other() {
        let folder = tempfile::tempdir().unwrap();
        let state = SiteState::open(folder.path()).unwrap();
        let tensors = vec![ParamTensor { name: "w".into(), shape: vec![2] }];
        let job = Job { params: ParamSpec { tensors }, ..job(1) };
        let task = |run: &str, round| TaskId { run: run.parse().unwrap(), round, attempt: 1 };
        let rest = |run: &str, round| state.rest(&task(run, round), &job).unwrap();
        let keep = |run, round, rest: &[f32]| state.keep_rest(&task(run, round), &job, rest).unwrap();
        keep("scans", 1, &[1.0, -2.0]);
        assert_eq!(rest("scans", 2), [1.0, -2.0]);
        assert!([rest("scans", 1), rest("scans", 3), rest("other", 2)].iter().all(Vec::is_empty));
        keep("scans", 2, &[3.0, 4.0]);
        assert_eq!(rest("scans", 2), [1.0, -2.0], "the second round may be trained again");
        assert_eq!(rest("scans", 3), [3.0, 4.0]);
        keep("scans", 2, &[f32::NAN, 5.0]);
        assert!(rest("scans", 3).is_empty(), "nothing is made up for");
        keep("scans", 2, &[3.0, 4.0]);
        // Another run of the name, other parameters, other bytes.
        let later = Job { submitted_at: Timestamp(2), ..job.clone() };
        assert!(state.rest(&task("scans", 3), &later).unwrap().is_empty());
        let grown = Job { params: ParamSpec::default(), ..job.clone() };
        assert!(state.rest(&task("scans", 3), &grown).unwrap().is_empty());
        fs::write(state.rest_path(&"scans".parse().unwrap(), 2), b"torn").unwrap();
        assert!(rest("scans", 3).is_empty());
        keep("other", 1, &[0.0, 0.0]);
        assert_eq!(entries(&folder.path().join("rests")).unwrap().len(), 1);
    }

    #[test]
    fn what_a_loss_of_power_damaged_is_fetched_again() {
        let folder = tempfile::tempdir().unwrap();
        let state = SiteState::open(folder.path()).unwrap();
        state.look_again("one").unwrap();
        let [whole, torn] = [b"whole", b"torn!"].map(|bytes| state.blobs.insert(bytes).unwrap());
        let model = folder.path().join("models").join(whole.to_string());
        fs::create_dir(&model).unwrap();
        fs::write(state.blobs.path(torn), b"").unwrap();
        state.look_again("one").unwrap();
        assert_eq!(state.blobs.list().unwrap().len(), 2, "the machine runs on: nothing is lost");
        state.look_again("two").unwrap();
        assert_eq!((state.blobs.list().unwrap(), model.exists()), (vec![whole], false));
        fs::write(state.blobs.path(whole), b"").unwrap();
        state.look_again("").unwrap();
        assert_eq!(state.blobs.list().unwrap(), [], "whether it was started anew is not known");
    }

    fn finished(state: &SiteState, round: u32) -> Finished {
        let update = Update {
            task: TaskId { run: "toy".parse().unwrap(), round, attempt: 1 },
            delta: state.deltas.insert(&[7; 16]).unwrap(),
            num_examples: 4,
            train_loss: 0.1,
            global_metrics: None,
            local_metrics: None,
        };
        Finished { origin: job(1).origin(), update }
    }

    /// A write that was torn at any byte, under its own name or the one before, is no update.
    #[test]
    fn an_update_that_is_not_whole_is_dropped_and_a_whole_one_is_found() {
        let dir = tempfile::tempdir().unwrap();
        let state = SiteState::open(dir.path()).unwrap();
        let finished = finished(&state, 1);
        state.keep(&finished).unwrap();
        let path = state.update_path(&finished.update.task);
        let whole = fs::read(&path).unwrap();
        for cut in 0..whole.len() {
            fs::write(&path, &whole[..cut]).unwrap();
            assert_eq!(state.updates().unwrap(), [], "cut at {cut}");
            let mut changed = whole.clone();
            changed[cut] ^= 1;
            fs::write(&path, changed).unwrap();
            assert_eq!(state.updates().unwrap(), [], "changed at {cut}");
            fs::write(dir.path().join(format!("updates/toy.1.1{UNFINISHED}")), &whole[..cut]).unwrap();
            drop(state.lock().unwrap());
            assert_eq!(state.records().unwrap(), [] as [PathBuf; 0]);
        }
        fs::write(&path, &whole).unwrap();
        assert_eq!(state.updates().unwrap(), std::slice::from_ref(&finished));
        // It answers its own task and no other.
        fs::rename(&path, path.with_file_name("toy.2.1")).unwrap();
        assert_eq!(state.updates().unwrap(), []);
    }

    #[test]
    fn what_two_updates_share_stays_with_the_second() {
        let dir = tempfile::tempdir().unwrap();
        let state = SiteState::open(dir.path()).unwrap();
        let [first, second] = [1, 2].map(|round| finished(&state, round));
        assert_eq!(first.update.delta, second.update.delta);
        state.keep(&first).unwrap();
        state.keep(&second).unwrap();
        state.forget(&first.update.task, None).unwrap();
        assert_eq!(state.updates().unwrap(), std::slice::from_ref(&second));
        state.forget(&second.update.task, None).unwrap();
        assert_eq!(state.deltas.list().unwrap(), []);
    }

    #[test]
    fn what_is_cleared_is_as_it_was_made() {
        let [made, used] = [(); 2].map(|()| tempfile::tempdir().unwrap());
        let [_, state] = [&made, &used].map(|dir| SiteState::open(dir.path()).unwrap());
        let finished = finished(&state, 1);
        state.keep(&finished).unwrap();
        state.remember(&Memory::default()).unwrap();
        let Finished { update: Update { task, .. }, .. } = finished;
        state.keep_local(&task, &job(1), &kept(1.0)).unwrap();
        state.keep_rest(&task, &job(1), &[1.0]).unwrap();
        state.blobs.insert(b"global").unwrap();
        drop(state.masked.writer().unwrap());
        state.masked.resume(BlobId::of(b"arriving"), "server").unwrap();
        fs::create_dir(used.path().join("models/one")).unwrap();
        state.clear().unwrap();
        let [made, used] = [&made, &used].map(|dir| files(dir.path(), dir.path()));
        assert_eq!(used, made);
        assert_eq!(state.updates().unwrap(), []);
        state.deltas.insert(&[7; 16]).unwrap();
    }

    fn files(folder: &Path, root: &Path) -> BTreeSet<PathBuf> {
        let of = |path: PathBuf| {
            let below = if path.is_dir() { files(&path, root) } else { BTreeSet::new() };
            below.into_iter().chain([path.strip_prefix(root).unwrap().to_owned()])
        };
        entries(folder).unwrap().into_iter().flat_map(of).collect()
    }

    #[test]
    fn a_memory_that_is_damaged_is_refused_with_the_way_on() {
        let dir = tempfile::tempdir().unwrap();
        let state = SiteState::open(dir.path()).unwrap();
        state.remember(&Memory::default()).unwrap();
        assert_eq!(state.memory().unwrap(), Memory::default());
        let whole = fs::read(state.memory_path()).unwrap();
        for cut in 0..whole.len() {
            fs::write(state.memory_path(), &whole[..cut]).unwrap();
            let said = state.memory().unwrap_err().to_string();
            assert!(said.contains("is damaged") && said.contains("backup"), "{said}");
        }
    }

    #[test]
    fn a_directory_of_another_version_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        drop(SiteState::open(dir.path()).unwrap());
        drop(SiteState::open(dir.path()).unwrap());
        let format = dir.path().join("format");
        fs::write(&format, "1\n").unwrap();
        assert!(matches!(SiteState::open(dir.path()), Err(StateError::Version(_))));
        // As the very first version left it.
        fs::remove_file(&format).unwrap();
        fs::write(dir.path().join("updates/toy.1.1"), b"of an older form").unwrap();
        let said = SiteState::open(dir.path()).unwrap_err().to_string();
        assert!(said.contains("was written by another version of sheaf-client"), "{said}");
        assert!(dir.path().join("updates/toy.1.1").exists(), "it is left alone");
    }

    #[test]
    fn of_what_was_fetched_models_stay_and_what_is_needed() {
        let dir = tempfile::tempdir().unwrap();
        let state = SiteState::open(dir.path()).unwrap();
        let [weights, old, new] =
            [&b"weights"[..], b"old", b"new"].map(|bytes| state.blobs.insert(bytes).unwrap());
        let file = ManifestFile { path: "model.safetensors".into(), blob: weights, bytes: 7 };
        let model = state.blobs.insert(&Manifest::new("base", vec![file]).unwrap().to_json()).unwrap();
        let parts = [b"old half", b"new half"].map(|bytes| BlobId::of(bytes));
        for part in parts {
            state.blobs.resume(part, "fetch").unwrap().write(b"a").unwrap();
        }
        state.tidy_models(|blob| blob == new || blob == parts[1]).unwrap();
        let stays = [weights, old, new, model].map(|blob| state.blobs.length(blob).is_some());
        assert_eq!(stays, [true, false, true, true]);
        let arrived = parts.map(|part| state.blobs.resume(part, "fetch").unwrap().length());
        assert_eq!(arrived, [0, 1]);
    }

    #[test]
    fn what_a_crash_left_over_goes_and_what_is_needed_stays() {
        let dir = tempfile::tempdir().unwrap();
        let state = SiteState::open(dir.path()).unwrap();
        let finished = finished(&state, 1);
        let stray = state.deltas.insert(b"the record of this was never written").unwrap();
        state.masked.insert(b"of an attempt that is over").unwrap();
        state.tidy(std::slice::from_ref(&finished), &Memory::default()).unwrap();
        assert_eq!(state.deltas.list().unwrap(), [finished.update.delta]);
        assert_ne!(stray, finished.update.delta);
        assert_eq!(state.masked.list().unwrap(), []);
    }
}
