//! `sheaf-server`: read the configuration, start, serve, stop.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use sheaf_server::config::ServerConfig;
use sheaf_server::server::Server;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The aggregation server of a Sheaf federation.
#[derive(Parser)]
#[command(version, about)]
struct Arguments {
    /// Configuration file.
    #[arg(long, value_name = "FILE", default_value = "server.toml")]
    config: PathBuf,
}

#[tokio::main]
async fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let filter = EnvFilter::try_from_env("SHEAF_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_target(false).init();
    match serve(&arguments).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("sheaf-server: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn serve(arguments: &Arguments) -> anyhow::Result<()> {
    let config = ServerConfig::load(&arguments.config)?;
    let mut terminate = signal(SignalKind::terminate())?;
    let server = Server::start(&config).await?;
    let shutdown = async move {
        // Either signal means the same; which one came is of no interest.
        tokio::select! {
            _ = terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
    };
    Ok(server.run(shutdown).await?)
}
