//! A whole federation without network, clock or processes. The coordinator, its journal, the sites' sessions and state
//! directories, the trainer, masks, sums and checks are the real ones; messages, transfers and time are a test's to break.
//!
//! A [`World`] checks as it goes: a completed round's model is the mean of exactly the updates that its record names as
//! accepted, nobody trains twice for a task, and the journal brings back the run as it was.

pub mod fuse;
mod hub;
pub mod op;
mod record;
mod site;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sheaf_client::config::{DatasetConfig, SiteConfig};
use sheaf_common::id::Role;
use sheaf_common::status::{RunState, Standing};
use sheaf_common::time::Timestamp;
use sheaf_server::core::{Effect, Input};
use sheaf_server::pki::{self, IssueOptions};
use sheaf_server::store::Write;
use sheaf_sim::hub::{OPERATOR, Work, message};
use sheaf_transport::tls::Credentials;
use tempfile::TempDir;

use crate::credential_paths;
use hub::{Fed, Hub};
use op::Op;
use record::Account;
use site::Site;

/// The sites of every simulated federation.
pub const SITES: [&str; 4] = ["a", "b", "c", "d"];

/// Rounds of every simulated run.
pub const ROUNDS: u32 = 2;

/// Steps after which a run that nothing disturbs must have come to its end.
const CALM: usize = 10_000;

/// How a federation is simulated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Setting {
    /// Whether updates are encrypted.
    pub secure: bool,
    /// Whether the database is in memory, and outlives the server's crashes there.
    pub in_memory: bool,
}

/// A federation with one run.
pub struct World {
    /// The server.
    pub hub: Hub,
    /// The sites.
    pub sites: Vec<Site>,
    standings: Vec<Standing>,
    now: Timestamp,
    account: Account,
    _dir: TempDir,
}

/// How a run ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct End {
    /// Its state.
    pub state: RunState,
    /// Its final model.
    pub model: Vec<u8>,
    /// Whether every round was completed with every site's update.
    pub undisturbed: bool,
}

/// Lets ops happen, then lets the run come to its end.
pub fn play(setting: Setting, ops: &[Op]) -> Result<End> {
    let mut world = World::new(setting)?;
    for op in ops {
        world.happen(op)?;
    }
    world.run()?;
    world.finish()
}

impl World {
    /// A federation whose sites are all connected, and a run that starts.
    pub fn new(setting: Setting) -> Result<Self> {
        let mut world = Self::empty(setting)?;
        world.begin()?;
        Ok(world)
    }

    /// The same, in which the server, or a site, dies at a point.
    pub fn lit(setting: Setting, site: Option<usize>, point: u64) -> Result<Self> {
        let mut world = Self::empty(setting)?;
        let fuse = match site {
            Some(at) => &mut world.sites[at].fuse,
            None => &mut world.hub.fuse,
        };
        fuse.left = Some(point);
        world.begin()?;
        Ok(world)
    }

    fn empty(setting: Setting) -> Result<Self> {
        let (parties, dir) = (parties(), scratch()?);
        let text = run(setting.secure);
        let hub = Hub::new(&dir.path().join("hub"), &text, parties.hub.clone(), setting.in_memory)?;
        let sites: Vec<Site> = SITES
            .iter()
            .zip(&parties.sites)
            .map(|(name, (credentials, data))| {
                Site::new(credentials.clone(), data.clone(), dir.path().join(name))
            })
            .collect();
        let account = Account::new(&hub)?;
        let standings = vec![Standing::Admitted; sites.len()];
        Ok(Self { hub, sites, standings, now: Timestamp(1_000), account, _dir: dir })
    }

    /// All sites connect, and the run starts.
    fn begin(&mut self) -> Result<()> {
        // Whoever dies on the way comes again, and what was not committed is said again.
        while self.hub.run.state().0 == RunState::Queued {
            match (0..self.sites.len()).find(|at| self.is_missing(*at)) {
                Some(at) => self.join(at)?,
                None => self.feed(Input::Start)?,
            }
            self.notice()?;
        }
        Ok(())
    }

