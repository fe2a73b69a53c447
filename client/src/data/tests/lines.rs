//! JSON lines and groups: what is read from them, and what is wrong with a line.

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::data::load_grouped;

fn lines(content: &str) -> TestFile {
    let mut file = TestFile::new(content);
    file.config.format = Format::JsonLines;
    file
}

fn two_features() -> Task {
    let features = vec![numeric("age", 50.0, 10.0, &["?"]), numeric("chol", 200.0, 50.0, &[])];
    task(TaskInput::Table { features })
}

proptest! {
    #[test]
    fn a_table_is_the_same_as_delimited_text_and_as_json_lines(
        rows in prop::collection::vec((0i32..99, prop::option::of(-9.0f64..9.0), any::<bool>()), 1..30),
    ) {
        let mut text = String::from("age,chol,disease\n");
        let mut json = String::new();
        for (age, chol, ill) in &rows {
            let word = if *ill { "yes" } else { "no" };
            text += &format!("{age},{},{word}\n", chol.map_or_else(String::new, |chol| chol.to_string()));
            json += &format!("{}\n", json!({ "disease": word, "chol": chol, "age": age, "more": [1, { "a": 2 }] }));
        }
        let task = two_features();
        prop_assert_eq!(lines(&json).load(&task).unwrap(), TestFile::new(text).load(&task).unwrap());
    }

    #[test]
    fn no_bytes_panic(bytes: Vec<u8>) {
        let mut file = TestFile::new(bytes);
        file.config.format = Format::JsonLines;
        let _ = file.load(&two_features());
    }
}

#[test]
fn a_line_that_is_no_object_is_named_and_its_content_is_not() {
    let good = json!({ "age": 61, "chol": 210, "disease": "yes" }).to_string();
    for (bad, why) in
        [("[1, 2]", "it is another value"), ("{\"age\": 6", "at character 9"), ("secret", "at character 1")]
    {
        let error = lines(&format!("{good}\n\n{bad}\n")).load(&two_features()).unwrap_err();
        assert!(
            error.to_string().ends_with(&format!("line 3: no JSON object ({why}); write one per line")),
            "{error}"
        );
        assert_eq!(error.for_operator(), "data set `heart`: line 3 is no JSON object");
    }
    let value: Value = serde_json::from_str(&good).unwrap();
    let mut wrong = value.clone();
    wrong["age"] = json!("old");
    let error = lines(&format!("{value}\n{wrong}\n")).load(&two_features()).unwrap_err();
    assert_eq!(
        error.for_operator(),
        "data set `heart`: line 2, column `age` holds a value that is not a number"
    );
    let error = lines("").load(&two_features()).unwrap_err();
    assert_eq!(error.for_operator(), "data set `heart`: its file is empty");
    let error = lines("{\"age\": 1, \"secret\": 2}\n").load(&two_features()).unwrap_err();
    assert_eq!(
        error.for_operator(),
        "data set `heart`: it has no column `disease` and `chol`; of the run's columns it has `age`"
    );
}

#[test]
fn groups_are_numbered_as_they_come_and_must_be_there() {
    let mut task = two_features();
    task.group = Some("patient".into());
    let file = TestFile::new("patient,age,chol,disease\np9,1,2,no\np1,1,2,yes\n p9,3,4,no\n");
    let (dataset, groups) = load_grouped(&file.config, "heart", &task).unwrap();
    assert_eq!((dataset.targets, groups), (Targets::Label(vec![0, 1, 0]), Some(vec![0, 1, 0])));
    assert_eq!(dataset.inputs, file.load(&task).unwrap().inputs);
    let file = TestFile::new("patient,age,chol,disease\np9,1,2,no\n,1,2,yes\n");
    let error = load_grouped(&file.config, "heart", &task).unwrap_err();
    assert_eq!(
        error.for_operator(),
        "data set `heart`: line 3, column `patient` holds a value that is empty where the run asks whose the example is"
    );
    // A test set is never divided.
    assert!(TestFile::new("age,chol,disease\n1,2,no\n").load(&task).is_ok());
    task.group = None;
    assert_eq!(load_grouped(&file.config, "heart", &task).unwrap().1, None);
}
