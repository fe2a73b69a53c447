//! An imported perceptron with two hidden layers, small enough to be written out, and what becomes of it.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sheaf_common::id::RunId;
use sheaf_common::model::{CONFIG_FILE, WEIGHTS_FILE};
use sheaf_common::params::{from_bytes, to_bytes};

use crate::Federation;

/// Its tensors: four inputs, hidden layers of four and three, two labels.
const SHAPES: [(&str, &[usize]); 6] = [
    ("layers.0.weight", &[4, 4]),
    ("layers.0.bias", &[4]),
    ("layers.1.weight", &[3, 4]),
    ("layers.1.bias", &[3]),
    ("layers.2.weight", &[2, 3]),
    ("layers.2.bias", &[2]),
];

/// A model's values by the names of its tensors.
#[derive(Debug)]
pub struct Perceptron(BTreeMap<String, Vec<f32>>);

impl Perceptron {
    /// Writes it as the folder `base` and has the server import it under that name.
    pub fn import(federation: &Federation) -> Result<Self> {
        let folder = federation.path().join("base");
        fs::create_dir(&folder)?;
        let feature =
            |column| json!({ "column": column, "type": "numeric", "mean": 0.0, "std": 1.0, "missing": [] });
        let config = json!({
            "model_type": "mlp", "hidden": [4, 3], "inputs": 4, "labels": ["no", "yes"],
            "features": [feature("x"), feature("z")],
        });
        fs::write(folder.join(CONFIG_FILE), config.to_string())?;
        let (mut header, mut values) = (serde_json::Map::new(), Vec::new());
        for (name, shape) in SHAPES {
            let start = values.len() * 4;
            // With such biases no hidden unit is silent for all inputs.
            let (number, bias) = (values.len(), if shape.len() == 1 { 0.5 } else { 0.0 });
            values.extend(
                (0..shape.iter().product()).map(|at| bias + ((number + at) as f32 * 0.7).sin() * 0.3),
            );
            let place = json!({ "dtype": "F32", "shape": shape, "data_offsets": [start, values.len() * 4] });
            header.insert(name.into(), place);
        }
        let header = Value::Object(header).to_string();
        let mut file = (header.len() as u64).to_le_bytes().to_vec();
        file.extend(header.into_bytes());
        file.extend(to_bytes(&values));
        fs::write(folder.join(WEIGHTS_FILE), file)?;
        federation.sheaf(&["model", "import", &folder.display().to_string(), "--name", "base"])?;
        Self::read(&folder)
    }

    /// The model of a run after a round, by default its result.
    pub fn export(federation: &Federation, run: &RunId, round: Option<u32>) -> Result<Self> {
        let number = round.map(|round| round.to_string());
        let folder = federation.path().join(format!("after-{}", number.as_deref().unwrap_or("all")));
        let out = folder.display().to_string();
        let mut arguments = vec!["model", "export", run.as_str(), "--out", &out];
        arguments.extend(number.as_deref().into_iter().flat_map(|number| ["--round", number]));
        federation.sheaf(&arguments)?;
        Self::read(&folder)
    }

    /// The model in a folder.
    pub fn read(folder: &Path) -> Result<Self> {
        let file = fs::read(folder.join(WEIGHTS_FILE))?;
        let (length, rest) = file.split_first_chunk().context("no header")?;
        let (header, data) =
            rest.split_at_checked(u64::from_le_bytes(*length) as usize).context("no header")?;
        let header: BTreeMap<String, Value> = serde_json::from_slice(header)?;
        let tensor = |(name, place): (String, Value)| {
            let [start, end] = serde_json::from_value(place.get("data_offsets")?.clone()).ok()?;
            Some((name, from_bytes(data.get(start..end)?)))
        };
        Ok(Self(header.into_iter().filter_map(tensor).collect()))
    }

    /// The values of a tensor.
    pub fn values(&self, name: &str) -> Result<&[f32]> {
        self.0.get(name).map(Vec::as_slice).with_context(|| format!("no {name}"))
    }
}

/// Two clouds of points, of which site number `site` sees mostly one.
pub fn csv(site: u32) -> String {
    let row = |at: u32| {
        let positive = (at + site).is_multiple_of(3);
        let wave = f64::from(at * 37 % 101) / 101.0 - 0.5;
        let (centre, label) = if positive { (1.0, "yes") } else { (-1.0, "no") };
        format!("{:.4},{:.4},{label}\n", centre + wave, f64::from(site) * 0.1 - wave)
    };
    format!("x,z,label\n{}", (0..60).map(row).collect::<String>())
}

/// A run of so many rounds that starts from it, with more lines for the model and the cohort.
pub fn run(rounds: u32, model: &str, cohort: &str) -> String {
    format!(
        r#"name = "toy"
rounds = {rounds}
seed = 7

[model]
name = "base"
{model}

[task]
type = "tabular-classification"
dataset = "data"
label = "label"
labels = ["no", "yes"]
features = [{{ column = "x", type = "numeric" }}, {{ column = "z", type = "numeric" }}]

[training]
learning_rate = 0.05
batch_size = 16
validation_split = 0.0

[cohort]
{cohort}
"#
    )
}
