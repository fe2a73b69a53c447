//! What the server must not forget: one SQLite file (write-ahead log, synced at every commit).
//!
//! Runs with their journal of inputs, and what people ask about: rounds, models, sites.
//! Everything that belongs together is written by one [`Store::commit`], so that a crash leaves all or nothing.

use std::collections::BTreeMap;
use std::path::Path;

use rusqlite::{Connection, OpenFlags, OptionalExtension, Transaction, params};
use sheaf_common::blob::BlobId;
use sheaf_common::checked;
use sheaf_common::id::{ClientId, Name, RunId};
use sheaf_common::metrics::Report;
use sheaf_common::model::ModelInfo;
use sheaf_common::status::{RoundOutcome, RoundRecord, Standing};
use sheaf_common::time::Timestamp;

use crate::core::{Coordinator, Input};
use crate::enrolment::Invitation;

/// Version of the tables; a file of another version is refused, never misread.
const SCHEMA_VERSION: i64 = 10;

const SCHEMA: &str = "
CREATE TABLE runs (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL UNIQUE,
    snapshot BLOB NOT NULL,
    final_metrics TEXT,
    test_metrics TEXT,
    ended INTEGER
);
CREATE TABLE journal (
    entry INTEGER PRIMARY KEY AUTOINCREMENT,
    run TEXT NOT NULL REFERENCES runs(run),
    at INTEGER NOT NULL,
    input BLOB NOT NULL
);
CREATE INDEX journal_of_run ON journal(run, entry);
CREATE TABLE rounds (
    run TEXT NOT NULL REFERENCES runs(run),
    round INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    started INTEGER NOT NULL,
    ended INTEGER NOT NULL,
    outcome TEXT NOT NULL,
    record TEXT NOT NULL,
    PRIMARY KEY (run, round, attempt)
);
CREATE TABLE models (
    name TEXT PRIMARY KEY,
    info TEXT NOT NULL
);
CREATE TABLE sites (
    site TEXT PRIMARY KEY,
    address TEXT NOT NULL,
    software TEXT NOT NULL,
    seen INTEGER NOT NULL,
    expires INTEGER NOT NULL
);
CREATE TABLE standings (
    site TEXT PRIMARY KEY,
    standing TEXT NOT NULL,
    changed_by TEXT NOT NULL,
    at INTEGER NOT NULL
);
CREATE TABLE invitations (
    site TEXT PRIMARY KEY,
    invitation BLOB NOT NULL
);
";

/// The database could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// SQLite said no.
    #[error("the server's database failed: {why}; {way_on}", why = .0, way_on = way_on(.0))]
    Sqlite(#[from] rusqlite::Error),
    /// The file is of another version.
    #[error(
        "the server's database has format {found}, but this program reads {SCHEMA_VERSION}: use the program that wrote it"
    )]
    Version {
        /// The version in the file.
        found: i64,
    },
    /// A row does not hold what it should.
    #[error("the server's database is damaged in {table}: {why}; {way_on}", way_on = RESTORE)]
    Damaged {
        /// Where.
        table: &'static str,
        /// What is wrong.
        why: String,
    },
}

/// The way on from a damaged database.
const RESTORE: &str = "move the data directory away and bring a backup back with `sheaf-server restore DIR`";

/// What the operator can do about it.
fn way_on(error: &rusqlite::Error) -> &'static str {
    use rusqlite::ErrorCode;
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => RESTORE,
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => {
            "close whatever else has the file open, then start the server again"
        }
        // A disk that is full, gone, or not ours to write; whatever else it may be, nothing was lost.
        Some(_) | None => {
            "see that the data directory can be written and has space, then start the server again: every run goes on where it was"
        }
    }
}

