//! What a client does: its session decides, and what it decides takes simulated time.

use std::time::Duration;

use sheaf_client::departure::Uplink;
use sheaf_client::masking;
use sheaf_client::session::{Effect, Input, Task, Then, TransferFailure, WorkFailure};
use sheaf_client::worker::{self, Site};
use sheaf_common::blob::BlobId;
use sheaf_common::message::{BlobReply, Open as OpenStream, ServerMessage, SiteMessage, TaskId, Update};
use sheaf_common::run::{HeldOut, LocalWork, RunSpec};
use sheaf_common::secagg::client::{Client as SecureClient, Witness};
use sheaf_common::wire;

use super::server::body;
use super::{Done, Event, Federation, FederationError, Told};
use crate::client::{self, Client};
use crate::pool::CallOff;
use crate::profile::{self, Mood};
use crate::rounds::Traffic;

impl Federation {
    /// A frame from the server.
    pub(super) fn reach_client(&mut self, to: u32, link: u64, frame: &[u8]) -> Result<(), FederationError> {
        if !self.holds(to, link) {
            return Ok(());
        }
        let message: ServerMessage = wire::decode(body(frame))?;
        if let ServerMessage::Train(task) = &message {
            self.wake(to)?;
            let mood = self.mood(to, &task.id);
            if let Some(client) = self.awake.get_mut(&to) {
                (client.mood, client.said) = (mood, 0);
            }
        }
        self.input(to, Input::Message(message))
    }

    /// What a client did beside its session came to its end.
    pub(super) fn tell(&mut self, client: u32, link: u64, what: Told) -> Result<(), FederationError> {
        if !self.awake.contains_key(&client) || what.is_transfer() && !self.holds(client, link) {
            return self.call_off(client, &what);
        }
        if let (Told::Fetched(..) | Told::Checked(..), Some(client)) = (&what, self.awake.get_mut(&client)) {
            client.arriving.clear();
        }
        let input = match what {
            Told::Fetched(task, result) => Input::Fetched(task, result),
            Told::Checked(task, ticket) => {
                let done = self.pool.wait(ticket);
                let broken = || Err(TransferFailure::Refused("the check broke down".into()));
                let result = if let Some(Done::Checked(result)) = done { result } else { broken() };
                Input::Fetched(task, result)
            }
            Told::Worked(task, ticket) => {
                let done = self.pool.wait(ticket);
                let broken = || Err(WorkFailure::Declined("the worker broke down".into()));
                let result = if let Some(Done::Worked(result)) = done { result } else { broken() };
                Input::Worked(task, result)
            }
            Told::Masked(task, ticket) => {
                let done = self.pool.wait(ticket);
                let broken = || Err("the worker broke down".into());
                let result = if let Some(Done::Masked(result)) = done { result } else { broken() };
                Input::Masked(task, result)
            }
            Told::Uploaded(task, blob) => {
                let arrived = self.arrive(client, blob)?;
                Input::Uploaded(task, arrived.then_some(()).ok_or(TransferFailure::Lost))
            }
        };
        self.input(client, input)
    }

    /// An update, or a masked vector, is at the server.
    fn arrive(&mut self, client: u32, blob: BlobId) -> Result<bool, FederationError> {
        let Some(client) = self.awake.get(&client) else { return Ok(false) };
        let state = &client.state;
        let from = if state.masked.length(blob).is_some() { &state.masked } else { &state.deltas };
        self.arrived.insert(blob);
        Ok(self.hub.updates.link(from, blob)?)
    }

    /// Feeds a client's session and does what it wants done; a client with nothing in hand goes to sleep.
    pub(super) fn input(&mut self, number: u32, input: Input) -> Result<(), FederationError> {
        self.wake(number)?;
        let Some(client) = self.awake.get_mut(&number) else { return Ok(()) };
        for effect in client.handle(input) {
            self.carry_out(number, effect)?;
        }
        if self.awake.get(&number).is_some_and(Client::is_at_rest) {
            self.sleep(number)?;
        }
        Ok(())
    }

