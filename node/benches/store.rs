//! What an entry takes and what the store's work costs, without network: 256 partitions, keys of 16 bytes, values of
//! 100, keys in random order, one thread.
//!
//!     cargo bench --profile ci --workspace --bench store -- 5000000
//!     cargo bench --profile ci --workspace --bench store -- 5000000 expiring

#![allow(missing_docs, clippy::unwrap_used)]

use std::{fs, time::Duration};

use bytes::Bytes;
use mizuya_node::logic::{
    clock::Millis,
    cluster::table::{PartitionEpoch, Version},
    store::{Cause, Op, Store},
};
use mizuya_wire::settings::Eviction;
use nix::time::{ClockId, clock_gettime};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const PARTITIONS: usize = 256;
const KEY: usize = 16;
const VALUE: usize = 100;

struct Bench {
    stores: Vec<Store>,
    entries: u64,
    sequence: u64,
    /// Of all stores, and their limit, while entries are evicted.
    bytes: u64,
    limit: u64,
    map: Bytes,
    value: Bytes,
}

fn main() {
    let entries = std::env::args().find_map(|word| word.parse().ok()).unwrap_or(1_000_000);
    let stores = (0..PARTITIONS).map(|_| Store::new(42)).collect();
    let (map, value) = (Bytes::from_static(b"default"), Bytes::from(vec![b'v'; VALUE]));
    let mut bench = Bench { stores, entries, sequence: 0, bytes: 0, limit: 0, map, value };
    println!("{entries} entries of {} bytes, {PARTITIONS} partitions", KEY + VALUE);

    let expires = std::env::args().any(|word| word == "expiring");
    let expires = |i| expires.then(|| Millis(1_000_000 + shuffled(i, 3) % 60_000));

    let before = resident();
    measure("add", entries, |i| bench.put(i, expires(i)));
    bench.memory("beside key and value", before);
    measure("get, present", entries, |i| assert!(bench.get(shuffled(i, 1) % bench.entries)));
    measure("get, absent", entries, |i| assert!(!bench.get(bench.entries + i)));
    measure("put, present", entries, |i| bench.put(shuffled(i, 2) % bench.entries, expires(i)));
    measure("look for expired, none", entries, |i| {
        assert!(bench.stores[i as usize % PARTITIONS].expired(Millis(1000), 100).is_empty());
    });
    bench.bytes = bench.stores.iter().map(Store::bytes).sum();
    bench.limit = bench.bytes;
    measure("add, evicting", entries, |i| bench.put_evicting(bench.entries + i, expires(i)));
    bench.memory("the same, evicting", before);
    measure("remove", entries, |i| bench.remove(bench.entries + i));

    println!("{:24} {:8.0} us", "longest add", bench.longest_add().as_secs_f64() * 1e6);
}

impl Bench {
    fn put(&mut self, number: u64, expires: Option<Millis>) {
        let (partition, key) = name(number);
        self.sequence += 1;
        let op =
            Op::Put { map: self.map.clone(), key: Bytes::copy_from_slice(&key), value: self.value.clone(), expires };
        let version = self.version();
        self.stores[partition].apply(&op, version);
    }

    fn get(&mut self, number: u64) -> bool {
        let (partition, key) = name(number);
        let entry = self.stores[partition].get(&self.map, &key, Millis(0));
        entry.is_some_and(|entry| std::hint::black_box(entry.value().to_bytes()).len() == VALUE)
    }

    /// As a node does at its limit: what all entries take beyond is freed in the same partition.
    fn put_evicting(&mut self, number: u64, expires: Option<Millis>) {
        let partition = name(number).0;
        let before = self.stores[partition].bytes();
        self.put(number, expires);
        self.bytes += self.stores[partition].bytes() - before;
        if self.bytes > self.limit {
            let (store, over) = (&mut self.stores[partition], self.bytes - self.limit);
            let before = store.bytes();
            store.evict(over, Eviction::Auto, shuffled(number, 4), |_, _| ());
            self.bytes -= before - store.bytes();
        }
    }

    fn remove(&mut self, number: u64) {
        let (partition, key) = name(number);
        let (map, key) = (self.map.clone(), Bytes::copy_from_slice(&key));
        let version = self.version();
        self.stores[partition].apply(&Op::Remove { map, key, cause: Cause::Deleted }, version);
    }

    fn version(&self) -> Version {
        Version { epoch: PartitionEpoch(1_800_000_000), sequence: self.sequence / PARTITIONS as u64 }
    }

    /// Of three times the same: what takes long each time is ours, not the machine's.
    fn longest_add(&mut self) -> Duration {
        let mut shortest = vec![Duration::MAX; self.entries as usize];
        // None is dropped before the end: giving so much memory back to the system is measured nowhere.
        let mut all = Vec::new();
        for _ in 0..3 {
            let stores = (0..PARTITIONS).map(|_| Store::new(42)).collect();
            all.push(std::mem::replace(&mut self.stores, stores));
            for (i, shortest) in shortest.iter_mut().enumerate() {
                *shortest = on_cpu(|| self.put(i as u64, None)).min(*shortest);
            }
        }
        shortest.into_iter().max().unwrap_or_default()
    }

    fn memory(&self, what: &str, before: u64) {
        let count: usize = self.stores.iter().map(Store::len).sum();
        let each = |bytes: u64| bytes as f64 / count as f64 - (KEY + VALUE) as f64;
        let accounted = self.stores.iter().map(Store::bytes).sum();
        let taken = resident().saturating_sub(before);
        println!("{what:24} {:8.1} B resident, {:.1} B accounted", each(taken), each(accounted));
    }
}

fn measure(what: &str, count: u64, mut step: impl FnMut(u64)) {
    let all = on_cpu(|| (0..count).for_each(&mut step));
    println!("{what:24} {:8.0} ns", all.as_nanos() as f64 / count as f64);
}

/// Time that this thread ran, so that others on the machine count less.
fn on_cpu(work: impl FnOnce()) -> Duration {
    let now = || Duration::from(clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).unwrap());
    let start = now();
    work();
    now().saturating_sub(start)
}

/// Partition and key.
fn name(number: u64) -> (usize, [u8; KEY]) {
    let random = shuffled(number, 0);
    let mut key = [b'k'; KEY];
    key[..8].copy_from_slice(&number.to_le_bytes());
    (random as usize % PARTITIONS, key)
}

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
fn shuffled(number: u64, stream: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(stream << 32);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Bytes of memory that the process has.
fn resident() -> u64 {
    let status = fs::read_to_string("/proc/self/statm").unwrap();
    status.split(' ').nth(1).unwrap().parse::<u64>().unwrap() * 4096
}
