//! Banks that learn together which loans will not be paid back: loans of Lending Club, each at the bank of the region
//! that its borrower lives in. The rare class is the one that matters.

use crate::cache;
use crate::example::{Base, Choice, Example, ExampleError};
use crate::metric::{BALANCED_ACCURACY, LOSS, PR_AUC, ROC_AUC};
use crate::natural;
use crate::table::{self, Format, Table};

/// The column that says in which state a borrower lives.
const STATE: &str = "addr_state";
/// What a bank's own file holds: these columns as they are, and the label.
const COLUMNS: [&str; 18] = [
    "funded_amnt",
    "term",
    "int_rate",
    "verification_status",
    "annual_inc",
    "emp_length",
    "delinq_2yrs",
    "inq_last_6mths",
    "revol_util",
    "open_il_6m",
    "open_il_12m",
    "open_il_24m",
    "total_bal_il",
    "all_util",
    "inq_fi",
    "inq_last_12m",
    "num_il_tl",
    "total_il_high_credit_limit",
];
const LABEL: &str = "Class";

/// The regions of the Census Bureau and their states; the rest is the South.
const NORTHEAST: [&str; 9] = ["CT", "MA", "ME", "NH", "NJ", "NY", "PA", "RI", "VT"];
const MIDWEST: [&str; 12] = ["IA", "IL", "IN", "KS", "MI", "MN", "MO", "ND", "NE", "OH", "SD", "WI"];
const WEST: [&str; 13] = ["AK", "AZ", "CA", "CO", "HI", "ID", "MT", "NM", "NV", "OR", "UT", "WA", "WY"];

/// The example, with its loans at their banks.
pub(crate) fn example(choice: Choice) -> Result<Example, ExampleError> {
    let columns: Vec<&str> = [STATE].into_iter().chain(COLUMNS).chain([LABEL]).collect();
    let loans = table::read(&cache::find("lending-club")?.join("lending_club.csv"), &columns)?;
    let by_region = loans.into_iter().map(|mut row| {
        let loan = row.split_off(1);
        (region(&row[0]).to_owned(), loan)
    });
    let mut banks = natural::parties(by_region, table);
    banks.sort_by_key(|bank| std::cmp::Reverse(bank.train.rows.len()));
    let (sites, test) = natural::partition(banks, choice);
    Ok(Example {
        about: format!(
            "{} banks learn together which loans will not be paid back (Lending Club), each from the loans of its \
             region.\nThe label is rare: one loan in twenty is bad. A quarter of the loans, drawn with seed {}, is \
             the common test set.",
            sites.len(),
            choice.seed
        ),
        choice,
        run: include_str!("../lending-club/run.toml"),
        reduced_rounds: 10,
        survey: true,
        base: Base::New,
        sites,
        test: table(test),
        metrics: &[ROC_AUC, PR_AUC, BALANCED_ACCURACY, LOSS],
    })
}

fn region(state: &str) -> &'static str {
    match state {
        state if NORTHEAST.contains(&state) => "northeast",
        state if MIDWEST.contains(&state) => "midwest",
        state if WEST.contains(&state) => "west",
        _ => "south",
    }
}

fn table(rows: Vec<Vec<String>>) -> Table {
    let columns = COLUMNS.into_iter().chain([LABEL]).collect();
    Table { format: Format::Csv, columns, label: COLUMNS.len(), rows }
}

#[cfg(test)]
mod tests {
    use sheaf_common::run::{RunSpec, TaskInput};

    #[test]
    fn the_run_asks_for_what_a_bank_has() {
        let run = RunSpec::parse("run.toml", include_str!("../lending-club/run.toml")).unwrap();
        let TaskInput::Table { features } = &run.task.input else { panic!("{:?}", run.task.input) };
        assert!(features.iter().map(|feature| feature.column.as_str()).eq(super::COLUMNS));
        assert_eq!(run.task.target.column(), Some(super::LABEL));
    }
}
