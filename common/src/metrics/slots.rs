//! Counts as 64-bit slots, so that a secure sum pools them without anybody seeing one site's.
//!
//! Histograms are dense and eight times coarser here: what is secret must be as long as it may be, whatever it
//! holds. A score counts as the middle of its coarse bin. Wide sums are cut into limbs (`fixed`), so that no slot
//! overflows over 2^16 sites.

use super::calibration::{BINS, Bin, CONFIDENCE_LIMBS, Calibration};
use super::classification::{Classification, SUM_LIMBS};
use super::counts::Counts;
use super::curves::Scores;
use super::fixed::{joined, limbs};
use super::histogram::{Histogram, num_bins};
use super::kind::{Asked, Asks, Kind};
use super::language::Language;
use super::multi_label::{Label, MultiLabel};
use super::regression::{self, Regression};
use super::survey::{self, Column, Moments, Survey};

/// Bins of a site's histogram that share a slot.
const COARSE: u16 = 8;

fn coarse_bins(num_labels: usize) -> usize {
    usize::from(num_bins(num_labels).div_ceil(COARSE))
}

impl Counts {
    /// Slots of counts over a task of that kind.
    pub fn num_slots(kind: &Kind) -> usize {
        match kind {
            Kind::Classification { labels } => Classification::num_slots(labels.len()),
            Kind::MultiLabel { labels } => MultiLabel::num_slots(labels.len()),
            Kind::Regression { .. } => Regression::SLOTS,
            Kind::Language => Language::SLOTS,
            Kind::Survey { columns } => Survey::num_slots(columns),
        }
    }

    /// The counts as slots.
    pub fn to_slots(&self) -> Vec<u64> {
        match self {
            Self::Classification(counts) => counts.to_slots(),
            Self::MultiLabel(counts) => counts.to_slots(),
            Self::Regression(counts) => counts.to_slots(),
            Self::Language(counts) => counts.to_slots(),
            Self::Survey(counts) => counts.to_slots(),
        }
    }

    /// The counts whose slots (or whose sums of slots) these are; `None` when there are too few or too many, or
    /// they are no sums of counts. Whether they are sound is for [`Counts::is_sound`] to say.
    pub fn from_slots(kind: &Kind, slots: &[u64]) -> Option<Self> {
        if slots.len() != Self::num_slots(kind) {
            return None;
        }
        let mut slots = Slots(slots);
        Some(match kind {
            Kind::Classification { labels } => Classification::from_slots(labels.len(), &mut slots)?.into(),
            Kind::MultiLabel { labels } => MultiLabel::from_slots(labels.len(), &mut slots)?.into(),
            Kind::Regression { .. } => Regression::from_slots(&mut slots)?.into(),
            Kind::Language => Language::from_slots(&mut slots)?.into(),
            Kind::Survey { columns } => Survey::from_slots(columns, &mut slots)?.into(),
        })
    }
}

/// Slots that are read from the first to the last.
struct Slots<'a>(&'a [u64]);

impl<'a> Slots<'a> {
    fn take(&mut self, count: usize) -> Option<&'a [u64]> {
        let (taken, rest) = self.0.split_at_checked(count)?;
        self.0 = rest;
        Some(taken)
    }

    fn one(&mut self) -> Option<u64> {
        self.take(1)?.first().copied()
    }

    fn wide(&mut self, limbs: usize) -> Option<u128> {
        joined(self.take(limbs)?)
    }

    fn scores(&mut self, num_labels: usize) -> Option<Scores> {
        let (bins, most) = (coarse_bins(num_labels), num_bins(num_labels) - 1);
        let mut side = || Some(Histogram::from_coarse(self.take(bins)?, COARSE, most));
        Some(Scores { positives: side()?, negatives: side()? })
    }
}

fn write_scores(slots: &mut Vec<u64>, scores: &Scores, num_labels: usize) {
    for side in [&scores.positives, &scores.negatives] {
        slots.extend(side.coarse(COARSE, coarse_bins(num_labels)));
    }
}

impl Classification {
    fn num_slots(num_labels: usize) -> usize {
        let calibration = BINS * (2 + CONFIDENCE_LIMBS);
        num_labels * num_labels + 2 * SUM_LIMBS + calibration + 2 * num_labels * coarse_bins(num_labels)
    }

    fn to_slots(&self) -> Vec<u64> {
        let mut slots = self.confusion.clone();
        slots.extend(limbs::<SUM_LIMBS>(self.loss));
        slots.extend(limbs::<SUM_LIMBS>(self.squares));
        for bin in self.calibration.bins.iter() {
            slots.extend([bin.count, bin.right]);
            slots.extend(limbs::<CONFIDENCE_LIMBS>(bin.confidence));
        }
        for scores in &self.scores {
            write_scores(&mut slots, scores, self.num_labels());
        }
        slots
    }

