//! What entries of all partitions take together, within what they may take.

use super::atomic::{AtomicI64, AtomicU64, Ordering};

/// Bytes that are booked by several threads at once.
pub(super) struct Account {
    booked: AtomicI64,
    budget: AtomicU64,
}

impl Account {
    /// Nothing is booked; `budget`: bytes that may be.
    pub(super) fn new(budget: u64) -> Self {
        Self { booked: AtomicI64::new(0), budget: AtomicU64::new(budget) }
    }

    /// What is booked. Never below 0: what a thread frees it has booked before.
    pub(super) fn bytes(&self) -> u64 {
        self.booked.load(Ordering::Relaxed).max(0) as u64
    }

    /// What may be booked.
    pub(super) fn budget(&self) -> u64 {
        self.budget.load(Ordering::Relaxed)
    }

    /// So much may be booked from now on. What is booked stays.
    pub(super) fn set_budget(&self, bytes: u64) {
        self.budget.store(bytes, Ordering::Relaxed);
    }

    /// How much more is booked than may be.
    pub(super) fn excess(&self) -> u64 {
        self.bytes().saturating_sub(self.budget())
    }

    /// Entries were added or freed.
    pub(super) fn book(&self, delta: i64) {
        if delta != 0 {
            self.booked.fetch_add(delta, Ordering::Relaxed);
        }
    }

    /// Books what was added, once it fits. `free` frees about as much as it is told and says what was added less all that it
    /// freed, or None if it can free no more: then the budget is passed.
    pub(super) fn book_or_free(&self, mut delta: i64, mut free: impl FnMut(u64) -> Option<i64>) {
        while let Err(over) = self.book_within(delta) {
            let Some(left) = free(over) else { return self.book(delta) };
            delta = left;
        }
    }

    /// As [`Account::book`], but not what would pass the budget: then by how much. What is freed is always booked.
    fn book_within(&self, delta: i64) -> Result<(), u64> {
        if delta <= 0 {
            self.book(delta);
            return Ok(());
        }
        let budget = i64::try_from(self.budget()).unwrap_or(i64::MAX);
        let fits = |booked: i64| (booked.saturating_add(delta) <= budget).then_some(booked + delta);
        let booked = self.booked.fetch_update(Ordering::Relaxed, Ordering::Relaxed, fits);
        booked.map(drop).map_err(|booked| (booked.saturating_add(delta) - budget) as u64)
    }
}
