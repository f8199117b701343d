//! The streams that this member opens: one task a peer, for as long as the node wants to speak to it.

use std::{
    collections::BTreeMap,
    io,
    net::SocketAddr,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures::{
    SinkExt, StreamExt,
    stream::{SplitSink, SplitStream},
};
use mizuya_wire::{
    peer::{Frame, Opening},
    settings::Timing,
};
use rustls::pki_types::ServerName;
use tokio::{
    net::{TcpStream, lookup_host},
    task::{JoinSet, yield_now},
    time::{self, timeout},
};
use tokio_rustls::{TlsConnector, TlsStream};
use tokio_util::{either::Either, sync::CancellationToken};

use super::{
    FRAME_BYTES, Link, MAX_FRAME_BYTES, convert,
    frames::{Frames, OPENING_TIMEOUT, PREFACE, frames, opening, prepare},
    server::OURSELVES,
};
use crate::{
    io::{gossip, runtime::Runtime},
    logic::{cluster::member::MemberName, node::ASK_EVERY},
};

/// Between two looks at whom to speak to, when nothing says that it changed.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// First and longest wait before a stream is opened again.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(50), Duration::from_secs(1));
/// How long an address that turned out to be this member itself is left alone.
const OWN_ADDRESS: Duration = Duration::from_mins(1);
/// Who sleeps longer than it wanted by this much has waited for a core. Timers tick every millisecond.
const LATE: Duration = Duration::from_millis(2);

/// Why a stream ended or could not be opened.
#[derive(Debug, thiserror::Error)]
enum Broken {
    #[error("this address is this member itself")]
    Ourselves,
    #[error("cannot connect: {0}")]
    Connect(String),
    #[error("refused: {0}")]
    Refused(String),
    #[error("the stream ended: {0}")]
    Ended(String),
}

/// Keeps a stream to everyone that the node wants to speak to, until `stop`.
pub async fn run(runtime: Arc<Runtime>, stop: CancellationToken) {
    let mut tasks = JoinSet::new();
    let mut running: BTreeMap<(MemberName, u16), CancellationToken> = BTreeMap::new();
    loop {
        let wanted = runtime.node().dial();
        running.retain(|peer, task| {
            let keep = wanted.contains(peer);
            if !keep {
                task.cancel();
            }
            keep
        });
        for (name, port) in wanted {
            running.entry((name.clone(), port)).or_insert_with(|| {
                let stop = stop.child_token();
                let kept = keep_open(runtime.clone(), name, port, stop.clone());
                tasks.spawn_on(kept, runtime.threads().next());
                stop
            });
        }
        tokio::select! {
            () = stop.cancelled() => break,
            () = runtime.dial_changed() => {}
            () = time::sleep(LOOK_EVERY) => {}
        }
        while tasks.try_join_next().is_some() {}
    }
    while tasks.join_next().await.is_some() {}
}

async fn keep_open(runtime: Arc<Runtime>, name: MemberName, port: u16, stop: CancellationToken) {
    let link = runtime.links().add(&name, runtime.clock().now);
    let mut wait = BACKOFF.0;
    while !stop.is_cancelled() {
        let outcome = tokio::select! {
            outcome = open(&runtime, &name, port, &link) => outcome,
            () = stop.cancelled() => break,
        };
        let broken = match outcome {
            Ok(frames) => {
                wait = BACKOFF.0;
                let (speaking, answers) = frames.split();
                tokio::select! {
                    broken = speak(&runtime, &name, &link, speaking) => broken,
                    broken = until_broken(answers) => broken,
                    () = stop.cancelled() => Broken::Ended("no longer wanted".to_owned()),
                }
            }
            Err(broken) => broken,
        };
        close(&runtime, &name, &link, &broken);
        let ourselves = matches!(broken, Broken::Ourselves);
        let pause = if ourselves { OWN_ADDRESS } else { wait.mul_f64(rand::random_range(0.5..1.5)) };
        wait = BACKOFF.1.min(wait * 2);
        tokio::select! {
            () = time::sleep(pause) => {}
            () = link.heard.notified(), if !ourselves => wait = BACKOFF.0,
            () = stop.cancelled() => {}
        }
    }
    close(&runtime, &name, &link, &Broken::Ended("no longer wanted".to_owned()));
    runtime.links().remove(&name, &link);
}

/// Opens a stream; from then on messages flow.
async fn open(runtime: &Runtime, name: &MemberName, port: u16, link: &Link) -> Result<Frames, Broken> {
    let failed = |error| Broken::Connect(told(&error));
    let socket = connect(runtime, name, port).await.map_err(failed)?;
    let (frames, answer) = timeout(OPENING_TIMEOUT, say_who(runtime, name, socket))
        .await
        .map_err(|_| Broken::Connect("no answer to the words that open the stream".to_owned()))?
        .map_err(failed)?;
    if let Some(refused) = answer.refused {
        return Err(if refused.code == OURSELVES { Broken::Ourselves } else { Broken::Refused(refused.message) });
    }
    let calls_itself = MemberName::from(answer.member.as_str());
    {
        let mut state = link.state.lock();
        state.up_since = Some(runtime.clock().now);
        state.down_since = None;
        state.error = None;
        state.calls_itself = Some(calls_itself).filter(|itself| itself != name);
    }
    link.up.store(true, Ordering::Release);
    tracing::debug!(peer = %name, port, "stream open");
    runtime.with_effects(|node, clock, _, effects| node.stream_up(name, clock, effects));
    runtime.gossip(gossip::Event::StreamWorks(name.clone()));
    Ok(frames)
}

/// Tries all addresses that the name has, one after the other, in the time for one.
async fn connect(runtime: &Runtime, name: &MemberName, port: u16) -> io::Result<TcpStream> {
    let timing = runtime.timing();
    // A question to the name service that gets lost is asked again after five seconds by the system, after this by us.
    let found = timeout(connect_timeout(&timing), lookup_host((name.as_str(), port))).await;
    let late = |_| io::Error::new(io::ErrorKind::TimedOut, "no answer from the name service in time");
    let addresses: Vec<SocketAddr> = found.map_err(late)??.collect();
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in &addresses {
        let limit = connect_timeout(&timing) / addresses.len() as u32;
        match timeout(limit, TcpStream::connect(address)).await {
            Ok(Ok(socket)) => {
                prepare(&socket, Duration::from_secs(2).max(timing.suspicion * 2))?;
                return Ok(socket);
            }
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("no answer from {address} in time")),
        }
    }
    Err(last)
}

