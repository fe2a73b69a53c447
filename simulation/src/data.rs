//! The examples of all clients, in memory once: a client is a list of places in them.
//!
//! They are read and encoded by the sites' own code, by the run's contract, and a client's part is divided by it too
//! (what is held out for validation and test), so that a client trains as a site with these examples would.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rand::seq::SliceRandom;
use sheaf_client::config::DatasetConfig;
use sheaf_client::data::{Dataset, Inputs, Stored, Targets};
use sheaf_client::device::DeviceChoice;
use sheaf_client::session::Task;
use sheaf_client::trainer::Trainer;
use sheaf_client::trainer::open::{self, OpenError};
use sheaf_client::worker::Site;
use sheaf_common::message::Job;
use sheaf_common::seed;

use crate::base::Base;
use crate::config::{Data, Partition, Setting, Test};
use crate::partition::{self, Holdings, PartitionError};

/// Texts of a file that are read at a time.
const AT_ONCE: usize = 1024;

/// What the clients hold, and what the global model is tested on.
#[derive(Debug)]
pub struct Examples {
    /// The imported model that they are for, if there is one.
    base: Option<Arc<Base>>,
    all: Dataset,
    groups: Option<Vec<u32>>,
    /// The places of each client's examples.
    holdings: Holdings,
    test: Option<Dataset>,
}

/// The examples cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// The files are not what the run asks for.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// They cannot be divided as asked.
    #[error(transparent)]
    Partition(#[from] PartitionError),
    /// The share that is to be tested on is no example.
    #[error(
        "data.test_share = {share} of {of} comes to no example: give a larger share, or files as data.test"
    )]
    NoTest {
        /// The share.
        share: f64,
        /// What it is of.
        of: String,
    },
    /// Examples that are kept in a file cannot be read again.
    #[error("cannot read the examples again: {0}")]
    Read(io::Error),
}

impl Examples {
    /// Reads and divides the examples that a run is simulated with. `base` is the imported model that it starts from, if it
    /// does.
    pub fn load(setting: &Setting, job: &Job, base: Option<Arc<Base>>) -> Result<Self, DataError> {
        let Some(data) = &setting.simulation.data else { return Ok(Self::nothing(setting, job, base)?) };
        let read = |job: &Job, config: &DatasetConfig| {
            let datasets = BTreeMap::from([(job.spec.task.dataset.clone(), config.clone())]);
            open::load_grouped(job, base.as_deref().map(Base::folder), &datasets)
        };
        let (all, groups) = read(job, &data.source)?;
        let values = column(data).map(|column| {
            let mut job = job.clone();
            job.spec.task.group = Some(column.to_owned());
            read(&job, &data.source).map(|(_, groups)| groups.unwrap_or_default())
        });
        let values = values.transpose()?;
        let labels = all.targets.classes();
        let seed = setting.simulation.seed;
        let share = if let Test::Share(share) = data.test { share } else { 0.0 };
        let (test, rest) = set_aside(&labels, groups.as_deref(), share, seed);
        if share > 0.0 && test.is_empty() {
            let examples = format!("{} examples", labels.len());
            let of = if groups.is_some() { format!("{examples} in groups") } else { examples };
            return Err(DataError::NoTest { share, of });
        }
        let test = match &data.test {
            Test::Source(source) => Some(read(job, source)?.0),
            Test::Nothing | Test::Share(_) => (!test.is_empty()).then(|| all.select(&test)),
        };
        let clients = setting.simulation.clients;
        let by = partition::By { labels: &labels, values: values.as_deref(), seed };
        let holdings = partition::divide(&data.partition, clients, rest, &by)?;
        Ok(Self { base, all, groups, holdings, test })
    }

    /// Clients of a run that needs no data.
    fn nothing(setting: &Setting, job: &Job, base: Option<Arc<Base>>) -> Result<Self, OpenError> {
        let (all, groups) = open::load_grouped(job, None, &BTreeMap::new())?;
        let holdings = Holdings::nothing(setting.simulation.clients);
        Ok(Self { base, all, groups, holdings, test: None })
    }

