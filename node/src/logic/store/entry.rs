//! One entry, as it is kept and as it is seen.
//!
//! An entry is one block of memory, and a [`Node`] is eight bytes that own it: the block's address and, in the bits
//! that an address leaves free, sixteen bits of the entry's hash and a count of its uses. Most lookups that fail touch
//! no block, and one that succeeds touches one. A block holds
//!
//! ```text
//! flags 1 | [7 free | long value 32 | flags 1] | map 1-5 | key length 1-5 | value length 1-5
//!         | epoch 0-8 | sequence 2-8 | deadline 0-8 | key | value
//! ```
//!
//! with as many bytes for each number as it needs: 11 before a key of 16 bytes and a value of 100 that does not expire.
//! The part in brackets is there for values from [`OUTSIDE_FROM`] on, which stand in a block of their own that is
//! shared with replies.
//!
//! This is the only `unsafe` code of this crate, but for three calls of the allocator (`io/memory.rs`). It rests on four
//! statements, which the blocks below name:
//! 1. a `Node` made by [`Node::new`] owns a block of `size` bytes, aligned to [`ALIGN`], all of them written;
//! 2. its address needs 48 bits, as every address does that the supported systems give to a process unasked;
//! 3. what the header says about lengths is what was written, because nothing else writes to the block;
//! 4. a `Bytes` stands at [`HANDLE`] exactly if the flag [`OUTSIDE`] is set.

#![allow(unsafe_code)] // an owner of eight bytes for a block whose size stands in the block: no safe type is that small

use std::{
    alloc::{Layout, alloc, dealloc, handle_alloc_error},
    ptr,
};

use bytes::Bytes;

use super::{change::NewValue, hash::mix, maps::MapId};
use crate::logic::{
    clock::Millis,
    cluster::table::{PartitionEpoch, Version},
};

/// Values of this length and more stand outside the entry's block and are shared with replies instead of copied.
pub const OUTSIDE_FROM: usize = 4 << 10;
/// Accounted for an entry's place in the table: a slot of eight bytes, what lists keep free, and its share of the
/// list and of what is known about entries that went.
pub const SLOT_BYTES: u64 = 16;
/// Accounted for an entry that expires, beside the deadline in its block: its place among the deadlines.
pub const DEADLINE_BYTES: u64 = 20;
/// In place of a deadline.
pub(super) const NEVER: u64 = u64::MAX;
/// Uses are counted up to this.
pub(super) const MOST_USES: u8 = 15;

const ALIGN: usize = 16;
const _: () = assert!(usize::BITS == 64, "addresses are taken apart as those of 64-bit systems");
/// Bits of a node: uses, address, tag.
const USES: usize = MOST_USES as usize;
const ADDRESS: usize = ((1 << TAG_SHIFT) - 1) & !USES;
const TAG_SHIFT: u32 = 48;

const OUTSIDE: u8 = 1;
/// Where a long value's handle stands, and where the header stands after it.
const HANDLE: usize = 8;
const AFTER_HANDLE: usize = HANDLE + size_of::<Bytes>();
/// What is read at once of a header: flags and three numbers of at most five bytes.
const HEAD: usize = 16;
/// The users of a long value are counted in a block of this size once there is more than one.
const SHARED_BYTES: u64 = 32;

/// Bytes that a number takes, by its place in the flags.
const DEADLINE: (u32, [usize; 4]) = (1, [0, 6, 8, 8]);
const EPOCH: (u32, [usize; 4]) = (3, [0, 4, 5, 8]);
const SEQUENCE: (u32, [usize; 4]) = (5, [2, 3, 4, 8]);
/// Where epoch, sequence and deadline end, from where the first of them begins, by the flags without the lowest.
static ENDS: [[u8; 3]; 128] = {
    let (mut ends, mut at) = ([[0; 3]; 128], 0);
    while at < ends.len() {
        let flags = (at as u8) << ENDS_SHIFT;
        let epoch = length(flags, EPOCH);
        let sequence = epoch + length(flags, SEQUENCE);
        ends[at] = [epoch as u8, sequence as u8, (sequence + length(flags, DEADLINE)) as u8];
        at += 1;
    }
    ends
};
const ENDS_SHIFT: u32 = 1;

