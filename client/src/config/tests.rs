//! What a `site.toml` means, and the sentence that each wrong one gets.

use std::collections::BTreeSet;
use std::fs;

use sheaf_common::blob::BlobId;
use sheaf_transport::network::{Choice, Congestion, WrittenProxy};
use sheaf_transport::pace::Rate;

use super::*;

const SITE: &str = r#"
server = "fl.example.org:4433"
state_dir = "state"

[identity]
certificate = "site.pem"
key = "/etc/sheaf/site.key"
ca = "ca.pem"
"#;

fn with(dataset: &str) -> String {
    format!("{SITE}\n[datasets.heart]\n{dataset}\n")
}

fn dataset(written: &str) -> DatasetConfig {
    SiteConfig::parse("site.toml", &with(written)).unwrap().datasets.remove("heart").unwrap()
}

fn refusal(text: &str) -> String {
    SiteConfig::parse("site.toml", text).unwrap_err().to_string()
}

#[test]
fn a_site_without_data_sets_is_complete() {
    let config = SiteConfig::parse("site.toml", SITE).unwrap();
    assert_eq!(config.server, "fl.example.org:4433");
    assert_eq!(config.device, DeviceChoice::Auto);
    assert_eq!(config.identity.key, Path::new("/etc/sheaf/site.key"));
    assert!(config.datasets.is_empty());
}

#[test]
fn a_site_agrees_to_little_unless_it_says_otherwise() {
    let policy = |written: &str| SiteConfig::parse("site.toml", &format!("{SITE}{written}")).unwrap().policy;
    let strict = Policy {
        require_secure_aggregation: true,
        min_updates: 3,
        min_metric_count: 10,
        metrics: true,
        own_metrics: false,
        surveys: true,
        authors: None,
        models: None,
        purposes: None,
        max_rounds: None,
        max_bytes: None,
        hours: None,
        ask: false,
        torchscript: BTreeSet::new(),
    };
    for written in ["", "[policy]\n", "[policy]\nsecure_aggregation = \"required\"\nmin_updates = 3\n"] {
        assert_eq!(policy(written), strict, "{written}");
    }
    let open = policy(
        "[policy]\nsecure_aggregation = \"optional\"\nmin_updates = 2\nmin_metric_count = 25\nmetrics = false\nown_metrics = true\n\
        surveys = false\nauthors = [\"ada\"]\nmodels = [\"fresh\", \"0909090909090909090909090909090909090909090909090909090909090909\"]\n\
        purposes = [\"sepsis\"]\nmax_rounds = 50\nmax_bytes = 1000\nhours = \"20:00-06:00\"\napprove = \"ask\"\n\
        torchscript = [\"ea8f163db38682925e4491c5e58d4bb3506ef8c14eb78a86e908c5624a67200f\"]\n",
    );
    assert_eq!(
        open,
        Policy {
            require_secure_aggregation: false,
            min_updates: 2,
            min_metric_count: 25,
            metrics: false,
            own_metrics: true,
            surveys: false,
            authors: Some(["ada".parse().unwrap()].into()),
            models: Some(Models { imported: ["09".repeat(32).parse().unwrap()].into(), fresh: true }),
            purposes: Some(["sepsis".to_owned()].into()),
            max_rounds: Some(50),
            max_bytes: Some(1000),
            hours: Some("20:00-06:00".parse().unwrap()),
            ask: true,
            torchscript: [BlobId::of(b"hello")].into(),
        }
    );
}

