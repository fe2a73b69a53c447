//! Manifests: one identity per folder, and no file outside it.

use proptest::prelude::*;

use crate::blob::BlobId;
use crate::model::manifest::{BadManifest, Manifest, ManifestFile};

fn file(path: &str) -> ManifestFile {
    ManifestFile { path: path.into(), blob: BlobId::of(path.as_bytes()), bytes: 3 }
}

#[test]
fn the_order_of_files_changes_no_identity() {
    let one = Manifest::new("tiny", vec![file("config.json"), file("model.safetensors")]).unwrap();
    let other = Manifest::new("tiny", vec![file("model.safetensors"), file("config.json")]).unwrap();
    assert_eq!(one.id(), other.id());
    assert_eq!(one.bytes(), 6);
    assert_eq!(one.file("config.json"), Some(&file("config.json")));
}

#[test]
fn the_written_form_is_fixed() {
    let manifest = Manifest::new("tiny", vec![file("config.json")]).unwrap();
    let json = "{\n  \"name\": \"tiny\",\n  \"files\": [\n    {\n      \"path\": \"config.json\",\n      \"blob\": \
                \"a29bd7dd5bf7af74f393accd8d95a7552c495914ff798c7965f88079e4508f91\",\n      \"bytes\": 3\n    }\n  ]\n}\n";
    assert_eq!(String::from_utf8(manifest.to_json()).unwrap(), json);
    assert_eq!(Manifest::parse(json.as_bytes()), Ok(manifest));
    assert_eq!(Manifest::parse(json.trim_end().as_bytes()), Err(BadManifest::NotCanonical));
}

#[test]
fn no_file_leaves_the_folder() {
    for path in
        ["", ".", "..", "../x", "a/b", "a\\b", "/etc/passwd", ".hidden", "a b", "ü", "x\0", &"x".repeat(129)]
    {
        let error = Manifest::new("tiny", vec![file(path)]).unwrap_err();
        assert!(matches!(error, BadManifest::Path(_)), "{path}: {error}");
    }
}

#[test]
fn what_is_no_folder_is_refused() {
    let refused = |name: &str, files: Vec<ManifestFile>| Manifest::new(name, files).unwrap_err();
    assert!(matches!(refused("../tiny", vec![file("a")]), BadManifest::Name(_)));
    assert_eq!(refused("tiny", vec![]), BadManifest::Files(0));
    assert_eq!(refused("tiny", (0..65).map(|i| file(&format!("f{i}"))).collect()), BadManifest::Files(65));
    assert_eq!(refused("tiny", vec![file("a"), file("b"), file("a")]), BadManifest::Duplicate("a".into()));
    let endless = ManifestFile { bytes: u64::MAX, ..file("a") };
    assert_eq!(refused("tiny", vec![endless, file("b")]), BadManifest::Bytes);
    assert_eq!(Manifest::parse(&[b' '; 70_000]), Err(BadManifest::TooLong(70_000)));
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        name in "[a-z][A-Za-z0-9._-]{0,20}",
        files in prop::collection::btree_map("[A-Za-z0-9][A-Za-z0-9._-]{0,20}", (any::<[u8; 4]>(), 0u64..1 << 50), 1..9),
    ) {
        let files = files
            .into_iter()
            .map(|(path, (content, bytes))| ManifestFile { path, blob: BlobId::of(&content), bytes })
            .collect();
        let manifest = Manifest::new(name, files).unwrap();
        prop_assert_eq!(Manifest::parse(&manifest.to_json()), Ok(manifest));
    }

    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..100), text in ".{0,100}") {
        let _ = Manifest::parse(&bytes);
        let _ = Manifest::parse(text.as_bytes());
    }
}
