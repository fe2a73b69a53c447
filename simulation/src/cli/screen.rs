//! Whoever looks at the terminal: how far the rounds are and how long the rest takes; Ctrl-C stops.

use std::io::IsTerminal;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{io, thread};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::rounds::{Row, Score};
use crate::simulate::Audience;

/// Metrics that are worth a place on the line, the first that there is.
const SHOWN: [&str; 3] = ["accuracy", "token_accuracy", "loss"];

/// The terminal.
pub(super) struct Screen {
    bar: ProgressBar,
    interrupted: Arc<AtomicBool>,
}

impl Screen {
    /// Nothing is drawn where nobody looks.
    pub(super) fn new() -> io::Result<Self> {
        let target = if io::stderr().is_terminal() {
            ProgressDrawTarget::stderr()
        } else {
            ProgressDrawTarget::hidden()
        };
        let bar = ProgressBar::with_draw_target(None, target);
        let style = ProgressStyle::with_template("round {pos} of {len} {bar:30} {eta} left  {msg}");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        let interrupted = Arc::new(AtomicBool::new(false));
        let flag = interrupted.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        thread::Builder::new().name("signals".into()).spawn(move || {
            runtime.block_on(async {
                while tokio::signal::ctrl_c().await.is_ok() {
                    // Whoever says it twice means now; what was completed is on the disk.
                    if flag.swap(true, Ordering::Relaxed) {
                        std::process::exit(i32::from(super::INTERRUPTED));
                    }
                }
            });
        })?;
        Ok(Self { bar, interrupted })
    }

    /// Leaves the terminal as it was.
    pub(super) fn close(&self) {
        self.bar.finish_and_clear();
    }
}

impl Audience for Screen {
    fn interrupts(&self) -> bool {
        self.interrupted.load(Ordering::Relaxed)
    }

    fn round(&mut self, row: &Row, rounds: u32) {
        let before = u64::from(row.round.saturating_sub(1));
        if self.bar.length() != Some(u64::from(rounds)) || self.bar.position() != before {
            // Rounds of another simulation, or from before an interruption, took no time here.
            self.bar.set_length(u64::from(rounds));
            self.bar.set_position(before);
            self.bar.reset_eta();
        }
        if row.is_completed() {
            self.bar.set_position(u64::from(row.round));
        }
        let said = |score: &Score| {
            SHOWN.iter().find_map(|name| score.get(*name).map(|value| format!("{name} {value:.4}")))
        };
        if let Some(said) = said(&row.test).or_else(|| said(&row.validation)) {
            self.bar.set_message(said);
        }
    }

    fn begins(&mut self, what: &str) {
        self.bar.set_message(what.to_owned());
    }
}
