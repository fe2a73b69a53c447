//! What the server does when something reaches it: the coordinator decides, and what it decides is done.

use std::sync::Arc;

use sheaf_common::message::{Hello, Open as OpenStream, ServerMessage, SiteMessage};
use sheaf_common::wire::{self, PROTOCOL_VERSION};
use sheaf_server::core::{Effect, Input};
use sheaf_server::journal::{Step, step};
use sheaf_server::store::Write;

use super::{Event, Federation, FederationError};
use crate::hub::{self, Work};
use crate::rounds::{Row, Traffic};

impl Federation {
    /// A frame from a client.
    pub(super) fn reach_server(&mut self, from: u32, frame: &[u8]) -> Result<(), FederationError> {
        let message: SiteMessage = wire::decode(body(frame))?;
        let Some(member) = self.members.get(from as usize) else { return Ok(()) };
        let name = member.name.clone();
        match self.hub.understand(&name, message)? {
            Some(input) => self.feed(input),
            None => Ok(()),
        }
    }

    /// Gives the run an input and does what follows from it. When a round is over because of it, everything else that
    /// is under way is dropped first, and what matters is written down last.
    pub(super) fn feed(&mut self, input: Input) -> Result<(), FederationError> {
        let Step { writes, effects } = step(&mut self.run, input, self.now);
        let mut records = Vec::new();
        let mut is_boundary = false;
        for write in writes {
            match write {
                Write::Round { record, .. } => records.push(record),
                Write::FinalMetrics { report, .. } => self.last.validation = Some(*report),
                Write::TestMetrics { report, .. } => self.last.test = Some(*report),
                Write::Snapshot(_) => is_boundary = true,
                Write::Run(_)
                | Write::Input { .. }
                | Write::Ended { .. }
                | Write::Model(_)
                | Write::Site(_)
                | Write::Standing { .. }
                | Write::Invitation(..) => {}
            }
        }
        if is_boundary {
            self.drop_work()?;
        }
        for effect in &effects {
            self.perform(effect)?;
        }
        for record in records {
            let test = self.score(&record)?;
            let traffic = std::mem::take(&mut self.traffic);
            let row = Row::of(&record, test, traffic, self.now, self.clock.spent());
            self.globals.extend(row.global);
            self.keep(row)?;
            self.moved = self.now;
        }
        if is_boundary {
            self.write_down()?;
        }
        self.await_deadline()
    }

    fn perform(&mut self, effect: &Effect) -> Result<(), FederationError> {
        if let Effect::Withdraw(sum) = effect {
            self.withdrawn.push(*sum);
            return Ok(());
        }
        if self.hub.clear(&self.run, effect)? {
            return Ok(());
        }
        let work = match effect {
            Effect::Aggregate(round) => Some(Work::Aggregate(round.clone())),
            Effect::Open(sum) => Some(Work::Open(sum.clone())),
            Effect::Train { .. }
            | Effect::Evaluate { .. }
            | Effect::Ask { .. }
            | Effect::Reject { .. }
            | Effect::Over { .. }
            | Effect::Record(_)
            | Effect::FinalMetrics(_)
            | Effect::TestMetrics(_)
            | Effect::Forget(_)
            | Effect::Withdraw(_)
            | Effect::Ended(_) => None,
        };
        if let Some(work) = work {
            // The server's own work takes no simulated time, and its result is told like everything else.
            let made = self.hub.work(&self.run.job(), &work);
            self.agenda.push(self.now, Event::Made(Box::new(made)));
            return Ok(());
        }
        let Some((to, message)) = hub::message(&self.run, effect, self.now) else { return Ok(()) };
        let Some(to) = self.numbers.get(&to).copied() else { return Ok(()) };
        self.say_to(to, &message)
    }

    /// Sends a message to a client that is connected; to one that is not, the server says it again when it comes.
    fn say_to(&mut self, to: u32, message: &ServerMessage) -> Result<(), FederationError> {
        let Some(member) = self.members.get(to as usize).filter(|member| member.is_online) else {
            return Ok(());
        };
        let frame = wire::frame(message)?;
        if *self.sent != frame {
            self.sent = Arc::new(frame);
        }
        let frame = self.sent.clone();
        self.traffic.down += frame.len() as u64;
        let arrives = self.now.after(member.profile.receive(frame.len() as u64));
        self.agenda.push(arrives, Event::ToClient { to, link: member.changes, frame });
        Ok(())
    }

    /// What is said when a client connects, which is the same for all.
    pub(super) fn greeting(&self) -> Result<Traffic, FederationError> {
        let software = env!("CARGO_PKG_VERSION").to_owned();
        let run = self.run.run();
        let hello = OpenStream::Site(Hello { protocol: PROTOCOL_VERSION, software: software.clone() });
        let standby = SiteMessage::Standby { run: run.id.clone(), held: None };
        let welcome = ServerMessage::Welcome { federation: run.federation.clone(), software };
        let announce = ServerMessage::Announce { run: run.id.clone(), job: Box::new(self.run.job()) };
        Ok(Traffic {
            up: (wire::frame(&hello)?.len() + wire::frame(&standby)?.len()) as u64,
            down: (wire::frame(&welcome)?.len() + wire::frame(&announce)?.len()) as u64,
        })
    }

    /// Puts the run's next deadline down, unless it is.
    pub(super) fn await_deadline(&mut self) -> Result<(), FederationError> {
        if let Some(due) = self.run.poll_timeout()
            && self.awaited != Some(due)
        {
            self.awaited = Some(due);
            self.agenda.push(due.max(self.now), Event::Tick);
        }
        Ok(())
    }
}

/// A frame without its length.
pub(super) fn body(frame: &[u8]) -> &[u8] {
    frame.get(4..).unwrap_or_default()
}
