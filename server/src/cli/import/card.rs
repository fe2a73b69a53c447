//! What is said of an imported model, and what of it would travel in a round.

use sheaf_common::config::ConfigError;
use sheaf_common::model::{self, ModelConfig, ModelInfo};
use sheaf_common::params::ParamSpec;
use sheaf_common::run::RunSpec;

use super::super::table;
use super::super::units::{bytes, count};
use super::Model;

/// What is said of an imported model.
pub(in crate::cli) fn card(model: &Model, info: &ModelInfo, sent: u64) -> String {
    let news = if sent == 0 {
        "the server had all of it already".to_owned()
    } else {
        format!("{} sent", bytes(sent))
    };
    let files: Vec<&str> = model.manifest.files.iter().map(|file| file.path.as_str()).collect();
    let travels: Vec<String> = model
        .trainable
        .iter()
        .map(|(setting, spec)| {
            let size = bytes(spec.bytes());
            let named =
                if *setting == "lora" { "lora = {}".into() } else { format!("trainable = \"{setting}\"") };
            format!("{named}: {} parameters, {size} each way per site and round", count(spec.numel()))
        })
        .collect();
    let mut lines = vec![
        ("model", info.name.clone()),
        ("type", info.model_type.clone()),
        ("parameters", count(info.num_params)),
        ("files", format!("{} ({}; {news})", files.join(", "), bytes(info.bytes))),
        ("id", info.manifest.to_string()),
    ];
    if let Some(module) = model.module() {
        let listed = format!("torchscript = [\"{module}\"]");
        lines.push((
            "code",
            format!("runs at a site that lists it in its site.toml, under [policy]:\n{listed}"),
        ));
    }
    if !travels.is_empty() {
        lines.push(("travels", travels.join("\n")));
    }
    table::card(&lines)
}

/// What travels by setting of `trainable`; settings that do not suit the model are left out.
pub(super) fn settings(config: &ModelConfig) -> Vec<(&'static str, ParamSpec)> {
    if let ModelConfig::Script(script) = config {
        return vec![("all", ParamSpec { tensors: script.parameters.clone() })];
    }
    let settings = match config {
        ModelConfig::Encoder(_) => ["head", "last:1", "last:2", "all"].as_slice(),
        ModelConfig::Gpt2(_) | ModelConfig::Llama(_) => &["last:1", "all", "lora"],
        ModelConfig::Image(_) => &["head", "last:1", "last:2", "all", "lora"],
        ModelConfig::Mlp(_) | ModelConfig::Script(_) => &[],
    };
    let planned = settings.iter().filter_map(|setting| {
        let params = model::plan(&example_run(setting, config).ok()?, Some(config)).ok()?;
        Some((*setting, params))
    });
    planned.collect()
}

/// A run like those that the model may serve.
fn example_run(setting: &str, config: &ModelConfig) -> Result<RunSpec, ConfigError> {
    let trained =
        if setting == "lora" { "lora = {}".to_owned() } else { format!("trainable = \"{setting}\"") };
    let task = match config {
        ModelConfig::Gpt2(_) | ModelConfig::Llama(_) => "type = \"causal-lm\"\ntext = \"t\"\nmax_length = 3",
        ModelConfig::Image(_) => "type = \"image-classification\"\nlabel = \"l\"\nlabels = [\"a\", \"b\"]",
        ModelConfig::Encoder(_) | ModelConfig::Mlp(_) | ModelConfig::Script(_) => {
            "type = \"text-classification\"\nlabel = \"l\"\nlabels = [\"a\", \"b\"]\ntext = \"t\"\nmax_length = 3"
        }
    };
    let text = format!(
        "name = \"example\"\nrounds = 1\nsecure_aggregation = \"off\"\n\
         [model]\nname = \"model\"\n{trained}\n[task]\n{task}\ndataset = \"d\"\n"
    );
    RunSpec::parse("example", &text)
}
