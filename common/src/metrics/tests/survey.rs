//! Surveys: pooled over any sites, in the clear and through slots, they are what plain arithmetic over the union of the
//! sites' data gives; and what no site can hold is refused.

use proptest::prelude::*;

use super::super::*;
use super::congruential;
use crate::run::RunSpec;
use crate::wire;

const RUN: &str = r#"
name = "hearts"
rounds = 1
model = { architecture = "mlp" }
[task]
type = "tabular-classification"
dataset = "d"
label = "ill"
labels = ["no", "yes"]
features = [
    { column = "age", type = "numeric" },
    { column = "pressure", type = "numeric", mean = 130.0, std = 20.0 },
    { column = "sex", type = "categorical", categories = ["f", "m", "x"] },
]
"#;

fn kind() -> Kind {
    Kind::of(&RunSpec::parse_survey("run.toml", RUN).unwrap())
}

fn columns() -> Vec<Asked> {
    let Kind::Survey { columns } = kind() else { panic!("no survey") };
    columns
}

/// Age, pressure, sex and label of a patient, as the file has them.
type Patient = (Option<f64>, Option<f64>, Option<usize>, usize);

fn counted(patients: &[Patient]) -> Counts {
    let number = |value: Option<f64>, mean, std| {
        value.map_or(Value::Missing, |value| Value::Number(Scale { mean, std }.standardised(value)))
    };
    let mut survey = Survey::new(&columns());
    for (age, pressure, sex, label) in patients {
        let sex = sex.map_or(Value::Missing, Value::Word);
        survey.observe([number(*age, 0.0, 1.0), number(*pressure, 130.0, 20.0), sex, Value::Word(*label)]);
    }
    survey.into()
}

fn patients(least: usize) -> impl Strategy<Value = Vec<Patient>> {
    let pressure = prop::option::of(80.0f64..200.0);
    let patient = (prop::option::of(-1e6f64..1e6), pressure, prop::option::of(0usize..3), 0usize..2);
    prop::collection::vec(patient, least..40)
}

/// The mean and the standard deviation of the population, by their definitions.
fn plain(values: &[f64]) -> Option<(f64, f64)> {
    let n = values.len() as f64;
    let mean = values.iter().sum::<f64>() / n;
    let variance = values.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / n;
    (n > 0.0).then(|| (mean, variance.sqrt()))
}

fn read(counts: &Counts) -> SurveyReport {
    counts.report(&kind()).survey().unwrap().clone()
}

fn pooled(sites: &[Vec<Patient>]) -> Counts {
    let mut sum = Counts::new(&kind());
    sites.iter().for_each(|site| sum.merge(&counted(site)).unwrap());
    sum
}