/// One thing to remember.
#[derive(Debug)]
pub enum Write {
    /// A new run, as it stands before its first input.
    Run(Box<Coordinator>),
    /// Something that happened to a run.
    Input {
        /// The run.
        run: RunId,
        /// When.
        at: Timestamp,
        /// What.
        input: Box<Input>,
    },
    /// The run as it stands, in place of its journal so far.
    Snapshot(Box<Coordinator>),
    /// An attempt that is over.
    Round {
        /// The run.
        run: RunId,
        /// The attempt.
        record: Box<RoundRecord>,
    },
    /// The final model's metrics.
    FinalMetrics {
        /// The run.
        run: RunId,
        /// The metrics.
        report: Box<Report>,
    },
    /// The metrics of the run's result on test splits.
    TestMetrics {
        /// The run.
        run: RunId,
        /// The metrics.
        report: Box<Report>,
    },
    /// The run is over.
    Ended {
        /// The run.
        run: RunId,
        /// When.
        at: Timestamp,
    },
    /// A model under a name.
    Model(ModelInfo),
    /// A site that connected.
    Site(SeenSite),
    /// Whether a site may take part.
    Standing {
        /// The site.
        site: ClientId,
        /// Whether it may.
        standing: Standing,
        /// The operator who said so.
        by: Name,
        /// When.
        at: Timestamp,
    },
    /// An invitation, as it stands.
    Invitation(ClientId, Box<Invitation>),
}

/// A site as it was last seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SeenSite {
    /// The site.
    pub site: ClientId,
    /// Where from.
    pub address: String,
    /// Version of its program.
    pub software: String,
    /// When.
    pub seen: Timestamp,
    /// When its certificate ends.
    pub expires: Timestamp,
}

/// The server's database.
#[derive(Debug)]
pub struct Store {
    db: Connection,
}

impl Store {
    /// Opens or makes the file.
    pub fn open(path: &Path) -> Result<Self, StoreError> {
        let db = Connection::open(path)?;
        db.pragma_update(None, "journal_mode", "wal")?;
        db.pragma_update(None, "synchronous", "full")?;
        Self::prepare(db)
    }

