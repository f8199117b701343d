//! What one client has asked and is owed: commands out of bytes, replies in order.

use std::{io, ops::Range, sync::Arc};

use bytes::{Buf, Bytes};
use smallvec::{SmallVec, smallvec};

use super::{
    clients::{Client, Clients},
    here,
    output::Output,
    slots::{Filled, Parts, Slots},
};
use crate::{
    io::runtime::{Batch, Runtime},
    logic::{
        commands::{
            self, Merge, Route, Words, kept, partition,
            scan::Walk,
            table::{self, Command},
            words_of,
        },
        keyspace::Partition,
        node::{Ask, Ticket, WORTH_A_LOOK},
        resp::{Protocol, ProtocolError, Reply, Request, RequestParser, Straight},
        store::Spot,
    },
};

/// Most unanswered requests of one connection, or parts of requests; then no more are taken.
pub const MAX_IN_FLIGHT: usize = 1024;
/// Commands that are found before the first of them is executed, so that memory can give what they need side by side.
const AHEAD: usize = 16;
/// About how many bytes of them.
const AHEAD_BYTES: usize = 64 << 10;
/// Words of a list of values that is read at one moment. Longer ones are read partition by partition.
const MOST_AT_ONCE: usize = 257;
/// Most bytes of replies that one connection has not taken; then no more requests are taken. Clients that send a long
/// pipeline before they read count on some room.
pub const MAX_UNWRITTEN: usize = 8 << 20;

/// Commands that were found and are not executed yet.
struct Ahead<'a> {
    found: SmallVec<[Found; AHEAD]>,
    /// Words of those in frames.
    words: SmallVec<[&'a [u8]; 3 * AHEAD]>,
    /// Words of the last one, if it is on one line.
    line: Vec<Bytes>,
}

impl Ahead<'_> {
    /// The words of a command for themselves.
    fn kept(&self, found: &Found) -> Vec<Bytes> {
        match &found.what {
            What::Framed(words, _) => kept(&self.words[words.clone()]),
            _ => self.line.clone(),
        }
    }
}

struct Found {
    what: What,
    /// Its bytes.
    length: usize,
}

enum What {
    /// A command in frames: its words, and if it is for one key, what is known of it.
    Framed(Range<usize>, Option<One>),
    /// A command on one line.
    Line,
    /// No command.
    Nothing,
    /// What follows cannot be understood.
    Bad(ProtocolError),
}

/// A command for one key.
#[derive(Clone, Copy)]
struct One {
    command: &'static Command,
    partition: Partition,
    /// Of a key of the default map.
    spot: Option<Spot>,
}

/// A reply that comes later.
pub(super) type Late = (Ticket, Reply);

/// A client's side of its connection.
pub(super) struct Session {
    runtime: Arc<Runtime>,
    clients: Arc<Clients>,
    client: Arc<Client>,
    protocol: Protocol,
    parser: RequestParser,
    slots: Slots,
    output: Output,
    /// A command that waits for earlier ones of its partition (rule F2).
    held: Option<Vec<Bytes>>,
    /// The command that was just tried is to be held.
    must_wait: bool,
    /// After QUIT or bytes that are no command, nothing more is taken.
    over: bool,
}

impl Session {
    pub(super) fn new(runtime: Arc<Runtime>, clients: Arc<Clients>, client: Arc<Client>) -> Self {
        Self {
            runtime,
            clients,
            client,
            protocol: Protocol::default(),
            parser: RequestParser::default(),
            slots: Slots::default(),
            output: Output::default(),
            held: None,
            must_wait: false,
            over: false,
        }
    }

    pub(super) fn runtime(&self) -> &Runtime {
        &self.runtime
    }

    pub(super) fn clients(&self) -> &Clients {
        &self.clients
    }

    pub(super) fn client(&self) -> &Client {
        &self.client
    }

    pub(super) fn protocol(&self) -> Protocol {
        self.protocol
    }

