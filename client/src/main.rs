//! `sheaf-client`: the site's daemon, and what a site engineer does before starting it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sheaf_client::config::SiteConfig;
use sheaf_client::identity::csr::{CsrArgs, csr};
use sheaf_client::identity::enroll::{EnrollArgs, enroll};
use sheaf_client::{memory, offline};
use sheaf_transport::open_files;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A site of a Sheaf federation: trains on its own data and sends updates to the server. It never listens.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Configuration file.
    #[arg(long, global = true, value_name = "FILE", default_value = "site.toml")]
    config: PathBuf,
    /// What to do instead of running the daemon.
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Subcommand)]
enum Command {
    #[command(flatten)]
    Offline(offline::Command),
    /// Get this site's certificate with a token from the operator; the key is made here and stays here
    Enroll(EnrollArgs),
    /// Make this site's key, and a certificate signing request to be carried to whoever signs
    Csr(CsrArgs),
}

impl Command {
    fn execute(&self, site_toml: &std::path::Path, out: &mut dyn std::io::Write) -> anyhow::Result<bool> {
        match self {
            Self::Offline(command) => return Ok(command.execute(site_toml, out)?),
            Self::Enroll(args) => enroll(args, out)?,
            Self::Csr(args) => csr(args, out)?,
        }
        Ok(true)
    }
}

fn main() -> ExitCode {
    memory::keep();
    open_files::raise();
    let arguments = Arguments::parse();
    // The commands print what they found; the daemon has only its log.
    let default = if arguments.command.is_some() { "warn" } else { "info" };
    let filter = EnvFilter::try_from_env("SHEAF_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    let result = match arguments.command {
        None => daemon(&arguments.config).map(|()| true),
        Some(command) => command.execute(&arguments.config, &mut std::io::stdout().lock()),
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sheaf-client: {error}");
            ExitCode::FAILURE
        }
    }
}

#[tokio::main]
async fn daemon(config: &std::path::Path) -> anyhow::Result<()> {
    let config = SiteConfig::load(config)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let shutdown = async move {
        // Either signal means the same; which one came is of no interest.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    Ok(sheaf_client::client::run(config, shutdown).await?)
}
