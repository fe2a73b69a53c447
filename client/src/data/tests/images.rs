//! Folders, tables and IDX files of images: the pixels against PIL's (`scripts/reference/images.py`), and every bad image
//! with its two sentences.

use std::collections::BTreeMap;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

use flate2::Compression;
use flate2::write::GzEncoder;
use sheaf_common::run::HeldOut;

use super::*;

const REFERENCE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/images");

fn image_task(size: u32) -> Task {
    task(TaskInput::Image { column: "scan".to_owned(), size: Some(size) })
}

/// A folder with a class for each label, and files that do not count.
fn folder() -> TestFile {
    let mut file = TestFile::new("");
    let root = file.config.path.parent().unwrap().join("scans");
    let copy = |name: &str, to: &str| {
        let to = root.join(to);
        fs::create_dir_all(to.parent().unwrap()).unwrap();
        fs::copy(Path::new(REFERENCE).join(name), to).unwrap();
    };
    copy("wide.jpg", "yes/b.JPEG");
    copy("wide.png", "yes/a/2.png");
    copy("tall.png", "yes/a/1.png");
    copy("grey16.png", "no/1.png");
    fs::write(root.join("no/notes.txt"), "no image").unwrap();
    fs::write(root.join("no/.hidden.png"), "no image").unwrap();
    fs::write(root.join("list.png"), "no image").unwrap();
    file.config.format = Format::ImageFolder;
    file.config.path = root;
    file
}

fn idx(sizes: &[u32], bytes: &[u8]) -> Vec<u8> {
    let mut file = (0x0800 | sizes.len() as u32).to_be_bytes().to_vec();
    file.extend(sizes.iter().flat_map(|size| size.to_be_bytes()));
    file.extend(bytes);
    file
}

/// Two images of 2 x 2, the second of them compressed, of these classes.
fn two(classes: [u8; 2]) -> TestFile {
    let mut file = TestFile::new(idx(&[2, 2, 2], &[0, 1, 2, 3, 250, 251, 252, 253]));
    let labels = file.config.path.with_file_name("labels.gz");
    let mut compressed = GzEncoder::new(fs::File::create(&labels).unwrap(), Compression::default());
    std::io::Write::write_all(&mut compressed, &idx(&[2], &classes)).unwrap();
    compressed.finish().unwrap();
    file.config.format = Format::Idx;
    file.config.labels = Some(labels);
    file
}

fn pixels(dataset: &Dataset) -> &[u8] {
    let Inputs::Images { values, .. } = &dataset.inputs else { panic!("no images") };
    values
}

/// The site's sentence without its beginning, and the operator's.
fn said(file: &TestFile, task: &Task) -> (String, String) {
    let error = file.load(task).unwrap_err();
    let (site, path) = (error.to_string(), file.config.path.display().to_string());
    let site = site.strip_prefix(&format!("data set `heart`: {path}")).unwrap().to_owned();
    let operator = error.for_operator();
    assert!(!operator.contains(&path) && !operator.contains(".png"), "{operator}");
    (site, operator.strip_prefix("data set `heart`: ").unwrap().to_owned())
}

#[test]
fn pixels_are_pils() {
    let expected: BTreeMap<String, Vec<u8>> =
        serde_json::from_str(include_str!("../../../tests/data/images.json")).unwrap();
    let names = expected.keys().map(|name| format!("{name},yes\n")).collect::<String>();
    let mut file = TestFile::new(format!("scan,disease\n{names}"));
    file.config.images = Some(PathBuf::from(REFERENCE));
    let found = file.load(&image_task(8)).unwrap();
    for ((name, expected), found) in expected.iter().zip(pixels(&found).chunks_exact(3 * 8 * 8)) {
        let off = expected.iter().zip(found).map(|(a, b)| a.abs_diff(*b)).max().unwrap();
        // PIL rounds once more than we do, and decoders of JPEG differ by a little.
        let most = if name.ends_with("jpg") { 3 } else { 1 };
        assert!(off <= most, "{name} is off by {off}");
    }
}

