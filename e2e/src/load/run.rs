//! Sends the load, reads beside it, and verifies every key at the end.

use super::connection::{Command, Connection, Reply};
use super::gaps::Gaps;
use super::ledger::{Change, Expectation, Fault, Key, Ledger, Millis, name};
use super::report::Report;
use super::workload::Workload;
use anyhow::{Context, Result, bail};
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Time between two batches of a writer.
const TICK: Duration = Duration::from_millis(16);
/// Most changes in one batch: a writer that was held up catches up in a few batches.
const LARGEST_BATCH: u64 = 64;
/// Reads in one batch of the reader.
const READ_BATCH: usize = 20;
/// Reads in one batch while keys are verified.
const VERIFY_BATCH: usize = 500;
/// How long a reconnect may take in all.
const RECONNECT_LIMIT: Duration = Duration::from_secs(30);
/// Time between two tries to connect.
const RECONNECT_PAUSE: Duration = Duration::from_millis(50);
/// How long writes may take to reach a number that a test waits for.
const PROGRESS_LIMIT: Duration = Duration::from_mins(3);
/// Faults and errors that are told in words.
const EXAMPLES: usize = 10;

/// What a client does when a command fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retries {
    /// Every failed command is an error: for planned moves, which must not be felt.
    Off,
    /// One reconnect and one retry; what fails then is an error: for crashes.
    Once,
}

/// What to send, and where.
#[derive(Clone, Debug)]
pub struct Options {
    /// Where the cache listens: a Service's address.
    pub address: SocketAddr,
    /// Beginning of all keys.
    pub prefix: String,
    /// Number of keys.
    pub keys: u32,
    /// Changes a second, over all connections.
    pub writes_per_second: u64,
    /// Connections that write; one more reads.
    pub connections: u32,
    /// Bytes of a value at least.
    pub value_length: usize,
    /// What a client does when a command fails.
    pub retries: Retries,
    /// The group of each key, for [`Report::gaps`]; empty: all keys are group 0.
    pub groups: Vec<usize>,
    /// Start of the choices.
    pub seed: u64,
}

impl Options {
    /// The load that all scenarios share.
    pub fn new(address: SocketAddr, retries: Retries) -> Self {
        Self {
            address,
            prefix: "load:".to_owned(),
            keys: 20_000,
            writes_per_second: 2_400,
            connections: 8,
            value_length: 100,
            retries,
            groups: Vec::new(),
            seed: 1,
        }
    }
}

/// A load that runs.
#[derive(Debug)]
pub struct Load {
    shared: Arc<Shared>,
    workers: JoinSet<Result<()>>,
}

#[derive(Debug)]
struct Shared {
    options: Options,
    start: Instant,
    state: Mutex<State>,
    writes: watch::Sender<u64>,
    stop: CancellationToken,
}

#[derive(Debug)]
struct State {
    ledger: Ledger,
    gaps: Gaps,
    reads: u64,
    errors: u64,
    retried: u64,
    error_texts: Vec<String>,
}

impl Load {
    /// Connects, removes what an earlier load has left under its keys, and begins to write and read.
    pub async fn start(options: Options) -> Result<Self> {
        if !options.groups.is_empty() && options.groups.len() != options.keys as usize {
            bail!("{} groups were given for {} keys", options.groups.len(), options.keys);
        }
        let groups = options.groups.iter().max().map_or(1, |most| most + 1);
        let state = State {
            ledger: Ledger::new(&options.prefix, options.keys, options.value_length),
            gaps: Gaps::new(groups, Millis(0)),
            reads: 0,
            errors: 0,
            retried: 0,
            error_texts: Vec::new(),
        };
        if let Err(error) = remove_keys(&options).await {
            println!("removing the keys once more: {error:#}");
            remove_keys(&options).await?;
        }
        let mut connections = Vec::new();
        for _ in 0..=options.connections {
            connections.push(Connection::open(options.address).await?);
        }
        let shared = Arc::new(Shared {
            options,
            start: Instant::now(),
            state: Mutex::new(state),
            writes: watch::Sender::new(0),
            stop: CancellationToken::new(),
        });
        let mut workers = JoinSet::new();
        for (index, connection) in connections.into_iter().enumerate() {
            let client = Client { shared: Arc::clone(&shared), connection };
            if (index as u32) < shared.options.connections {
                workers.spawn(client.write(index as u32));
            } else {
                workers.spawn(client.read());
            }
        }
        Ok(Self { shared, workers })
    }

    /// Acknowledged changes up to now.
    pub fn writes(&self) -> u64 {
        *self.shared.writes.borrow()
    }

    /// Commands that failed up to now.
    pub fn errors(&self) -> u64 {
        self.shared.state().errors
    }

    /// The first errors since the last call, with their times; the report has those that were not taken.
    pub fn take_error_texts(&self) -> Vec<String> {
        std::mem::take(&mut self.shared.state().error_texts)
    }

