//! Each example in its reduced form, with the real programs, from certificates to what federating was worth.
//!
//! Models and data come from the cache that `make test` fills.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::sync::{Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use serde_json::Value;

/// A metric on the common test set.
struct Measured {
    federated: f64,
    /// Of each site's own model.
    alone: Vec<f64>,
}

impl Measured {
    fn best_alone(&self) -> f64 {
        self.alone.iter().copied().fold(f64::MIN, f64::max)
    }

    fn mean_alone(&self) -> f64 {
        self.alone.iter().sum::<f64>() / self.alone.len() as f64
    }
}

/// Runs an example and returns these metrics of it. One at a time: each takes all cores.
fn measure<const N: usize>(example: &str, metrics: [&str; N]) -> Result<Vec<Measured>> {
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());
    let _turn = ONE_AT_A_TIME.lock().unwrap_or_else(PoisonError::into_inner);
    let demo = Path::new(env!("CARGO_BIN_EXE_sheaf-demo"));
    let output = Command::new(demo).args([example, "--reduced"]).output()?;
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    ensure!(output.status.success(), "{}", said.concat());
    let target = demo.parent().and_then(Path::parent).context("no target folder")?;
    let file = target.join("demo").join(format!("{example}-reduced")).join("result.json");
    let result: Value = serde_json::from_slice(&fs::read(file)?)?;
    assert_eq!(result["secure_aggregation"], "required");
    let alone = result["alone"].as_object().context("sites")?;
    let value = |score: &Value, metric: &str| score[metric].as_f64().context("a metric");
    let measured = |metric| {
        let alone = alone.values().map(|score| value(score, metric)).collect::<Result<_>>()?;
        Ok(Measured { federated: value(&result["federated"], metric)?, alone })
    };
    metrics.into_iter().map(measured).collect()
}

#[test]
fn desks_learn_topics_better_together_than_alone() -> Result<()> {
    for measured in measure("newswire", ["accuracy", "macro_f1"])? {
        assert!(measured.federated > measured.best_alone());
    }
    Ok(())
}

#[test]
fn hospitals_recognise_heart_disease_better_together_than_alone() -> Result<()> {
    for measured in measure("heart", ["roc_auc", "accuracy"])? {
        assert!(measured.federated > measured.mean_alone());
    }
    Ok(())
}

#[test]
fn banks_find_bad_loans_better_together_than_alone() -> Result<()> {
    for measured in measure("lending-club", ["roc_auc", "pr_auc"])? {
        assert!(measured.federated > measured.mean_alone());
    }
    Ok(())
}

#[test]
fn shops_tell_clothes_apart_better_together_than_alone() -> Result<()> {
    for measured in measure("fashion", ["accuracy", "macro_f1"])? {
        assert!(measured.federated > measured.best_alone());
    }
    Ok(())
}

/// One round, ten questions each: enough to see a model of another kind go through all of it.
#[test]
fn desks_teach_a_language_model_better_together_than_alone() -> Result<()> {
    for measured in measure("smollm2-lora", ["perplexity"])? {
        assert!(measured.federated < measured.mean_alone());
    }
    Ok(())
}
