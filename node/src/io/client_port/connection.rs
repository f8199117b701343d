//! One client's socket: bytes in, bytes out. What they mean is the session's.

use std::{
    cell::Cell,
    future::poll_fn,
    io::{self, IoSlice},
    ops::RangeInclusive,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use bytes::{Buf, BufMut, BytesMut};
use futures::channel::mpsc;
use socket2::SockRef;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::yield_now,
    time::{Instant, sleep_until, timeout},
};

use super::{
    clients::{Client, Clients},
    leaving::Leaving,
    listener,
    session::{Late, Session},
};
use crate::io::{memory::Throttle, runtime::Runtime};

/// Read at a time: from the least, doubled while reads fill it.
const READ: RangeInclusive<usize> = (4 << 10)..=(64 << 10);
/// Most that is reserved at a time for a word whose length is known.
const READ_AHEAD: usize = 1 << 20;
/// Pieces of output that one write takes.
const SLICES: usize = 64;
/// How long, and for how many bytes, a closed connection still reads.
const LINGER: Duration = Duration::from_millis(250);
const LINGER_BYTES: u64 = 1 << 20;

/// Serves one client until either side ends.
pub(super) fn run(stream: TcpStream, runtime: Arc<Runtime>, clients: Arc<Clients>) -> impl Future<Output = ()> {
    // It may have ended already. Opened outside of the future, which would keep the arguments besides.
    let mut connection = Connection::open(stream, runtime, clients).ok();
    async move {
        let Some(connection) = &mut connection else { return };
        let mut end = connection.serve().await;
        if end.is_ok() {
            end = Box::pin(connection.end()).await;
        }
        if let Err(error) = end {
            let peer = connection.session.client().peer();
            tracing::debug!(%peer, %error, "a client's connection broke");
        }
    }
}

thread_local! {
    /// Room that the next connection of a thread reads into. It stays in the core's cache.
    static SPARE: Cell<Option<Box<BytesMut>>> = const { Cell::new(None) };
}

/// What was read and not understood yet.
#[derive(Default)]
struct Input {
    bytes: Option<Box<BytesMut>>,
    /// It is the beginning of a command, in room of its own size.
    rests: bool,
}

impl Input {
    fn len(&self) -> usize {
        self.bytes.as_ref().map_or(0, |bytes| bytes.len())
    }

    /// Takes from the front as many bytes as `takes` says.
    fn take(&mut self, takes: impl FnOnce(&[u8]) -> usize) {
        match &mut self.bytes {
            Some(bytes) => bytes.advance(takes(bytes)),
            None => drop(takes(&[])),
        }
        if self.len() == 0 {
            self.give_back();
        }
    }

    /// Takes room for about so many bytes more.
    fn with_room(&mut self, wanted: usize) -> &mut BytesMut {
        let rest = if std::mem::take(&mut self.rests) { self.bytes.take() } else { None };
        let bytes = self.bytes.get_or_insert_with(|| SPARE.take().unwrap_or_default());
        if let Some(rest) = rest {
            bytes.extend_from_slice(&rest);
        }
        if bytes.capacity() - bytes.len() < wanted / 2 + 1 {
            bytes.reserve(wanted);
        }
        bytes
    }

    /// There is nothing to read: gives the room back, but for that of the bytes in it, unless they are many.
    fn rest(&mut self) {
        match self.len() {
            0 => self.give_back(),
            length if length < *READ.start() && !self.rests => {
                let bytes = self.bytes.as_deref().map(|bytes| Box::new(BytesMut::from(&bytes[..])));
                self.give_back();
                (self.bytes, self.rests) = (bytes, true);
            }
            _ => {}
        }
    }

    fn give_back(&mut self) {
        self.rests = false;
        if let Some(mut bytes) = self.bytes.take() {
            bytes.clear();
            // Others need no more.
            if !bytes.try_reclaim(2 * *READ.end()) {
                SPARE.set(Some(bytes));
            }
        }
    }
}

/// Takes the connection off the lists however it ends.
struct Registered {
    id: u64,
    runtime: Arc<Runtime>,
    clients: Arc<Clients>,
}

impl Drop for Registered {
    fn drop(&mut self) {
        self.runtime.close_connection(self.id);
        self.clients.closed(self.id);
    }
}

/// A silent one takes little (`footprint: a_silent_connection_takes_less_than_2_kib`): what is rare is boxed.
struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    session: Session,
    /// Replies that come later.
    replies: mpsc::UnboundedReceiver<Late>,
    _registered: Registered,
    input: Input,
    /// How much to read next.
    read: usize,
    /// How much the last read brought, unless that was waited for.
    brought: usize,
    /// The client sends no more, or the node takes no more.
    ended: bool,
}

impl Connection {
    fn open(stream: TcpStream, runtime: Arc<Runtime>, clients: Arc<Clients>) -> io::Result<Self> {
        listener::prepare(&stream)?;
        let (peer, local) = (stream.peer_addr()?, stream.local_addr()?);
        let (sender, replies) = mpsc::unbounded();
        let registered =
            Registered { id: runtime.open_connection(sender), runtime: runtime.clone(), clients: clients.clone() };
        let client = Arc::new(Client::new(registered.id, peer, local, runtime.clock().now));
        clients.opened(client.clone());
        let (reader, writer) = stream.into_split();
        Ok(Self {
            reader,
            writer,
            session: Session::new(runtime, clients, client),
            replies,
            _registered: registered,
            input: Input::default(),
            read: *READ.start(),
            brought: 0,
            ended: false,
        })
    }