    /// Something happens.
    pub fn happen(&mut self, op: &Op) -> Result<()> {
        match *op {
            Op::Go(which) => {
                let ready = self.under_way();
                if !ready.is_empty() {
                    self.go(ready[which % ready.len()])?;
                }
            }
            Op::Join(at) => self.join(at)?,
            Op::Leave(at) => self.sites[at].crash(),
            Op::Cut(at, noticed) => {
                self.sites[at].online &= noticed;
                self.sites[at].disconnect()?;
            }
            Op::LoseAnswer(at) => {
                self.sites[at].link.as_mut().and_then(|link| link.up.pop_front());
            }
            Op::LoseQuestion(at) => {
                self.sites[at].link.as_mut().and_then(|link| link.down.pop_front());
            }
            Op::AnswerTwice(at) => {
                if let Some(link) = &mut self.sites[at].link
                    && let Some(message) = link.up.front().cloned()
                {
                    link.up.push_front(message);
                }
            }
            Op::Damage(at) => self.sites[at].damaged = true,
            Op::Truncate(which) => self.truncate(which)?,
            Op::Wait(seconds) => self.wait(Duration::from_secs(seconds))?,
            Op::CrashServer(steps) => self.hub.fuse.left = Some(steps),
            Op::CrashSite(at, steps) => self.sites[at].fuse.left = Some(steps),
            Op::Suspend(at, keep) => self.send_away(at, Standing::Suspended, keep)?,
            Op::Revoke(at, keep) => self.send_away(at, Standing::Revoked, keep)?,
            Op::Resume(at) => {
                if self.standings[at] == Standing::Suspended {
                    self.standings[at] = Standing::Admitted;
                }
            }
            Op::Stop => self.stop()?,
        }
        self.notice()
    }

    /// Lets the run come to its end without further trouble.
    pub fn run(&mut self) -> Result<()> {
        for _ in 0..CALM {
            if !self.step()? {
                return Ok(());
            }
        }
        bail!("the run does not come to an end: {:?}", self.hub.run.state())
    }

    /// What comes next without further trouble; false when the run is over.
    pub fn step(&mut self) -> Result<bool> {
        if self.hub.run.state().0.is_final() {
            return Ok(false);
        }
        if let Some(away) = (0..self.sites.len()).find(|at| self.is_missing(*at)) {
            self.join(away)?;
        } else if let Some(next) = self.under_way().first() {
            self.go(*next)?;
        } else if let Some(due) = self.hub.run.poll_timeout() {
            self.wait(due.since(self.now))?;
        } else {
            // Too few sites are left, and nothing will change that.
            self.stop()?;
        }
        self.notice()?;
        Ok(true)
    }

    /// Checks what a run that is over came to.
    pub fn finish(&self) -> Result<End> {
        self.check_replay()?;
        self.account.close(&self.hub, &self.sites)
    }

    fn is_missing(&self, at: usize) -> bool {
        self.standings[at] == Standing::Admitted && self.sites[at].link.is_none()
    }

    /// Everything that can go on: what arrives, and what is being done.
    fn under_way(&self) -> Vec<Going> {
        let mut ready = Vec::new();
        for (at, site) in self.sites.iter().enumerate() {
            let link = site.link.as_ref();
            if link.is_some_and(|link| !link.down.is_empty()) {
                ready.push(Going::Question(at));
            }
            if link.is_some_and(|link| !link.up.is_empty()) {
                ready.push(Going::Answer(at));
            }
            if site.is_busy() {
                ready.push(Going::Work(at));
            }
        }
        if self.hub.is_busy() {
            ready.push(Going::Sum);
        }
        ready
    }

    fn go(&mut self, going: Going) -> Result<()> {
        match going {
            Going::Question(at) => {
                let site = &mut self.sites[at];
                match site.link.as_mut().and_then(|link| link.down.pop_front()) {
                    Some(message) => site.input(sheaf_client::session::Input::Message(message)),
                    None => Ok(()),
                }
            }
            Going::Answer(at) => {
                let site = &mut self.sites[at];
                let Some(message) = site.link.as_mut().and_then(|link| link.up.pop_front()) else {
                    return Ok(());
                };
                match self.hub.server.understand(&site.name, message)? {
                    Some(input) => self.feed(input),
                    None => Ok(()),
                }
            }
            Going::Work(at) => self.sites[at].work(&self.hub.server.blobs, &self.hub.server.updates),
            Going::Sum => match self.hub.work() {
                Some(input) => self.feed(input),
                None => Ok(()),
            },
        }
    }

