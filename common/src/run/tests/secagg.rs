//! What `run.toml` says of secure aggregation: on when nothing is said, and a sentence for each wrong term.

use super::*;

/// A run that says nothing of secure aggregation but what `more` (from line 3) and `cohort` (after the rest) say.
fn secure(more: &str, cohort: &str) -> Result<RunSpec, String> {
    parse(&format!(
        "name = \"toy\"\nrounds = 1\n{more}\nmodel = {{ architecture = \"constant\", parameters = 4 }}\ntask = {{ type = \"none\" }}\n{cohort}"
    ))
}

fn required(more: &str, cohort: &str) -> SecAggSpec {
    let spec = secure(more, cohort).unwrap();
    let SecureAggregation::Required(how) = spec.secure_aggregation else { panic!("{spec:?}") };
    how
}

/// The sentence for a run with these two lines.
fn refused(more: &str, cohort: &str, sentence: &str) {
    assert_eq!(secure(more, cohort).expect_err(sentence), sentence);
}

/// `count` sites by name.
fn named(count: usize) -> String {
    let names: Vec<String> = (0..count).map(|site| format!("\"s{site}\"")).collect();
    format!("cohort = {{ sites = [{}] }}", names.join(", "))
}

#[test]
fn updates_are_encrypted_unless_off_is_written_out() {
    let expected = SecAggSpec {
        quantization_bits: 16,
        clipping_range: 1.0,
        max_colluding: None,
        stage_timeout: Duration::from_secs(60),
        graph: GraphKind::Complete,
        post_quantum: false,
    };
    assert_eq!(required("", ""), expected);
    assert_eq!(secure("secure_aggregation = \"required\"", ""), secure("", ""));
    let cohort = secure("", "").unwrap().cohort;
    assert_eq!((cohort.min_updates, cohort.max_examples), (3, 10_000));

    let off = secure("secure_aggregation = \"off\"", "").unwrap();
    assert_eq!(off.secure_aggregation, SecureAggregation::Off);
    assert_eq!((off.cohort.min_updates, off.cohort.max_examples), (1, 10_000_000));
}

#[test]
fn every_term_is_read() {
    let terms = "secagg = { quantization_bits = 20, clipping_range = 0.5, max_colluding = 1, stage_timeout = \"5m\", graph = \"regular\", post_quantum = true }";
    let expected = SecAggSpec {
        quantization_bits: 20,
        clipping_range: 0.5,
        max_colluding: Some(1),
        stage_timeout: Duration::from_secs(300),
        graph: GraphKind::Regular,
        post_quantum: true,
    };
    assert_eq!(required(terms, ""), expected);
}

#[test]
fn all_named_sites_are_in_the_sum_unless_it_says_otherwise() {
    assert_eq!(secure("", &named(5)).unwrap().cohort.min_updates, 5);
    let fewer = "cohort = { sites = [\"a\", \"b\", \"c\"], min_updates = 2 }";
    assert_eq!(secure("", fewer).unwrap().cohort.min_updates, 2);
}

#[test]
fn what_the_server_or_the_other_site_learns_is_a_warning() {
    assert!(secure("", "").unwrap().warnings().is_empty());
    assert!(secure("", &named(3)).unwrap().warnings().is_empty());
    let off = secure("secure_aggregation = \"off\"", "").unwrap().warnings();
    assert_eq!(off, ["secure_aggregation is \"off\": the server sees each site's update"]);
    for two in
        [named(2), "cohort = { min_updates = 2 }".into(), "cohort = { count = 2, min_updates = 2 }".into()]
    {
        let warnings = secure("", &two).unwrap().warnings();
        let [warning] = &warnings[..] else { panic!("{warnings:?}") };
        assert!(warning.starts_with("with two sites in a sum each learns the other's update"), "{warning}");
    }
}

#[test]
fn a_sum_over_one_site_is_refused() {
    let sentence = "run.toml:6: cohort.min_updates: must be at least 2 with secure aggregation: the sum over one site \
                    is its update; name more sites, or write secure_aggregation = \"off\"";
    refused("", &named(1), sentence);
    refused("", "cohort = { min_updates = 1 }", sentence);
    refused("", "cohort = { sites = [\"a\", \"b\", \"c\"], min_updates = 1 }", sentence);
}

