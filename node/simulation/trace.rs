//! What happened, for people: kept only when a history is replayed.

use std::sync::OnceLock;

use mizuya_node::logic::cluster::{member::Member, message::Message, table::Table};

use crate::{invariants::Finding, ledger::Name};

#[derive(Default)]
pub(crate) struct Trace {
    kept: bool,
    lines: Vec<String>,
    /// An entry whose commands are traced.
    pub(crate) watched: Option<Name>,
    /// Two runs of one seed must agree on this.
    pub(crate) digest: u64,
}

impl Trace {
    pub(crate) fn kept() -> Self {
        Self { kept: true, ..Self::default() }
    }

    pub(crate) fn watching(watched: Option<Name>) -> Self {
        Self { watched, ..Self::kept() }
    }

    pub(crate) fn say(&mut self, now: u64, text: impl FnOnce() -> String) {
        if self.kept {
            self.lines.push(format!("{now:>7} {}", text()));
        }
    }

    /// Keeps the first finding. `UNTIL` names the only invariant that counts.
    pub(crate) fn found(&mut self, known: &mut Option<Finding>, now: u64, finding: Option<Finding>) {
        let Some(finding) = finding.filter(|finding| known.is_none() && counts(finding)) else { return };
        self.say(now, || format!("FOUND {}: {}", finding.invariant, finding.text));
        *known = Some(finding);
    }

    pub(crate) fn about(&mut self, now: u64, name: Name, text: impl FnOnce() -> String) {
        if self.watched == Some(name) {
            self.say(now, text);
        }
    }

    pub(crate) fn mix(&mut self, number: u64) {
        self.digest = (self.digest.rotate_left(5) ^ number).wrapping_mul(0x9E37_79B9_7F4A_7C15);
    }

    /// Messages about tables, and those of the watched entry's partition.
    pub(crate) fn frame(&mut self, now: u64, from: usize, to: usize, messages: &[Message]) {
        self.mix((now << 8) ^ ((from as u64) << 4) ^ to as u64 ^ ((messages.len() as u64) << 40));
        if !self.kept {
            return;
        }
        let partition = self.watched.map(crate::client::partition);
        for message in messages {
            let text = match message {
                Message::Prepare(epoch) => format!("prepare {}.{:x}", epoch.counter, epoch.proposer),
                Message::Promise { asked, promised, taken } => format!(
                    "promise asked {}.{:x} promised {}.{:x} taken {:?}",
                    asked.counter,
                    asked.proposer,
                    promised.counter,
                    promised.proposer,
                    taken.as_ref().map(|table| table.epoch.counter)
                ),
                Message::Propose(table) => {
                    let (epoch, members) = (table.epoch, members(table));
                    format!("propose {}.{:x} quorum {}: {members}", epoch.counter, epoch.proposer, table.quorum)
                }
                Message::Taken { epoch, promised, handed_over } => {
                    format!(
                        "taken {}.{:x} promised {} {handed_over:?}",
                        epoch.counter, epoch.proposer, promised.counter
                    )
                }
                Message::InForce { table, handed_over } => {
                    format!("in force {}.{:x} {handed_over:?}", table.epoch.counter, table.epoch.proposer)
                }
                Message::Request(change) => format!("request {change:?}"),
                Message::Append(append) if Some(append.partition) == partition => format!("{append:?}"),
                Message::Chunk(chunk) if Some(chunk.partition) == partition => format!("{chunk:?}"),
                Message::Confirm(confirm) if Some(confirm.partition) == partition => format!("{confirm:?}"),
                Message::Forward(forward) if Some(forward.partition) == partition => format!("{forward:?}"),
                _ => continue,
            };
            self.say(now, || format!("  {from} -> {to} {text}"));
        }
    }

    pub(crate) fn table(&mut self, now: u64, place: usize, table: &Table) {
        if !self.kept {
            return;
        }
        let members = members(table);
        self.say(now, || format!("node-{place} has table {} quorum {}: {members}", table.epoch.counter, table.quorum));
        if let Some(partition) = self.watched.map(crate::client::partition) {
            self.say(now, || format!("  partition {}: {:?}", partition.0, table.assignment(partition)));
        }
    }

    pub(crate) fn text(&self) -> String {
        self.lines.join("\n")
    }
}

fn counts(finding: &Finding) -> bool {
    static UNTIL: OnceLock<Option<String>> = OnceLock::new();
    let until = UNTIL.get_or_init(|| std::env::var("UNTIL").ok());
    until.as_ref().is_none_or(|invariant| invariant == finding.invariant)
}

fn members(table: &Table) -> String {
    let member = |member: &Member| format!("{} {} {:?}", member.id, member.name, member.state);
    table.members.iter().map(member).collect::<Vec<_>>().join(", ")
}