    /// Opens a file that is there, for reading; a server may be writing to it.
    pub fn existing(path: &Path) -> Result<Self, StoreError> {
        let db = Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY)?;
        Self { db }.checked()
    }

    /// A database that is gone with the value.
    pub fn in_memory() -> Result<Self, StoreError> {
        Self::prepare(Connection::open_in_memory()?)
    }

    fn prepare(mut db: Connection) -> Result<Self, StoreError> {
        let found: i64 = db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found == 0 {
            let transaction = db.transaction()?;
            transaction.execute_batch(SCHEMA)?;
            transaction.pragma_update(None, "user_version", SCHEMA_VERSION)?;
            transaction.commit()?;
            return Ok(Self { db });
        }
        Self { db }.checked()
    }

    /// Refuses a database of another version, and one whose pages make no sense.
    fn checked(self) -> Result<Self, StoreError> {
        let found: i64 = self.db.pragma_query_value(None, "user_version", |row| row.get(0))?;
        if found != SCHEMA_VERSION {
            return Err(StoreError::Version { found });
        }
        let verdict: String = self.db.query_row("PRAGMA integrity_check(1)", [], |row| row.get(0))?;
        if verdict != "ok" {
            return Err(damaged("its pages", verdict));
        }
        if tables(&self.db)? != tables(&Self::in_memory()?.db)? {
            return Err(damaged("its tables", "they are not those of this format"));
        }
        Ok(self)
    }

    /// Writes everything as it is at this moment to a new file in place of `path`.
    pub fn copy_to(&self, path: &Path) -> Result<(), StoreError> {
        // One that is there is an older copy; were it another's, SQLite would refuse to write over it.
        let _ = std::fs::remove_file(path);
        self.db.execute("VACUUM INTO ?", [path.to_string_lossy()])?;
        Ok(())
    }

    /// When a run ended; nothing as long as it has not.
    pub fn ended(&self, run: &RunId) -> Result<Option<Timestamp>, StoreError> {
        let at: Option<i64> =
            self.db.query_row("SELECT ended FROM runs WHERE run = ?", [run.as_str()], |row| row.get(0))?;
        Ok(at.map(|at| Timestamp(at.unsigned_abs())))
    }

    /// Remembers all of `writes` or nothing; on return they survive a crash.
    pub fn commit(&mut self, writes: &[Write]) -> Result<(), StoreError> {
        if writes.is_empty() {
            return Ok(());
        }
        let transaction = self.db.transaction()?;
        for write in writes {
            apply(&transaction, write)?;
        }
        Ok(transaction.commit()?)
    }

    /// Every run, in the order of submission, as its journal tells it.
    pub fn runs(&self) -> Result<Vec<Coordinator>, StoreError> {
        let mut runs = self.db.prepare("SELECT run, snapshot FROM runs ORDER BY number")?;
        let mut journal = self.db.prepare("SELECT at, input FROM journal WHERE run = ? ORDER BY entry")?;
        let mut rows = runs.query([])?;
        let mut coordinators = Vec::new();
        while let Some(row) = rows.next()? {
            let run: String = row.get(0)?;
            let mut coordinator: Coordinator =
                decode("runs", &run, row.get_ref(1)?.as_blob().unwrap_or_default())?;
            let mut inputs = journal.query([&run])?;
            while let Some(row) = inputs.next()? {
                let at: i64 = row.get(0)?;
                let input =
                    decode("journal", &entry(&run, at), row.get_ref(1)?.as_blob().unwrap_or_default())?;
                coordinator.handle(input, Timestamp(at.unsigned_abs()));
                // What these effects did was done before the crash; `Input::Restarted` asks anew for the rest.
                while coordinator.poll_effect().is_some() {}
            }
            coordinators.push(coordinator);
        }
        Ok(coordinators)
    }

    /// A run's attempts that are over, in order.
    pub fn history(&self, run: &RunId) -> Result<Vec<RoundRecord>, StoreError> {
        self.texts(
            "rounds",
            "SELECT record FROM rounds WHERE run = ? ORDER BY round, attempt",
            [run.as_str()],
        )
    }

    /// A run's newest attempts that are over, in order: as many as one after the other, from the newest on, are wanted.
    pub fn newest(
        &self,
        run: &RunId,
        mut wanted: impl FnMut(&RoundRecord) -> bool,
    ) -> Result<Vec<RoundRecord>, StoreError> {
        let mut statement =
            self.db.prepare("SELECT record FROM rounds WHERE run = ? ORDER BY round DESC, attempt DESC")?;
        let mut rows = statement.query([run.as_str()])?;
        let mut records = Vec::new();
        while let Some(row) = rows.next()? {
            let record = from_json("rounds", &row.get::<_, String>(0)?)?;
            if !wanted(&record) {
                break;
            }
            records.push(record);
        }
        records.reverse();
        Ok(records)
    }

    /// How many attempts of a run are over.
    pub fn attempts(&self, run: &RunId) -> Result<u64, StoreError> {
        let query = "SELECT COUNT(*) FROM rounds WHERE run = ?";
        let count: i64 = self.db.query_row(query, [run.as_str()], |row| row.get(0))?;
        Ok(count.unsigned_abs())
    }

    /// The metrics at a run's end: of the final model on validation splits, and of the result on test splits.
    pub fn last_metrics(&self, run: &RunId) -> Result<[Option<Report>; 2], StoreError> {
        let texts: Option<[Option<String>; 2]> = self
            .db
            .query_row("SELECT final_metrics, test_metrics FROM runs WHERE run = ?", [run.as_str()], |row| {
                Ok([row.get(0)?, row.get(1)?])
            })
            .optional()?;
        let [last, test] = texts.unwrap_or_default();
        let report = |text: Option<String>| text.map(|text| from_json("runs", &text)).transpose();
        Ok([report(last)?, report(test)?])
    }

    /// The global parameters after a completed round.
    pub fn global_after(&self, run: &RunId, round: u32) -> Result<Option<BlobId>, StoreError> {
        let records: Vec<RoundRecord> = self.texts(
            "rounds",
            "SELECT record FROM rounds WHERE run = ? AND round = ? AND outcome = 'completed'",
            params![run.as_str(), round],
        )?;
        Ok(records.into_iter().find_map(|record| match record.outcome {
            RoundOutcome::Completed(global) => Some(global),
            RoundOutcome::Abandoned(_) => None,
        }))
    }

    /// All imported models, by name.
    pub fn models(&self) -> Result<Vec<ModelInfo>, StoreError> {
        self.texts("models", "SELECT info FROM models ORDER BY name", [])
    }

    /// All sites ever seen, by name.
    pub fn sites(&self) -> Result<Vec<SeenSite>, StoreError> {
        let mut statement =
            self.db.prepare("SELECT site, address, software, seen, expires FROM sites ORDER BY site")?;
        let mut rows = statement.query([])?;
        let mut sites = Vec::new();
        while let Some(row) = rows.next()? {
            let site: String = row.get(0)?;
            sites.push(SeenSite {
                site: site.parse().map_err(|e| damaged("sites", e))?,
                address: row.get(1)?,
                software: row.get(2)?,
                seen: Timestamp(row.get::<_, i64>(3)?.unsigned_abs()),
                expires: Timestamp(row.get::<_, i64>(4)?.unsigned_abs()),
            });
        }
        Ok(sites)
    }

    /// The sites of which an operator has said whether they may take part.
    pub fn standings(&self) -> Result<BTreeMap<ClientId, Standing>, StoreError> {
        let mut statement = self.db.prepare("SELECT site, standing FROM standings")?;
        let mut rows = statement.query([])?;
        let mut standings = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let site: String = row.get(0)?;
            let standing = from_json("standings", &row.get::<_, String>(1)?)?;
            standings.insert(site.parse().map_err(|e| damaged("standings", e))?, standing);
        }
        Ok(standings)
    }

    /// The invitations of all sites.
    pub fn invitations(&self) -> Result<BTreeMap<ClientId, Invitation>, StoreError> {
        let mut statement = self.db.prepare("SELECT site, invitation FROM invitations")?;
        let mut rows = statement.query([])?;
        let mut invitations = BTreeMap::new();
        while let Some(row) = rows.next()? {
            let site: String = row.get(0)?;
            let invitation = decode("invitations", &site, row.get_ref(1)?.as_blob().unwrap_or_default())?;
            invitations.insert(site.parse().map_err(|e| damaged("invitations", e))?, invitation);
        }
        Ok(invitations)
    }

    fn texts<T: serde::de::DeserializeOwned>(
        &self,
        table: &'static str,
        query: &str,
        arguments: impl rusqlite::Params,
    ) -> Result<Vec<T>, StoreError> {
        let mut statement = self.db.prepare(query)?;
        let mut rows = statement.query(arguments)?;
        let mut values = Vec::new();
        while let Some(row) = rows.next()? {
            values.push(from_json(table, &row.get::<_, String>(0)?)?);
        }
        Ok(values)
    }
}