#[test]
fn a_site_says_what_network_it_is_in() {
    let parse = |written: &str| SiteConfig::parse("site.toml", &format!("{SITE}[network]\n{written}\n"));
    assert_eq!(parse("").unwrap().network, Network::default());
    let network = parse("transport = \"tcp\"\ntcp_server = \"hub:443\"\nproxy = \"none\"").unwrap().network;
    let expected = Network {
        transport: Choice::Tcp,
        tcp_server: Some("hub:443".into()),
        proxy: WrittenProxy::None,
        ..Network::default()
    };
    assert_eq!(network, expected);
    let written = "congestion = \"bbr\"\nupload_limit = \"2MB/s\"\nbulk_hours = \"20:00-06:00 UTC\"";
    let network = parse(written).unwrap().network;
    assert_eq!(network.congestion, Congestion::Bbr);
    assert_eq!(network.limits.upload.map(Rate::bytes_per_second), Some(2_000_000));
    assert_eq!(network.limits.hours.unwrap().to_string(), "20:00-06:00 UTC");
    for (written, sentence) in [
        ("transport = \"udp\"", "site.toml:10: unknown variant `udp`, expected one of `auto`, `quic`, `tcp`"),
        ("upload_limit = \"2MB\"", "site.toml:10: network.upload_limit: `2MB` is no rate; write \"2MB/s\""),
        ("bulk_hours = \"night\"", "site.toml:10: network.bulk_hours: `night` are no hours; write"),
        (
            "tcp_server = \"hub\"",
            "site.toml:10: network.tcp_server: `hub` is no address; write \"host:port\"",
        ),
        ("proxy = \"p:s3cret@q:1\"", "site.toml:10: network.proxy: is no proxy; write \"http://host:port\""),
    ] {
        let said = parse(written).unwrap_err().to_string();
        assert!(said.starts_with(sentence), "{said}");
        assert!(!said.contains("s3cret"), "{said}");
    }
}

#[test]
fn a_policy_that_means_nothing_is_refused() {
    for (written, expected) in [
        ("approve = \"maybe\"", "policy.approve: `maybe` is unknown; write \"ask\""),
        ("hours = \"at night\"", "policy.hours: `at night` are no hours"),
        ("models = [\"minilm\"]", "policy.models: `minilm` is neither \"fresh\" nor a model's id"),
        ("authors = [\"Ada!\"]", "Ada!"),
    ] {
        let said = refusal(&format!("{SITE}[policy]\n{written}\n"));
        assert!(said.contains(expected), "{said}");
    }
}

#[test]
fn the_extension_tells_the_format() {
    for (path, delimiter) in [("a.csv", b','), ("a.TSV", b'\t'), ("a.tab", b'\t')] {
        assert_eq!(dataset(&format!("path = {path:?}")).delimiter, delimiter, "{path}");
    }
    assert_eq!(dataset("path = \"a.csv\"\nformat = \"tsv\"").delimiter, b'\t');
    assert_eq!(dataset("path = \"a.txt\"\ndelimiter = \";\"").delimiter, b';');
}

#[test]
fn json_lines_have_no_delimiter() {
    for written in ["path = \"a.jsonl\"", "path = \"a.txt\"\nformat = \"jsonl\""] {
        assert_eq!(dataset(written).format, Format::JsonLines);
    }
    assert_eq!(dataset("path = \"a.csv\"").format, Format::Delimited);
}

#[test]
fn a_data_set_is_read_whole() {
    let written = "path = \"a.tab\"\nskip_rows = 2\nquotes = false\nrename = { disease = \"num\" }";
    let expected = DatasetConfig {
        path: "a.tab".into(),
        format: Format::Delimited,
        delimiter: b'\t',
        quotes: false,
        header: Header::FirstRow,
        skip_rows: 2,
        rename: [("disease".to_owned(), "num".to_owned())].into(),
        images: None,
        labels: None,
        classes: Vec::new(),
        memory_mib: 4096,
        spill: "state".into(),
    };
    assert_eq!(dataset(written), expected);
    let named = dataset("path = \"a.csv\"\nhas_header = false\ncolumns = [\"age\", \"num\"]");
    assert_eq!(named.header, Header::Named(vec!["age".into(), "num".into()]));
}

