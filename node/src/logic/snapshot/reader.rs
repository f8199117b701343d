//! Reads a snapshot piece by piece, and believes nothing.

use bytes::{Buf, Bytes, BytesMut};

use super::{
    CRC, FORMAT, FRAME_BYTES, MAGIC, MAX_BODY_BYTES, Section,
    body::{self, Content},
};
use crate::logic::{clock::Clock, keyspace::Partition};

/// Why a file is no snapshot that can be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is something else.
    #[error("it does not begin as a snapshot does")]
    NoSnapshot,
    /// Another version of the program wrote it.
    #[error("it has format {0}, and this program reads format {FORMAT} only")]
    Format(u16),
    /// The bytes are not those that were written.
    #[error("the bytes before {0} are damaged")]
    Damaged(u64),
    /// Sections are missing, or in another order than they are written in.
    #[error("the section before byte {0} does not belong there")]
    OutOfOrder(u64),
    /// It ends too early.
    #[error("it ends after {0} bytes, before its end")]
    Torn(u64),
}

/// Where in the file the reader is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum At {
    Start,
    Header,
    BetweenPartitions,
    InPartition { entries: u64 },
    End,
}

/// Takes the bytes of a file in order, and gives its sections. What it has given is to be used only once
/// [`Reader::finish`] has said that the file is whole.
pub struct Reader {
    clock: Clock,
    input: BytesMut,
    consumed: u64,
    at: At,
    /// Wall time in the header, and partitions of the cluster.
    taken: u64,
    partitions: u16,
    last: Option<Partition>,
    seen: u16,
}

impl Reader {
    /// A reader at the beginning of a file; deadlines are told for this clock.
    pub fn new(clock: Clock) -> Self {
        Self { clock, input: BytesMut::new(), consumed: 0, at: At::Start, taken: 0, partitions: 0, last: None, seen: 0 }
    }

    /// The next bytes of the file.
    pub fn push(&mut self, bytes: &[u8]) {
        self.input.extend_from_slice(bytes);
    }

    /// The next section; none: more bytes are needed.
    pub fn next_section(&mut self) -> Result<Option<Section>, Unreadable> {
        if self.at == At::Start && !self.start()? {
            return Ok(None);
        }
        let Some((kind, body)) = self.frame()? else { return Ok(None) };
        let content = body::decode(kind, body, self.taken, self.clock).ok_or(Unreadable::Damaged(self.consumed))?;
        self.check(&content).ok_or(Unreadable::OutOfOrder(self.consumed))?;
        Ok(Some(match content {
            Content::Plain(section) => section,
            Content::Entries(records, _) => Section::Entries(records),
        }))
    }

    /// The file ends here: whether it is whole.
    pub fn finish(self) -> Result<(), Unreadable> {
        let whole = self.at == At::End && self.input.is_empty();
        if whole { Ok(()) } else { Err(Unreadable::Torn(self.consumed + self.input.len() as u64)) }
    }

    fn start(&mut self) -> Result<bool, Unreadable> {
        let known = self.input.len().min(MAGIC.len());
        if self.input[..known] != MAGIC[..known] {
            return Err(Unreadable::NoSnapshot);
        }
        if self.input.len() < MAGIC.len() + 2 {
            return Ok(false);
        }
        self.input.advance(MAGIC.len());
        let format = self.input.get_u16_le();
        self.consumed += MAGIC.len() as u64 + 2;
        self.at = At::Header;
        if format == FORMAT { Ok(true) } else { Err(Unreadable::Format(format)) }
    }

    /// Kind and body of the next section, if it is there and undamaged.
    fn frame(&mut self) -> Result<Option<(u8, Bytes)>, Unreadable> {
        const BEFORE: usize = 5;
        let Some(length) = self.input.get(1..BEFORE) else { return Ok(None) };
        let length = length.iter().rev().fold(0, |length, byte| length << 8 | usize::from(*byte));
        if length > MAX_BODY_BYTES {
            return Err(Unreadable::Damaged(self.consumed + BEFORE as u64));
        }
        if self.input.len() < length + FRAME_BYTES {
            self.input.reserve(length + FRAME_BYTES - self.input.len());
            return Ok(None);
        }
        let mut section = self.input.split_to(length + FRAME_BYTES).freeze();
        self.consumed += section.len() as u64;
        let sum = CRC.checksum(&section[..length + BEFORE]);
        let kind = section.get_u8();
        section.advance(BEFORE - 1);
        let body = section.split_to(length);
        if section.get_u32_le() == sum { Ok(Some((kind, body))) } else { Err(Unreadable::Damaged(self.consumed)) }
    }

    /// Goes on to where this section leads; none: it does not belong here.
    fn check(&mut self, content: &Content) -> Option<()> {
        self.at = match (self.at, content) {
            (At::Header, Content::Plain(Section::Header(header))) => {
                (self.taken, self.partitions) = (header.wall, header.partitions);
                At::BetweenPartitions
            }
            (At::BetweenPartitions, Content::Plain(Section::Partition { partition, .. }))
                if partition.0 < self.partitions && self.last.is_none_or(|last| last < *partition) =>
            {
                self.last = Some(*partition);
                self.seen += 1;
                At::InPartition { entries: 0 }
            }
            (At::InPartition { entries }, Content::Entries(_, count)) => {
                At::InPartition { entries: entries.checked_add(*count)? }
            }
            (At::InPartition { entries }, Content::Plain(Section::PartitionEnd { entries: wanted }))
                if entries == *wanted =>
            {
                At::BetweenPartitions
            }
            (At::BetweenPartitions, Content::Plain(Section::End { partitions })) if *partitions == self.seen => At::End,
            _ => return None,
        };
        Some(())
    }
}
