//! A whole federation of real processes for the end-to-end tests: `sheaf-server`, `sheaf-client`s, real
//! certificates, QUIC on loopback. Processes die with the value that holds them.

pub mod network;
mod operator;
pub mod perceptron;
pub mod simulated;
mod site;

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use sheaf_common::id::Role;
use sheaf_common::status::{Answer, RunState, RunStatus};
use sheaf_server::pki::{self, IssueOptions};
use tempfile::TempDir;

pub use operator::{Operator, credential_paths};
pub use site::{Part, ScriptedSite, update};

/// How long anything in a test may take before the test fails. Generous: machines are slow and shared.
pub const PATIENCE: Duration = Duration::from_secs(120);

/// A federation on this machine.
pub struct Federation {
    dir: TempDir,
    server: Option<Process>,
    sites: Vec<(String, Process)>,
    address: Option<SocketAddr>,
    /// How much the programs log.
    log_level: &'static str,
    /// Further tables of server.toml.
    server_toml: String,
}

/// A process that is killed when the value goes.
struct Process {
    child: Child,
    log: PathBuf,
}

impl Federation {
    /// Makes a federation's certificates. Nothing runs yet.
    pub fn new() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        pki::init(&dir.path().join("pki"), &"test".parse()?)?;
        let this = Self {
            dir,
            server: None,
            sites: Vec::new(),
            address: None,
            log_level: "info",
            server_toml: String::new(),
        };
        this.issue(Role::Server, "hub")?;
        this.issue(Role::Operator, "op")?;
        this.issue(Role::Viewer, "eye")?;
        Ok(this)
    }

    /// Has programs that are started from now on log everything.
    pub fn log_everything(&mut self) {
        self.log_level = "trace";
    }

    /// Gives a server that is started from now on further tables of configuration.
    pub fn configure_server(&mut self, tables: &str) {
        self.server_toml = tables.to_owned();
    }

    /// The folder of everything.
    pub fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Issues a certificate and returns its `[identity]` table.
    pub fn issue(&self, role: Role, name: &str) -> Result<String> {
        let pki = self.path().join("pki");
        if !pki.join(format!("{role}-{name}.crt")).exists() {
            pki::issue(&pki, role, &name.parse()?, &IssueOptions::default())?;
        }
        let pki = pki.display();
        Ok(format!(
            "[identity]\ncertificate = \"{pki}/{role}-{name}.crt\"\nkey = \"{pki}/{role}-{name}.key\"\nca = \"{pki}/ca.crt\"\n"
        ))
    }

    /// Lines for the table `[limits]` of a server that is still to start.
    pub fn limit(&mut self, lines: &str) {
        self.configure_server(&format!("[limits]\n{lines}\n"));
    }

    /// Writes the server's configuration, with the address that it has had if it has had one.
    pub fn write_server_toml(&self) -> Result<PathBuf> {
        let listen = self.address.map_or("127.0.0.1:0".to_owned(), |address| address.to_string());
        let (identity, tables) = (self.issue(Role::Server, "hub")?, &self.server_toml);
        let config = self.path().join("server.toml");
        fs::write(&config, format!("listen = \"{listen}\"\ndata_dir = \"server\"\n{identity}{tables}"))?;
        Ok(config)
    }

    /// Starts the server, at the address that it had before if it ran already, and waits until it listens.
    pub fn start_server(&mut self) -> Result<SocketAddr> {
        let config = self.write_server_toml()?;
        let data = self.path().join("server");
        // What a killed server left would be taken for the new one's.
        let address_file = data.join("address");
        if address_file.exists() {
            fs::remove_file(&address_file)?;
        }
        self.server = Some(self.spawn("sheaf-server", &config, "server.log")?);
        let address = wait_for("the server to listen", || {
            let text = fs::read_to_string(&address_file).ok()?;
            text.trim().parse::<SocketAddr>().ok()
        })?;
        self.address = Some(address);
        Ok(address)
    }

    /// Where the server listens.
    pub fn address(&self) -> Result<SocketAddr> {
        self.address.context("start the server first")
    }

    /// `kill -9` of the server.
    pub fn kill_server(&mut self) {
        self.server = None;
    }

    /// Asks the server to stop, and waits until it has.
    pub fn terminate_server(&mut self) -> Result<()> {
        let Some(mut server) = self.server.take() else {
            return Ok(());
        };
        let status = Command::new("kill").arg(server.child.id().to_string()).status()?;
        anyhow::ensure!(status.success(), "kill failed");
        let status = wait_for("the server to stop", || server.child.try_wait().ok().flatten())?;
        anyhow::ensure!(status.success(), "the server stopped with {status}");
        Ok(())
    }

    /// Starts a site whose data set `data` is the given CSV, with its state kept from an earlier start.
    pub fn start_site(&mut self, name: &str, csv: &str) -> Result<()> {
        self.start_site_by("", name, csv, "")
    }

    /// The same with further lines for the tables of the policy and of the data set.
    pub fn start_site_by(&mut self, policy: &str, name: &str, table: &str, more: &str) -> Result<()> {
        let address = self.address()?.to_string();
        self.start_site_at(&address, policy, name, table, more)
    }

    /// The same for a site that knows the server by another address than its own.
    pub fn start_site_at(
        &mut self,
        address: &str,
        policy: &str,
        name: &str,
        table: &str,
        more: &str,
    ) -> Result<()> {
        let identity = self.issue(Role::Site, name)?;
        let (config, data) = (self.path().join(format!("{name}.toml")), format!("{name}.csv"));
        fs::write(self.path().join(&data), table)?;
        let text = format!(
            "server = \"{address}\"\nstate_dir = \"{name}\"\ndevice = \"cpu\"\n{identity}\n[policy]\nsecure_aggregation = \"optional\"\n{policy}\n[datasets.data]\npath = \"{data}\"\n{more}"
        );
        fs::write(&config, text)?;
        let process = self.spawn("sheaf-client", &config, &format!("{name}.log"))?;
        self.sites.push((name.to_owned(), process));
        Ok(())
    }

    /// Stops a site in its tracks, or lets it go on: it is as silent as one whose network is gone.
    pub fn freeze_site(&self, name: &str, frozen: bool) -> Result<()> {
        let (_, site) = self.sites.iter().find(|(site, _)| site == name).context("no such site")?;
        let signal = if frozen { "-STOP" } else { "-CONT" };
        let status = Command::new("kill").args([signal, &site.child.id().to_string()]).status()?;
        anyhow::ensure!(status.success(), "kill failed");
        Ok(())
    }

    /// `kill -9` of a site.
    pub fn kill_site(&mut self, name: &str) {
        self.sites.retain(|(site, _)| site != name);
    }

    /// The server's process.
    pub fn server_id(&self) -> Result<u32> {
        Ok(self.server.as_ref().context("the server does not run")?.child.id())
    }

    /// Connects with the certificate of an operator (`op`) or another party.
    pub async fn connect(&self, role: Role, name: &str) -> Result<Operator> {
        self.issue(role, name)?;
        let address = self.address()?;
        Operator::connect(address, &self.path().join("pki"), role, name).await
    }

    /// Runs the operator's command line and returns what it printed.
    pub fn sheaf(&self, arguments: &[&str]) -> Result<String> {
        let output = self.sheaf_output(arguments)?;
        let error = String::from_utf8_lossy(&output.stderr);
        anyhow::ensure!(output.status.success(), "sheaf {arguments:?}: {error}");
        Ok(String::from_utf8(output.stdout)?)
    }

    /// The same, also when it fails.
    pub fn sheaf_output(&self, arguments: &[&str]) -> Result<Output> {
        let pki = self.path().join("pki");
        Ok(Command::new(binary("sheaf")?)
            .args(["--server", &self.address()?.to_string(), "--cert"])
            .arg(pki.join("operator-op.crt"))
            .arg("--key")
            .arg(pki.join("operator-op.key"))
            .arg("--ca")
            .arg(pki.join("ca.crt"))
            .args(arguments)
            .output()?)
    }

    /// Runs `sheaf-client` in a folder of its own, and returns what became of it.
    pub fn client_output(&self, folder: &str, arguments: &[&str]) -> Result<Output> {
        Ok(self.client_command(folder, arguments)?.output()?)
    }

    /// Starts `sheaf-client` in a folder of its own; its log is called as the folder is.
    pub fn start_client(&mut self, folder: &str, arguments: &[&str]) -> Result<()> {
        let mut command = self.client_command(folder, arguments)?;
        self.sites.push((folder.to_owned(), self.run(&mut command, &format!("{folder}.log"))?));
        Ok(())
    }

    fn client_command(&self, folder: &str, arguments: &[&str]) -> Result<Command> {
        let folder = self.path().join(folder);
        fs::create_dir_all(&folder)?;
        let mut command = Command::new(binary("sheaf-client")?);
        command.current_dir(folder).args(arguments);
        Ok(command)
    }

    /// Connects as a site that does what the test says.
    pub async fn connect_site(&self, name: &str) -> Result<ScriptedSite> {
        self.issue(Role::Site, name)?;
        let state = self.path().join(format!("{name}-scripted"));
        ScriptedSite::connect(self.address()?, &self.path().join("pki"), name, &state).await
    }

    /// What a program wrote so far: `server` or a site's name.
    pub fn log(&self, name: &str) -> String {
        fs::read_to_string(self.path().join(format!("{name}.log"))).unwrap_or_default()
    }

    fn spawn(&self, program: &str, config: &Path, log: &str) -> Result<Process> {
        let mut command = Command::new(binary(program)?);
        self.run(command.arg("--config").arg(config), log)
    }

    fn run(&self, command: &mut Command, log: &str) -> Result<Process> {
        let log = self.path().join(log);
        let output = File::options().create(true).append(true).open(&log)?;
        let child = command
            // Several trainers on few cores get in each other's way with libtorch's default of a thread per core.
            .env("OMP_NUM_THREADS", "1")
            .env("SHEAF_LOG", self.log_level)
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()?;
        Ok(Process { child, log })
    }
}

