//! What travels for which run.

use super::*;

fn planned(model: &str) -> Result<ParamSpec, PlanError> {
    plan(&text_spec(model), Some(&config(TINY_BERT)))
}

#[test]
fn the_head_alone() {
    let params = planned("trainable = \"head\"\npooling = \"cls\"").unwrap();
    assert_eq!(names(&params), ["classifier.weight", "classifier.bias"]);
    assert_eq!(params.tensors[0].shape, [3, 4]);
    assert_eq!(params.tensors[1].shape, [3]);
}

#[test]
fn the_last_layers_with_the_pooler_only_when_it_is_used() {
    let cls = planned("trainable = \"last:1\"\npooling = \"cls\"").unwrap();
    assert_eq!(names(&cls)[0], "encoder.layer.1.attention.self.query.weight");
    assert_eq!(
        names(&cls)[16..],
        ["pooler.dense.weight", "pooler.dense.bias", "classifier.weight", "classifier.bias"]
    );
    let mean = planned("trainable = \"last:1\"\npooling = \"mean\"").unwrap();
    assert_eq!(
        names(&mean)[15..],
        ["encoder.layer.1.output.LayerNorm.bias", "classifier.weight", "classifier.bias"]
    );
}

#[test]
fn everything() {
    let all = planned("trainable = \"all\"").unwrap();
    assert_eq!(names(&all)[0], "embeddings.word_embeddings.weight");
    assert_eq!(all.tensors.len(), 5 + 2 * 16 + 2);
    // By hand: embeddings (11 + 16 + 2) * 4 + 2 * 4, a layer 4 * (16 + 4) + 8 + (24 + 6) + (24 + 4) + 8, head
    // 15.
    assert_eq!(all.numel(), 124 + 2 * 154 + 15);
}

