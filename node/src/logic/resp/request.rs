//! Finds commands in what a client sends, without copying: words share memory with the read buffer.
//!
//! What has been understood of a command that is not yet whole is remembered, so no byte is looked at twice, and
//! nothing is reserved for lengths that are only announced.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};

use super::{inline, integer};

/// Room for so many words is kept from one command to the next.
const KEPT_WORDS: usize = 64;
/// Longest line that announces a length; Redis waits for 64 KiB before it gives up on one.
const MAX_HEADER: usize = 64;

/// What one command may cost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of one word.
    pub word: usize,
    /// Words of one command.
    pub words: usize,
    /// Bytes of one command.
    pub request: usize,
    /// Bytes of a command on one line.
    pub inline: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self { word: 64 << 20, words: 1 << 20, request: 128 << 20, inline: 64 << 10 }
    }
}

/// What a client sent is no command. It is told, and its connection is closed. The texts are those of Redis.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum ProtocolError {
    /// The line that announces the number of words does not end.
    #[error("too big mbulk count string")]
    LongCount,
    /// Not a number of words, or more than are allowed.
    #[error("invalid multibulk length")]
    BadCount,
    /// The line that announces a word's length does not end.
    #[error("too big bulk count string")]
    LongLength,
    /// Something else stands where a word's length should.
    #[error("expected '$', got '{}'", .0.escape_ascii())]
    NoLength(u8),
    /// Not a length, or more than is allowed.
    #[error("invalid bulk length")]
    BadLength,
    /// A word is longer than announced.
    #[error("expected CRLF after a word")]
    NoEnd,
    /// All words together are more than is allowed.
    #[error("request larger than {0} bytes")]
    LongRequest(usize),
    /// A line does not end.
    #[error("too big inline request")]
    LongInline,
    /// Quotes of a line do not match.
    #[error("unbalanced quotes in request")]
    Unbalanced,
}

/// Takes whole commands from a read buffer.
#[derive(Debug, Default)]
pub struct RequestParser {
    limits: Limits,
    partial: Option<Partial>,
    /// How far a line that has no end yet was searched.
    searched: usize,
    /// Room for places of words, kept for the next command.
    spare: Vec<Range<usize>>,
}

/// A command of which the number of words is known.
#[derive(Debug)]
struct Partial {
    /// Words to come.
    missing: usize,
    /// Where the words are in the buffer.
    words: Vec<Range<usize>>,
    /// Everything before this was understood.
    position: usize,
    /// Length of the word at `position`, once it is known.
    length: Option<usize>,
}

impl RequestParser {
    /// A parser with these limits.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// Takes the next whole command off the buffer and appends its words to `words`; false: more bytes are needed. After
    /// an error the buffer cannot be understood any further.
    pub fn next(&mut self, buffer: &mut BytesMut, words: &mut Vec<Bytes>) -> Result<bool, ProtocolError> {
        loop {
            if self.partial.is_some() {
                return self.words(buffer, words);
            }
            match buffer.first() {
                None => return Ok(false),
                Some(b'*') => {
                    if !self.count(buffer)? {
                        return Ok(false);
                    }
                }
                Some(_) => match self.inline(buffer)? {
                    Some(line) if line.is_empty() => {}
                    Some(line) => {
                        words.extend(line);
                        return Ok(true);
                    }
                    None => return Ok(false),
                },
            }
        }
    }

    /// How many bytes are certain to follow before the next command is whole.
    pub fn missing(&self, buffered: usize) -> usize {
        let end = |partial: &Partial| partial.length.map(|length| partial.position + length + 2);
        self.partial.as_ref().and_then(end).map_or(0, |end| end.saturating_sub(buffered))
    }

    /// Reads `*n`; false: the line is not whole.
    fn count(&mut self, buffer: &mut BytesMut) -> Result<bool, ProtocolError> {
        let Some((line, end)) = header(buffer, 0).map_err(|()| ProtocolError::LongCount)? else { return Ok(false) };
        let count =
            integer::parse(&buffer[line]).filter(|n| *n <= self.limits.words as i64).ok_or(ProtocolError::BadCount)?;
        if count > 0 {
            let words = std::mem::take(&mut self.spare);
            self.partial = Some(Partial { missing: count as usize, words, position: end, length: None });
        } else {
            buffer.advance(end);
        }
        Ok(true)
    }

