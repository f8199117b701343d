//! Mirrors of hot remote keys: for a moment a member answers a `GET` with the value that the primary gave it before (rule
//! C4).
//!
//! A mirror lives from the moment that its forward was *sent*, so what it answers was the key's value at most that long
//! ago; and never beyond the value's own time. It ends with everything else that passes through this member and names its
//! key, writes and reads alike. Forwards of a partition are executed in the order of their numbers (rule F2), so an answer
//! only becomes a mirror while nothing with a higher number has passed or was answered for its key: whoever asks one member
//! sees its own writes, and never something older than it saw there before.
//!
//! A primary remembers for a moment whom it has allowed mirrors of which key, and tells them when a command changes it, once
//! in the life of a mirror. So a change of a key that seldom changes is seen as soon as a message gets there. That is best
//! effort, and nothing rests on it: what it does not reach ends with its time.
//!
//! A mirror is of one epoch of its partition; under another it is not used. With a read quorum above 1 there are none.
//!
//! Keys are watched in sets of a fixed size, each key with its reads of the last two windows; the coldest makes room. Seen
//! often, in a set through which some hundred other keys pass, is what hot means here, so nothing finer is needed. This is
//! not moka, which reads a clock of its own: here time is an argument.

use std::{
    sync::atomic::{AtomicU64, AtomicUsize, Ordering},
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;

use super::{Ask, Effects, MemberName, Millis, Node, Origin, Partition, Replica, Reply, Routing, requests::Request};
use crate::logic::{
    cluster::{message::Message, table::PartitionEpoch},
    commands::{Access, table},
    resp::Straight,
    store::mix,
};

/// Keys are watched in so many sets.
const SETS: usize = 128;
/// Keys in one set.
const WAYS: usize = 8;
/// Reads are counted in windows of so many milliseconds: as long as a mirror lives at most.
const WINDOW: u64 = 100;
/// Longer values are not mirrored.
const MAX_VALUE: usize = 64 << 10;
/// Bytes of all mirrors.
const MAX_BYTES: usize = 4 << 20;
/// Mirrors of one partition that its primary remembers.
const MOST_GIVEN: usize = 64;
/// Counted for a mirror beside key and value.
const OVERHEAD: usize = 128;

/// Whether and which keys are mirrored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Mirroring {
    /// How long a mirror lives; zero: there are none.
    pub lasts: Duration,
    /// A key is hot from so many reads on in this window and the one before.
    pub hot_reads: u32,
}

impl Mirroring {
    /// Fewer than 50 reads a second are no burden for a primary, and a mirror would take 10 of them a second all the same.
    pub const HOT_READS: u32 = 10;
}

/// What is known of a key that a client reads.
pub(super) enum Seen {
    /// Its value, of a moment ago.
    Mirrored(Bytes),
    /// The primary should be asked for a mirror.
    Hot,
    Cold,
}

/// A read that was passed on.
pub(super) struct Sent {
    /// Its place among all that this member has passed on.
    number: u64,
    at: Millis,
    epoch: PartitionEpoch,
}

pub(super) struct Mirrors {
    config: Mirroring,
    sets: Box<[Mutex<Set>]>,
    /// By partition: what was read before this number is void, because all keys were removed.
    cleared: Box<[AtomicU64]>,
    /// By partition: who may have mirrors of its keys, as far as this member is its primary.
    given: Box<[Mutex<Vec<Given>>]>,
    bytes: AtomicUsize,
    hits: AtomicU64,
}

/// A mirror that another member may have.
struct Given {
    hash: u64,
    to: MemberName,
    until: Millis,
    /// It was told of a change and is not told again before then.
    quiet: Millis,
}

#[derive(Default)]
struct Set {
    keys: Vec<Watched>,
    /// Highest number of what passed for keys that are not watched.
    last: u64,
}

/// A key, by its hash: two that share one also share what ends their mirrors.
struct Watched {
    hash: u64,
    window: u64,
    reads: u32,
    /// In the window before.
    before: u32,
    /// Highest number of what passed or was answered.
    last: u64,
    mirror: Option<Mirror>,
}

struct Mirror {
    key: Bytes,
    value: Bytes,
    epoch: PartitionEpoch,
    number: u64,
    until: Millis,
}

impl Mirror {
    fn bytes(&self) -> usize {
        self.key.len() + self.value.len() + OVERHEAD
    }
}

