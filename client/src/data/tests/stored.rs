//! Rows and texts that the memory is too small for, held against the same in memory.

use sheaf_common::run::HeldOut;

use super::*;

/// `count` rows of two features and a text.
fn rows(count: u32) -> String {
    let row = |number: u32| {
        let (sick, cp) = (number.is_multiple_of(3), number.is_multiple_of(4));
        let [sick, cp] = [if sick { "yes" } else { "no" }, if cp { "typical" } else { "none" }];
        format!("{sick},{},{cp},words of {}\n", 20 + number, "ü".repeat(number as usize))
    };
    ["disease,age,cp,words\n".to_owned()].into_iter().chain((0..count).map(row)).collect()
}

/// A data set as it is in memory.
fn read(dataset: &Dataset) -> Dataset {
    let all: Vec<usize> = (0..dataset.len()).collect();
    let inputs = match &dataset.inputs {
        Inputs::StoredTable { width, rows } => {
            Inputs::Table { width: *width, values: rows.rows(*width, &all).unwrap() }
        }
        Inputs::StoredText(texts) => Inputs::Text(texts.read(0..texts.len()).unwrap()),
        Inputs::Text(_) | Inputs::Table { .. } | Inputs::Images { .. } | Inputs::StoredImages { .. } => {
            panic!("not in a file")
        }
    };
    Dataset { inputs, targets: dataset.targets.clone() }
}

#[test]
fn what_memory_is_too_small_for_is_kept_on_disk_and_divided_there() {
    let mut file = TestFile::new(rows(40));
    for task in [heart(), text()] {
        file.config.memory_mib = 64;
        let expected = file.load(&task).unwrap();
        file.config.memory_mib = 0;
        let found = file.load(&task).unwrap();
        assert_eq!(read(&found), expected);
        let [found, expected] =
            [found, expected].map(|dataset| split(dataset, None, HeldOut::Share(0.25), 1, "a"));
        assert_eq!(read(&found.train), expected.train);
        assert_eq!(read(&found.validation), expected.validation);
        let [found, expected] = [found.train, expected.train].map(|dataset| few(dataset, 5, 1, "a"));
        assert_eq!((read(&found), found.len()), (expected, 10));
    }
}

#[test]
fn the_file_has_no_name_and_a_row_that_is_wrong_is_found_all_the_same() {
    let mut file = TestFile::new(rows(40));
    file.config.memory_mib = 0;
    let found = file.load(&heart()).unwrap();
    let names = std::fs::read_dir(&file.config.spill).unwrap().count();
    assert_eq!((names, found.len()), (1, 40));
    std::fs::write(&file.config.path, rows(40) + "yes,old,none,words\n").unwrap();
    let error = file.load(&heart()).unwrap_err();
    assert!(error.to_string().contains("line 42"), "{error}");
}

#[test]
fn what_has_room_nowhere_is_refused() {
    let mut file = TestFile::new(rows(4));
    (file.config.memory_mib, file.config.spill) = (0, std::path::Path::new("/proc/nowhere").to_owned());
    for task in [heart(), text()] {
        let error = file.load(&task).unwrap_err();
        assert!(error.to_string().contains(": its examples take more memory than `memory_mib`"), "{error}");
        let operator = "data set `heart`: its examples cannot be kept on the site's disk; its log says why";
        assert_eq!(error.for_operator(), operator);
    }
}
