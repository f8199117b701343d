//! What a snapshot file holds, as bytes (rules S1, S2).
//!
//! ```text
//! "MIZUYASN" format:u16  section*
//! section = kind:u8 length:u32 body crc:u32      integers little-endian, CRC-32C over kind, length and body
//! sections: Header (Partition Entries* PartitionEnd)* End
//! ```
//!
//! A file is believed as a whole or not at all: a section that is damaged, missing or out of order condemns it. Bodies are
//! protobuf, so that later versions can add fields; another order of sections needs another format number.

mod body;
mod reader;
#[cfg(test)]
mod tests;

use bytes::{BufMut, BytesMut};
use crc::{CRC_32_ISCSI, Crc};

pub use self::reader::{Reader, Unreadable};
use super::{
    clock::Clock,
    cluster::{
        member::{Generation, MemberId, MemberName},
        message::Record,
        table::{ClusterId, Version},
    },
    keyspace::Partition,
};

/// The first bytes of every snapshot.
pub const MAGIC: &[u8; 8] = b"MIZUYASN";
/// Number of the format that this program writes. It reads no other.
pub const FORMAT: u16 = 1;
/// Largest body of a section: one entry with the longest value fits.
pub const MAX_BODY_BYTES: usize = 72 << 20;
/// Before and after a body.
const FRAME_BYTES: usize = 1 + 4 + 4;

const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Whose snapshot it is, and when it was taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// The cluster. Snapshots of another one are refused.
    pub cluster: ClusterId,
    /// The member that wrote it.
    pub name: MemberName,
    /// The start that wrote it.
    pub generation: Generation,
    /// Counter of the table in force.
    pub epoch: u64,
    /// Partitions of the cluster.
    pub partitions: u16,
    /// Unix time in milliseconds.
    pub wall: u64,
}

/// A part of a snapshot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Section {
    /// The first.
    Header(Header),
    /// A partition begins.
    Partition {
        /// Which.
        partition: Partition,
        /// The last change that is in it.
        last: Version,
        /// The member whose copy it was, in sync or eligible, if nothing was confirmed or acknowledged on it afterwards
        /// (rule S1). None: later changes may have been lost with the process.
        final_of: Option<MemberId>,
    },
    /// Some of its entries. Deadlines are this machine's monotonic clock's; the file has wall time.
    Entries(Vec<Record>),
    /// The partition ends.
    PartitionEnd {
        /// How many entries it has in the file.
        entries: u64,
    },
    /// The file is whole.
    End {
        /// How many partitions it has.
        partitions: u16,
    },
}

/// Begins a file.
pub fn write_start(out: &mut BytesMut) {
    out.put_slice(MAGIC);
    out.put_u16_le(FORMAT);
}

/// Appends a section. Only entries are written of changes: what is removed is not there.
pub fn write(section: &Section, clock: Clock, out: &mut BytesMut) {
    let start = out.len();
    let (kind, body) = body::encode(section, clock);
    out.put_u8(kind);
    out.put_u32_le(body.len() as u32);
    out.put_slice(&body);
    out.put_u32_le(CRC.checksum(&out[start..]));
}
