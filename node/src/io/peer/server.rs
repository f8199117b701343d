//! The peer port: streams of other members, and gRPC of the admin service, behind one TLS listener. The first bytes of
//! a caller tell which.

use std::{
    io,
    net::SocketAddr,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use futures::{SinkExt, StreamExt};
use mizuya_wire::{
    admin::admin_server::AdminServer,
    peer::{self as wire, Opening},
};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf},
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::{JoinSet, yield_now},
    time::{sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, TlsStream};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::{either::Either, sync::CancellationToken};
use tonic::{
    Request, Status,
    transport::{Server, server::Connected},
};

use super::{
    MAX_STREAMS, convert,
    frames::{Frames, OPENING_TIMEOUT, PREFACE, Socket, frames, opened, opening, prepare},
};
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

/// Messages that are read before the first of them is received, so that memory can give what they need side by side.
const AHEAD: usize = 32;
/// Connections of whom it is not known yet who they are or what they want.
const MAX_GREETINGS: usize = 1024;
/// Connections that call the admin service, such ones that only hear that they are refused, and calls at a time on one.
const MAX_CALLERS: usize = 256;
const MAX_STRANGERS: usize = 16;
const MAX_CALLS: u32 = 64;
/// What gRPC begins with.
const HTTP2: [u8; 8] = *b"PRI * HT";
/// A caller that confirms nothing for this long is gone.
const SILENCE: Duration = Duration::from_secs(20);
/// A caller of the admin service that is silent is asked whether it lives, and dropped when it does not answer.
const KEEP_ALIVE: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(10));
/// After an error of accepting, such as no free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);

/// Serves the peer port until `stop`.
pub async fn serve(
    listener: TcpListener,
    runtime: Arc<Runtime>,
    stop: CancellationToken,
) -> Result<(), tonic::transport::Error> {
    let (admin, calls) = mpsc::channel(MAX_CALLERS);
    let served = Server::builder()
        .max_concurrent_streams(MAX_CALLS)
        .http2_keepalive_interval(Some(KEEP_ALIVE.0))
        .http2_keepalive_timeout(Some(KEEP_ALIVE.1))
        .add_service(AdminServer::new(AdminService::new(runtime.clone())))
        .serve_with_incoming_shutdown(
            ReceiverStream::new(calls).map(Ok::<_, io::Error>),
            stop.clone().cancelled_owned(),
        );
    let port = Arc::new(Port {
        tls: runtime.security().server().map(|tls| TlsAcceptor::from(tls.clone())),
        runtime,
        admin,
        greetings: Arc::new(Semaphore::new(MAX_GREETINGS)),
        streams: Arc::new(Semaphore::new(MAX_STREAMS)),
        callers: Arc::new(Semaphore::new(MAX_CALLERS)),
        strangers: Arc::new(Semaphore::new(MAX_STRANGERS)),
    });
    let mut served = pin!(served);
    tokio::select! {
        ended = &mut served => ended,
        () = accept(listener, port, stop) => served.await,
    }
}

async fn accept(listener: TcpListener, port: Arc<Port>, stop: CancellationToken) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((socket, address)) => {
                    // Beyond the limit a connection is closed at once.
                    if let Ok(place) = port.greetings.clone().try_acquire_owned() {
                        let greeted = port.clone();
                        let greet = move |socket| greeted.greet(socket, address, place);
                        port.runtime.threads().serve(&mut connections, socket, greet);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "a connection to the peer port could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = stop.cancelled() => break,
        }
    }
    drop(listener);
    connections.shutdown().await;
}

/// Who is at the other end of a connection.
#[derive(Clone, Copy, Debug)]
struct Caller {
    address: SocketAddr,
    /// It has shown a certificate of this cluster, or none is asked for.
    is_known: bool,
}

impl Caller {
    /// Refuses, counts and logs a caller that shows no certificate of this cluster (rule O20). One with a certificate
    /// of another authority does not get through the handshake.
    fn admit(self, runtime: &Runtime) -> Result<(), &'static str> {
        if self.is_known {
            return Ok(());
        }
        runtime.reject_caller(&self.address.to_string());
        Err("the peer port needs a client certificate of this cluster (tls.crt and tls.key from its security folder)")
    }
}

/// Refuses a call of the admin service by a caller that must not make it.
pub fn admit<T>(runtime: &Runtime, request: &Request<T>) -> Result<(), Status> {
    let caller = request.extensions().get::<Caller>().copied();
    let caller = caller.ok_or_else(|| Status::internal("it is not known who calls"))?;
    caller.admit(runtime).map_err(Status::permission_denied)
}

struct Port {
    runtime: Arc<Runtime>,
    tls: Option<TlsAcceptor>,
    admin: mpsc::Sender<AdminSocket>,
    greetings: Arc<Semaphore>,
    streams: Arc<Semaphore>,
    callers: Arc<Semaphore>,
    strangers: Arc<Semaphore>,
}