    /// Waits until `more` changes have been acknowledged after this call.
    pub async fn go_on_for(&mut self, more: u64) -> Result<()> {
        let goal = self.writes() + more;
        let mut writes = self.shared.writes.subscribe();
        let reached = tokio::time::timeout(PROGRESS_LIMIT, writes.wait_for(|writes| *writes >= goal));
        tokio::select! {
            reached = reached => {
                reached.with_context(|| format!("{goal} writes were not reached: {} after {} s", self.writes(), PROGRESS_LIMIT.as_secs()))??;
                Ok(())
            }
            Some(ended) = self.workers.join_next() => {
                ended??;
                bail!("a client of the load ended by itself")
            }
        }
    }

    /// Stops writing, reads every key through each of `addresses`, and tells how it went.
    pub async fn finish(mut self, addresses: &[SocketAddr]) -> Result<Report> {
        self.shared.stop.cancel();
        while let Some(ended) = self.workers.join_next().await {
            ended??;
        }
        let took = self.shared.now();
        self.shared.state().gaps.end(took);
        for address in addresses {
            self.verify(*address).await.with_context(|| format!("can't verify through {address}"))?;
        }
        Ok(self.shared.report(took, addresses.len()))
    }

    async fn verify(&self, address: SocketAddr) -> Result<()> {
        let mut connection = Connection::open(address).await?;
        let keys: Vec<Key> = self.shared.state().ledger.keys().collect();
        for batch in keys.chunks(VERIFY_BATCH) {
            let expected = self.shared.expectations(batch);
            let commands: Vec<Command> = expected.iter().map(|(_, command)| command.clone()).collect();
            let mut unread = None;
            connection
                .exchange(&commands, |index, reply| {
                    if let Reply::Error(text) = &reply {
                        unread = Some(format!("{}: {text}", commands[index].join(" ")));
                    }
                    self.shared.judge(&expected[index].0, &reply);
                })
                .await?;
            if let Some(text) = unread {
                bail!(text);
            }
        }
        Ok(())
    }
}

impl Shared {
    fn now(&self) -> Millis {
        Millis(self.start.elapsed().as_millis() as u64)
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn expectations(&self, keys: &[Key]) -> Vec<(Expectation, Command)> {
        let now = self.now();
        let state = self.state();
        keys.iter().map(|key| (state.ledger.expect(*key, now), words(["GET", &state.ledger.name(*key)]))).collect()
    }

    /// Gives a read's answer to the ledger; error answers are the caller's.
    fn judge(&self, expected: &Expectation, reply: &Reply) {
        let now = self.now();
        let mut state = self.state();
        match reply {
            Reply::Null => state.ledger.judge(*expected, None, now),
            Reply::BulkString(value) => state.ledger.judge(*expected, Some(value), now),
            _ => None,
        };
    }

    fn error(&self, text: &str) {
        let mut state = self.state();
        state.errors += 1;
        if state.error_texts.len() < EXAMPLES {
            let at = self.now();
            state.error_texts.push(format!("at {at}: {text}"));
        }
    }

    fn report(&self, took: Millis, asked: usize) -> Report {
        let state = self.state();
        let ledger = &state.ledger;
        let mut examples = ledger.stories(EXAMPLES);
        examples.extend(state.error_texts.iter().cloned());
        Report {
            writes: *self.writes.borrow(),
            reads: state.reads,
            took,
            verified: if asked == 0 { 0 } else { self.options.keys as usize },
            asked,
            lost: ledger.count(Fault::Lost),
            wrong: ledger.count(Fault::Wrong),
            stale: ledger.count(Fault::Stale),
            came_back: ledger.count(Fault::CameBack),
            errors: state.errors,
            retried: state.retried,
            gaps: state.gaps.longest().to_vec(),
            examples,
        }
    }
}

async fn remove_keys(options: &Options) -> Result<()> {
    let removals = (0..options.keys).map(|key| vec!["DEL".to_owned(), name(&options.prefix, Key(key))]);
    let mut connection = Connection::open(options.address).await?;
    connection.exchange(&removals.collect::<Vec<Command>>(), |_, _| {}).await
}

/// One connection's part of the load.
#[derive(Debug)]
struct Client {
    shared: Arc<Shared>,
    connection: Connection,
}

/// A command that is to be sent, and what its answer means.
#[derive(Debug)]
enum Task {
    Write(Key),
    Read(Expectation),
}

impl Client {
    async fn write(mut self, index: u32) -> Result<()> {
        let shared = Arc::clone(&self.shared);
        let options = &shared.options;
        let mut workload = Workload::of_writer(index, options.connections, options.keys, options.seed);
        let mut sent = 0;
        while self.pause().await? {
            let owed = shared.now().0 * options.writes_per_second / u64::from(options.connections) / 1_000;
            let batch = workload.batch(owed.saturating_sub(sent).min(LARGEST_BATCH) as usize);
            sent += batch.len() as u64;
            let tasks = self.register(&batch);
            self.carry_out(tasks).await?;
        }
        Ok(())
    }