    fn join(&mut self, at: usize) -> Result<()> {
        self.sites[at].start()?;
        if !self.is_missing(at) {
            return Ok(());
        }
        let site = &mut self.sites[at];
        site.connect()?;
        site.online = true;
        let connected = Input::Connected(site.name.clone());
        self.feed(connected)
    }

    /// The server sees which connections are gone.
    fn notice(&mut self) -> Result<()> {
        for at in 0..self.sites.len() {
            let site = &mut self.sites[at];
            if site.online && site.link.is_none() {
                site.online = false;
                let gone = Input::Disconnected(site.name.clone());
                self.feed(gone)?;
            }
        }
        Ok(())
    }

    fn send_away(&mut self, at: usize, standing: Standing, keep_updates: bool) -> Result<()> {
        if self.standings[at] == Standing::Revoked {
            return Ok(());
        }
        let site = self.sites[at].name.clone();
        if !self.hub.run.state().0.is_final() {
            let (round, why) = (self.hub.run.round(), format!("it was {standing}"));
            if !self.commit(Input::Excluded { site: site.clone(), keep_updates, why })? {
                // The operator's word went with the server.
                return Ok(());
            }
            self.account.sent_away(&site, keep_updates, round.as_ref());
        }
        self.standings[at] = standing;
        self.sites[at].online = false;
        self.sites[at].disconnect()
    }

    fn stop(&mut self) -> Result<()> {
        let over = self.hub.run.state().0.is_final();
        if over { Ok(()) } else { self.feed(Input::Stop(OPERATOR.parse()?)) }
    }

    fn wait(&mut self, duration: Duration) -> Result<()> {
        self.now = self.now.after(duration);
        let due = self.hub.run.poll_timeout().is_some_and(|due| due <= self.now);
        if due { self.feed(Input::Tick) } else { Ok(()) }
    }

    /// Cuts off the end of an update that the run holds.
    fn truncate(&mut self, which: usize) -> Result<()> {
        let held: Vec<_> =
            self.hub.server.updates.list()?.into_iter().filter(|blob| self.hub.run.holds(*blob)).collect();
        if let Some(blob) = held.get(which % held.len().max(1)) {
            let file = fs::File::options().write(true).open(self.hub.server.updates.path(*blob))?;
            file.set_len(file.metadata()?.len() / 2)?;
        }
        Ok(())
    }

    /// Gives the server an input; whatever it wants done is done, unless it dies.
    fn feed(&mut self, input: Input) -> Result<()> {
        self.commit(input).map(drop)
    }

    /// The same; whether the server lived long enough to remember the input.
    fn commit(&mut self, input: Input) -> Result<bool> {
        let Fed { writes, effects } = self.hub.feed(input, self.now)?;
        for write in &writes {
            if let Write::Round { record, .. } = write {
                self.account.enter(record, &self.hub, &self.sites)?;
            }
        }
        for effect in effects.iter().flatten() {
            if self.hub.fuse.burns() {
                self.restart()?;
                return Ok(true);
            }
            self.perform(effect)?;
        }
        if effects.is_none() {
            self.restart()?;
        }
        Ok(effects.is_some())
    }

    /// The server is dead, and comes back with nothing but its disk.
    fn restart(&mut self) -> Result<()> {
        self.hub.reopen()?;
        for site in &mut self.sites {
            site.online = false;
            site.disconnect()?;
        }
        if self.hub.run.state().0.is_final() { Ok(()) } else { self.feed(Input::Restarted) }
    }

    /// The journal brings back the run as it is.
    fn check_replay(&self) -> Result<()> {
        ensure!(self.hub.replayed()? == self.hub.run, "the journal tells another run");
        Ok(())
    }

