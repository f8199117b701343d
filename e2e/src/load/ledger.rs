//! What each key may hold, given every change that was sent and how it ended.
//!
//! Plain bookkeeping: no sockets and no clock. Each key has one writer, which waits for the end of a change before it
//! sends the next one, so the changes of a key are in one order, and every change has a number in it. Values name their
//! key and their change's number, so that a value that comes back tells which change it is from.

use std::cmp::Ordering;
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// Time since the load began.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Millis(pub u64);

impl Millis {
    /// This time and `later` more.
    #[must_use]
    pub fn plus(self, later: Self) -> Self {
        Self(self.0.saturating_add(later.0))
    }
}

/// How far a time to live may be off: it travels as time left (rule W9), and tests share two cores with a Kubernetes.
pub const EXPIRY_SLACK: Millis = Millis(1_000);

/// A key of the load, by its number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(pub u32);

/// A change's place among the changes of its key, from 1.
pub type Number = u64;

/// What a command does to its key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A new value without end.
    Set,
    /// A new value that expires after this time.
    SetFor(Millis),
    /// No value any more.
    Delete,
}

/// A change that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Sent {
    number: Number,
    change: Change,
    at: Millis,
    /// When the answer came.
    answered: Option<Millis>,
}

impl Sent {
    /// The key may be absent because of this change.
    fn may_be_absent(self, now: Millis) -> bool {
        match self.change {
            Change::Set => false,
            Change::SetFor(ttl) => now.plus(EXPIRY_SLACK) >= self.at.plus(ttl),
            Change::Delete => true,
        }
    }

    /// The key must be absent because of this change.
    fn must_be_absent(self, now: Millis) -> bool {
        match (self.change, self.answered) {
            (Change::SetFor(ttl), Some(answered)) => now > answered.plus(ttl).plus(EXPIRY_SLACK),
            (Change::Set | Change::SetFor(_), _) => false,
            (Change::Delete, _) => true,
        }
    }
}

#[derive(Clone, Debug, Default)]
struct History {
    newest: Number,
    acknowledged: Option<Sent>,
    pending: Option<Sent>,
    /// Sent at least once without an answer. Each of them may take effect at any later time.
    open: Vec<Sent>,
    /// The newest change after which the key may be absent.
    absence: Number,
}

/// What a read must find, as known when it was sent.
#[derive(Clone, Copy, Debug)]
pub struct Expectation {
    key: Key,
    acknowledged: Option<Sent>,
    sent: Millis,
}

/// What is wrong with what a read found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// Nothing is there, but an acknowledged value must be.
    Lost,
    /// A value that was never written to this key.
    Wrong,
    /// A value from before the newest acknowledged one.
    Stale,
    /// A value although it was deleted, or expired.
    CameBack,
}

/// All keys and what was found out about them.
#[derive(Debug)]
pub struct Ledger {
    prefix: String,
    value_length: usize,
    histories: Vec<History>,
    faults: BTreeMap<Key, (Fault, String)>,
}

impl Ledger {
    /// A ledger of `keys` keys with names that begin with `prefix` and values of at least `value_length` bytes.
    pub fn new(prefix: &str, keys: u32, value_length: usize) -> Self {
        let histories = vec![History::default(); keys as usize];
        Self { prefix: prefix.to_owned(), value_length, histories, faults: BTreeMap::new() }
    }

    /// All keys.
    pub fn keys(&self) -> impl Iterator<Item = Key> + use<> {
        (0..self.histories.len() as u32).map(Key)
    }

    /// The key's name in the cache.
    pub fn name(&self, key: Key) -> String {
        name(&self.prefix, key)
    }

    /// The value that a change writes: it names its key and its number, and is filled up to the length asked for.
    pub fn value(&self, key: Key, number: Number) -> String {
        let mut value = format!("{}#{number}#", self.name(key));
        let filling = b'a' + (number % 26) as u8;
        while value.len() < self.value_length {
            value.push(filling as char);
        }
        value
    }

    /// A change is being sent; its number.
    ///
    /// # Panics
    /// When the key's change before has not ended: then the order of the two would be unknown.
    pub fn send(&mut self, key: Key, change: Change, now: Millis) -> Number {
        let history = self.history_mut(key);
        assert!(history.pending.is_none(), "{key:?} has a change under way");
        history.newest += 1;
        if change != Change::Set {
            history.absence = history.newest;
        }
        history.pending = Some(Sent { number: history.newest, change, at: now, answered: None });
        history.newest
    }

