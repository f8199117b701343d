//! A member with a volume: what is to be written there, when a table may be confirmed, and what an earlier start left
//! (rules S1, S2).
//!
//! Without one nothing of this costs anything: no table waits, and no partition is read.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{Clock, Effects, Level, Millis, Node, control::Control};
use crate::logic::{
    cluster::{
        member::{Intent, MemberId, State},
        memory::{Keeps, Kept, Memory},
        next_table::Restoring,
        replica,
        table::{Assignment, Table},
    },
    keyspace::Partition,
    snapshot::{Header, Section},
};

/// How long a table may take to be on disk, before the volume counts as failed.
const STUCK: Duration = Duration::from_secs(10);

/// A table that io is to write and fsync before it reports [`Node::table_written`]. A lower number than one that was
/// written is out of date and need not be written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Persist {
    /// Rises with each.
    pub number: u64,
    /// The table.
    pub table: Arc<Table>,
}

/// What a member knows of its volume.
#[derive(Default)]
pub(super) struct Volume {
    works: bool,
    /// Why it is not used any more.
    pub(super) failed: Option<String>,
    /// Tables given to io.
    asked: u64,
    last_asked: Option<Arc<Table>>,
    /// Since when the last of them is not on disk yet.
    writing: Option<Millis>,
    pub(super) memory: Memory,
    retired: bool,
}

impl Volume {
    pub(super) fn new(present: bool) -> Self {
        Self { works: present, ..Self::default() }
    }

    /// A table is to be on disk before it is confirmed.
    pub(super) fn write(&mut self, table: &Arc<Table>, now: Millis, effects: &mut Effects) {
        if !self.works || self.last_asked.as_ref().is_some_and(|asked| asked.epoch == table.epoch) {
            return;
        }
        self.asked += 1;
        self.writing = self.writing.or(Some(now));
        self.last_asked = Some(table.clone());
        effects.persist = Some(Persist { number: self.asked, table: table.clone() });
    }

    /// Whether a table that was taken is not on disk yet: it must not be confirmed.
    pub(super) fn is_behind(&self) -> bool {
        self.works && self.writing.is_some()
    }

    /// Whether a write takes so long that the cluster must not wait for it.
    pub(super) fn is_stuck(&self, now: Millis) -> bool {
        self.works && self.writing.is_some_and(|since| now >= since + STUCK)
    }

    pub(super) fn is_retired(&self) -> bool {
        self.retired
    }

    /// What a hello says of it.
    pub(super) fn told(&self, has_table: bool) -> Memory {
        let table = self.memory.table.clone().filter(|_| !has_table);
        Memory { table, kept: self.memory.kept.clone() }
    }
}

impl Node {
    /// A table is on disk.
    pub fn table_written(&self, number: u64, clock: Clock, effects: &mut Effects) {
        let mut guard = self.control.lock();
        let control = &mut *guard;
        if number >= control.volume.asked {
            control.volume.writing = None;
        }
        self.finish_taking(control, clock, effects);
        self.loop_back(control, clock, effects);
    }

    /// The volume takes nothing any more: this start goes on with its memory alone.
    pub fn volume_failed(&self, why: &str, clock: Clock, effects: &mut Effects) {
        let mut guard = self.control.lock();
        self.fail_volume(&mut guard, why, clock, effects);
    }

    pub(super) fn fail_volume(&self, control: &mut Control, why: &str, clock: Clock, effects: &mut Effects) {
        if std::mem::replace(&mut control.volume.works, false) {
            effects.say(Level::Error, format!("nothing can be kept on the volume until the next start: {why}"));
            control.volume.failed = Some(why.to_owned());
        }
        self.finish_taking(control, clock, effects);
        self.loop_back(control, clock, effects);
    }

    /// Whether a snapshot is on the volume now.
    pub fn set_stored(&self, stored: bool) {
        self.stored.store(stored, Ordering::Relaxed);
    }

    /// Partitions that came back from the volume, and those of them whose snapshot was not final.
    pub fn restored(&self) -> (u64, u64) {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        (load(&self.counters.restored_partitions), load(&self.counters.restored_lossy))
    }

    // ---- what an earlier start left

