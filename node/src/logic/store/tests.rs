//! A store against a plain model, and its promises to scans and eviction.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::logic::cluster::table::PartitionEpoch;

type Model = BTreeMap<(Bytes, Bytes), (Bytes, Option<Millis>, Version)>;

fn version(sequence: u64) -> Version {
    Version { epoch: PartitionEpoch(7), sequence }
}

fn bytes(text: &str) -> Bytes {
    Bytes::copy_from_slice(text.as_bytes())
}

fn put(map: &str, key: &str, value: &str, expires: Option<u64>) -> Op {
    Op::Put { map: bytes(map), key: bytes(key), value: bytes(value), expires: expires.map(Millis) }
}

fn remove(map: &str, key: &str) -> Op {
    Op::Remove { map: bytes(map), key: bytes(key), cause: Cause::Deleted }
}

/// Keys and maps that run together differently (`a` + `bc`, `ab` + `c`) and repeat often.
fn ops() -> impl Strategy<Value = Op> {
    let name = || prop::sample::select(vec!["", "a", "ab", "b"]);
    let key = || prop_oneof![prop::sample::select(vec!["", "c", "bc", "b"]).prop_map(str::to_owned), "[a-d]{1,2}"];
    prop_oneof![
        8 => (name(), key(), "[a-z]{0,9}", prop::option::of(0..50_u64)).prop_map(|(m, k, v, e)| put(m, &k, &v, e)),
        4 => (name(), key()).prop_map(|(map, key)| remove(map, &key)),
        1 => prop::option::weighted(0.8, name()).prop_map(|map| Op::Clear { map: map.map(bytes) }),
    ]
}

fn ways() -> impl Strategy<Value = Eviction> {
    prop::sample::select(vec![Eviction::Auto, Eviction::Lru, Eviction::Lfu])
}

fn apply(model: &mut Model, op: &Op, version: Version) {
    match op.clone() {
        Op::Put { map, key, value, expires } => {
            model.insert((map, key), (value, expires, version));
        }
        Op::Remove { map, key, .. } => {
            model.remove(&(map, key));
        }
        Op::Clear { map: Some(name) } => model.retain(|(map, _), _| *map != name),
        Op::Clear { map: None } => model.clear(),
    }
}

fn accounted(model: &Model) -> u64 {
    let entries = model.iter().map(|((_, key), (value, expires, version))| {
        let expires = expires.map_or(entry::NEVER, |at| at.0);
        Node::new(0, &Parts { map: MapId(0), key, value: NewValue::Elsewhere(value), expires, version: *version })
            .bytes()
    });
    let maps: BTreeSet<&Bytes> = model.keys().map(|(map, _)| map).collect();
    entries.sum::<u64>() + maps.iter().map(|map| map.len() as u64 + MAP_OVERHEAD).sum::<u64>()
}

fn all_records(store: &Store, max_bytes: usize) -> Vec<Record> {
    let (mut records, mut position) = (Vec::new(), Some(0));
    while let Some(from) = position {
        let (page, next) = store.read_from(from, max_bytes);
        assert!(!page.is_empty() || next.is_none());
        assert!(next.is_none_or(|next| next > from), "the walk stands still");
        records.extend(page);
        position = next;
    }
    records
}

/// Map and key of a change of one entry.
fn name(op: &Op) -> Option<(&Bytes, &Bytes)> {
    match op {
        Op::Put { map, key, .. } | Op::Remove { map, key, .. } => Some((map, key)),
        Op::Clear { .. } => None,
    }
}

/// Where the entry of a change stands or would, as looking ahead finds it.
fn seen(store: &Store, op: &Op) -> Option<Spot> {
    let (map, key) = name(op)?;
    Some(store.prefetch_entry(Spot::new(Order::new(3, map).position(key))))
}

