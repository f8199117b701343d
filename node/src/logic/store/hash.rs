//! The hash that orders a partition's entries.
//!
//! SipHash-1-3 (Aumasson, Bernstein: "`SipHash`: a fast short-input PRF"): it must be the same in every version of this
//! program, on every member and machine, because a scan's cursor and a copy's progress are positions in its order
//! (rule C2). Clients cannot aim at one position, because the cluster's seed is secret and random (rule T8).

/// Bits of a hash: what is left of a `SCAN` cursor beside the partition.
pub const HASH_BITS: u32 = 48;

/// The order of a map's entries: what is the same for all of its keys is done once.
#[derive(Clone, Copy, Debug)]
pub struct Order(Sip<1, 3>);

impl Order {
    /// Of the map with this name, in the cluster with this seed.
    pub fn new(seed: u64, map: &[u8]) -> Self {
        let mut hasher = Sip::new(seed, 0x6d69_7a75_7961_0001);
        hasher.write(&(map.len() as u32).to_le_bytes());
        hasher.write(map);
        Self(hasher)
    }

    /// Place of a key's entry in the order.
    #[inline]
    pub fn position(&self, key: &[u8]) -> u64 {
        let mut hasher = self.0;
        hasher.write(key);
        hasher.finish() >> (64 - HASH_BITS)
    }
}

/// What splitmix64 adds to its state for each number: the golden ratio.
pub(super) const WEYL: u64 = 0x9E37_79B9_7F4A_7C15;

/// The finaliser of splitmix64: each bit of the input reaches each bit of the output.
pub fn mix(seed: u64) -> u64 {
    let z = seed.wrapping_add(WEYL);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// `SipHash` with `C` rounds a block and `D` at the end.
#[derive(Clone, Copy, Debug)]
struct Sip<const C: usize, const D: usize> {
    state: [u64; 4],
    /// Bytes that do not fill a block yet, the first in the lowest place.
    tail: u64,
    length: usize,
}

impl<const C: usize, const D: usize> Sip<C, D> {
    fn new(k0: u64, k1: u64) -> Self {
        let state = [
            k0 ^ 0x736f_6d65_7073_6575,
            k1 ^ 0x646f_7261_6e64_6f6d,
            k0 ^ 0x6c79_6765_6e65_7261,
            k1 ^ 0x7465_6462_7974_6573,
        ];
        Self { state, tail: 0, length: 0 }
    }

    #[allow(clippy::inline_always)] // each key is hashed, and a state in registers saves an eighth of that
    #[inline(always)]
    fn write(&mut self, bytes: &[u8]) {
        let held = self.length % 8 * 8;
        self.length += bytes.len();
        let (words, rest) = bytes.as_chunks();
        for word in words {
            self.word(u64::from_le_bytes(*word), held);
        }
        if rest.is_empty() {
            return;
        }
        let word = rest.iter().rev().fold(0, |word, byte| word << 8 | u64::from(*byte));
        if held + rest.len() * 8 < 64 {
            self.tail |= word << held;
        } else {
            self.word(word, held);
        }
    }

    /// Eight bytes, after so many bits that do not fill a block yet.
    fn word(&mut self, word: u64, held: usize) {
        self.block(self.tail | word << held);
        self.tail = if held == 0 { 0 } else { word >> (64 - held) };
    }

    fn block(&mut self, block: u64) {
        self.state[3] ^= block;
        (0..C).for_each(|_| self.round());
        self.state[0] ^= block;
    }

    fn round(&mut self) {
        let [a, b, c, d] = &mut self.state;
        *a = a.wrapping_add(*b);
        *c = c.wrapping_add(*d);
        *b = b.rotate_left(13) ^ *a;
        *d = d.rotate_left(16) ^ *c;
        *a = a.rotate_left(32);
        *c = c.wrapping_add(*b);
        *a = a.wrapping_add(*d);
        *b = b.rotate_left(17) ^ *c;
        *d = d.rotate_left(21) ^ *a;
        *c = c.rotate_left(32);
    }

    #[inline]
    fn finish(mut self) -> u64 {
        let last = self.tail | (self.length as u64) << 56;
        self.block(last);
        self.state[2] ^= 0xff;
        (0..D).for_each(|_| self.round());
        self.state.iter().fold(0, |hash, word| hash ^ word)
    }
}

#[cfg(test)]
mod tests {
    use std::hash::Hasher;

    use super::*;

    #[test]
    fn it_is_siphash() {
        // The example of the paper's appendix, for two and four rounds.
        let key: Vec<u64> = (0..2).map(|i| u64::from_le_bytes(std::array::from_fn(|b| i * 8 + b as u8))).collect();
        let mut hasher = Sip::<2, 4>::new(key[0], key[1]);
        hasher.write(&(0..15).collect::<Vec<u8>>());
        assert_eq!(hasher.finish(), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn pieces_hash_like_the_whole() {
        let bytes: Vec<u8> = (0..100).collect();
        for first in 0..40 {
            for second in first..40 {
                let mut ours = Sip::<1, 3>::new(0, 0);
                // The standard library's hasher is SipHash-1-3 with zero keys.
                let mut std = std::collections::hash_map::DefaultHasher::new();
                for piece in [&bytes[..first], &bytes[first..second], &bytes[second..40 + first]] {
                    ours.write(piece);
                    std.write(piece);
                }
                assert_eq!(ours.finish(), std.finish());
            }
        }
    }

    #[test]
    fn positions_never_change() {
        assert_eq!(Order::new(1, b"map").position(b"key"), 136_286_641_034_261);
        assert_ne!(Order::new(1, b"ma").position(b"pkey"), Order::new(1, b"map").position(b"key"));
    }
}
