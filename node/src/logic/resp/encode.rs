//! Replies as bytes.

use bytes::{Bytes, BytesMut};

use super::Reply;

/// Bytes of a line with a number: its kind, the digits and the sign of 64 bits, and its end.
const LONGEST_HEADER: usize = 24;

/// Where a reply is written to.
pub trait Sink {
    /// Appends bytes.
    fn put(&mut self, bytes: &[u8]);
    /// Appends a string: its length, itself, and the ends of their lines.
    fn put_string(&mut self, string: &[u8]);
    /// Appends a value, which may be shared instead of copied.
    fn put_value(&mut self, value: &Bytes);
}

impl Sink for BytesMut {
    fn put(&mut self, bytes: &[u8]) {
        self.extend_from_slice(bytes);
    }

    fn put_string(&mut self, string: &[u8]) {
        self.reserve(LONGEST_HEADER + string.len() + 2);
        if let Some((line, length)) = short_header(b'$', string.len() as i64) {
            let end = self.len() + length;
            // All of the line, since a length that the compiler knows costs no call.
            self.extend_from_slice(&line);
            self.truncate(end);
        } else {
            header(b'$', string.len() as i64, self);
        }
        self.extend_from_slice(string);
        self.extend_from_slice(b"\r\n");
    }

    fn put_value(&mut self, value: &Bytes) {
        self.extend_from_slice(value);
    }
}

/// Version of the protocol that a connection speaks; `HELLO` changes it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Protocol {
    /// Every connection starts with this.
    #[default]
    Resp2,
    /// After `HELLO 3`.
    Resp3,
}

/// How the types that differ are written.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Resp2,
    Resp3,
    /// RESP3 that keeps the two kinds of nil apart, so that any member can write the reply for its own client.
    Peer,
}

/// Where values go straight from where they are kept: to the end of what a client is to be sent, in its version.
pub struct Straight<'a> {
    /// What the client is to be sent.
    pub sink: &'a mut (dyn Sink + 'static),
    /// Its version.
    pub protocol: Protocol,
}

impl Straight<'_> {
    /// A list of so many values begins.
    pub fn list(&mut self, length: usize) {
        header(b'*', length as i64, self.sink);
    }

    /// A value that is copied.
    pub fn value(&mut self, value: &[u8]) {
        self.sink.put_string(value);
    }

    /// A value that may be shared.
    pub fn shared(&mut self, value: &Bytes) {
        header(b'$', value.len() as i64, self.sink);
        self.sink.put_value(value);
        self.sink.put(b"\r\n");
    }

    /// No value.
    pub fn nil(&mut self) {
        self.sink.put(if self.protocol == Protocol::Resp3 { b"_\r\n" } else { b"$-1\r\n" });
    }
}

impl Reply {
    /// Appends the reply as a client with this version reads it.
    pub fn encode(&self, protocol: Protocol, out: &mut (impl Sink + ?Sized)) {
        write(self, if protocol == Protocol::Resp3 { Form::Resp3 } else { Form::Resp2 }, out);
    }

    /// The reply for another member: RESP3, but for `*-1`. [`Reply::from_resp3`] is the reverse.
    pub fn to_resp3(&self) -> Bytes {
        if *self == Self::OK {
            return Bytes::from_static(b"+OK\r\n");
        }
        let mut out = BytesMut::with_capacity(self.size_hint());
        write(self, Form::Peer, &mut out);
        out.freeze()
    }

    /// About how many bytes the reply takes when written.
    pub fn size_hint(&self) -> usize {
        match self {
            Self::Bulk(value) => value.len() + 16,
            Self::Verbatim(text) => text.len() + 20,
            Self::Status(text) | Self::Error(text) => text.len() + 3,
            Self::Array(items) | Self::Set(items) => 16 + items.iter().map(Self::size_hint).sum::<usize>(),
            Self::Map(pairs) => {
                16 + pairs.iter().map(|(key, value)| key.size_hint() + value.size_hint()).sum::<usize>()
            }
            _ => 24,
        }
    }
}

fn write(reply: &Reply, form: Form, out: &mut (impl Sink + ?Sized)) {
    match reply {
        // Most often: in one piece.
        Reply::Simple("OK") => out.put(b"+OK\r\n"),
        Reply::Simple(text) => line(b'+', text, out),
        Reply::Status(text) => line(b'+', text, out),
        Reply::Error(text) => line(b'-', text, out),
        Reply::Integer(n) => header(b':', *n, out),
        Reply::Bulk(value) => {
            header(b'$', value.len() as i64, out);
            out.put_value(value);
            out.put(b"\r\n");
        }
        Reply::Verbatim(text) if form == Form::Resp2 => out.put_string(text.as_bytes()),
        Reply::Verbatim(text) => {
            header(b'=', text.len() as i64 + 4, out);
            out.put(b"txt:");
            out.put(text.as_bytes());
            out.put(b"\r\n");
        }
        Reply::Written => {}
        Reply::Nil if form == Form::Resp2 => out.put(b"$-1\r\n"),
        Reply::NilArray if form != Form::Resp3 => out.put(b"*-1\r\n"),
        Reply::Nil | Reply::NilArray => out.put(b"_\r\n"),
        Reply::Double(n) if form == Form::Resp2 => out.put_string(double(*n).as_bytes()),
        Reply::Double(n) => line(b',', &double(*n), out),
        Reply::Boolean(b) if form == Form::Resp2 => header(b':', i64::from(*b), out),
        Reply::Boolean(b) => out.put(if *b { b"#t\r\n" } else { b"#f\r\n" }),
        Reply::Array(items) => list(b'*', items, form, out),
        Reply::Set(items) => list(if form == Form::Resp2 { b'*' } else { b'~' }, items, form, out),
        Reply::Map(pairs) => {
            let (kind, length) = if form == Form::Resp2 { (b'*', pairs.len() * 2) } else { (b'%', pairs.len()) };
            header(kind, length as i64, out);
            for (key, value) in pairs {
                write(key, form, out);
                write(value, form, out);
            }
        }
    }
}