proptest! {
    #[test]
    fn sites_pool_to_what_their_union_holds(sites in prop::collection::vec(patients(0), 1..5)) {
        let counts = pooled(&sites);
        let union: Vec<Patient> = sites.concat();
        prop_assert_eq!(&counts, &counted(&union));
        prop_assert_eq!(counts.is_sound(&kind(), sites.len() as u64), Ok(()));

        let mut slots = vec![0u64; Counts::num_slots(&kind())];
        for site in &sites {
            slots.iter_mut().zip(counted(site).to_slots()).for_each(|(sum, slot)| *sum += slot);
        }
        prop_assert_eq!(Counts::from_slots(&kind(), &slots).unwrap(), counts.clone());
        let bytes = wire::encode(&counts).unwrap();
        prop_assert_eq!(&wire::decode::<Counts>(&bytes).unwrap(), &counts);

        let report = read(&counts);
        prop_assert_eq!(report.num_examples, union.len() as u64);
        let ages: Vec<f64> = union.iter().filter_map(|patient| patient.0).collect();
        let pressures: Vec<f64> = union.iter().filter_map(|patient| patient.1).collect();
        for (column, values, unit) in [(0, ages, 1.0), (1, pressures, 20.0)] {
            let column = &report.columns[column];
            let number = column.number.unwrap();
            prop_assert_eq!((number.count, number.clamped), (values.len() as u64, 0));
            prop_assert_eq!(column.missing, (union.len() - values.len()) as u64);
            prop_assert_eq!(number.mean.is_some(), !values.is_empty());
            if let Some((mean, std)) = plain(&values) {
                // The stated bound, and what the plain reference itself rounds.
                let bound = unit / f64::from(1u32 << 21) + 1e-7;
                prop_assert!((number.mean.unwrap() - mean).abs() <= bound, "{number:?} {mean}");
                prop_assert!((number.std.unwrap() - std).abs() <= bound, "{number:?} {std}");
            }
        }
        let count = |has: &dyn Fn(&Patient) -> bool| union.iter().filter(|patient| has(patient)).count() as u64;
        for (at, word) in report.columns[2].words.iter().enumerate() {
            prop_assert_eq!((word.count, word.balanced_weight), (count(&|p| p.2 == Some(at)), None));
        }
        prop_assert_eq!(report.columns[2].missing, count(&|p| p.2.is_none()));
        for (at, word) in report.columns[3].words.iter().enumerate() {
            let own = count(&|p| p.3 == at);
            let balanced = (own > 0).then(|| union.len() as f64 / (2.0 * own as f64));
            prop_assert_eq!((word.count, word.balanced_weight), (own, balanced));
        }
    }
}

/// Where a sum of floating-point squares would have lost all digits of the spread.
#[test]
fn a_spread_far_from_zero_keeps_its_digits() {
    let ages: Vec<f64> = congruential(3).take(1000).map(|share| 1e9 + 8.0 * share).collect();
    let site: Vec<Patient> = ages.iter().map(|age| (Some(*age), None, None, 0)).collect();
    let (sites, number) = (site.chunks(300).map(<[_]>::to_vec).collect::<Vec<_>>(), 0);
    let found = read(&pooled(&sites)).columns[number].number.unwrap();
    let centred: Vec<f64> = ages.iter().map(|age| age - 1e9).collect();
    let (mean, std) = plain(&centred).unwrap();
    assert!((found.mean.unwrap() - 1e9 - mean).abs() < 1e-6, "{found:?} {mean}");
    assert!((found.std.unwrap() - std).abs() < 1e-6, "{found:?} {std}");
}

#[test]
fn numbers_that_are_all_the_same_have_no_spread_and_those_too_large_are_told() {
    let site = vec![(Some(0.1), Some(1e14), None, 0); 3];
    let report = read(&counted(&site));
    assert_eq!(report.columns[0].number.unwrap().std, Some(0.0));
    let pressure = report.columns[1].number.unwrap();
    assert_eq!((pressure.count, pressure.clamped), (3, 3));
    assert_eq!(pressure.mean, Some(130.0 + 20.0 * VALUE_MAX));
}

/// As many as may be, with the largest numbers: nothing overflows.
#[test]
fn the_most_that_sites_may_count_fits() {
    let mut sum = counted(&[(Some(1e13), Some(-1e15), Some(0), 0), (Some(-1e13), None, Some(1), 1)]);
    // Doubled up to 2^32 examples of 2^16 sites.
    for _ in 0..47 {
        sum.merge(&sum.clone()).unwrap();
    }
    assert_eq!(sum.num_examples(), EXAMPLES_MAX * SITES_MAX);
    assert_eq!(sum.is_sound(&kind(), SITES_MAX), Ok(()));
    let number = read(&sum).columns[0].number.unwrap();
    assert_eq!((number.mean, number.std), (Some(0.0), Some(VALUE_MAX)));
    assert_eq!(Counts::from_slots(&kind(), &sum.to_slots()), Some(sum));
}

/// The written form of a survey, to write down what no honest site would.
#[derive(Clone, serde::Serialize, serde::Deserialize)]
struct Forged {
    kind: u8,
    examples: u64,
    columns: (u8, Number, Number, Words, Words),
}