    /// Replies are written like this from now on.
    pub(super) fn speak(&mut self, protocol: Protocol) {
        self.protocol = protocol;
        self.client.resp3.store(protocol == Protocol::Resp3, std::sync::atomic::Ordering::Relaxed);
    }

    /// Takes no more commands.
    pub(super) fn finish(&mut self) {
        self.over = true;
    }

    pub(super) fn is_over(&self) -> bool {
        self.over
    }

    /// Everything that was asked is answered; answers may wait to be written.
    pub(super) fn is_served(&self) -> bool {
        self.slots.is_empty() && self.held.is_none()
    }

    pub(super) fn wants_input(&self) -> bool {
        self.takes_commands() && self.held.is_none()
    }

    /// Bytes that the command now being read is certain to need.
    pub(super) fn missing(&self, buffered: usize) -> usize {
        self.parser.missing(buffered)
    }

    pub(super) fn output(&mut self) -> &mut Output {
        &mut self.output
    }

    pub(super) fn output_waits(&self) -> bool {
        self.output.has_remaining()
    }

    pub(super) fn was_read(&self, count: usize) {
        self.clients.count_bytes(count, 0);
    }

    pub(super) fn wrote(&self, count: usize) -> io::Result<()> {
        self.clients.count_bytes(0, count);
        if count == 0 { Err(io::ErrorKind::WriteZero.into()) } else { Ok(()) }
    }

    /// There is room for what a command may be owed.
    pub(super) fn takes_commands(&self) -> bool {
        !self.over
            && self.slots.in_flight() < MAX_IN_FLIGHT
            && self.slots.waiting_bytes() + self.output.remaining() < MAX_UNWRITTEN
    }

    /// Takes the commands that were read, as far as limits allow. Returns how many bytes they were.
    pub(super) fn process(&mut self, input: &[u8]) -> usize {
        if input.is_empty() && self.held.is_none() {
            self.client.buffered(0, self.output.remaining());
            return 0;
        }
        let mut batch = self.runtime.batch();
        let (mut executed, mut last, mut taken) = (0, None, 0);
        if let Some(held) = self.held.take() {
            last = self.command(&mut batch, &words_of(&held));
            self.held = std::mem::take(&mut self.must_wait).then_some(held);
            executed += u64::from(self.held.is_none());
        }
        {
            let mut ahead = Ahead { found: SmallVec::new(), words: SmallVec::new(), line: Vec::new() };
            while self.held.is_none() && self.takes_commands() {
                self.find(&input[taken..], &mut ahead);
                if ahead.found.is_empty() {
                    break;
                }
                self.look_ahead(&mut ahead.found);
                for found in &ahead.found {
                    if self.held.is_some() || !self.takes_commands() {
                        // Those that are left are found again.
                        self.parser.forget();
                        break;
                    }
                    let command = self.take(&mut batch, &ahead, found);
                    self.held = std::mem::take(&mut self.must_wait).then(|| ahead.kept(found));
                    taken += found.length;
                    let is_command = matches!(found.what, What::Framed(..) | What::Line);
                    executed += u64::from(is_command && self.held.is_none());
                    last = command.or(last);
                }
            }
        }
        if let Some(command) = last {
            self.client.used(command, batch.turn.clock().now);
            self.clients.count_commands(executed);
        }
        self.client.buffered(input.len() - taken, self.output.remaining());
        self.runtime.carry_out(batch.effects);
        taken
    }