/// An entry as a caller sees it. What is not asked for is not read.
#[derive(Clone, Copy)]
pub struct Entry<'a> {
    node: &'a Node,
    fields: Fields,
}

impl<'a> Entry<'a> {
    /// Value.
    pub fn value(&self) -> Value<'a> {
        self.node.value_at(&self.fields)
    }

    /// When it expires; none: never.
    pub fn expires(&self) -> Option<Millis> {
        deadline(self.node.expires_at(&self.fields))
    }

    /// The change that made it what it is.
    pub fn version(&self) -> Version {
        self.node.version_at(&self.fields)
    }
}

/// A value where it is kept.
#[derive(Clone, Copy, Debug)]
pub enum Value<'a> {
    /// Shorter than [`OUTSIDE_FROM`].
    Inside(&'a [u8]),
    /// Longer.
    Outside(&'a Bytes),
}

impl Value<'_> {
    /// The value on its own: a short one is copied, a long one shared.
    pub fn to_bytes(&self) -> Bytes {
        match self {
            Self::Inside(value) => Bytes::copy_from_slice(value),
            Self::Outside(value) => Bytes::clone(value),
        }
    }
}

impl std::ops::Deref for Value<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        match self {
            Self::Inside(value) => value,
            Self::Outside(value) => value,
        }
    }
}

/// Bytes that memory gives at a time.
const LINE: usize = 64;
/// As many as the blocks of most entries take.
const PREFETCHED_LINES: usize = 3;

/// Asks for these items, so that they are near when they are read soon.
pub(super) fn prefetch_all<T>(items: &[T]) {
    let start = items.as_ptr().cast::<u8>();
    (0..size_of_val(items)).step_by(LINE).for_each(|at| prefetch(start.wrapping_add(at)));
}

