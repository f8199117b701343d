//! Replies that come from other members: the reverse of [`Reply::to_resp3`].

use bytes::{Buf, Bytes};

use super::{Reply, integer};

/// Deepest nesting that is read; replies of commands go three levels deep.
pub const MAX_DEPTH: usize = 16;

/// The bytes are not one whole reply.
#[derive(Clone, Copy, Debug, thiserror::Error, PartialEq, Eq)]
pub enum DecodeError {
    /// They end too early.
    #[error("a reply from another member is cut off")]
    CutOff,
    /// They are no reply, or more than one.
    #[error("a reply from another member is malformed")]
    Malformed,
    /// Lists in lists beyond [`MAX_DEPTH`].
    #[error("a reply from another member is nested deeper than {MAX_DEPTH}")]
    TooDeep,
}

impl Reply {
    /// Reads one whole reply. Values share memory with `bytes`.
    pub fn from_resp3(bytes: &Bytes) -> Result<Self, DecodeError> {
        if let Some(value) = value(bytes) {
            return Ok(Self::Bulk(value));
        }
        let mut rest = bytes.clone();
        let reply = read(&mut rest, MAX_DEPTH)?;
        if rest.is_empty() { Ok(reply) } else { Err(DecodeError::Malformed) }
    }
}

/// The value, if the bytes are one whole value, as most are that a member is sent: nothing but its place has to be found.
fn value(bytes: &Bytes) -> Option<Bytes> {
    let rest = bytes.strip_prefix(b"$")?;
    let digits = rest.iter().position(|byte| *byte == b'\r')?;
    let length = length(&rest[..digits]).ok()?;
    let start = 1 + digits + 2;
    let whole = bytes.len().checked_sub(start + 2)? == length;
    (whole && bytes[..start].ends_with(b"\r\n") && bytes.ends_with(b"\r\n")).then(|| bytes.slice(start..start + length))
}

fn read(rest: &mut Bytes, depth: usize) -> Result<Reply, DecodeError> {
    let kind = *rest.first().ok_or(DecodeError::CutOff)?;
    rest.advance(1);
    let line = line(rest)?;
    match kind {
        b'+' => Ok(known(&text(&line)?)),
        b'-' => Ok(Reply::Error(text(&line)?)),
        b':' => Ok(Reply::Integer(number(&line)?)),
        b'$' => Ok(Reply::Bulk(block(rest, &line)?)),
        b'=' => Ok(Reply::Verbatim(text(block(rest, &line)?.strip_prefix(b"txt:").ok_or(DecodeError::Malformed)?)?)),
        b'_' if line.is_empty() => Ok(Reply::Nil),
        b',' => text(&line)?.parse().map(Reply::Double).map_err(|_| DecodeError::Malformed),
        b'#' if &line[..] == b"t" => Ok(Reply::Boolean(true)),
        b'#' if &line[..] == b"f" => Ok(Reply::Boolean(false)),
        b'*' if &line[..] == b"-1" => Ok(Reply::NilArray),
        b'*' => list(rest, &line, depth).map(Reply::Array),
        b'~' => list(rest, &line, depth).map(Reply::Set),
        b'%' => pairs(rest, &line, depth).map(Reply::Map),
        _ => Err(DecodeError::Malformed),
    }
}

fn line(rest: &mut Bytes) -> Result<Bytes, DecodeError> {
    let end = memchr::memchr(b'\n', rest).ok_or(DecodeError::CutOff)?;
    let mut line = rest.split_to(end + 1);
    if !line.ends_with(b"\r\n") {
        return Err(DecodeError::Malformed);
    }
    line.truncate(end - 1);
    Ok(line)
}

fn text(bytes: &[u8]) -> Result<String, DecodeError> {
    std::str::from_utf8(bytes).map(str::to_owned).map_err(|_| DecodeError::Malformed)
}

fn number(line: &[u8]) -> Result<i64, DecodeError> {
    integer::parse(line).ok_or(DecodeError::Malformed)
}

fn length(line: &[u8]) -> Result<usize, DecodeError> {
    usize::try_from(number(line)?).map_err(|_| DecodeError::Malformed)
}

