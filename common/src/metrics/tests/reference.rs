//! Every metric against scikit-learn's, on the seeded data sets that `scripts/reference/metrics.py` writes; pooled
//! over three sites, in the clear and as the slots of a secure sum.

use std::collections::BTreeMap;

use serde_json::Value;

use super::super::*;

/// The most by which a metric that is not binned may differ.
const EXACT: f64 = 1e-6;

/// What rounding may add to a bound.
const ROUNDING: f64 = 1e-12;

const CLASSIFICATION: [(&str, &str); 9] = [
    ("binary", include_str!("../reference/binary.json")),
    ("multi_class", include_str!("../reference/multi_class.json")),
    ("imbalanced", include_str!("../reference/imbalanced.json")),
    ("imbalanced_binary", include_str!("../reference/imbalanced_binary.json")),
    ("confident", include_str!("../reference/confident.json")),
    ("absent_label", include_str!("../reference/absent_label.json")),
    ("one_class", include_str!("../reference/one_class.json")),
    ("one_class_binary", include_str!("../reference/one_class_binary.json")),
    ("always_the_same", include_str!("../reference/always_the_same.json")),
];

const MULTI_LABEL: [(&str, &str); 2] = [
    ("multi_label", include_str!("../reference/multi_label.json")),
    ("multi_label_degenerate", include_str!("../reference/multi_label_degenerate.json")),
];

const REGRESSION: [(&str, &str); 3] = [
    ("regression", include_str!("../reference/regression.json")),
    ("regression_far", include_str!("../reference/regression_far.json")),
    ("regression_constant", include_str!("../reference/regression_constant.json")),
];

const LANGUAGE: (&str, &str) = ("language", include_str!("../reference/language.json"));

const SITES: usize = 3;

