//! Finds commands in what a client sends, without copying: words are parts of the read buffer.
//!
//! What has been understood of a command that is not yet whole is remembered, so that no byte of its words is looked at more
//! than twice, and nothing is reserved for lengths that are only announced.

use std::ops::Range;

use bytes::Bytes;

use super::{inline, integer};

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

/// What stands at the start of a read buffer.
#[derive(Debug, PartialEq, Eq)]
pub enum Request {
    /// A command in frames. The caller was given its words.
    Framed,
    /// A command on one line: its words, without quotes.
    Inline(Vec<Bytes>),
    /// No command.
    Empty,
}

/// Finds whole commands in a read buffer.
#[derive(Debug, Default)]
pub struct RequestParser {
    limits: Limits,
    partial: Option<Partial>,
    /// How far a line that has no end yet was searched.
    searched: usize,
}

/// A command that is not whole.
#[derive(Debug)]
struct Partial {
    frame: Frame,
    /// Where the words stand that are there, counted from its first byte.
    words: Vec<Range<usize>>,
}

/// A command of which the number of words is known.
#[derive(Clone, Copy, Debug)]
struct Frame {
    /// Words to come.
    missing: usize,
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

    /// What stands at the start of the buffer, and how many bytes it takes; `word` is given its words, also some of one that
    /// is not whole. None: more bytes are needed, and the buffer is to be given again with more at its end. After an error it
    /// cannot be understood any further.
    #[inline]
    pub fn next<'a>(
        &mut self,
        buffer: &'a [u8],
        mut word: impl FnMut(&'a [u8]),
    ) -> Result<Option<(Request, usize)>, ProtocolError> {
        if self.partial.is_none()
            && let [b'*', ..] = buffer
            && let Some((missing, position)) = count(buffer, &self.limits)?
        {
            let begun = Frame { missing, position, length: None };
            let mut frame = begun;
            if frame.read(buffer, &self.limits, |_, text| word(text))? {
                let request = if missing == 0 { Request::Empty } else { Request::Framed };
                return Ok(Some((request, frame.position)));
            }
            self.partial = Some(Partial { frame: begun, words: Vec::new() });
        }
        self.otherwise(buffer, word)
    }

    /// As [`RequestParser::next`], for what is no command in frames, or only some of one.
    fn otherwise<'a>(
        &mut self,
        buffer: &'a [u8],
        word: impl FnMut(&'a [u8]),
    ) -> Result<Option<(Request, usize)>, ProtocolError> {
        match &mut self.partial {
            Some(Partial { frame, words }) => {
                if !frame.read(buffer, &self.limits, |at, text| words.push(at..at + text.len()))? {
                    return Ok(None);
                }
                words.iter().map(|place| &buffer[place.clone()]).for_each(word);
                let end = frame.position;
                self.partial = None;
                Ok(Some((Request::Framed, end)))
            }
            None if matches!(buffer, [] | [b'*', ..]) => Ok(None),
            None => self.inline(buffer),
        }
    }

    /// The next buffer begins with another command than the one that was not whole.
    pub fn forget(&mut self) {
        (self.partial, self.searched) = (None, 0);
    }

    /// How many bytes are certain to follow before the next command is whole.
    pub fn missing(&self, buffered: usize) -> usize {
        let end = |Partial { frame, .. }: &Partial| frame.length.map(|length| frame.position + length + 2);
        self.partial.as_ref().and_then(end).map_or(0, |end| end.saturating_sub(buffered))
    }

    fn inline(&mut self, buffer: &[u8]) -> Result<Option<(Request, usize)>, ProtocolError> {
        let Some(end) = memchr::memchr(b'\n', &buffer[self.searched..]).map(|at| self.searched + at) else {
            self.searched = buffer.len();
            return if buffer.len() > self.limits.inline { Err(ProtocolError::LongInline) } else { Ok(None) };
        };
        self.searched = 0;
        if end > self.limits.inline {
            return Err(ProtocolError::LongInline);
        }
        let words = inline::split(&buffer[..=end]).map_err(|_| ProtocolError::Unbalanced)?;
        let request = if words.is_empty() { Request::Empty } else { Request::Inline(words) };
        Ok(Some((request, end + 1)))
    }
}

/// Reads `*n`, and where the line ends; none: it is not whole. Less than one is none.
#[inline]
fn count(buffer: &[u8], limits: &Limits) -> Result<Option<(usize, usize)>, ProtocolError> {
    match buffer.get(1..).and_then(short) {
        Some((number, length)) if number <= limits.words => Ok(Some((number, 1 + length))),
        _ => count_otherwise(buffer, limits),
    }
}

/// As [`count`], for numbers of more digits, torn ones and what is none.
#[inline(never)]
fn count_otherwise(buffer: &[u8], limits: &Limits) -> Result<Option<(usize, usize)>, ProtocolError> {
    let line = header(buffer, 0).map_err(|()| ProtocolError::LongCount)?;
    let Some((number, end)) = line else { return Ok(None) };
    let count = number.filter(|n| *n <= limits.words as i64).ok_or(ProtocolError::BadCount)?;
    Ok(Some((usize::try_from(count).unwrap_or(0), end)))
}

