//! The longest time without a successful write, for all keys and for groups of them.

use super::ledger::Millis;

/// Watches successes of several groups of keys. Plain: time is an argument.
#[derive(Debug)]
pub struct Gaps {
    last: Vec<Millis>,
    longest: Vec<Millis>,
}

impl Gaps {
    /// For `groups` groups, from `now` on.
    pub fn new(groups: usize, now: Millis) -> Self {
        Self { last: vec![now; groups], longest: vec![Millis(0); groups] }
    }

    /// A write of this group succeeded.
    pub fn success(&mut self, group: usize, now: Millis) {
        let gap = Millis(now.0.saturating_sub(self.last[group].0));
        self.longest[group] = self.longest[group].max(gap);
        self.last[group] = self.last[group].max(now);
    }

    /// Nothing is sent any more: the time since the last success counts too.
    pub fn end(&mut self, now: Millis) {
        for group in 0..self.last.len() {
            self.success(group, now);
        }
    }

    /// The longest gap of each group.
    pub fn longest(&self) -> &[Millis] {
        &self.longest
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_longest_gap_of_each_group_counts_also_the_one_at_the_end() {
        let mut gaps = Gaps::new(2, Millis(100));
        for at in [150, 160, 400, 410] {
            gaps.success(0, Millis(at));
        }
        gaps.end(Millis(1_000));
        assert_eq!(gaps.longest(), [Millis(590), Millis(900)]);
    }
}