#[test]
fn what_is_wrong_is_said_with_its_line() {
    let cases = [
        (
            SITE.replace("fl.example.org:4433", "fl.example.org"),
            "site.toml:2: server: `fl.example.org` is no address; write",
        ),
        (SITE.replace(":4433", ":0"), "site.toml:2: server: `fl.example.org:0` is no address"),
        (SITE.replace("\"state\"", "\"\""), "site.toml:3: state_dir: is empty"),
        (format!("device = \"gpu\"\n{SITE}"), "site.toml:1: there is no device \"gpu\": write"),
        (SITE.replace("ca = ", "cacert = "), "site.toml:8: unknown field `cacert`"),
        (
            with("path = \"a.dat\""),
            "site.toml:10: datasets.heart.format: is missing, and the name of a.dat does not tell it",
        ),
        (
            with("path = \"a.csv\"\nformat = \"excel\""),
            "site.toml:12: unknown variant `excel`, expected one of `csv`, `tsv`, `jsonl`, `parquet`, `image-folder`, `idx`",
        ),
        (
            with("path = \"scans\"\nformat = \"image-folder\"\nrename = { x = \"a\" }"),
            "site.toml:13: datasets.heart.rename: is not for \"image-folder\", whose folders are the labels",
        ),
        (
            with("path = \"a.csv\"\nlabels = \"b\""),
            "site.toml:12: datasets.heart.labels: is for \"idx\" only",
        ),
        (
            with("path = \"a\"\nformat = \"idx\""),
            "site.toml:10: datasets.heart.labels: is missing: name the file of labels",
        ),
        (
            with("path = \"a\"\nformat = \"idx\"\nlabels = \"b\"\nclasses = [\"x\", \"x\"]"),
            "site.toml:14: datasets.heart.classes: `x` is listed twice",
        ),
        (
            with("path = \"a.csv\"\ndelimiter = \"::\""),
            "site.toml:12: datasets.heart.delimiter: \"::\" is no delimiter",
        ),
        (
            with("path = \"a.csv\"\nhas_header = false"),
            "site.toml:10: datasets.heart.columns: is missing: list the names",
        ),
        (
            with("path = \"a.csv\"\ncolumns = [\"a\"]"),
            "site.toml:12: datasets.heart.columns: names the columns of a file without",
        ),
        (
            with("path = \"a.csv\"\nhas_header = false\ncolumns = [\"a\", \"a\"]"),
            "site.toml:13: datasets.heart.columns: `a` is listed twice",
        ),
        (
            with("path = \"a.csv\"\nrename = { x = \"a\", y = \"a\" }"),
            "site.toml:12: datasets.heart.rename.y: the file's column `a` already",
        ),
        (
            format!("{SITE}[policy]\nsecure_aggregation = \"off\"\n"),
            "site.toml:10: policy.secure_aggregation: `off` is unknown; write \"required\", or \"optional\" to let",
        ),
        (
            format!("{SITE}[policy]\nmin_updates = 1\n"),
            "site.toml:10: policy.min_updates: must be at least 2: a sum over one site is its update",
        ),
        (
            format!("{SITE}[policy]\nmin_metric_count = 0\n"),
            "site.toml:10: policy.min_metric_count: must be at least 1: a metric of no examples does not exist",
        ),
        (
            format!("{SITE}[policy]\ntorchscript = [\"model.pt\"]\n"),
            "site.toml:10: policy.torchscript.0: `model.pt` is no BLAKE3 hash; write the 64 hexadecimal digits",
        ),
        (format!("{SITE}[policy]\nmin_update = 3\n"), "site.toml:10: unknown field `min_update`"),
    ];
    for (text, expected) in cases {
        let sentence = refusal(&text);
        assert!(sentence.starts_with(expected), "{sentence}\n{expected}");
    }
}

#[test]
fn relative_paths_start_at_the_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.toml");
    fs::write(folder.path().join("heart.csv"), "age\n").unwrap();
    fs::write(&path, with("path = \"heart.csv\"")).unwrap();
    let config = SiteConfig::load(&path).unwrap();
    assert_eq!(config.datasets["heart"].path, folder.path().join("heart.csv"));
    assert_eq!(config.state_dir, folder.path().join("state"));
    for (written, sentence) in [
        ("format = \"image-folder\"\npath = \"heart.csv\"", "heart.csv is not a folder"),
        ("path = \"heart.csv\"\nimages = \"scans\"", "scans does not exist"),
    ] {
        fs::write(&path, with(written)).unwrap();
        let said = SiteConfig::load(&path).unwrap_err().to_string();
        assert!(said.contains(&format!("{}/{sentence}", folder.path().display())), "{said}");
    }
    assert_eq!(config.identity.certificate, folder.path().join("site.pem"));
    assert_eq!(config.identity.key, Path::new("/etc/sheaf/site.key"));
}

#[test]
fn files_that_are_not_there_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("site.toml");
    let sentence = SiteConfig::load(&path).unwrap_err().to_string();
    assert!(
        sentence.starts_with("the site's configuration ") && sentence.contains("cannot be read"),
        "{sentence}"
    );

    fs::write(&path, with("path = \"heart.csv\"")).unwrap();
    let sentence = SiteConfig::load(&path).unwrap_err().to_string();
    assert!(sentence.contains("site.toml:11: datasets.heart.path: "), "{sentence}");
    assert!(
        sentence.contains("heart.csv does not exist; a relative path starts at this file's folder"),
        "{sentence}"
    );
}
