//! Sees what nodes say to each other and which tables come into force, and compares it with what must not happen.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    sync::Arc,
};

use mizuya_node::logic::{
    cluster::{
        member::{Generation, State},
        message::{Forwarded, Message},
        table::{Epoch, Mark, PartitionEpoch, Table},
    },
    commands::{self, Access},
};

use crate::{
    cluster::Process,
    figures::Figures,
    invariants::{
        Finding,
        no_acknowledged_write_lost::{self, Keepers},
        one_primary_an_epoch::Speakers,
        planned_moves_lose_nothing,
        predecessor_is_silent::Answers,
    },
    shape::Class,
};

/// Tables that may come into force while one acknowledgement is under way.
const RECENT: usize = 3;

#[derive(Default)]
pub(crate) struct Observer {
    newest: Option<Arc<Table>>,
    speakers: Speakers,
    keepers: Keepers,
    answers: Answers,
    /// Forwards under way, by who asked and its number: partition, and whether it writes.
    forwards: BTreeMap<(usize, u64), (usize, bool)>,
    /// Who proposed on which table.
    proposers: BTreeMap<Epoch, BTreeSet<u64>>,
    /// So few voters are left that remember tables that old ones may come back (M is then no majority of memories).
    pub(crate) amnesia: bool,
    /// Members have volumes, which remember tables.
    pub(crate) remembers: bool,
    /// Partitions that start empty in the newest table, where that is allowed.
    pub(crate) emptied: Vec<usize>,
    /// Copies in sync in the tables before the newest: an acknowledgement may be under way while tables change.
    before: VecDeque<Vec<usize>>,
}

impl Observer {
    /// A message leaves a node.
    pub(crate) fn said(
        &mut self,
        process: &Process,
        (from, to): (usize, usize),
        message: &Message,
        figures: &mut Figures,
    ) -> Option<Finding> {
        match message {
            Message::Append(append) if !append.records.is_empty() => {
                let routing = process.node.routing();
                return self.speaks(process, routing.table.as_ref()?, append.partition.index(), append.epoch);
            }
            Message::Chunk(chunk) => figures.resyncs += u64::from(chunk.from == 0),
            Message::Confirm(confirm) => figures.replays += u64::from(confirm.gap && confirm.needs_from.is_none()),
            Message::Promise { asked: epoch, promised, .. } | Message::Taken { epoch, promised, .. } => {
                figures.refused_epochs += u64::from(promised > epoch);
            }
            Message::Prepare(epoch) => self.proposes(*epoch, figures),
            Message::Forward(forward) => {
                let writes = commands::access(&forward.words) == Access::Write;
                self.forwards.insert((from, forward.id), (forward.partition.index(), writes));
            }
            Message::Forwarded { id, outcome: Forwarded::Reply { bytes, .. } } if bytes.first() != Some(&b'-') => {
                let (partition, writes) = self.forwards.remove(&(to, *id))?;
                return writes.then(|| self.acknowledges(process, partition)).flatten();
            }
            _ => {}
        }
        None
    }

    fn proposes(&mut self, epoch: Epoch, figures: &mut Figures) {
        let Some(base) = &self.newest else { return };
        let proposers = self.proposers.entry(base.epoch).or_default();
        figures.rival_proposals += u64::from(proposers.insert(epoch.proposer) && proposers.len() == 2);
    }

    /// A node has answered a command at once.
    pub(crate) fn answers(&mut self, process: &Process, partition: usize) -> Option<Finding> {
        let routing = process.node.routing();
        let table = routing.table.as_ref()?;
        let assignment = &table.partitions[partition];
        let checked = assignment.primary() == routing.me && !self.amnesia;
        checked.then(|| self.answers.answers(table.cluster, partition, assignment.epoch)).flatten()
    }

