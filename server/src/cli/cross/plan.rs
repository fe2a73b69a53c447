//! The runs of a cross-validation: the same run once for each part that is held out.

use sheaf_common::config::{ConfigError, Invalid};
use sheaf_common::id::{Name, RunId};
use sheaf_common::run::{HeldOut, RunSpec, SecureAggregation};
use sheaf_common::seed;
use toml::{Table, Value};

use crate::cli::document::{Document, set};

/// What each run holds out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Scheme {
    /// At every site one of so many folds.
    Folds(u32),
    /// One site.
    Sites,
}

/// A run and what it holds out.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Part {
    /// The fold's number, or the site.
    pub(super) held_out: String,
    pub(super) document: Document,
}

/// A cross-validation before it starts.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Plan {
    pub(super) scheme: Scheme,
    /// The run that the others are made of.
    pub(super) name: Name,
    /// In the order of the folds, or of `cohort.sites`.
    pub(super) parts: Vec<Part>,
}

impl Plan {
    /// Makes the runs that come of the one in `text`, and checks every one of them.
    pub(super) fn new(scheme: Scheme, file: &str, text: &str) -> Result<Self, ConfigError> {
        let (name, parts) = parts(scheme, file, text)?;
        Ok(Self { scheme, name, parts })
    }

    /// What whoever starts it should know of its privacy, beside what is said of each run.
    pub(super) fn warning(&self) -> Option<&'static str> {
        let mut specs = self.parts.iter().map(|part| &part.document.spec);
        let encrypted = specs.any(|spec| spec.secure_aggregation != SecureAggregation::Off);
        (self.scheme == Scheme::Sites && encrypted).then_some(
            "sums over all sites but one, for each of them, can be compared: the first rounds together tell the server roughly what each site's own update was",
        )
    }
}

fn parts(scheme: Scheme, file: &str, text: &str) -> Result<(Name, Vec<Part>), ConfigError> {
    let spec = RunSpec::parse(file, text)?;
    let at = |invalid: &Invalid| ConfigError::locate(file, text, invalid);
    unset(&spec).map_err(|e| at(&e))?;
    let mut base: Table =
        text.parse().map_err(|e: toml::de::Error| at(&Invalid::new("name", e.to_string())))?;
    let keys: Vec<(String, String, Keys)> = match scheme {
        Scheme::Folds(folds) => {
            // The fold is what is held out in its place.
            if let Some(training) = base.get_mut("training").and_then(Value::as_table_mut) {
                training.remove("validation_split");
            }
            let keys = |fold: u32| [("validation.folds", folds.into()), ("validation.fold", fold.into())];
            (1..=folds).map(|fold| (fold.to_string(), format!("fold{fold}"), keys(fold).into())).collect()
        }
        Scheme::Sites => {
            let sites = spec.cohort.sites.as_ref().ok_or_else(|| {
                at(&Invalid::new("cohort.sites", "name the sites, so that each of them can be left out"))
            })?;
            // From one seed a site's first update would be the same in all runs but one, and no site lets the same update
            // into sums over different sites.
            let seed = |site: &str| seed::integer(spec.seed, &["leave out", site]);
            let keys = |site: &str| vec![("seed", seed(site).into()), ("validation.leave_out", site.into())];
            let name = |site: &str| (site.to_owned(), format!("without-{site}"), keys(site));
            sites.iter().map(|site| name(site.as_str())).collect()
        }
    };
    let part = |(held_out, suffix, keys): (String, String, Keys)| {
        let document = document(&base, &format!("{}-{suffix}", spec.name), keys).map_err(|e| at(&e))?;
        Ok(Part { held_out, document })
    };
    let parts = keys.into_iter().map(part).collect::<Result<_, _>>()?;
    Ok((spec.name, parts))
}