fn prefetch(address: *const u8) {
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    // SAFETY: this reads nothing, and any address is allowed; every processor of this kind has it.
    unsafe {
        use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
        _mm_prefetch::<_MM_HINT_T0>(address.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = address;
}

/// What an entry is made of.
pub(super) struct Parts<'a> {
    pub(super) map: MapId,
    pub(super) key: &'a [u8],
    pub(super) value: NewValue<'a>,
    /// [`NEVER`] when it does not expire.
    pub(super) expires: u64,
    pub(super) version: Version,
}

/// What an entry adds to its partition.
#[derive(Debug, PartialEq)]
pub(super) struct Account {
    /// As [`Node::bytes`].
    pub(super) bytes: u64,
    /// As [`Node::expires`].
    pub(super) expires: u64,
    /// To its digest. It must be the same in every version of this program.
    pub(super) digest: u64,
}

impl Account {
    fn new(hash: u64, version: Version, expires: u64, bytes: u64) -> Self {
        let digest = mix(mix(mix(hash << 1 | u64::from(expires != NEVER)) ^ version.epoch.0) ^ version.sequence);
        Self { bytes, expires, digest }
    }
}

/// An entry as it is kept.
pub(super) struct Node(*mut u8);

// SAFETY: a node owns its block alone and has no cell in it; a `Bytes` may be sent and shared.
unsafe impl Send for Node {}
// SAFETY: as above; `&Node` only reads.
unsafe impl Sync for Node {}

impl Node {
    pub(super) fn new(hash: u64, parts: &Parts<'_>) -> Self {
        let header = Header::new(parts);
        let layout = header.layout();
        // SAFETY: the size is not zero.
        let block = unsafe { alloc(layout) };
        if block.is_null() {
            handle_alloc_error(layout);
        }
        assert_eq!(block.addr() & !ADDRESS, 0, "an address of more than 48 bits");
        if header.flags() & OUTSIDE != 0 {
            // SAFETY: the block was made for these parts; such a header begins after the handle (4).
            unsafe { handle(block).write(parts.value.to_bytes()) };
        }
        // SAFETY: the block was made for these parts.
        unsafe { header.write(parts, block) };
        Self(block.map_addr(|address| address | (hash as u16 as usize) << TAG_SHIFT))
    }

    /// Makes it the entry of these parts, whose map and key are its own. Its uses stay. Returns what it added to its
    /// partition, and what it adds now.
    pub(super) fn replace(&mut self, hash: u64, parts: &Parts<'_>) -> (Account, Account) {
        let (fields, header) = (self.fields(), Header::new(parts));
        let accounts = (self.account_at(&fields, hash), header.account(hash, parts));
        if (header.flags() | fields.flags) & OUTSIDE == 0 && header.layout() == fields.layout() {
            // SAFETY: the block has the size that these parts need, and parts are borrowed from elsewhere, because
            // `self` is borrowed mutably.
            unsafe { header.write(parts, self.block()) };
        } else {
            let uses = self.uses();
            *self = Self::new(hash, parts);
            self.set_uses(uses);
        }
        accounts
    }

    /// The lowest bits of the hash that it was made with.
    pub(super) fn tag(&self) -> u16 {
        (self.0.addr() >> TAG_SHIFT) as u16
    }

    pub(super) fn uses(&self) -> u8 {
        (self.0.addr() & USES) as u8
    }

    /// At most [`MOST_USES`].
    pub(super) fn set_uses(&mut self, uses: u8) {
        self.0 = self.0.map_addr(|address| address & !USES | usize::from(uses.min(MOST_USES)));
    }

    pub(super) fn map(&self) -> MapId {
        MapId(self.fields().map)
    }

    pub(super) fn key(&self) -> &[u8] {
        let fields = self.fields();
        self.slice(fields.key, fields.key_length)
    }

    /// Whether it has this name.
    pub(super) fn is(&self, map: MapId, key: &[u8]) -> bool {
        let fields = self.fields();
        fields.map == map.0 && fields.key_length == key.len() && same(self.slice(fields.key, key.len()), key)
    }

    pub(super) fn value(&self) -> Value<'_> {
        self.value_at(&self.fields())
    }

    fn value_at(&self, fields: &Fields) -> Value<'_> {
        if fields.flags & OUTSIDE == 0 {
            return Value::Inside(self.slice(fields.key + fields.key_length, fields.value_length));
        }
        // SAFETY: (4); the handle is as good as borrowed, because `self` is.
        Value::Outside(unsafe { &*handle(self.block()) })
    }

    pub(super) fn version(&self) -> Version {
        self.version_at(&self.fields())
    }

    fn version_at(&self, fields: &Fields) -> Version {
        let epoch = self.number(fields.epoch, fields.sequence - fields.epoch);
        let sequence = self.number(fields.sequence, fields.deadline - fields.sequence);
        Version { epoch: PartitionEpoch(epoch), sequence }
    }

    /// [`NEVER`] when it does not expire.
    pub(super) fn expires(&self) -> u64 {
        self.expires_at(&self.fields())
    }

    fn expires_at(&self, fields: &Fields) -> u64 {
        match fields.key - fields.deadline {
            0 => NEVER,
            bytes => self.number(fields.deadline, bytes),
        }
    }

    /// What the entry adds to its partition.
    pub(super) fn account(&self, hash: u64) -> Account {
        self.account_at(&self.fields(), hash)
    }

    fn account_at(&self, fields: &Fields, hash: u64) -> Account {
        Account::new(hash, self.version_at(fields), self.expires_at(fields), fields.bytes())
    }

    pub(super) fn deadline(&self) -> Option<Millis> {
        deadline(self.expires())
    }

    pub(super) fn lives(&self, now: Millis) -> bool {
        is_before(now, self.expires())
    }

    /// The entry, if it lives.
    pub(super) fn view(&self, now: Millis) -> Option<Entry<'_>> {
        let fields = self.fields();
        is_before(now, self.expires_at(&fields)).then_some(Entry { node: self, fields })
    }

    /// Accounted bytes: what the allocator takes for the block and a long value, and places in table and deadlines.
    pub(super) fn bytes(&self) -> u64 {
        self.fields().bytes()
    }

    /// Asks for the first bytes of the block.
    pub(super) fn prefetch_head(&self) {
        prefetch(self.block());
    }

    /// Asks for what a lookup reads of the block.
    pub(super) fn prefetch(&self) {
        let block = self.block();
        (0..PREFETCHED_LINES).for_each(|line| prefetch(block.wrapping_add(line * LINE)));
    }

    fn block(&self) -> *mut u8 {
        self.0.map_addr(|address| address & ADDRESS)
    }

    fn slice(&self, start: usize, length: usize) -> &[u8] {
        // SAFETY: callers name parts of the block as its header has them (1, 3); it lives as long as `self` and is
        // written through `&mut self` only.
        unsafe { std::slice::from_raw_parts(self.block().add(start), length) }
    }

    /// The header's first bytes, at the start of the block or after the handle: a block is no shorter.
    fn head(&self) -> &[u8] {
        self.slice(0, HEAD)
    }

    fn number(&self, start: usize, length: usize) -> u64 {
        // Lengths that the compiler knows cost one load.
        match *self.slice(start, length) {
            [] => 0,
            [a, b] => u16::from_le_bytes([a, b]).into(),
            [a, b, c, d] => u32::from_le_bytes([a, b, c, d]).into(),
            ref bytes => bytes.iter().rev().fold(0, |number, byte| number << 8 | u64::from(*byte)),
        }
    }

    fn fields(&self) -> Fields {
        let flags = self.head()[0];
        let start = start(flags);
        let head = if start == 0 { self.head() } else { self.slice(start, HEAD) };
        if let [_, map, key, value, ..] = *head
            && (map | key | value) < 0x80
        {
            // Most often each number is one byte.
            return Fields::new(flags, (map.into(), key.into(), value.into()), start + 4);
        }
        let mut at = 1;
        let map = varint(head, &mut at);
        let key_length = varint(head, &mut at) as usize;
        let value_length = varint(head, &mut at) as usize;
        Fields::new(flags, (map, key_length, value_length), start + at)
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let fields = self.fields();
        // SAFETY: the block is this node's own and goes with it (1), and so does the handle in it (4); the layout is
        // the one that it was made with, because it follows from the header (3).
        unsafe {
            if fields.flags & OUTSIDE != 0 {
                ptr::drop_in_place(handle(self.block()));
            }
            dealloc(self.block(), fields.layout());
        }
    }
}

