//! What can be typed.

use std::path::PathBuf;

use clap::{Args as ClapArgs, Parser, Subcommand};
use clap_complete::Shell;
use sheaf_common::id::{ClientId, Federation, Name, Role, RunId};

use super::import::{FileKind, ScriptArgs};
use super::survey::SurveyArgs;
use crate::pki::Host;

/// Federated fine-tuning: steer a server, its runs, models and certificates.
#[derive(Debug, Parser)]
#[command(name = "sheaf", version, propagate_version = true, arg_required_else_help = true)]
pub struct Args {
    /// Print JSON for programs instead of text for people.
    #[arg(long, global = true)]
    pub json: bool,
    /// Which server, and who asks.
    #[command(flatten)]
    pub connection: ConnectionArgs,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Which server, and who asks. Flags go before what the file says.
#[derive(Debug, Default, ClapArgs)]
#[command(next_help_heading = "Connection")]
pub struct ConnectionArgs {
    /// File with server, certificate, key and ca [default: ./operator.toml, then ~/.config/sheaf/operator.toml]
    #[arg(long, global = true, value_name = "FILE", env = "SHEAF_CONFIG")]
    pub config: Option<PathBuf>,
    /// The server's UDP port.
    #[arg(long, global = true, value_name = "HOST:PORT")]
    pub server: Option<String>,
    /// Your certificate.
    #[arg(long, global = true, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// Your certificate's key.
    #[arg(long, global = true, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// The federation's CA certificate.
    #[arg(long, global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Runs: submit one, list them, look at one, stop one.
    #[command(subcommand)]
    Run(RunCommand),
    /// Count what the sites hold, pooled: the mean and spread of numbers, how often labels and categories occur.
    /// Nothing is trained.
    Survey(SurveyArgs),
    /// Search for the best settings of a run: one trial after another, for so many rounds. Ctrl-C ends the
    /// searching, not the run under way.
    Tune(TuneArgs),
    /// Train a run once for each of several folds, or for each site that is left out, and print what the models score.
    /// Ctrl-C ends the waiting, not the runs.
    CrossValidate(CrossArgs),
    /// Sites: who is connected, who may be, and who waits for a certificate.
    #[command(subcommand)]
    Site(SiteCommand),
    /// Models: import pretrained ones, export trained ones.
    #[command(subcommand)]
    Model(ModelCommand),
    /// The audit log of a server or a site: check a copy of it. Needs no server.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Certificates: make a federation and its parties. Needs no server.
    #[command(subcommand)]
    Pki(PkiCommand),
    /// Print completions for a shell, to be sourced or put where it looks for them.
    Completions {
        /// The shell.
        shell: Shell,
    },
    /// Write manual pages.
    Man {
        /// Folder for them.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Commands on an audit log.
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// Check that no entry was changed, taken out or moved.
    Verify {
        /// The log, such as DATA_DIR/audit.log.
        file: PathBuf,
    },
}

/// Commands on runs.
#[derive(Debug, Subcommand)]
pub enum RunCommand {
    /// Queue a run.
    Submit {
        /// What is to be run: run.toml.
        file: PathBuf,
        /// Watch it to its end.
        #[arg(long)]
        watch: bool,
    },
    /// List all runs.
    List,
    /// Show a run: what was asked for, its rounds, who does what.
    Show {
        /// The run.
        run: RunId,
    },
    /// Watch a run to its end; exits with 0 when it completes and 1 when it fails or is stopped. Ctrl-C ends
    /// the watching, not the run.
    Watch {
        /// The run.
        run: RunId,
    },
    /// Stop a run; what it has completed stays.
    Stop {
        /// The run.
        run: RunId,
    },
}

/// A search.
#[derive(Debug, ClapArgs)]
pub struct TuneArgs {
    /// What is searched, and how: search.toml.
    pub file: PathBuf,
    /// Only check all trials, and print them with what they cost. Needs no server.
    #[arg(long)]
    pub dry_run: bool,
    /// Go on with a search that was interrupted: runs that are there already are not repeated.
    #[arg(long)]
    pub resume: bool,
    /// Folder for each trial's run.toml and results.csv.
    #[arg(long, value_name = "DIR")]
    pub out: Option<PathBuf>,
}

/// A cross-validation.
#[derive(Debug, ClapArgs)]
pub struct CrossArgs {
    /// The run: run.toml.
    pub file: PathBuf,
    /// Hold one of so many folds out at every site, each in its turn.
    #[arg(long, value_name = "K", value_parser = clap::value_parser!(u32).range(2..=1000), required_unless_present = "leave_one_site_out")]
    pub folds: Option<u32>,
    /// Leave each site of cohort.sites out in its turn, and evaluate on all of its data.
    #[arg(long, conflicts_with = "folds")]
    pub leave_one_site_out: bool,
    /// Go on with runs that are there already, instead of refusing.
    #[arg(long)]
    pub resume: bool,
}

/// Commands on sites.
#[derive(Debug, Subcommand)]
pub enum SiteCommand {
    /// List all sites ever seen.
    List,
    /// Send a site away for good: its connection is cut, and it cannot come back under this name.
    Revoke {
        /// The site.
        site: ClientId,
        /// What it gave to a round in progress still counts.
        #[arg(long)]
        keep_updates: bool,
        /// What it gave to a round in progress does not count, where that can still be [default].
        #[arg(long, conflicts_with = "keep_updates")]
        drop_updates: bool,
    },
    /// Send a site away until it is resumed.
    Suspend {
        /// The site.
        site: ClientId,
        /// What it gave to a round in progress still counts.
        #[arg(long)]
        keep_updates: bool,
        /// What it gave to a round in progress does not count, where that can still be [default].
        #[arg(long, conflicts_with = "keep_updates")]
        drop_updates: bool,
    },
    /// Let a suspended site come back.
    Resume {
        /// The site.
        site: ClientId,
    },
    /// Make a token that works once, with which a site gets its certificate (`sheaf-client enroll`). Its key is made at
    /// the site and stays there.
    Invite {
        /// The site.
        site: ClientId,
        /// How long the token is good for.
        #[arg(long, value_name = "TIME", default_value = "24h", value_parser = humantime::parse_duration)]
        expires: std::time::Duration,
    },
    /// List the sites that wait for a certificate.
    Requests,
    /// Sign the certificate that a site waits for, on this machine, and send it to the server.
    Approve {
        /// The site.
        site: ClientId,
        /// Folder of the authority, made by `sheaf pki init`.
        #[arg(long, value_name = "DIR")]
        pki: PathBuf,
        /// Days that it is valid [default: 365]
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        days: Option<u32>,
    },
}

/// Commands on models.
#[derive(Debug, Subcommand)]
pub enum ModelCommand {
    /// Give a pretrained model to the server. What it has already is not sent again.
    Import {
        /// Folder with config.json, model.safetensors and, for text, tokenizer.json; or a GGUF file; or a file of
        /// weights: a state dict of PyTorch (.pth, .pt) or safetensors; or a TorchScript module (.pt).
        path: PathBuf,
        /// What a file is: resnet18, resnet34, resnet50, efficientnet-lite0, vit or torchscript.
        #[arg(long)]
        kind: Option<FileKind>,
        /// Name for run.toml.
        #[arg(long)]
        name: String,
        /// What goes in and out of a TorchScript module.
        #[command(flatten)]
        script: ScriptArgs,
    },
    /// List the imported models.
    List,
    /// Write a run's trained model as a folder.
    Export {
        /// The run.
        run: RunId,
        /// The round after which [default: the run's result]
        #[arg(long)]
        round: Option<u32>,
        /// Write only the run's LoRA adapters, as PEFT reads them.
        #[arg(long)]
        adapter: bool,
        /// Folder to make.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
}

/// Commands on certificates.
#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Make a federation: its certificate authority.
    Init {
        /// Name of the federation.
        #[arg(long, value_name = "NAME")]
        federation: Federation,
        /// Folder for its certificate and key. Keep it to yourself.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Make a key and certificate for a server, site, operator or viewer.
    Issue {
        /// What it may do: server, site, operator or viewer.
        role: Role,
        /// Its name.
        name: Name,
        /// Folder of the authority, made by `sheaf pki init`.
        #[arg(long, value_name = "DIR")]
        pki: PathBuf,
        /// A DNS name or address of a server, for other tools; Sheaf's clients need none. Can be repeated.
        #[arg(long = "host", value_name = "HOST")]
        hosts: Vec<Host>,
        /// Days that it is valid [default: 365]
        #[arg(long, value_name = "N")]
        days: Option<u32>,
        /// Folder for the key, the certificate and a copy of ca.crt [default: the authority's]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Make an authority below the federation's own that issues certificates of sites alone, for a server that signs
    /// by itself ([enrolment] in server.toml).
    Issuing {
        /// Folder of the authority, made by `sheaf pki init`.
        #[arg(long, value_name = "DIR")]
        pki: PathBuf,
        /// Days that it is valid [default: 365]
        #[arg(long, value_name = "N")]
        days: Option<u32>,
        /// Folder for its certificate and key.
        #[arg(long, value_name = "DIR")]
        out: PathBuf,
    },
    /// Sign a request whose key was made elsewhere (`sheaf-client csr`).
    Sign {
        /// The certificate signing request, in PEM form.
        file: PathBuf,
        /// Folder of the authority, made by `sheaf pki init`.
        #[arg(long, value_name = "DIR")]
        pki: PathBuf,
        /// What its holder may do: server, site, operator or viewer.
        #[arg(long, default_value = "site")]
        role: Role,
        /// Its holder's name [default: the one in the request]
        #[arg(long)]
        name: Option<Name>,
        /// Days that it is valid [default: 365]
        #[arg(long, value_name = "N")]
        days: Option<u32>,
        /// Folder for the certificate and a copy of ca.crt [default: the authority's]
        #[arg(long, value_name = "DIR")]
        out: Option<PathBuf>,
    },
    /// Show what a certificate says.
    Show {
        /// The certificate, in PEM form.
        file: PathBuf,
    },
}