    /// What is on the volume. To be called before anything else.
    pub fn recover(&self) -> Recovery<'_> {
        Recovery { node: self, keeps: Keeps::default(), open: None }
    }

    /// Entries of another cluster are of no use in this one.
    pub(super) fn drop_foreign(&self, control: &mut Control, table: &Table, effects: &mut Effects) {
        let kept = &control.volume.memory.kept;
        if kept.partitions.is_empty() || kept.cluster == table.cluster {
            return;
        }
        effects.say(Level::Warn, "the snapshot on the volume is another cluster's and is not used");
        for kept in &kept.partitions {
            self.with_bytes(&self.replicas[kept.partition.index()], replica::Replica::forget_kept);
        }
        control.volume.memory.kept = Arc::default();
    }

    /// What the members that run have kept of earlier starts, while a partition has nobody (rule S1).
    pub(super) fn restoring(&self, control: &Control, table: &Table) -> Option<Restoring> {
        let restore = self.config.restore?;
        let held = |id: MemberId| table.is_live(id);
        let mut returned = BTreeMap::new();
        if !table.partitions.iter().all(|assignment| assignment.copies.iter().any(|copy| held(copy.member))) {
            for member in table.live() {
                let own = member.name == *self.name();
                let heard = control.heard.get(&member.name).map(|heard| &heard.hello);
                let told = heard.filter(|hello| hello.generation == member.generation).map(|hello| &hello.memory.kept);
                if let Some(kept) = if own { Some(&control.volume.memory.kept) } else { told } {
                    returned.insert(member.id, kept.clone());
                }
            }
        }
        Some(Restoring { lossy: restore == mizuya_wire::settings::Restore::Lossy, returned })
    }

    // ---- what this start leaves

    /// Ends this member's part in every partition, so that what it leaves is final (rule S1). It executes and confirms
    /// nothing from here on.
    pub fn retire(&self, effects: &mut Effects) {
        let mut control = self.control.lock();
        let me = control.voter.in_force().and_then(|table| self.own(table)).map(|member| member.id);
        let Some(me) = me else { return };
        control.volume.retired = true;
        let mut due = Vec::new();
        for replica in &self.replicas {
            replica.lock().retire(me, &mut due);
        }
        drop(control);
        self.reply_all(due, effects);
    }

    /// Begins a snapshot: its header, or none if nothing is to be left now. Once [`Node::retire`]d it is the final one;
    /// before, it waits until nothing of an earlier start waits for its part.
    pub fn snapshot_header(&self, clock: Clock) -> Option<Header> {
        let control = self.control.lock();
        let identity = &self.config.identity;
        let table = control.voter.in_force()?;
        let me = self.own(table)?;
        let departs = me.state == State::Leaving(Intent::Depart);
        let holds = table.partitions.iter().any(|assignment| assignment.holds(me.id));
        let retired = control.volume.retired;
        if departs && !(retired && holds) || !retired && self.replicas.iter().any(|replica| replica.lock().is_kept()) {
            return None;
        }
        Some(Header {
            cluster: table.cluster,
            name: identity.name.clone(),
            generation: identity.generation,
            epoch: table.epoch.counter,
            partitions: self.config.partitions,
            wall: clock.wall,
        })
    }

    /// One partition for a snapshot, unless it has nothing whole here.
    pub fn snapshot_of(&self, partition: Partition) -> Option<replica::Kept> {
        self.replicas[partition.index()].lock().for_snapshot()
    }

    /// Whether this member has left for good: what is on its volume is of no use to anybody.
    pub fn has_departed(&self) -> bool {
        let control = self.control.lock();
        control.voter.in_force().is_some_and(|table| match self.own(table) {
            None => control.leaving.is_some(),
            Some(me) => me.state == State::Leaving(Intent::Depart) && !table.partitions.iter().any(|a| a.holds(me.id)),
        })
    }
}

/// Takes the sections of a snapshot that was found good.
pub struct Recovery<'a> {
    node: &'a Node,
    keeps: Keeps,
    open: Option<(Kept, u64)>,
}

impl Recovery<'_> {
    /// Why a snapshot is not this member's.
    pub fn refuses(&self, header: &Header) -> Option<String> {
        let config = &self.node.config;
        if header.name != config.identity.name {
            return Some(format!("it is of {}, and this is {}", header.name, config.identity.name));
        }
        (header.partitions != config.partitions)
            .then(|| format!("it has {} partitions, and the settings say {}", header.partitions, config.partitions))
    }

    /// The next section.
    pub fn take(&mut self, section: Section) {
        match section {
            Section::Header(header) => self.keeps.cluster = header.cluster,
            Section::Partition { partition, last, final_of } => {
                self.open = Some((Kept { partition, last, final_of }, 0));
            }
            Section::Entries(records) => {
                let Some((kept, count)) = &mut self.open else { return };
                *count += records.len() as u64;
                self.node.with_bytes(&self.node.replicas[kept.partition.index()], |replica| replica.keep(&records));
            }
            Section::PartitionEnd { entries } => {
                let Some((kept, count)) = self.open.take() else { return };
                let replica = &self.node.replicas[kept.partition.index()];
                replica.lock().keep_until(kept.last, kept.final_of, count == entries);
                if self.node.over_budget() {
                    self.node.with_bytes(replica, replica::Replica::forget_kept);
                } else {
                    self.keeps.partitions.push(kept);
                }
            }
            Section::End { .. } => {}
        }
    }

    /// All that there was, and the table beside it.
    pub fn finish(self, table: Option<Table>, effects: &mut Effects) {
        let count = self.keeps.partitions.len();
        if count > 0 {
            effects.say(Level::Info, format!("{count} partitions of an earlier start are here as a base"));
        }
        self.node.set_stored(count > 0);
        let table = table.filter(|table| table.partition_count() == self.node.config.partitions);
        self.node.control.lock().volume.memory = Memory { table: table.map(Arc::new), kept: Arc::new(self.keeps) };
    }
}

/// Partitions that came back with a table.
#[derive(Default)]
pub(super) struct Restored {
    pub(super) partitions: u64,
    /// Of those, the ones whose snapshot was not final.
    pub(super) lossy: u64,
}

impl Restored {
    /// `kept` is what waited here before the table, and `former` who held it.
    pub(super) fn count(&mut self, kept: Option<replica::Held>, former: Option<&Assignment>) {
        let Some(kept) = kept else { return };
        let held =
            |id: MemberId| former.is_none_or(|former| former.copies.iter().any(|c| c.has_all() && c.member == id));
        self.partitions += 1;
        self.lossy += u64::from(!kept.final_of.is_some_and(held));
    }

    pub(super) fn say(&self, effects: &mut Effects) {
        if self.partitions > 0 {
            effects.say(Level::Info, format!("{} partitions are back from the snapshot", self.partitions));
        }
        if self.lossy > 0 {
            let text = "of them came from a snapshot that is not final: what was written later is lost, and keys that \
                        were deleted later are back (restore: lossy)";
            effects.say(Level::Error, format!("{} {text}", self.lossy));
        }
    }
}