proptest! {
    #[test]
    fn a_store_is_its_model(ops in prop::collection::vec(ops(), 0..120), now in 0..60_u64) {
        let now = Millis(now);
        let (mut store, mut model, mut plain) = (Store::new(3), Model::new(), Store::new(3));
        // Of the next change, looked for before this one: it may no longer stand there.
        let mut spot = None;
        for (sequence, op) in ops.iter().enumerate() {
            let next = ops.get(sequence + 1).and_then(|op| seen(&store, op));
            let mut change = op.change();
            if let Change::Put { key, .. } | Change::Remove { key, .. } = &mut change
                && let (Some(spot), Some((_, bytes))) = (spot, name(op))
            {
                *key = Key::at(bytes, spot);
            }
            spot = next;
            store.change(&change, version(sequence as u64));
            plain.apply(op, version(sequence as u64));
            apply(&mut model, op, version(sequence as u64));
            prop_assert_eq!(store.len(), model.len());
            prop_assert_eq!((store.bytes(), plain.bytes()), (accounted(&model), accounted(&model)));
            prop_assert_eq!((store.digest(), store.expiring()), (plain.digest(), plain.expiring()));
        }
        for ((map, key), (value, expires, version)) in &model {
            let expected = Some((value.clone(), *expires, *version)).filter(|_| expires.is_none_or(|at| at >= now));
            let seen = |entry: Entry<'_>| (entry.value().to_bytes(), entry.expires(), entry.version());
            let placed = Key::at(key, store.prefetch_entry(Spot::new(Order::new(3, map).position(key))));
            prop_assert_eq!(store.peek(map, &key[..], now).map(seen), expected.clone());
            prop_assert_eq!(store.get(map, &key[..], now).map(seen), expected.clone());
            prop_assert_eq!(store.get(map, placed, now).map(seen), expected);
        }
        for map in ["", "a", "ab", "b", "c"] {
            prop_assert_eq!(store.map_len(map.as_bytes()), model.keys().filter(|(name, _)| name == map).count());
            if !model.contains_key(&(bytes(map), bytes("x"))) {
                prop_assert!(store.peek(map.as_bytes(), b"x", now).is_none());
            }
        }
        prop_assert_eq!(store.expiring(), model.values().filter(|(_, expires, _)| expires.is_some()).count());
        let due: BTreeSet<_> = store.expired(now, usize::MAX).into_iter().collect();
        let over = model.iter().filter(|(_, (_, expires, _))| expires.is_some_and(|at| at < now));
        prop_assert_eq!(due, over.map(|(name, _)| name.clone()).collect());
        prop_assert!(store.expired(now, 1).len() <= 1);
    }

    #[test]
    fn a_copy_read_in_pages_equals_the_original(ops in prop::collection::vec(ops(), 0..80), page in 0..400_usize) {
        let mut store = Store::new(9);
        for (sequence, op) in ops.iter().enumerate() {
            store.apply(op, version(sequence as u64));
        }
        let mut copy = Store::new(9);
        let records = all_records(&store, page);
        prop_assert_eq!(records.len(), store.len());
        for record in &records {
            copy.apply(&record.op, record.version);
        }
        prop_assert_eq!(all_records(&copy, usize::MAX), all_records(&store, usize::MAX));
        prop_assert_eq!(copy.bytes(), store.bytes());
        prop_assert_eq!(copy.digest(), store.digest());
        // One entry more, less, or of another version shows, and so does one that expires.
        for record in &records {
            let Op::Put { map, key, value, expires } = &record.op else { panic!("{record:?}") };
            let changed = Op::Put { map: map.clone(), key: key.clone(), value: value.clone(), expires: expires.xor(Some(Millis(9))) };
            let later = Version { sequence: record.version.sequence + 1, ..record.version };
            let gone = Op::Remove { map: map.clone(), key: key.clone(), cause: Cause::Deleted };
            for (op, version) in [(&gone, record.version), (&record.op, later), (&changed, record.version)] {
                copy.apply(op, version);
                prop_assert_eq!(copy.digest() == store.digest(), op == &record.op && version == record.version);
                copy.apply(&record.op, record.version);
                prop_assert_eq!(copy.digest(), store.digest());
            }
        }
        copy.apply(&Op::Clear { map: None }, version(0));
        prop_assert_eq!(copy.digest(), 0);
    }

    #[test]
    fn a_walk_meets_every_key_that_stays(
        stay in 1..60_usize, count in 1..7_usize, churn in prop::collection::vec((any::<bool>(), 0..400_u32), 0..200))
    {
        let mut store = Store::new(5);
        for i in 0..stay {
            store.apply(&put("m", &format!("stay{i}"), "v", None), version(0));
            store.apply(&put("other", &format!("stay{i}"), "v", None), version(0));
        }
        let (mut met, mut records, mut position, mut from) = (BTreeSet::new(), BTreeSet::new(), Some(0), Some(0));
        let mut churn = churn.into_iter();
        while position.is_some() || from.is_some() {
            if let Some(at) = position {
                let (keys, next) = store.scan(b"m", at, count, Millis(0));
                met.extend(keys);
                position = next;
            }
            if let Some(at) = from {
                let (page, next) = store.read_from(at, count * 200);
                records.extend(page.into_iter().map(|record| match record.op {
                    Op::Put { map, key, .. } => (map, key),
                    other => panic!("{other:?}"),
                }));
                from = next;
            }
            // Grows and shrinks the table between the steps.
            for (add, i) in churn.by_ref().take(40) {
                let key = format!("churn{i}");
                store.apply(&if add { put("m", &key, "v", None) } else { remove("m", &key) }, version(1));
            }
        }
        for i in 0..stay {
            let key = bytes(&format!("stay{i}"));
            prop_assert!(met.contains(&key));
            prop_assert!(records.contains(&(bytes("m"), key.clone())));
            prop_assert!(records.contains(&(bytes("other"), key)));
        }
    }

    #[test]
    fn an_eviction_frees_enough_or_all(
        sizes in prop::collection::vec(0..500_usize, 0..400), want in 0..40_000_u64, how in ways(), random: u64)
    {
        let mut store = Store::new(1);
        for (i, size) in sizes.iter().enumerate() {
            let expires = (i % 3 == 0).then_some(i as u64);
            store.apply(&put("m", &i.to_string(), &"x".repeat(*size), expires), version(0));
        }
        let mut copy = Store::new(1);
        for record in all_records(&store, usize::MAX) {
            copy.apply(&record.op, record.version);
        }
        let (before, mut removed) = (store.bytes(), Vec::new());
        let count = store.evict(want, how, random, |map, key| removed.push((map.clone(), Bytes::copy_from_slice(key))));
        prop_assert_eq!(count, removed.len());
        prop_assert!(before - store.bytes() >= want || store.is_empty());
        // What a copy hears is what was done.
        for (map, key) in removed {
            prop_assert!(copy.peek(&map, &key[..], Millis(0)).is_some());
            copy.apply(&Op::Remove { map, key, cause: Cause::Evicted }, version(1));
        }
        prop_assert_eq!((copy.bytes(), copy.digest()), (store.bytes(), store.digest()));
        prop_assert_eq!(all_records(&copy, usize::MAX), all_records(&store, usize::MAX));
        // No more than was needed, and what goes at a time.
        let largest = 1000;
        prop_assert!(before - store.bytes() < want.max(AHEAD) + largest || want == 0);
    }
}