#[test]
fn a_folder_has_a_class_for_each_of_its_folders() {
    let file = folder();
    let all = file.load(&image_task(4)).unwrap();
    assert_eq!(all.targets, Targets::Label(vec![0, 1, 1, 1]));
    assert_eq!(pixels(&all).len(), 4 * 3 * 4 * 4);
    assert_eq!(
        survey(&file.config, "heart").unwrap(),
        Survey { rows: 4, columns: owned(&["image", "label"]) }
    );
    // Each in the order of its name.
    let mut table =
        TestFile::new("scan,disease\nno/1.png,no\nyes/a/1.png,yes\nyes/a/2.png,yes\nyes/b.JPEG,yes\n");
    table.config.images = Some(file.config.path.clone());
    assert_eq!(table.load(&image_task(4)).unwrap(), all);
}

#[test]
fn a_folder_that_is_no_label_is_refused() {
    let file = folder();
    fs::create_dir(file.config.path.join("maybe")).unwrap();
    assert!(file.load(&image_task(4)).is_ok(), "nothing is in it");
    fs::copy(Path::new(REFERENCE).join("wide.png"), file.config.path.join("maybe/1.png")).unwrap();
    let (site, operator) = said(&file, &image_task(4));
    assert!(site.starts_with(", column `disease`: \"maybe\" is none of the run's labels; "), "{site}");
    assert_eq!(
        operator,
        "column `disease` holds a value that is none of the run's labels; the site's log says which"
    );
    fs::remove_dir_all(file.config.path.join("no")).unwrap();
    fs::remove_dir_all(file.config.path.join("yes")).unwrap();
    fs::remove_dir_all(file.config.path.join("maybe")).unwrap();
    assert_eq!(said(&file, &image_task(4)).1, "its file holds no example");
}

#[test]
fn numbers_of_idx_are_classes_by_their_names_or_their_digits() {
    let mut file = two([1, 0]);
    file.config.classes = owned(&["no", "yes"]);
    let found = file.load(&image_task(2)).unwrap();
    assert_eq!(found.targets, Targets::Label(vec![1, 0]));
    assert_eq!(pixels(&found)[..12], [0, 1, 2, 3, 0, 1, 2, 3, 0, 1, 2, 3]);
    assert_eq!(pixels(&found)[12..16], [250, 251, 252, 253]);
    file.config.classes.clear();
    let (site, _) = said(&file, &image_task(2));
    assert!(site.contains("\"1\" is none of the run's labels"), "{site}");
    let mut digits = image_task(2);
    digits.target = Target::Label { column: "digit".to_owned(), labels: owned(&["0", "1"]) };
    assert_eq!(file.load(&digits).unwrap().targets, Targets::Label(vec![1, 0]));
}

#[test]
fn idx_that_does_not_fit_is_refused() {
    let refuse = |change: &dyn Fn(&mut TestFile), expected: &str| {
        let mut file = two([0, 1]);
        file.config.classes = owned(&["no", "yes"]);
        change(&mut file);
        let (site, operator) = said(&file, &image_task(2));
        assert!(site.starts_with(" does not fit: ") && site.contains(expected), "{site}");
        assert_eq!(operator, "its IDX files are not what they should be; the site's log says why");
    };
    let write = |bytes: Vec<u8>| move |file: &mut TestFile| fs::write(&file.config.path, &bytes).unwrap();
    refuse(&write(idx(&[3, 1, 1], &[0; 3])), "it has 3 images, and ");
    refuse(&write(idx(&[2, 2, 2], &[0; 7])), "ends after 7 of 8 bytes");
    refuse(&write(idx(&[2], &[0, 1])), "begins with 0x00000801 in place of 0x00000803");
    refuse(&write(vec![0, 0]), "cannot be read: ");
    refuse(&write(idx(&[2, 0, 2], &[])), "its images are 2 x 0");
}

#[test]
fn images_stay_in_their_folder() {
    let file = folder();
    let outside = file.config.path.with_file_name("outside.png");
    fs::copy(Path::new(REFERENCE).join("wide.png"), &outside).unwrap();
    let inside = file.config.path.join("yes/b.JPEG");
    let load = |image: &str| {
        let mut table = TestFile::new(format!("scan,disease\n{image},no\n"));
        table.config.images = Some(file.config.path.clone());
        table.load(&image_task(4)).map_err(|error| (error.to_string(), error.for_operator()))
    };
    assert!(load(inside.to_str().unwrap()).is_ok());
    std::os::unix::fs::symlink(&outside, file.config.path.join("yes/link.png")).unwrap();
    for image in ["../outside.png", outside.to_str().unwrap(), "yes/link.png"] {
        let (site, operator) = load(image).unwrap_err();
        assert!(
            site.contains(&format!("the image {image:?} lies outside of the folder of images; ")),
            "{site}"
        );
        assert_eq!(
            operator,
            "data set `heart`: an image lies outside of the folder of images; the site's log says which"
        );
    }
    for image in ["none.png", "yes"] {
        let (site, operator) = load(image).unwrap_err();
        assert!(site.contains(&format!("the image {image:?} cannot be read: ")), "{site}");
        assert!(operator.contains("an image cannot be read"), "{operator}");
    }
}

