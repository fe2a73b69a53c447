//! `sheaf-server`: read the configuration, start, serve, stop; or copy everything to a backup and back.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Parser, Subcommand};
use sheaf_server::backup::{Contents, backup, restore};
use sheaf_server::config::ServerConfig;
use sheaf_server::server::{Server, now};
use sheaf_transport::open_files;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The aggregation server of a Sheaf federation.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "server.toml", global = true)]
    config: PathBuf,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Copies the data directory, as it is at this moment, to DIR; the server may run meanwhile.
    Backup {
        /// A folder that is not there yet.
        dir: PathBuf,
    },
    /// Makes the data directory, which must not be there yet, from the backup in DIR.
    Restore {
        /// What `backup` made.
        dir: PathBuf,
    },
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("SHEAF_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    match run(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sheaf-server: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn run(arguments: &Arguments) -> anyhow::Result<()> {
    let config = ServerConfig::load(&arguments.config)?;
    match &arguments.command {
        None => return serve(&config).await,
        Some(Command::Backup { dir }) => {
            let Contents { runs, blobs } = backup(&config, dir, now())?;
            println!("copied {runs} runs and {blobs} blobs to {}", dir.display());
        }
        Some(Command::Restore { dir }) => {
            let Contents { runs, blobs } = restore(&config, dir, now())?;
            println!("brought {runs} runs and {blobs} blobs back to {}", config.data_dir.display());
        }
    }
    Ok(())
}

async fn serve(config: &ServerConfig) -> anyhow::Result<()> {
    open_files::raise();
    let mut terminate = signal(SignalKind::terminate())?;
    let server = Server::start(config).await?;
    let shutdown = async move {
        // Either signal means the same; which one came is of no interest.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    Ok(server.run(shutdown).await?)
}
