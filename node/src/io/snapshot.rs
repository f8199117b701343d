//! The snapshot file on disk (rules S1, S2). These calls block; a runtime's worker must not make them.
//!
//! A file that cannot be used is set aside under another name and reported, never served and never in the way.

use std::{
    fs::File,
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use bytes::BytesMut;

use super::files;
use crate::logic::{
    clock::Clock,
    cluster::message::Record,
    snapshot::{self, Header, Reader, Section, Unreadable},
    store::Op,
};

/// The file's name in its folder.
pub const FILE: &str = "partitions.snapshot";
/// Read at a time.
const READ: usize = 256 << 10;

/// What a folder had.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// No snapshot.
    Nothing,
    /// A whole one; all its sections were given.
    Whole,
    /// One that cannot be used, and why. It stands under this name now, in place of an earlier one.
    SetAside(PathBuf, String),
}

/// Writes a snapshot in place of the one that is there. On an error that one stays. Returns the bytes written.
pub fn write(folder: &Path, sections: impl Iterator<Item = Section>, clock: Clock) -> io::Result<u64> {
    files::replace(folder, FILE, |file| {
        let (mut buffer, mut written) = (BytesMut::new(), 0);
        snapshot::write_start(&mut buffer);
        for section in sections {
            snapshot::write(&section, clock, &mut buffer);
            if buffer.len() >= READ {
                file.write_all(&buffer)?;
                written += buffer.len() as u64;
                buffer.clear();
            }
        }
        file.write_all(&buffer)?;
        Ok(written + buffer.len() as u64)
    })
}

/// Entries in sections of about `max_bytes`.
pub fn sections_of(entries: Vec<Record>, max_bytes: usize) -> Vec<Section> {
    let (mut sections, mut section, mut bytes) = (Vec::new(), Vec::new(), 0);
    for record in entries {
        if let Op::Put { map, key, value, .. } = &record.op {
            bytes += map.len() + key.len() + value.len();
        }
        section.push(record);
        if bytes >= max_bytes {
            sections.push(Section::Entries(std::mem::take(&mut section)));
            bytes = 0;
        }
    }
    if !section.is_empty() {
        sections.push(Section::Entries(section));
    }
    sections
}

/// Gives every section of the folder's snapshot to `take`, after the whole file was found good. `refuses` says why it is
/// not this member's.
pub fn read(
    folder: &Path,
    clock: Clock,
    refuses: impl Fn(&Header) -> Option<String>,
    mut take: impl FnMut(Section),
) -> io::Result<Found> {
    let path = folder.join(FILE);
    files::remove_unfinished(folder, FILE)?;
    let mut refused = None;
    let mut look = |section: Section| {
        if let Section::Header(header) = section {
            refused = refuses(&header);
        }
    };
    let judged = match pass(&path, clock, &mut look) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Found::Nothing),
        other => other?,
    };
    let why = judged.err().map(|reason: Unreadable| reason.to_string()).or(refused);
    if let Some(why) = why {
        return Ok(Found::SetAside(files::set_aside(folder, FILE)?, why));
    }
    pass(&path, clock, &mut take)?.map_err(io::Error::other)?;
    Ok(Found::Whole)
}

/// Removes the folder's snapshot: a drained node has nothing to come back with (rule S2).
pub fn erase(folder: &Path) -> io::Result<()> {
    files::remove(folder, FILE)
}

fn pass(path: &Path, clock: Clock, take: &mut impl FnMut(Section)) -> io::Result<Result<(), Unreadable>> {
    let mut file = File::open(path)?;
    let (mut reader, mut buffer) = (Reader::new(clock), vec![0; READ]);
    loop {
        let count = match file.read(&mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            count => count?,
        };
        if count == 0 {
            return Ok(reader.finish());
        }
        reader.push(&buffer[..count]);
        loop {
            match reader.next_section() {
                Ok(Some(section)) => take(section),
                Ok(None) => break,
                Err(reason) => return Ok(Err(reason)),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::logic::{
        clock::Millis,
        cluster::{
            member::{Generation, MemberName},
            table::ClusterId,
        },
        snapshot::Header,
    };

    const UNFINISHED: &str = "partitions.snapshot.new";
    const CLOCK: Clock = Clock { now: Millis(1), wall: 1_700_000_000_000 };

    fn sections(epoch: u64) -> Vec<Section> {
        let header = Header {
            cluster: ClusterId(1),
            name: MemberName::from("a"),
            generation: Generation(2),
            epoch,
            partitions: 4,
            wall: CLOCK.wall,
        };
        vec![Section::Header(header), Section::End { partitions: 0 }]
    }

    fn load(folder: &Path) -> (Found, Vec<Section>) {
        let mut sections = Vec::new();
        let found = read(
            folder,
            CLOCK,
            |header| (header.cluster != ClusterId(1)).then(|| "it is foreign".to_owned()),
            |section| sections.push(section),
        )
        .unwrap();
        (found, sections)
    }

    #[test]
    fn the_newest_whole_file_is_read() {
        let folder = tempfile::tempdir().unwrap();
        assert_eq!(load(folder.path()), (Found::Nothing, vec![]));
        for epoch in [1, 2] {
            write(folder.path(), sections(epoch).into_iter(), CLOCK).unwrap();
        }
        // As left behind by a process that was killed while it wrote.
        fs::write(folder.path().join(UNFINISHED), b"MIZU").unwrap();
        assert_eq!(load(folder.path()), (Found::Whole, sections(2)));
        assert!(!folder.path().join(UNFINISHED).exists());
        erase(folder.path()).unwrap();
        assert_eq!(load(folder.path()), (Found::Nothing, vec![]));
        erase(folder.path()).unwrap();
    }

    #[test]
    fn a_damaged_file_is_set_aside_and_nothing_of_it_is_given() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), sections(1).into_iter(), CLOCK).unwrap();
        let path = folder.path().join(FILE);
        let mut bytes = fs::read(&path).unwrap();
        let last = bytes.len() - 1;
        bytes[last] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let (found, given) = load(folder.path());
        let aside = folder.path().join("partitions.snapshot.unreadable");
        assert_eq!(found, Found::SetAside(aside.clone(), Unreadable::Damaged(bytes.len() as u64).to_string()));
        assert_eq!(given, vec![]);
        assert_eq!(fs::read(aside).unwrap(), bytes);
        assert_eq!(load(folder.path()).0, Found::Nothing);
    }

    #[test]
    fn a_foreign_file_is_set_aside() {
        let folder = tempfile::tempdir().unwrap();
        let mut foreign = sections(1);
        if let Section::Header(header) = &mut foreign[0] {
            header.cluster = ClusterId(2);
        }
        write(folder.path(), foreign.into_iter(), CLOCK).unwrap();
        let aside = folder.path().join("partitions.snapshot.unreadable");
        assert_eq!(load(folder.path()), (Found::SetAside(aside, "it is foreign".to_owned()), vec![]));
        assert_eq!(load(folder.path()).0, Found::Nothing);
    }

    #[test]
    fn a_file_that_cannot_be_written_leaves_the_one_that_is_there() {
        let folder = tempfile::tempdir().unwrap();
        write(folder.path(), sections(1).into_iter(), CLOCK).unwrap();
        fs::create_dir(folder.path().join(UNFINISHED)).unwrap();
        assert!(write(folder.path(), sections(2).into_iter(), CLOCK).is_err());
        fs::remove_dir(folder.path().join(UNFINISHED)).unwrap();
        assert_eq!(load(folder.path()), (Found::Whole, sections(1)));
    }
}