fn list(kind: u8, items: &[Reply], form: Form, out: &mut (impl Sink + ?Sized)) {
    header(kind, items.len() as i64, out);
    for item in items {
        write(item, form, out);
    }
}

fn header(kind: u8, n: i64, out: &mut (impl Sink + ?Sized)) {
    if let Some((line, length)) = short_header(kind, n) {
        return out.put(&line[..length]);
    }
    let mut text = itoa::Buffer::new();
    let digits = text.format(n).as_bytes();
    let mut line = [kind; LONGEST_HEADER];
    line[1..=digits.len()].copy_from_slice(digits);
    line[digits.len() + 1..][..2].copy_from_slice(b"\r\n");
    out.put(&line[..digits.len() + 3]);
}

/// The line of a number of at most three digits, and how many of these bytes it has.
#[inline]
fn short_header(kind: u8, n: i64) -> Option<([u8; 8], usize)> {
    let (n, digit) = (u16::try_from(n).ok()?, |n: u16| b'0' + (n % 10) as u8);
    Some(match n {
        0..=9 => ([kind, digit(n), b'\r', b'\n', 0, 0, 0, 0], 4),
        10..=99 => ([kind, digit(n / 10), digit(n), b'\r', b'\n', 0, 0, 0], 5),
        100..=999 => ([kind, digit(n / 100), digit(n / 10), digit(n), b'\r', b'\n', 0, 0], 6),
        _ => return None,
    })
}

/// A line holds no CR or LF: they would end it.
fn line(kind: u8, text: &str, out: &mut (impl Sink + ?Sized)) {
    out.put(&[kind]);
    if text.contains(['\r', '\n']) {
        out.put(text.replace(['\r', '\n'], " ").as_bytes());
    } else {
        out.put(text.as_bytes());
    }
    out.put(b"\r\n");
}

/// As the protocol wants it: `inf`, `-inf`, `nan`, else the shortest decimal that reads back as the same number.
fn double(n: f64) -> String {
    if n.is_nan() {
        "nan".to_owned()
    } else if n.is_infinite() {
        if n > 0.0 { "inf" } else { "-inf" }.to_owned()
    } else {
        n.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn both(reply: &Reply) -> (String, String) {
        let text = |protocol| {
            let mut out = BytesMut::new();
            reply.encode(protocol, &mut out);
            String::from_utf8(out.to_vec()).unwrap()
        };
        (text(Protocol::Resp2), text(Protocol::Resp3))
    }

    #[test]
    fn lengths_and_integers_are_decimal() {
        let edges = (0..19).map(|digits| 10_i64.pow(digits)).flat_map(|edge| [edge - 1, edge, edge + 1, -edge]);
        for n in edges.chain(0..1200).chain([i64::MIN, i64::MAX]) {
            assert_eq!(both(&Reply::Integer(n)).0, format!(":{n}\r\n"));
        }
        for length in [0, 9, 10, 99, 100, 999, 1000, 12_345] {
            let mut out = BytesMut::from(&b"before"[..]);
            out.put_string(&vec![b'x'; length]);
            assert_eq!(out, format!("before${length}\r\n{}\r\n", "x".repeat(length)));
        }
    }

    #[test]
    fn every_type_has_its_form_in_both_versions() {
        let key = || Reply::text("k");
        let table = [
            (Reply::OK, "+OK\r\n", "+OK\r\n"),
            (Reply::Status("a\r\nb".into()), "+a  b\r\n", "+a  b\r\n"),
            (Reply::error("ERR no\nway"), "-ERR no way\r\n", "-ERR no way\r\n"),
            (Reply::Integer(-7), ":-7\r\n", ":-7\r\n"),
            (Reply::Bulk(Bytes::from_static(b"")), "$0\r\n\r\n", "$0\r\n\r\n"),
            (Reply::Verbatim("hi".into()), "$2\r\nhi\r\n", "=6\r\ntxt:hi\r\n"),
            (Reply::Nil, "$-1\r\n", "_\r\n"),
            (Reply::NilArray, "*-1\r\n", "_\r\n"),
            (Reply::Double(1.5), "$3\r\n1.5\r\n", ",1.5\r\n"),
            (Reply::Double(f64::NEG_INFINITY), "$4\r\n-inf\r\n", ",-inf\r\n"),
            (Reply::Boolean(true), ":1\r\n", "#t\r\n"),
            (Reply::Boolean(false), ":0\r\n", "#f\r\n"),
            (Reply::Array(vec![key(), Reply::Nil]), "*2\r\n$1\r\nk\r\n$-1\r\n", "*2\r\n$1\r\nk\r\n_\r\n"),
            (Reply::Set(vec![key()]), "*1\r\n$1\r\nk\r\n", "~1\r\n$1\r\nk\r\n"),
            (Reply::Map(vec![(key(), Reply::Integer(1))]), "*2\r\n$1\r\nk\r\n:1\r\n", "%1\r\n$1\r\nk\r\n:1\r\n"),
        ];
        for (reply, resp2, resp3) in table {
            assert_eq!(both(&reply), (resp2.to_owned(), resp3.to_owned()), "{reply:?}");
        }
    }
}