fn apply(db: &Transaction<'_>, write: &Write) -> Result<(), StoreError> {
    match write {
        Write::Run(coordinator) => {
            let run = coordinator.run().id.as_str();
            db.execute(
                "INSERT INTO runs (run, snapshot) VALUES (?, ?)",
                params![run, encode("runs", run, coordinator)?],
            )?;
        }
        Write::Input { run, at, input } => {
            let mut statement = db.prepare_cached("INSERT INTO journal (run, at, input) VALUES (?, ?, ?)")?;
            let (run, at) = (run.as_str(), millis(*at));
            statement.execute(params![run, at, encode("journal", &entry(run, at), input)?])?;
        }
        Write::Snapshot(coordinator) => {
            let run = coordinator.run().id.as_str();
            db.execute(
                "UPDATE runs SET snapshot = ? WHERE run = ?",
                params![encode("runs", run, coordinator)?, run],
            )?;
            db.execute("DELETE FROM journal WHERE run = ?", params![run])?;
        }
        Write::Round { run, record } => apply_round(db, run, record)?,
        Write::FinalMetrics { run, report } => {
            let text = to_json("runs", report)?;
            db.execute("UPDATE runs SET final_metrics = ? WHERE run = ?", params![text, run.as_str()])?;
        }
        Write::TestMetrics { run, report } => {
            let text = to_json("runs", report)?;
            db.execute("UPDATE runs SET test_metrics = ? WHERE run = ?", params![text, run.as_str()])?;
        }
        Write::Ended { run, at } => {
            db.execute("UPDATE runs SET ended = ? WHERE run = ?", params![millis(*at), run.as_str()])?;
        }
        Write::Model(info) => {
            let text = to_json("models", info)?;
            db.execute("INSERT OR REPLACE INTO models (name, info) VALUES (?, ?)", params![info.name, text])?;
        }
        Write::Standing { site, standing, by, at } => {
            db.execute(
                "INSERT OR REPLACE INTO standings (site, standing, changed_by, at) VALUES (?, ?, ?, ?)",
                params![site.as_str(), to_json("standings", standing)?, by.as_str(), millis(*at)],
            )?;
        }
        Write::Invitation(site, invitation) => {
            db.execute(
                "INSERT OR REPLACE INTO invitations (site, invitation) VALUES (?, ?)",
                params![site.as_str(), encode("invitations", site.as_str(), invitation)?],
            )?;
        }
        Write::Site(seen) => {
            db.execute(
                "INSERT OR REPLACE INTO sites (site, address, software, seen, expires) VALUES (?, ?, ?, ?, ?)",
                params![
                    seen.site.as_str(),
                    seen.address,
                    seen.software,
                    millis(seen.seen),
                    millis(seen.expires)
                ],
            )?;
        }
    }
    Ok(())
}

