//! The least that a server can cost here: it understands nothing and keeps nothing, but reads each batch of requests and
//! writes as many bytes as the answers have. What it takes is the kernel's, and no server of this kind takes less.

use anyhow::{Context, Result};
use clap::Args;
use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};
use std::collections::HashMap;
use std::io::{ErrorKind, Read, Write};
use std::net::SocketAddr;

const LISTENER: Token = Token(0);

/// What it is told.
#[derive(Clone, Copy, Debug, Args)]
pub struct Floor {
    /// Where to listen
    #[arg(long)]
    address: SocketAddr,
    /// Bytes of a batch of requests
    #[arg(long)]
    requests: usize,
    /// Bytes of their answers
    #[arg(long)]
    answers: usize,
}

struct Connection {
    stream: TcpStream,
    /// Bytes of a batch that is not whole.
    read: usize,
    /// Bytes of answers that wait for room.
    waiting: usize,
}

impl Floor {
    /// Serves until the process is ended.
    pub fn serve(&self) -> Result<()> {
        let (mut poll, mut events) = (Poll::new()?, Events::with_capacity(256));
        let mut listener =
            TcpListener::bind(self.address).with_context(|| format!("can't listen on {}", self.address))?;
        poll.registry().register(&mut listener, LISTENER, Interest::READABLE)?;
        let (mut connections, mut input, answers) = (HashMap::new(), vec![0; 64 << 10], vec![b'$'; self.answers]);
        loop {
            poll.poll(&mut events, None)?;
            for event in &events {
                if event.token() == LISTENER {
                    while let Ok((mut stream, _)) = listener.accept() {
                        stream.set_nodelay(true)?;
                        let token = Token(connections.len() + 1);
                        poll.registry().register(&mut stream, token, Interest::READABLE | Interest::WRITABLE)?;
                        connections.insert(token, Connection { stream, read: 0, waiting: 0 });
                    }
                } else if let Some(connection) = connections.get_mut(&event.token()) {
                    // One that ended stays silent.
                    let _ = connection.turn(self, &mut input, &answers);
                }
            }
        }
    }
}

impl Connection {
    fn turn(&mut self, floor: &Floor, input: &mut [u8], answers: &[u8]) -> std::io::Result<()> {
        loop {
            let count = match self.stream.read(input) {
                Ok(count) => count,
                Err(error) if error.kind() == ErrorKind::WouldBlock => 0,
                Err(error) => return Err(error),
            };
            self.read += count;
            self.waiting += self.read / floor.requests * floor.answers;
            self.read %= floor.requests;
            if count < input.len() {
                break;
            }
        }
        while self.waiting > 0 {
            let next = self.waiting.min(answers.len());
            match self.stream.write(&answers[answers.len() - next..]) {
                Ok(written) => self.waiting -= written,
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }
}
