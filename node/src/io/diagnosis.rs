//! Why members do not reach each other, in sentences with the way out (requirement A22).
//!
//! The three ports that members need (clients over TCP, peers over TCP, gossip over UDP) are checked and named
//! separately. What members refuse about each other, such as another environment, the node knows by itself.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use mizuya_wire::admin::Problem;
use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, lookup_host},
    time::{self, timeout},
};
use tokio_util::sync::CancellationToken;

use super::{
    peer::{LinkState, streams::connect_timeout},
    runtime::Runtime,
};
use crate::logic::{
    clock::Millis,
    cluster::member::{MemberName, State},
};

/// Between two rounds.
const ROUND: Duration = Duration::from_secs(2);
/// How long a peer may be out of reach before anyone is told.
const GRACE: Duration = Duration::from_secs(5);
/// Between two checks of the client port of a peer whose stream works.
const CLIENT_PORT_EVERY: Duration = Duration::from_secs(30);
/// Silence over UDP that counts, in probe intervals.
const UDP_SILENCE: u32 = 10;
/// How long a listener may take to answer `PING`.
const PING_TIMEOUT: Duration = Duration::from_millis(500);
/// A problem that stays is said again after this time.
const REPEAT: Duration = Duration::from_mins(5);
/// Peers that are checked at a time.
const AT_A_TIME: usize = 16;
/// Most problems that are kept.
const MAX_PROBLEMS: usize = 256;

/// What is wrong now.
#[derive(Default)]
pub struct Problems {
    known: Mutex<BTreeMap<(String, String), Known>>,
}

struct Known {
    problem: Problem,
    said: Millis,
    by_node: bool,
}

impl Problems {
    /// What io found, without what the node itself tells.
    pub fn found(&self) -> Vec<Problem> {
        self.known.lock().values().filter(|known| !known.by_node).map(|known| known.problem.clone()).collect()
    }

    /// Takes the findings of one round. What is new is logged, what stays is logged again after a while. The node
    /// logs its own problems the first time.
    fn update(&self, found: Vec<Problem>, by_node: bool, now: Millis) {
        let mut known = self.known.lock();
        let keys: BTreeSet<(String, String)> = found.iter().map(key).collect();
        known.retain(|key, problem| {
            let stays = problem.by_node != by_node || keys.contains(key);
            if !stays {
                tracing::info!(code = key.0, subject = key.1, "no longer a problem");
            }
            stays
        });
        for problem in found {
            let present = known.len();
            let said = known.get(&key(&problem)).map(|known| known.said);
            if said.is_none() && present >= MAX_PROBLEMS {
                continue;
            }
            let speak = said.map_or(!by_node, |said| said + REPEAT <= now);
            if speak {
                tracing::warn!(code = problem.code, subject = problem.subject, "{}", problem.message);
            }
            let said = said.filter(|_| !speak).unwrap_or(now);
            known.insert(key(&problem), Known { problem, said, by_node });
        }
    }
}

fn key(problem: &Problem) -> (String, String) {
    (problem.code.clone(), problem.subject.clone())
}

fn problem(code: &str, subject: impl Into<String>, message: String) -> Problem {
    Problem { code: code.to_owned(), subject: subject.into(), message }
}

/// What is known of the client port of a peer.
struct ClientPort {
    checked: Millis,
    problem: Option<Problem>,
}

/// Looks at every peer again and again until `stop`.
pub async fn run(runtime: Arc<Runtime>, stop: CancellationToken) {
    let mut client_ports: BTreeMap<MemberName, ClientPort> = BTreeMap::new();
    loop {
        tokio::select! {
            () = time::sleep(ROUND) => {}
            () = stop.cancelled() => return,
        }
        let now = runtime.clock();
        let peers = runtime.node().dial();
        client_ports.retain(|name, _| peers.iter().any(|(peer, _)| peer == name));
        let mut checks = stream::iter(peers.into_iter().map(|(name, port)| {
            let checked = client_ports.get(&name).map(|known| (known.checked, known.problem.clone()));
            examine(&runtime, name, port, checked)
        }))
        .buffer_unordered(AT_A_TIME);
        let mut found = runtime.node().misdirected_peers();
        found.extend(runtime.node().stalled_copies(now));
        let mut looked_at = Vec::new();
        while let Some(finding) = checks.next().await {
            found.extend(finding.problems);
            looked_at.extend(finding.client_port.map(|known| (finding.name, known)));
        }
        drop(checks);
        client_ports.extend(looked_at);
        found.extend(client_ports.values().filter_map(|known| known.problem.clone()));
        runtime.problems().update(found, false, now.now);
        runtime.problems().update(runtime.node().status(now).problems, true, now.now);
    }
}

