//! The volume of a member: threads of its own write tables and snapshots, so that nobody else waits for a disk
//! (rules S1, S2).
//!
//! Two threads: a table holds up an answer to the coordinator, so it must not stand behind a snapshot.

mod table_file;

use std::{
    fs, io,
    path::{Path, PathBuf},
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
    thread,
    time::Duration,
};

use tokio::sync::oneshot;
use tokio_util::sync::CancellationToken;

use super::{
    runtime::Runtime,
    snapshot::{self, Found},
};
use crate::logic::{
    clock::Clock,
    keyspace::Partition,
    node::{Effects, Node, Persist},
    snapshot::Section,
};

/// Bytes of entries in one section of a snapshot, about.
const SECTION_BYTES: usize = 1 << 20;

/// A member's volume.
pub struct Volume {
    folder: PathBuf,
    tables: Sender<Persist>,
    snapshots: Sender<Order>,
    figures: Figures,
}

/// What was written.
#[derive(Debug, Default)]
pub struct Figures {
    /// Snapshots that were written whole.
    pub snapshots: AtomicU64,
    /// Snapshots that could not be written.
    pub failed: AtomicU64,
    /// Bytes of the last one.
    pub bytes: AtomicU64,
}

enum Order {
    Snapshot,
    Final(oneshot::Sender<()>),
    Erase,
}

/// What the threads of a volume wait for.
pub struct Inboxes {
    tables: Receiver<Persist>,
    snapshots: Receiver<Order>,
}

impl Volume {
    /// A volume in this folder, which is made if it is not there.
    pub fn open(folder: &Path) -> io::Result<(Self, Inboxes)> {
        fs::create_dir_all(folder)?;
        let (tables, table_inbox) = channel();
        let (snapshots, snapshot_inbox) = channel();
        let figures = Figures::default();
        let inboxes = Inboxes { tables: table_inbox, snapshots: snapshot_inbox };
        Ok((Self { folder: folder.to_owned(), tables, snapshots, figures }, inboxes))
    }

    /// Gives a new node what an earlier start left.
    pub fn recover(&self, node: &Node, clock: Clock, effects: &mut Effects) -> io::Result<()> {
        let mut recovery = node.recover();
        let found = {
            let refuses = |header: &_| node.recover().refuses(header);
            snapshot::read(&self.folder, clock, refuses, |section| recovery.take(section))?
        };
        if let Found::SetAside(path, why) = found {
            tracing::error!("the snapshot is not used and stands as {} now: {why}", path.display());
        }
        let table = table_file::read(&self.folder)?;
        recovery.finish(table, effects);
        Ok(())
    }

    /// Figures for the metrics.
    pub fn figures(&self) -> &Figures {
        &self.figures
    }

    /// Carries out what the node wants written. The threads end with the runtime.
    pub fn carry_out(&self, persist: Option<Persist>, erase: bool) {
        if let Some(persist) = persist {
            let _ = self.tables.send(persist);
        }
        if erase {
            let _ = self.snapshots.send(Order::Erase);
        }
    }

    /// Writes what this member leaves, after it has ended its part.
    pub async fn write_final(&self) {
        let (done, written) = oneshot::channel();
        let _ = self.snapshots.send(Order::Final(done));
        let _ = written.await;
    }
}

/// Starts the threads of a runtime's volume.
pub fn start(runtime: &Arc<Runtime>, inboxes: Inboxes) -> io::Result<()> {
    let (weak, Inboxes { tables, snapshots }) = (Arc::downgrade(runtime), inboxes);
    let same = weak.clone();
    thread::Builder::new().name("volume-tables".to_owned()).spawn(move || write_tables(&weak, &tables))?;
    thread::Builder::new().name("volume-snapshots".to_owned()).spawn(move || write_snapshots(&same, &snapshots))?;
    Ok(())
}

/// Has snapshots written again and again.
pub async fn run_periodic(runtime: Arc<Runtime>, interval: Duration, stop: CancellationToken) {
    loop {
        tokio::select! {
            () = tokio::time::sleep(interval) => {}
            () = stop.cancelled() => return,
        }
        if let Some(volume) = runtime.volume() {
            let _ = volume.snapshots.send(Order::Snapshot);
        }
    }
}

