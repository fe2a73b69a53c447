//! The families of text encoders: one architecture, which Hugging Face has under several names. What tells them apart is
//! here, so that everything else is written once.

/// A family of text encoders.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Family {
    /// BERT (Devlin et al., 2019), and what is trained like it.
    Bert,
    /// DistilBERT (Sanh et al., 2019): no segments, no pooler.
    DistilBert,
    /// RoBERTa (Liu et al., 2019): positions are counted from behind the padding token's id.
    Roberta,
    /// XLM-RoBERTa (Conneau et al., 2020): RoBERTa for a hundred languages.
    XlmRoberta,
}

/// How a family names its tensors, without its prefix, and what its classifier makes of the first token.
#[derive(Debug, PartialEq, Eq)]
pub struct Layout {
    /// What a model with a head puts before the encoder's names.
    pub prefix: &'static str,
    /// What the names of a layer's tensors begin with, before its number.
    pub layers: &'static str,
    /// Part of a layer: the dense layer of queries.
    pub query: &'static str,
    /// That of keys.
    pub key: &'static str,
    /// That of values.
    pub value: &'static str,
    /// That of what attention gives.
    pub attended: &'static str,
    /// The normalisation behind attention.
    pub attention_norm: &'static str,
    /// The first dense layer of the feed-forward part.
    pub up: &'static str,
    /// The second one.
    pub down: &'static str,
    /// The normalisation behind the feed-forward part.
    pub norm: &'static str,
    /// Whether what attention gives is dropped from before the residual sum.
    pub drops_attended: bool,
    /// The dense layer with tanh that the pretrained encoder has for the first token.
    pub pooler: Option<&'static str>,
    /// The dense layer that the head has for the first token.
    pub hidden: Option<Hidden>,
    /// The head's last dense layer.
    pub output: &'static str,
    /// The key of `config.json` for the head's dropout.
    pub dropout_key: &'static str,
    /// The dense layers that PEFT puts adapters on when it is told of none.
    pub lora_targets: &'static [&'static str],
}

/// A dense layer in a head, with dropout behind it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hidden {
    /// Its name.
    pub name: &'static str,
    /// What follows it.
    pub activation: Activation,
    /// Whether there is dropout before it, too.
    pub drops_input: bool,
}

/// What is between two dense layers of a head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activation {
    /// The positive part.
    Relu,
    /// The hyperbolic tangent.
    Tanh,
}

const BERT: Layout = Layout {
    prefix: "bert.",
    layers: "encoder.layer",
    query: "attention.self.query",
    key: "attention.self.key",
    value: "attention.self.value",
    attended: "attention.output.dense",
    attention_norm: "attention.output.LayerNorm",
    up: "intermediate.dense",
    down: "output.dense",
    norm: "output.LayerNorm",
    drops_attended: true,
    pooler: Some("pooler.dense"),
    hidden: None,
    output: "classifier",
    dropout_key: "classifier_dropout",
    lora_targets: &["query", "value"],
};

const DISTILBERT: Layout = Layout {
    prefix: "distilbert.",
    layers: "transformer.layer",
    query: "attention.q_lin",
    key: "attention.k_lin",
    value: "attention.v_lin",
    attended: "attention.out_lin",
    attention_norm: "sa_layer_norm",
    up: "ffn.lin1",
    down: "ffn.lin2",
    norm: "output_layer_norm",
    drops_attended: false,
    pooler: None,
    hidden: Some(Hidden { name: "pre_classifier", activation: Activation::Relu, drops_input: false }),
    output: "classifier",
    dropout_key: "seq_classif_dropout",
    lora_targets: &["q_lin", "v_lin"],
};

const ROBERTA: Layout = Layout {
    prefix: "roberta.",
    pooler: None,
    hidden: Some(Hidden { name: "classifier.dense", activation: Activation::Tanh, drops_input: true }),
    output: "classifier.out_proj",
    ..BERT
};

impl Family {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Bert, Self::DistilBert, Self::Roberta, Self::XlmRoberta];

    /// The family of this `model_type` in `config.json`.
    pub fn of(model_type: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|family| family.model_type() == model_type)
    }

    /// `model_type` in `config.json`.
    pub fn model_type(self) -> &'static str {
        match self {
            Self::Bert => "bert",
            Self::DistilBert => "distilbert",
            Self::Roberta => "roberta",
            Self::XlmRoberta => "xlm-roberta",
        }
    }

    /// The class of `transformers` that opens it with a classifier.
    pub fn architecture(self) -> &'static str {
        match self {
            Self::Bert => "BertForSequenceClassification",
            Self::DistilBert => "DistilBertForSequenceClassification",
            Self::Roberta => "RobertaForSequenceClassification",
            Self::XlmRoberta => "XLMRobertaForSequenceClassification",
        }
    }

    /// How it names its tensors.
    pub fn layout(self) -> &'static Layout {
        match self {
            Self::Bert => &BERT,
            Self::DistilBert => &DISTILBERT,
            Self::Roberta | Self::XlmRoberta => &ROBERTA,
        }
    }
}

impl Layout {
    /// Whether this is the name of a tensor of the head, which has no prefix.
    pub fn is_head(&self, name: &str) -> bool {
        let of = |layer: &str| name.strip_prefix(layer).is_some_and(|rest| rest.starts_with('.'));
        of(self.output) || self.hidden.is_some_and(|hidden| of(hidden.name))
    }
}