    fn words(&mut self, buffer: &mut BytesMut, words: &mut Vec<Bytes>) -> Result<bool, ProtocolError> {
        let Some(partial) = &mut self.partial else { return Ok(false) };
        while partial.missing > 0 {
            if !partial.word(buffer, &self.limits)? {
                return Ok(false);
            }
        }
        let frame = buffer.split_to(partial.position).freeze();
        words.extend(partial.words.drain(..).map(|word| frame.slice(word)));
        if partial.words.capacity() <= KEPT_WORDS {
            self.spare = std::mem::take(&mut partial.words);
        }
        self.partial = None;
        Ok(true)
    }

    fn inline(&mut self, buffer: &mut BytesMut) -> Result<Option<Vec<Bytes>>, ProtocolError> {
        let Some(end) = memchr::memchr(b'\n', &buffer[self.searched..]).map(|at| self.searched + at) else {
            self.searched = buffer.len();
            return if buffer.len() > self.limits.inline { Err(ProtocolError::LongInline) } else { Ok(None) };
        };
        self.searched = 0;
        let line = buffer.split_to(end + 1);
        if end > self.limits.inline {
            return Err(ProtocolError::LongInline);
        }
        inline::split(&line).map(Some).map_err(|_| ProtocolError::Unbalanced)
    }
}

impl Partial {
    /// Reads one word; false: it is not whole.
    fn word(&mut self, buffer: &[u8], limits: &Limits) -> Result<bool, ProtocolError> {
        let length = match self.length {
            Some(length) => length,
            None => match self.announced(buffer, limits)? {
                Some(length) => length,
                None => return Ok(false),
            },
        };
        let end = self.position + length;
        if buffer.len() < end + 2 {
            self.length = Some(length);
            return Ok(false);
        }
        if &buffer[end..end + 2] != b"\r\n" {
            return Err(ProtocolError::NoEnd);
        }
        self.words.push(self.position..end);
        (self.position, self.length) = (end + 2, None);
        self.missing -= 1;
        Ok(true)
    }

    /// Reads `$n`.
    fn announced(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        match buffer.get(self.position) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(other) => return Err(ProtocolError::NoLength(*other)),
        }
        let Some((line, end)) = header(buffer, self.position).map_err(|()| ProtocolError::LongLength)? else {
            return Ok(None);
        };
        let length = integer::parse(&buffer[line]).filter(|n| (0..=limits.word as i64).contains(n));
        let length = length.ok_or(ProtocolError::BadLength)? as usize;
        if end + length > limits.request {
            return Err(ProtocolError::LongRequest(limits.request));
        }
        self.position = end;
        Ok(Some(length))
    }
}

