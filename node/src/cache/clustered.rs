//! Mode `ha`: this process is a member of a cluster.

use std::{
    collections::HashMap,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use bytes::Bytes;
use futures::{FutureExt, channel::mpsc, future::join_all};
use mizuya_wire::settings::Settings;
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};

use super::{Cache, CacheError, Outcome, Stats};
use crate::{
    io::{
        own_address,
        runtime::{Running, Runtime},
        shutdown,
        start::{Listeners, Start, StartError},
    },
    logic::{keyspace::partition_of, node::Ticket, resp::Reply},
};

/// How long a call waits for its reply; the node ends every request long before.
const REPLY_TIMEOUT: Duration = Duration::from_secs(15);

type Waiting = Arc<Mutex<HashMap<u64, oneshot::Sender<Reply>>>>;

/// A member inside this process.
pub(super) struct Clustered {
    runtime: Arc<Runtime>,
    running: Mutex<Option<Running>>,
    connection: u64,
    requests: AtomicU64,
    waiting: Waiting,
}

impl fmt::Debug for Clustered {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Clustered").field("name", &self.runtime.identity().name).finish_non_exhaustive()
    }
}

impl Clustered {
    pub(super) async fn start(mut settings: Settings) -> Result<Self, StartError> {
        own_address::drop_own(&mut settings).await;
        let listeners = Listeners::embedded(&settings).await?;
        let running =
            Runtime::start(Start { settings, zone: String::new(), owns_process: false, threads: Some(0) }, listeners)?;
        let runtime = running.runtime().clone();
        let (sender, mut replies) = mpsc::unbounded::<(Ticket, Reply)>();
        let waiting = Waiting::default();
        let calls = waiting.clone();
        // It ends when the connection is closed and drops the sender.
        tokio::spawn(async move {
            while let Ok((ticket, reply)) = replies.recv().await {
                if let Some(call) = calls.lock().remove(&ticket.request) {
                    let _ = call.send(reply);
                }
            }
        });
        let connection = runtime.open_connection(sender);
        Ok(Self { running: Mutex::new(Some(running)), connection, requests: AtomicU64::new(0), waiting, runtime })
    }

    async fn call(&self, words: Vec<Bytes>) -> Result<Reply, CacheError> {
        if self.running.lock().is_none() {
            return Err(CacheError::Closed);
        }
        let request = self.requests.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = oneshot::channel();
        self.waiting.lock().insert(request, sender);
        let ticket = Ticket { connection: self.connection, request, part: 0 };
        let partition = partition_of(&words[1], self.runtime.partitions());
        let reply = match self.runtime.submit(ticket, partition, &words) {
            Some(reply) => Ok(reply),
            None => match timeout(REPLY_TIMEOUT, receiver).await {
                Ok(Ok(reply)) => Ok(reply),
                Ok(Err(_)) => Err(CacheError::Closed),
                Err(_) => Err(CacheError::Unknown("the node did not answer".to_owned())),
            },
        };
        self.waiting.lock().remove(&request);
        match reply? {
            Reply::Error(text) => Err(failure(text)),
            reply => Ok(reply),
        }
    }

    async fn store(&self, key: &str, value: Bytes, ttl: Duration) -> Result<(), CacheError> {
        let mut words = vec![Bytes::from_static(b"SET"), Bytes::copy_from_slice(key.as_bytes()), value];
        if !ttl.is_zero() {
            words.push(Bytes::from_static(b"PX"));
            words.push(Bytes::from(ttl.as_millis().max(1).to_string()));
        }
        self.call(words).await.map(drop)
    }

    async fn key_call(&self, command: &'static [u8], key: &str) -> Result<Reply, CacheError> {
        self.call(vec![Bytes::from_static(command), Bytes::copy_from_slice(key.as_bytes())]).await
    }
}

/// The kind of an error by the first word of its text, which is stable.
fn failure(text: String) -> CacheError {
    match text.split(' ').next().unwrap_or_default() {
        "CLUSTERQUORUM" | "WRITEQUORUM" | "READQUORUM" => CacheError::Quorum(text),
        "LOADING" | "UNREACHABLE" | "TRYAGAIN" | "CLUSTERDOWN" => CacheError::Unavailable(text),
        "OOM" | "OVERLOADED" => CacheError::Full(text),
        "OUTCOMEUNKNOWN" => CacheError::Unknown(text),
        _ => CacheError::Other(text),
    }
}

fn strange(reply: &Reply) -> CacheError {
    CacheError::Other(format!("unexpected reply {reply:?}"))
}

impl Cache for Clustered {
    fn get<'a>(&'a self, key: &'a str) -> Outcome<'a, Bytes> {
        async move {
            match self.key_call(b"GET", key).await? {
                Reply::Bulk(value) => Ok(value),
                Reply::Nil => Err(CacheError::NotFound),
                reply => Err(strange(&reply)),
            }
        }
        .boxed()
    }

    fn set<'a>(&'a self, key: &'a str, value: Bytes) -> Outcome<'a, ()> {
        self.store(key, value, Duration::ZERO).boxed()
    }

    fn set_with_ttl<'a>(&'a self, key: &'a str, value: Bytes, ttl: Duration) -> Outcome<'a, ()> {
        self.store(key, value, ttl).boxed()
    }

    fn delete<'a>(&'a self, key: &'a str) -> Outcome<'a, ()> {
        async move { self.key_call(b"DEL", key).await.map(drop) }.boxed()
    }

    fn exists<'a>(&'a self, key: &'a str) -> Outcome<'a, bool> {
        async move {
            match self.key_call(b"EXISTS", key).await? {
                Reply::Integer(count) => Ok(count > 0),
                reply => Err(strange(&reply)),
            }
        }
        .boxed()
    }

    fn get_multi<'a>(&'a self, keys: &'a [String]) -> Outcome<'a, Vec<(String, Bytes)>> {
        async move {
            let mut found = Vec::new();
            for (key, got) in keys.iter().zip(join_all(keys.iter().map(|key| self.get(key))).await) {
                match got {
                    Ok(value) => found.push((key.clone(), value)),
                    Err(CacheError::NotFound) => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(found)
        }
        .boxed()
    }

    fn set_multi_with_ttl(&self, items: Vec<(String, Bytes)>, ttl: Duration) -> Outcome<'_, ()> {
        async move {
            let calls = items.into_iter().map(|(key, value)| async move { self.store(&key, value, ttl).await });
            join_all(calls).await.into_iter().collect()
        }
        .boxed()
    }

    fn stats(&self) -> Stats {
        let status = self.runtime.status();
        let members = status.members.iter().filter_map(|member| member.totals);
        members.fold(Stats::default(), |sum, totals| Stats {
            hits: sum.hits + totals.hits,
            misses: sum.misses + totals.misses,
            key_count: sum.key_count + totals.keys,
            bytes_used: sum.bytes_used + totals.bytes,
            evictions: sum.evictions + totals.evictions,
        })
    }

    fn ping(&self) -> Outcome<'_, ()> {
        async move {
            if self.running.lock().is_none() {
                return Err(CacheError::Closed);
            }
            self.runtime.ready().map_err(CacheError::Unavailable)
        }
        .boxed()
    }

    fn close(&self) -> Outcome<'_, ()> {
        async move {
            let running = self.running.lock().take();
            if let Some(running) = running {
                shutdown::leave(running, Duration::ZERO).await;
                self.runtime.close_connection(self.connection);
                self.waiting.lock().clear();
            }
            Ok(())
        }
        .boxed()
    }
}