    /// The key's change was answered with success.
    pub fn acknowledge(&mut self, key: Key, now: Millis) {
        let history = self.history_mut(key);
        if let Some(sent) = history.pending.take() {
            history.acknowledged = Some(Sent { answered: Some(now), ..sent });
        }
    }

    /// The key's change was not answered and is sent once more: the first sending may still take effect later.
    pub fn retry(&mut self, key: Key) {
        let history = self.history_mut(key);
        history.open.extend(history.pending);
    }

    /// The key's change ended without a success: nobody knows whether it took effect.
    pub fn give_up(&mut self, key: Key) {
        let history = self.history_mut(key);
        history.open.extend(history.pending.take());
    }

    /// A read is being sent.
    pub fn expect(&self, key: Key, now: Millis) -> Expectation {
        Expectation { key, acknowledged: self.history(key).acknowledged, sent: now }
    }

    /// Judges what a read found; a fault is also kept, the first one of each key.
    pub fn judge(&mut self, expected: Expectation, found: Option<&[u8]>, now: Millis) -> Option<Fault> {
        let fault = match found {
            None => self.judge_absence(expected, now),
            Some(value) => self.judge_value(expected, value),
        }?;
        let story = self.story(expected, found, now);
        self.faults.entry(expected.key).or_insert((fault, story));
        Some(fault)
    }

    /// Keys with a fault, by kind.
    pub fn count(&self, fault: Fault) -> usize {
        self.faults.values().filter(|(kind, _)| *kind == fault).count()
    }

    /// What happened to the first `limit` keys with a fault.
    pub fn stories(&self, limit: usize) -> Vec<String> {
        self.faults.values().take(limit).map(|(_, story)| story.clone()).collect()
    }

    fn judge_absence(&self, expected: Expectation, now: Millis) -> Option<Fault> {
        let floor = expected.acknowledged?;
        let history = self.history(expected.key);
        let overtaken = history.absence > floor.number;
        let open = history.open.iter().any(|sent| sent.may_be_absent(now));
        if floor.may_be_absent(now) || overtaken || open { None } else { Some(Fault::Lost) }
    }

    fn judge_value(&self, expected: Expectation, value: &[u8]) -> Option<Fault> {
        let history = self.history(expected.key);
        let Some(number) = self.number_in(expected.key, value) else { return Some(Fault::Wrong) };
        if number > history.newest {
            return Some(Fault::Wrong);
        }
        if history.open.iter().any(|sent| sent.number == number) {
            return None;
        }
        let floor = expected.acknowledged?;
        let gone = floor.must_be_absent(expected.sent);
        match number.cmp(&floor.number) {
            Ordering::Equal => gone.then_some(Fault::CameBack),
            Ordering::Greater => None,
            Ordering::Less if floor.may_be_absent(expected.sent) => Some(Fault::CameBack),
            Ordering::Less => Some(Fault::Stale),
        }
    }

    /// The number of the change that wrote exactly this value to this key.
    fn number_in(&self, key: Key, value: &[u8]) -> Option<Number> {
        let text = std::str::from_utf8(value).ok()?;
        let number = text.split('#').nth(1)?.parse().ok()?;
        (self.value(key, number) == text).then_some(number)
    }

    fn story(&self, expected: Expectation, found: Option<&[u8]>, now: Millis) -> String {
        let mut story = format!("{}: ", self.name(expected.key));
        let found = found.map_or_else(|| "nothing".to_owned(), shown);
        let _ = write!(story, "a read from {} to {} found {found}; acknowledged before it: ", expected.sent, now);
        match expected.acknowledged {
            None => story.push_str("nothing"),
            Some(sent) => {
                let _ = write!(story, "{sent}");
            }
        }
        for sent in &self.history(expected.key).open {
            let _ = write!(story, "; open: {sent}");
        }
        story
    }

    fn history(&self, key: Key) -> &History {
        &self.histories[key.0 as usize]
    }

    fn history_mut(&mut self, key: Key) -> &mut History {
        &mut self.histories[key.0 as usize]
    }
}