impl Watched {
    fn heat(&self, window: u64) -> u32 {
        match window.saturating_sub(self.window) {
            0 => self.reads.saturating_add(self.before),
            1 => self.reads,
            _ => 0,
        }
    }

    fn count(&mut self, window: u64) {
        if window > self.window {
            self.before = if window - self.window == 1 { self.reads } else { 0 };
            (self.window, self.reads) = (window, 0);
        }
        self.reads = self.reads.saturating_add(1);
    }
}

impl Set {
    fn find(&mut self, hash: u64) -> Option<&mut Watched> {
        self.keys.iter_mut().find(|watched| watched.hash == hash)
    }

    /// Watches a key from now on, in place of the coldest one.
    fn watch(&mut self, hash: u64, window: u64) -> (&mut Watched, Option<Mirror>) {
        if let Some(at) = self.keys.iter().position(|watched| watched.hash == hash) {
            return (&mut self.keys[at], None);
        }
        let coldest = self.keys.iter().enumerate().min_by_key(|(_, watched)| (watched.heat(window), watched.window));
        let coldest = coldest.map(|(at, _)| at).filter(|_| self.keys.len() >= WAYS);
        let former = coldest.map(|at| self.keys.swap_remove(at));
        if let Some(former) = &former {
            self.last = self.last.max(former.last);
        }
        let at = self.keys.len();
        self.keys.push(Watched { hash, window, reads: 0, before: 0, last: self.last, mirror: None });
        (&mut self.keys[at], former.and_then(|former| former.mirror))
    }
}

impl Mirrors {
    pub(super) fn new(config: Mirroring, partitions: u16) -> Self {
        let on = !config.lasts.is_zero();
        Self {
            config,
            sets: (0..if on { SETS } else { 0 }).map(|_| Mutex::default()).collect(),
            cleared: (0..if on { partitions } else { 0 }).map(|_| AtomicU64::new(0)).collect(),
            given: (0..if on { partitions } else { 0 }).map(|_| Mutex::default()).collect(),
            bytes: AtomicUsize::new(0),
            hits: AtomicU64::new(0),
        }
    }

    fn is_on(&self) -> bool {
        !self.sets.is_empty()
    }

    fn set(&self, hash: u64) -> &Mutex<Set> {
        &self.sets[hash as usize % SETS]
    }

    /// A client reads a key.
    fn read(&self, (partition, epoch): (Partition, PartitionEpoch), key: &[u8], now: Millis) -> Seen {
        let (hash, window) = (hash(key), now.0 / WINDOW);
        let mut set = self.set(hash).lock();
        let (watched, former) = set.watch(hash, window);
        self.freed(former);
        watched.count(window);
        let current = |mirror: &&Mirror| {
            mirror.key == key
                && mirror.epoch == epoch
                && now < mirror.until
                && mirror.number > self.cleared[partition.index()].load(Ordering::Acquire)
        };
        if let Some(mirror) = watched.mirror.as_ref().filter(current) {
            self.hits.fetch_add(1, Ordering::Relaxed);
            return Seen::Mirrored(mirror.value.clone());
        }
        if watched.heat(window) >= self.config.hot_reads { Seen::Hot } else { Seen::Cold }
    }

    /// A request is passed on under this number: what is known of its keys ends, unless it is a `GET`.
    pub(super) fn passes(&self, request: &Request, number: u64, epoch: PartitionEpoch, at: Millis) -> Option<Sent> {
        let command = request.words.first().filter(|_| self.is_on()).and_then(|name| table::find(name))?;
        if command.is_get() && request.words.len() == 2 {
            return Some(Sent { number, at, epoch });
        }
        let mut keys = command.keys_in(&request.words).peekable();
        if keys.peek().is_none() && command.access == Access::Write {
            self.clear(request.partition, number);
        }
        for key in keys {
            self.learn(key, number, None);
        }
        None
    }

    /// All mirrors of a partition end that were read before this number.
    fn clear(&self, partition: Partition, number: u64) {
        self.cleared[partition.index()].fetch_max(number, Ordering::AcqRel);
    }

    /// A read was answered. With a mirror's value and time, if the primary gave it one and nothing speaks against it.
    fn answered(&self, key: &[u8], sent: &Sent, given: Option<(&Bytes, u64)>) {
        let mirror = given.filter(|(value, _)| value.len() <= MAX_VALUE).map(|(value, millis)| Mirror {
            key: Bytes::copy_from_slice(key),
            // Not the frame that it came in.
            value: Bytes::copy_from_slice(value),
            epoch: sent.epoch,
            number: sent.number,
            until: sent.at + self.config.lasts.min(Duration::from_millis(millis)),
        });
        self.learn(key, sent.number, mirror);
    }