struct Finding {
    name: MemberName,
    problems: Vec<Problem>,
    client_port: Option<ClientPort>,
}

async fn examine(
    runtime: &Runtime,
    name: MemberName,
    port: u16,
    checked: Option<(Millis, Option<Problem>)>,
) -> Finding {
    let now = runtime.clock().now;
    let mut finding = Finding { problems: Vec::new(), client_port: None, name };
    let Some(link) = runtime.links().get(&finding.name) else { return finding };
    let state = link.state();
    let away = expected_away(runtime, &finding.name);
    let down = state.down_since.filter(|since| *since + GRACE <= now);
    if away || (state.up_since.is_none() && down.is_none()) {
        finding.client_port = Some(ClientPort { checked: now, problem: None });
        return finding;
    }
    finding.problems.extend(name_differs(&finding.name, port, &state));
    let addresses = match resolve(finding.name.as_str(), port).await {
        Ok(addresses) => addresses,
        Err(error) => {
            finding.client_port = Some(ClientPort { checked: now, problem: None });
            finding.problems.push(problem("PeerUnresolved", format!("{}:{port}", finding.name), format!(
                "the name '{}' does not resolve ({error}); correct it in peers, or in the name service (getent hosts {})",
                finding.name, finding.name
            )));
            return finding;
        }
    };
    finding.problems.extend(silent_over_udp(runtime, &finding.name, port, now));
    if down.is_some() {
        finding.problems.push(peer_port(runtime, &finding.name, port, &addresses, &state).await);
    }
    let due = checked.is_none_or(|(at, known)| known.is_some() || at + CLIENT_PORT_EVERY <= now);
    if due || down.is_some() {
        finding.client_port =
            Some(ClientPort { checked: now, problem: client_port(runtime, &finding.name, &addresses).await });
    }
    finding
}

/// A member that restarts on purpose is out of reach for a while.
fn expected_away(runtime: &Runtime, name: &MemberName) -> bool {
    let routing = runtime.node().routing();
    routing.table.as_ref().and_then(|table| table.named(name)).is_some_and(|member| member.state == State::Away)
}

fn name_differs(name: &MemberName, port: u16, state: &LinkState) -> Option<Problem> {
    let itself = state.calls_itself.as_ref()?;
    Some(problem(
        "PeerNameDiffers",
        format!("{name}:{port}"),
        format!(
            "peers names '{name}:{port}', but the member there calls itself '{itself}'; write '{itself}:{port}' in peers, or give it --name {name}"
        ),
    ))
}

fn silent_over_udp(runtime: &Runtime, name: &MemberName, port: u16, now: Millis) -> Option<Problem> {
    let last = runtime.last_heard_over_udp(name).unwrap_or(runtime.started());
    let limit = GRACE.max(runtime.timing().probe_interval * UDP_SILENCE);
    (last + limit <= now).then(|| {
        let subject = format!("{name}:{port}/udp");
        let message = format!(
            "no gossip came from {name} over UDP for {} s; let {port}/udp through between the members (gossip goes over the TCP stream meanwhile, where there is one)",
            now.since(last) / 1000
        );
        problem("GossipUnreachable", subject, message)
    })
}