#[test]
#[cfg_attr(miri, ignore = "minutes of steps")]
fn what_is_discarded_is_freed_step_by_step() {
    let mut store = Store::new(7);
    store.empty();
    assert!(store.take_discarded().is_empty());
    for number in 0..10_000_u64 {
        store.apply(&put("m", &number.to_string(), "v", None), version(number + 1));
    }
    store.apply(&Op::Clear { map: None }, version(10_001));
    assert!(store.is_empty());
    let mut discarded = store.take_discarded().pop().expect("entries");
    let steps = std::iter::from_fn(|| discarded.free(100).then_some(())).count();
    // Lists go as wholes.
    assert!((50..=100).contains(&steps), "{steps}");
    assert!(!discarded.free(100));
}

#[test]
fn an_entry_lives_in_the_millisecond_of_its_deadline() {
    let mut store = Store::new(0);
    store.apply(&put("m", "k", "v", Some(10)), version(1));
    assert!(store.peek(b"m", b"k", Millis(10)).is_some());
    assert!(store.expired(Millis(10), 9).is_empty());
    assert!(store.peek(b"m", b"k", Millis(11)).is_none());
    assert_eq!(store.expired(Millis(11), 9), [(bytes("m"), bytes("k"))]);
    assert_eq!(store.average_ttl(Millis(4)), 6);
}