    /// Something with this number passed or was answered for a key; from now on it has this mirror, or none.
    fn learn(&self, key: &[u8], number: u64, mirror: Option<Mirror>) {
        let hash = hash(key);
        let mut set = self.set(hash).lock();
        let Some(watched) = set.find(hash) else {
            set.last = set.last.max(number);
            return;
        };
        if number < watched.last {
            return;
        }
        watched.last = number;
        self.freed(watched.mirror.take());
        if let Some(mirror) = mirror {
            let bytes = mirror.bytes();
            if self.bytes.fetch_add(bytes, Ordering::Relaxed) + bytes <= MAX_BYTES {
                watched.mirror = Some(mirror);
            } else {
                self.bytes.fetch_sub(bytes, Ordering::Relaxed);
            }
        }
    }

    /// Another member may mirror a key of this one until then.
    fn gives(&self, partition: Partition, key: &[u8], to: &MemberName, until: Millis) {
        let mut given = self.given[partition.index()].lock();
        let hash = hash(key);
        if let Some(known) = given.iter_mut().find(|given| given.hash == hash && given.to == *to) {
            known.until = known.until.max(until);
            return;
        }
        if given.len() == MOST_GIVEN {
            // The oldest one ends with its time.
            given.remove(0);
        }
        given.push(Given { hash, to: to.clone(), until, quiet: Millis::default() });
    }

    /// Who may have mirrors of a key, or of any, at this moment, and is to be told that it has changed: once in the life of a
    /// mirror, or a key that is written all the time would be mirrored no more.
    fn taken_back(&self, partition: Partition, key: Option<&[u8]>, now: Millis) -> Vec<MemberName> {
        let mut given = self.given[partition.index()].lock();
        if given.is_empty() {
            return Vec::new();
        }
        given.retain(|given| now < given.until.max(given.quiet));
        let (hash, mut to) = (key.map(hash), Vec::new());
        for given in given.iter_mut().filter(|given| hash.is_none_or(|hash| given.hash == hash)) {
            if now < given.until && now >= given.quiet {
                given.quiet = now + self.config.lasts;
                to.push(given.to.clone());
            }
        }
        to.sort();
        to.dedup();
        to
    }

    fn freed(&self, mirror: Option<Mirror>) {
        if let Some(mirror) = mirror {
            self.bytes.fetch_sub(mirror.bytes(), Ordering::Relaxed);
        }
    }

    /// Time passes: gives back what mirrors took whose time is over.
    pub(super) fn tick(&self, now: Millis) {
        if self.bytes.load(Ordering::Relaxed) == 0 {
            return;
        }
        for set in &self.sets {
            for watched in &mut set.lock().keys {
                self.freed(watched.mirror.take_if(|mirror| now >= mirror.until));
            }
        }
    }

    /// Reads that mirrors have answered.
    pub(super) fn hits(&self) -> u64 {
        self.hits.load(Ordering::Relaxed)
    }
}

impl Node {
    /// Whether a mirror answers a command whose primary is elsewhere.
    pub(super) fn seen(&self, routing: &Routing, ask: Ask<'_>, now: Millis) -> Seen {
        let Ask { command, partition, words, settled, .. } = ask;
        let [_, key] = words else { return Seen::Cold };
        // What waits may be a write of the same client.
        if !self.mirrors.is_on() || !command.is_get() || !settled || !self.waiting.is_empty(partition) {
            return Seen::Cold;
        }
        let Some(table) = routing.table.as_ref().filter(|table| table.live.read_quorum <= 1) else { return Seen::Cold };
        let assignment = table.assignment(partition);
        if assignment.primary() == routing.me {
            return Seen::Cold;
        }
        self.mirrors.read((partition, assignment.epoch), key, now)
    }

