use bytes::Bytes;
use proptest::{collection::vec, prelude::*};

use super::*;
use crate::logic::{clock::Millis, cluster::table::PartitionEpoch, store::Op};

const CLOCK: Clock = Clock { now: Millis(50_000), wall: 1_700_000_000_000 };

fn header() -> Header {
    Header {
        cluster: ClusterId(0x1234_5678_9abc_def0_0fed_cba9_8765_4321),
        name: MemberName::from("cache-0.cache.default"),
        generation: Generation(u64::MAX),
        epoch: 7,
        partitions: 16,
        wall: CLOCK.wall,
    }
}

fn version(sequence: u64) -> Version {
    Version { epoch: PartitionEpoch(3), sequence }
}

fn put(key: &[u8], value: &[u8], expires: Option<Millis>, sequence: u64) -> Record {
    let op = Op::Put {
        map: Bytes::from_static(b"map"),
        key: Bytes::copy_from_slice(key),
        value: Bytes::copy_from_slice(value),
        expires,
    };
    Record { version: version(sequence), op }
}

/// A whole file of these partitions' entries, in pieces of three.
fn sections(partitions: &[Vec<Record>]) -> Vec<Section> {
    let mut sections = vec![Section::Header(header())];
    for (number, records) in partitions.iter().enumerate() {
        let partition = Partition(number as u16 * 2);
        sections.push(Section::Partition {
            partition,
            last: version(number as u64 + 9),
            final_of: (number % 2 == 0).then_some(MemberId(5)),
        });
        sections.extend(records.chunks(3).map(|piece| Section::Entries(piece.to_vec())));
        sections.push(Section::PartitionEnd { entries: records.len() as u64 });
    }
    sections.push(Section::End { partitions: partitions.len() as u16 });
    sections
}

fn file(sections: &[Section]) -> Vec<u8> {
    let mut out = BytesMut::new();
    write_start(&mut out);
    for section in sections {
        write(section, CLOCK, &mut out);
    }
    out.to_vec()
}

fn read(file: &[u8], step: usize, clock: Clock) -> Result<Vec<Section>, Unreadable> {
    let (mut reader, mut sections) = (Reader::new(clock), Vec::new());
    for piece in file.chunks(step) {
        reader.push(piece);
        while let Some(section) = reader.next_section()? {
            sections.push(section);
        }
    }
    reader.finish().map(|()| sections)
}

fn records() -> impl Strategy<Value = Vec<Record>> {
    let expires = prop::option::of((CLOCK.now.0..90_000).prop_map(Millis));
    let record = (vec(any::<u8>(), 0..20), vec(any::<u8>(), 0..200), expires, any::<u64>())
        .prop_map(|(key, value, expires, sequence)| put(&key, &value, expires, sequence));
    vec(record, 0..8)
}

proptest! {
    #[test]
    fn what_is_written_is_read(partitions in vec(records(), 0..6), step in 1..400_usize) {
        let sections = sections(&partitions);
        prop_assert_eq!(read(&file(&sections), step, CLOCK), Ok(sections));
    }

    #[test]
    fn a_file_that_was_cut_is_refused(partitions in vec(records(), 0..4), at in any::<prop::sample::Index>()) {
        let file = file(&sections(&partitions));
        prop_assert!(read(&file[..at.index(file.len())], 100, CLOCK).is_err());
    }

    #[test]
    fn a_file_with_one_wrong_byte_is_refused(partitions in vec(records(), 0..4), at in any::<prop::sample::Index>(), flip in 1..=255_u8) {
        let mut file = file(&sections(&partitions));
        let at = at.index(file.len());
        file[at] ^= flip;
        prop_assert!(read(&file, 100, CLOCK).is_err());
    }

    #[test]
    fn sections_that_are_missing_or_twice_are_noticed(partitions in vec(records(), 1..4), at in any::<prop::sample::Index>(), twice in any::<bool>()) {
        let mut sections = sections(&partitions);
        let at = at.index(sections.len());
        let section = sections.remove(at);
        if twice {
            sections.splice(at..at, [section.clone(), section]);
        }
        prop_assert!(read(&file(&sections), 1000, CLOCK).is_err());
    }

    #[test]
    fn anything_at_all_ends_in_an_error_and_no_panic(mut bytes in vec(any::<u8>(), 0..300), honest in any::<bool>()) {
        if honest {
            bytes.splice(0..0, MAGIC.iter().copied().chain(FORMAT.to_le_bytes()));
        }
        prop_assert!(read(&bytes, 7, CLOCK).is_err());
    }
}

#[test]
fn deadlines_go_on_at_wall_time_and_are_dropped_where_it_cannot_be_trusted() {
    let records = vec![
        put(b"for ever", b"1", None, 1),
        put(b"soon over", b"2", Some(Millis(CLOCK.now.0 + 1_000)), 2),
        put(b"later", b"3", Some(Millis(CLOCK.now.0 + 60_000)), 3),
    ];
    let file = file(&sections(&[records]));
    let kept = |clock: Clock| {
        let sections = read(&file, 4096, clock).unwrap();
        let entries = sections.into_iter().find_map(|section| match section {
            Section::Entries(records) => Some(records),
            _ => None,
        });
        let seen = |record: Record| match record.op {
            Op::Put { key, expires, .. } => (String::from_utf8_lossy(&key).into_owned(), expires),
            other => panic!("{other:?}"),
        };
        entries.unwrap().into_iter().map(seen).collect::<Vec<_>>()
    };
    // Another start of the machine, ten seconds later.
    let later = Clock { now: Millis(100), wall: CLOCK.wall + 10_000 };
    assert_eq!(kept(later), [("for ever".to_owned(), None), ("later".to_owned(), Some(Millis(50_100)))]);
    let back = Clock { now: Millis(100), wall: CLOCK.wall - 1 };
    assert_eq!(kept(back), [("for ever".to_owned(), None)]);
}

#[test]
fn other_formats_are_named() {
    let mut file = file(&sections(&[]));
    file[8] = 2;
    assert_eq!(read(&file, 64, CLOCK), Err(Unreadable::Format(2)));
    assert_eq!(read(b"REDIS0011", 64, CLOCK), Err(Unreadable::NoSnapshot));
    assert_eq!(read(b"", 64, CLOCK), Err(Unreadable::Torn(0)));
}
