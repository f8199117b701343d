//! The streams that this member opens: one task a peer, for as long as the node wants to speak to it.

use std::{
    collections::BTreeMap,
    sync::{Arc, atomic::Ordering},
    time::{Duration, Instant},
};

use futures::{Stream, stream};
use mizuya_wire::{
    peer::{Frame, peer_client::PeerClient},
    settings::Timing,
};
use tokio::{
    task::{JoinSet, yield_now},
    time,
};
use tokio_util::sync::CancellationToken;
use tonic::{Code, Request, Status, transport::Endpoint};

use super::{FRAME_BYTES, GENERATION_KEY, Link, MAX_FRAME_BYTES, MEMBER_KEY, convert};
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
/// How long the answer to the call that opens a stream may take.
const OPEN_TIMEOUT: Duration = Duration::from_secs(5);
/// Windows of HTTP/2: how much may be on its way without an answer.
const WINDOW_BYTES: u32 = 4 << 20;

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
                tasks.spawn(keep_open(runtime.clone(), name, port, stop.clone()));
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
            Ok(incoming) => {
                wait = BACKOFF.0;
                tokio::select! {
                    broken = until_broken(incoming) => broken,
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
async fn open(
    runtime: &Arc<Runtime>,
    name: &MemberName,
    port: u16,
    link: &Arc<Link>,
) -> Result<tonic::Streaming<Frame>, Broken> {
    let connect = |error: tonic::transport::Error| Broken::Connect(with_causes(&error));
    let mut endpoint = endpoint(name, port, runtime).map_err(connect)?;
    if let Some(tls) = runtime.security().client(name.as_str()) {
        endpoint = endpoint.tls_config(tls).map_err(connect)?;
    }
    let channel = endpoint.connect().await.map_err(connect)?;
    let mut client = PeerClient::new(channel).max_encoding_message_size(MAX_FRAME_BYTES);
    let session = runtime.links().next_session();
    let mut request = Request::new(frames(runtime.clone(), name.clone(), link.clone(), session));
    let identity = runtime.identity();
    let text =
        |text: String| text.parse().map_err(|_| Broken::Connect("the member's name is no plain text".to_owned()));
    request.metadata_mut().insert(MEMBER_KEY, text(identity.name.to_string())?);
    request.metadata_mut().insert(GENERATION_KEY, text(identity.generation.0.to_string())?);
    let answer = time::timeout(OPEN_TIMEOUT, client.exchange(request))
        .await
        .map_err(|_| Broken::Connect("no answer to the call that opens the stream".to_owned()))?
        .map_err(|status| match status.code() {
            Code::AlreadyExists => Broken::Ourselves,
            _ => Broken::Refused(status.message().to_owned()),
        })?;
    let calls_itself = answer.metadata().get(MEMBER_KEY).and_then(|name| name.to_str().ok()).map(MemberName::from);
    {
        let mut state = link.state.lock();
        state.up_since = Some(runtime.clock().now);
        state.down_since = None;
        state.error = None;
        state.calls_itself = calls_itself.filter(|itself| itself != name);
    }
    link.session.store(session, Ordering::Release);
    tracing::debug!(peer = %name, port, "stream open");
    runtime.with_effects(|node, clock, _, effects| node.stream_up(name, clock, effects));
    runtime.gossip(gossip::Event::StreamWorks(name.clone()));
    link.wake.notify_one();
    Ok(answer.into_inner())
}

fn endpoint(name: &MemberName, port: u16, runtime: &Runtime) -> Result<Endpoint, tonic::transport::Error> {
    let scheme = if runtime.security().gossip().is_some() { "https" } else { "http" };
    let host = if name.as_str().contains(':') { format!("[{name}]") } else { name.to_string() };
    let timing = runtime.timing();
    Ok(Endpoint::from_shared(format!("{scheme}://{host}:{port}"))?
        .connect_timeout(connect_timeout(&timing))
        .tcp_nodelay(true)
        .initial_stream_window_size(WINDOW_BYTES)
        .initial_connection_window_size(WINDOW_BYTES)
        .http2_keep_alive_interval(timing.suspicion)
        .keep_alive_timeout(Duration::from_secs(2).max(timing.suspicion * 2))
        .keep_alive_while_idle(true))
}

/// How long a connection may take to be made.
pub fn connect_timeout(timing: &Timing) -> Duration {
    Duration::from_secs(1).max(timing.suspicion)
}

/// A stream ended: the node and the failure detector hear of it.
fn close(runtime: &Runtime, name: &MemberName, link: &Link, broken: &Broken) {
    let was_up = link.session.swap(0, Ordering::AcqRel) != 0;
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
async fn until_broken(mut incoming: tonic::Streaming<Frame>) -> Broken {
    loop {
        match incoming.message().await {
            Ok(Some(_)) => {}
            Ok(None) => return Broken::Ended("the peer closed it".to_owned()),
            Err(status) => return Broken::Ended(status_text(&status)),
        }
    }
}

/// What there is to say to a peer, one frame at a time. It is asked for the next frame only when the last one is on its
/// way, so what waits, waits in the node.
fn frames(
    runtime: Arc<Runtime>,
    name: MemberName,
    link: Arc<Link>,
    session: u64,
) -> impl Stream<Item = Frame> + Send + 'static {
    stream::unfold((runtime, name, link), move |(runtime, name, link)| async move {
        // What else is ready has its turn between two chunks.
        if runtime.node().builds_for(&name) {
            yield_now().await;
        }
        loop {
            match link.session.load(Ordering::Acquire) {
                present if present == session => {
                    let frame = next_frame(&runtime, &name, &link);
                    if !frame.messages.is_empty() || !frame.datagrams.is_empty() {
                        return Some((frame, (runtime, name, link)));
                    }
                }
                present if present > session => {
                    // What woke this one was meant for its successor.
                    link.wake.notify_one();
                    return None;
                }
                _ => {}
            }
            // A wake that came meanwhile is kept.
            let asleep = Instant::now();
            tokio::select! {
                // Who wakes this one is in the middle of a batch of commands, and others are ready behind it: what all of
                // them have to say goes into one frame.
                () = link.wake.notified() => {
                    if link.session.load(Ordering::Acquire) == session {
                        yield_now().await;
                    }
                }
                () = time::sleep(ASK_EVERY), if runtime.node().builds_for(&name) => {
                    if asleep.elapsed() > ASK_EVERY + LATE {
                        runtime.node().sends_late(&name);
                    }
                }
            }
        }
    })
}

fn next_frame(runtime: &Runtime, name: &MemberName, link: &Link) -> Frame {
    let clock = runtime.clock();
    let messages = runtime.node().take_messages(name, FRAME_BYTES, clock);
    let mut frame = Frame { messages: Vec::with_capacity(messages.len()), datagrams: link.take_datagrams() };
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

fn status_text(status: &Status) -> String {
    match std::error::Error::source(status) {
        Some(source) => with_causes(source),
        None => status.message().to_owned(),
    }
}

/// An error with what caused it: the first text alone is often only `transport error`.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let next = error.to_string();
        if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        cause = error.source();
    }
    text
}
