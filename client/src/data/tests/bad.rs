//! What is said of a bad file: to the site, with the value, and to the operator, without.

use super::*;

/// The site's sentence after the file's name, and the operator's after the data set's.
fn sentences(content: impl AsRef<[u8]>, task: &Task) -> (String, String) {
    said_of(&TestFile::new(content), task)
}

fn said_of(file: &TestFile, task: &Task) -> (String, String) {
    let error = file.load(task).unwrap_err();
    let start = format!("data set `heart`: {}", file.config.path.display());
    let site = error.to_string();
    let operator = error.for_operator();
    let site = site.strip_prefix(&start).unwrap_or_else(|| panic!("{site}"));
    let operator = operator.strip_prefix("data set `heart`: ").unwrap_or_else(|| panic!("{operator}"));
    (site.to_owned(), operator.to_owned())
}

fn check(content: impl AsRef<[u8]>, task: &Task, site: &str, operator: &str) {
    assert_eq!(sentences(content, task), (site.to_owned(), operator.to_owned()));
}

#[test]
fn a_file_that_cannot_be_read() {
    let mut file = TestFile::new("");
    file.config.path = file.config.path.join("not a folder");
    let (site, operator) = said_of(&file, &heart());
    assert!(site.starts_with(" cannot be read: "), "{site}");
    assert_eq!(operator, "its file cannot be read");
}

#[test]
fn a_file_without_examples() {
    check("", &heart(), " is empty", "its file is empty");
    check("age,cp,disease\n", &heart(), " holds no example below its header", "its file holds no example");
}

#[test]
fn a_missing_column() {
    check(
        "age,cp,num\n63,none,yes\n",
        &heart(),
        " has no column `disease`; it has `age`, `cp` and `num`; give a column the run's name with the data set's `rename`",
        "it has no column `disease`; of the run's columns it has `age` and `cp`",
    );
}

#[test]
fn a_missing_header_does_not_tell_the_operator_the_first_example() {
    let (site, operator) = sentences("63,none,yes\n71,typical,no\n", &heart());
    assert!(site.contains("it has `63`, `none` and `yes`"), "{site}");
    assert_eq!(operator, "it has none of the run's columns `disease`, `age` and `cp`");
}

#[test]
fn many_columns_are_not_all_listed() {
    let header: Vec<String> = (0..30).map(|column| format!("c{column}")).collect();
    let (site, _) = sentences(header.join(","), &heart());
    assert!(site.contains("`c18`, `c19` and 10 more;"), "{site}");
}

#[test]
fn a_column_that_is_there_twice() {
    check(
        "age,cp,disease,age\n63,none,yes,64\n",
        &heart(),
        " has two columns `age`; give one of them another name",
        "it has two columns `age`",
    );
}

#[test]
fn a_row_of_another_length() {
    check(
        "age,cp,disease\n63,none,yes\n64,none\n",
        &heart(),
        ", line 3: 2 fields where the file has 3 columns; check the delimiter and the quotes",
        "line 3 has 2 fields where the file has 3 columns",
    );
}

#[test]
fn a_label_that_the_run_does_not_know() {
    check(
        "age,cp,disease\n63,none,yes\n64,none,maybe\n",
        &heart(),
        ", line 3, column `disease`: \"maybe\" is none of the run's labels; write it as the run does, or leave the row out",
        "column `disease` holds a value that is none of the run's labels; the site's log says which",
    );
}

#[test]
fn a_label_that_is_missing() {
    check(
        "age,cp,disease\n63,none, \n",
        &heart(),
        ", line 2, column `disease`: \" \" is empty where a label is expected; label the row or leave it out",
        "line 2, column `disease` holds a value that is empty where a label is expected",
    );
}

#[test]
fn a_category_that_the_run_does_not_know() {
    check(
        "age,cp,disease\n63,Typical,yes\n",
        &heart(),
        ", line 2, column `cp`: \"Typical\" is none of the run's categories; write it as the run does, or ask the \
         operator to list it under `categories` or `missing`",
        "column `cp` holds a value that is none of the run's categories; the site's log says which",
    );
}

#[test]
fn what_is_no_number() {
    for (cell, problem) in [
        ("abc", "is not a number"),
        ("1;5", "is not a number"),
        ("NaN", "is not a finite number"),
        ("-inf", "is not a finite number"),
        ("1e999", "is not a finite number"),
    ] {
        check(
            format!("age,cp,disease\n63,none,yes\n{cell},none,yes\n"),
            &heart(),
            &format!(
                ", line 3, column `age`: \"{cell}\" {problem}; correct it, or ask the operator to list it under \
                 `missing` if it means that"
            ),
            &format!("line 3, column `age` holds a value that {problem}"),
        );
    }
}

#[test]
fn a_number_beyond_single_precision() {
    let (site, operator) = sentences("age,cp,disease\n1e300,none,yes\n", &heart());
    assert_eq!(site, ", line 2, column `age`: \"1e300\" is too large a number; correct it");
    assert_eq!(operator, "line 2, column `age` holds a value that is too large a number");
}

#[test]
fn text_in_another_encoding() {
    check(
        b"words,disease\nplain,no\ncaf\xe9,yes\n",
        &text(),
        ", line 3, column `words`: \"caf\u{fffd}\" is not UTF-8; convert the file to UTF-8, for example with iconv",
        "line 3, column `words` holds a value that is not UTF-8",
    );
}

#[test]
fn lines_are_those_of_an_editor() {
    let quoted = "words,disease\n\"one\ntwo\",no\n\nthree,never\n";
    for content in [quoted.to_owned(), quoted.replace('\n', "\r\n")] {
        let (site, _) = sentences(content, &text());
        assert!(site.starts_with(", line 5, column `disease`"), "{site}");
    }
}

#[test]
fn the_sites_own_name_of_a_column_is_used_at_the_site() {
    let mut file = TestFile::new("age,cp,num\n63,none,4\n");
    file.config.rename = [("disease".to_owned(), "num".to_owned())].into();
    let (site, operator) = said_of(&file, &heart());
    assert!(site.starts_with(", line 2, column `num`: \"4\" is none"), "{site}");
    assert!(operator.starts_with("column `disease` holds"), "{operator}");
}

#[test]
fn a_long_value_is_cut() {
    let (site, _) = sentences(format!("age,cp,disease\n1,none,{}\n", "x".repeat(1000)), &heart());
    assert!(site.len() < 250, "{site}");
}