type Keys = Vec<(&'static str, Value)>;

/// What is held out is not the run's to say as well.
fn unset(spec: &RunSpec) -> Result<(), Invalid> {
    let why = "is what `sheaf cross-validate` sets: take it out of the run";
    match (&spec.validation.held_out, &spec.validation.leave_out) {
        (HeldOut::Fold(_), _) => Err(Invalid::new("validation.folds", why)),
        (HeldOut::Share(_), Some(_)) => Err(Invalid::new("validation.leave_out", why)),
        (HeldOut::Share(_), None) => Ok(()),
    }
}

/// The run with another name and these keys; what is wrong with it is told of the file that the user wrote.
fn document(base: &Table, name: &str, keys: Keys) -> Result<Document, Invalid> {
    let run: RunId =
        name.parse().map_err(|e: sheaf_common::id::BadName| Invalid::new("name", e.to_string()))?;
    let mut table = base.clone();
    set(&mut table, "name", name.into())?;
    for (key, value) in keys {
        set(&mut table, key, value)?;
    }
    let text = toml::to_string(&table).map_err(|e| Invalid::new("name", e.to_string()))?;
    Document::parse(run, text).map_err(|error| {
        let (key, problem) = error.problem().split_once(": ").unwrap_or(("validation", error.problem()));
        Invalid::new(key, format!("{problem} (in the run {name})"))
    })
}

#[cfg(test)]
mod tests {
    use sheaf_common::run::Fold;

    use super::*;

    const RUN: &str = r#"
name = "toy"
rounds = 2
secure_aggregation = "off"
model = { architecture = "softmax" }
[task]
type = "tabular-classification"
dataset = "data"
label = "label"
labels = ["no", "yes"]
features = [{ column = "x", type = "numeric" }]
[training]
validation_split = 0.3
[cohort]
sites = ["a", "b", "c"]
"#;

    fn names(parts: &[Part]) -> Vec<(&str, &str)> {
        parts.iter().map(|part| (part.held_out.as_str(), part.document.run.as_str())).collect()
    }

    #[test]
    fn each_fold_is_held_out_once_in_a_run_that_is_otherwise_the_same() {
        let parts = Plan::new(Scheme::Folds(3), "run.toml", RUN).unwrap().parts;
        assert_eq!(names(&parts), [("1", "toy-fold1"), ("2", "toy-fold2"), ("3", "toy-fold3")]);
        let base = RunSpec::parse("run.toml", RUN).unwrap();
        for (number, part) in (1..).zip(&parts) {
            let mut expected = base.clone();
            expected.name = format!("toy-fold{number}").parse().unwrap();
            expected.validation.held_out = HeldOut::Fold(Fold { number, of: 3 });
            assert_eq!(part.document.spec, expected);
        }
    }

    #[test]
    fn each_site_is_left_out_once_and_the_others_are_enough() {
        let parts = Plan::new(Scheme::Sites, "run.toml", RUN).unwrap().parts;
        assert_eq!(names(&parts), [("a", "toy-without-a"), ("b", "toy-without-b"), ("c", "toy-without-c")]);
        let spec = &parts[1].document.spec;
        assert!(spec.validation.leaves_out("b"));
        assert_eq!((spec.cohort.min_sites, spec.validation.held_out), (2, HeldOut::Share(0.3)));
        assert_ne!(spec.seed, parts[0].document.spec.seed, "no update comes twice");
    }

    #[test]
    fn only_sums_over_all_but_one_are_warned_of() {
        let warned = |scheme, text: &str| Plan::new(scheme, "run.toml", text).unwrap().warning().is_some();
        let encrypted = RUN.replace("secure_aggregation = \"off\"", "");
        assert!(warned(Scheme::Sites, &encrypted));
        assert!(!warned(Scheme::Folds(2), &encrypted) && !warned(Scheme::Sites, RUN));
    }

    #[test]
    fn what_does_not_fit_is_told_of_the_users_own_file() {
        let said = |scheme, text: &str| Plan::new(scheme, "run.toml", text).unwrap_err().to_string();
        let three = format!("{RUN}min_updates = 3\n");
        assert_eq!(
            said(Scheme::Sites, &three),
            "run.toml:16: cohort.min_updates: 3 is not between 1 and 2 (in the run toy-without-a)"
        );
        assert_eq!(
            said(Scheme::Sites, &RUN.replace("sites = [\"a\", \"b\", \"c\"]", "")),
            "run.toml:14: cohort.sites: name the sites, so that each of them can be left out"
        );
        assert_eq!(
            said(Scheme::Sites, &RUN.replace("\"a\", \"b\", \"c\"", "\"a\"")),
            "run.toml: validation.leave_out: leaves nobody to train: name more sites in cohort.sites (in the run toy-without-a)"
        );
        let folds = RUN.replace("[training]\nvalidation_split = 0.3", "[validation]\nfolds = 2\nfold = 1");
        assert_eq!(
            said(Scheme::Folds(2), &folds),
            "run.toml:13: validation.folds: is what `sheaf cross-validate` sets: take it out of the run"
        );
        let long = RUN.replace("\"toy\"", &format!("\"{}\"", "x".repeat(60)));
        assert!(said(Scheme::Folds(2), &long).starts_with("run.toml:2: name: `xxx"));
    }
}
