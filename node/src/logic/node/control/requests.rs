//! What members ask of the coordinator: changes that people want, and claims about copies.

use super::{Control, REQUEST_INTERVAL, REQUEST_LIFE};
use crate::logic::{
    clock::{Clock, Millis},
    cluster::{
        member::{Intent, MemberName, State},
        message::{Change, Message},
        replica::Claims,
        table::Table,
    },
    node::{Effects, Node},
};

impl Control {
    fn ask(&mut self, change: Change, clock: Clock) {
        let same_subject = |known: &Change| match (known, &change) {
            (Change::SetState(a, _), Change::SetState(b, _)) | (Change::Forget(a), Change::Forget(b)) => a == b,
            (Change::Settings(_), Change::Settings(_)) => true,
            _ => false,
        };
        self.requests.retain(|(known, _)| !same_subject(known));
        self.requests.push((change, clock.now + REQUEST_LIFE));
        self.next_requests = clock.now;
    }

    /// The first table of a member that was told to leave before it had one: now there is somebody to ask.
    pub(in crate::logic::node) fn leave_after_all(&mut self, name: &MemberName, clock: Clock) {
        if let Some(intent) = self.leaving {
            self.ask(Change::SetState(name.clone(), State::Leaving(intent)), clock);
        }
    }
}

impl Node {
    /// A change that a person or the operator asks for. It is repeated to the coordinator until the table shows it;
    /// see [`Node::shows`].
    pub fn change(&self, change: Change, clock: Clock) {
        self.control.lock().ask(change, clock);
    }

    /// Whether the table in force shows a change.
    pub fn shows(&self, change: &Change) -> bool {
        self.routing().table.as_ref().is_some_and(|table| shows(table, change))
    }

    /// Starts to leave: hands over what `intent` says. A drain that already runs goes on.
    pub fn begin_leave(&self, intent: Intent, clock: Clock) {
        let routing = self.routing();
        let state = routing.table.as_ref().and_then(|table| table.member(routing.me?)).map(|member| member.state);
        self.control.lock().leaving = Some(intent);
        if !matches!(state, None | Some(State::Leaving(_))) {
            self.change(Change::SetState(self.name().clone(), State::Leaving(intent)), clock);
        }
    }

    /// The last word of a member that leaves: it is out of the table from then on.
    pub fn finish_leave(&self, clock: Clock) {
        let routing = self.routing();
        let Some((table, me)) = routing.table.as_ref().zip(routing.me) else { return };
        let departs = table.member(me).is_some_and(|member| member.state == State::Leaving(Intent::Depart));
        let holds = table.partitions.iter().any(|assignment| assignment.holds(me));
        let change = if departs && !holds {
            Change::Forget(self.name().clone())
        } else {
            Change::SetState(self.name().clone(), State::Away)
        };
        {
            let mut control = self.control.lock();
            control.said_goodbye = true;
            self.resign(&control);
        }
        self.change(change, clock);
    }

    pub(in crate::logic::node) fn take_claims(&self, claims: Vec<Claims>, clock: Clock, effects: &mut Effects) {
        let mut control = self.control.lock();
        control.claims = claims
            .into_iter()
            .flat_map(|claims| {
                let in_sync = claims.in_sync.into_iter().map(Change::CopyInSync);
                in_sync.chain(claims.lost.into_iter().map(|(claim, lost)| Change::CopyLost(claim, lost)))
            })
            .collect();
        let _ = (clock, effects);
    }

    pub(super) fn send_requests(&self, control: &mut Control, clock: Clock, effects: &mut Effects) {
        let Some(table) = control.voter.in_force().cloned() else { return };
        control.requests.retain(|(change, until)| clock.now < *until && !shows(&table, change));
        if clock.now < control.next_requests || (control.requests.is_empty() && control.claims.is_empty()) {
            return;
        }
        control.next_requests = Millis(clock.now.0 + REQUEST_INTERVAL);
        let Some(coordinator) = self.acting_coordinator(control, &table, clock.now) else { return };
        let requests = control.requests.iter().map(|(change, _)| change.clone());
        let all: Vec<Change> = requests.chain(std::mem::take(&mut control.claims)).collect();
        let open = |name: &MemberName| name == self.name() || self.outbox(name).is_open();
        let to: Vec<MemberName> = if open(&coordinator) {
            vec![coordinator]
        } else {
            // Whoever can be reached passes it on.
            let others = table.live().map(|member| &member.name).filter(|name| *name != self.name());
            others.filter(|name| open(name)).cloned().collect()
        };
        for (name, change) in to.iter().flat_map(|name| all.iter().map(move |change| (name, change))) {
            self.deliver(control, name, Message::Request(change.clone()), effects);
        }
    }

    /// A member asks for something, or tells of a copy. The coordinator remembers it. Members that do not reach each other
    /// in both directions may take different ones for the coordinator, so whoever is not passes it on; only to one that
    /// stands before it in the table, so that no request goes in a circle.
    pub(super) fn request_from(
        &self,
        control: &mut Control,
        from: &MemberName,
        change: Change,
        clock: Clock,
        effects: &mut Effects,
    ) {
        let Some(table) = control.voter.in_force().cloned() else { return };
        let place = |name: &MemberName| table.members.iter().position(|member| member.name == *name);
        if let Some(coordinator) = self.acting_coordinator(control, &table, clock.now)
            && coordinator != *from
            && place(&coordinator) < place(self.name())
        {
            self.send(&coordinator, Message::Request(change.clone()), effects);
        }
        control.remember(change, clock.now);
    }
}

fn shows(table: &Table, change: &Change) -> bool {
    match change {
        Change::SetState(name, state) => table.named(name).is_none_or(|member| {
            member.state == *state
                || matches!((member.state, state), (State::Leaving(_), State::Leaving(_)))
                || !member.state.is_live()
        }),
        Change::Forget(name) => table.named(name).is_none(),
        Change::Settings(live) => table.live.generation >= live.generation,
        Change::CopyInSync(_) | Change::CopyLost(..) => true,
    }
}