    fn carry_out(&mut self, number: u32, effect: Effect) -> Result<(), FederationError> {
        match effect {
            Effect::Fetch { task, witness } => return self.fetch(number, task, witness),
            Effect::Work(task) => return self.work(number, task),
            Effect::Cancel => return self.stop_work(number),
            Effect::Mask { client, update } => self.mask(number, client, update),
            Effect::Upload { task, blob } => return self.upload(number, task, blob),
            Effect::Say(message) => return self.say(number, &message),
            Effect::Remember { memory, then } => {
                if let Some(client) = self.awake.get(&number) {
                    client.state.remember(&memory)?;
                }
                return match then {
                    Some(Then::Say(message)) => self.say(number, &message),
                    Some(Then::Upload { task, blob }) => self.upload(number, task, blob),
                    None => Ok(()),
                };
            }
            Effect::Rename { from, finished } => {
                if let Some(client) = self.awake.get_mut(&number) {
                    client.globals.remove(&from);
                    client.state.rename(&from, &finished)?;
                }
            }
            Effect::Discard(blob) => {
                if let Some(client) = self.awake.get(&number) {
                    client.state.masked.remove(blob)?;
                }
            }
            Effect::Release(global) => {
                if let Some(client) = self.awake.get(&number) {
                    client.state.blobs.remove(global)?;
                }
            }
            Effect::Forget(task) => {
                if let Some(client) = self.awake.get_mut(&number) {
                    client.forget(&task)?;
                }
            }
        }
        Ok(())
    }

    fn fetch(
        &mut self,
        number: u32,
        task: Task,
        witness: Option<Box<Witness>>,
    ) -> Result<(), FederationError> {
        let Some(client) = self.awake.get_mut(&number) else { return Ok(()) };
        client.globals.insert(task.id().clone(), task.job().global);
        let state = client.state.clone();
        let blobs = client::wanted(&state, &task, witness.is_some());
        client.arriving.clone_from(&blobs);
        let waits = self.fetch_model(number)?;
        let mut bytes = 0;
        for blob in &blobs {
            let length = self.hub.blobs.length(*blob).unwrap_or(0);
            self.traffic.up += wire::frame(&OpenStream::Get { blob: *blob, offset: 0 })?.len() as u64;
            bytes += length + wire::frame(&BlobReply::Found { length })?.len() as u64;
        }
        self.traffic.down += bytes;
        // There and back again, unless nothing is needed.
        let takes = match (self.members.get(number as usize), blobs.is_empty()) {
            (Some(member), false) => member.profile.send(0) + member.profile.receive(bytes),
            (Some(_) | None, _) => Duration::ZERO,
        };
        let id = task.id().clone();
        let told = match (client::fetch(&self.hub.blobs, self.examples.base(), &state, &blobs), witness) {
            (Ok(()), Some(witness)) => {
                let check = move |_: &CallOff| Done::Checked(client::rebuild(&state, &task, &witness));
                Told::Checked(id, self.pool.submit(Box::new(check)))
            }
            (result, _) => Told::Fetched(id, result),
        };
        self.later(number, waits + takes, told);
        Ok(())
    }

    /// How long a client waits for the imported model: it fetches it once, one file after the other.
    fn fetch_model(&mut self, number: u32) -> Result<Duration, FederationError> {
        let (Some(base), Some(member)) = (self.examples.base(), self.members.get_mut(number as usize)) else {
            return Ok(Duration::ZERO);
        };
        if member.model.is_none() {
            let mut arrives = self.now;
            for (blob, length) in base.files() {
                let asked = wire::frame(&OpenStream::Get { blob, offset: 0 })?.len() as u64;
                let sent = length + wire::frame(&BlobReply::Found { length })?.len() as u64;
                self.traffic += Traffic { up: asked, down: sent };
                arrives = arrives.after(member.profile.send(0) + member.profile.receive(sent));
            }
            member.model = Some(arrives);
        }
        Ok(member.model.map_or(Duration::ZERO, |arrives| arrives.since(self.now)))
    }

