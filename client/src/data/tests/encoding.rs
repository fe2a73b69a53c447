//! What cells become.

use proptest::prelude::*;

use super::*;
use crate::data::hashing::Hashing;

/// A cell of a numeric column and what it must become, said as plainly as possible.
fn numeric_cell() -> impl Strategy<Value = (String, [f32; 2])> {
    prop_oneof![
        (-1e6f64..1e6)
            .prop_filter("0 means missing here", |x| *x != 0.0)
            .prop_map(|x| { (format!(" {x} "), [((x - 50.0) / 10.0) as f32, 0.0]) }),
        prop::sample::select(vec!["", "  ", "0", "0.0", "-0", "0e7"])
            .prop_map(|gap| (gap.to_owned(), [0.0, 1.0])),
    ]
}

fn categorical_cell() -> impl Strategy<Value = (String, [f32; 2])> {
    prop::sample::select(vec![
        ("typical", [1.0, 0.0]),
        (" typical", [1.0, 0.0]),
        ("none", [0.0, 1.0]),
        ("?", [0.0, 0.0]),
        ("", [0.0, 0.0]),
    ])
    .prop_map(|(cell, inputs)| (cell.to_owned(), inputs))
}

proptest! {
    #[test]
    fn a_table_is_encoded_as_the_run_says(
        rows in prop::collection::vec((numeric_cell(), categorical_cell(), any::<bool>()), 1..20),
    ) {
        let mut content = "cp,disease,extra,age\n".to_owned();
        let (mut values, mut labels) = (Vec::new(), Vec::new());
        for ((age, age_inputs), (cp, cp_inputs), sick) in &rows {
            content += &format!("{cp},{},\"a, \"\"b\"\"\nc\",{age}\n", if *sick { "yes" } else { "no" });
            values.extend(age_inputs.iter().chain(cp_inputs));
            labels.push(u32::from(*sick));
        }
        let dataset = TestFile::new(content).load(&heart()).unwrap();
        prop_assert_eq!(dataset, Dataset { inputs: Inputs::Table { width: 4, values }, targets: Targets::Label(labels) });
    }
}

#[test]
fn texts_are_read_as_they_are() {
    let file = TestFile::new("\u{feff}words,disease\n\" the \"\"heart\"\",\n ok\",no\nümläut,yes\n,no\n");
    let texts = [" the \"heart\",\n ok", "ümläut", ""].map(str::to_owned).to_vec();
    assert_eq!(
        file.load(&text()).unwrap(),
        Dataset { inputs: Inputs::Text(texts), targets: Targets::Label(vec![0, 1, 0]) }
    );
}