    /// Finds the next commands in a buffer.
    fn find<'a>(&mut self, buffer: &'a [u8], ahead: &mut Ahead<'a>) {
        ahead.found.clear();
        ahead.words.clear();
        let mut at = 0;
        // No more than there is room for: the rest would have to be found again.
        let most = AHEAD.min(MAX_IN_FLIGHT - self.slots.in_flight());
        while ahead.found.len() < most && at < AHEAD_BYTES {
            let first = ahead.words.len();
            let (what, length) = match self.parser.next(&buffer[at..], |word| ahead.words.push(word)) {
                Ok(None) => break,
                Ok(Some((Request::Empty, length))) => (What::Nothing, length),
                Ok(Some((Request::Inline(words), length))) => {
                    ahead.line = words;
                    (What::Line, length)
                }
                Ok(Some((Request::Framed, length))) => {
                    let one = self.one_key(&ahead.words[first..]);
                    (What::Framed(first..ahead.words.len(), one), length)
                }
                Err(error) => (What::Bad(error), 0),
            };
            let is_last = matches!(what, What::Line | What::Bad(_));
            ahead.found.push(Found { what, length });
            at += length;
            if is_last {
                break;
            }
        }
    }

    fn look_ahead(&self, found: &mut [Found]) {
        if found.len() < WORTH_A_LOOK {
            return;
        }
        self.runtime.node().look_ahead(found, |found| match &mut found.what {
            What::Framed(_, Some(One { partition, spot: Some(spot), .. })) => Some((*partition, spot)),
            _ => None,
        });
    }

    fn one_key(&self, words: &Words<'_>) -> Option<One> {
        let (command, partition) = commands::for_one_key(words, self.runtime.partitions())?;
        let spot = command.key_of_default_map(words).map(|key| self.runtime.node().spot(key));
        Some(One { command, partition, spot })
    }

    fn take(&mut self, batch: &mut Batch, ahead: &Ahead<'_>, found: &Found) -> Option<&'static Command> {
        match &found.what {
            What::Framed(words, Some(one)) => {
                self.one(batch, *one, &ahead.words[words.clone()]);
                Some(one.command)
            }
            What::Framed(words, None) => self.command(batch, &ahead.words[words.clone()]),
            What::Line => self.command(batch, &words_of(&ahead.line)),
            What::Nothing => None,
            What::Bad(error) => {
                self.answer(Reply::error(format!("ERR Protocol error: {error}")));
                self.over = true;
                None
            }
        }
    }

    /// A reply came later.
    pub(super) fn fill(&mut self, ticket: Ticket, reply: Reply) {
        if let Filled::Step(request) = self.slots.fill(ticket, reply, &mut self.output) {
            let mut batch = self.runtime.batch();
            self.walk(&mut batch, request);
            self.runtime.carry_out(batch.effects);
        }
    }

    fn answer(&mut self, reply: Reply) {
        self.slots.ready(reply, self.protocol, &mut self.output);
    }

    /// Returns the command, if it is one.
    fn command(&mut self, batch: &mut Batch, words: &Words<'_>) -> Option<&'static Command> {
        let command = match table::command(words) {
            Ok(command) => command,
            Err(error) => {
                self.answer(error);
                return words.first().and_then(|name| table::find(name));
            }
        };
        if command.lists_values() && self.values_of_all(batch, words) {
            return Some(command);
        }
        match commands::route(command, words, self.runtime.partitions()) {
            Err(error) => self.answer(error),
            Ok(Route::Here) => {
                let reply = here::answer(command, &kept(words), self);
                self.answer(reply);
            }
            Ok(Route::One(partition)) => self.one(batch, One { command, partition, spot: None }, words),
            Ok(Route::Split(parts, merge)) => {
                let (partitions, requests): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
                self.many(batch, (&partitions, merge), command, |part| &requests[part]);
            }
            Ok(Route::Each(merge)) => {
                let all: Vec<_> = (0..self.runtime.partitions()).map(Partition).collect();
                self.many(batch, (&all, merge), command, |_| words);
            }
            Ok(Route::Scan(walk)) => self.scan(batch, walk, command),
        }
        Some(command)
    }

    /// Answers a list of values straight from where they are kept; false: nothing was done.
    fn values_of_all<'w>(&mut self, batch: &mut Batch, words: &Words<'w>) -> bool {
        if !self.slots.is_empty() || words.len() > MOST_AT_ONCE {
            return false;
        }
        let partition = |key: &&'w [u8]| Some((partition(key, self.runtime.partitions()).ok()?, *key));
        let Some(keys) = words[1..].iter().map(partition).collect::<Option<SmallVec<[_; 64]>>>() else { return false };
        let straight = Straight { sink: &mut self.output, protocol: self.protocol };
        let answered = self.runtime.read_all(batch, &keys, straight);
        if answered {
            self.answer(Reply::Written);
        }
        answered
    }

    /// Whether a command for these partitions may be sent now; else it has to wait (rule F2).
    fn may_send(&self, partitions: &[Partition]) -> bool {
        if !self.slots.is_any_busy() {
            return true;
        }
        let epoch = self.runtime.node().epoch();
        partitions.iter().all(|partition| self.slots.may_send(*partition, epoch))
    }

    fn one(&mut self, batch: &mut Batch, One { command, partition, spot }: One, words: &Words<'_>) {
        if !self.may_send(&[partition]) {
            self.must_wait = true;
            return;
        }
        let ticket = self.ticket(0);
        let ask = Ask { command, partition, words, spot, settled: !self.slots.is_busy(partition) };
        let straight = self.slots.is_empty().then_some(Straight { sink: &mut self.output, protocol: self.protocol });
        if let Some(reply) = self.runtime.submit_in(batch, ticket, ask, straight) {
            self.answer(reply);
        } else {
            let parts = Parts { partitions: smallvec![partition], replies: smallvec![None], merge: None };
            self.slots.pending(parts, self.protocol, batch.turn.epoch());
        }
    }

    /// Sends a command in parts.
    fn many<'a>(
        &mut self,
        batch: &mut Batch,
        (partitions, merge): (&[Partition], Merge),
        command: &'static Command,
        part: impl Fn(usize) -> &'a Words<'a>,
    ) {
        if !self.may_send(partitions) {
            self.must_wait = true;
            return;
        }
        let submit = |(i, partition): (usize, &Partition)| {
            let ask = Ask { command, partition: *partition, words: part(i), spot: None, settled: false };
            self.runtime.submit_in(batch, self.ticket(i as u32), ask, None)
        };
        let replies: SmallVec<[Option<Reply>; 1]> = partitions.iter().enumerate().map(submit).collect();
        if replies.iter().all(Option::is_some) {
            self.answer(merge.merge(replies.into_iter().flatten().collect()));
        } else {
            let parts = Parts { partitions: partitions.into(), replies, merge: Some(merge) };
            self.slots.pending(parts, self.protocol, batch.turn.epoch());
        }
    }

    fn scan(&mut self, batch: &mut Batch, mut walk: Walk, command: &'static Command) {
        let Some((partition, _)) = walk.step() else {
            let reply = walk.reply();
            return self.answer(reply);
        };
        if !self.may_send(&[partition]) {
            self.must_wait = true;
            return;
        }
        let request = self.slots.next();
        self.slots.walking(command, walk, self.protocol);
        self.walk(batch, request);
    }

    /// Takes steps of a walk until one is answered later or the walk is over.
    fn walk(&mut self, batch: &mut Batch, request: u64) {
        loop {
            let Some((command, walk, step)) = self.slots.walk(request) else { return };
            let Some((partition, words)) = walk.step() else {
                let reply = walk.reply();
                return self.slots.walked(request, reply, &mut self.output);
            };
            let ticket = Ticket { connection: self.client.id, request, part: step };
            let ask = Ask { command, partition, words: &words_of(&words), spot: None, settled: false };
            let Some(reply) = self.runtime.submit_in(batch, ticket, ask, None) else {
                return self.slots.step_sent(request, partition, batch.turn.epoch());
            };
            if let Some(reply) = self.slots.walk(request).and_then(|(_, walk, _)| walk.take(reply)) {
                return self.slots.walked(request, reply, &mut self.output);
            }
        }
    }

    fn ticket(&self, part: u32) -> Ticket {
        Ticket { connection: self.client.id, request: self.slots.next(), part }
    }
}