/// A store of 2000 entries, `n0` to `n1999`.
fn full() -> Store {
    let mut store = Store::new(2);
    for i in 0..2000 {
        store.apply(&put("m", &format!("n{i}"), "v", None), version(0));
    }
    store
}

fn uses(store: &mut Store, numbers: impl IntoIterator<Item = u64>) {
    for i in numbers {
        assert!(store.get(b"m", format!("n{i}").as_bytes(), Millis(0)).is_some());
    }
}

fn kept(store: &Store, numbers: impl Iterator<Item = u64>) -> usize {
    numbers.filter(|i| store.peek(b"m", format!("n{i}").as_bytes(), Millis(0)).is_some()).count()
}

/// Adds entries that nobody asks for again, and keeps to the bytes that there are.
fn scan(store: &mut Store, count: u64, how: Eviction) {
    let limit = store.bytes();
    for i in 0..count {
        store.apply(&put("m", &format!("s{i}"), "v", None), version(0));
        store.evict(store.bytes().saturating_sub(limit), how, i, |_, _| ());
        assert!(store.bytes() <= limit && store.bytes() + 4 * AHEAD > limit);
    }
}

#[test]
#[cfg_attr(miri, ignore = "minutes of steps")]
fn what_was_used_lately_stays() {
    for how in [Eviction::Auto, Eviction::Lru, Eviction::Lfu] {
        let mut store = full();
        uses(&mut store, 0..1000);
        for random in 0..30 {
            store.evict(store.bytes() / 100, how, random, |_, _| ());
        }
        let (used, unused) = (kept(&store, 0..1000), kept(&store, 1000..2000));
        assert!(used > 950 && unused < 700, "{how:?}: {used} of those that were used, {unused} of the others");
    }
}

#[test]
#[cfg_attr(miri, ignore = "minutes of steps")]
fn what_is_used_often_outlives_a_scan_unless_the_longest_unused_goes() {
    for (how, outlives) in [(Eviction::Auto, true), (Eviction::Lfu, true), (Eviction::Lru, false)] {
        let mut store = full();
        uses(&mut store, (0..1000).cycle().take(4000));
        scan(&mut store, 8000, how);
        let used = kept(&store, 0..1000);
        assert!(if outlives { used > 900 } else { used < 50 }, "{how:?}: {used} of 1000 that were used often");
    }
}

#[test]
#[cfg_attr(miri, ignore = "minutes of steps")]
fn under_lru_the_latest_stay_however_often_others_were_used() {
    let mut store = full();
    uses(&mut store, (0..1000).cycle().take(8000));
    uses(&mut store, 1000..2000);
    scan(&mut store, 1000, Eviction::Lru);
    let (often, lately) = (kept(&store, 0..1000), kept(&store, 1000..2000));
    assert!(lately > 850 && often < 250, "{lately} that were used lately, {often} that were used often");
}

#[test]
#[cfg_attr(miri, ignore = "minutes of steps")]
fn what_comes_back_is_told_from_what_comes_once() {
    for (how, told) in [(Eviction::Lfu, true), (Eviction::Lru, false)] {
        let mut store = full();
        let limit = store.bytes();
        // A hundred are written again and again, never read, and gone before they come back.
        for i in 0..20_000 {
            let key = if i % 20 == 0 { format!("n{}", i / 20 % 100) } else { format!("s{i}") };
            store.apply(&put("m", &key, "v", None), version(0));
            store.evict(store.bytes().saturating_sub(limit / 4), how, i, |_, _| ());
        }
        let back = kept(&store, 0..100);
        assert!(if told { back > 80 } else { back < 50 }, "{how:?}: {back} of 100 that come back");
    }
}

#[test]
fn values_pin_no_read_buffer() {
    let mut store = Store::new(2);
    let buffer = Bytes::from(vec![b'x'; 1 << 16]);
    let value = buffer.slice(..4);
    store.apply(&Op::Put { map: bytes("m"), key: bytes("k"), value, expires: None }, version(0));
    assert!(buffer.is_unique());
}
