//! Volumes: what was put on disk outlives its process, and what was not is gone with it.

use std::sync::Arc;

use bytes::BytesMut;
use mizuya_node::logic::{
    clock::Clock,
    cluster::{member::Generation, table::Table},
    keyspace::Partition,
    node::{Effects, Node, Persist},
    snapshot::{self, Reader, Section},
};
use mizuya_wire::settings::Restore;
use rand::RngExt;

use crate::{cluster::Cluster, network::PLACES, queue::Event};

/// What a place's volume has.
#[derive(Clone, Default)]
pub(crate) struct Disk {
    pub(crate) table: Option<Arc<Table>>,
    pub(crate) snapshot: Option<Vec<u8>>,
}

#[derive(Default)]
pub(crate) struct Disks {
    /// What comes back; none: there are no volumes.
    pub(crate) restore: Option<Restore>,
    pub(crate) places: [Disk; PLACES],
    /// Writes so far.
    pub(crate) writes: u64,
    /// At this write all power goes: after it is on disk, or before.
    pub(crate) power_cut: Option<(u64, bool)>,
    /// Longest time that a write takes.
    pub(crate) slowest: u64,
}

/// Something that is being written.
pub(crate) enum Write {
    Table(Persist),
    Snapshot(Box<Unfinished>),
}

/// A snapshot that is being written, one partition at a time.
pub(crate) struct Unfinished {
    bytes: BytesMut,
    next: u16,
    partitions: u16,
    whole: u16,
    /// The process ends when it is written.
    ends: bool,
}

impl Cluster {
    /// Every place has a volume from now on. To be called before anything starts.
    pub(crate) fn give_volumes(&mut self, restore: Restore) {
        self.disks.restore = Some(restore);
        self.disks.slowest = 20;
        self.observer.remembers = true;
    }

    /// Gives a new start what is on its volume.
    pub(crate) fn recover(&mut self, place: usize, node: &Node, clock: Clock) {
        if self.disks.restore.is_none() {
            return;
        }
        let disk = &self.disks.places[place];
        let mut recovery = node.recover();
        let mut reader = Reader::new(clock);
        reader.push(disk.snapshot.as_deref().unwrap_or_default());
        while let Ok(Some(section)) = reader.next_section() {
            recovery.take(section);
        }
        let mut effects = Effects::default();
        recovery.finish(disk.table.as_deref().cloned(), &mut effects);
        for notice in effects.notices {
            self.note(|| format!("node-{place}: {}", notice.text));
        }
    }

    fn write_later(&mut self, place: usize, write: Write) {
        let Some(start) = self.process(place).map(|process| process.generation) else { return };
        let at = self.now + self.rng.random_range(1..=self.disks.slowest);
        self.later(at, Event::Disk(place, start, write));
    }

    /// Carries out what a node wants written.
    pub(crate) fn write(&mut self, place: usize, persist: Option<Persist>, erase: bool) {
        if self.disks.restore.is_none() {
            return;
        }
        if let Some(persist) = persist {
            self.write_later(place, Write::Table(persist));
        }
        if erase {
            self.disks.places[place].snapshot = None;
            if let Some(node) = self.node(place) {
                node.set_stored(false);
            }
        }
    }

    /// A process leaves what it has on its volume, and ends. Without a volume it just ends.
    pub(crate) fn end_in_order(&mut self, place: usize) {
        let Some(node) = self.node(place) else { return };
        if self.disks.restore.is_none() {
            return self.crash(place);
        }
        if node.has_departed() {
            self.disks.places[place] = Disk::default();
            return self.crash(place);
        }
        let mut effects = Effects::default();
        node.retire(&mut effects);
        self.carry_out(place, effects);
        self.begin_snapshot(place, true);
    }

    /// Begins a snapshot, if the node has something to leave.
    pub(crate) fn begin_snapshot(&mut self, place: usize, ends: bool) {
        let clock = self.clock(place);
        let Some(node) = self.node(place) else { return };
        let Some(header) = node.snapshot_header(clock) else {
            if ends {
                self.crash(place);
            }
            return;
        };
        let mut bytes = BytesMut::new();
        let partitions = header.partitions;
        snapshot::write_start(&mut bytes);
        snapshot::write(&Section::Header(header), clock, &mut bytes);
        let unfinished = Unfinished { bytes, next: 0, partitions, whole: 0, ends };
        self.note(|| format!("node-{place} writes a snapshot{}", if ends { " and ends" } else { "" }));
        self.write_later(place, Write::Snapshot(Box::new(unfinished)));
    }

    /// A write goes on.
    pub(crate) fn disk(&mut self, place: usize, start: Generation, write: Write) {
        if self.process(place).is_none_or(|process| process.generation != start) {
            return;
        }
        match write {
            Write::Table(persist) => {
                let table = persist.table.clone();
                if self.put(|disks| disks.places[place].table = Some(table)) {
                    let clock = self.clock(place);
                    let mut effects = Effects::default();
                    if let Some(node) = self.node(place) {
                        node.table_written(persist.number, clock, &mut effects);
                    }
                    self.carry_out(place, effects);
                }
            }
            Write::Snapshot(unfinished) if unfinished.next < unfinished.partitions => {
                self.snapshot_goes_on(place, unfinished);
            }
            Write::Snapshot(unfinished) => {
                let bytes = unfinished.bytes.to_vec();
                if self.put(|disks| disks.places[place].snapshot = Some(bytes)) {
                    if let Some(node) = self.node(place) {
                        node.set_stored(true);
                    }
                    if unfinished.ends {
                        self.crash(place);
                    }
                }
            }
        }
    }

    fn snapshot_goes_on(&mut self, place: usize, mut unfinished: Box<Unfinished>) {
        let (clock, partition) = (self.clock(place), Partition(unfinished.next));
        let Some(node) = self.node(place) else { return };
        if let Some(kept) = node.snapshot_of(partition) {
            let entries = kept.entries.len() as u64;
            let begin = Section::Partition { partition, last: kept.last, final_of: kept.final_of };
            for section in [begin, Section::Entries(kept.entries), Section::PartitionEnd { entries }] {
                snapshot::write(&section, clock, &mut unfinished.bytes);
            }
            unfinished.whole += 1;
        }
        unfinished.next += 1;
        if unfinished.next == unfinished.partitions {
            snapshot::write(&Section::End { partitions: unfinished.whole }, clock, &mut unfinished.bytes);
        }
        self.write_later(place, Write::Snapshot(unfinished));
    }

    /// Puts something on disk, unless the power goes.
    fn put(&mut self, write: impl FnOnce(&mut Disks)) -> bool {
        self.disks.writes += 1;
        let cut = self.disks.power_cut.filter(|(at, _)| *at == self.disks.writes);
        if cut.is_none_or(|(_, after)| after) {
            write(&mut self.disks);
        }
        if cut.is_some() {
            self.note(|| "the power goes".to_owned());
            for place in self.alive() {
                self.crash(place);
            }
        }
        cut.is_none()
    }
}