#[test]
fn wrong_terms_have_their_line() {
    let cases = [
        ("quantization_bits = 7", "quantization_bits: 7 is not between 8 and 24"),
        ("quantization_bits = 25", "quantization_bits: 25 is not between 8 and 24"),
        ("clipping_range = 0.0", "clipping_range: 0 is not a finite number above 0"),
        ("clipping_range = -1.0", "clipping_range: -1 is not a finite number above 0"),
        ("clipping_range = inf", "clipping_range: inf is not a finite number above 0"),
        ("clipping_range = nan", "clipping_range: NaN is not a finite number above 0"),
        // Too large for an f32, in which it travels.
        ("clipping_range = 1e39", "clipping_range: inf is not a finite number above 0"),
        ("stage_timeout = \"soon\"", "stage_timeout: `soon` is no duration; write \"60s\" or \"5m\""),
        ("stage_timeout = \"999ms\"", "stage_timeout: must be between 1 second and 1 day"),
        ("stage_timeout = \"25h\"", "stage_timeout: must be between 1 second and 1 day"),
        (
            "graph = \"star\"",
            "graph: `star` is unknown; write \"complete\", or \"regular\" for large cohorts and an honest server",
        ),
    ];
    for (term, problem) in cases {
        refused(&format!("secagg = {{ {term} }}"), "", &format!("run.toml:3: secagg.{problem}"));
    }
}

#[test]
fn what_off_turns_off_is_not_set_up() {
    refused(
        "secure_aggregation = \"off\"\nsecagg = { quantization_bits = 16 }",
        "",
        "run.toml:4: secagg: sets up what `secure_aggregation = \"off\"` turns off",
    );
}

#[test]
fn large_cohorts_need_the_regular_graph() {
    let sentence = |at: &str, sites: u32| {
        format!(
            "run.toml{at}: secagg.graph: a complete graph is for up to 256 sites, not {sites}: write graph = \"regular\", \
             which trusts the server to follow the protocol"
        )
    };
    refused("", &named(257), &sentence("", 257));
    refused("", "cohort = { count = 300 }", &sentence("", 300));
    refused("", "cohort = { min_updates = 300 }", &sentence("", 300));
    refused("secagg = { graph = \"complete\" }", "cohort = { count = 300 }", &sentence(":3", 300));
    assert_eq!(required("", &named(256)).graph, GraphKind::Complete);
    assert_eq!(required("", "cohort = { count = 256 }").graph, GraphKind::Complete);
    assert_eq!(required("secagg = { graph = \"regular\" }", &named(257)).graph, GraphKind::Regular);
}

#[test]
fn the_keys_of_a_cohort_must_fit_in_a_message() {
    let sentence = |sites: u32, most: u32| {
        format!(
            "run.toml:6: cohort.count: the keys of {sites} sites do not fit in a message, only those of {most}: \
             write count = {most} or fewer, or secure_aggregation = \"off\""
        )
    };
    let cohort = |count: u32| format!("cohort = {{ count = {count} }}");
    let (regular, quantum) =
        ("secagg = { graph = \"regular\" }", "secagg = { graph = \"regular\", post_quantum = true }");
    refused(regular, &cohort(1498), &sentence(1498, 1497));
    refused(quantum, &cohort(342), &sentence(342, 341));
    required(regular, &cohort(1497));
    required(quantum, &cohort(341));
}

#[test]
fn sums_must_fit_and_colluders_be_fewer_than_sites() {
    let bits = |sites: u32| {
        format!(
            "run.toml:3: secagg.quantization_bits: the sum of {sites} sites' values of 24 bits does not fit in 32 bits: \
             use fewer bits"
        )
    };
    let terms = "secagg = { quantization_bits = 24, graph = \"regular\" }";
    refused(terms, "cohort = { count = 257 }", &bits(257));
    refused(terms, "cohort = { min_updates = 257 }", &bits(257));
    assert_eq!(required(terms, "cohort = { count = 256 }").quantization_bits, 24);

    let colluding = "secagg = { max_colluding = 3 }";
    let sentence = "run.toml:3: secagg.max_colluding: 3 is not below the 3 sites of the cohort";
    refused(colluding, &named(3), sentence);
    refused(colluding, "cohort = { count = 3 }", sentence);
    assert_eq!(required(colluding, &named(4)).max_colluding, Some(3));
    assert_eq!(required(colluding, "").max_colluding, Some(3));
}