fn write_tables(runtime: &Weak<Runtime>, inbox: &Receiver<Persist>) {
    let mut newest = 0;
    while let Ok(mut persist) = inbox.recv() {
        while let Ok(next) = inbox.try_recv() {
            persist = if next.number > persist.number { next } else { persist };
        }
        let Some(runtime) = runtime.upgrade() else { return };
        let Some(volume) = runtime.volume() else { return };
        if persist.number <= newest {
            continue;
        }
        newest = persist.number;
        match table_file::write(&volume.folder, &persist.table) {
            Ok(()) => runtime.with_effects(|node, clock, _, effects| node.table_written(newest, clock, effects)),
            Err(error) => {
                // What is there is out of date from now on.
                let _ = table_file::erase(&volume.folder);
                let why = format!("{}: {error}", volume.folder.display());
                runtime.with_effects(|node, clock, _, effects| node.volume_failed(&why, clock, effects));
                return;
            }
        }
    }
}

fn write_snapshots(runtime: &Weak<Runtime>, inbox: &Receiver<Order>) {
    while let Ok(order) = inbox.recv() {
        let Some(runtime) = runtime.upgrade() else { return };
        let Some(volume) = runtime.volume() else { return };
        match order {
            Order::Erase => erase(&runtime, volume),
            Order::Snapshot => write_snapshot(&runtime, volume),
            Order::Final(done) => {
                if runtime.node().has_departed() {
                    erase(&runtime, volume);
                    let _ = table_file::erase(&volume.folder);
                } else {
                    runtime.with_effects(|node, _, _, effects| node.retire(effects));
                    write_snapshot(&runtime, volume);
                }
                let _ = done.send(());
            }
        }
    }
}

fn erase(runtime: &Runtime, volume: &Volume) {
    match snapshot::erase(&volume.folder) {
        Ok(()) => runtime.node().set_stored(false),
        Err(error) => {
            let why = format!("the snapshot in {} could not be removed: {error}", volume.folder.display());
            runtime.with_effects(|node, clock, _, effects| node.volume_failed(&why, clock, effects));
        }
    }
}

fn write_snapshot(runtime: &Runtime, volume: &Volume) {
    let (node, clock) = (runtime.node(), runtime.clock());
    let Some(header) = node.snapshot_header(clock) else { return };
    let partitions = header.partitions;
    let sections = std::iter::once(Section::Header(header)).chain(body(node, partitions));
    match snapshot::write(&volume.folder, sections, clock) {
        Ok(bytes) => {
            volume.figures.snapshots.fetch_add(1, Ordering::Relaxed);
            volume.figures.bytes.store(bytes, Ordering::Relaxed);
            node.set_stored(true);
            tracing::info!(bytes, ms = runtime.clock().now.since(clock.now), "snapshot written");
        }
        Err(error) => {
            volume.figures.failed.fetch_add(1, Ordering::Relaxed);
            let why = format!("a snapshot could not be written to {}: {error}", volume.folder.display());
            runtime.with_effects(|node, clock, _, effects| node.volume_failed(&why, clock, effects));
            // It is out of date from now on.
            let _ = table_file::erase(&volume.folder);
        }
    }
}

/// Every partition as it is when its turn comes: only one at a time is read, and its values are shared, not copied.
fn body(node: &Node, partitions: u16) -> impl Iterator<Item = Section> + '_ {
    let mut whole = 0;
    (0..=partitions).flat_map(move |number| {
        if number == partitions {
            return vec![Section::End { partitions: whole }];
        }
        let partition = Partition(number);
        let Some(kept) = node.snapshot_of(partition) else { return Vec::new() };
        whole += 1;
        let entries = kept.entries.len() as u64;
        let mut sections = vec![Section::Partition { partition, last: kept.last, final_of: kept.final_of }];
        sections.extend(snapshot::sections_of(kept.entries, SECTION_BYTES));
        sections.push(Section::PartitionEnd { entries });
        sections
    })
}
