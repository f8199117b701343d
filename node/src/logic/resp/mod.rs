//! The Redis serialisation protocol, versions 2 and 3 (redis.io/docs/reference/protocol-spec).

pub mod decode;
pub mod encode;
pub mod inline;
pub mod integer;
pub mod reply;
pub mod request;

pub use decode::DecodeError;
pub use encode::{Protocol, Sink, Straight};
pub use reply::Reply;
pub use request::{Limits, ProtocolError, Request, RequestParser};
