//! How many reads find their entry when not all fit: our eviction beside an exact LRU and another's W-TinyLFU of as many
//! entries, over generated traces. A read that finds nothing writes the entry. The first quarter of a trace is not
//! counted.
//!
//!     cargo bench --profile ci --workspace --bench hit_ratio -- 1000000 1 "Zipf 0.99"
//!
//! The numbers: keys, of which a tenth fits, and runs of which the mean is printed. The text: a part of a trace's name.

#![allow(missing_docs, clippy::unwrap_used)]

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use mizuya_node::logic::{
    clock::Millis,
    cluster::table::Version,
    store::{Op, Store},
};
use mizuya_wire::settings::Eviction;

/// So many entries share a partition, as at 5 million entries in 256.
const PARTITION: u64 = 20_000;
/// Requests a key.
const LENGTH: u64 = 20;

fn main() {
    let words: Vec<String> = std::env::args().skip(1).filter(|word| !word.starts_with('-')).collect();
    let mut numbers = words.iter().filter_map(|word| word.parse().ok());
    let (keys, seeds): (u64, u64) = (numbers.next().unwrap_or(1_000_000), numbers.next().unwrap_or(1));
    let only: Vec<_> = words.iter().filter(|word| word.parse::<u64>().is_err()).collect();
    println!("{:44} {:>8} {:>8} {:>8} {:>8} {:>10}", "", "auto", "lru", "lfu", "LRU", "W-TinyLFU");
    let zipf = Zipf::new(keys);
    let fits = keys / 10;
    let far = 1 << 40;
    let traces: [(&str, Trace); 8] = [
        ("Zipf 0.99", &|_, random| zipf.draw(random)),
        ("Zipf, four tenths of the time a scan", &|i, random| {
            if i % (fits * 5) < fits * 3 { zipf.draw(random) } else { far + i }
        }),
        ("scan", &|i, _| i),
        ("loop over 1.25 of what fits", &|i, _| i % (fits * 5 / 4)),
        ("loop over 0.9 of what fits", &|i, _| i % (fits * 9 / 10)),
        ("half Zipf, half a loop over 2 of what fits", &|i, random| {
            if i % 2 == 0 { far + i / 2 % (fits * 2) } else { zipf.draw(random) }
        }),
        ("Zipf, other keys ten times", &|i, random| zipf.draw(random) + i / (keys * LENGTH / 10) * keys / 2),
        ("Zipf, a new key every 20 requests", &|i, random| zipf.draw(random) + i / 20),
    ];
    for (name, trace) in traces {
        if !only.is_empty() && !only.iter().any(|part| name.contains(&part[..])) {
            continue;
        }
        let mean = |cache: &dyn Fn() -> Box<dyn Cache>| {
            let sum: f64 = (0..seeds).map(|seed| hits(&mut *cache(), keys, seed, trace)).sum();
            sum / seeds as f64
        };
        let [auto, lru, lfu] = [Eviction::Auto, Eviction::Lru, Eviction::Lfu]
            .map(|eviction| mean(&|| Box::new(Ours::new(fits, eviction))));
        let (exact, tiny) = (mean(&|| Box::new(Lru::new(fits))), mean(&|| Box::new(TinyLfu::new(fits))));
        println!("{name:44} {auto:8.4} {lru:8.4} {lfu:8.4} {exact:8.4} {tiny:10.4}");
    }
}

/// The key of a request, from its number and a random number.
type Trace<'a> = &'a dyn Fn(u64, u64) -> u64;

fn hits(cache: &mut dyn Cache, keys: u64, seed: u64, trace: Trace<'_>) -> f64 {
    let requests = keys * LENGTH;
    let hits = (0..requests).filter(|i| cache.read(trace(*i, random(*i + (seed << 40)))) && *i >= requests / 4).count();
    hits as f64 / (requests - requests / 4) as f64
}

trait Cache {
    /// Whether it was there.
    fn read(&mut self, key: u64) -> bool;
}

struct Ours {
    eviction: Eviction,
    stores: Vec<Store>,
    limit: u64,
    bytes: u64,
    requests: u64,
}

impl Ours {
    fn new(fits: u64, eviction: Eviction) -> Self {
        let mut one = Store::new(1);
        let before = one.bytes();
        one.apply(&put(1), Version::default());
        let first = one.bytes() - before;
        one.apply(&put(2), Version::default());
        let (each, map) = (one.bytes() - first, first * 2 - one.bytes());
        let stores: Vec<_> = (0..fits.div_ceil(PARTITION)).map(Store::new).collect();
        Self { eviction, limit: fits * each + map * stores.len() as u64, stores, bytes: 0, requests: 0 }
    }
}

impl Cache for Ours {
    fn read(&mut self, key: u64) -> bool {
        self.requests += 1;
        let place = random(key) % self.stores.len() as u64;
        let store = &mut self.stores[place as usize];
        if store.get(b"m", &key.to_le_bytes(), Millis(0)).is_some() {
            return true;
        }
        let before = store.bytes();
        store.apply(&put(key), Version::default());
        self.bytes += store.bytes() - before;
        if self.bytes > self.limit {
            let before = store.bytes();
            store.evict(self.bytes - self.limit, self.eviction, random(!self.requests), |_, _| ());
            self.bytes -= before - store.bytes();
        }
        false
    }
}

fn put(key: u64) -> Op {
    let key = Bytes::copy_from_slice(&key.to_le_bytes());
    Op::Put { map: Bytes::from_static(b"m"), key, value: Bytes::from_static(b"value"), expires: None }
}

/// Another's, for comparison (Einziger, Friedman, Manes: "TinyLFU").
struct TinyLfu(moka::sync::Cache<u64, ()>);

impl TinyLfu {
    fn new(fits: u64) -> Self {
        Self(moka::sync::Cache::new(fits))
    }
}

impl Cache for TinyLfu {
    fn read(&mut self, key: u64) -> bool {
        let hit = self.0.get(&key).is_some();
        if !hit {
            self.0.insert(key, ());
        }
        hit
    }
}

struct Lru {
    fits: usize,
    /// When each key was last read, and the other way round.
    times: HashMap<u64, u64>,
    keys: BTreeMap<u64, u64>,
    now: u64,
}

impl Lru {
    fn new(fits: u64) -> Self {
        Self { fits: fits as usize, times: HashMap::new(), keys: BTreeMap::new(), now: 0 }
    }
}

impl Cache for Lru {
    fn read(&mut self, key: u64) -> bool {
        self.now += 1;
        let before = self.times.insert(key, self.now);
        self.keys.insert(self.now, key);
        if let Some(before) = before {
            self.keys.remove(&before);
        } else if self.keys.len() > self.fits
            && let Some((_, oldest)) = self.keys.pop_first()
        {
            self.times.remove(&oldest);
        }
        before.is_some()
    }
}

/// Keys whose frequency falls with their rank to the power of 0.99.
struct Zipf(Vec<f64>);

impl Zipf {
    fn new(keys: u64) -> Self {
        let mut sum = 0.0;
        let add = |rank: u64| {
            sum += (rank as f64).powf(-0.99);
            sum
        };
        Self((1..=keys).map(add).collect())
    }

    fn draw(&self, random: u64) -> u64 {
        let wanted = random as f64 / u64::MAX as f64 * self.0.last().unwrap();
        self.0.partition_point(|sum| *sum < wanted) as u64
    }
}

/// `SplitMix64` (Steele, Lea, Flood: "Fast splittable pseudorandom number generators").
fn random(number: u64) -> u64 {
    let mut z = number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
