//! Which keys of `run.toml` a search may set. A search tries what it is given and keeps what scores best: nothing that
//! decides who sees what, who takes part or what is measured may be among it.

use sheaf_common::config::Invalid;

/// The rule with the longest name that is the key or a table around it holds: `None` lets it be searched, and the rest
/// says why not. What no rule names, such as a table that came later, is refused.
const RULES: [(&str, Option<&str>); 15] = [
    ("model", None),
    ("training", None),
    ("server", None),
    ("task.max_length", None),
    ("secagg.quantization_bits", None),
    ("secagg.clipping_range", None),
    ("name", Some("the search gives its trials their names")),
    ("rounds", Some("the method and budget_rounds say how many rounds a trial has")),
    (
        "seed",
        Some(
            "it also draws what is held out: trials would be measured on different examples, and the luckiest would win",
        ),
    ),
    ("secure_aggregation", Some(PRIVACY)),
    ("secagg", Some(PRIVACY)),
    ("cohort", Some("who takes part, and over how many sites a sum goes, is not weighed against a metric")),
    ("validation", Some("trials are compared by it")),
    ("training.validation_split", Some("trials would be measured on different examples")),
    ("task", Some("it says what is learned and measured, and trials that differ in it cannot be compared")),
];

const PRIVACY: &str = "what the server may learn is not weighed against a metric";

const SEARCHABLE: &str = "a search sets keys of [model], [training] and [server], task.max_length, secagg.quantization_bits \
                          and secagg.clipping_range";

/// Whether the key of `run.toml` may be searched.
pub(super) fn check(key: &str) -> Result<(), Invalid> {
    let refuse = |why: String| Err(Invalid::new(format!("search.{key}"), why));
    let around =
        |name: &str| key.strip_prefix(name).is_some_and(|below| below.is_empty() || below.starts_with('.'));
    let rule = RULES.iter().filter(|(name, _)| around(name)).max_by_key(|(name, _)| name.len());
    match rule {
        Some((_, Some(why))) => refuse(format!("cannot be searched: {why}")),
        // A whole table would bring along what none of its keys may bring.
        Some((_, None)) if !key.contains('.') => refuse("is a table: name one of its keys".into()),
        Some((_, None)) if key.split('.').all(|part| !part.is_empty()) => Ok(()),
        Some((_, None)) | None => refuse(format!("cannot be searched: {SEARCHABLE}")),
    }
}

/// Whether one of two keys is the other or lies in it.
pub(super) fn overlap(one: &str, other: &str) -> bool {
    let within =
        |outer: &str, inner: &str| inner.strip_prefix(outer).is_some_and(|rest| rest.starts_with('.'));
    one == other || within(one, other) || within(other, one)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hyperparameters_may_be_searched() {
        for key in [
            "training.learning_rate",
            "training.max_examples_per_class",
            "model.hidden",
            "model.lora.rank",
            "model.name",
            "server.learning_rate",
            "task.max_length",
            "secagg.clipping_range",
        ] {
            assert_eq!(check(key), Ok(()), "{key}");
        }
    }

    #[test]
    fn what_decides_on_privacy_or_on_the_measure_may_not() {
        for (key, why) in [
            ("name", "names"),
            ("rounds", "budget_rounds"),
            ("seed", "luckiest"),
            ("secure_aggregation", "what the server may learn"),
            ("secagg.max_colluding", "what the server may learn"),
            ("secagg.graph", "what the server may learn"),
            ("secagg.clipping_range_x", "what the server may learn"),
            ("cohort.min_updates", "who takes part"),
            ("cohort.sites", "who takes part"),
            ("validation.monitor", "compared by it"),
            ("training.validation_split", "different examples"),
            ("task.dataset", "cannot be compared"),
            ("training", "is a table"),
            ("privacy.epsilon", "a search sets keys of"),
            ("trainings.learning_rate", "a search sets keys of"),
            ("training..learning_rate", "a search sets keys of"),
            ("", "a search sets keys of"),
        ] {
            let invalid = check(key).unwrap_err();
            assert!(invalid.problem.contains(why), "{key}: {}", invalid.problem);
            assert_eq!(invalid.key, format!("search.{key}"));
        }
    }

    #[test]
    fn keys_within_each_other_overlap() {
        assert!(overlap("model.lora", "model.lora.rank") && overlap("model.lora.rank", "model.lora"));
        assert!(overlap("a.b", "a.b") && !overlap("model.lora", "model.lora_rank"));
    }
}