/// A key's name in the cache, for a load whose keys begin with `prefix`.
pub fn name(prefix: &str, key: Key) -> String {
    format!("{prefix}{}", key.0)
}

fn shown(value: &[u8]) -> String {
    const SHOWN: usize = 60;
    let text = String::from_utf8_lossy(&value[..value.len().min(SHOWN)]).into_owned();
    format!("'{text}' ({} bytes)", value.len())
}

impl fmt::Display for Millis {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{} ms", self.0)
    }
}

impl fmt::Display for Sent {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.change {
            Change::Set => write!(to, "set {}", self.number)?,
            Change::SetFor(ttl) => write!(to, "set {} for {ttl}", self.number)?,
            Change::Delete => write!(to, "delete {}", self.number)?,
        }
        write!(to, " sent at {}", self.at)?;
        match self.answered {
            Some(at) => write!(to, ", answered at {at}"),
            None => write!(to, ", not answered"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: Key = Key(0);
    const HOUR: Millis = Millis(3_600_000);

    fn ledger() -> Ledger {
        Ledger::new("k", 2, 32)
    }

    fn acknowledged(ledger: &mut Ledger, change: Change, at: u64) -> Number {
        let number = ledger.send(KEY, change, Millis(at));
        ledger.acknowledge(KEY, Millis(at + 1));
        number
    }

    fn read(ledger: &mut Ledger, found: Option<Number>, at: u64) -> Option<Fault> {
        let expected = ledger.expect(KEY, Millis(at));
        let value = found.map(|number| ledger.value(KEY, number));
        ledger.judge(expected, value.as_ref().map(String::as_bytes), Millis(at + 1))
    }

    #[test]
    fn a_key_that_was_never_written_may_be_absent_and_nothing_else() {
        let mut ledger = ledger();
        assert_eq!(read(&mut ledger, None, 5), None);
        assert_eq!(read(&mut ledger, Some(1), 5), Some(Fault::Wrong));
    }

    #[test]
    fn an_acknowledged_value_must_be_there() {
        let mut ledger = ledger();
        let first = acknowledged(&mut ledger, Change::Set, 0);
        assert_eq!(read(&mut ledger, Some(first), 10), None);
        assert_eq!(read(&mut ledger, None, 10), Some(Fault::Lost));
    }

    #[test]
    fn an_older_value_is_stale() {
        let mut ledger = ledger();
        let first = acknowledged(&mut ledger, Change::Set, 0);
        let second = acknowledged(&mut ledger, Change::Set, 10);
        assert_eq!(read(&mut ledger, Some(second), 20), None);
        assert_eq!(read(&mut ledger, Some(first), 20), Some(Fault::Stale));
    }

    #[test]
    fn a_deleted_key_must_not_come_back() {
        let mut ledger = ledger();
        let first = acknowledged(&mut ledger, Change::Set, 0);
        acknowledged(&mut ledger, Change::Delete, 10);
        assert_eq!(read(&mut ledger, None, 20), None);
        assert_eq!(read(&mut ledger, Some(first), 20), Some(Fault::CameBack));
    }

    #[test]
    fn values_of_other_keys_and_damaged_values_are_wrong() {
        let mut ledger = ledger();
        acknowledged(&mut ledger, Change::Set, 0);
        for value in ["k1#1#bbbbbbbbbbbbbbbbbbbbbbbbbbbb", "k0#1#short", "", "k0#9#", "\u{fffd}"] {
            let expected = ledger.expect(KEY, Millis(10));
            assert_eq!(ledger.judge(expected, Some(value.as_bytes()), Millis(11)), Some(Fault::Wrong), "{value}");
        }
    }

    #[test]
    fn a_value_expires_in_its_time_and_not_before() {
        let mut ledger = ledger();
        let first = acknowledged(&mut ledger, Change::SetFor(Millis(5_000)), 0);
        assert_eq!(read(&mut ledger, Some(first), 3_000), None);
        assert_eq!(read(&mut ledger, None, 3_000), Some(Fault::Lost));
        assert_eq!(read(&mut ledger, None, 4_999), None);
        assert_eq!(read(&mut ledger, Some(first), 5_500), None);
        assert_eq!(read(&mut ledger, None, 9_000), None);
        assert_eq!(read(&mut ledger, Some(first), 9_000), Some(Fault::CameBack));
    }

    #[test]
    fn a_value_with_a_long_life_is_lost_like_any_other() {
        let mut ledger = ledger();
        acknowledged(&mut ledger, Change::SetFor(HOUR), 0);
        assert_eq!(read(&mut ledger, None, 60_000), Some(Fault::Lost));
    }

    #[test]
    fn a_change_under_way_allows_before_and_after() {
        let mut ledger = ledger();
        let first = acknowledged(&mut ledger, Change::Set, 0);
        let expected = ledger.expect(KEY, Millis(10));
        let second = ledger.send(KEY, Change::Set, Millis(11));
        for number in [first, second] {
            let value = ledger.value(KEY, number);
            assert_eq!(ledger.judge(expected, Some(value.as_bytes()), Millis(12)), None);
        }
        assert_eq!(ledger.judge(expected, None, Millis(12)), Some(Fault::Lost));
    }

    #[test]
    fn a_delete_during_a_read_allows_absence() {
        let mut ledger = ledger();
        acknowledged(&mut ledger, Change::Set, 0);
        let expected = ledger.expect(KEY, Millis(10));
        acknowledged(&mut ledger, Change::Delete, 11);
        acknowledged(&mut ledger, Change::Set, 13);
        assert_eq!(ledger.judge(expected, None, Millis(20)), None);
        assert_eq!(read(&mut ledger, None, 30), Some(Fault::Lost));
    }

    #[test]
    fn an_unanswered_change_may_take_effect_or_not_at_any_time() {
        let mut ledger = ledger();
        let first = acknowledged(&mut ledger, Change::Set, 0);
        let open = ledger.send(KEY, Change::Set, Millis(10));
        ledger.give_up(KEY);
        assert_eq!(read(&mut ledger, Some(first), 20), None);
        assert_eq!(read(&mut ledger, Some(open), 20), None);
        assert_eq!(read(&mut ledger, None, 20), Some(Fault::Lost));
        let third = acknowledged(&mut ledger, Change::Set, 30);
        assert_eq!(read(&mut ledger, Some(third), 40), None);
        assert_eq!(read(&mut ledger, Some(open), 40), None);
    }

    #[test]
    fn it_allows_no_more_than_the_unanswered_change() {
        let mut ledger = ledger();
        let first = acknowledged(&mut ledger, Change::Set, 0);
        ledger.send(KEY, Change::Set, Millis(10));
        ledger.give_up(KEY);
        acknowledged(&mut ledger, Change::Set, 30);
        assert_eq!(read(&mut ledger, Some(first), 40), Some(Fault::Stale));
    }

    #[test]
    fn an_unanswered_delete_allows_absence() {
        let mut ledger = ledger();
        acknowledged(&mut ledger, Change::Set, 0);
        ledger.send(KEY, Change::Delete, Millis(10));
        ledger.give_up(KEY);
        assert_eq!(read(&mut ledger, None, 20), None);
    }

    #[test]
    fn a_retried_change_counts_as_acknowledged_and_may_act_again() {
        let mut ledger = ledger();
        acknowledged(&mut ledger, Change::Set, 0);
        let retried = ledger.send(KEY, Change::Set, Millis(10));
        ledger.retry(KEY);
        ledger.acknowledge(KEY, Millis(12));
        assert_eq!(read(&mut ledger, None, 20), Some(Fault::Lost));
        acknowledged(&mut ledger, Change::Set, 30);
        assert_eq!(read(&mut ledger, Some(retried), 40), None);
    }

    #[test]
    fn faults_are_counted_once_a_key_with_their_story() {
        let mut ledger = ledger();
        acknowledged(&mut ledger, Change::Set, 0);
        read(&mut ledger, None, 10);
        read(&mut ledger, None, 20);
        assert_eq!((ledger.count(Fault::Lost), ledger.count(Fault::Stale)), (1, 0));
        let story = &ledger.stories(5)[0];
        assert!(story.contains("k0: a read from 10 ms to 11 ms found nothing"), "{story}");
        assert!(story.contains("set 1 sent at 0 ms, answered at 1 ms"), "{story}");
    }
}
