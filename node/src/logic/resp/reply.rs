//! A reply, before it is written in the version that a client speaks.

use bytes::Bytes;

/// A reply.
#[derive(Clone, Debug, PartialEq)]
pub enum Reply {
    /// `+OK` and the like.
    Simple(&'static str),
    /// `+` with a text made at run time; CR and LF become spaces.
    Status(String),
    /// `-PREFIX text`; CR and LF become spaces.
    Error(String),
    /// `:n`.
    Integer(i64),
    /// A value.
    Bulk(Bytes),
    /// A text for people: `=` with the format `txt` in RESP3, a bulk in RESP2.
    Verbatim(String),
    /// No value: `$-1` in RESP2, `_` in RESP3.
    Nil,
    /// `*-1` in RESP2, `_` in RESP3.
    NilArray,
    /// A floating-point number: `,` in RESP3, a bulk in RESP2.
    Double(f64),
    /// `#t` in RESP3, `:1` in RESP2.
    Boolean(bool),
    /// A list.
    Array(Vec<Reply>),
    /// A list without an order: `~` in RESP3, a list in RESP2.
    Set(Vec<Reply>),
    /// It went [straight](super::Straight) to where the client's replies go.
    Written,
    /// Pairs: `%` in RESP3, a flat list in RESP2.
    Map(Vec<(Reply, Reply)>),
}

impl Reply {
    /// `+OK`.
    pub const OK: Self = Self::Simple("OK");

    /// A value made of a text.
    pub fn text(text: &str) -> Self {
        Self::Bulk(Bytes::copy_from_slice(text.as_bytes()))
    }

    /// An error; `text` starts with its prefix, such as `ERR`.
    pub fn error(text: impl Into<String>) -> Self {
        Self::Error(text.into())
    }

    /// Whether this is an error.
    pub fn is_error(&self) -> bool {
        matches!(self, Self::Error(_))
    }
}