    /// Milliseconds for which whoever asked may mirror an answer; 0: not at all. Remembers who that is. To be asked before
    /// the partition changes.
    pub(super) fn may_be_mirrored(&self, replica: &Replica, ask: Ask<'_>, origin: &Origin, now: Millis) -> u64 {
        let ([_, key], Origin::Peer { name, .. }) = (ask.words, origin) else { return 0 };
        if !self.mirrors.is_on() || !ask.command.is_get() || !replica.answers_reads_at_once() {
            return 0;
        }
        let entry = replica.store.peek(&self.default_map, *key, now);
        let Some(entry) = entry.filter(|entry| entry.value().len() <= MAX_VALUE) else { return 0 };
        let left = entry.expires().map_or(u64::MAX, |at| at.since(now));
        let millis = left.min(self.config.mirroring.lasts.as_millis() as u64);
        self.mirrors.gives(ask.partition, key, name, now + Duration::from_millis(millis));
        millis
    }

    /// A command has changed what is here: tells whoever may mirror it.
    pub(super) fn end_mirrors(
        &self,
        Ask { command, partition, words, .. }: Ask<'_>,
        now: Millis,
        effects: &mut Effects,
    ) {
        if !self.mirrors.is_on() {
            return;
        }
        let mut keys = command.keys_in(words).map(|key| Some(*key)).peekable();
        let all = if keys.peek().is_none() { Some(None) } else { None };
        for changed in keys.chain(all) {
            for to in self.mirrors.taken_back(partition, changed, now) {
                let key = changed.map(Bytes::copy_from_slice);
                self.send(&to, Message::MirrorsEnd { partition, key }, effects);
            }
        }
    }

    /// A primary says that a key has changed, or all have.
    pub(super) fn mirrors_end(&self, partition: Partition, key: Option<&[u8]>) {
        if !self.mirrors.is_on() || partition.index() >= self.replicas.len() {
            return;
        }
        // What was asked before may have been answered before the change.
        let last = self.forwards.lock().last_number();
        match key {
            Some(key) => self.mirrors.learn(key, last + 1, None),
            None => self.mirrors.clear(partition, last),
        }
    }

    /// A read that was passed on is answered, with the milliseconds for which it may be mirrored.
    pub(super) fn read_answered(&self, request: &Request, sent: &Sent, reply: &Reply, millis: u64) {
        let Some(key) = request.words.get(1) else { return };
        let routing = self.routing.load();
        let same = routing.table.as_ref().is_some_and(|table| table.assignment(request.partition).epoch == sent.epoch);
        let given = match reply {
            Reply::Bulk(value) if same && millis > 0 && request.hot => Some((value, millis)),
            _ => None,
        };
        self.mirrors.answered(key, sent, given);
    }

    /// Reads of clients that mirrors have answered.
    pub fn mirror_hits(&self) -> u64 {
        self.mirrors.hits()
    }
}

/// A mirror's answer.
pub(super) fn reply(value: Bytes, straight: Option<Straight<'_>>) -> Reply {
    let Some(mut straight) = straight else { return Reply::Bulk(value) };
    straight.shared(&value);
    Reply::Written
}

