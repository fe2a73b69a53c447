//! Texts into token ids, as the model's own `tokenizer.json` says.

use std::path::Path;

use sheaf_common::model::TOKENIZER_FILE;
use tokenizers::{PostProcessor, Tokenizer, TruncationParams};

use crate::trainer::TrainError;

/// Texts tokenised at a time: encodings are many times larger than the ids that are kept of them.
pub(super) const CHUNK: usize = 256;

/// A model's tokenizer.
pub(super) struct Tokens {
    tokenizer: Tokenizer,
    /// Every id is below this.
    vocab_size: u64,
    /// The token that ends a text, when texts are what a model gives.
    end: Option<i64>,
}

/// What hides a token in a text, and what must not be hidden.
pub(super) struct Hidden {
    /// The mask token.
    pub(super) mask: i64,
    /// Of each id of the vocabulary, whether it is special.
    pub(super) special: Vec<bool>,
}

impl Tokens {
    /// Reads the tokenizer of `model_dir`. Texts are cut to `max_length` tokens, special tokens included;
    /// padding that the file asks for is ignored, since batches are padded to their longest text.
    ///
    /// # Errors
    /// When the file cannot be read or leaves no room for text in `max_length` tokens.
    pub(super) fn open(model_dir: &Path, max_length: u32, vocab_size: u64) -> Result<Self, TrainError> {
        let mut tokenizer = read(model_dir)?;
        let special = tokenizer.get_post_processor().map_or(0, |processor| processor.added_tokens(false));
        let max_length = max_length as usize;
        // Checked here because the library would subtract one from the other.
        if max_length <= special {
            return Err(TrainError::Failed(format!(
                "task.max_length is {max_length}, and the model's tokenizer adds {special} special tokens to \
                 every text: raise it"
            )));
        }
        tokenizer
            .with_truncation(Some(TruncationParams { max_length, stride: 0, ..TruncationParams::default() }))
            .map_err(unusable)?;
        Ok(Self { tokenizer, vocab_size, end: None })
    }

    /// Reads the tokenizer of a language model, in which `end` ends a text. Texts are not cut.
    ///
    /// # Errors
    /// When the file cannot be read.
    pub(super) fn open_whole(model_dir: &Path, vocab_size: u64, end: u64) -> Result<Self, TrainError> {
        let mut tokenizer = read(model_dir)?;
        tokenizer.with_truncation(None).map_err(unusable)?;
        Ok(Self { tokenizer, vocab_size, end: Some(end as i64) })
    }

    /// The token that ends a text, when texts are what the model gives.
    pub(super) fn end(&self) -> Option<i64> {
        self.end
    }

    /// The mask token, BERT's or RoBERTa's, and the special tokens: those that the file calls so, and those that stand
    /// around every text. `None` without a mask token.
    pub(super) fn mask(&self) -> Option<Hidden> {
        let mut special = vec![false; self.vocab_size as usize];
        let added = self.tokenizer.get_added_tokens_decoder();
        let named = added.iter().filter(|(_, token)| token.special).map(|(id, _)| *id);
        let around = self.tokenizer.encode_fast("", true).ok()?;
        for id in named.chain(around.get_ids().iter().copied()) {
            if let Some(special) = special.get_mut(id as usize) {
                *special = true;
            }
        }
        let mask = ["[MASK]", "<mask>"].iter().find_map(|mask| self.tokenizer.token_to_id(mask))?;
        special.get(mask as usize).is_some().then_some(Hidden { mask: i64::from(mask), special })
    }

    /// The token ids of each text, with the model's special tokens around it if `special`.
    ///
    /// # Errors
    /// When the tokenizer fails, or gives a token that the model does not have; without an `end` also when a text has
    /// no token at all.
    pub(super) fn encode(&self, texts: &[String], special: bool) -> Result<Vec<Vec<i64>>, TrainError> {
        self.encode_from(0, texts, special)
    }

    /// The same for texts of which the first is this example's.
    pub(super) fn encode_from(
        &self,
        first: usize,
        texts: &[String],
        special: bool,
    ) -> Result<Vec<Vec<i64>>, TrainError> {
        let mut all = Vec::with_capacity(texts.len());
        for chunk in texts.chunks(CHUNK) {
            let chunk = chunk.iter().map(String::as_str).collect();
            let encodings = self.tokenizer.encode_batch_fast(chunk, special).map_err(|reason| {
                TrainError::Failed(format!("the model's tokenizer cannot encode the data: {reason}"))
            })?;
            for encoding in encodings {
                all.push(self.checked(encoding.get_ids(), first + all.len())?);
            }
        }
        Ok(all)
    }

    fn checked(&self, ids: &[u32], example: usize) -> Result<Vec<i64>, TrainError> {
        if ids.is_empty() && self.end.is_none() {
            let number = example + 1;
            return Err(TrainError::Failed(format!(
                "the tokenizer makes no token of example {number}'s text"
            )));
        }
        match ids.iter().find(|id| u64::from(**id) >= self.vocab_size) {
            None => Ok(ids.iter().map(|id| i64::from(*id)).collect()),
            Some(id) => Err(TrainError::Failed(format!(
                "{TOKENIZER_FILE} has the token id {id}, but the model's config.json says vocab_size {}",
                self.vocab_size
            ))),
        }
    }
}

/// The tokenizer, without the padding that its file may ask for.
fn read(model_dir: &Path) -> Result<Tokenizer, TrainError> {
    let mut tokenizer = Tokenizer::from_file(model_dir.join(TOKENIZER_FILE)).map_err(unusable)?;
    tokenizer.with_padding(None);
    Ok(tokenizer)
}

fn unusable(reason: tokenizers::Error) -> TrainError {
    TrainError::Failed(format!("the model's {TOKENIZER_FILE} cannot be used: {reason}"))
}
