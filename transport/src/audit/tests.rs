//! A log that holds, and every way in which one does not.

use std::fs;

use tokio::sync::watch;

use super::*;
use crate::authority::tests::{Asked, Ca, SITE, judge, load};

#[derive(Serialize)]
struct Event {
    event: &'static str,
    bytes: u64,
}

struct Bench {
    ca: Ca,
    dir: tempfile::TempDir,
    credentials: watch::Sender<Arc<Credentials>>,
}

impl Bench {
    fn new() -> Self {
        let ca = Ca::new();
        let (credentials, _) = watch::channel(Arc::new(load(&ca, &ca.issue(&SITE))));
        Self { ca, dir: tempfile::tempdir().unwrap(), credentials }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("audit.log")
    }

    fn open(&self) -> AuditLog {
        AuditLog::open(&self.path(), self.credentials.subscribe(), "test 1").unwrap()
    }

    /// A log of two starts with six entries.
    fn six(&self) -> Vec<String> {
        for _ in 0..2 {
            let mut log = self.open();
            log.record(&Event { event: "sent", bytes: 7 }).unwrap();
            log.record(&Event { event: "sent", bytes: 8 }).unwrap();
        }
        let text = fs::read_to_string(self.path()).unwrap();
        text.lines().map(|line| format!("{line}\n")).collect()
    }

    fn verify(&self, lines: &[String]) -> Result<Verified, String> {
        verify(lines.concat().as_bytes(), &judge(&self.ca)).map_err(|e| e.to_string())
    }
}

#[test]
fn a_log_goes_on_over_restarts_and_holds() {
    let bench = Bench::new();
    let lines = bench.six();
    let verified = bench.verify(&lines).unwrap();
    assert_eq!((verified.identity.as_str(), verified.entries), ("sheaf://hearts/site/north", 6));
    assert_eq!(verified.hash, hash(lines[5].trim_end()));
    assert!(lines[1].contains("\"event\":\"sent\",\"bytes\":7"), "{}", lines[1]);
    assert!(bench.verify(&lines[..4]).is_ok(), "that the newest are gone is not seen in the file");
}

#[test]
fn a_log_goes_on_with_another_certificate_of_the_same_party() {
    let bench = Bench::new();
    let mut log = bench.open();
    log.record(&Event { event: "sent", bytes: 7 }).unwrap();
    bench.credentials.send_replace(Arc::new(load(&bench.ca, &bench.ca.issue(&SITE))));
    log.record(&Event { event: "sent", bytes: 8 }).unwrap();
    let text = fs::read_to_string(bench.path()).unwrap();
    assert_eq!(verify(text.as_bytes(), &judge(&bench.ca)).unwrap().entries, 4);
    assert!(text.lines().nth(2).unwrap().contains("\"event\":\"certificate-renewed\""), "{text}");
}

#[test]
fn an_entry_that_was_changed_is_named_wherever_a_byte_of_it_is() {
    let bench = Bench::new();
    let lines = bench.six();
    for at in 0..lines[2].len() - 1 {
        let mut changed = lines.clone();
        let mut bytes = changed[2].clone().into_bytes();
        bytes[at] = if bytes[at] == b'0' { b'1' } else { b'0' };
        changed[2] = String::from_utf8(bytes).unwrap();
        let said = bench.verify(&changed).unwrap_err();
        assert!(said.starts_with("line 3: "), "byte {at}: {said}");
    }
}

#[test]
fn entries_that_are_missing_or_moved_are_named() {
    let bench = Bench::new();
    let lines = bench.six();
    let without = |gone: &[usize]| -> Vec<String> {
        let left = lines.iter().enumerate().filter(|(at, _)| !gone.contains(at));
        left.map(|(_, line)| line.clone()).collect()
    };
    let said = |lines: &[String]| bench.verify(lines).unwrap_err();
    assert_eq!(said(&without(&[2])), "line 3: entries 3 to 3 are missing before entry 4");
    assert_eq!(said(&without(&[1, 2, 3])), "line 2: entries 2 to 4 are missing before entry 5");
    assert_eq!(said(&without(&[0])), "line 1: no entry before it says by whom it is");
    let mut swapped = lines.clone();
    swapped.swap(1, 2);
    assert_eq!(said(&swapped), "line 2: entries 2 to 2 are missing before entry 3");
    let mut twice = lines.clone();
    twice.insert(3, lines[2].clone());
    assert_eq!(said(&twice), "line 4: entry 3 is not in its place: 4 is due");
    assert_eq!(said(&[]), "it holds no entry");
    let mut cut = lines;
    cut[5].truncate(40);
    assert_eq!(said(&cut), "line 6: it is cut short, as by a crash, or far too long");
}