#[test]
fn what_a_pattern_finds_in_the_order_of_the_model() {
    let params =
        planned(r#"trainable = ["classifier", 'layer\.1\..*query', "^embeddings.*LayerNorm"]"#).unwrap();
    assert_eq!(
        names(&params),
        [
            "embeddings.LayerNorm.weight",
            "embeddings.LayerNorm.bias",
            "encoder.layer.1.attention.self.query.weight",
            "encoder.layer.1.attention.self.query.bias",
            "classifier.weight",
            "classifier.bias"
        ]
    );
    assert_eq!(planned("trainable = [\".\"]").unwrap(), planned("trainable = \"all\"").unwrap());
    let error = planned("trainable = [\"classifier\", \"pooler\"]").unwrap_err().invalid();
    assert_eq!(
        (error.key.as_str(), error.problem.as_str()),
        (
            "model.trainable",
            "`pooler` is found in no tensor's name; names are like `embeddings.word_embeddings.weight`, \
             `encoder.layer.0.attention.self.query.weight`, `encoder.layer.1.attention.self.query.weight`, \
             `classifier.weight`"
        )
    );
}

#[test]
fn the_depth_of_a_tensor_is_that_of_its_layer_in_the_whole_model() {
    let depths = |model: &str| {
        let spec = text_spec(model);
        let config = config(TINY_BERT);
        blocks(&spec, Some(&config)).unwrap().depths(&plan(&spec, Some(&config)).unwrap())
    };
    assert_eq!(
        depths(
            r#"trainable = ["word_emb", 'layer\.0.*query', 'layer\.1.*key', "pooler", "classifier"]
                  pooling = "cls""#
        ),
        [3, 2, 2, 1, 1, 0, 0, 0, 0]
    );
    assert_eq!(depths(r#"trainable = ['layer\.0.*query']"#), [2, 2]);
    assert_eq!(depths("trainable = \"last:1\"\nlora = { targets = [\"query\"] }"), [1, 1, 0, 0]);
    let (spec, mlp) = (table_spec("name = \"tiny\""), config(TINY_MLP));
    let all = plan(&spec, Some(&mlp)).unwrap();
    assert_eq!(blocks(&spec, Some(&mlp)).unwrap().depths(&all), [2, 2, 1, 1, 0, 0]);
}

#[test]
fn phases_fit_the_model_and_grow() {
    let of = |later: &str| {
        let head = "{ round = 1, trainable = \"head\" }";
        phases(&text_spec(&format!("unfreeze = [{head}, {later}]")), Some(&config(TINY_BERT)))
    };
    let planned = of("{ round = 2, trainable = \"last:1\" }, { round = 3, trainable = \"all\" }").unwrap();
    let each = [0, 1, 2, 3].map(|completed| planned.after(completed).clone());
    let expected = ["head", "last:1", "all", "all"]
        .map(|part| super::plan::planned(&format!("trainable = \"{part}\"")).unwrap());
    assert_eq!(each, expected);
    let said = |later| {
        let invalid = of(later).unwrap_err().invalid();
        format!("{}: {}", invalid.key, invalid.problem)
    };
    assert_eq!(
        said("{ round = 2, trainable = \"last:3\" }"),
        "model.unfreeze: from round 2 on: the model has 2 layers between inputs and head, not 3; write \"last:K\" with K \
         up to 2, or \"all\""
    );
    assert!(
        said("{ round = 2, trainable = [\"x\"] }")
            .starts_with("model.unfreeze: from round 2 on: `x` is found in no")
    );
    assert_eq!(
        said("{ round = 2, trainable = [\"query\"] }"),
        "model.unfreeze: `classifier.weight` is trained before round 2 and not from it on; a phase trains all that the one \
         before it did"
    );
    assert!(
        said("{ round = 3, trainable = [\"classifier\"] }")
            .starts_with("model.unfreeze: from round 3 on the same is")
    );
}

#[test]
fn patterns_that_no_honest_server_sends() {
    let mut spec = text_spec("");
    spec.model.trainable = crate::run::Trainable::Matching(vec!["(a{1000}){1000}".into()]);
    let error = plan(&spec, Some(&config(TINY_BERT))).unwrap_err().to_string();
    assert!(error.starts_with("this is no regular expression that can be used"), "{error}");
}

#[test]
fn a_perceptron() {
    let model = config(TINY_MLP);
    let all = plan(&table_spec("name = \"tiny\""), Some(&model)).unwrap();
    let fresh = plan(&table_spec("architecture = \"mlp\"\nhidden = [5, 3]"), None).unwrap();
    assert_eq!(all, fresh);
    let shapes: Vec<&[u64]> = all.tensors.iter().map(|tensor| tensor.shape.as_slice()).collect();
    assert_eq!(shapes, [&[5, 5][..], &[5], &[3, 5], &[3], &[2, 3], &[2]]);
    let last = plan(&table_spec("name = \"tiny\"\ntrainable = \"last:1\""), Some(&model)).unwrap();
    assert_eq!(names(&last), ["layers.1.weight", "layers.1.bias", "layers.2.weight", "layers.2.bias"]);
    let head = plan(&table_spec("name = \"tiny\"\ntrainable = \"head\""), Some(&model)).unwrap();
    assert_eq!(names(&head), ["layers.2.weight", "layers.2.bias"]);
}

#[test]
fn models_without_layers() {
    let softmax = plan(&table_spec("architecture = \"softmax\""), None).unwrap();
    assert_eq!(names(&softmax), ["weight", "bias"]);
    assert_eq!(softmax.numel(), 2 * 5 + 2);
    let constant =
        plan(&spec("architecture = \"constant\"\nparameters = 1000", "type = \"none\""), None).unwrap();
    assert_eq!((names(&constant), constant.bytes()), (vec!["values"], 4000));
}

#[test]
fn each_mismatch_has_its_sentence_and_key() {
    let bert = config(TINY_BERT);
    let mlp = config(TINY_MLP);
    let of = |spec: &RunSpec, config: Option<&ModelConfig>| {
        let invalid = plan(spec, config).unwrap_err().invalid();
        format!("{}: {}", invalid.key, invalid.problem)
    };
    assert_eq!(
        of(&text_spec("trainable = \"last:3\""), Some(&bert)),
        "model.trainable: the model has 2 layers between inputs and head, not 3; write \"last:K\" with K up to 2, or \
         \"all\""
    );
    let mut long = text_spec("");
    long.task.input = crate::run::TaskInput::Text { column: "body".into(), max_length: 17 };
    assert_eq!(
        of(&long, Some(&bert)),
        "task.max_length: 17 tokens are more than the model's 16; write at most 16"
    );
    assert_eq!(
        of(&text_spec(""), Some(&mlp)),
        "task.type: a model of the type \"mlp\" cannot do this task; use \"tabular-classification\" or \"tabular-regression\""
    );
    assert_eq!(
        of(&table_spec("name = \"tiny\""), Some(&bert)),
        "task.type: a model of the type \"bert\" cannot do this task; use \"text-classification\" or \"text-regression\""
    );
    assert_eq!(of(&text_spec(""), None), "model.name: the run needs the imported model `tiny`");
}

#[test]
fn other_columns_are_refused_with_the_difference() {
    let with = |change: (&str, &str)| {
        let changed = config(&TINY_MLP.replace(change.0, change.1));
        plan(&table_spec("name = \"tiny\""), Some(&changed)).map_err(|error| error.to_string())
    };
    assert!(with(("\"?\"", "\"-9\"")).is_ok(), "what stands for missing is a matter of files");
    assert_eq!(
        with(("54.5", "50.0")).unwrap_err(),
        "the model was trained with mean = 50 and std = 9 for `age`; write the same"
    );
    assert_eq!(
        with(("\"age\"", "\"years\"")).unwrap_err(),
        "the model expects the column `years` where the run has `age`"
    );
    assert_eq!(
        with(("\"f\", \"m\"", "\"m\", \"f\"")).unwrap_err(),
        "the model was trained with categories = [\"m\", \"f\", \"x\"] for `sex`; write the same"
    );
    assert_eq!(
        with(("[\"f\", \"m\", \"x\"]", "[\"f\", \"m\"], \"other\": true")).unwrap_err(),
        "the model was trained with categories = [\"f\", \"m\"] and other = true for `sex`; write the same"
    );
    assert_eq!(
        with(("\"categories\": [\"f\", \"m\", \"x\"]", "\"buckets\": 3")).unwrap_err(),
        "the column `sex` has `categories` in one of model and run and `buckets` in the other"
    );
}