#[test]
fn an_image_that_cannot_be_decoded_is_named_at_the_site_only() {
    let png = fs::read(Path::new(REFERENCE).join("wide.png")).unwrap();
    // A header that promises 65 536 x 65 536 pixels.
    let mut bomb = png.clone();
    bomb[16..24].copy_from_slice(&[0, 1, 0, 0, 0, 1, 0, 0]);
    for bytes in [b"no image".to_vec(), png[..png.len() / 2].to_vec(), Vec::new(), bomb] {
        let file = folder();
        fs::write(file.config.path.join("yes/b.JPEG"), bytes).unwrap();
        let (site, operator) = said(&file, &image_task(4));
        assert!(site.starts_with(": the image \"yes/b.JPEG\" cannot be decoded: "), "{site}");
        assert!(site.ends_with("; replace it or leave it out"), "{site}");
        assert_eq!(operator, "an image cannot be decoded; the site's log says which");
    }
}

#[test]
fn images_that_memory_is_too_small_for_are_kept_on_disk_and_divided_there() {
    let mut file = folder();
    let expected = file.load(&image_task(4)).unwrap();
    file.config.memory_mib = 0;
    let all = file.load(&image_task(4)).unwrap();
    assert_eq!((all.len(), &all.targets), (expected.len(), &expected.targets));
    let (share, groups) = (HeldOut::Share(0.34), None);
    let found = split(all, groups, share, 1, "a");
    let expected = split(expected, groups, share, 1, "a");
    for (found, expected) in [(&found.train, &expected.train), (&found.validation, &expected.validation)] {
        let Inputs::StoredImages { size: 4, images } = &found.inputs else { panic!("{:?}", found.inputs) };
        let mut bytes = vec![0; 48 * images.all];
        images.file().read_exact_at(&mut bytes, 0).unwrap();
        let own: Vec<u8> =
            images.places.iter().flat_map(|place| &bytes[48 * place..][..48]).copied().collect();
        assert_eq!(own, pixels(expected));
        assert_eq!(found.targets, expected.targets);
    }
}

#[test]
fn images_that_have_room_nowhere_are_refused() {
    let mut file = folder();
    (file.config.memory_mib, file.config.spill) = (0, Path::new("/proc/nowhere").to_owned());
    let (site, operator) = said(&file, &image_task(4));
    assert!(
        site.starts_with(": its examples take more memory than `memory_mib`, and cannot be kept"),
        "{site}"
    );
    assert_eq!(operator, "its examples cannot be kept on the site's disk; its log says why");
}

#[test]
fn idx_that_takes_too_much_memory_is_refused() {
    let mut file = two([0, 1]);
    file.config.memory_mib = 0;
    let (site, operator) = said(&file, &image_task(2));
    assert!(site.starts_with(": its images take 1 MiB of memory as they are in their file"), "{site}");
    assert_eq!(operator, "its images take more memory than the site gives them");
}

#[test]
fn images_without_a_size_are_refused() {
    for size in [None, Some(0), Some(1 << 20)] {
        let task = task(TaskInput::Image { column: "scan".to_owned(), size });
        assert!(said(&folder(), &task).1.contains("set task.image_size"));
    }
}

#[test]
fn images_are_divided_as_other_data_are() {
    let all = folder().load(&image_task(4)).unwrap();
    let Split { train, validation } = split(all.clone(), None, HeldOut::Share(0.34), 1, "a");
    assert_eq!((train.len(), validation.len()), (3, 1));
    assert_eq!(pixels(&train).len() + pixels(&validation).len(), pixels(&all).len());
    let each = 3 * 4 * 4;
    assert!(pixels(&all).chunks_exact(each).any(|image| image == pixels(&validation)));
}
