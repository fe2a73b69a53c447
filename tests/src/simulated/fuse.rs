//! When a program dies: every place where it could counts one step, and a test says after how many it does.

/// Counts the places at which a program could die.
#[derive(Debug, Default)]
pub struct Fuse {
    /// Places passed.
    pub steps: u64,
    /// Places left, if it is to die.
    pub left: Option<u64>,
}

impl Fuse {
    /// Passes a place; whether the program dies here.
    pub fn burns(&mut self) -> bool {
        self.steps += 1;
        let dies = self.left == Some(0);
        self.left = if dies { None } else { self.left.map(|left| left - 1) };
        dies
    }
}