    /// How many examples a client has.
    pub fn count(&self, client: u32) -> u64 {
        self.holdings.of(client).len() as u64
    }

    /// The client that has each of the source's examples, in their order; nobody has what is tested on.
    pub fn owners(&self) -> Vec<Option<u32>> {
        let mut owners = vec![None; self.all.len()];
        for (places, client) in self.holdings.each().zip(0..) {
            places.iter().for_each(|place| owners[*place] = Some(client));
        }
        owners
    }

    /// Examples of each of the run's labels that a client has; nothing where there are no labels.
    pub fn labels(&self, client: u32, num_labels: usize) -> Vec<u64> {
        self.all.targets.select(self.holdings.of(client)).label_counts(num_labels)
    }

    /// Examples of each class that a client has, as a trainer divides them: all in one where an example has not exactly one label.
    pub fn classes(&self, client: u32) -> Vec<u64> {
        let mut counts = BTreeMap::<u32, u64>::new();
        for class in self.all.targets.select(self.holdings.of(client)).classes() {
            *counts.entry(class).or_default() += 1;
        }
        counts.into_values().collect()
    }

    /// What the global model is tested on.
    pub fn test(&self) -> Option<&Dataset> {
        self.test.as_ref()
    }

    /// The imported model that they are for.
    pub fn base(&self) -> Option<&Arc<Base>> {
        self.base.as_ref()
    }

    /// Its folder.
    pub fn model_dir(&self) -> Option<&Path> {
        self.base.as_deref().map(Base::folder)
    }

    /// The trainer of a client's task, on its own examples.
    pub fn open(
        &self,
        client: u32,
        site: &Site,
        task: &Task,
        model_dir: Option<&Path>,
    ) -> Result<Box<dyn Trainer>, OpenError> {
        let (job, name) = (task.job(), site.name.as_str());
        let (own, groups) = self.own(self.holdings.of(client));
        let split = if task.id().is_test() {
            open::divide_test(job, own, groups, name)
        } else {
            open::divide(job, own, groups, name)?
        };
        open::on_split(job, model_dir, split, name, site.device, &site.policy)
    }

    /// A trainer for a client alone or, without one, for all clients' examples in one place.
    pub fn alone(
        &self,
        client: Option<u32>,
        job: &Job,
        name: &str,
        device: DeviceChoice,
    ) -> Result<Box<dyn Trainer>, OpenError> {
        let (own, groups) = match client {
            Some(client) => self.own(self.holdings.of(client)),
            None => self.own(&self.holdings.all()),
        };
        let split = open::divide(job, own, groups, name)?;
        open::on_split(job, self.model_dir(), split, name, device, &crate::client::policy())
    }

    /// Whatever tells these examples, and who has them, from others.
    pub fn tell_apart(&self, hasher: &mut blake3::Hasher) -> Result<(), DataError> {
        for data in [Some(&self.all), self.test.as_ref()].into_iter().flatten() {
            hash(data, hasher).map_err(DataError::Read)?;
        }
        self.groups.iter().flatten().for_each(|group| _ = hasher.update(&group.to_le_bytes()));
        for places in self.holdings.each() {
            hasher.update(&(places.len() as u64).to_le_bytes());
            places.iter().for_each(|place| _ = hasher.update(&(*place as u64).to_le_bytes()));
        }
        Ok(())
    }

    fn own(&self, places: &[usize]) -> (Dataset, Option<Vec<u32>>) {
        let groups = self.groups.as_ref().map(|groups| places.iter().map(|place| groups[*place]).collect());
        (self.all.select(places), groups)
    }
}

/// The column whose values are clients.
fn column(data: &Data) -> Option<&str> {
    match &data.partition {
        Partition::Column(column) => Some(column),
        Partition::Iid
        | Partition::Dirichlet { .. }
        | Partition::Shards { .. }
        | Partition::Quantity { .. } => None,
    }
}

