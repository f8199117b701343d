//! Accepts connections.

use std::{io, sync::Arc, time::Duration};

use socket2::{SockRef, TcpKeepalive};
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::JoinSet,
    time::{sleep, timeout},
};

use super::{clients::Clients, connection};
use crate::io::runtime::Runtime;

/// Most connections at a time, as in Redis.
pub const MAX_CLIENTS: usize = 10_000;
/// How long a client may be silent before the kernel asks whether it still lives.
const KEEPALIVE: Duration = Duration::from_mins(5);
/// After an error of accepting, such as no free file descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// How long connections may take to answer what they have begun when the node closes.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long telling a client that it is refused may take.
const REFUSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Serves clients until the runtime closes; then takes no more, and waits until the open ones have answered what they
/// have begun (rule L3).
pub async fn serve(listener: TcpListener, runtime: Arc<Runtime>) {
    let closing = runtime.closing();
    let clients = Arc::new(Clients::default());
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) if connections.len() >= MAX_CLIENTS => refuse(stream, &clients).await,
                Ok((stream, _)) => {
                    let shared = (runtime.clone(), clients.clone());
                    let serve = |stream| connection::run(stream, shared.0, shared.1);
                    runtime.threads().serve(&mut connections, stream, serve);
                }
                Err(error) => {
                    tracing::warn!(%error, "a client's connection could not be accepted");
                    sleep(ACCEPT_PAUSE).await;
                }
            },
            Some(_) = connections.join_next() => {}
            () = closing.cancelled() => break,
        }
    }
    drop(listener);
    let ended = timeout(CLOSE_TIMEOUT, async { while connections.join_next().await.is_some() {} }).await;
    if ended.is_err() {
        tracing::warn!(connections = connections.len(), "client connections did not end in time and are cut");
    }
}

/// The error is tiny and the socket's buffer empty, so this waits for nothing in practice.
async fn refuse(mut stream: TcpStream, clients: &Clients) {
    clients.rejected();
    let text = b"-ERR max number of clients reached\r\n";
    let _ = timeout(REFUSE_TIMEOUT, stream.write_all(text)).await;
}

/// Small replies go out at once, and dead peers are noticed.
pub(super) fn prepare(stream: &TcpStream) -> io::Result<()> {
    stream.set_nodelay(true)?;
    SockRef::from(stream).set_tcp_keepalive(&TcpKeepalive::new().with_time(KEEPALIVE))
}