#[test]
fn a_log_of_another_history_or_by_another_party_does_not_fit_in() {
    let bench = Bench::new();
    let lines = bench.six();
    fs::remove_file(bench.path()).unwrap();
    let other = bench.six();
    let mixed = [&lines[..2], &other[2..]].concat();
    assert_eq!(
        bench.verify(&mixed).unwrap_err(),
        "line 3: entry 3 follows another entry 2 than the one here"
    );
    let south = bench.ca.issue(&Asked { uris: &["sheaf://hearts/site/south"], ..SITE });
    bench.credentials.send_replace(Arc::new(load(&bench.ca, &south)));
    drop(bench.open());
    let text = fs::read_to_string(bench.path()).unwrap();
    let said = verify(text.as_bytes(), &judge(&bench.ca)).unwrap_err().to_string();
    assert_eq!(said, "line 7: it is by sheaf://hearts/site/south, not by whom the entries before are");
    let stranger = Ca::new();
    let said = verify(lines.concat().as_bytes(), &judge(&stranger)).unwrap_err().to_string();
    assert!(
        said.starts_with("line 1: of its certificate: the federation's CA does not vouch for it"),
        "{said}"
    );
}

#[test]
fn what_a_crash_cut_short_goes_and_the_log_goes_on() {
    let bench = Bench::new();
    let lines = bench.six();
    for cut in 1..lines[5].len() {
        let whole: usize = lines[..5].iter().map(String::len).sum();
        fs::write(bench.path(), &lines.concat()[..whole + cut]).unwrap();
        drop(bench.open());
        let text = fs::read_to_string(bench.path()).unwrap();
        let verified = verify(text.as_bytes(), &judge(&bench.ca)).unwrap();
        assert_eq!(verified.entries, 6, "five whole ones and the start, cut at {cut}");
    }
    fs::write(bench.path(), "this is no log\n").unwrap();
    let error =
        AuditLog::open(&bench.path(), bench.credentials.subscribe(), "test 1").unwrap_err().to_string();
    assert!(error.contains("does not end with an entry: move it away"), "{error}");
}

/// A handle on the log through which nothing can be written.
fn read_only(bench: &Bench) -> File {
    File::open(bench.path()).unwrap()
}

#[test]
fn what_a_full_disk_took_of_an_entry_goes_before_the_next() {
    let bench = Bench::new();
    let mut log = bench.open();
    log.record(&Event { event: "sent", bytes: 7 }).unwrap();
    let whole = std::mem::replace(&mut log.file, read_only(&bench));
    log.record(&Event { event: "sent", bytes: 8 }).unwrap_err();
    log.file = whole;
    // The first half of it.
    log.file.write_all(b"{\"number\":3,").unwrap();
    log.record(&Event { event: "sent", bytes: 9 }).unwrap();
    let text = fs::read_to_string(bench.path()).unwrap();
    assert_eq!(verify(text.as_bytes(), &judge(&bench.ca)).unwrap().entries, 3);
    assert!(text.lines().last().unwrap().contains("\"bytes\":9"), "{text}");
}

#[test]
fn what_could_not_be_synced_is_not_taken_for_durable() {
    let bench = Bench::new();
    let mut log = bench.open();
    // It takes everything, and makes nothing last.
    log.file = File::options().write(true).open("/dev/null").unwrap();
    log.record(&Event { event: "sent", bytes: 7 }).unwrap_err();
    log.sync().unwrap_err();
}

#[derive(Serialize)]
struct Long {
    event: &'static str,
    reason: String,
}

#[test]
fn no_entry_is_longer_than_a_reader_takes() {
    let bench = Bench::new();
    for length in [0, ENTRY_MAX / 6 - 100, ENTRY_MAX / 6, LINE_MAX / 6, LINE_MAX] {
        let reason = "\u{1}".repeat(length);
        bench.open().record(&Long { event: "declined", reason }).unwrap();
        let text = fs::read_to_string(bench.path()).unwrap();
        verify(text.as_bytes(), &judge(&bench.ca)).unwrap();
    }
    let text = fs::read_to_string(bench.path()).unwrap();
    assert!(text.contains("\"event\":\"declined\",\"left_out_bytes\":"), "what happened is told");
    assert_eq!(brief(&"é".repeat(LINE_MAX)).len(), BRIEF_MAX);
}
