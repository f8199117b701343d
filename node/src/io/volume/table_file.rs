//! The highest table that this member has taken, in a file (rule S2).
//!
//! ```text
//! "MIZUYATB" format:u16 body crc:u32      integers little-endian, CRC-32C over all before it; the body is protobuf
//! ```

use std::{fs, io, path::Path};

use bytes::{BufMut, Bytes, BytesMut};
use crc::{CRC_32_ISCSI, Crc};
use mizuya_wire::peer as wire;
use prost::Message;

use crate::{
    io::{
        files::{remove, replace, set_aside},
        peer::convert,
    },
    logic::cluster::table::Table,
};

const FILE: &str = "table";
const MAGIC: &[u8; 8] = b"MIZUYATB";
const FORMAT: u16 = 1;
const CRC: Crc<u32> = Crc::<u32>::new(&CRC_32_ISCSI);

/// Why a file is no table that can be used.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
enum Unreadable {
    #[error("it does not begin as a table does")]
    NoTable,
    #[error("it has format {0}, and this program reads format {FORMAT} only")]
    Format(u16),
    #[error("its bytes are damaged")]
    Damaged,
}

/// Writes a table in place of the one that is there. It is on disk when this returns.
pub(super) fn write(folder: &Path, table: &Table) -> io::Result<()> {
    let mut bytes = BytesMut::new();
    bytes.put_slice(MAGIC);
    bytes.put_u16_le(FORMAT);
    bytes.put_slice(&convert::table_out(table).encode_to_vec());
    let sum = CRC.checksum(&bytes);
    bytes.put_u32_le(sum);
    replace(folder, FILE, |file| io::Write::write_all(file, &bytes))
}

/// The table that is there. A file that cannot be used is set aside.
pub(super) fn read(folder: &Path) -> io::Result<Option<Table>> {
    let bytes = match fs::read(folder.join(FILE)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    match decode(&bytes) {
        Ok(table) => Ok(Some(table)),
        Err(why) => {
            let aside = set_aside(folder, FILE)?;
            tracing::error!("the table on the volume is not used and stands as {} now: {why}", aside.display());
            Ok(None)
        }
    }
}

/// Removes it.
pub(super) fn erase(folder: &Path) -> io::Result<()> {
    remove(folder, FILE)
}

fn decode(bytes: &[u8]) -> Result<Table, Unreadable> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(Unreadable::NoTable)?;
    let (format, rest) = rest.split_first_chunk().ok_or(Unreadable::Damaged)?;
    let format = u16::from_le_bytes(*format);
    if format != FORMAT {
        return Err(Unreadable::Format(format));
    }
    let (body, sum) = rest.split_last_chunk().ok_or(Unreadable::Damaged)?;
    if CRC.checksum(&bytes[..bytes.len() - sum.len()]) != u32::from_le_bytes(*sum) {
        return Err(Unreadable::Damaged);
    }
    let table = wire::Table::decode(Bytes::copy_from_slice(body)).map_err(|_| Unreadable::Damaged)?;
    convert::table_in(table).map_err(|_| Unreadable::Damaged)
}

#[cfg(test)]
mod tests {
    use mizuya_wire::quorum::MemberQuorum;

    use super::*;
    use crate::logic::cluster::table::{Assignment, ClusterId, Epoch, Live};

    fn table(counter: u64) -> Table {
        Table {
            cluster: ClusterId(7),
            epoch: Epoch { counter, proposer: 3 },
            hash_seed: 1,
            live: Live { generation: 0, factor: 2, read_quorum: 1, write_quorum: 1, member_quorum: MemberQuorum::Auto },
            quorum: 1,
            next_member: 2,
            members: Vec::new(),
            partitions: vec![Assignment::default(); 4],
        }
    }

    #[test]
    fn the_last_table_that_was_written_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        write(folder.path(), &table(1)).unwrap();
        write(folder.path(), &table(2)).unwrap();
        assert_eq!(read(folder.path()).unwrap(), Some(table(2)));
        erase(folder.path()).unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
    }

    #[test]
    fn what_is_damaged_cut_or_newer_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), &table(1)).unwrap();
        let good = fs::read(folder.path().join(FILE)).unwrap();
        for at in 0..good.len() {
            let mut bad = good.clone();
            bad[at] ^= 1;
            assert!(decode(&bad).is_err(), "byte {at}");
            assert!(decode(&good[..at]).is_err(), "cut at {at}");
        }
        let mut newer = good.clone();
        newer[8] = 2;
        assert_eq!(decode(&newer), Err(Unreadable::Format(2)));
        fs::write(folder.path().join(FILE), &newer).unwrap();
        assert_eq!(read(folder.path()).unwrap(), None);
        assert_eq!(fs::read(folder.path().join("table.unreadable")).unwrap(), newer);
    }
}
