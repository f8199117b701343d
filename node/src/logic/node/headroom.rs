//! How much entries may take when the process has more memory than they are accounted with.
//!
//! Freed memory of one size is of use for another only when a whole page of the allocator is free. Where the sizes of
//! values shift, entries that stay keep such pages, so a process can have two or three times what is accounted. No entry
//! can be moved, but fewer of them keep fewer pages: so the budget follows the memory that the process has.

/// Percent of the limit above which entries give way.
const CUT_ABOVE: u64 = 85;
/// Percent of the limit below which they get room back.
const GIVE_BELOW: u64 = 80;
/// Percent of the limit above which those who send much are slowed.
const SLOW_ABOVE: u64 = 92;
/// The budget is cut again when the process has grown by one in so many parts of its limit.
const STEPS: u64 = 256;
/// One in so many parts of the configured budget stays, whatever else the process has memory for.
const FLOOR: u64 = 4;

/// The budget that follows the process's memory. All in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Headroom {
    limit: u64,
    max: u64,
    budget: u64,
    /// What the process had when the budget was last cut, since it last was below the bound.
    cut_at: Option<u64>,
}

impl Headroom {
    /// For a process that must stay below `limit`, of which entries may take `max`.
    pub fn new(limit: u64, max: u64) -> Self {
        Self { limit, max, budget: max, cut_at: None }
    }

    fn percent(&self, percent: u64) -> u64 {
        self.limit / 100 * percent
    }

    fn step(&self) -> u64 {
        self.limit / STEPS
    }

    /// What the process may have.
    pub fn limit(&self) -> u64 {
        self.limit
    }

    /// Whether the process grew by so much, in bytes, that the budget may be cut again.
    pub fn is_growth(&self, bytes: u64) -> bool {
        bytes >= self.step()
    }

    /// Whether a process with `resident` has so much that entries would have to give way.
    pub fn is_short(&self, resident: u64) -> bool {
        resident > self.percent(CUT_ABOVE)
    }

    /// Whether a process with `resident` may pass its limit before entries have given way, unless those who send much
    /// are slowed.
    pub fn is_near_limit(&self, resident: u64) -> bool {
        resident > self.percent(SLOW_ABOVE)
    }

    /// The budget, now that the process has `resident` and entries are accounted with `accounted`. To be asked often:
    /// between two looks the process should grow by little.
    ///
    /// Above the bound each further growth cuts the budget by all that the process has too much, so that the cuts
    /// soon outrun it. Without growth it stays: what entries leave is of use for the next ones before it is given back.
    pub fn look(&mut self, resident: u64, accounted: u64) -> u64 {
        let (bound, low) = (self.percent(CUT_ABOVE), self.percent(GIVE_BELOW));
        if resident <= bound {
            self.cut_at = None;
            if resident < low {
                self.budget = self.budget.max(accounted.saturating_add(low - resident).min(self.max));
            }
        } else if resident >= self.cut_at.unwrap_or(bound).saturating_add(self.step()) {
            self.cut_at = Some(resident);
            let cut = self.budget.min(accounted).saturating_sub(resident - bound);
            self.budget = self.budget.min(cut.max(self.max / FLOOR));
        }
        self.budget
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMIT: u64 = 1000;
    const MAX: u64 = 700;

    #[test]
    fn growth_above_the_bound_cuts_by_the_excess_and_rest_does_not() {
        let mut headroom = Headroom::new(LIMIT, MAX);
        assert_eq!(headroom.look(850, 700), 700);
        assert_eq!(headroom.look(852, 700), 700);
        assert_eq!(headroom.look(860, 700), 690);
        assert_eq!(headroom.look(860, 700), 690);
        assert_eq!(headroom.look(870, 690), 670);
        assert_eq!(headroom.look(865, 670), 670);
        assert_eq!(headroom.look(870, 670), 670);
        // What is not accounted is not there to be cut.
        assert_eq!(headroom.look(880, 500), 470);
        assert_eq!(headroom.look(2000, 500), MAX / FLOOR);
    }

    #[test]
    fn room_comes_back_as_far_as_there_is_some() {
        let mut headroom = Headroom::new(LIMIT, MAX);
        headroom.look(950, 700);
        assert_eq!(headroom.look(800, 600), 600);
        assert_eq!(headroom.look(790, 600), 610);
        assert_eq!(headroom.look(790, 605), 615);
        assert_eq!(headroom.look(790, 300), 615);
        assert_eq!(headroom.look(300, 300), MAX);
    }

    #[test]
    fn short_of_memory_before_it_is_near_its_limit() {
        let headroom = Headroom::new(LIMIT, MAX);
        let at = |resident| (headroom.is_short(resident), headroom.is_near_limit(resident));
        assert_eq!([850, 851, 920, 921].map(at), [(false, false), (true, false), (true, false), (true, true)]);
        assert_eq!([2, 3].map(|bytes| headroom.is_growth(bytes)), [false, true]);
    }

    /// A process whose entries leave nothing behind when they go: the pages that they were in stay.
    #[test]
    fn a_process_that_never_gives_back_stops_before_its_limit() {
        let (mut headroom, mut resident, mut accounted) = (Headroom::new(1 << 30, 700 << 20), 800 << 20, 700 << 20);
        let began: u64 = accounted;
        while accounted > began / 2 {
            // Of what is written a part goes where others left.
            (resident, accounted) = (resident + (1 << 19), accounted + (1 << 20));
            accounted = accounted.min(headroom.look(resident, accounted));
        }
        assert!(resident < (1 << 30) / 100 * 95, "{resident}");
    }

    proptest! {
        #[test]
        fn between_the_floor_and_the_configured_budget(
            limit in 1..1_u64 << 40,
            max in 1..1_u64 << 40,
            seen in prop::collection::vec((0..1_u64 << 41, 0..1_u64 << 41), 1..100),
        ) {
            let mut headroom = Headroom::new(limit, max);
            let mut last = max;
            for (resident, accounted) in seen {
                let budget = headroom.look(resident, accounted);
                prop_assert!((max / FLOOR..=max).contains(&budget));
                prop_assert!(resident > limit / 100 * CUT_ABOVE || budget >= last, "cut without need");
                prop_assert!(resident < limit / 100 * GIVE_BELOW || budget <= last, "given where there is none");
                prop_assert_eq!(headroom.look(resident, accounted), budget, "cut twice for the same");
                last = budget;
            }
        }
    }
}