impl Frame {
    /// Reads the words that are there, which `word` is given with their places; false: some are not.
    #[inline]
    fn read<'a>(
        &mut self,
        buffer: &'a [u8],
        limits: &Limits,
        mut word: impl FnMut(usize, &'a [u8]),
    ) -> Result<bool, ProtocolError> {
        while self.missing > 0 {
            let (start, length) = match (self.length, buffer.get(self.position..).and_then(announced)) {
                (Some(length), _) => (self.position, length),
                // Most often.
                (None, Some((length, end)))
                    if length <= limits.word && self.position + end + length <= limits.request =>
                {
                    (self.position + end, length)
                }
                _ => match self.announced_otherwise(buffer, limits)? {
                    Some(length) => (self.position, length),
                    None => return Ok(false),
                },
            };
            match buffer.get(start..).and_then(|rest| rest.split_at_checked(length)) {
                Some((text, [b'\r', b'\n', ..])) => word(start, text),
                Some((_, [_, _, ..])) => return Err(ProtocolError::NoEnd),
                _ => {
                    (self.position, self.length) = (start, Some(length));
                    return Ok(false);
                }
            }
            (self.position, self.length) = (start + length + 2, None);
            self.missing -= 1;
        }
        Ok(true)
    }

    /// As [`announced`], for lengths of more digits, torn ones and what is none.
    #[inline(never)]
    fn announced_otherwise(&mut self, buffer: &[u8], limits: &Limits) -> Result<Option<usize>, ProtocolError> {
        match buffer.get(self.position) {
            None => return Ok(None),
            Some(b'$') => {}
            Some(other) => return Err(ProtocolError::NoLength(*other)),
        }
        let line = header(buffer, self.position).map_err(|()| ProtocolError::LongLength)?;
        let Some((number, end)) = line else { return Ok(None) };
        let length = number.filter(|n| (0..=limits.word as i64).contains(n));
        let length = length.ok_or(ProtocolError::BadLength)? as usize;
        if end + length > limits.request {
            return Err(ProtocolError::LongRequest(limits.request));
        }
        self.position = end;
        Ok(Some(length))
    }
}

/// The number on the line that starts at `start`, after its first byte, if it is one, and where the next line starts.
fn header(buffer: &[u8], start: usize) -> Result<Option<(Option<i64>, usize)>, ()> {
    let window = &buffer[start..buffer.len().min(start + MAX_HEADER)];
    match memchr::memchr(b'\n', window) {
        Some(at) if at > 0 && window[at - 1] == b'\r' => Ok(Some((integer::parse(&window[1..at - 1]), start + at + 1))),
        Some(_) => Err(()),
        None if window.len() == MAX_HEADER => Err(()),
        None => Ok(None),
    }
}

/// Reads `$n`, and how long it is.
#[inline]
fn announced(rest: &[u8]) -> Option<(usize, usize)> {
    let [b'$', line @ ..] = rest else { return None };
    short(line).map(|(number, end)| (number, end + 1))
}

/// A number of a few digits, as most are, and the length of its line.
#[inline]
fn short(line: &[u8]) -> Option<(usize, usize)> {
    let digit = |byte: u8| usize::from(byte - b'0');
    match *line {
        [a @ b'0'..=b'9', b'\r', b'\n', ..] => Some((digit(a), 3)),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', b'\r', b'\n', ..] => Some((digit(a) * 10 + digit(b), 4)),
        [a @ b'1'..=b'9', b @ b'0'..=b'9', c @ b'0'..=b'9', b'\r', b'\n', ..] => {
            Some((digit(a) * 100 + digit(b) * 10 + digit(c), 5))
        }
        _ => None,
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
        let (mut parser, mut buffer, mut commands) = (RequestParser::new(limits), Vec::new(), Vec::new());
        for piece in pieces {
            buffer.extend_from_slice(piece);
            loop {
                let mut words = Vec::new();
                match parser.next(&buffer, |word| words.push(Bytes::copy_from_slice(word))) {
                    Ok(Some((request, length))) => {
                        match request {
                            Request::Framed => commands.push(words),
                            Request::Inline(words) => commands.push(words),
                            Request::Empty => {}
                        }
                        buffer.drain(..length);
                    }
                    Ok(None) => break,
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
        let buffer = b"*1048576\r\n$67108864\r\n";
        assert_eq!(parser.next(buffer, |_| panic!("no word is there")), Ok(None));
        assert_eq!(parser.partial.as_ref().map(|partial| partial.words.capacity()), Some(0));
        assert_eq!(parser.missing(buffer.len()), (64 << 20) + 2);
    }

    #[test]
    fn a_command_that_was_not_whole_can_be_forgotten() {
        let (mut parser, mut words) = (RequestParser::default(), Vec::new());
        assert_eq!(parser.next(b"*2\r\n$3\r\nGET\r\n$1", |_| {}), Ok(None));
        parser.forget();
        assert_eq!(parser.next(b"*1\r\n$4\r\nPING\r\n", |word| words.push(word)), Ok(Some((Request::Framed, 14))));
        assert_eq!(words, [b"PING"]);
    }
}
