//! What is going to happen, on simulated time: the earliest first, and of what happens at the same moment whatever was
//! put down first.

use std::cmp::Ordering;
use std::collections::BinaryHeap;

use serde::{Deserialize, Serialize};
use sheaf_common::time::Timestamp;

/// Things to come.
#[derive(Debug)]
pub struct Agenda<T> {
    heap: BinaryHeap<Entry<T>>,
    next: u64,
}

/// One of them.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Entry<T> {
    /// When.
    pub at: Timestamp,
    /// How many were put down before.
    number: u64,
    /// What.
    pub event: T,
}

impl<T> Entry<T> {
    /// At the same moment something else, if it is something.
    pub fn filter_map<U>(self, other: impl FnOnce(T) -> Option<U>) -> Option<Entry<U>> {
        Some(Entry { at: self.at, number: self.number, event: other(self.event)? })
    }
}

impl<T> Default for Agenda<T> {
    fn default() -> Self {
        Self { heap: BinaryHeap::new(), next: 0 }
    }
}

impl<T> Agenda<T> {
    /// Puts down that something will happen.
    pub fn push(&mut self, at: Timestamp, event: T) {
        self.heap.push(Entry { at, number: self.next, event });
        self.next += 1;
    }

    /// What happens next.
    pub fn pop(&mut self) -> Option<Entry<T>> {
        self.heap.pop()
    }

    /// Crosses out what will not happen.
    pub fn retain(&mut self, keep: impl FnMut(&T) -> bool) {
        let mut keep = keep;
        self.heap.retain(|entry| keep(&entry.event));
    }

    /// Everything, in order, with the number that the next entry gets: an agenda made of both goes on alike.
    pub fn entries(&self) -> (Vec<Entry<T>>, u64)
    where
        T: Clone,
    {
        let mut entries: Vec<Entry<T>> = self.heap.iter().cloned().collect();
        entries.sort_by(|a, b| b.cmp(a));
        (entries, self.next)
    }

    /// What [`Agenda::entries`] gave.
    pub fn of((entries, next): (Vec<Entry<T>>, u64)) -> Self {
        Self { heap: entries.into_iter().collect(), next }
    }
}

// A heap gives the greatest first, so the earliest entry is the greatest.
impl<T> Ord for Entry<T> {
    fn cmp(&self, other: &Self) -> Ordering {
        (other.at, other.number).cmp(&(self.at, self.number))
    }
}

impl<T> PartialOrd for Entry<T> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> PartialEq for Entry<T> {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl<T> Eq for Entry<T> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_comes_first_happens_first_also_after_it_was_written_down() {
        let mut agenda = Agenda::default();
        for (at, what) in [(5, 'd'), (1, 'a'), (5, 'e'), (2, 'b'), (2, 'c')] {
            agenda.push(Timestamp(at), what);
        }
        let mut again = Agenda::of(agenda.entries());
        again.push(Timestamp(5), 'f');
        let order: String = std::iter::from_fn(|| again.pop().map(|entry| entry.event)).collect();
        assert_eq!(order, "abcdef");
        agenda.retain(|what| *what != 'c');
        assert_eq!(agenda.pop().map(|entry| entry.event), Some('a'));
        assert_eq!(agenda.entries().0.len(), 3);
    }
}
