//! Decoders: their descriptions, what travels of them, and what they are exported as.

use std::io::Cursor;

use serde_json::{Value, json};

use super::*;
use crate::params::from_bytes;

/// A Llama with a head of its own.
const TINY_LLAMA: &str = r#"{
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 11, "hidden_size": 8,
    "intermediate_size": 12, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 16, "rms_norm_eps": 1e-5, "hidden_act": "silu", "eos_token_id": [2, 7],
    "rope_parameters": {"rope_theta": 5000.0, "rope_type": "default"}
}"#;

/// A GPT-2, of which the head is the embeddings.
const TINY_GPT2: &str = r#"{
    "architectures": ["GPT2LMHeadModel"], "model_type": "gpt2", "vocab_size": 11, "n_embd": 4, "n_layer": 2, "n_head": 2,
    "n_positions": 16, "activation_function": "gelu_new", "eos_token_id": 10
}"#;

/// A run that learns to go on with texts, with more lines for `[model]`.
fn language_spec(model: &str) -> RunSpec {
    spec(
        &format!("name = \"tiny\"\n{model}"),
        "type = \"causal-lm\"\ndataset = \"notes\"\ntext = \"question\"\nanswer = \"answer\"\nmax_length = 16\n\
         template = \"Q: {text} A: \"",
    )
}

fn planned(config_json: &str, model: &str) -> Result<ParamSpec, PlanError> {
    plan(&language_spec(model), Some(&config(config_json)))
}

fn sentence(planned: Result<ParamSpec, PlanError>) -> String {
    let invalid = planned.unwrap_err().invalid();
    format!("{}: {}", invalid.key, invalid.problem)
}

/// The weights file of a whole model, with this before its names.
fn file_of(blocks: &Blocks, prefix: &str) -> Vec<u8> {
    safetensors(&blocks.all().map(|t| (format!("{prefix}{}", t.name), t.shape.clone())).collect::<Vec<_>>())
}

fn blocks_of(config_json: &str) -> Blocks {
    blocks(&language_spec(""), Some(&config(config_json))).unwrap()
}

#[test]
fn they_are_read_with_hugging_faces_defaults() {
    let ModelConfig::Llama(llama) = config(TINY_LLAMA) else { panic!("TINY_LLAMA is a Llama") };
    assert_eq!((llama.head_dim, llama.num_key_value_heads, llama.rope_theta), (2, 2, 5000.0));
    assert_eq!((llama.eos_token_id, llama.tie_word_embeddings), (2, false));
    let ModelConfig::Gpt2(gpt2) = config(TINY_GPT2) else { panic!("TINY_GPT2 is a GPT-2") };
    assert_eq!((gpt2.n_inner, gpt2.layer_norm_epsilon, gpt2.tie_word_embeddings), (16, 1e-5, true));
}

#[test]
fn each_that_is_computed_otherwise_has_its_sentence() {
    let sentence = |base: &str, key: &str, value: Value| {
        let mut json: serde_json::Map<String, Value> = serde_json::from_str(base).unwrap();
        json.insert(key.into(), value);
        ModelConfig::parse(Value::Object(json).to_string().as_bytes()).unwrap_err().to_string()
    };
    let llama = |key, value| sentence(TINY_LLAMA, key, value);
    assert_eq!(
        llama("rope_scaling", json!({"type": "linear", "factor": 2.0})),
        "config.json: `rope_type` is \"linear\"; Sheaf computes \"default\" only, so import another model"
    );
    assert_eq!(
        llama("num_key_value_heads", json!(3)),
        "config.json: `num_attention_heads` 4 is not a multiple of `num_key_value_heads` 3"
    );
    assert_eq!(llama("head_dim", json!(3)), "config.json: `head_dim` 3 is not even");
    assert!(llama("attention_bias", json!(true)).contains("without biases"));
    assert_eq!(
        llama("eos_token_id", Value::Null),
        "config.json: has no `eos_token_id`: name the token that ends a text"
    );
    assert_eq!(llama("eos_token_id", json!(11)), "config.json: `eos_token_id` 11 is not between 0 and 10");
    assert!(sentence(TINY_GPT2, "n_head", json!(3)).ends_with("`n_embd` 4 is not a multiple of `n_head` 3"));
    assert!(sentence(TINY_GPT2, "scale_attn_weights", json!(false)).contains("scaled in another way"));
}