    /// A node acknowledges a write that it has executed.
    pub(crate) fn acknowledges(&mut self, process: &Process, partition: usize) -> Option<Finding> {
        self.keepers.acknowledged(partition);
        let routing = process.node.routing();
        let table = routing.table.as_ref()?;
        let assignment = &table.partitions[partition];
        if assignment.primary() != routing.me {
            return None;
        }
        let copies =
            assignment.in_sync().count().max(self.before.iter().map(|copies| copies[partition]).max().unwrap_or(0));
        no_acknowledged_write_lost::check_acknowledgement(copies, table.live.write_quorum, partition)
            .or_else(|| self.speaks(process, table, partition, assignment.epoch))
    }

    /// Somebody speaks as a partition's primary. With M at most half of the voters two sides may do so in one epoch, until
    /// they meet (rule Q3).
    fn speaks(&mut self, process: &Process, table: &Table, partition: usize, epoch: PartitionEpoch) -> Option<Finding> {
        let majority = table.quorum as usize * 2 > table.voters().count();
        majority.then(|| self.speakers.speaks(table.cluster, partition, epoch, process.generation)).flatten()
    }

    /// A table came into force on some node.
    pub(crate) fn table(
        &mut self,
        table: &Arc<Table>,
        alive: &[Generation],
        class: Class,
        figures: &mut Figures,
    ) -> Option<Finding> {
        let before = self.newest.replace(table.clone())?;
        if before.cluster != table.cluster {
            self.amnesia = true;
            return None;
        }
        if before.epoch >= table.epoch {
            self.newest = Some(before);
            return None;
        }
        figures.tables += 1;
        Self::count(&before, table, figures);
        self.before.push_front(before.partitions.iter().map(|assignment| assignment.in_sync().count()).collect());
        self.before.truncate(RECENT);
        let pairs = before.partitions.iter().zip(&table.partitions).enumerate();
        let emptied: Vec<usize> = pairs
            .filter(|(_, (former, now))| no_acknowledged_write_lost::emptied(former, now))
            .map(|(partition, _)| partition)
            .collect();
        figures.emptied += emptied.len() as u64;
        let first = emptied.first().copied();
        let given_up = self.keepers.follow(table, &emptied).filter(|_| !self.amnesia);
        self.emptied.extend(emptied);
        let lost = first.filter(|_| !self.amnesia).and_then(|partition| match class {
            Class::Moves => Some(planned_moves_lose_nothing::check_emptied(table.epoch.counter, partition)),
            Class::Promise | Class::Strong => Some(no_acknowledged_write_lost::check_emptied(table, partition)),
            Class::Beyond | Class::Divided => None,
        });
        self.ended(alive, class);
        lost.or(given_up)
    }

    fn count(before: &Table, table: &Table, figures: &mut Figures) {
        for (former, now) in before.partitions.iter().zip(&table.partitions) {
            let dead = former.primary().is_some_and(|id| !table.is_live(id));
            let follows = now.primary().is_some_and(|id| former.in_sync().skip(1).any(|copy| copy == id));
            figures.promotions += u64::from(dead && follows);
            let eligible = former.copies.iter().filter(|copy| copy.mark == Mark::Eligible).map(|copy| copy.member);
            figures.eligible_promoted += u64::from(eligible.into_iter().any(|id| now.primary() == Some(id)));
        }
        for member in &table.members {
            let was = before.member(member.id).map(|member| member.state);
            let back = matches!(was, Some(State::Leaving(_))) && member.state == State::Active;
            figures.turned_back += u64::from(back);
        }
    }

    /// Processes ended, and only `alive` are left: is the memory of tables still a majority's?
    pub(crate) fn ended(&mut self, alive: &[Generation], class: Class) {
        let Some(table) = &self.newest else { return };
        let remember = table.voters().filter(|member| alive.contains(&member.generation)).count();
        let voters = table.voters().count();
        let majority = table.quorum as usize * 2 > voters;
        if (!self.remembers && remember < table.quorum as usize) || (!majority && class != Class::Moves) {
            self.amnesia = true;
        }
    }
}
