//! Which parameters a run trains: a part of the model by its place, or tensors by their names.

use std::fmt;

use regex::bytes::{RegexSet, RegexSetBuilder};
use serde::{Deserialize, Serialize};

/// Most patterns of a run.
const PATTERNS_MAX: usize = 64;

/// Longest pattern, in bytes.
const PATTERN_MAX: usize = 256;

/// Memory that the compiled patterns of a run may take, in bytes.
const COMPILED_MAX: usize = 1 << 20;

/// Which parameters are trained and travel.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Trainable {
    /// The classification head.
    Head,
    /// The last so many encoder layers (and a pooler that is used) and the head.
    Last(u32),
    /// Everything.
    All,
    /// The tensors in whose names one of these regular expressions is found, as Python's `re.search` finds it.
    Matching(Vec<String>),
}

/// Patterns that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadPattern {
    /// None, or too many.
    #[error("{0} patterns are listed; give 1 to {PATTERNS_MAX}")]
    Number(usize),
    /// One is too long.
    #[error("a pattern has {0} bytes; at most {PATTERN_MAX} are allowed")]
    TooLong(usize),
    /// They are no regular expressions, or take too much memory.
    #[error("this is no regular expression that can be used: {0}")]
    Expression(String),
}

/// The compiled form of [`Trainable::Matching`]. Names of tensors are ASCII, and so are classes such as `\d`. Matching
/// takes time linear in the name, and compiling is bounded, whoever wrote the patterns.
pub(crate) fn compile(patterns: &[String]) -> Result<RegexSet, BadPattern> {
    if !(1..=PATTERNS_MAX).contains(&patterns.len()) {
        return Err(BadPattern::Number(patterns.len()));
    }
    if let Some(long) = patterns.iter().find(|pattern| pattern.len() > PATTERN_MAX) {
        return Err(BadPattern::TooLong(long.len()));
    }
    let set = RegexSetBuilder::new(patterns).unicode(false).size_limit(COMPILED_MAX).build();
    // Its messages draw the pattern over several lines; the last one says what is wrong.
    let said = |error: regex::Error| error.to_string().lines().last().unwrap_or_default().trim().to_owned();
    set.map_err(|error| BadPattern::Expression(said(error).trim_start_matches("error: ").to_owned()))
}

impl fmt::Display for Trainable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Head => f.write_str("the head"),
            Self::Last(1) => f.write_str("the last layer and the head"),
            Self::Last(layers) => write!(f, "the last {layers} layers and the head"),
            Self::All => f.write_str("everything"),
            Self::Matching(patterns) => write!(f, "what `{}` finds", patterns.join("` or `")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(pattern: &str, name: &str) -> bool {
        compile(&[pattern.to_owned()]).unwrap().is_match(name.as_bytes())
    }

    #[test]
    fn a_pattern_is_found_anywhere_unless_it_says_where() {
        assert!(found("query", "encoder.layer.10.attention.self.query.weight"));
        assert!(found(r"layer\.\d+\..*bias$", "encoder.layer.10.output.dense.bias"));
        assert!(!found(r"^layer", "encoder.layer.10.output.dense.bias"));
        assert!(!found(r"layer\.1\.", "encoder.layer.10.output.dense.bias"));
        assert!(found("(?i)layernorm", "embeddings.LayerNorm.weight"));
    }

    #[test]
    fn what_cannot_be_used_has_its_sentence() {
        let said = |patterns: &[&str]| {
            let patterns: Vec<String> = patterns.iter().map(|pattern| (*pattern).to_owned()).collect();
            compile(&patterns).unwrap_err().to_string()
        };
        assert_eq!(said(&[]), "0 patterns are listed; give 1 to 64");
        assert_eq!(said(&["a"; 65]), "65 patterns are listed; give 1 to 64");
        assert_eq!(said(&[&"a".repeat(257)]), "a pattern has 257 bytes; at most 256 are allowed");
        assert_eq!(said(&["a(b"]), "this is no regular expression that can be used: unclosed group");
        // Backtracking engines would take for ever; this one says how much memory it would want.
        let large = said(&["(a{1000}){1000}"]);
        assert!(large.ends_with("exceeds size limit of 1048576 bytes."), "{large}");
    }
}