#[test]
fn what_travels_of_them() {
    let layer = 8 * 8 * 2 + 4 * 8 * 2 + 3 * 8 * 12 + 2 * 8;
    assert_eq!(planned(TINY_LLAMA, "trainable = \"all\"").unwrap().numel(), 2 * 88 + 2 * layer + 8);
    let last = planned(TINY_LLAMA, "trainable = \"last:1\"").unwrap();
    assert_eq!(last.numel(), layer + 8 + 88);
    assert_eq!(names(&last)[9..], ["model.norm.weight", "lm_head.weight"]);
    assert_eq!(names(&planned(TINY_LLAMA, "trainable = \"head\"").unwrap()), ["lm_head.weight"]);
    assert_eq!(
        sentence(planned(TINY_GPT2, "trainable = \"head\"")),
        "model.trainable: the model's head is its token embeddings, which cannot be trained alone; write \"last:K\" or \
         \"all\", or train adapters with [model.lora]"
    );
    assert_eq!(
        names(&planned(TINY_GPT2, "trainable = \"last:1\"").unwrap())[12..],
        ["ln_f.weight", "ln_f.bias"]
    );
}

/// PEFT's own choice of layers, and nothing else: the head is pretrained.
#[test]
fn adapters_travel_alone() {
    let llama = planned(TINY_LLAMA, "trainable = \"last:1\"\nlora = { rank = 3 }").unwrap();
    let layer = "model.layers.1.self_attn";
    let expected = ["q_proj", "v_proj"]
        .map(|target| ["A", "B"].map(|factor| format!("{layer}.{target}.lora_{factor}.weight")));
    assert_eq!(names(&llama), expected.concat());
    let shapes: Vec<&[u64]> = llama.tensors.iter().map(|tensor| tensor.shape.as_slice()).collect();
    assert_eq!(shapes, [[3, 8], [8, 3], [3, 8], [4, 3]]);
    let gpt2 = planned(TINY_GPT2, "lora = { rank = 3 }").unwrap();
    assert_eq!(names(&gpt2)[..2], ["h.0.attn.c_attn.lora_A.weight", "h.0.attn.c_attn.lora_B.weight"]);
    assert_eq!((&gpt2.tensors[0].shape, &gpt2.tensors[1].shape), (&vec![3, 4], &vec![12, 3]));
}

#[test]
fn encoders_and_decoders_do_not_do_each_others_tasks() {
    let task = |spec: &RunSpec, json| sentence(plan(spec, Some(&config(json))));
    assert_eq!(
        task(&text_spec(""), TINY_LLAMA),
        "task.type: a model of the type \"llama\" cannot do this task; use \"causal-lm\""
    );
    assert_eq!(
        task(&language_spec(""), TINY_BERT),
        "task.type: a model of the type \"bert\" cannot do this task; use \"text-classification\" or \"text-regression\""
    );
}

#[test]
fn all_starts_from_the_imported_weights() {
    for (json, prefix) in [(TINY_LLAMA, ""), (TINY_GPT2, "transformer.")] {
        let file = file_of(&blocks_of(json), prefix);
        let (spec, model) = (language_spec(""), config(json));
        model.check_weights(&weights(&file)).unwrap();
        let params = plan(&spec, Some(&model)).unwrap();
        let starts = initial(&spec, Some(&model), Some(&weights(&file)), &params).unwrap();
        assert!(starts.iter().all(|start| matches!(start, Initial::FromWeights { .. })));
    }
    let mut without_head = blocks_of(TINY_LLAMA);
    without_head.head.clear();
    let file = file_of(&without_head, "");
    let error = initial(
        &language_spec("lora = {}"),
        Some(&config(TINY_LLAMA)),
        Some(&weights(&file)),
        &ParamSpec::default(),
    );
    assert!(error.unwrap_err().to_string().contains("no tensor `lm_head.weight`"));
}