    fn work(&mut self, number: u32, task: Task) -> Result<(), FederationError> {
        let (Some(client), Some(member)) = (self.awake.get(&number), self.members.get(number as usize))
        else {
            return Ok(());
        };
        let trains = matches!(task, Task::Train(_));
        if trains && client.mood.silent_after == Some(0) {
            // It is gone before it has done anything, and nobody is told.
            return Ok(());
        }
        let slowdown = if trains { client.mood.slowdown } else { 1.0 };
        let spec = &task.job().spec;
        let does = match &task {
            Task::Train(_) => Does::Train,
            _ if task.id().is_test() => Does::Test,
            _ if spec.validation.leaves_out(member.name.as_str()) => Does::EvaluateOnAll,
            _ => Does::Evaluate,
        };
        let examples = passes(spec, &self.examples.classes(number), does);
        let takes = member.profile.compute(examples, slowdown);
        let site = Site {
            name: member.name.clone(),
            datasets: std::collections::BTreeMap::new(),
            device: self.simulation.device,
            policy: client::policy(),
            state: client.state.clone(),
            uplink: Uplink::default(),
        };
        let (id, examples) = (task.id().clone(), self.examples.clone());
        let job = move |call_off: &CallOff| {
            let opener = |site: &Site, task: &Task, folder: Option<&std::path::Path>| {
                examples.open(number, site, task, folder)
            };
            Done::Worked(worker::once(&site, &task, &opener, call_off))
        };
        let ticket = self.pool.submit(Box::new(job));
        self.later(number, takes, Told::Worked(id, ticket));
        Ok(())
    }

    fn mask(&mut self, number: u32, secure: Box<SecureClient>, update: Box<Update>) {
        let Some(client) = self.awake.get(&number) else { return };
        let (state, task) = (client.state.clone(), update.task.clone());
        let job = move |_: &CallOff| {
            Done::Masked(masking::mask(&state, &secure, &update).map_err(|error| error.for_operator()))
        };
        let ticket = self.pool.submit(Box::new(job));
        self.later(number, Duration::ZERO, Told::Masked(task, ticket));
    }

    fn upload(&mut self, number: u32, task: TaskId, blob: BlobId) -> Result<(), FederationError> {
        let (Some(client), Some(member)) = (self.awake.get(&number), self.members.get(number as usize))
        else {
            return Ok(());
        };
        let state = &client.state;
        let length = state.masked.length(blob).or_else(|| state.deltas.length(blob)).unwrap_or(0);
        let bytes = length + wire::frame(&OpenStream::Put { blob, length })?.len() as u64;
        self.traffic.up += bytes;
        let replies = [BlobReply::Send { offset: 0 }, BlobReply::Stored];
        for reply in &replies {
            self.traffic.down += wire::frame(reply)?.len() as u64;
        }
        // There, back, and there again with the blob, of which the server says that it has it.
        let takes = member.profile.send(0) + member.profile.receive(0) + member.profile.send(bytes);
        self.later(number, takes, Told::Uploaded(task, blob));
        Ok(())
    }

    /// Sends a message to the server, unless the client is not connected or has fallen silent.
    fn say(&mut self, number: u32, message: &SiteMessage) -> Result<(), FederationError> {
        let (Some(client), Some(member)) = (self.awake.get_mut(&number), self.members.get(number as usize))
        else {
            return Ok(());
        };
        if !member.is_online || !client.speaks() {
            return Ok(());
        }
        let frame = wire::frame(message)?;
        self.traffic.up += frame.len() as u64;
        let arrives = self.now.after(member.profile.send(frame.len() as u64));
        self.agenda.push(arrives, Event::ToServer { from: number, frame });
        Ok(())
    }

    fn later(&mut self, client: u32, takes: Duration, what: Told) {
        let link = self.members.get(client as usize).map_or(0, |member| member.changes);
        self.agenda.push(self.now.after(takes), Event::Told { client, link, what });
    }

    /// Whether a client still has the connection that something began with.
    fn holds(&self, client: u32, link: u64) -> bool {
        let member = self.members.get(client as usize);
        member.is_some_and(|member| member.is_online && member.changes == link)
    }

