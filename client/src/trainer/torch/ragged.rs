//! Examples of different lengths in one tensor without padding, and padded batches of them.

use tch::{Device, TchError, Tensor};

/// Values of a row that counts as one. A photograph of 224 x 224 counts as 294, so that few go through a network at a time:
/// on a CPU an image in a batch of 80 takes four times as long as in a batch of 6, for its maps leave the caches.
const VALUES_PER_ROW: usize = 512;

/// The rows of all examples, one after the other. An example has one row per token (its id or its hidden
/// state), or just one (a pooled text, a row of a table).
pub(super) struct Ragged {
    /// `[rows, ...]`, in main memory: a batch at a time goes to the device.
    rows: Tensor,
    /// Where each example starts, and where the last one ends.
    starts: Vec<usize>,
    /// Which of `rows` each of these rows is; `None` when they are one after the other.
    places: Option<Vec<usize>>,
}

/// Some examples, padded to the longest of them.
pub(super) struct Batch {
    /// `[batch, length, ...]`; what stands in the padding is finite and means nothing.
    pub(super) values: Tensor,
    /// `[batch, length]`, true where there is no padding; `None` when there is none at all.
    pub(super) real: Option<Tensor>,
}

impl Ragged {
    /// Examples of the given lengths (each at least 1), whose `rows` are `[sum of lengths, ...]`.
    pub(super) fn new(rows: Tensor, lengths: impl IntoIterator<Item = usize>) -> Self {
        let mut starts = vec![0];
        starts.extend(lengths.into_iter().scan(0, |end, length| {
            *end += length;
            Some(*end)
        }));
        Self { rows, starts, places: None }
    }

    /// Examples of one row each, at these places among `rows`, which are only read.
    pub(super) fn scattered(rows: Tensor, places: Vec<usize>) -> Self {
        Self { rows, starts: (0..=places.len()).collect(), places: Some(places) }
    }

    /// Number of examples.
    pub(super) fn len(&self) -> usize {
        self.starts.len() - 1
    }

    /// Rows of one example.
    pub(super) fn length(&self, example: usize) -> usize {
        self.starts[example + 1] - self.starts[example]
    }

    /// All examples in batches of similar lengths, of at most `max_rows` rows with padding (or one example);
    /// longest first, so that too little memory shows at once. A row of many values, an image, counts as several.
    pub(super) fn by_length(&self, max_rows: usize) -> Vec<Vec<usize>> {
        let values: i64 = self.rows.size()[1..].iter().product();
        let max_rows = max_rows / (values as usize).div_ceil(VALUES_PER_ROW).max(1);
        let mut order: Vec<usize> = (0..self.len()).collect();
        order.sort_by_key(|example| std::cmp::Reverse(self.length(*example)));
        let mut batches = Vec::new();
        let mut rest = order.as_slice();
        while let Some(longest) = rest.first() {
            let fitting = (max_rows / self.length(*longest)).clamp(1, rest.len());
            let (batch, after) = rest.split_at(fitting);
            batches.push(batch.to_vec());
            rest = after;
        }
        batches
    }

    /// These examples (at least one) as a padded batch on `device`.
    pub(super) fn batch(&self, examples: &[usize], device: Device) -> Result<Batch, TchError> {
        let length = self.longest(examples);
        let padded = (examples.len() * length) as i64;
        let mut index = Vec::with_capacity(examples.len() * length);
        for example in examples {
            let (start, end) = (self.starts[*example], self.starts[*example + 1]);
            index.extend(
                (0..length).map(|row| if start + row < end { (start + row) as i64 } else { start as i64 }),
            );
        }
        if let Some(places) = &self.places {
            index.iter_mut().for_each(|row| *row = places[*row as usize] as i64);
        }
        let values = self.rows.f_index_select(0, &Tensor::f_from_slice(&index)?)?;
        let mut shape = vec![examples.len() as i64, length as i64];
        shape.extend(&self.rows.size()[1..]);
        let real = if padded as usize == self.total(examples) {
            None
        } else {
            Some(Tensor::f_from_slice(&self.real(examples, length))?.f_view(&shape[..2])?.f_to(device)?)
        };
        Ok(Batch { values: values.f_view(shape.as_slice())?.f_to(device)?, real })
    }

    /// Writes the rows of a padded batch of these examples, `[batch, length, ...]`, to where they belong.
    pub(super) fn put(&mut self, examples: &[usize], values: &Tensor) -> Result<(), TchError> {
        let length = self.longest(examples);
        let real = self.real(examples, length);
        let from: Vec<i64> = (0..real.len()).filter(|row| real[*row]).map(|row| row as i64).collect();
        let to: Vec<i64> = examples
            .iter()
            .flat_map(|example| self.starts[*example]..self.starts[*example + 1])
            .map(|row| row as i64)
            .collect();
        let rows =
            values.f_to(Device::Cpu)?.f_flatten(0, 1)?.f_index_select(0, &Tensor::f_from_slice(&from)?)?;
        self.rows.f_index_copy_(0, &Tensor::f_from_slice(&to)?, &rows).map(drop)
    }

    fn longest(&self, examples: &[usize]) -> usize {
        examples.iter().map(|example| self.length(*example)).max().unwrap_or(0)
    }

    fn total(&self, examples: &[usize]) -> usize {
        examples.iter().map(|example| self.length(*example)).sum()
    }

    /// Row by row of the padded batch: whether it is none of the padding.
    fn real(&self, examples: &[usize], length: usize) -> Vec<bool> {
        examples.iter().flat_map(|example| (0..length).map(|row| row < self.length(*example))).collect()
    }
}