/// A data set with the reports on it.
struct Case {
    name: &'static str,
    expected: Value,
    /// By the way that its counts were pooled.
    reports: [(&'static str, Value); 2],
}

/// The largest difference of each metric, by the way of pooling, with the largest bound it had.
type Differences = BTreeMap<(&'static str, String), (f64, f64)>;

fn parsed((name, text): (&str, &str)) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{name}: {error}"))
}

fn numbers(value: &Value) -> Vec<f64> {
    value.as_array().unwrap().iter().map(|number| number.as_f64().unwrap()).collect()
}

fn integers(value: &Value) -> Vec<usize> {
    numbers(value).into_iter().map(|number| number as usize).collect()
}

fn logits(value: &Value) -> Vec<f32> {
    numbers(value).into_iter().map(|logit| logit as f32).collect()
}

fn labels(case: &Value) -> Vec<String> {
    (0..case["labels"].as_u64().unwrap()).map(|label| label.to_string()).collect()
}

/// The sites' counts, pooled, and a report on them; `observe` counts the example of that number.
fn pooled<C: Into<Counts> + Clone>(
    name: &'static str,
    case: &Value,
    kind: &Kind,
    empty: C,
    observe: impl Fn(&mut C, usize),
) -> Case {
    let mut sites = vec![empty.clone(); SITES];
    let mut together = empty;
    for (example, site) in integers(&case["sites"]).into_iter().enumerate() {
        observe(&mut sites[site], example);
        observe(&mut together, example);
    }
    let sites: Vec<Counts> = sites.into_iter().map(Into::into).collect();
    let together: Counts = together.into();
    let mut merged = Counts::new(kind);
    let mut slots = vec![0; Counts::num_slots(kind)];
    for site in &sites {
        assert_eq!(site.is_sound(kind, 1), Ok(()), "{name}");
        merged.merge(site).unwrap();
        let own = site.to_slots();
        assert_eq!(own.len(), slots.len(), "{name}");
        slots.iter_mut().zip(own).for_each(|(sum, slot)| *sum += slot);
    }
    assert_eq!(merged, together, "{name}: the counts of three sites are those of all examples");
    let secure = Counts::from_slots(kind, &slots).unwrap();
    assert_eq!(
        Counts::from_slots(kind, &together.to_slots()).as_ref(),
        Some(&secure),
        "{name}: the same, summed"
    );
    assert_eq!(secure.is_sound(kind, SITES as u64), Ok(()), "{name}");
    assert_eq!(Counts::from_slots(kind, &slots[1..]), None);
    let report = |counts: &Counts| serde_json::to_value(counts.report(kind)).unwrap();
    let reports = [("merged", report(&merged)), ("slots", report(&secure))];
    Case { name, expected: case["expected"].clone(), reports }
}

fn classification((name, text): (&'static str, &str)) -> Case {
    let case = parsed((name, text));
    let labels = labels(&case);
    let (empty, kind) = (Classification::new(labels.len()), Kind::Classification { labels });
    let truth = integers(&case["truth"]);
    pooled(name, &case, &kind, empty, |counts, at| counts.observe(truth[at], &logits(&case["logits"][at])))
}

fn multi_label((name, text): (&'static str, &str)) -> Case {
    let case = parsed((name, text));
    let labels = labels(&case);
    let (empty, kind) = (MultiLabel::new(labels.len()), Kind::MultiLabel { labels });
    let truth = |at: usize| integers(&case["truth"][at]).into_iter().map(|has| has == 1).collect::<Vec<_>>();
    pooled(name, &case, &kind, empty, |counts, at| counts.observe(&truth(at), &logits(&case["logits"][at])))
}

/// In standard deviations, so that the tolerance means the same for all scales.
fn regression((name, text): (&'static str, &str)) -> Case {
    let case = parsed((name, text));
    let number = |key: &str| case[key].as_f64().unwrap();
    let target = Scale { mean: number("mean"), std: number("std") };
    let (truth, predictions) = (numbers(&case["truth"]), numbers(&case["predictions"]));
    let mut found = pooled(name, &case, &Kind::Regression { target }, Regression::default(), |counts, at| {
        counts.observe(target.standardised(truth[at]), target.standardised(predictions[at]));
    });
    for values in found.reports.iter_mut().map(|(_, report)| report).chain([&mut found.expected]) {
        for key in ["mae", "rmse"] {
            values[key] = (values[key].as_f64().unwrap() / target.std).into();
        }
    }
    found
}

fn language(case: (&'static str, &str)) -> Case {
    let name = case.0;
    let case = parsed(case);
    pooled(name, &case, &Kind::Language, Language::default(), |counts, at| {
        let right = case["right"][at].as_array().unwrap().iter().map(|right| right.as_bool().unwrap());
        counts.observe(numbers(&case["losses"][at]).into_iter().zip(right));
    })
}

/// Whether `ours` is `theirs`, field by field of the latter; a field `x` with a field `x_error` beside it to within
/// that, every other one to within [`EXACT`].
fn compare(place: &str, pooling: &'static str, ours: &Value, theirs: &Value, found: &mut Differences) {
    match theirs {
        Value::Object(fields) => {
            for (key, value) in fields {
                let error = ours[format!("{key}_error")].as_f64();
                let place = format!("{place}.{key}");
                match (value.as_f64(), ours[key].as_f64()) {
                    (Some(theirs), Some(ours)) => {
                        let (difference, bound) = ((ours - theirs).abs(), error.unwrap_or(EXACT));
                        assert!(
                            difference <= bound + ROUNDING,
                            "{pooling} {place}: {ours} is not {theirs} to within {bound}"
                        );
                        let most = found.entry((pooling, key.clone())).or_default();
                        *most = (most.0.max(difference), most.1.max(bound));
                    }
                    (None, None) => compare(&place, pooling, &ours[key], value, found),
                    _ => panic!("{pooling} {place}: {} is not {value}", ours[key]),
                }
            }
        }
        Value::Array(list) => {
            assert_eq!(ours.as_array().map(Vec::len), Some(list.len()), "{place}");
            for (at, value) in list.iter().enumerate() {
                compare(&format!("{place}[{at}]"), pooling, &ours[at], value, found);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            assert_eq!(ours, theirs, "{pooling} {place}");
        }
    }
}

fn check(cases: impl IntoIterator<Item = Case>) -> Differences {
    let mut found = Differences::new();
    for case in cases {
        for (pooling, report) in &case.reports {
            compare(case.name, pooling, report, &case.expected, &mut found);
        }
    }
    // Shown with `cargo test -- --nocapture`.
    for ((pooling, key), (difference, bound)) in &found {
        println!("{pooling:>6} {key:<18} differs by at most {difference:.1e}, of at most {bound:.1e}");
    }
    found
}

#[test]
fn classification_is_scikit_learns() {
    let found = check(CLASSIFICATION.map(classification));
    let bound = |pooling, key: &str| found[&(pooling, key.to_owned())].1;
    for key in ["roc_auc", "pr_auc"] {
        assert!(
            bound("merged", key) < 0.005 && bound("slots", key) < 0.02,
            "{key}: a bound that says nothing"
        );
    }
}

#[test]
fn multi_label_is_scikit_learns() {
    check(MULTI_LABEL.map(multi_label));
}

#[test]
fn regression_is_scikit_learns() {
    check(REGRESSION.map(regression));
}

#[test]
fn language_is_scikit_learns() {
    check([language(LANGUAGE)]);
}