/// Says who speaks, and hears who answers.
async fn say_who(runtime: &Runtime, name: &MemberName, socket: TcpStream) -> io::Result<(Frames, Opening)> {
    let socket = match runtime.security().client() {
        Some(tls) => {
            let host = ServerName::try_from(name.to_string()).map_err(io::Error::other)?;
            Either::Left(TlsStream::from(TlsConnector::from(tls.clone()).connect(host, socket).await?))
        }
        None => Either::Right(socket),
    };
    let mut frames = frames(socket);
    frames.write_buffer_mut().extend_from_slice(&PREFACE);
    let own = runtime.identity();
    let speaker = Opening { member: own.name.to_string(), generation: own.generation.0, refused: None };
    frames.send(opening(speaker)).await?;
    let answer = frames.next().await.ok_or(io::ErrorKind::UnexpectedEof)??;
    let answer = answer.opening.filter(|opening| !opening.member.is_empty());
    let answer = answer.ok_or_else(|| io::Error::other("the answer does not say who answers"))?;
    Ok((frames, answer))
}

/// Whoever ends at once says no last word over TLS.
fn told(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => "the peer closed it".to_owned(),
        _ => error.to_string(),
    }
}

/// How long a connection may take to be made.
pub fn connect_timeout(timing: &Timing) -> Duration {
    Duration::from_secs(1).max(timing.suspicion)
}

/// A stream ended: the node and the failure detector hear of it.
fn close(runtime: &Runtime, name: &MemberName, link: &Link, broken: &Broken) {
    let was_up = link.up.swap(false, Ordering::AcqRel);
    {
        let mut state = link.state.lock();
        state.up_since = None;
        state.down_since.get_or_insert(runtime.clock().now);
        state.error = (!matches!(broken, Broken::Ourselves)).then(|| broken.to_string());
    }
    tracing::debug!(peer = %name, %broken, "no stream");
    if was_up {
        link.datagrams.lock().clear();
        runtime.with_effects(|node, clock, _, effects| node.stream_down(name, clock, effects));
        runtime.gossip(gossip::Event::StreamBroke(name.clone()));
    }
}

/// The answering half carries nothing; it ends when the stream does.
async fn until_broken(mut answers: SplitStream<Frames>) -> Broken {
    loop {
        match answers.next().await {
            Some(Ok(_)) => {}
            Some(Err(error)) => return Broken::Ended(told(&error)),
            None => return Broken::Ended("the peer closed it".to_owned()),
        }
    }
}

/// Says what there is to say to a peer, one frame at a time. The next one is asked for only when the last one is on its
/// way, so what waits, waits in the node.
async fn speak(runtime: &Runtime, name: &MemberName, link: &Link, mut frames: SplitSink<Frames, Frame>) -> Broken {
    loop {
        // What else is ready has its turn between two chunks.
        if runtime.node().builds_for(name) {
            yield_now().await;
        }
        let frame = next_frame(runtime, name, link);
        if frame.messages.is_empty() && frame.datagrams.is_empty() {
            until_woken(runtime, name, link).await;
        } else if let Err(error) = frames.send(frame).await {
            return Broken::Ended(told(&error));
        }
    }
}

/// Waits until there may be something to say. A wake that came meanwhile is kept.
async fn until_woken(runtime: &Runtime, name: &MemberName, link: &Link) {
    let asleep = Instant::now();
    tokio::select! {
        // Who wakes this one is in the middle of a batch of commands, and others are ready behind it: what all of them
        // have to say goes into one frame.
        () = link.wake.notified() => yield_now().await,
        () = time::sleep(ASK_EVERY), if runtime.node().builds_for(name) => {
            if asleep.elapsed() > ASK_EVERY + LATE {
                runtime.node().sends_late(name);
            }
        }
    }
}

fn next_frame(runtime: &Runtime, name: &MemberName, link: &Link) -> Frame {
    let clock = runtime.clock();
    let messages = runtime.node().take_messages(name, FRAME_BYTES, clock);
    let mut frame =
        Frame { messages: Vec::with_capacity(messages.len()), datagrams: link.take_datagrams(), opening: None };
    for message in messages {
        let bytes = message.weight();
        if bytes < MAX_FRAME_BYTES - FRAME_BYTES {
            frame.messages.push(convert::to_wire(message, clock.now));
        } else {
            tracing::error!(peer = %name, bytes, "a message is too large for a frame and is dropped");
        }
    }
    frame
}
