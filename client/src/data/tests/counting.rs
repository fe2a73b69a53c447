//! What a survey counts in a file, and what it refuses, as training does.

use sheaf_common::metrics::{Asked, Asks, Counts, Kind, Occurs, Scale, SurveyReport};
use sheaf_common::run::NumberTarget;

use super::*;

/// What is asked of [`heart`], whose ages are around 50.
fn asked() -> Vec<Asked> {
    let words = |column: &str, named: &[&str], occurs| Asked {
        column: column.to_owned(),
        asks: Asks::Words { words: owned(named), occurs },
    };
    let age = Asks::Number(Scale { mean: 50.0, std: 10.0 });
    vec![
        Asked { column: "age".to_owned(), asks: age },
        words("cp", &["typical", "none"], Occurs::AtMostOnce),
        words("disease", &["no", "yes"], Occurs::Once),
    ]
}

fn report(file: &TestFile, task: &Task, asked: Vec<Asked>) -> SurveyReport {
    let counts = Counts::from(count(&file.config, "heart", task, &asked).unwrap());
    let kind = Kind::Survey { columns: asked };
    assert_eq!(counts.is_sound(&kind, 1), Ok(()));
    counts.report(&kind).survey().unwrap().clone()
}

#[test]
fn a_table_is_counted_with_what_is_missing() {
    let rows = "40,typical,yes\n0,typical,no\n60, none ,yes\n,?,yes\n70.5,,no\n";
    let file = TestFile::new(format!("age,cp,disease\n{rows}"));
    let report = report(&file, &heart(), asked());
    assert_eq!(report.num_examples, 5);
    let age = report.columns[0].number.unwrap();
    // numpy.array([40, 60, 70.5]).mean() and .std()
    assert!((age.mean.unwrap() - 56.833_333_333).abs() < 1e-5, "{age:?}");
    assert!((age.std.unwrap() - 12.651_306_476).abs() < 1e-5, "{age:?}");
    assert_eq!((age.count, age.clamped, report.columns[0].missing), (3, 0, 2));
    let of = |column: usize| report.columns[column].words.iter().map(|word| word.count).collect::<Vec<_>>();
    assert_eq!((of(1), report.columns[1].missing), (vec![2, 1], 2));
    assert_eq!((of(2), report.columns[2].missing), (vec![2, 3], 0));
}

#[test]
fn what_a_text_is_labelled_with_is_counted() {
    let file = TestFile::new("words,disease\none,1.5\ntwo,2.5\n");
    let target = Target::Number(NumberTarget { column: "disease".to_owned(), mean: 0.0, std: 1.0 });
    let scale = Asks::Number(Scale { mean: 0.0, std: 1.0 });
    let asked = vec![Asked { column: "disease".to_owned(), asks: scale }];
    let number = report(&file, &Task { target, ..text() }, asked).columns[0].number.unwrap();
    assert_eq!((number.mean, number.std), (Some(2.0), Some(0.5)));
}

#[test]
fn what_training_refuses_is_not_counted() {
    for (row, said) in [
        ("old,typical,yes", "line 2, column `age` holds a value that is not a number"),
        ("inf,typical,yes", "line 2, column `age` holds a value that is not a finite number"),
        ("40,odd,yes", "column `cp` holds a value that is none of the run's categories"),
        ("40,typical,maybe", "column `disease` holds a value that is none of the run's labels"),
        ("40,typical,", "line 2, column `disease` holds a value that is empty where a label is expected"),
    ] {
        let file = TestFile::new(format!("age,cp,disease\n{row}\n"));
        let counted = count(&file.config, "heart", &heart(), &asked()).unwrap_err();
        assert!(counted.for_operator().contains(said), "{}", counted.for_operator());
        assert_eq!(Err(counted), file.load(&heart()).map(|_| ()), "{row}");
    }
    let file = TestFile::new("age,disease\n40,yes\n");
    let refused = count(&file.config, "heart", &heart(), &asked()).unwrap_err();
    assert!(refused.for_operator().contains("it has no column `cp`"), "{}", refused.for_operator());
}
