//! Carries the failure detector's datagrams: over UDP, sealed, and over the peer streams where UDP does not get
//! through (rule T10).

pub mod seal;

use std::{
    collections::{BTreeMap, HashMap},
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    net::UdpSocket,
    sync::{mpsc, oneshot},
    task::JoinSet,
    time,
};
use tokio_util::sync::CancellationToken;

use self::seal::{Rejected, Seal};
use super::runtime::Runtime;
use crate::logic::{
    clock::Millis,
    cluster::{
        member::MemberName,
        membership::{Change, Destination, Membership, Output},
    },
};

/// Events that may wait; more are dropped, as datagrams may be.
pub const MAX_EVENTS: usize = 1024;
/// Largest datagram that is read.
const MAX_DATAGRAM: usize = 2048;
/// A name is looked up again after this time.
const RESOLVE_EVERY: Duration = Duration::from_secs(3);
/// After how many probe intervals without a datagram over UDP the stream is used as well.
const RELAY_AFTER: u32 = 5;
/// How long an answer goes over the stream to someone who needed the stream, in probe intervals.
const RELAY_BACK: u32 = 10;
/// Names whose addresses are kept.
const MAX_ADDRESSES: usize = 4096;

/// What others tell the detector.
#[derive(Debug)]
pub enum Event {
    /// The stream to a member is open.
    StreamWorks(MemberName),
    /// The stream to a member broke.
    StreamBroke(MemberName),
    /// A sealed datagram came over a stream.
    Relayed(Bytes),
    /// This member goes. Answered once the others were told.
    Leave(oneshot::Sender<()>),
}

/// When a member was last heard over UDP.
pub type HeardOverUdp = BTreeMap<MemberName, Millis>;

/// How a datagram came.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Udp(SocketAddr),
    Stream,
}

struct Address {
    /// By name service.
    resolved: Vec<IpAddr>,
    /// Where the last datagram under this name came from: a pod that was restarted is heard before its name is known.
    seen: Option<SocketAddr>,
    looked_up: Option<Millis>,
    pending: bool,
}

struct Carrier {
    runtime: Arc<Runtime>,
    socket: UdpSocket,
    seal: Seal,
    membership: Membership,
    addresses: HashMap<String, Address>,
    lookups: JoinSet<(String, Vec<IpAddr>)>,
    /// Who sent over the stream lately, and so may not hear UDP.
    relayed: BTreeMap<MemberName, Millis>,
    started: Millis,
    /// To be answered when the datagrams are out.
    told: Option<oneshot::Sender<()>>,
}

/// Runs the failure detector until `stop`.
pub async fn run(runtime: Arc<Runtime>, socket: UdpSocket, mut events: mpsc::Receiver<Event>, stop: CancellationToken) {
    let mut carrier = Carrier::new(runtime, socket);
    let mut buffer = vec![0; MAX_DATAGRAM];
    loop {
        let now = carrier.runtime.clock().now;
        let wait = Duration::from_millis(carrier.membership.next_deadline().since(now));
        let mut output = Output::default();
        tokio::select! {
            () = stop.cancelled() => break,
            event = events.recv() => match event {
                Some(event) => carrier.event(event, &mut output),
                None => break,
            },
            received = carrier.socket.recv_from(&mut buffer) => if let Ok((length, from)) = received {
                carrier.datagram(&buffer[..length], Way::Udp(from), &mut output);
            },
            Some(Ok((host, addresses))) = carrier.lookups.join_next(), if !carrier.lookups.is_empty() => {
                carrier.resolved(&host, addresses);
            }
            () = time::sleep(wait) => {}
        }
        let now = carrier.runtime.clock().now;
        carrier.membership.tick(now, &mut output);
        carrier.carry_out(output, now).await;
    }
}

impl Carrier {
    fn new(runtime: Arc<Runtime>, socket: UdpSocket) -> Self {
        let clock = runtime.clock();
        let setup = runtime.node().config().detector(clock.wall, rand::random());
        Self {
            seal: Seal::new(runtime.security().gossip()),
            membership: Membership::new(setup, clock.now),
            addresses: HashMap::new(),
            lookups: JoinSet::new(),
            relayed: BTreeMap::new(),
            started: clock.now,
            told: None,
            runtime,
            socket,
        }
    }

    fn event(&mut self, event: Event, output: &mut Output) {
        let now = self.runtime.clock().now;
        match event {
            Event::StreamWorks(name) => self.membership.stream_works(&name),
            Event::StreamBroke(name) => self.membership.stream_broke(&name, now, output),
            Event::Relayed(datagram) => self.datagram(&datagram, Way::Stream, output),
            Event::Leave(told) => {
                self.membership.leave(now, output);
                self.told = Some(told);
            }
        }
    }

