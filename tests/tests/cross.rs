//! `sheaf cross-validate` against a federation of processes: every example is scored once, and a site that was left out
//! is scored alone if it lets itself be.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sheaf_tests::Federation;

/// Two clouds of points, 60 in all, and how many of them are of each label.
fn csv(site: u32) -> (String, [u64; 2]) {
    let (mut text, mut counts) = (String::from("x,label\n"), [0; 2]);
    for i in 0..60u32 {
        let yes = (i + site).is_multiple_of(3 + site);
        let (label, centre) = if yes { ("yes", 1.0) } else { ("no", -1.0) };
        counts[usize::from(yes)] += 1;
        text += &format!("{:.4},{label}\n", centre + 1.8 * (f64::from(i * 37 % 101) / 101.0 - 0.5));
    }
    (text, counts)
}

fn run(sites: &[&str], more: &str) -> String {
    format!(
        r#"
name = "toy"
rounds = 2
seed = 7
model = {{ architecture = "softmax" }}
[task]
type = "tabular-classification"
dataset = "data"
label = "label"
labels = ["no", "yes"]
features = [{{ column = "x", type = "numeric" }}]
[training]
optimizer = "sgd"
learning_rate = 0.5
validation_split = 0.2
[cohort]
sites = {sites:?}
round_timeout = "100s"
max_attempts = 1
{more}
"#
    )
}

/// A federation of these sites, those of `open` with their own metrics, and how many examples of each label all have.
fn federation(sites: &[&str], open: &[&str]) -> Result<(Federation, Vec<[u64; 2]>)> {
    let mut federation = Federation::new()?;
    federation.start_server()?;
    let mut counts = Vec::new();
    for (number, site) in (0..).zip(sites) {
        let (table, of_labels) = csv(number);
        let policy = if open.contains(site) { "own_metrics = true" } else { "" };
        federation.start_site_by(policy, site, &table, "")?;
        counts.push(of_labels);
    }
    Ok((federation, counts))
}

/// The examples of each label in a model's confusion matrix.
fn support(model: &Value) -> Result<[u64; 2]> {
    let matrix =
        model["metrics"]["confusion"].as_array().with_context(|| format!("no matrix in {model:#}"))?;
    let row = |row: &Value| row.as_array().into_iter().flatten().filter_map(Value::as_u64).sum();
    let sums: Vec<u64> = matrix.iter().map(row).collect();
    Ok([sums[0], sums[1]])
}

fn models(found: &Value) -> Vec<&Value> {
    found["models"].as_array().into_iter().flatten().collect()
}

#[tokio::test]
async fn under_encryption_the_folds_score_every_example_exactly_once() -> Result<()> {
    let sites = ["a", "b", "c"];
    let (federation, counts) = federation(&sites, &[])?;
    let file = federation.path().join("run.toml");
    std::fs::write(&file, run(&sites, ""))?;
    let file = file.display().to_string();
    let found = federation.sheaf(&["cross-validate", &file, "--folds", "3", "--json"])?;
    let found: Value = serde_json::from_str(&found)?;

    let models = models(&found);
    assert_eq!(models.len(), 3, "{found:#}");
    let mut all = [0, 0];
    for (number, model) in (1..).zip(&models) {
        assert_eq!(model["run"], format!("toy-fold{number}"));
        let [no, yes] = support(model)?;
        // Of each site a third, to within one of each label.
        assert!((57..=63).contains(&(no + yes)), "{model:#}");
        all = [all[0] + no, all[1] + yes];
    }
    let there = counts.iter().fold([0, 0], |sum, [no, yes]| [sum[0] + no, sum[1] + yes]);
    assert_eq!(all, there, "every example once");
    let accuracies: Vec<f64> =
        models.iter().filter_map(|model| model["metrics"]["accuracy"].as_f64()).collect();
    let mean = accuracies.iter().sum::<f64>() / 3.0;
    ensure!((found["mean"]["accuracy"].as_f64().context("a mean")? - mean).abs() < 1e-12, "{found:#}");
    ensure!(mean > 0.8, "they learned: {accuracies:?}");

    let again = federation.sheaf(&["cross-validate", &file, "--folds", "3"]).unwrap_err().to_string();
    assert!(again.contains("there is a run toy-fold1 already: `--resume` goes on from it"), "{again}");
    let text = federation.sheaf(&["cross-validate", &file, "--folds", "3", "--resume"])?;
    assert!(text.contains(&format!("{mean:.4}")), "{text}");
    assert!(text.contains("mean and sd are over 3 of 3 models"), "{text}");
    Ok(())
}

#[tokio::test]
async fn a_site_is_left_out_of_the_training_and_scored_alone_if_it_lets_itself_be() -> Result<()> {
    let sites = ["a", "b", "c", "d"];
    let (federation, counts) = federation(&sites, &["a", "b", "c"])?;
    let file = federation.path().join("run.toml");
    std::fs::write(&file, run(&sites, ""))?;
    let file = file.display().to_string();
    let ended = federation.sheaf_output(&["cross-validate", &file, "--leave-one-site-out", "--json"])?;
    assert_eq!(ended.status.code(), Some(1), "{}", String::from_utf8_lossy(&ended.stderr));
    let found: Value = serde_json::from_slice(&ended.stdout)?;
    let models = models(&found);
    for ((site, of_labels), model) in sites.iter().zip(counts).zip(models) {
        assert_eq!(
            (&model["held_out"], &model["run"]),
            (&json!(site), &json!(format!("toy-without-{site}")))
        );
        assert_eq!(model["state"], "completed", "{model:#}");
        if *site == "d" {
            let detail = model["detail"].as_str().context("a detail")?;
            assert!(detail.contains("it must set policy.own_metrics = true in its site.toml"), "{detail}");
            assert_eq!(model["metrics"], Value::Null);
        } else {
            assert_eq!(support(model)?, of_labels, "all of its data, and nothing else: {model:#}");
        }
        let shown: Value = serde_json::from_str(&federation.sheaf(&[
            "run",
            "show",
            &format!("toy-without-{site}"),
            "--json",
        ])?)?;
        let rounds = shown["history"].as_array().context("rounds")?;
        assert_eq!(rounds.len(), 2);
        for round in rounds {
            let trained: Vec<&str> = round["participants"]
                .as_array()
                .into_iter()
                .flatten()
                .filter_map(|p| p["site"].as_str())
                .collect();
            let others: Vec<&str> = sites.iter().copied().filter(|other| other != site).collect();
            assert_eq!(trained, others, "it does not train");
        }
    }
    Ok(())
}
