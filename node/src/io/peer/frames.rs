//! A stream between members on the wire: TCP or TLS over it, a preface that tells it from gRPC, and frames.

use std::{io, time::Duration};

use bytes::BytesMut;
use mizuya_wire::peer::{Frame, Opening};
use prost::Message;
use socket2::{SockRef, TcpKeepalive};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_util::{
    codec::{Decoder, Encoder, Framed, LengthDelimitedCodec},
    either::Either,
};

use super::MAX_FRAME_BYTES;

/// The first bytes of whoever opens a stream, with the version of how it is framed.
pub(super) const PREFACE: [u8; 8] = *b"mizuya/1";
/// How long a peer may take to say who it is.
pub(super) const OPENING_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest first frame: whoever sends it is not known yet.
const MAX_OPENING_BYTES: usize = 4 << 10;
const LENGTH_BYTES: usize = 4;
/// A buffer of this size is not kept for the next frame.
const LARGE_BYTES: usize = 1 << 20;

/// A connection, with TLS or without.
pub(super) type Socket = Either<TlsStream<TcpStream>, TcpStream>;

/// Frames over a connection.
pub(super) type Frames = Framed<Socket, FrameCodec>;

/// Small frames go out at once. The kernel ends the connection when the peer's kernel takes nothing of what waits for
/// `silence` (also if the peer only does not read), or confirms no empty probe in a pause.
pub(super) fn prepare(socket: &TcpStream, silence: Duration) -> io::Result<()> {
    socket.set_nodelay(true)?;
    let socket = SockRef::from(socket);
    // The kernel counts in seconds.
    let pause = Duration::from_secs(1).max(silence / 2);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(pause).with_interval(Duration::from_secs(1)))?;
    socket.set_tcp_user_timeout(Some(silence))
}

/// Frames over a connection; a preface is not among them. Until [`opened`] only small ones are taken.
pub(super) fn frames(socket: Socket) -> Frames {
    let lengths = LengthDelimitedCodec::builder().max_frame_length(MAX_OPENING_BYTES).new_codec();
    Framed::new(socket, FrameCodec(lengths))
}

/// The peer has said who it is.
pub(super) fn opened(frames: &mut Frames) {
    frames.codec_mut().0.set_max_frame_length(MAX_FRAME_BYTES);
}

/// A first frame.
pub(super) fn opening(opening: Opening) -> Frame {
    Frame { opening: Some(opening), ..Frame::default() }
}

pub(super) struct FrameCodec(LengthDelimitedCodec);

impl Decoder for FrameCodec {
    type Item = Frame;
    type Error = io::Error;

    fn decode(&mut self, buffer: &mut BytesMut) -> io::Result<Option<Frame>> {
        let Some(frame) = self.0.decode(buffer)? else { return Ok(None) };
        Frame::decode(frame.freeze()).map(Some).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
    }
}

impl Encoder<Frame> for FrameCodec {
    type Error = io::Error;

    fn encode(&mut self, frame: Frame, buffer: &mut BytesMut) -> io::Result<()> {
        if buffer.is_empty() && buffer.capacity() > LARGE_BYTES {
            *buffer = BytesMut::new();
        }
        let length = frame.encoded_len();
        if length > MAX_FRAME_BYTES {
            let text = format!("a frame of {length} bytes; at most {MAX_FRAME_BYTES} are sent");
            return Err(io::Error::new(io::ErrorKind::InvalidInput, text));
        }
        let start = buffer.len();
        // Into a slice: a buffer that may grow is asked for room with each byte.
        buffer.resize(start + LENGTH_BYTES + length, 0);
        let (before, mut after) = buffer[start..].split_at_mut(LENGTH_BYTES);
        before.copy_from_slice(&(length as u32).to_be_bytes());
        Ok(frame.encode(&mut after)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn codec(limit: usize) -> FrameCodec {
        FrameCodec(LengthDelimitedCodec::builder().max_frame_length(limit).new_codec())
    }

    #[test]
    fn frames_come_out_as_they_went_in_however_they_are_cut() {
        let sent: Vec<Frame> = ["a", "", "bc"]
            .map(|text| Frame { datagrams: vec![text.into(), "d".into()], ..Frame::default() })
            .into_iter()
            .chain([Frame::default()])
            .collect();
        let (mut codec, mut bytes) = (codec(100), BytesMut::new());
        for frame in &sent {
            codec.encode(frame.clone(), &mut bytes).unwrap();
        }
        for step in 1..bytes.len() {
            let (mut buffer, mut heard) = (BytesMut::new(), Vec::new());
            for part in bytes.chunks(step) {
                buffer.extend_from_slice(part);
                while let Some(frame) = codec.decode(&mut buffer).unwrap() {
                    heard.push(frame);
                }
            }
            assert_eq!(heard, sent);
        }
    }

    #[test]
    fn a_frame_above_the_limit_and_one_that_is_no_frame_are_errors() {
        let mut bytes = BytesMut::new();
        let frame = Frame { datagrams: vec![vec![0; 60].into()], ..Frame::default() };
        codec(100).encode(frame, &mut bytes).unwrap();
        assert!(codec(61).decode(&mut bytes.clone()).is_err());
        assert!(codec(62).decode(&mut bytes.clone()).unwrap().is_some());
        let no_frame = &b"\0\0\0\x02\xff\xff"[..];
        assert!(codec(100).decode(&mut BytesMut::from(no_frame)).is_err());
    }
}