    /// Calls off what a client has under way beside its session: its worker's job.
    fn stop_work(&mut self, number: u32) -> Result<(), FederationError> {
        let mut stopped = Vec::new();
        self.agenda.retain(|event| match event {
            Event::Told { client, what: what @ Told::Worked(..), .. } if *client == number => {
                stopped.push(what.clone());
                false
            }
            Event::Told { .. }
            | Event::ToServer { .. }
            | Event::ToClient { .. }
            | Event::Change(_)
            | Event::Made(_)
            | Event::Tick => true,
        });
        stopped.iter().try_for_each(|what| self.call_off(number, what))
    }

    /// Nobody waits for this any more: it is as if it had not been begun, whether a worker has finished it or not.
    pub(super) fn call_off(&mut self, client: u32, what: &Told) -> Result<(), FederationError> {
        let Some((task, ticket)) = what.job() else { return Ok(()) };
        self.pool.call_off(ticket);
        if let (Told::Worked(..), Some(client)) = (what, self.awake.get(&client)) {
            client.state.forget(task, None)?;
        }
        Ok(())
    }

    /// How a client behaves in an attempt.
    fn mood(&self, number: u32, task: &TaskId) -> Mood {
        let calm = Mood { slowdown: 1.0, silent_after: None };
        self.members
            .get(number as usize)
            .map_or(calm, |member| profile::mood(&self.simulation, &member.name, task, self.is_secure()))
    }
}

/// What a client does with its examples.
#[derive(Clone, Copy)]
enum Does {
    /// Trains on those that are not held out.
    Train,
    /// Evaluates on those that are.
    Evaluate,
    /// Evaluates on both: the run leaves it out.
    EvaluateOnAll,
    /// Tests the run's result on its test split.
    Test,
}

/// Examples that a task passes over, at least one, of so many in each class.
fn passes(spec: &RunSpec, classes: &[u64], does: Does) -> u64 {
    let all = classes.iter().sum::<u64>() as f64;
    let test = spec.validation.test_split;
    let held_out = match spec.validation.held_out {
        HeldOut::Share(share) => share,
        HeldOut::Fold(fold) => 1.0 / f64::from(fold.of.max(1)),
    };
    let most = spec.training.max_examples_per_class.map_or(f64::INFINITY, f64::from);
    let trained = |class: &u64| (*class as f64 * (1.0 - test) * (1.0 - held_out)).min(most);
    let passes = match (does, spec.training.local) {
        (Does::Train, LocalWork::Epochs(epochs)) => {
            classes.iter().map(trained).sum::<f64>() * f64::from(epochs)
        }
        (Does::Train, LocalWork::Steps(steps)) => {
            let step = f64::from(spec.training.batch_size) * f64::from(spec.training.accumulation_steps);
            f64::from(steps) * step
        }
        (Does::Evaluate, _) => all * (1.0 - test) * held_out,
        (Does::EvaluateOnAll, _) => all * (1.0 - test),
        (Does::Test, _) => all * test,
    };
    (passes as u64).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_passes_over_what_its_part_of_the_examples_is() {
        let run = |training: &str| {
            let text = format!(
                "name = \"toy\"\nrounds = 1\nmodel = {{ architecture = \"softmax\" }}\n[task]\ntype = \"tabular-classification\"\n\
                 dataset = \"data\"\nlabel = \"y\"\nlabels = [\"no\", \"yes\"]\nfeatures = [{{ column = \"x\", type = \"numeric\" }}]\n\
                 [validation]\ntest_split = 0.1\n[training]\nvalidation_split = 0.2\n{training}\n"
            );
            RunSpec::parse("run.toml", &text).unwrap()
        };
        let (all, few) = (run("local_epochs = 2"), run("local_epochs = 2\nmax_examples_per_class = 10"));
        let classes = [100, 900];
        assert_eq!(passes(&all, &classes, Does::Train), 1440);
        assert_eq!(passes(&few, &classes, Does::Train), 40);
        assert_eq!(passes(&run("local_steps = 3\nbatch_size = 5"), &classes, Does::Train), 15);
        let looks = [Does::Evaluate, Does::EvaluateOnAll, Does::Test];
        assert_eq!(looks.map(|does| passes(&few, &classes, does)), [180, 900, 100]);
        assert_eq!(passes(&all, &[], Does::Train), 1);
    }
}
