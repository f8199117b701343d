//! The peer port: frames from other members, and the admin service, behind one TLS listener.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use futures::{Stream, StreamExt, stream};
use mizuya_wire::{
    admin::admin_server::AdminServer,
    peer::{
        self as wire, Frame,
        peer_server::{Peer, PeerServer},
    },
};
use tokio::{net::TcpListener, sync::Semaphore, task::yield_now};
use tokio_util::sync::CancellationToken;
use tonic::{
    Request, Response, Status, Streaming,
    transport::{Server, server::TcpIncoming},
};

use super::{GENERATION_KEY, MAX_FRAME_BYTES, MAX_STREAMS, MEMBER_KEY, convert};
use crate::{
    io::{admin::AdminService, gossip, runtime::Runtime},
    logic::{
        clock::Millis,
        cluster::{
            member::{Generation, MemberName},
            message::Message,
        },
        node::Effects,
    },
};

/// Windows of HTTP/2: how much a peer may send before it is read.
const WINDOW_BYTES: u32 = 4 << 20;
/// Messages that are read before the first of them is received, so that memory can give what they need side by side.
const AHEAD: usize = 32;
/// Calls at a time on one connection.
const MAX_CALLS: u32 = 64;
/// A caller that is silent is asked whether it lives, and dropped when it does not answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));

/// Serves the peer port until `stop`.
pub async fn serve(
    listener: TcpListener,
    runtime: Arc<Runtime>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let mut server = Server::builder()
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .max_concurrent_streams(MAX_CALLS)
        .http2_keepalive_interval(Some(KEEP_ALIVE.0))
        .http2_keepalive_timeout(Some(KEEP_ALIVE.1));
    if let Some(tls) = runtime.security().server() {
        server = server.tls_config(tls)?;
    }
    let peers =
        PeerService { runtime: runtime.clone(), streams: Arc::new(Semaphore::new(MAX_STREAMS)), stop: stop.clone() };
    server
        .add_service(PeerServer::new(peers).max_decoding_message_size(MAX_FRAME_BYTES))
        .add_service(AdminServer::new(AdminService::new(runtime)))
        .serve_with_incoming_shutdown(TcpIncoming::from(listener).with_nodelay(Some(true)), stop.cancelled_owned())
        .await
}

/// Refuses, counts and logs a caller that shows no certificate of this cluster (rule O20). One with a certificate of
/// another authority does not get through the handshake.
pub fn admit<T>(runtime: &Runtime, request: &Request<T>) -> Result<(), Status> {
    if runtime.security().server().is_none() || request.peer_certs().is_some() {
        return Ok(());
    }
    let caller = request.remote_addr().map_or_else(|| "unknown".to_owned(), |address| address.to_string());
    runtime.reject_caller(&caller);
    Err(Status::permission_denied(
        "the peer port needs a client certificate of this cluster (tls.crt and tls.key from its security folder)",
    ))
}

struct PeerService {
    runtime: Arc<Runtime>,
    streams: Arc<Semaphore>,
    stop: CancellationToken,
}

#[tonic::async_trait]
impl Peer for PeerService {
    type ExchangeStream = Pin<Box<dyn Stream<Item = Result<Frame, Status>> + Send>>;

    async fn exchange(&self, request: Request<Streaming<Frame>>) -> Result<Response<Self::ExchangeStream>, Status> {
        admit(&self.runtime, &request)?;
        let (name, generation) = speaker(&request)?;
        let own = self.runtime.identity();
        if own.name == name && own.generation == generation {
            return Err(Status::already_exists("this is yourself"));
        }
        let place = self.streams.clone().try_acquire_owned().map_err(|_| {
            Status::resource_exhausted(format!("{MAX_STREAMS} streams are open here; close some or use fewer members"))
        })?;
        let (runtime, stop) = (self.runtime.clone(), self.stop.clone());
        let incoming = request.into_inner();
        // The answering half says nothing. It ends when the incoming one does, which is read while it is polled.
        let listening = async move {
            tokio::select! {
                () = listen(&runtime, &name, generation, incoming) => {}
                () = stop.cancelled() => {}
            }
            drop(place);
        };
        let answers = stream::once(listening).filter_map(|()| async { None });
        let mut response = Response::new(Box::pin(answers) as Self::ExchangeStream);
        if let Ok(name) = own.name.as_str().parse() {
            response.metadata_mut().insert(MEMBER_KEY, name);
        }
        Ok(response)
    }
}

