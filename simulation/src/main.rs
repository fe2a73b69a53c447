//! `sheaf-sim`: a federation in one process.

use std::process::ExitCode;

fn main() -> ExitCode {
    sheaf_sim::cli::main()
}
