//! A store against a plain model, and its promises to scans and eviction.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::{maps::MapId, *};
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

proptest! {
    #[test]
    fn a_store_is_its_model(ops in prop::collection::vec(ops(), 0..120), now in 0..60_u64) {
        let now = Millis(now);
        let (mut store, mut model) = (Store::new(3), Model::new());
        for (sequence, op) in ops.iter().enumerate() {
            store.apply(op, version(sequence as u64));
            apply(&mut model, op, version(sequence as u64));
            prop_assert_eq!(store.len(), model.len());
            prop_assert_eq!(store.bytes(), accounted(&model));
        }
        for ((map, key), (value, expires, version)) in &model {
            let entry = Some(Entry { value: Value::Inside(value), expires: *expires, version: *version });
            let entry = entry.filter(|_| expires.is_none_or(|at| at >= now));
            prop_assert_eq!(store.peek(map, key, now), entry);
            prop_assert_eq!(store.get(map, key, now), entry);
        }
        for map in ["", "a", "ab", "b", "c"] {
            prop_assert_eq!(store.map_len(map.as_bytes()), model.keys().filter(|(name, _)| name == map).count());
            if !model.contains_key(&(bytes(map), bytes("x"))) {
                prop_assert_eq!(store.peek(map.as_bytes(), b"x", now), None);
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
    fn victims_free_enough_or_all(sizes in prop::collection::vec(0..500_usize, 0..200), want in 0..40_000_u64, random: u64) {
        let mut store = Store::new(1);
        for (i, size) in sizes.iter().enumerate() {
            store.apply(&put("m", &i.to_string(), &"x".repeat(*size), None), version(0));
        }
        let before = store.bytes();
        let victims = store.victims(want, random);
        prop_assert_eq!(victims.iter().collect::<BTreeSet<_>>().len(), victims.len());
        for (map, key) in victims {
            store.apply(&Op::Remove { map, key, cause: Cause::Evicted }, version(1));
        }
        prop_assert!(before - store.bytes() >= want || store.is_empty());
    }
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

#[test]
fn what_was_used_lately_stays() {
    let mut store = Store::new(2);
    for i in 0..2000 {
        store.apply(&put("m", &i.to_string(), "v", None), version(0));
    }
    for i in 0..1000 {
        assert!(store.get(b"m", i.to_string().as_bytes(), Millis(0)).is_some());
    }
    let mut random = 0;
    while store.len() > 1500 {
        random += 1;
        for (map, key) in store.victims(1000, random) {
            store.apply(&Op::Remove { map, key, cause: Cause::Evicted }, version(1));
        }
    }
    let used = (0..1000).filter(|i: &u32| store.peek(b"m", i.to_string().as_bytes(), Millis(0)).is_some()).count();
    assert!(used > 950, "{used} of 1000 entries that were used");
}

#[test]
fn what_is_used_often_outlives_a_scan() {
    let mut store = Store::new(2);
    for i in 0..2000 {
        store.apply(&put("m", &i.to_string(), "v", None), version(0));
    }
    for i in (0..1000).cycle().take(4000) {
        assert!(store.get(b"m", i.to_string().as_bytes(), Millis(0)).is_some());
    }
    let limit = store.bytes();
    for i in 0..5000 {
        store.apply(&put("m", &format!("scan{i}"), "v", None), version(0));
        for (map, key) in store.victims(store.bytes().saturating_sub(limit), i) {
            store.apply(&Op::Remove { map, key, cause: Cause::Evicted }, version(1));
        }
        assert!(store.bytes() <= limit);
    }
    let used = (0..1000).filter(|i: &u32| store.peek(b"m", i.to_string().as_bytes(), Millis(0)).is_some()).count();
    assert!(used > 900, "{used} of 1000 entries that were used often");
}

#[test]
fn values_pin_no_read_buffer() {
    let mut store = Store::new(2);
    let buffer = Bytes::from(vec![b'x'; 1 << 16]);
    let value = buffer.slice(..4);
    store.apply(&Op::Put { map: bytes("m"), key: bytes("k"), value, expires: None }, version(0));
    assert!(buffer.is_unique());
}