fn apply_round(db: &Transaction<'_>, run: &RunId, record: &RoundRecord) -> Result<(), StoreError> {
    let (run, round, attempt) = (run.as_str(), record.round, record.attempt);
    let outcome = match &record.outcome {
        RoundOutcome::Completed(_) => "completed",
        RoundOutcome::Abandoned(_) => "abandoned",
    };
    db.execute(
        "INSERT INTO rounds (run, round, attempt, started, ended, outcome, record) VALUES (?, ?, ?, ?, ?, ?, ?)",
        params![run, round, attempt, millis(record.started), millis(record.ended), outcome, to_json("rounds", record)?],
    )?;
    Ok(())
}

fn millis(at: Timestamp) -> i64 {
    i64::try_from(at.0).unwrap_or(i64::MAX)
}

/// The place of a journal's entry, which its checksum covers.
fn entry(run: &str, at: i64) -> String {
    format!("{run} {at}")
}

/// The statements that made a database's tables.
fn tables(db: &Connection) -> Result<Vec<String>, StoreError> {
    let mut statements = db.prepare("SELECT sql FROM sqlite_schema WHERE sql IS NOT NULL ORDER BY name")?;
    Ok(statements.query_map([], |row| row.get(0))?.collect::<Result<_, _>>()?)
}

// SQLite notices a page that makes no sense, not a value that is another one: that takes a checksum.
fn encode<T: serde::Serialize>(table: &'static str, place: &str, value: &T) -> Result<Vec<u8>, StoreError> {
    checked::encode(place, value).map_err(|e| damaged(table, e))
}

fn decode<T: serde::de::DeserializeOwned>(
    table: &'static str,
    place: &str,
    bytes: &[u8],
) -> Result<T, StoreError> {
    checked::decode(place, bytes).map_err(|e| damaged(table, e))
}

fn to_json<T: serde::Serialize>(table: &'static str, value: &T) -> Result<String, StoreError> {
    serde_json::to_string(value).map_err(|e| damaged(table, e))
}

fn from_json<T: serde::de::DeserializeOwned>(table: &'static str, text: &str) -> Result<T, StoreError> {
    serde_json::from_str(text).map_err(|e| damaged(table, e))
}

fn damaged(table: &'static str, why: impl std::fmt::Display) -> StoreError {
    StoreError::Damaged { table, why: why.to_string() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_database_of_another_version_is_refused_and_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sheaf.db");
        for version in [SCHEMA_VERSION - 1, SCHEMA_VERSION + 1] {
            let db = Connection::open(&path).unwrap();
            db.pragma_update(None, "user_version", version).unwrap();
            drop(db);
            for opened in [Store::open(&path), Store::existing(&path)] {
                let said = opened.unwrap_err().to_string();
                let expected = format!("the server's database has format {version}, but this program reads");
                assert!(
                    said.starts_with(&expected) && said.contains("use the program that wrote it"),
                    "{said}"
                );
            }
        }
    }

    #[test]
    fn what_is_no_database_is_refused_with_the_way_on() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("sheaf.db");
        std::fs::write(&path, [0x55; 8192]).unwrap();
        let said = Store::open(&path).unwrap_err().to_string();
        assert!(said.contains("sheaf-server restore DIR"), "{said}");
    }
}