#[test]
fn an_exported_decoder_is_what_it_was_with_other_values() {
    let (spec, model) = (language_spec("lora = { rank = 2, alpha = 4.0 }"), config(TINY_GPT2));
    let params = plan(&spec, Some(&model)).unwrap();
    let plan = export_plan(&spec, params.clone());
    let json: Value =
        serde_json::from_slice(&export_config(&plan, Some(TINY_GPT2.as_bytes())).unwrap()).unwrap();
    assert_eq!(json["architectures"], json!(["GPT2LMHeadModel"]));
    assert_eq!(json["sheaf"]["template"], "Q: {text} A: ");
    assert!(json.get("id2label").is_none() && json["sheaf"].get("pooling").is_none());

    let base = file_of(&blocks_of(TINY_GPT2), "transformer.");
    let exported = export_weights(&plan, Some(&model), Some(&weights(&base))).unwrap();
    let values: Vec<f32> = (0..params.numel()).map(|at| at as f32 / 64.0).collect();
    let mut file = Vec::new();
    let mut global = Cursor::new(crate::params::to_bytes(&values));
    exported.write(&mut file, Some(&mut Cursor::new(&base)), &mut global).unwrap();
    let of = |file: &[u8], name: &str| {
        let stored = weights(file).tensor(name).unwrap().clone();
        from_bytes(&file[stored.offset as usize..(stored.offset + stored.bytes) as usize])
    };
    let name = "h.0.attn.c_attn.weight";
    let (before, after) = (of(&base, name), of(&file, name));
    // A is [2, 4] and B is [12, 2]; the weight [4, 12] gets 2 (B A)^T.
    let (a, b) = (&values[..8], &values[8..32]);
    for (at, found) in after.iter().enumerate() {
        let (input, output) = (at / 12, at % 12);
        let product = b[2 * output] * a[input] + b[2 * output + 1] * a[4 + input];
        assert!((found - before[at] - 2.0 * product).abs() < 1e-6);
    }
    assert_eq!(of(&file, "h.0.mlp.c_fc.weight"), of(&base, "h.0.mlp.c_fc.weight"));
    let header = String::from_utf8_lossy(&exported.header).into_owned();
    assert!(header.contains("\"transformer.wte.weight\"") && !header.contains("lora"), "{header}");
}

#[test]
fn adapters_alone_have_the_names_that_peft_looks_for() {
    let of = |json: &str, model: &str| {
        let (spec, config) = (language_spec(model), config(json));
        let params = plan(&spec, Some(&config)).unwrap();
        let (adapter, weights) = export_adapter(&export_plan(&spec, params), Some(&config)).unwrap();
        (
            serde_json::from_slice::<Value>(&adapter).unwrap(),
            String::from_utf8(weights.header[8..].into()).unwrap(),
        )
    };
    let (llama, header) = of(TINY_LLAMA, "trainable = \"last:1\"\nlora = { rank = 2 }");
    assert_eq!((&llama["task_type"], &llama["fan_in_fan_out"]), (&json!("CAUSAL_LM"), &json!(false)));
    let layer = "model.layers.1.self_attn";
    assert_eq!(llama["target_modules"], json!([format!("{layer}.q_proj"), format!("{layer}.v_proj")]));
    assert_eq!(llama["modules_to_save"], Value::Null);
    assert!(
        header.contains("\"base_model.model.model.layers.1.self_attn.v_proj.lora_B.weight\""),
        "{header}"
    );
    let (gpt2, header) = of(TINY_GPT2, "lora = {}");
    assert_eq!(gpt2["fan_in_fan_out"], true);
    assert!(header.contains("\"base_model.model.transformer.h.0.attn.c_attn.lora_A.weight\""), "{header}");
}

#[test]
fn the_card_shows_how_the_model_is_asked() {
    let spec = language_spec("lora = {}");
    let params = plan(&spec, Some(&config(TINY_LLAMA))).unwrap();
    let card = card(&export_plan(&spec, params), None);
    assert!(card.contains("pipeline_tag: text-generation\n"), "{card}");
    assert!(card.contains("prompt = \"Q: {text} A: \".replace(\"{text}\", \"a text\")"), "{card}");
    assert!(
        card.contains("- Trained: low-rank adapters, merged into the weights here, 448 values\n"),
        "{card}"
    );
}