#[test]
fn any_number_of_labels_is_read_from_words_or_a_list() {
    let target = Target::Labels {
        column: "disease".to_owned(),
        separator: "|".to_owned(),
        labels: owned(&["flu", "gout", "none at all"]),
    };
    let file = TestFile::new("words;disease\na;gout | flu\nb;\nc;[\"none at all\", \"flu\"]\n");
    let mut file =
        TestFile { config: DatasetConfig { delimiter: b';', quotes: false, ..file.config }, ..file };
    let task = Task { target, ..text() };
    let values = vec![true, true, false, false, false, false, true, false, true];
    assert_eq!(file.load(&task).unwrap().targets, Targets::Labels { width: 3, values });
    file.config.rename = [("disease", "words")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    let said = file.load(&Task { input: TaskInput::Text { column: "words".into(), max_length: 9 }, ..task });
    assert!(said.unwrap_err().to_string().contains("\"a\" is none of the run's labels"));
}

#[test]
fn numbers_are_read_in_standard_deviations() {
    let number = NumberTarget { column: "disease".to_owned(), mean: 10.0, std: 4.0 };
    let task = Task { target: Target::Number(number), ..text() };
    let file = TestFile::new("words,disease\na, 12\nb,-2e0\n");
    assert_eq!(file.load(&task).unwrap().targets, Targets::Number(vec![0.5, -3.0]));
    for (cell, why) in [
        ("", "is empty where a label is expected"),
        ("much", "is not a number"),
        ("inf", "is not a finite number"),
    ] {
        let said = TestFile::new(format!("words,disease\na,{cell}\n")).load(&task).unwrap_err().to_string();
        assert!(said.contains(why), "{said}");
    }
}

#[test]
fn columns_may_have_other_names() {
    let mut file = TestFile::new("num,alter,cp,age\nyes,60,none,1\n");
    file.config.rename =
        [("disease", "num"), ("age", "alter")].map(|(a, b)| (a.to_owned(), b.to_owned())).into();
    let inputs = Inputs::Table { width: 4, values: vec![1.0, 0.0, 0.0, 1.0] };
    assert_eq!(file.load(&heart()).unwrap(), Dataset { inputs, targets: Targets::Label(vec![1]) });
    let survey = survey(&file.config, "heart").unwrap();
    assert_eq!(survey, Survey { rows: 1, columns: owned(&["disease", "age", "cp", "age"]) });
}

#[test]
fn a_file_without_a_header_is_named_by_the_configuration() {
    let mut file = TestFile::new("yes;60;none\nno;;typical\n");
    file.config.header = Header::Named(owned(&["disease", "age", "cp"]));
    file.config.delimiter = b';';
    let inputs = Inputs::Table { width: 4, values: vec![1.0, 0.0, 0.0, 1.0, 0.0, 1.0, 1.0, 0.0] };
    assert_eq!(file.load(&heart()).unwrap(), Dataset { inputs, targets: Targets::Label(vec![1, 0]) });
}

#[test]
fn the_three_headers_of_orange_are_one_and_two_to_skip() {
    let mut file = TestFile::new("words\tdisease\nstring\tdiscrete\nmeta\tclass\na \"quoted\" word\tyes\n");
    (file.config.delimiter, file.config.skip_rows) = (b'\t', 2);
    let inputs = Inputs::Text(owned(&["a \"quoted\" word"]));
    assert_eq!(file.load(&text()).unwrap(), Dataset { inputs, targets: Targets::Label(vec![1]) });
}

#[test]
fn quotes_may_be_ordinary_characters() {
    let mut file = TestFile::new("words,disease\n\"open,yes\n");
    file.config.quotes = false;
    assert_eq!(file.load(&text()).unwrap().inputs, Inputs::Text(owned(&["\"open"])));
}

#[test]
fn what_a_run_does_not_ask_for_may_be_anything() {
    let file = TestFile::new(b"words,na\xefve,disease\nok,caf\xe9,yes\n");
    assert_eq!(file.load(&text()).unwrap().targets, Targets::Label(vec![1]));
}

#[test]
fn a_run_without_data_reads_none() {
    let file = TestFile::new("");
    assert!(file.load(&task(TaskInput::Nothing)).unwrap().is_empty());
}

#[test]
fn classes_are_counted() {
    let dataset = Dataset { inputs: Inputs::Text(Vec::new()), targets: Targets::Label(vec![2, 0, 2, 9]) };
    assert_eq!(dataset.targets.label_counts(3), [1, 0, 2]);
}

#[test]
fn words_that_are_not_listed_are_other_or_hashed() {
    let file = TestFile::new("age,cp,disease\n,typical,no\n, odd ,yes\n,?,yes\n");
    let mut feature = categorical("cp", &["typical", "none"], &["?"]);
    feature.kind = FeatureKind::Categorical { categories: owned(&["typical", "none"]), other: true };
    let values = vec![1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0, 0.0, 0.0];
    assert_eq!(file.load(&table(vec![feature.clone()])).unwrap().inputs, Inputs::Table { width: 3, values });
    feature.kind = FeatureKind::Hashed { buckets: 4 };
    let Inputs::Table { width: 4, values } = file.load(&table(vec![feature])).unwrap().inputs else {
        panic!("a table")
    };
    let rows: Vec<f32> = values.chunks(4).map(|row| row.iter().map(|value| value.abs()).sum()).collect();
    assert_eq!(rows, [1.0, 1.0, 0.0]);
}

/// Every word is where scikit-learn's `FeatureHasher` puts it (`scripts/reference/hashing.py`).
#[test]
fn words_are_hashed_as_scikit_learn_does() {
    let reference: serde_json::Value =
        serde_json::from_str(include_str!("../../../tests/data/hashing.json")).unwrap();
    let cases = reference["cases"].as_array().unwrap();
    assert_eq!(cases.len(), 200);
    for case in cases {
        let buckets = case[1].as_u64().unwrap() as u32;
        let hashing = Hashing { column: case[0].as_str().unwrap(), buckets };
        let (bucket, sign) = hashing.place(case[2].as_str().unwrap());
        assert_eq!(
            (bucket as u64, f64::from(sign)),
            (case[3].as_u64().unwrap(), case[4].as_f64().unwrap()),
            "{case}"
        );
    }
}