impl Drop for Federation {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let logs = self.sites.iter().map(|(_, site)| &site.log).chain(self.server.iter().map(|s| &s.log));
            for log in logs {
                eprintln!("--- {}\n{}", log.display(), fs::read_to_string(log).unwrap_or_default());
            }
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // One that has ended already cannot be killed, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether every round of a run was completed at the first attempt, with the updates of so many sites and no other.
pub fn assert_undisturbed(status: &RunStatus, rounds: usize, sites: usize) {
    assert_eq!(status.summary.state, RunState::Completed, "{}", status.summary.detail);
    assert_eq!(status.history.len(), rounds, "{:?}", status.history);
    for record in &status.history {
        assert_eq!(record.attempt, 1);
        let answers: Vec<&Answer> = record.participants.iter().map(|site| &site.answer).collect();
        assert_eq!(answers, vec![&Answer::Accepted; sites]);
    }
}

/// A program of this workspace, beside the running executable.
pub fn binary(name: &str) -> Result<PathBuf> {
    let test = std::env::current_exe()?;
    // A test lies in a folder of that folder, the bench in the folder itself.
    let mut places = test.ancestors().skip(1).take(2).map(|folder| folder.join(name));
    let built = places.find(|path| path.is_file());
    built.with_context(|| format!("{name} is not built: run `cargo build --workspace` first"))
}

/// Looks until there is something to see.
pub fn wait_for<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    while start.elapsed() < PATIENCE {
        if let Some(seen) = look() {
            return Ok(seen);
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    bail!("waited {PATIENCE:?} in vain for {what}")
}