fn hash(key: &[u8]) -> u64 {
    let word = |part: &[u8]| part.iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    key.chunks(8).fold(mix(key.len() as u64), |hash, part| mix(hash ^ word(part)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const EPOCH: PartitionEpoch = PartitionEpoch(1);
    const NOW: Millis = Millis(10_000);

    fn mirrors() -> Mirrors {
        Mirrors::new(Mirroring { lasts: Duration::from_millis(100), hot_reads: 2 }, 1)
    }

    fn fill(mirrors: &Mirrors, key: &[u8], value: &Bytes, number: u64) -> bool {
        mirrors.read((Partition(0), EPOCH), key, NOW);
        mirrors.answered(key, &Sent { number, at: NOW, epoch: EPOCH }, Some((value, 100)));
        matches!(mirrors.read((Partition(0), EPOCH), key, NOW), Seen::Mirrored(found) if found == value)
    }

    #[test]
    fn bytes_stay_within_their_bound_and_are_given_back() {
        let (mirrors, value) = (mirrors(), Bytes::from(vec![0; MAX_VALUE]));
        let held = |watched: &Watched| watched.mirror.as_ref().map_or(0, Mirror::bytes);
        assert!(!fill(&mirrors, b"too long", &Bytes::from(vec![0; MAX_VALUE + 1]), 1));
        let filled = (0..500_u64).filter(|key| fill(&mirrors, &key.to_be_bytes(), &value, 1)).count();
        let of_set = |set: &Mutex<Set>| set.lock().keys.iter().map(held).sum::<usize>();
        let bytes = || mirrors.sets.iter().map(of_set).sum::<usize>();
        assert!(filled > 0 && filled < 500, "{filled}");
        assert_eq!(mirrors.bytes.load(Ordering::Relaxed), bytes());
        assert!(bytes() <= MAX_BYTES);
        mirrors.tick(NOW + Duration::from_millis(99));
        assert!(mirrors.bytes.load(Ordering::Relaxed) > 0);
        mirrors.tick(NOW + Duration::from_millis(100));
        assert_eq!(mirrors.bytes.load(Ordering::Relaxed), 0);
        assert!(fill(&mirrors, b"again", &value, 2));
    }

    #[test]
    fn a_primary_remembers_some_mirrors_until_they_end_by_themselves() {
        let (mirrors, at) = (mirrors(), Partition(0));
        let name = |number: u64| MemberName::from(format!("member-{}", number % 3).as_str());
        let key = |number: u64| number.to_be_bytes();
        let all = 2 * MOST_GIVEN as u64;
        for number in 0..all {
            let until = NOW + Duration::from_millis(number);
            mirrors.gives(at, &key(number), &name(number), until);
            mirrors.gives(at, &key(number), &name(number), until);
        }
        assert_eq!(mirrors.given[0].lock().len(), MOST_GIVEN);
        let told = |number: u64, now| mirrors.taken_back(at, Some(&key(number)), now);
        assert_eq!(told(1, NOW), [], "the oldest ones are forgotten");
        assert_eq!(told(all - 1, NOW), [name(all - 1)]);
        assert_eq!(told(all - 1, NOW), [], "once");
        mirrors.gives(at, &key(all - 1), &name(all - 1), NOW + Duration::from_millis(all + 50));
        assert_eq!(told(all - 1, NOW + Duration::from_millis(99)), [], "in the life of a mirror");
        assert_eq!(told(all - 1, NOW + Duration::from_millis(100)), [name(all - 1)]);
        mirrors.gives(at, &key(all), &name(0), NOW + Duration::from_millis(all));
        mirrors.gives(at, &key(all), &name(1), NOW + Duration::from_millis(all));
        assert_eq!(told(all, NOW), [name(0), name(1)]);
        let late = NOW + Duration::from_millis(all - 3);
        assert_eq!(mirrors.taken_back(at, None, late), [name(0), name(1)], "the others have ended or know");
        assert_eq!(mirrors.taken_back(at, None, late + Duration::from_secs(1)), []);
        assert!(mirrors.given[0].lock().is_empty());
    }

    #[test]
    fn an_answer_is_ignored_after_a_later_one() {
        let (mirrors, value) = (mirrors(), Bytes::from_static(b"value"));
        assert!(fill(&mirrors, b"key", &value, 5));
        assert!(!fill(&mirrors, b"key", &Bytes::from_static(b"older"), 4));
        assert!(fill(&mirrors, b"key", &value, 6));
        mirrors.answered(b"key", &Sent { number: 7, at: NOW, epoch: EPOCH }, None);
        assert!(!fill(&mirrors, b"key", &value, 6));
    }

    #[test]
    fn what_passed_for_a_key_is_remembered_when_others_take_its_place() {
        let (mirrors, value) = (mirrors(), Bytes::from_static(b"value"));
        mirrors.learn(b"key", 5, None);
        assert!(!fill(&mirrors, b"key", &value, 4), "it was not watched");
        assert!(fill(&mirrors, b"key", &value, 6));
        for other in 0..10_000_u64 {
            for _ in 0..9 {
                mirrors.read((Partition(0), EPOCH), &other.to_be_bytes(), NOW + Duration::from_millis(100));
            }
        }
        assert!(
            matches!(mirrors.read((Partition(0), EPOCH), b"key", NOW), Seen::Cold | Seen::Hot),
            "its place is gone"
        );
        assert!(!fill(&mirrors, b"key", &value, 5));
        assert!(fill(&mirrors, b"key", &value, 7));
    }

    #[test]
    fn a_hot_key_keeps_its_place_among_many_cold_ones() {
        let (mirrors, mut hot) = (mirrors(), 0);
        for round in 0..1000_u64 {
            let now = NOW + Duration::from_millis(round * 5);
            hot += u64::from(!matches!(mirrors.read((Partition(0), EPOCH), b"hot", now), Seen::Cold));
            for other in 0..200_u64 {
                mirrors.read((Partition(0), EPOCH), &(round * 1000 + other).to_be_bytes(), now);
            }
        }
        assert!(hot > 950, "{hot}");
    }
}