    fn from_slots(num_labels: usize, slots: &mut Slots<'_>) -> Option<Self> {
        let confusion = slots.take(num_labels * num_labels)?.to_vec();
        let (loss, squares) = (slots.wide(SUM_LIMBS)?, slots.wide(SUM_LIMBS)?);
        let mut calibration = Calibration::default();
        for bin in calibration.bins.iter_mut() {
            let (count, right) = (slots.one()?, slots.one()?);
            *bin = Bin { count, right, confidence: slots.wide(CONFIDENCE_LIMBS)? };
        }
        let scores = (0..num_labels).map(|_| slots.scores(num_labels)).collect::<Option<_>>()?;
        Some(Self { confusion, loss, squares, calibration, scores })
    }
}

impl MultiLabel {
    fn num_slots(num_labels: usize) -> usize {
        2 + SUM_LIMBS + num_labels * (2 + 2 * coarse_bins(num_labels))
    }

    fn to_slots(&self) -> Vec<u64> {
        let mut slots = vec![self.examples, self.exact];
        slots.extend(limbs::<SUM_LIMBS>(self.loss));
        for label in &self.labels {
            slots.extend([label.right, label.wrong]);
            write_scores(&mut slots, &label.scores, self.labels.len());
        }
        slots
    }

    fn from_slots(num_labels: usize, slots: &mut Slots<'_>) -> Option<Self> {
        let (examples, exact, loss) = (slots.one()?, slots.one()?, slots.wide(SUM_LIMBS)?);
        let mut label = || {
            let (right, wrong) = (slots.one()?, slots.one()?);
            Some(Label { right, wrong, scores: slots.scores(num_labels)? })
        };
        let labels = (0..num_labels).map(|_| label()).collect::<Option<_>>()?;
        Some(Self { examples, exact, loss, labels })
    }
}

impl Regression {
    const SLOTS: usize = 1 + 2 * (regression::SUM_LIMBS + regression::SQUARES_LIMBS);

    fn to_slots(&self) -> Vec<u64> {
        let mut slots = vec![self.examples];
        for (sum, squares) in [(self.errors, self.squared_errors), (self.targets, self.squared_targets)] {
            slots.extend(limbs::<{ regression::SUM_LIMBS }>(sum));
            slots.extend(limbs::<{ regression::SQUARES_LIMBS }>(squares));
        }
        slots
    }

    fn from_slots(slots: &mut Slots<'_>) -> Option<Self> {
        let examples = slots.one()?;
        let mut sums = || Some((slots.wide(regression::SUM_LIMBS)?, slots.wide(regression::SQUARES_LIMBS)?));
        let ((errors, squared_errors), (targets, squared_targets)) = (sums()?, sums()?);
        Some(Self { examples, errors, squared_errors, targets, squared_targets })
    }
}

impl Language {
    const SLOTS: usize = 3 + SUM_LIMBS;

    fn to_slots(&self) -> Vec<u64> {
        let mut slots = vec![self.examples, self.tokens, self.right];
        slots.extend(limbs::<SUM_LIMBS>(self.loss));
        slots
    }

    fn from_slots(slots: &mut Slots<'_>) -> Option<Self> {
        let (examples, tokens, right) = (slots.one()?, slots.one()?, slots.one()?);
        Some(Self { examples, tokens, right, loss: slots.wide(SUM_LIMBS)? })
    }
}

impl Survey {
    fn num_slots(columns: &[Asked]) -> usize {
        let each = |asked: &Asked| match &asked.asks {
            Asks::Number(_) => Moments::SLOTS,
            Asks::Words { words, .. } => words.len(),
        };
        1 + columns.iter().map(each).sum::<usize>()
    }

    fn to_slots(&self) -> Vec<u64> {
        let mut slots = vec![self.examples];
        for column in &self.columns {
            match column {
                Column::Number(moments) => {
                    slots.extend([moments.count, moments.clamped]);
                    for sum in [moments.sum, moments.squares[0], moments.squares[1]] {
                        slots.extend(limbs::<{ survey::SUM_LIMBS }>(sum));
                    }
                }
                Column::Words(counts) => slots.extend(counts),
            }
        }
        slots
    }

    fn from_slots(columns: &[Asked], slots: &mut Slots<'_>) -> Option<Self> {
        let examples = slots.one()?;
        let mut column = |asked: &Asked| {
            Some(match &asked.asks {
                Asks::Words { words, .. } => Column::Words(slots.take(words.len())?.to_vec()),
                Asks::Number(_) => {
                    let (count, clamped) = (slots.one()?, slots.one()?);
                    let mut sum = || slots.wide(survey::SUM_LIMBS);
                    Column::Number(Moments { count, clamped, sum: sum()?, squares: [sum()?, sum()?] })
                }
            })
        };
        let columns = columns.iter().map(&mut column).collect::<Option<_>>()?;
        Some(Self { examples, columns })
    }
}

impl Moments {
    const SLOTS: usize = 2 + 3 * survey::SUM_LIMBS;
}