    async fn read(mut self) -> Result<()> {
        let keys = self.shared.options.keys;
        // Another part of the seed's choices than the writers have.
        let mut choice = Workload::of_writer(0, 1, keys, self.shared.options.seed ^ u64::MAX);
        while self.pause().await? {
            let keys: Vec<Key> = choice.batch(READ_BATCH).into_iter().map(|(key, _)| key).collect();
            let expected = self.shared.expectations(&keys);
            self.carry_out(expected.into_iter().map(|(expected, words)| (Task::Read(expected), words)).collect())
                .await?;
        }
        Ok(())
    }

    /// Waits for the next tick; false when the load is to stop. A connection that the cache closes meanwhile is opened
    /// again: closing between commands is no error.
    async fn pause(&mut self) -> Result<bool> {
        let closed = tokio::select! {
            () = self.shared.stop.cancelled() => return Ok(false),
            () = self.connection.closed() => true,
            () = tokio::time::sleep(TICK) => false,
        };
        if closed {
            self.reconnect().await?;
        }
        Ok(true)
    }

    fn register(&self, batch: &[(Key, Change)]) -> Vec<(Task, Command)> {
        let now = self.shared.now();
        let ledger = &mut self.shared.state().ledger;
        let task = |&(key, change): &(Key, Change)| {
            let number = ledger.send(key, change, now);
            (Task::Write(key), command(&ledger.name(key), change, || ledger.value(key, number)))
        };
        batch.iter().map(task).collect()
    }

    async fn carry_out(&mut self, tasks: Vec<(Task, Command)>) -> Result<()> {
        if tasks.is_empty() {
            return Ok(());
        }
        if self.connection.is_closed() {
            self.reconnect().await?;
        }
        let (mut failed, mut broken) = self.attempt(tasks).await;
        if broken {
            self.reconnect().await?;
        }
        if !failed.is_empty() && self.shared.options.retries == Retries::Once {
            if !broken {
                self.reconnect().await?;
            }
            let again = failed.len();
            for (task, _, _) in &failed {
                if let Task::Write(key) = task {
                    self.shared.state().ledger.retry(*key);
                }
            }
            (failed, broken) = self.attempt(failed.into_iter().map(|(task, words, _)| (task, words)).collect()).await;
            self.shared.state().retried += (again - failed.len()) as u64;
            if broken {
                self.reconnect().await?;
            }
        }
        for (task, words, why) in failed {
            if let Task::Write(key) = task {
                self.shared.state().ledger.give_up(key);
            }
            let shown: Vec<&str> = words.iter().take(2).map(String::as_str).collect();
            self.shared.error(&format!("{}: {why}", shown.join(" ")));
        }
        Ok(())
    }

    /// Sends commands once. Returns those that failed, with the reason, and whether the connection is broken.
    async fn attempt(&mut self, tasks: Vec<(Task, Command)>) -> (Vec<(Task, Command, String)>, bool) {
        let commands: Vec<Command> = tasks.iter().map(|(_, words)| words.clone()).collect();
        let mut reasons = vec![Some(String::new()); tasks.len()];
        let shared = Arc::clone(&self.shared);
        let ended = self
            .connection
            .exchange(&commands, |index, reply| reasons[index] = shared.take(&tasks[index].0, &reply))
            .await;
        let broken = ended.err().map(|error| format!("{error:#}"));
        let failed = tasks.into_iter().zip(reasons).filter_map(|((task, words), reason)| {
            let reason = reason?;
            Some((task, words, if reason.is_empty() { broken.clone().unwrap_or_default() } else { reason }))
        });
        (failed.collect(), broken.is_some())
    }

    async fn reconnect(&mut self) -> Result<()> {
        let start = Instant::now();
        loop {
            match Connection::open(self.shared.options.address).await {
                Ok(connection) => {
                    self.connection = connection;
                    return Ok(());
                }
                Err(error) if start.elapsed() > RECONNECT_LIMIT => {
                    return Err(error.context(format!("no connection in {} s", RECONNECT_LIMIT.as_secs())));
                }
                Err(_) => tokio::time::sleep(RECONNECT_PAUSE).await,
            }
        }
    }
}

impl Shared {
    /// Takes an answer into the books; returns why it is no success.
    fn take(&self, task: &Task, reply: &Reply) -> Option<String> {
        if let Reply::Error(text) = reply {
            return Some(text.to_string());
        }
        match task {
            Task::Read(expected) => {
                self.judge(expected, reply);
                self.state().reads += 1;
            }
            Task::Write(key) => {
                let now = self.now();
                let group = self.options.groups.get(key.0 as usize).copied().unwrap_or(0);
                let mut state = self.state();
                state.ledger.acknowledge(*key, now);
                state.gaps.success(group, now);
                drop(state);
                self.writes.send_modify(|writes| *writes += 1);
            }
        }
        None
    }
}

fn command(name: &str, change: Change, value: impl FnOnce() -> String) -> Command {
    match change {
        Change::Set => words(["SET", name, &value()]),
        Change::SetFor(ttl) => words(["SET", name, &value(), "PX", &ttl.0.to_string()]),
        Change::Delete => words(["DEL", name]),
    }
}

fn words<const N: usize>(words: [&str; N]) -> Command {
    words.map(str::to_owned).to_vec()
}
