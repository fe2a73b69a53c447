//! A survey end to end: real processes, the program `sheaf`, an encrypted sum. What it finds is what plain arithmetic over
//! the union of the sites' tables gives, nothing is trained, and the run that it writes has it.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;
use sheaf_common::id::Role;
use sheaf_common::run::{ClassWeights, FeatureKind, RunSpec, TaskInput};
use sheaf_common::status::RunState;
use sheaf_tests::Federation;

const RUN: &str = r#"# a survey comes before it
name = "toy"
rounds = 3
model = { architecture = "mlp" }

[task]
type = "tabular-classification"
dataset = "data"
label = "label"
labels = ["no", "yes"]
features = [
    { column = "x", type = "numeric", missing = ["?"] }, # in cm
    { column = "z", type = "numeric", mean = 1.5e6, std = 500.0 },
    { column = "kind", type = "categorical", categories = ["a", "b"] },
]

[cohort]
min_sites = 3
min_updates = 3
"#;

/// A site's rows: `x`, which may be missing, `z`, kind and label.
fn rows(site: u32) -> Vec<(Option<f64>, f64, &'static str, &'static str)> {
    let row = |i: u32| {
        let wave = f64::from((i * 37 + site * 11) % 101) / 10.0;
        let x = (!i.is_multiple_of(7)).then_some(wave - 3.0 * f64::from(site));
        let kind = if i.is_multiple_of(4) { "a" } else { "b" };
        let label = if (i + site).is_multiple_of(5) { "yes" } else { "no" };
        (x, 1.5e6 + 100.0 * wave, kind, label)
    };
    (0..30 + 10 * site).map(row).collect()
}

fn csv(site: u32) -> String {
    let row = |(x, z, kind, label): (Option<f64>, f64, &str, &str)| {
        let x = x.map_or("?".to_owned(), |x| x.to_string());
        format!("{x},{z},{kind},{label}\n")
    };
    "x,z,kind,label\n".to_owned() + &rows(site).into_iter().map(row).collect::<String>()
}

/// Mean and standard deviation of the population.
fn plain(values: &[f64]) -> (f64, f64) {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    (mean, (values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n).sqrt())
}

#[tokio::test(flavor = "multi_thread")]
async fn three_sites_are_surveyed_in_an_encrypted_sum_and_the_run_is_filled_in() -> Result<()> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    for (number, site) in ["a", "b", "c"].into_iter().enumerate() {
        federation.start_site(site, &csv(number as u32))?;
    }
    let path = |name: &str| federation.path().join(name).display().to_string();
    let (run, filled) = (path("run.toml"), path("filled.toml"));
    fs::write(&run, RUN)?;
    let output = federation.sheaf(&["survey", &run, "--json", "--write", &filled, "--class-weights"])?;

    let union: Vec<_> = (0..3).flat_map(rows).collect();
    let found: Value = serde_json::from_str(&output)?;
    let survey = &found["survey"];
    assert_eq!((&survey["task"], &survey["num_examples"]), (&"survey".into(), &union.len().into()));
    let xs: Vec<f64> = union.iter().filter_map(|row| row.0).collect();
    let zs: Vec<f64> = union.iter().map(|row| row.1).collect();
    assert_eq!(survey["columns"][0]["missing"], union.len() - xs.len());
    for (column, values, bound) in [(0, &xs, 5e-7), (1, &zs, 500.0 * 5e-7)] {
        let number = &survey["columns"][column]["number"];
        let (mean, std) = plain(values);
        assert!((number["mean"].as_f64().context("no mean")? - mean).abs() < bound, "{number} {mean}");
        assert!((number["std"].as_f64().context("no std")? - std).abs() < bound, "{number} {std}");
    }
    let kinds = union.iter().filter(|row| row.2 == "a").count();
    assert_eq!(survey["columns"][2]["words"][0]["count"], kinds);
    let ill = union.iter().filter(|row| row.3 == "yes").count();
    assert_eq!(survey["columns"][3]["words"][1]["count"], ill);

    let filled = fs::read_to_string(&filled)?;
    assert!(filled.starts_with("# a survey comes before it\n") && filled.contains("# in cm\n"), "{filled}");
    let spec = RunSpec::parse("filled.toml", &filled)?;
    let TaskInput::Table { features } = &spec.task.input else { panic!("{filled}") };
    let FeatureKind::Numeric { mean, std } = features[0].kind else { panic!("{filled}") };
    let number = &survey["columns"][0]["number"];
    assert_eq!((Some(mean), Some(std)), (number["mean"].as_f64(), number["std"].as_f64()));
    assert_eq!(features[1].kind, FeatureKind::Numeric { mean: 1.5e6, std: 500.0 });
    let weight = |count: usize| union.len() as f64 / (2 * count) as f64;
    let weights = vec![weight(union.len() - ill), weight(ill)];
    assert_eq!(spec.training.loss.class_weights, ClassWeights::Given(weights));

    // Whoever submits a run with balanced weights gets these, too.
    let balanced = RUN.replace("[cohort]", "[training]\nclass_weights = \"balanced\"\n\n[cohort]");
    fs::write(&run, balanced.replace("\"toy\"", "\"balanced\""))?;
    let submitted: Value = serde_json::from_str(&federation.sheaf(&["run", "submit", &run, "--json"])?)?;
    assert_eq!(submitted["run"], "balanced");

    let mut operator = federation.connect(Role::Operator, "op").await?;
    let status = operator.status(&"balanced".parse()?).await?;
    assert_eq!(status.spec.training.loss.class_weights, spec.training.loss.class_weights);
    assert_eq!(operator.status(&"balanced-survey".parse()?).await?.summary.state, RunState::Completed);
    let status = operator.status(&found["run"].as_str().context("no run")?.parse()?).await?;
    assert_eq!((status.summary.state, status.history.len()), (RunState::Completed, 0));
    let shown = federation.sheaf(&["run", "show", "toy"])?;
    assert!(shown.contains("completed, a survey") && shown.contains("what the sites hold"), "{shown}");
    Ok(())
}