fn block(rest: &mut Bytes, line: &[u8]) -> Result<Bytes, DecodeError> {
    let length = length(line)?;
    if rest.len().saturating_sub(2) < length {
        return Err(DecodeError::CutOff);
    }
    let block = rest.split_to(length);
    if !rest.starts_with(b"\r\n") {
        return Err(DecodeError::Malformed);
    }
    rest.advance(2);
    Ok(block)
}

/// An item takes at least three bytes, so a length that lies reserves no more than the bytes that came.
fn list(rest: &mut Bytes, line: &[u8], depth: usize) -> Result<Vec<Reply>, DecodeError> {
    let length = length(line)?;
    if length > rest.len() / 3 {
        return Err(DecodeError::CutOff);
    }
    let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
    (0..length).map(|_| read(rest, depth)).collect()
}

fn pairs(rest: &mut Bytes, line: &[u8], depth: usize) -> Result<Vec<(Reply, Reply)>, DecodeError> {
    let length = length(line)?;
    if length > rest.len() / 6 {
        return Err(DecodeError::CutOff);
    }
    let depth = depth.checked_sub(1).ok_or(DecodeError::TooDeep)?;
    (0..length).map(|_| Ok((read(rest, depth)?, read(rest, depth)?))).collect()
}

/// The status lines that commands answer are constants.
fn known(text: &str) -> Reply {
    match text {
        "OK" => Reply::OK,
        "PONG" => Reply::Simple("PONG"),
        "string" => Reply::Simple("string"),
        "none" => Reply::Simple("none"),
        _ => Reply::Status(text.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn replies() -> impl Strategy<Value = Reply> {
        let leaf = prop_oneof![
            Just(Reply::OK),
            Just(Reply::Simple("none")),
            "[a-zé ]{5,20}".prop_map(Reply::Status),
            "[A-Z]{1,9} [ -~]{0,20}".prop_map(Reply::Error),
            any::<i64>().prop_map(Reply::Integer),
            prop::collection::vec(any::<u8>(), 0..40).prop_map(|value| Reply::Bulk(value.into())),
            ".{0,20}".prop_map(Reply::Verbatim),
            Just(Reply::Nil),
            Just(Reply::NilArray),
            any::<f64>().prop_filter("nan equals nothing", |n| !n.is_nan()).prop_map(Reply::Double),
            any::<bool>().prop_map(Reply::Boolean),
        ];
        leaf.prop_recursive(4, 40, 6, |inner| {
            prop_oneof![
                prop::collection::vec(inner.clone(), 0..6).prop_map(Reply::Array),
                prop::collection::vec(inner.clone(), 0..6).prop_map(Reply::Set),
                prop::collection::vec((inner.clone(), inner), 0..4).prop_map(Reply::Map),
            ]
        })
    }

    proptest! {
        #[test]
        fn what_one_member_writes_another_reads(reply in replies()) {
            prop_assert_eq!(Reply::from_resp3(&reply.to_resp3()), Ok(reply));
        }

        #[test]
        fn a_reply_that_is_cut_off_is_never_taken_for_whole(reply in replies(), at in any::<prop::sample::Index>()) {
            let bytes = reply.to_resp3();
            prop_assert!(Reply::from_resp3(&bytes.slice(..at.index(bytes.len()))).is_err());
        }

        #[test]
        fn any_bytes_are_answered(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = Reply::from_resp3(&bytes.into());
        }
    }

    #[test]
    fn lengths_that_lie_and_deep_nests_are_refused() {
        let read = |text: &'static str| Reply::from_resp3(&Bytes::from_static(text.as_bytes()));
        assert_eq!(read("*1000000000\r\n"), Err(DecodeError::CutOff));
        assert_eq!(read("%1000000000\r\n"), Err(DecodeError::CutOff));
        assert_eq!(read("$9223372036854775807\r\nx\r\n"), Err(DecodeError::CutOff));
        assert_eq!(read("$-1\r\n"), Err(DecodeError::Malformed));
        assert_eq!(read(":1\r\n:2\r\n"), Err(DecodeError::Malformed));
        let deep = Bytes::from("*1\r\n".repeat(100) + ":1\r\n");
        assert_eq!(Reply::from_resp3(&deep), Err(DecodeError::TooDeep));
    }
}
