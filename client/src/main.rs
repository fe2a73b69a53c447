//! `sheaf-client`: the site's daemon, and what a site engineer does before starting it.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sheaf_client::config::SiteConfig;
use sheaf_client::memory;
use sheaf_client::offline::Command;
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

fn main() -> ExitCode {
    memory::keep();
    let arguments = Arguments::parse();
    // The commands print what they found; the daemon has only its log.
    let default = if arguments.command.is_some() { "warn" } else { "info" };
    let filter = EnvFilter::try_from_env("SHEAF_LOG").unwrap_or_else(|_| EnvFilter::new(default));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    let result = match arguments.command {
        None => daemon(&arguments.config).map(|()| true),
        Some(command) => {
            command.execute(&arguments.config, &mut std::io::stdout().lock()).map_err(Into::into)
        }
    };
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("sheaf-client: {error:#}");
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
