//! The simulated network: streams that keep their order, stall and break, and datagrams that do as they like.

use std::collections::{BTreeMap, VecDeque};

use mizuya_node::logic::{
    clock::Millis,
    cluster::message::{Message, Record},
    store::Op,
};
use rand::{RngExt, rngs::StdRng};

/// Most nodes that ever take part.
pub(crate) const PLACES: usize = 8;
/// Frames that still arrive while only the answers of the transport do not get through: its window.
const WINDOW: u8 = 6;

/// The stream that one start of a node opened to one start of another.
pub(crate) struct Stream {
    pub(crate) id: u64,
    /// Starts of both ends.
    pub(crate) ends: (u64, u64),
    last_arrival: u64,
    stalled: VecDeque<Vec<Message>>,
    window: u8,
}

/// A frame on its way, and when it arrives.
pub(crate) struct Frame {
    pub(crate) at: u64,
    pub(crate) stream: u64,
    pub(crate) ends: (u64, u64),
    pub(crate) messages: Vec<Message>,
}

/// What a broken stream left in the buffers of the sender's kernel.
type Left = ((u64, u64), VecDeque<Vec<Message>>);

#[derive(Default)]
pub(crate) struct Network {
    streams: BTreeMap<(usize, usize), Stream>,
    /// Reasons why packets do not get from one to another.
    blocked: [[u16; PLACES]; PLACES],
    /// Additional delay.
    pub(crate) slow: [[u64; PLACES]; PLACES],
    /// Each frame takes up to so many milliseconds more, wherever it goes.
    pub(crate) uneven: u64,
    /// Datagrams lost, in percent.
    pub(crate) datagram_loss: u32,
    /// From when on frames of a stream that broke are lost.
    lost_from: BTreeMap<u64, u64>,
    left: BTreeMap<(usize, usize), Left>,
    next_stream: u64,
}

impl Network {
    pub(crate) fn new() -> Self {
        Self { datagram_loss: 1, ..Self::default() }
    }

    pub(crate) fn passes(&self, from: usize, to: usize) -> bool {
        self.blocked[from][to] == 0
    }

    pub(crate) fn both_ways(&self, a: usize, b: usize) -> bool {
        self.passes(a, b) && self.passes(b, a)
    }

    pub(crate) fn block(&mut self, from: usize, to: usize) {
        self.blocked[from][to] += 1;
    }

    /// Takes one reason away. What had stalled arrives.
    pub(crate) fn unblock(&mut self, from: usize, to: usize, now: u64, rng: &mut StdRng) -> Vec<(usize, usize, Frame)> {
        self.blocked[from][to] -= 1;
        let mut frames = Vec::new();
        for pair in [(from, to), (to, from)] {
            if !self.both_ways(from, to) {
                continue;
            }
            if let Some((ends, left)) = self.left.remove(&pair) {
                let at = now + rng.random_range(1..300);
                frames
                    .extend(left.into_iter().map(|messages| (pair.0, pair.1, Frame { at, stream: 0, ends, messages })));
            }
            let Some(stream) = self.streams.get_mut(&pair) else { continue };
            stream.window = WINDOW;
            let at = stream.last_arrival.max(now + rng.random_range(1..200));
            stream.last_arrival = at;
            let (id, ends) = (stream.id, stream.ends);
            let stalled = std::mem::take(&mut stream.stalled);
            frames
                .extend(stalled.into_iter().map(|messages| (pair.0, pair.1, Frame { at, stream: id, ends, messages })));
        }
        frames
    }

    pub(crate) fn stream(&self, from: usize, to: usize) -> Option<&Stream> {
        self.streams.get(&(from, to))
    }

    /// Takes what a stream holds back, and between which starts it was.
    pub(crate) fn withhold(&mut self, from: usize, to: usize) -> Option<((u64, u64), Vec<Message>)> {
        let stream = self.streams.get_mut(&(from, to))?;
        Some((stream.ends, stream.stalled.drain(..).flatten().collect()))
    }

    pub(crate) fn pairs(&self) -> Vec<(usize, usize)> {
        self.streams.keys().copied().collect()
    }

    pub(crate) fn open(&mut self, from: usize, to: usize, ends: (u64, u64)) {
        self.next_stream += 1;
        let stream = Stream { id: self.next_stream, ends, last_arrival: 0, stalled: VecDeque::new(), window: WINDOW };
        self.streams.insert((from, to), stream);
    }

    /// Breaks a stream: a part of what is under way still arrives, after a new one was opened perhaps. False: there
    /// was none.
    pub(crate) fn close(&mut self, from: usize, to: usize, now: u64, rng: &mut StdRng) -> bool {
        let Some(stream) = self.streams.remove(&(from, to)) else { return false };
        let lost_from = match rng.random_range(0..3) {
            0 => now,
            1 => now + rng.random_range(0..100),
            _ => u64::MAX,
        };
        self.lost_from.insert(stream.id, lost_from);
        if !stream.stalled.is_empty() && rng.random_ratio(1, 3) {
            self.left.insert((from, to), (stream.ends, stream.stalled));
        }
        true
    }

    /// Sends a frame on an open stream. None: it stalls, or there is no stream.
    pub(crate) fn send(
        &mut self,
        (from, to): (usize, usize),
        messages: Vec<Message>,
        now: u64,
        rng: &mut StdRng,
    ) -> Option<Frame> {
        let (forth, back, slow) = (self.passes(from, to), self.passes(to, from), self.slow[from][to]);
        let stream = self.streams.get_mut(&(from, to))?;
        let passes = forth && stream.stalled.is_empty() && (back || stream.window > 0);
        if !passes {
            stream.stalled.push_back(messages);
            return None;
        }
        if !back {
            stream.window -= 1;
        }
        let jitter = if rng.random_ratio(1, 50) { rng.random_range(0..60) } else { rng.random_range(0..3) };
        let uneven = if self.uneven > 0 { rng.random_range(0..self.uneven) } else { 0 };
        let at = stream.last_arrival.max(now + jitter + slow + uneven);
        stream.last_arrival = at;
        Some(Frame { at, stream: stream.id, ends: stream.ends, messages })
    }

    /// Whether a frame of this stream that arrives now was lost when the stream broke.
    pub(crate) fn is_lost(&self, stream: u64, now: u64) -> bool {
        self.lost_from.get(&stream).is_some_and(|from| now >= *from)
    }

    /// When copies of a datagram arrive: never, once, or twice.
    pub(crate) fn datagram(&self, from: usize, to: usize, now: u64, rng: &mut StdRng) -> Vec<u64> {
        if !self.passes(from, to) || rng.random_ratio(self.datagram_loss, 100) {
            return Vec::new();
        }
        let times = if rng.random_ratio(1, 40) { 2 } else { 1 };
        let late =
            |rng: &mut StdRng| if rng.random_ratio(1, 20) { rng.random_range(0..300) } else { rng.random_range(0..4) };
        (0..times).map(|_| now + self.slow[from][to] + late(rng)).collect()
    }
}

/// Deadlines travel as time left: this is what the transport does (rule W9). `change` turns one into the other.
pub(crate) fn deadlines(message: &mut Message, change: impl Fn(Millis) -> Millis) {
    let records: &mut [Record] = match message {
        Message::Append(append) => &mut append.records,
        Message::Chunk(chunk) => &mut chunk.entries,
        _ => return,
    };
    for record in records {
        if let Op::Put { expires: Some(expires), .. } = &mut record.op {
            *expires = change(*expires);
        }
    }
}