    /// Returns when everything was answered and no more is taken.
    async fn serve(&mut self) -> io::Result<()> {
        let closing = self.session.runtime().closing();
        let mut closed = pin!(closing.cancelled());
        let mut leaving: Option<Box<Leaving>> = None;
        loop {
            self.input.take(|bytes| self.session.process(bytes));
            if leaving.is_none() && !self.session.runtime().is_closing() {
                let full = !self.session.takes_commands();
                if self.session.output_waits() {
                    // First all connections that are ready are read, then all replies are written: whoever waits for the
                    // first of them is awake when the others come, and waking costs more than writing.
                    yield_now().await;
                }
                self.write_at_once()?;
                if full && self.session.takes_commands() {
                    // There is room again for commands that were read before.
                    continue;
                }
            }
            let served = self.session.is_served();
            if served && (self.session.is_over() || self.ended) {
                return Ok(());
            }
            if leaving.is_none() && self.session.runtime().is_closing() {
                leaving = Some(Box::new(Leaving::new(Instant::now(), !served || self.session.output_waits())));
            }
            let late = leaving.as_ref().is_some_and(|leaving| leaving.is_late(Instant::now()));
            let torn = self.input.len() > 0;
            let next = leaving.as_ref().map(|leaving| if served { leaving.end(torn) } else { leaving.deadline() });
            let wants_input = !self.ended && !late && self.session.wants_input();
            let wanted = self.read.max(self.session.missing(self.input.len()).min(READ_AHEAD));
            // Who leaves has little time for what is still to be read.
            let throttle = if leaving.is_none() && wants_input { self.throttle(wanted) } else { None };
            let Self { reader, writer, session, replies, input, brought, .. } = &mut *self;
            let writes = session.output_waits() && (leaving.is_none() || late);
            tokio::select! {
                biased;
                written = writer.write_buf(session.output()), if writes => session.wrote(written?)?,
                Ok((ticket, reply)) = replies.recv(), if !served => {
                    session.fill(ticket, reply);
                    while let Ok((ticket, reply)) = replies.try_recv() {
                        session.fill(ticket, reply);
                    }
                }
                count = read(throttle, brought, reader, input, wanted), if wants_input => {
                    let count = count?;
                    session.was_read(count);
                    (self.ended, self.read, self.brought) = (count == 0, next_read(self.read, count), count);
                    if let Some(leaving) = &mut leaving {
                        leaving.hears(Instant::now());
                    }
                }
                () = &mut closed, if leaving.is_none() => {}
                () = until(next), if leaving.is_some() && (served || !late) => self.ended = served,
            }
        }
    }

    /// What fits into the socket's buffer goes out without waiting for a turn.
    fn write_at_once(&mut self) -> io::Result<()> {
        while self.session.output_waits() {
            let output = self.session.output();
            let written = if output.is_one_chunk() {
                // Most often; the kernel needs less for it.
                self.writer.try_write(output.chunk())
            } else {
                let mut slices = [IoSlice::new(&[]); SLICES];
                let count = output.chunks_vectored(&mut slices);
                self.writer.try_write_vectored(&slices[..count])
            };
            match written {
                Ok(written) => {
                    output.advance(written);
                    self.session.wrote(written)?;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// What must be waited for before a read, if the last one brought something and either is large.
    fn throttle(&self, wanted: usize) -> Option<Arc<Throttle>> {
        if self.brought == 0 || wanted.max(self.brought) < *READ.end() {
            return None;
        }
        let throttle = self.session.runtime().throttle();
        throttle.is_on().then(|| throttle.clone())
    }

    /// Closes so that the last replies arrive, in one segment with the end: a client that has read them can see that no
    /// more will come. What the client still sends is read, because a socket that is closed with unread bytes resets the
    /// connection, and the client may lose what it has not read yet.
    async fn end(&mut self) -> io::Result<()> {
        if self.session.output_waits() {
            SockRef::from(self.writer.as_ref()).set_tcp_cork(true)?;
            while self.session.output_waits() {
                let written = self.writer.write_buf(self.session.output()).await?;
                self.session.wrote(written)?;
            }
        }
        self.writer.shutdown().await?;
        let mut rest = (&mut self.reader).take(LINGER_BYTES);
        let _ = timeout(LINGER, tokio::io::copy(&mut rest, &mut tokio::io::sink())).await;
        Ok(())
    }
}

/// Reads about as much as is `wanted`, after what must be waited for. Room is taken to read, and given back when there is
/// nothing to read or all was understood, so that a silent connection holds none.
#[expect(clippy::manual_async_fn, reason = "an async fn keeps its arguments twice")]
fn read<'a>(
    throttle: Option<Arc<Throttle>>,
    brought: &'a mut usize,
    reader: &'a mut OwnedReadHalf,
    input: &'a mut Input,
    wanted: usize,
) -> impl Future<Output = io::Result<usize>> + 'a {
    async move {
        if let Some(throttle) = throttle {
            Box::pin(throttle.wait(*brought)).await;
            // Once, also if nothing comes before something else happens.
            *brought = 0;
        }
        poll_fn(|context| {
            let mut room = input.with_room(wanted).limit(wanted);
            let read = pin!(reader.read_buf(&mut room)).poll(context);
            if read.is_pending() {
                input.rest();
            }
            read
        })
        .await
    }
}

/// Never without a time.
async fn until(time: Option<Instant>) {
    match time {
        Some(time) => Box::pin(sleep_until(time)).await,
        None => std::future::pending().await,
    }
}

/// Reads that fill their room ask for more, small ones for less.
fn next_read(size: usize, count: usize) -> usize {
    let next = if count >= size {
        size * 2
    } else if count < size / 4 {
        size / 2
    } else {
        size
    };
    next.clamp(*READ.start(), *READ.end())
}
