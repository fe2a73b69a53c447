//! Parquet: the same table as in a CSV file, whoever compressed it, and what is wrong with a file.

use std::path::PathBuf;

use super::*;

fn stored(name: &str) -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/data/parquet").join(name)
}

fn file(name: &str, format: Format) -> TestFile {
    let mut file = TestFile::new("");
    (file.config.path, file.config.format) = (stored(name), format);
    file
}

fn wide() -> Task {
    table(vec![
        numeric("age", 50.0, 10.0, &[]),
        numeric("chol", 200.0, 50.0, &[]),
        numeric("small", 0.0, 1.0, &[]),
        categorical("kind", &["typical", "none", "größer"], &[]),
        categorical("smoker", &["true", "false"], &[]),
        numeric("count", 0.0, 1.0, &[]),
    ])
}

#[test]
fn a_table_is_the_same_as_delimited_text_and_as_parquet() {
    let expected = file("same.csv", Format::Delimited).load(&wide()).unwrap();
    assert_eq!(expected.len(), 40);
    for name in ["none", "snappy", "gzip", "zstd", "v2"] {
        let found = file(&format!("{name}.parquet"), Format::Parquet).load(&wide()).unwrap();
        assert_eq!(found, expected, "{name}");
    }
}

#[test]
fn a_text_is_read_too_and_all_columns_are_named() {
    let task = task(TaskInput::Text { column: "kind".to_owned(), max_length: 16 });
    let texts = |name, format| file(name, format).load(&task).unwrap();
    assert_eq!(texts("snappy.parquet", Format::Parquet), texts("same.csv", Format::Delimited));
    let survey = survey(&file("gzip.parquet", Format::Parquet).config, "heart").unwrap();
    assert_eq!((survey.rows, survey.columns.len()), (40, 9));
}

#[test]
fn what_is_nested_or_no_plain_value_is_refused_where_a_run_asks_for_it() {
    for column in ["visits", "born"] {
        let error = file("none.parquet", Format::Parquet)
            .load(&table(vec![numeric(column, 0.0, 1.0, &[])]))
            .unwrap_err();
        assert!(
            error.to_string().contains(&format!(", column `{column}` is nested or of a type that")),
            "{error}"
        );
        assert!(error.for_operator().ends_with("neither words, numbers nor truth values"), "{error}");
    }
}

#[test]
fn a_bad_value_is_named_by_its_row() {
    let error = file("zstd.parquet", Format::Parquet)
        .load(&table(vec![categorical("kind", &["typical", "größer"], &[])]))
        .unwrap_err();
    assert!(error.to_string().contains(", row 2, column `kind`: \"none\" is none of"), "{error}");
    assert!(!error.for_operator().contains("none\""), "{}", error.for_operator());
}

#[test]
fn a_file_that_cannot_be_read_is_said() {
    let error = file("brotli.parquet", Format::Parquet).load(&wide()).unwrap_err();
    assert!(error.to_string().contains("cannot be read") && error.to_string().contains("rotli"), "{error}");
    let whole = fs::read(stored("snappy.parquet")).unwrap();
    for (content, why) in [
        (Vec::new(), "is empty"),
        (b"age,disease\n1,yes\n".to_vec(), "cannot be read: "),
        (whole[..whole.len() / 2].to_vec(), "cannot be read: "),
    ] {
        let mut file = TestFile::new(content);
        file.config.format = Format::Parquet;
        let error = file.load(&wide()).unwrap_err();
        assert!(error.to_string().contains(why), "{error}");
    }
}

#[test]
fn no_damage_to_a_file_panics_or_takes_the_memory() {
    let whole = fs::read(stored("snappy.parquet")).unwrap();
    for at in (0..whole.len()).step_by(7) {
        for change in [0x01, 0x80, 0xff] {
            let mut content = whole.clone();
            content[at] ^= change;
            let mut file = TestFile::new(content);
            file.config.format = Format::Parquet;
            let _ = file.load(&wide());
        }
    }
}