/// What the header of a block says.
#[derive(Clone, Copy)]
struct Fields {
    flags: u8,
    map: u32,
    key_length: usize,
    value_length: usize,
    /// Where these begin; each ends where the next one does.
    epoch: usize,
    sequence: usize,
    deadline: usize,
    key: usize,
}

impl Fields {
    #[inline]
    fn new(flags: u8, (map, key_length, value_length): (u32, usize, usize), epoch: usize) -> Self {
        let [sequence, deadline, key] = ENDS[usize::from(flags >> ENDS_SHIFT)].map(|end| epoch + usize::from(end));
        Self { flags, map, key_length, value_length, epoch, sequence, deadline, key }
    }

    fn layout(&self) -> Layout {
        layout(self.flags, self.key + self.key_length, self.value_length)
    }

    fn bytes(&self) -> u64 {
        bytes(self.flags, self.key + self.key_length, self.value_length)
    }
}

/// A header that is to be written.
struct Header {
    bytes: [u8; HEAD + 3 * 8],
    length: usize,
    key_length: usize,
    value_length: usize,
}

impl Header {
    fn new(parts: &Parts<'_>) -> Self {
        let (key_length, value_length) = (parts.key.len(), parts.value.len());
        let mut header = Self { bytes: [0; HEAD + 3 * 8], length: 1, key_length, value_length };
        for number in [parts.map.0 as usize, key_length, value_length] {
            header.push_varint(u32::try_from(number).unwrap_or_else(|_| panic!("a key or value of {number} bytes")));
        }
        let Version { epoch, sequence } = parts.version;
        header.push(EPOCH, epoch.0, needed(epoch.0));
        header.push(SEQUENCE, sequence, needed(sequence));
        if parts.expires != NEVER {
            // No bytes at all mean never.
            header.push(DEADLINE, parts.expires, needed(parts.expires).max(1));
        }
        header.bytes[0] |= if value_length < OUTSIDE_FROM { 0 } else { OUTSIDE };
        header
    }

