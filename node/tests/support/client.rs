//! A client that waits for its answers, for threads of their own.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::{SocketAddr, TcpStream},
};

/// A connection, the commands that were not sent yet, and the latest answer.
pub struct Client {
    stream: TcpStream,
    commands: Vec<u8>,
    answers: BufReader<TcpStream>,
    line: String,
    value: Vec<u8>,
}

/// An answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answer<'a> {
    Value(&'a [u8]),
    /// Anything on one line: a status, a number, an error with its `-`, no value.
    Line(&'a str),
}

impl Client {
    pub fn open(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).unwrap();
        stream.set_nodelay(true).unwrap();
        let answers = BufReader::with_capacity(64 << 10, stream.try_clone().unwrap());
        Self { stream, commands: Vec::new(), answers, line: String::new(), value: Vec::new() }
    }

    pub fn add(&mut self, words: &[&[u8]]) {
        write!(self.commands, "*{}\r\n", words.len()).unwrap();
        for word in words {
            write!(self.commands, "${}\r\n", word.len()).unwrap();
            self.commands.extend_from_slice(word);
            self.commands.extend_from_slice(b"\r\n");
        }
    }

    /// Sends what was added.
    pub fn send(&mut self) {
        self.stream.write_all(&self.commands).unwrap();
        self.commands.clear();
    }

    pub fn answer(&mut self) -> Answer<'_> {
        self.line.clear();
        self.answers.read_line(&mut self.line).unwrap();
        let length = self.line.strip_prefix('$').and_then(|length| length.trim_end().parse::<usize>().ok());
        let Some(length) = length else { return Answer::Line(self.line.trim_end()) };
        self.value.resize(length + 2, 0);
        self.answers.read_exact(&mut self.value).unwrap();
        Answer::Value(&self.value[..length])
    }

    pub fn call(&mut self, words: &[&[u8]]) -> Answer<'_> {
        self.add(words);
        self.send();
        self.answer()
    }
}