async fn peer_port(
    runtime: &Runtime,
    name: &MemberName,
    port: u16,
    addresses: &[SocketAddr],
    state: &LinkState,
) -> Problem {
    let own = runtime.identity();
    let limit = connect_timeout(&runtime.timing());
    let stream = match connect(addresses, limit).await {
        Ok(stream) => stream,
        Err(error) => {
            return problem(
                "PeerPortUnreachable",
                format!("{name}:{port}/tcp"),
                format!(
                    "{name}:{port}/tcp cannot be reached ({error}); is the node running there, and does a firewall let {port}/tcp through?"
                ),
            );
        }
    };
    if speaks_resp(stream).await {
        return problem(
            "PeerPortIsClientPort",
            format!("{name}:{port}"),
            format!(
                "peers: '{name}:{port}' names the client port {port}; peers are reached on {} (client port + 2)",
                own.peer_port
            ),
        );
    }
    let error = state.error.as_deref().unwrap_or("no answer yet");
    problem(
        "PeerHandshakeFailed",
        format!("{name}:{port}/tcp"),
        format!(
            "{name}:{port} answers, but not as a member of this cluster ({error}); all members need certificates of the same ca.crt with their name in them, or all security.insecure"
        ),
    )
}

async fn client_port(runtime: &Runtime, name: &MemberName, addresses: &[SocketAddr]) -> Option<Problem> {
    let port = runtime.identity().client_port;
    let addresses: Vec<SocketAddr> = addresses.iter().map(|address| SocketAddr::new(address.ip(), port)).collect();
    let error = connect(&addresses, connect_timeout(&runtime.timing())).await.err()?;
    Some(problem(
        "ClientPortUnreachable",
        format!("{name}:{port}/tcp"),
        format!(
            "{name}:{port}/tcp cannot be reached ({error}); is the node running there, and does a firewall let {port}/tcp through?"
        ),
    ))
}

async fn resolve(host: &str, port: u16) -> Result<Vec<SocketAddr>, String> {
    match lookup_host((host, port)).await {
        Ok(found) => {
            let addresses: Vec<SocketAddr> = found.collect();
            if addresses.is_empty() { Err("no address".to_owned()) } else { Ok(addresses) }
        }
        Err(error) => Err(error.to_string()),
    }
}

async fn connect(addresses: &[SocketAddr], limit: Duration) -> io::Result<TcpStream> {
    match timeout(limit, TcpStream::connect(addresses)).await {
        Ok(connected) => connected,
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "no answer")),
    }
}

/// Whether a Redis-speaking listener is behind this connection. A node's peer port answers something else or nothing.
async fn speaks_resp(mut stream: TcpStream) -> bool {
    let mut answer = [0; 16];
    let ask = async {
        stream.write_all(b"PING\r\n").await?;
        stream.read(&mut answer).await
    };
    match timeout(PING_TIMEOUT, ask).await {
        Ok(Ok(length)) => [&b"+PONG"[..], b"-NOAUTH", b"-ERR"].iter().any(|start| answer[..length].starts_with(start)),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;

    #[test]
    fn a_problem_is_known_until_a_round_does_not_find_it() {
        let problems = Problems::default();
        let one = || problem("PeerUnresolved", "a:1", "text".to_owned());
        problems.update(vec![one()], false, Millis(1));
        problems.update(vec![problem("TooFewMembers", "", "text".to_owned())], true, Millis(1));
        assert_eq!(problems.found(), [one()]);
        problems.update(vec![one()], false, Millis(2));
        assert_eq!(problems.found().len(), 1);
        problems.update(vec![], false, Millis(3));
        assert_eq!(problems.found(), []);
        assert_eq!(problems.known.lock().len(), 1);
    }

    #[tokio::test]
    async fn a_client_port_is_told_from_a_silent_one() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            let (mut first, _) = listener.accept().await.unwrap();
            let mut asked = [0; 6];
            first.read_exact(&mut asked).await.unwrap();
            assert_eq!(&asked, b"PING\r\n");
            first.write_all(b"+PONG\r\n").await.unwrap();
            let (_silent, _) = listener.accept().await.unwrap();
            std::future::pending::<()>().await;
        });
        let resp = connect(&[address], Duration::from_secs(1)).await.unwrap();
        assert!(speaks_resp(resp).await);
        let silent = connect(&[address], Duration::from_secs(1)).await.unwrap();
        assert!(!speaks_resp(silent).await);
    }
}