    fn flags(&self) -> u8 {
        self.bytes[0]
    }

    fn layout(&self) -> Layout {
        layout(self.flags(), self.key_end(), self.value_length)
    }

    /// As [`Node::account`], of the entry that these parts become.
    fn account(&self, hash: u64, parts: &Parts<'_>) -> Account {
        Account::new(hash, parts.version, parts.expires, bytes(self.flags(), self.key_end(), self.value_length))
    }

    fn key_end(&self) -> usize {
        start(self.flags()) + self.length + self.key_length
    }

    fn push_varint(&mut self, mut number: u32) {
        while number >= 0x80 {
            self.push_byte(number as u8 | 0x80);
            number >>= 7;
        }
        self.push_byte(number as u8);
    }

    /// In the least of the four choices that is at least `bytes`; the flags tell which.
    fn push(&mut self, (shift, choices): (u32, [usize; 4]), number: u64, bytes: usize) {
        let choice = choices[..3].iter().filter(|choice| **choice < bytes).count();
        self.bytes[0] |= (choice as u8) << shift;
        // All of them, since a length that the compiler knows costs no loop: the next number stands over what is too much,
        // and after the last one nothing beyond `length` is written.
        self.bytes[self.length..][..8].copy_from_slice(&number.to_le_bytes());
        self.length += choices[choice];
    }

    fn push_byte(&mut self, byte: u8) {
        self.bytes[self.length] = byte;
        self.length += 1;
    }

    /// Fills a block, all but a handle.
    ///
    /// # Safety
    /// The block has this header's layout, is writable and holds none of the parts.
    unsafe fn write(&self, parts: &Parts<'_>, block: *mut u8) {
        let start = start(self.flags());
        let inside: &[u8] = if self.flags() & OUTSIDE == 0 { &parts.value } else { &[] };
        let mut at = start;
        // SAFETY: the caller's promise; the pieces' lengths are those from which the layout follows.
        unsafe {
            if start > 0 {
                ptr::write_bytes(block, 0, HANDLE);
                block.write(self.flags());
            }
            for piece in [&self.bytes[..self.length], parts.key, inside] {
                ptr::copy_nonoverlapping(piece.as_ptr(), block.add(at), piece.len());
                at += piece.len();
            }
            ptr::write_bytes(block.add(at), 0, self.layout().size() - at);
        }
    }
}

/// Where a long value's handle stands, in a block that has one: [`HANDLE`] is a multiple of its alignment.
fn handle(block: *mut u8) -> *mut Bytes {
    const { assert!(HANDLE.is_multiple_of(align_of::<Bytes>())) };
    #[allow(clippy::cast_ptr_alignment)] // the block is aligned to 16 bytes
    block.wrapping_add(HANDLE).cast()
}