/// The text of the line that starts at `start`, without its first byte, and where the next line starts.
fn header(buffer: &[u8], start: usize) -> Result<Option<(Range<usize>, usize)>, ()> {
    let window = &buffer[start..buffer.len().min(start + MAX_HEADER)];
    // Most are of two or three digits: too short for a search by words.
    match window.iter().position(|byte| *byte == b'\n') {
        Some(at) if at > 0 && window[at - 1] == b'\r' => Ok(Some((start + 1..start + at - 1, start + at + 1))),
        Some(_) => Err(()),
        None if window.len() == MAX_HEADER => Err(()),
        None => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn all(input: &[u8]) -> (Vec<Vec<Bytes>>, Option<ProtocolError>) {
        torn(&[input])
    }

    /// Parses after each piece, as if each came in its own packet.
    fn torn(pieces: &[&[u8]]) -> (Vec<Vec<Bytes>>, Option<ProtocolError>) {
        let limits = Limits { word: 1000, words: 100, request: 5000, inline: 300 };
        let (mut parser, mut buffer, mut commands) = (RequestParser::new(limits), BytesMut::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let mut words = Vec::new();
                match parser.next(&mut buffer, &mut words) {
                    Ok(true) => commands.push(words),
                    Ok(false) => break,
                    Err(error) => return (commands, Some(error)),
                }
            }
        }
        (commands, None)
    }

    fn frame(words: &[Vec<u8>]) -> Vec<u8> {
        let mut out = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            out.extend(format!("${}\r\n", word.len()).into_bytes());
            out.extend(word);
            out.extend(b"\r\n");
        }
        out
    }

    fn commands() -> impl Strategy<Value = Vec<Vec<Vec<u8>>>> {
        let word = prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\r'), Just(b'\n'), Just(b'$')], 0..30);
        prop::collection::vec(prop::collection::vec(word, 1..6), 1..6)
    }

    proptest! {
        #[test]
        fn a_stream_torn_anywhere_gives_the_same_commands(commands in commands()) {
            let stream: Vec<u8> = commands.iter().flat_map(|words| frame(words)).collect();
            let expected: Vec<Vec<Bytes>> =
                commands.into_iter().map(|words| words.into_iter().map(Bytes::from).collect()).collect();
            for at in 0..=stream.len() {
                prop_assert_eq!(torn(&[&stream[..at], &stream[at..]]), (expected.clone(), None));
            }
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(torn(&bytes), (expected, None));
        }

        #[test]
        fn any_bytes_give_the_same_result_whole_and_torn(stream in prop::collection::vec(
            prop_oneof![any::<u8>(), Just(b'*'), Just(b'$'), Just(b'\r'), Just(b'\n'), b'0'..=b'9', Just(b'"')], 0..120))
        {
            let bytes: Vec<&[u8]> = stream.chunks(1).collect();
            prop_assert_eq!(torn(&bytes), all(&stream));
        }
    }

    #[test]
    fn inline_commands_and_empty_ones() {
        let (commands, error) = all(b"PING\r\n\r\n  \n*0\r\n*-1\r\nset k \"a b\"\n*1\r\n$4\r\nPING\r\n");
        assert_eq!(error, None);
        let texts: Vec<Vec<&[u8]>> = commands.iter().map(|words| words.iter().map(|w| &w[..]).collect()).collect();
        assert_eq!(texts, [vec![&b"PING"[..]], vec![b"set", b"k", b"a b"], vec![b"PING"]]);
    }

    #[test]
    fn what_is_no_command_is_named() {
        let table: [(&[u8], ProtocolError); 16] = [
            (b"*x\r\n", ProtocolError::BadCount),
            (b"*101\r\n", ProtocolError::BadCount),
            (b"*+1\r\n", ProtocolError::BadCount),
            (b"*99999999999999999999\r\n", ProtocolError::BadCount),
            (b"*1\n", ProtocolError::LongCount),
            (b"*1\r\n:1\r\n", ProtocolError::NoLength(b':')),
            (b"*1\r\n$-1\r\n", ProtocolError::BadLength),
            (b"*1\r\n$01\r\nx\r\n", ProtocolError::BadLength),
            (b"*1\r\n$1001\r\n", ProtocolError::BadLength),
            (b"*1\r\n$1\n", ProtocolError::LongLength),
            (b"*1\r\n$1\r\nabc", ProtocolError::NoEnd),
            (b"set 'k\r\n", ProtocolError::Unbalanced),
            (&[b'a'; 301], ProtocolError::LongInline),
            (&[b'*'; 64], ProtocolError::LongCount),
            (
                b"*1\r\n$1234567890123456789012345678901234567890123456789012345678901234567890",
                ProtocolError::LongLength,
            ),
            (b"*1\r\n$9223372036854775807\r\n", ProtocolError::BadLength),
        ];
        for (bytes, expected) in table {
            assert_eq!(all(bytes), (vec![], Some(expected)), "{:?}", bytes.escape_ascii().to_string());
        }
        assert_eq!(ProtocolError::NoLength(b':').to_string(), "expected '$', got ':'");
    }

    #[test]
    fn words_together_have_a_limit() {
        let words = vec![vec![b'x'; 900]; 6];
        assert_eq!(all(&frame(&words)), (vec![], Some(ProtocolError::LongRequest(5000))));
    }

    #[test]
    fn announced_lengths_reserve_nothing() {
        let mut parser = RequestParser::default();
        let mut buffer = BytesMut::from(&b"*1048576\r\n$67108864\r\n"[..]);
        assert_eq!(parser.next(&mut buffer, &mut Vec::new()), Ok(false));
        assert_eq!(parser.partial.as_ref().map(|partial| partial.words.capacity()), Some(0));
        assert!(buffer.capacity() < 1024);
        assert_eq!(parser.missing(buffer.len()), (64 << 20) + 2);
    }

    #[test]
    fn words_share_memory_with_the_buffer() {
        let mut buffer = BytesMut::from(&b"*1\r\n$4\r\nPING\r\n"[..]);
        let at = buffer.as_ptr() as usize;
        let mut words = Vec::new();
        assert_eq!(RequestParser::default().next(&mut buffer, &mut words), Ok(true));
        assert_eq!(words[0].as_ptr() as usize, at + 8);
    }
}
