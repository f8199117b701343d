//! Replies that wait to be written to one client.

use std::{collections::VecDeque, io::IoSlice, ops::RangeInclusive};

use bytes::{Buf, Bytes, BytesMut};

use crate::logic::resp::Sink;

/// A value of this size is not copied into the buffer but written from where it is.
const SHARED_FROM: usize = 16 << 10;
/// A buffer that needed more than this is given back once it is empty, so that a silent connection holds little.
const KEEP: usize = 128;
/// A buffer begins with room for as much as was written last, within these limits.
const ROOM: RangeInclusive<usize> = KEEP..=(64 << 10);

/// Bytes in the order in which they go out; long values are shared with the store.
#[derive(Debug, Default)]
pub(super) struct Output {
    /// Before `tail`.
    queue: VecDeque<Bytes>,
    queued: usize,
    tail: BytesMut,
    /// Bytes that were written at once last.
    last: usize,
}

impl Output {
    fn tail(&mut self) -> &mut BytesMut {
        if self.tail.capacity() == 0 {
            self.tail = BytesMut::with_capacity(self.last.clamp(*ROOM.start(), *ROOM.end()));
        }
        &mut self.tail
    }

    /// Whether all bytes are in [`Buf::chunk`].
    pub(super) fn is_one_chunk(&self) -> bool {
        self.chunk().len() == self.remaining()
    }
}

impl Sink for Output {
    fn put(&mut self, bytes: &[u8]) {
        self.tail().put(bytes);
    }

    fn put_string(&mut self, string: &[u8]) {
        self.tail().put_string(string);
    }

    fn put_value(&mut self, value: &Bytes) {
        if value.len() < SHARED_FROM {
            self.tail().put(value);
            return;
        }
        let before = self.tail.split().freeze();
        self.queued += before.len() + value.len();
        self.queue.extend([before, value.clone()].into_iter().filter(|bytes| !bytes.is_empty()));
    }
}

impl Buf for Output {
    fn remaining(&self) -> usize {
        self.queued + self.tail.len()
    }

    fn chunk(&self) -> &[u8] {
        self.queue.front().map_or(&self.tail, |first| first)
    }

    fn chunks_vectored<'a>(&'a self, slices: &mut [IoSlice<'a>]) -> usize {
        let chunks =
            self.queue.iter().map(|bytes| &bytes[..]).chain([&self.tail[..]]).filter(|chunk| !chunk.is_empty());
        slices.iter_mut().zip(chunks).map(|(slice, chunk)| *slice = IoSlice::new(chunk)).count()
    }

    fn advance(&mut self, mut count: usize) {
        while let Some(first) = self.queue.front_mut() {
            let step = count.min(first.len());
            first.advance(step);
            self.queued -= step;
            count -= step;
            if !first.is_empty() {
                return;
            }
            self.queue.pop_front();
        }
        self.tail.advance(count);
        if self.tail.is_empty() {
            self.last = count;
            if self.tail.capacity().max(count) > KEEP || self.queue.capacity() > 0 {
                (self.queue, self.tail) = Default::default();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn bytes_go_out_in_order(pieces in prop::collection::vec((any::<bool>(), 0..40_000_usize), 0..12), step in 1..30_000_usize) {
            let (mut output, mut expected) = (Output::default(), Vec::new());
            for (i, (value, length)) in pieces.into_iter().enumerate() {
                let bytes = Bytes::from(vec![i as u8; length]);
                expected.extend_from_slice(&bytes);
                if value { output.put_value(&bytes) } else { output.put(&bytes) }
            }
            prop_assert_eq!(output.remaining(), expected.len());
            let mut written = Vec::new();
            while output.has_remaining() {
                let mut slices = [IoSlice::new(&[]); 3];
                let count = output.chunks_vectored(&mut slices);
                prop_assert!(count > 0);
                let all = slices[..count].iter().flat_map(|slice| slice.iter().copied()).collect::<Vec<u8>>();
                let taken = step.min(all.len());
                written.extend_from_slice(&all[..taken]);
                output.advance(taken);
            }
            prop_assert!(written == expected);
        }
    }

    #[test]
    fn long_values_are_not_copied() {
        let value = Bytes::from(vec![1; SHARED_FROM]);
        let mut output = Output::default();
        output.put(b"$");
        output.put_value(&value);
        assert_eq!(output.queue[1].as_ptr(), value.as_ptr());
    }
}