/// Where the header stands.
fn start(flags: u8) -> usize {
    if flags & OUTSIDE == 0 { 0 } else { AFTER_HANDLE }
}

/// Accounted bytes of such an entry, whose key ends there in its block.
fn bytes(flags: u8, key_end: usize, value_length: usize) -> u64 {
    let deadline = if length(flags, DEADLINE) == 0 { 0 } else { DEADLINE_BYTES };
    let outside = if flags & OUTSIDE == 0 { 0 } else { taken(value_length) + SHARED_BYTES };
    taken(size(flags, key_end, value_length)) + SLOT_BYTES + deadline + outside
}

/// Bytes of the block in which the key ends there, with room for all that is read at once.
fn size(flags: u8, key_end: usize, value_length: usize) -> usize {
    let end = if flags & OUTSIDE == 0 { key_end + value_length } else { key_end };
    end.max(start(flags) + HEAD).next_multiple_of(ALIGN)
}

/// Of such a block.
fn layout(flags: u8, key_end: usize, value_length: usize) -> Layout {
    let size = size(flags, key_end, value_length);
    Layout::from_size_align(size, ALIGN).unwrap_or_else(|_| panic!("a block of {size} bytes"))
}

/// Whether two names of the same length are the same: eight bytes at a time, since most are too short for a call to pay.
/// The last ones may be among those before them.
pub(super) fn same(one: &[u8], other: &[u8]) -> bool {
    let ((words, _), (others, _)) = (one.as_chunks::<8>(), other.as_chunks::<8>());
    match (one.last_chunk::<8>(), one.first_chunk::<4>()) {
        (Some(last), _) => {
            Some(last) == other.last_chunk() && words.iter().zip(others).all(|(word, other)| word == other)
        }
        (None, Some(first)) => Some(first) == other.first_chunk() && one.last_chunk::<4>() == other.last_chunk(),
        (None, None) => one.iter().zip(other).all(|(byte, other)| byte == other),
    }
}

/// What [`NEVER`] stands for is none.
fn deadline(expires: u64) -> Option<Millis> {
    Some(expires).filter(|at| *at != NEVER).map(Millis)
}

/// As Redis has it: an entry still lives in the millisecond of its deadline.
fn is_before(now: Millis, expires: u64) -> bool {
    expires >= now.0
}

const fn length(flags: u8, (shift, choices): (u32, [usize; 4])) -> usize {
    choices[(flags >> shift & 3) as usize]
}

/// Bytes of a number without the zeros at its upper end.
fn needed(number: u64) -> usize {
    (u64::BITS - number.leading_zeros()).div_ceil(u8::BITS) as usize
}

/// A number of at most five bytes, seven bits in each, and what stands after it.
#[inline]
fn varint(bytes: &[u8], at: &mut usize) -> u32 {
    let (mut number, mut shift) = (0, 0);
    while let Some(byte) = bytes.get(*at) {
        *at += 1;
        number |= u32::from(byte & 0x7f) << shift;
        shift += 7;
        if *byte < 0x80 {
            break;
        }
    }
    number
}

