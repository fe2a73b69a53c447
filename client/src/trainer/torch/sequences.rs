//! Texts and answers as the sequences of tokens that a language model learns to go on with.
//!
//! A sequence is the text in the run's template, then the answer, if the run has answers, then the token that ends a
//! text. Text and answer are cut into tokens apart, as they are when the model is used. Without answers every token but
//! the first is foretold, with answers theirs and the end.

use super::tokenize::Tokens;
use crate::data::Targets;
use crate::trainer::TrainError;

/// What goes into the model, and what is foretold at each example's end.
pub(super) struct Sequences {
    /// All tokens but the last.
    pub(super) inputs: Vec<Vec<i64>>,
    /// As many of the last tokens as are foretold; one at least, and no more than there are inputs.
    pub(super) foretold: Vec<Vec<i64>>,
}

/// What a run makes of texts.
pub(super) struct Form<'a> {
    pub(super) tokens: &'a Tokens,
    /// What a text stands in, at `{text}`.
    pub(super) template: &'a str,
    /// Most tokens of a sequence.
    pub(super) max_length: u32,
}

impl Form<'_> {
    /// The sequences of `texts`, the first of which is the data set's number `first`, with the answers that `targets` holds.
    ///
    /// # Errors
    /// When an example leaves nothing to be foretold, or the tokenizer fails.
    pub(super) fn sequences(
        &self,
        first: usize,
        texts: &[String],
        targets: &Targets,
    ) -> Result<Sequences, TrainError> {
        let tokens = self.tokens;
        let prompts: Vec<String> =
            texts.iter().map(|text| self.template.replacen("{text}", text, 1)).collect();
        let prompts = tokens.encode_from(first, &prompts, true)?;
        let answers = if let Targets::Answer(answers) = targets {
            Some(tokens.encode_from(first, answers, false)?)
        } else {
            None
        };
        let end = tokens.end().ok_or_else(|| TrainError::Failed("the model foretells no tokens".into()))?;
        let most = self.max_length as usize;
        let (mut inputs, mut foretold) = (Vec::new(), Vec::new());
        for (example, prompt) in prompts.into_iter().enumerate() {
            let (mut sequence, count) = match answers.as_ref().and_then(|answers| answers.get(example)) {
                Some(answer) => with_answer(prompt, answer.clone(), end, most),
                None => whole(prompt, end, most),
            };
            let count = count.min(sequence.len().saturating_sub(1));
            if count == 0 {
                let number = first + example + 1;
                return Err(TrainError::Failed(format!(
                    "example {number} has no token that could be foretold"
                )));
            }
            foretold.push(sequence[sequence.len() - count..].to_vec());
            sequence.pop();
            inputs.push(sequence);
        }
        Ok(Sequences { inputs, foretold })
    }
}

/// A text that is learned whole: one that is too long loses its end, and the token that says so.
fn whole(mut text: Vec<i64>, end: i64, most: usize) -> (Vec<i64>, usize) {
    text.push(end);
    text.truncate(most);
    let count = text.len();
    (text, count)
}

/// A prompt and an answer: when both are too long together, the prompt loses its beginning. An answer that leaves not
/// even one token of the prompt loses its end.
fn with_answer(prompt: Vec<i64>, mut answer: Vec<i64>, end: i64, most: usize) -> (Vec<i64>, usize) {
    answer.push(end);
    answer.truncate(most - 1);
    let kept = prompt.len().min(most - answer.len());
    let mut sequence = prompt[prompt.len() - kept..].to_vec();
    let count = answer.len();
    sequence.append(&mut answer);
    (sequence, count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_prompt_gives_way_to_the_answer() {
        let cut = |most| with_answer(vec![1, 2, 3], vec![7, 8], 0, most);
        assert_eq!(cut(9), (vec![1, 2, 3, 7, 8, 0], 3));
        assert_eq!(cut(6), (vec![1, 2, 3, 7, 8, 0], 3));
        assert_eq!(cut(5), (vec![2, 3, 7, 8, 0], 3));
        assert_eq!(cut(4), (vec![3, 7, 8, 0], 3));
        assert_eq!(cut(3), (vec![3, 7, 8], 2));
        assert_eq!(with_answer(vec![], vec![7], 0, 3), (vec![7, 0], 2));
    }

    #[test]
    fn a_text_that_was_cut_does_not_end() {
        assert_eq!(whole(vec![1, 2], 0, 3), (vec![1, 2, 0], 3));
        assert_eq!(whole(vec![1, 2, 3], 0, 3), (vec![1, 2, 3], 3));
    }
}