fn speaker<T>(request: &Request<T>) -> Result<(MemberName, Generation), Status> {
    let text = |key| request.metadata().get(key).and_then(|value| value.to_str().ok());
    let name = text(MEMBER_KEY).filter(|name| !name.is_empty());
    let generation = text(GENERATION_KEY).and_then(|number| number.parse().ok());
    match (name, generation) {
        (Some(name), Some(generation)) => Ok((MemberName::from(name), Generation(generation))),
        _ => Err(Status::invalid_argument(format!("the call needs metadata {MEMBER_KEY} and {GENERATION_KEY}"))),
    }
}

async fn listen(runtime: &Runtime, name: &MemberName, generation: Generation, mut incoming: Streaming<Frame>) {
    runtime.links().heard(name);
    let _incoming = Incoming::new(runtime, name);
    let mut first = true;
    while let Ok(Some(frame)) = incoming.message().await {
        let mut effects = Effects::default();
        let (clock, random) = (runtime.clock(), rand::random::<u64>());
        let mut messages = frame.messages.into_iter().filter_map(|message| read(message, name, clock.now));
        let (mut number, mut chunk) = (0, false);
        loop {
            let next: Vec<Message> = messages.by_ref().take(AHEAD).collect();
            if next.is_empty() {
                break;
            }
            chunk |= next.iter().any(|message| matches!(message, Message::Chunk(_)));
            runtime.node().look_ahead_for(&next);
            for message in next {
                number += 1;
                runtime.node().receive(name, generation, message, clock, random.wrapping_add(number), &mut effects);
            }
        }
        runtime.carry_out(effects);
        // Whoever said hello is to be spoken to as well.
        if std::mem::take(&mut first) {
            runtime.look_whom_to_dial();
        }
        for datagram in frame.datagrams {
            runtime.gossip(gossip::Event::Relayed(datagram));
        }
        // Entries take their time; what else is ready has its turn before the next ones.
        if chunk {
            yield_now().await;
        }
    }
}

fn read(message: wire::Message, peer: &MemberName, now: Millis) -> Option<Message> {
    match convert::from_wire(message, now) {
        Ok(Some(message)) => return Some(message),
        Ok(None) => once(&UNKNOWN, || tracing::warn!(%peer, "messages of a newer kind are ignored")),
        Err(malformed) => once(&MALFORMED, || tracing::error!(%peer, %malformed, "message dropped")),
    }
    None
}

/// A stream of a peer to this node, from its beginning to its end, whichever way it ends.
struct Incoming<'a> {
    runtime: &'a Runtime,
    peer: &'a MemberName,
}

impl<'a> Incoming<'a> {
    fn new(runtime: &'a Runtime, peer: &'a MemberName) -> Self {
        let incoming = Self { runtime, peer };
        incoming.replies_lost();
        incoming
    }

    fn replies_lost(&self) {
        self.runtime.with_effects(|node, clock, _, effects| node.replies_lost(self.peer, clock, effects));
    }
}

impl Drop for Incoming<'_> {
    fn drop(&mut self) {
        self.replies_lost();
    }
}

static UNKNOWN: AtomicBool = AtomicBool::new(false);
static MALFORMED: AtomicBool = AtomicBool::new(false);

/// Says something the first time only.
fn once(said: &AtomicBool, say: impl FnOnce()) {
    if !said.swap(true, Ordering::Relaxed) {
        say();
    }
}