impl Port {
    async fn greet(self: Arc<Self>, socket: TcpStream, address: SocketAddr, place: OwnedSemaphorePermit) {
        let (socket, caller, first) = match timeout(OPENING_TIMEOUT, self.hear_preface(socket, address)).await {
            Ok(Ok(greeted)) => greeted,
            Ok(Err(error)) => return tracing::debug!(%address, %error, "a connection to the peer port broke"),
            Err(_) => return tracing::debug!(%address, "a connection to the peer port did not say what it wants"),
        };
        match first {
            PREFACE => match self.stream(frames(socket), caller, place).await {
                Ok(()) => {}
                Err(error) => tracing::debug!(%address, %error, "a stream was not opened"),
            },
            HTTP2 => {
                // Strangers may not keep those out who are known.
                let places = if caller.is_known { &self.callers } else { &self.strangers };
                let Ok(place) = places.clone().try_acquire_owned() else {
                    return tracing::debug!(%address, "too many connections call the admin service");
                };
                let first = Bytes::copy_from_slice(&first);
                let _ = self.admin.send(AdminSocket { first, socket, caller, _place: place }).await;
            }
            _ => tracing::debug!(%address, "a connection to the peer port wants neither a stream nor gRPC"),
        }
    }

    async fn hear_preface(&self, socket: TcpStream, address: SocketAddr) -> io::Result<(Socket, Caller, [u8; 8])> {
        prepare(&socket, SILENCE)?;
        let (mut socket, is_known) = match &self.tls {
            Some(tls) => {
                let socket = tls.accept(socket).await?;
                let is_known = socket.get_ref().1.peer_certificates().is_some();
                (Either::Left(TlsStream::from(socket)), is_known)
            }
            None => (Either::Right(socket), true),
        };
        let mut first = [0; PREFACE.len()];
        socket.read_exact(&mut first).await?;
        Ok((socket, Caller { address, is_known }, first))
    }

    /// Hears who speaks, answers, and listens until the stream ends.
    async fn stream(&self, mut frames: Frames, caller: Caller, place: OwnedSemaphorePermit) -> io::Result<()> {
        let first = timeout(OPENING_TIMEOUT, frames.next()).await?.ok_or(io::ErrorKind::UnexpectedEof)??;
        let own = self.runtime.identity();
        let mut answer = Opening { member: own.name.to_string(), generation: own.generation.0, refused: None };
        let (name, generation, _stream) = match self.judge(first.opening, caller) {
            Ok(admitted) => admitted,
            Err((code, message)) => {
                answer.refused = Some(wire::Refusal { code: code.to_owned(), message });
                let refuse = async {
                    frames.send(opening(answer)).await?;
                    frames.close().await
                };
                return timeout(OPENING_TIMEOUT, refuse).await?;
            }
        };
        // Before the answer: the peer may ask at once.
        let _incoming = Incoming::new(&self.runtime, &name);
        timeout(OPENING_TIMEOUT, frames.send(opening(answer))).await??;
        opened(&mut frames);
        drop(place);
        listen(&self.runtime, &name, generation, frames).await;
        Ok(())
    }

    /// Whether there will be a stream, or why not: a word for programs, and a sentence.
    fn judge(
        &self,
        speaker: Option<Opening>,
        caller: Caller,
    ) -> Result<(MemberName, Generation, OwnedSemaphorePermit), (&'static str, String)> {
        caller.admit(&self.runtime).map_err(|reason| ("NoCertificate", reason.to_owned()))?;
        let speaker = speaker.filter(|speaker| !speaker.member.is_empty());
        let speaker = speaker.ok_or_else(|| ("NoOpening", "the first frame must say who speaks".to_owned()))?;
        let (name, generation) = (MemberName::from(speaker.member.as_str()), Generation(speaker.generation));
        let own = self.runtime.identity();
        if own.name == name && own.generation == generation {
            return Err((OURSELVES, "this is yourself".to_owned()));
        }
        let place = self.streams.clone().try_acquire_owned().map_err(|_| {
            let text = format!("{MAX_STREAMS} streams are open here; close some or use fewer members");
            ("TooManyStreams", text)
        })?;
        Ok((name, generation, place))
    }
}

/// Why a member refuses a stream to itself.
pub(super) const OURSELVES: &str = "Ourselves";

/// A connection that calls the admin service, and what was read of it already.
struct AdminSocket {
    first: Bytes,
    socket: Socket,
    caller: Caller,
    _place: OwnedSemaphorePermit,
}

impl Connected for AdminSocket {
    type ConnectInfo = Caller;

    fn connect_info(&self) -> Caller {
        self.caller
    }
}

impl AsyncRead for AdminSocket {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, into: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.first.is_empty() {
            return Pin::new(&mut self.socket).poll_read(context, into);
        }
        let bytes = self.first.len().min(into.remaining());
        into.put_slice(&self.first.split_to(bytes));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for AdminSocket {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.socket).poll_write(context, from)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.socket).poll_shutdown(context)
    }
}

async fn listen(runtime: &Runtime, name: &MemberName, generation: Generation, mut frames: Frames) {
    runtime.links().heard(name);
    let mut first = true;
    while let Some(Ok(frame)) = frames.next().await {
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