    fn perform(&mut self, effect: &Effect) -> Result<()> {
        let Some((to, message)) = message(&self.hub.run, effect, self.now) else {
            if let Effect::Aggregate(round) = effect {
                self.hub.order(Work::Aggregate(round.clone()));
            } else if let Effect::Open(sum) = effect {
                self.hub.order(Work::Open(sum.clone()));
            } else if let Effect::Ended(_) = effect {
                self.check_replay()?;
            } else {
                ensure!(self.hub.server.clear(&self.hub.run, effect)?, "{effect:?} is a write");
            }
            return Ok(());
        };
        let site = self.sites.iter_mut().find(|site| site.name == to).context("an unknown site")?;
        if let Some(link) = site.link.as_mut().filter(|_| site.online) {
            link.down.push_back(message);
        }
        Ok(())
    }
}

/// One of the things that go on by themselves.
#[derive(Clone, Copy)]
enum Going {
    Question(usize),
    Answer(usize),
    Work(usize),
    Sum,
}

/// Certificates and data, made once for all federations of a test.
struct Parties {
    hub: Arc<Credentials>,
    sites: Vec<(Arc<Credentials>, DatasetConfig)>,
    _dir: TempDir,
}

fn parties() -> &'static Parties {
    static PARTIES: OnceLock<Parties> = OnceLock::new();
    PARTIES.get_or_init(|| make_parties().expect("certificates can be made"))
}

fn make_parties() -> Result<Parties> {
    let dir = scratch()?;
    let folder = dir.path().join("pki");
    pki::init(&folder, &"test".parse()?)?;
    let credentials = |role, name: &str| -> Result<_> {
        pki::issue(&folder, role, &name.parse()?, &IssueOptions::default())?;
        Ok(Arc::new(Credentials::load(&credential_paths(&folder, role, name))?))
    };
    let hub = credentials(Role::Server, "hub")?;
    let sites = SITES
        .iter()
        .enumerate()
        .map(|(number, name)| Ok((credentials(Role::Site, name)?, dataset(dir.path(), name, number)?)));
    Ok(Parties { hub, sites: sites.collect::<Result<_>>()?, _dir: dir })
}

/// A site's table: more rows at each site than at the one before, and other ones.
fn dataset(dir: &Path, name: &str, number: usize) -> Result<DatasetConfig> {
    let path = dir.join(format!("{name}.csv"));
    let mut table = String::from("x,z,label\n");
    for row in 0..12 + 4 * number {
        let wave = ((row * 37 + number * 11) % 101) as f64 / 101.0 - 0.5;
        let label = if (row + number).is_multiple_of(3) { "yes" } else { "no" };
        table += &format!("{wave:.4},{:.4},{label}\n", number as f64 * 0.3 - wave);
    }
    fs::write(&path, table)?;
    let text = format!(
        "server = \"localhost:1\"\nstate_dir = \"s\"\n[identity]\ncertificate = \"c\"\nkey = \"k\"\nca = \"a\"\n[datasets.data]\npath = {path:?}\n"
    );
    let mut datasets: BTreeMap<_, _> = SiteConfig::parse("site.toml", &text)?.datasets;
    datasets.remove("data").context("no data set")
}

fn run(secure: bool) -> String {
    let (how, table) = if secure {
        ("required", "[secagg]\nclipping_range = 8.0\nstage_timeout = \"20s\"")
    } else {
        ("off", "")
    };
    format!(
        r#"
name = "toy"
rounds = {ROUNDS}
seed = 7
secure_aggregation = "{how}"
model = {{ architecture = "softmax" }}
{table}

[task]
type = "tabular-classification"
dataset = "data"
label = "label"
labels = ["no", "yes"]
features = [{{ column = "x", type = "numeric" }}, {{ column = "z", type = "numeric" }}]

[training]
optimizer = "sgd"
learning_rate = 0.5
batch_size = 4
validation_split = 0.25

[cohort]
sites = {SITES:?}
min_sites = 3
min_updates = 3
max_examples = 100
round_timeout = "60s"
"#
    )
}

/// A folder in memory where there is such a thing: nothing in it need outlive the machine.
pub fn scratch() -> Result<TempDir> {
    let memory = PathBuf::from("/dev/shm");
    Ok(if memory.is_dir() { tempfile::tempdir_in(memory)? } else { tempfile::tempdir()? })
}
