//! One connection to a cache, which speaks RESP2 and tells exactly which commands were answered.

use anyhow::{Context, Result, bail};
use futures::{FutureExt, SinkExt, StreamExt};
use redis_protocol::codec::Resp2;
use redis_protocol::resp2::types::BytesFrame;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_util::codec::Framed;

/// How long a cache may take to accept.
const CONNECT_LIMIT: Duration = Duration::from_secs(1);
/// How long a cache may take to answer: more than it holds a request while a partition changes hands.
pub const REPLY_LIMIT: Duration = Duration::from_secs(10);
/// Commands sent before the answers are read, so that neither side's buffers fill.
const MOST_UNDER_WAY: usize = 512;

/// An answer.
pub type Reply = BytesFrame;

/// A command's words.
pub type Command = Vec<String>;

/// An open connection.
#[derive(Debug)]
pub struct Connection {
    framed: Framed<TcpStream, Resp2>,
}

impl Connection {
    /// Opens a connection.
    pub async fn open(address: SocketAddr) -> Result<Self> {
        let stream = timeout(CONNECT_LIMIT, TcpStream::connect(address))
            .await
            .with_context(|| format!("{address} did not accept in {} s", CONNECT_LIMIT.as_secs()))?
            .with_context(|| format!("can't connect to {address}"))?;
        stream.set_nodelay(true)?;
        Ok(Self { framed: Framed::new(stream, Resp2::default()) })
    }

    /// Whether the other side has closed the connection. Only of use when no answer is awaited.
    pub fn is_closed(&mut self) -> bool {
        self.framed.next().now_or_never().is_some()
    }

    /// Ends when the other side closes the connection; only while no answer is awaited.
    pub async fn closed(&mut self) {
        self.framed.next().await;
    }

    /// Sends commands in one write and gives each answer to `take` with its command's index. On an error, commands whose
    /// index was not given were not answered.
    pub async fn exchange(&mut self, commands: &[Command], mut take: impl FnMut(usize, Reply)) -> Result<()> {
        for (chunk_index, chunk) in commands.chunks(MOST_UNDER_WAY).enumerate() {
            for command in chunk {
                self.framed.feed(frame(command)).await?;
            }
            timeout(REPLY_LIMIT, SinkExt::<BytesFrame>::flush(&mut self.framed))
                .await
                .context("the cache reads no commands")??;
            for index in 0..chunk.len() {
                let reply = timeout(REPLY_LIMIT, self.framed.next())
                    .await
                    .with_context(|| format!("no answer in {} s", REPLY_LIMIT.as_secs()))?;
                match reply {
                    Some(reply) => take(chunk_index * MOST_UNDER_WAY + index, reply.context("can't read the answer")?),
                    None => bail!("the cache closed the connection instead of an answer"),
                }
            }
        }
        Ok(())
    }

    /// Sends commands, none of which may be answered by an error.
    pub async fn acknowledged(&mut self, commands: &[Command]) -> Result<()> {
        let mut refused = None;
        let mut take = |index: usize, reply| {
            if let Reply::Error(text) = reply {
                refused = Some((index, text.to_string()));
            }
        };
        self.exchange(commands, &mut take).await?;
        let Some((index, text)) = refused else { return Ok(()) };
        bail!("'{}' answered: {text}", commands[index].iter().take(2).map(String::as_str).collect::<Vec<_>>().join(" "))
    }

    /// Sends one command and returns its answer; an error answer is an error.
    pub async fn ask(&mut self, command: &[&str]) -> Result<Reply> {
        let words = [command.iter().map(ToString::to_string).collect()];
        let mut answer = None;
        self.exchange(&words, |_, reply| answer = Some(reply)).await?;
        match answer.context("the exchange ended without an answer")? {
            Reply::Error(text) => bail!("'{}' answered: {text}", command.join(" ")),
            reply => Ok(reply),
        }
    }

    /// Reads one key's value.
    pub async fn get(&mut self, key: &str) -> Result<Option<String>> {
        match self.ask(&["GET", key]).await? {
            Reply::Null => Ok(None),
            Reply::BulkString(value) => Ok(Some(String::from_utf8_lossy(&value).into_owned())),
            other => bail!("GET {key} answered {other:?}"),
        }
    }
}

fn frame(command: &[String]) -> BytesFrame {
    BytesFrame::Array(command.iter().map(|word| BytesFrame::BulkString(word.clone().into())).collect())
}

/// The name of the address is given as `host:port` or as an IP address with a port; the first address counts.
pub async fn resolve(address: &str) -> Result<SocketAddr> {
    tokio::net::lookup_host(address)
        .await
        .with_context(|| format!("can't resolve '{address}'"))?
        .next()
        .with_context(|| format!("'{address}' has no address"))
}
