//! Desks that teach a language model to answer with a topic: SmolLM2-135M-Instruct and questions about Reuters R8.
//! Only low-rank adapters are trained and travel. The partition is simulated.

use crate::cache;
use crate::example::{Base, Choice, Example, ExampleError};
use crate::metric::{LOSS, PERPLEXITY, TOKEN_ACCURACY};
use crate::newswire;
use crate::skewed::Skewed;
use crate::table::{Format, Table};

/// Words of a document in a question, so that question and answer fit the run's tokens.
const WORDS: usize = 60;
/// What a desk calls each topic of Reuters R8.
const NAMES: [(&str, &str); 8] = [
    ("acq", "takeovers"),
    ("crude", "crude oil"),
    ("earn", "earnings"),
    ("grain", "grain"),
    ("interest", "interest rates"),
    ("money-fx", "currencies"),
    ("ship", "shipping"),
    ("trade", "trade"),
];

/// The example, with its questions dealt out.
pub(crate) fn example(choice: Choice) -> Result<Example, ExampleError> {
    let (train, test) = newswire::documents()?;
    let size = choice.size(40, 10);
    Ok(Example {
        about: format!(
            "{} desks teach SmolLM2 to answer with a topic (Reuters R8), each with {size} questions of its own.\n\
             The partition is simulated: four in five of a desk's questions are about its own topics, drawn with \
             seed {}.",
            choice.sites, choice.seed
        ),
        choice,
        run: include_str!("../smollm2-lora/run.toml"),
        reduced_rounds: 1,
        survey: false,
        base: Base::Pretrained {
            name: "smollm2",
            path: cache::find("smollm2")?.join("SmolLM2-135M-Instruct.Q4_1.gguf"),
            kind: None,
        },
        sites: Skewed { party: "desk", size, strays: size / 5 }.partition(&questions(&train), choice),
        test: questions(&test).sample(choice.size(60, 10), &mut choice.stream("test", &[])),
        metrics: &[PERPLEXITY, TOKEN_ACCURACY, LOSS],
    })
}

/// A question about each document, and the answer to it.
fn questions(documents: &Table) -> Table {
    let question = |row: &Vec<String>| {
        let (topic, text) = (row.first()?, row.get(1)?);
        let (_, name) = NAMES.iter().find(|(short, _)| short == topic)?;
        let words: Vec<&str> = text.split_whitespace().take(WORDS).collect();
        Some(vec![format!("Which topic is this newswire about? {}", words.join(" ")), (*name).to_owned()])
    };
    let rows = documents.rows.iter().filter_map(question).collect();
    Table { format: Format::Csv, columns: vec!["question", "answer"], label: 1, rows }
}
