//! What clients of a leaving node see (rule L3): every command that they sent before they could know better is answered,
//! and a command that is not answered was not executed.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use mizuya_node::{
    io::{client_port, shutdown},
    logic::resp::Reply,
};
use mizuya_wire::settings::{Environment, Mode, Settings};
use tokio::{net::TcpListener, task::spawn_blocking};

use crate::support::{self, LIMIT, Member, Place};

const CLIENTS: usize = 24;
/// Commands that each client has had answered before the node leaves.
const WARM: usize = 20;

/// What a client does between an answer and its next command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Looks whether the connection still is, as libraries do that take it from a pool.
    Looks,
    /// Sends.
    Blind,
    /// As `Looks`, after a pause, with some commands at a time.
    Bursts,
}

impl Manner {
    const ALL: [Self; 3] = [Self::Looks, Self::Blind, Self::Bursts];

    fn burst(self) -> usize {
        if self == Self::Bursts { 16 } else { 1 }
    }
}

#[derive(Debug)]
struct Seen {
    key: String,
    manner: Manner,
    answered: usize,
    unanswered: usize,
    errors: Vec<String>,
}

/// Counts until the connection ends.
fn count(address: SocketAddr, number: usize, warm: &AtomicUsize) -> Seen {
    let manner = Manner::ALL[number % Manner::ALL.len()];
    let mut seen = Seen { key: format!("counter-{number}"), manner, answered: 0, unanswered: 0, errors: Vec::new() };
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_nodelay(true).unwrap();
    stream.set_read_timeout(Some(LIMIT)).unwrap();
    let mut replies = BufReader::new(stream.try_clone().unwrap());
    let commands = format!("INCR {}\r\n", seen.key).repeat(manner.burst());
    loop {
        if manner == Manner::Bursts {
            thread::sleep(Duration::from_millis(5));
        }
        if manner != Manner::Blind && has_ended(&stream) {
            return seen;
        }
        let sent = stream.write_all(commands.as_bytes());
        for command in 0..manner.burst() {
            let mut line = String::new();
            let read = if sent.is_ok() { replies.read_line(&mut line).unwrap_or(0) } else { 0 };
            if read == 0 {
                seen.unanswered = manner.burst() - command;
                return seen;
            }
            if line != format!(":{}\r\n", seen.answered + 1) {
                seen.errors.push(line);
            }
            seen.answered += 1;
            if seen.answered == WARM {
                warm.fetch_add(1, Ordering::Relaxed);
            }
        }
    }
}

fn has_ended(stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let ended = matches!(stream.peek(&mut [0]), Ok(0));
    stream.set_nonblocking(false).unwrap();
    ended
}

/// Lets clients count on `leaver` while it leaves, and asks `asked` what was executed.
async fn counted_while_leaving(mut leaver: Member, asked: Option<&Member>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let runtime = leaver.runtime().clone();
    let serving = tokio::spawn(client_port::serve(listener, runtime.clone()));
    let warm = Arc::new(AtomicUsize::new(0));
    let clients: Vec<_> = (0..CLIENTS)
        .map(|number| (number, warm.clone()))
        .map(|(number, warm)| spawn_blocking(move || count(address, number, &warm)))
        .collect();
    let began = Instant::now();
    while warm.load(Ordering::Relaxed) < CLIENTS {
        assert!(began.elapsed() < LIMIT, "the clients count");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    if asked.is_some() {
        shutdown::leave(leaver.running.take().unwrap(), Duration::ZERO).await;
    } else {
        runtime.close_clients();
    }
    serving.await.unwrap();
    for client in clients {
        let seen = client.await.unwrap();
        assert_eq!(seen.errors, Vec::<String>::new(), "{seen:?}");
        // A client that does not look cannot know.
        assert!(seen.unanswered == 0 || seen.manner == Manner::Blind, "{seen:?}");
        let executed = asked.unwrap_or(&leaver).call(&["GET", &seen.key]).await;
        assert_eq!(executed, Reply::text(&seen.answered.to_string()), "{seen:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_closes_answers_every_command_of_clients_that_look_and_executes_none_that_it_does_not_answer() {
    support::log();
    let place = Place::new();
    let mut settings = Settings { mode: Mode::Single, ..place.settings(1, 1) };
    settings.security.dir = None;
    let node = place.start(settings).await;
    node.until("ready", |status| status.ready).await;
    counted_while_leaving(node, None).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_a_member_that_hands_over_and_leaves_lose_no_command() {
    support::log();
    let place = Place::new();
    let lan = |settings| Settings { environment: Environment::Lan, ..settings };
    let mut members = place.cluster_with(3, lan).await;
    for member in &members {
        member.until("whole", |status| status.partitions_short_of_copies == 0).await;
    }
    let leaver = members.pop().unwrap();
    counted_while_leaving(leaver, Some(&members[0])).await;
}