    fn datagram(&mut self, datagram: &[u8], way: Way, output: &mut Output) {
        let now = self.runtime.clock().now;
        let text = match self.seal.open(datagram) {
            Ok(text) => text,
            Err(rejected) => {
                let from = match way {
                    Way::Udp(from) => from.to_string(),
                    Way::Stream => "a stream".to_owned(),
                };
                self.runtime.reject_datagram(&from, rejected == Rejected::OtherKey, &rejected.to_string());
                return;
            }
        };
        let Some(name) = self.membership.receive(&text, now, output) else { return };
        if name == self.runtime.identity().name {
            return;
        }
        match way {
            Way::Udp(from) => {
                self.runtime.heard_over_udp(&name, now);
                if let Some(address) = self.address(name.as_str()) {
                    address.seen = Some(from);
                }
            }
            Way::Stream => {
                self.relayed.insert(name, now);
            }
        }
    }

    async fn carry_out(&mut self, output: Output, now: Millis) {
        for (to, text) in output.datagrams {
            let Some(datagram) = self.seal.seal(&text, rand::random()) else { continue };
            let (host, port) = match &to {
                Destination::Member(name, port) => (name.as_str(), *port),
                Destination::Peer(host, port) => (host.as_str(), *port),
            };
            for address in self.addresses_of(host, port, now) {
                // A datagram may be lost anywhere; here it is lost at once.
                let _ = self.socket.send_to(&datagram, address).await;
            }
            self.relay(&MemberName::from(host), datagram, now);
        }
        if let Some(told) = self.told.take() {
            let _ = told.send(());
        }
        for change in output.changes {
            tracing::debug!(?change, "membership");
            self.runtime.with_effects(|node, clock, _, effects| match change {
                Change::Up(name, generation) => {
                    self.runtime.links().heard(&name);
                    node.member_up(&name, generation, clock, effects);
                }
                Change::Down(name, generation) => node.member_down(&name, generation, clock, effects),
            });
        }
    }

    /// Sends over the stream as well when the member has not been heard over UDP, or said that it does not hear it.
    fn relay(&self, name: &MemberName, datagram: Bytes, now: Millis) {
        let interval = self.runtime.timing().probe_interval;
        let silent_since = self.runtime.last_heard_over_udp(name).unwrap_or(self.started);
        let unheard = silent_since + interval * RELAY_AFTER < now;
        let unhearing = self.relayed.get(name).is_some_and(|at| *at + interval * RELAY_BACK > now);
        if unheard || unhearing {
            self.runtime.links().get(name).map(|link| link.relay(datagram));
        }
    }

    fn address(&mut self, host: &str) -> Option<&mut Address> {
        if !self.addresses.contains_key(host) {
            if self.addresses.len() >= MAX_ADDRESSES {
                return None;
            }
            let fresh = Address { resolved: Vec::new(), seen: None, looked_up: None, pending: false };
            self.addresses.insert(host.to_owned(), fresh);
        }
        self.addresses.get_mut(host)
    }

    fn addresses_of(&mut self, host: &str, port: u16, now: Millis) -> Vec<SocketAddr> {
        if let Ok(ip) = host.parse::<IpAddr>() {
            return vec![SocketAddr::new(ip, port)];
        }
        let Some(address) = self.address(host) else { return Vec::new() };
        let due = address.looked_up.is_none_or(|at| at + RESOLVE_EVERY <= now);
        let look_up = due && !address.pending;
        if look_up {
            address.pending = true;
            address.looked_up = Some(now);
        }
        let mut all: Vec<SocketAddr> = address.resolved.iter().map(|ip| SocketAddr::new(*ip, port)).collect();
        all.extend(address.seen.filter(|seen| !all.contains(seen)));
        if look_up {
            let host = host.to_owned();
            self.lookups.spawn(async move {
                let found = tokio::net::lookup_host((host.as_str(), port)).await;
                let addresses = found.map(|list| list.map(|address| address.ip()).collect()).unwrap_or_default();
                (host, addresses)
            });
        }
        all
    }

    /// An answer without an address leaves the last ones: a name is gone for a moment while its pod restarts.
    fn resolved(&mut self, host: &str, addresses: Vec<IpAddr>) {
        if let Some(address) = self.addresses.get_mut(host) {
            address.pending = false;
            if !addresses.is_empty() {
                address.resolved = addresses;
            }
        }
    }
}
