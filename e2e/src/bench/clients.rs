//! Connections that always have requests under way. Answers have a length that is known before, so reading them costs
//! the clients little; the first byte of each batch's answers is looked at, and a length that is not met is an error.

use super::server::Kind;
use super::work::{Request, Work};
use anyhow::{Context, Result, ensure};
use rand::rngs::SmallRng;
use rand::{RngExt, SeedableRng};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::Mutex;
use tokio::task::JoinSet;

/// Batches that each connection has ready, so that clients need no time to make them.
const BATCHES: usize = 64;
/// About how many bytes of requests fill the server at a time.
const FILLING: usize = 16 << 10;
/// How long one batch may take.
const LIMIT: Duration = Duration::from_secs(10);

/// Requests, and the length of their answers.
struct Batch {
    requests: Vec<u8>,
    answers: usize,
}

impl Batch {
    fn new(work: &Work, kind: Kind, random: &mut SmallRng) -> Self {
        let mut batch = Self { requests: Vec::new(), answers: 0 };
        for _ in 0..work.pipeline {
            let mut any = || work.keys.at(random.random_range(0..work.keys.count()));
            batch.answers += work.write(kind, work.request, &mut any, &mut batch.requests);
        }
        batch
    }
}

/// Connections to one server.
pub(super) struct Clients {
    kind: Kind,
    work: Work,
    connections: Vec<Arc<Mutex<TcpStream>>>,
    batches: Arc<Vec<Batch>>,
    /// Turns of connections, to seed their choices of keys.
    turns: AtomicU64,
}

impl Clients {
    /// Connects.
    pub(super) async fn connect(addresses: &[SocketAddr], kind: Kind, work: &Work) -> Result<Self> {
        let mut connections = Vec::new();
        for address in addresses.iter().cycle().take(work.connections) {
            let stream = TcpStream::connect(address).await?;
            stream.set_nodelay(true)?;
            connections.push(Arc::new(Mutex::new(stream)));
        }
        let mut random = SmallRng::seed_from_u64(1);
        let batches = Arc::new((0..BATCHES * work.connections).map(|_| Batch::new(work, kind, &mut random)).collect());
        Ok(Self { kind, work: work.clone(), connections, batches, turns: AtomicU64::new(1) })
    }

    /// Writes every key once.
    pub(super) async fn fill(&self) -> Result<()> {
        let (count, mut running) = (self.connections.len() as u64, JoinSet::new());
        for (index, stream) in (0..).zip(&self.connections) {
            let (stream, work, kind) = (Arc::clone(stream), self.work.clone(), self.kind);
            running.spawn(async move {
                let (mut stream, mut buffer) = (stream.lock().await, vec![0; 64 << 10]);
                let all = work.keys.count();
                let mut places = (index * all / count)..((index + 1) * all / count);
                while !places.is_empty() {
                    let mut batch = Batch { requests: Vec::new(), answers: 0 };
                    for place in places.by_ref() {
                        let mut key = || work.keys.at(place);
                        batch.answers += work.write(kind, Request::Set, &mut key, &mut batch.requests);
                        if batch.requests.len() >= FILLING {
                            break;
                        }
                    }
                    exchange(&mut stream, &batch, &mut buffer).await?;
                }
                anyhow::Ok(())
            });
        }
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        Ok(())
    }

    /// Sends requests for a while and returns how many operations were answered.
    pub(super) async fn work_for(&self, lasting: Duration) -> Result<u64> {
        let (over, done) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let mut running = JoinSet::new();
        for (index, stream) in self.connections.iter().enumerate() {
            let (stream, batches) = (Arc::clone(stream), Arc::clone(&self.batches));
            let (over, done) = (Arc::clone(&over), Arc::clone(&done));
            let (work, kind) = (self.work.clone(), self.kind);
            let mut random = SmallRng::seed_from_u64(self.turns.fetch_add(1, Ordering::Relaxed));
            running.spawn(async move {
                let (mut stream, mut buffer) = (stream.lock().await, vec![0; 64 << 10]);
                let own = &batches[index * BATCHES..(index + 1) * BATCHES];
                for batch in own.iter().cycle() {
                    if over.load(Ordering::Relaxed) {
                        break;
                    }
                    if work.evicts() {
                        // Those that are ready name fewer keys than the server keeps: after a turn nothing would evict.
                        exchange(&mut stream, &Batch::new(&work, kind, &mut random), &mut buffer).await?;
                    } else {
                        exchange(&mut stream, batch, &mut buffer).await?;
                    }
                    done.fetch_add(1, Ordering::Relaxed);
                }
                anyhow::Ok(())
            });
        }
        tokio::time::sleep(lasting).await;
        over.store(true, Ordering::Relaxed);
        while let Some(ended) = running.join_next().await {
            ended??;
        }
        Ok(done.load(Ordering::Relaxed) * self.work.pipeline as u64 * self.work.keys_of_request())
    }
}

async fn exchange(stream: &mut TcpStream, batch: &Batch, buffer: &mut [u8]) -> Result<()> {
    let both = async {
        let (mut reader, mut writer) = stream.split();
        let write = async { writer.write_all(&batch.requests).await };
        let read = async {
            let mut missing = batch.answers;
            while missing > 0 {
                let room = missing.min(buffer.len());
                let count = reader.read(&mut buffer[..room]).await?;
                ensure!(count > 0, "the server closed the connection");
                ensure!(
                    missing != batch.answers || b"+$*VS".contains(&buffer[0]),
                    "an unexpected answer: {}",
                    String::from_utf8_lossy(&buffer[..count.min(80)])
                );
                missing -= count;
            }
            Ok(())
        };
        let (written, read) = tokio::join!(write, read);
        written?;
        read
    };
    tokio::time::timeout(LIMIT, both).await.context("no answer of the expected length")?
}