type Number = (u8, u64, u64, u128, [u128; 2]);
type Words = (u8, Vec<u64>);

#[test]
fn forged_surveys_are_refused() {
    let site = [(Some(50.0), Some(120.0), Some(0), 0), (Some(60.0), None, None, 1)];
    let honest: Forged = wire::decode(&wire::encode(&counted(&site)).unwrap()).unwrap();
    let verdict = |forge: &dyn Fn(&mut Forged)| {
        let mut forged = honest.clone();
        forge(&mut forged);
        let counts: Counts = wire::decode(&wire::encode(&forged).unwrap()).unwrap();
        counts.is_sound(&kind(), 1)
    };
    assert_eq!(verdict(&|_| ()), Ok(()));
    assert_eq!(verdict(&|c| c.columns.4.1.push(0)), Err(Unsound::Columns(4)));
    assert_eq!(verdict(&|c| c.examples = EXAMPLES_MAX + 1), Err(Unsound::TooMany));
    assert_eq!(verdict(&|c| c.columns.1.1 = 3), Err(Unsound::Column(0)), "more values than examples");
    assert_eq!(verdict(&|c| c.columns.1.2 = 3), Err(Unsound::Column(0)), "more clamped than values");
    assert_eq!(verdict(&|c| c.columns.1.3 = u128::MAX), Err(Unsound::Column(0)));
    assert_eq!(verdict(&|c| c.columns.1.4 = [0, 0]), Err(Unsound::Column(0)), "a negative variance");
    assert_eq!(verdict(&|c| c.columns.2.4[0] = u128::MAX), Err(Unsound::Column(1)));
    assert_eq!(verdict(&|c| c.columns.3.1 = vec![1, 1, 1]), Err(Unsound::Column(2)), "more than examples");
    assert_eq!(verdict(&|c| c.columns.3.1 = vec![u64::MAX; 3]), Err(Unsound::Column(2)));
    assert_eq!(
        verdict(&|c| c.columns.4.1 = vec![1, 0]),
        Err(Unsound::Column(3)),
        "an example without a label"
    );
    let other = Counts::from(Classification::new(2));
    assert_eq!(other.is_sound(&kind(), 1), Err(Unsound::Kind));
    assert_eq!(counted(&site).clone().merge(&other), Err(Mismatch::Kinds));
    let shorter = Counts::from(Survey::new(&columns()[..2]));
    assert_eq!(counted(&site).clone().merge(&shorter), Err(Mismatch::Kinds));
}

#[test]
fn a_survey_asks_for_what_the_task_learns() {
    let of =
        |from: &str, to: &str| Kind::of(&RunSpec::parse_survey("run.toml", &RUN.replace(from, to)).unwrap());
    let Kind::Survey { columns } = of("labels = [", "multi_label = true\nlabels = [") else {
        panic!("no survey")
    };
    assert!(matches!(&columns[3].asks, Asks::Words { occurs: Occurs::Freely, .. }), "{columns:?}");
    let number = "type = \"tabular-regression\"\nlabel_mean = 3.0\nlabel_std = 2.0";
    let text =
        RUN.replace("type = \"tabular-classification\"", number).replace("labels = [\"no\", \"yes\"]", "");
    let Kind::Survey { columns } = Kind::of(&RunSpec::parse_survey("run.toml", &text).unwrap()) else {
        panic!("no survey")
    };
    assert_eq!(columns[3], Asked { column: "ill".into(), asks: Asks::Number(Scale { mean: 3.0, std: 2.0 }) });
}

#[test]
fn what_is_no_table_is_not_surveyed() {
    let text = "name = \"toy\"\nrounds = 1\nmodel = { architecture = \"constant\", parameters = 4 }\ntask = { type = \"none\" }";
    let refused = RunSpec::parse_survey("run.toml", text).unwrap_err().to_string();
    assert!(refused.ends_with("task.type: a survey is of tables or texts"), "{refused}");
}