/// What mimalloc takes for a block of this size: a multiple of 16, and four sizes for each doubling from 64 on; from 16
/// MiB on whole units of 64 KiB.
fn taken(size: usize) -> u64 {
    let unit = match size {
        0..=64 => 16,
        65..=0x0100_0000 => 1 << ((size - 1).ilog2() - 2),
        _ => 64 << 10,
    };
    size.max(1).next_multiple_of(unit) as u64
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number() -> impl Strategy<Value = u64> {
        prop_oneof![any::<u64>(), (0..64_u32, 0..2_u64).prop_map(|(bits, less)| (1 << bits) - less)]
    }

    fn long() -> impl Strategy<Value = Vec<u8>> {
        let lengths = prop_oneof![0..300_usize, OUTSIDE_FROM - 9..OUTSIDE_FROM + 9];
        (lengths, any::<u8>()).prop_map(|(length, byte)| (0..length).map(|i| byte.wrapping_add(i as u8)).collect())
    }

    type Made = (u32, Vec<u8>, Vec<u8>, u64, u64, u64);

    fn parts((map, key, value, expires, epoch, sequence): &Made) -> Parts<'_> {
        let version = Version { epoch: PartitionEpoch(*epoch), sequence: *sequence };
        Parts { map: MapId(*map), key, value: NewValue::Elsewhere(value), expires: *expires, version }
    }

    fn check(node: &Node, made: &Made) {
        let parts = parts(made);
        assert!(node.is(parts.map, parts.key) && node.map() == parts.map && node.key() == parts.key);
        assert_eq!((&*node.value(), &*node.value().to_bytes()), (&*parts.value, &*parts.value));
        assert_eq!((node.expires(), node.version()), (parts.expires, parts.version));
        assert!(!node.is(parts.map, &[parts.key, b"x"].concat()) && !node.is(MapId(parts.map.0 ^ 1), parts.key));
        let whole = parts.key.len() + parts.value.len();
        assert!(node.bytes() > whole as u64 && node.bytes() < (whole + whole / 4 + 220) as u64);
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: if cfg!(miri) { 8 } else { 512 }, failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn an_entry_is_what_it_was_made_of(
            map: u32, key in long(), hash: u64, uses in 0..=MOST_USES,
            states in prop::collection::vec((long(), number(), number(), number()), 1..4))
        {
            let mut node: Option<Node> = None;
            for (value, expires, epoch, sequence) in states {
                let made = (map, key.clone(), value, expires, epoch, sequence);
                match &mut node {
                    Some(node) => {
                        let before = node.account(hash);
                        let accounts = node.replace(hash, &parts(&made));
                        prop_assert_eq!(accounts, (before, node.account(hash)));
                    }
                    none => *none = Some(Node::new(hash, &parts(&made))),
                }
                let node = node.as_mut().unwrap();
                node.set_uses(uses);
                prop_assert_eq!((node.tag(), node.uses()), (hash as u16, uses));
                check(node, &made);
            }
        }
    }

    #[test]
    fn a_long_value_outlives_its_entry_and_is_shared() {
        let made = (0, b"k".to_vec(), vec![7; OUTSIDE_FROM], NEVER, 1, 1);
        let mut node = Node::new(0, &parts(&made));
        let value = node.value().to_bytes();
        assert_eq!(node.value().as_ptr(), value.as_ptr());
        node.replace(0, &parts(&(0, b"k".to_vec(), Vec::new(), NEVER, 1, 2)));
        assert!(node.value().is_empty());
        drop(node);
        assert_eq!(value, vec![7; OUTSIDE_FROM]);
    }

    #[test]
    fn an_entry_of_the_usual_size_fits_its_block() {
        // A key of 16 bytes, a value of 100, an epoch of Unix seconds, 16 million changes.
        let made = (0, vec![1; 16], vec![2; 100], NEVER, 1_800_000_000, (1 << 24) - 1);
        assert_eq!(Node::new(0, &parts(&made)).bytes(), 128 + SLOT_BYTES);
        assert_eq!(size_of::<Node>(), 8);
    }

    #[test]
    fn names_that_differ_in_any_byte_are_not_the_same() {
        for length in 0..40 {
            let name: Vec<u8> = (0..length).collect();
            assert!(same(&name, &name.clone()));
            for at in 0..name.len() {
                let mut other = name.clone();
                other[at] ^= 0x80;
                assert!(!same(&name, &other), "{length} bytes, the one at {at}");
            }
        }
    }

    #[test]
    fn sizes_are_the_allocators() {
        let sizes = [1, 17, 64, 65, 128, 129, 192, 1000, 4096, 4097].map(taken);
        assert_eq!(sizes, [16, 32, 64, 80, 128, 160, 192, 1024, 4096, 5120]);
    }
}
