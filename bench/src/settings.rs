//! What is asked of the bench.

use std::path::PathBuf;

use clap::{Parser, ValueEnum};

use crate::case::Group;
use crate::simulation::Simulated;
use crate::training::{self, Model};
use crate::{kernel, round, simulation, sites, transport};

/// Measures what a federation costs, beside what people would pick instead.
#[derive(Debug, Parser)]
pub(crate) struct Settings {
    /// The workloads to run; all, if none is named.
    #[arg(long, value_delimiter = ',')]
    only: Vec<Workload>,
    /// How often each contestant has its turn.
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub(crate) repeats: u32,
    /// Rounds of a run; the first, in which a model comes for the first time, is not counted.
    #[arg(long, default_value_t = 4, value_parser = clap::value_parser!(u32).range(2..))]
    pub(crate) rounds: u32,
    /// Sizes of the model, in megabytes of f32: 1,10,100,400 for rounds and 4,40,400 for secure ones, if none is given.
    #[arg(long, value_delimiter = ',')]
    pub(crate) sizes: Vec<u32>,
    /// Numbers of clients: 4,8,16,64 for rounds and 8 for everything else, if none is given.
    #[arg(long, value_delimiter = ',')]
    pub(crate) clients: Vec<u32>,
    /// Megabytes of what is summed, masked and sent where there are no processes.
    #[arg(long, default_value_t = 200, value_parser = clap::value_parser!(u32).range(1..=4000))]
    pub(crate) megabytes: u32,
    /// Sites that have nothing to do.
    #[arg(long, default_value_t = 1000)]
    pub(crate) idle: u32,
    /// Sites that are all in a round of a small model.
    #[arg(long, default_value_t = 10_000)]
    pub(crate) crowd: u32,
    /// Simulated federations: virtual clients, and values of the model.
    #[arg(long, value_delimiter = ',', default_values = ["8x1000", "100x1000", "1000x1000", "100x250000", "100x1000000"])]
    pub(crate) federations: Vec<Simulated>,
    /// Models of which steps are timed.
    #[arg(long, value_delimiter = ',', default_values = ["mlp", "minilm", "efficientnet-lite0"])]
    pub(crate) models: Vec<Model>,
    /// Devices that they are trained on: cpu, and one GPU, as cuda:0, where there is one and `make setup CUDA=1` was run.
    #[arg(long, value_delimiter = ',', default_values = ["cpu"])]
    pub(crate) devices: Vec<String>,
    /// Steps of training in a turn, and a hundred times as many of the MLP; the first two are not counted.
    #[arg(long, default_value_t = 12, value_parser = clap::value_parser!(u32).range(5..=1000))]
    pub(crate) steps: u32,
    /// The Python of an environment that has Flower and NVFLARE; without it they do not take part.
    #[arg(long)]
    pub(crate) peers: Option<PathBuf>,
    /// The Python of an environment that has PyTorch; without it that does not take part.
    #[arg(long)]
    pub(crate) pytorch: Option<PathBuf>,
    /// Where the figures go.
    #[arg(long, default_value = "target/bench")]
    pub(crate) out: PathBuf,
}

/// A kind of work.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// A round without training, with real processes.
    Round,
    /// The same with secure aggregation.
    Secure,
    /// From nothing, and from the submission of a run, until a client is asked to train.
    Start,
    /// A server whose sites have nothing to do.
    Idle,
    /// A round with very many sites.
    Crowd,
    /// A federation in one process.
    Simulation,
    /// The sum of updates and the masks, in memory.
    Kernel,
    /// One blob over loopback.
    Transport,
    /// Steps of local training.
    Training,
}

impl Settings {
    /// Everything that is to be measured; what is in a group takes turns.
    pub(crate) fn groups(&self) -> Vec<Group> {
        let mut groups = Vec::new();
        for workload in Workload::value_variants() {
            if self.only.is_empty() || self.only.contains(workload) {
                groups.extend(match workload {
                    Workload::Round => round::groups(self),
                    Workload::Secure => round::secure_groups(self),
                    Workload::Start => round::start_groups(self),
                    Workload::Idle => sites::idle_groups(self),
                    Workload::Crowd => sites::crowd_groups(self),
                    Workload::Simulation => simulation::groups(self),
                    Workload::Kernel => kernel::groups(self),
                    Workload::Transport => transport::groups(self),
                    Workload::Training => training::groups(self),
                });
            }
        }
        groups
    }
}