/// The places that are tested on and those of all clients, each in the source's order. Every label gives its share or, where
/// examples are in groups, whole groups come to it.
fn set_aside(labels: &[u32], groups: Option<&[u32]>, share: f64, seed: u64) -> (Vec<usize>, Vec<usize>) {
    let all = 0..labels.len();
    let count = |of: usize| (of as f64 * share).round() as usize;
    let mut tested = vec![false; labels.len()];
    if let Some(groups) = groups {
        let mut groups: Vec<Vec<usize>> = partition::by_label(groups, all.clone()).into_values().collect();
        groups.shuffle(&mut seed::stream(seed, &["test", "groups"]));
        let mut left = count(labels.len());
        for group in groups {
            if group.len() <= left {
                left -= group.len();
                group.into_iter().for_each(|place| tested[place] = true);
            }
        }
    } else {
        for (label, mut places) in partition::by_label(labels, all.clone()) {
            places.shuffle(&mut seed::stream(seed, &["test", &label.to_string()]));
            let count = count(places.len());
            places.into_iter().take(count).for_each(|place| tested[place] = true);
        }
    }
    all.partition(|place| tested[*place])
}

/// All of a data set, of which nothing is given out; what is kept in a file is read once more.
fn hash(data: &Dataset, hasher: &mut blake3::Hasher) -> io::Result<()> {
    match &data.inputs {
        Inputs::Table { values, .. } => hash_numbers(values, hasher),
        Inputs::Images { values, .. } => _ = hasher.update(values),
        Inputs::Text(texts) => hash_texts(texts, hasher),
        Inputs::StoredText(texts) => {
            for begun in (0..texts.len()).step_by(AT_ONCE) {
                hash_texts(&texts.read(begun..texts.len().min(begun + AT_ONCE))?, hasher);
            }
        }
        Inputs::StoredTable { width, rows } => hash_stored(rows, width * size_of::<f32>(), hasher)?,
        Inputs::StoredImages { size, images } => hash_stored(images, 3 * size * size, hasher)?,
    }
    match &data.targets {
        Targets::Label(labels) => labels.iter().for_each(|label| _ = hasher.update(&label.to_le_bytes())),
        Targets::Labels { values, .. } => {
            values.iter().for_each(|has| _ = hasher.update(&[u8::from(*has)]));
        }
        Targets::Number(numbers) => hash_numbers(numbers, hasher),
        Targets::Answer(answers) => hash_texts(answers, hasher),
        // They follow from the inputs.
        Targets::Inputs(_) | Targets::Tokens(_) => {}
    }
    Ok(())
}

fn hash_numbers(numbers: &[f32], hasher: &mut blake3::Hasher) {
    numbers.iter().for_each(|number| _ = hasher.update(&number.to_le_bytes()));
}

fn hash_texts(texts: &[String], hasher: &mut blake3::Hasher) {
    texts.iter().for_each(|text| _ = hasher.update(text.as_bytes()).update(b"\0"));
}

fn hash_stored(examples: &Stored, size: usize, hasher: &mut blake3::Hasher) -> io::Result<()> {
    let mut bytes = vec![0; size];
    for example in 0..examples.places.len() {
        examples.read(example, &mut bytes)?;
        hasher.update(&bytes);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_give_their_shares_to_the_test_and_groups_stay_together() {
        let labels: Vec<u32> = (0..100).map(|place| u32::from(place < 40)).collect();
        let groups: Vec<u32> = (0..100).map(|place| place % 17).collect();
        for seed in 0..5 {
            let (test, rest) = set_aside(&labels, None, 0.2, seed);
            assert_eq!((test.iter().filter(|place| **place < 40).count(), test.len()), (8, 20));
            let (grouped, others) = set_aside(&labels, Some(&groups), 0.2, seed);
            let apart = |places: &[usize], of: u32| places.iter().any(|place| groups[*place] == of);
            assert!((0..17).all(|of| apart(&grouped, of) != apart(&others, of)), "{grouped:?}");
            assert!((15..=20).contains(&grouped.len()), "{grouped:?}");
            assert_eq!((test.len() + rest.len(), grouped.len() + others.len()), (100, 100));
        }
    }
}
