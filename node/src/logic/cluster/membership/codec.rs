//! Datagrams of the failure detector: one byte that says which kind, then protobuf.

use bytes::{Buf, BufMut, Bytes, BytesMut};
use foca::{Header, Identity, Member, Message, State};
use mizuya_wire::peer::{self as wire, GossipKind, LivenessState};
use prost::Message as _;

use super::super::member::{Generation, MemberName};

/// A datagram of foca.
pub(super) const SWIM: u8 = 0;
/// Do you live?
pub(super) const PROBE: u8 = 1;
/// Yes.
pub(super) const ANSWER: u8 = 2;

/// One start of a member.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Speaker {
    pub(super) name: MemberName,
    pub(super) generation: Generation,
    pub(super) order: u64,
    pub(super) port: u16,
}

impl Speaker {
    /// Whoever listens at a configured peer's address.
    pub(super) fn anyone(port: u16) -> Self {
        Self { name: MemberName::from(""), generation: Generation(0), order: 0, port }
    }
}

/// A name, where the empty one equals every other: a word to anyone is for whoever hears it. An empty name is read
/// nowhere else than as the receiver of a datagram.
pub(super) struct Name(MemberName);

impl PartialEq for Name {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str().is_empty() || other.0.as_str().is_empty() || self.0 == other.0
    }
}

impl Identity for Speaker {
    type Addr = Name;

    // The detector itself decides when to rejoin.
    fn renew(&self) -> Option<Self> {
        None
    }

    fn addr(&self) -> Name {
        Name(self.name.clone())
    }

    fn win_addr_conflict(&self, adversary: &Self) -> bool {
        (self.order, self.generation) > (adversary.order, adversary.generation)
    }
}

/// Why a datagram could not be written or read.
#[derive(Debug, thiserror::Error)]
pub(super) enum CodecError {
    #[error(transparent)]
    Write(#[from] prost::EncodeError),
    #[error(transparent)]
    Read(#[from] prost::DecodeError),
    #[error("a datagram without a valid '{0}'")]
    Invalid(&'static str),
}

/// foca's codec.
pub(super) struct Gossip;

impl foca::Codec<Speaker> for Gossip {
    type Error = CodecError;

    fn encode_header(&mut self, header: &Header<Speaker>, mut buf: impl BufMut) -> Result<(), CodecError> {
        let (kind, probe, about) = kind_out(&header.message);
        let head = wire::GossipHeader {
            from: Some(speaker_out(&header.src)),
            incarnation: u32::from(header.src_incarnation),
            to: Some(speaker_out(&header.dst)),
            kind: kind.into(),
            probe: u32::from(probe),
            about: about.map(speaker_out),
        };
        Ok(head.encode_length_delimited(&mut buf)?)
    }

    fn decode_header(&mut self, buf: impl Buf) -> Result<Header<Speaker>, CodecError> {
        let head = wire::GossipHeader::decode_length_delimited(buf)?;
        Ok(Header {
            src: speaker_in(head.from)?,
            src_incarnation: incarnation_in(head.incarnation)?,
            dst: receiver_in(head.to)?,
            message: kind_in(head.kind, head.probe, head.about)?,
        })
    }

    fn encode_member(&mut self, member: &Member<Speaker>, mut buf: impl BufMut) -> Result<(), CodecError> {
        let state = match member.state() {
            State::Alive => LivenessState::Alive,
            State::Suspect => LivenessState::Suspect,
            State::Down => LivenessState::Down,
        };
        let liveness = wire::Liveness {
            speaker: Some(speaker_out(member.id())),
            incarnation: u32::from(member.incarnation()),
            state: state.into(),
        };
        Ok(liveness.encode_length_delimited(&mut buf)?)
    }

    fn decode_member(&mut self, buf: impl Buf) -> Result<Member<Speaker>, CodecError> {
        let liveness = wire::Liveness::decode_length_delimited(buf)?;
        let state = match LivenessState::try_from(liveness.state) {
            Ok(LivenessState::Alive) => State::Alive,
            Ok(LivenessState::Suspect) => State::Suspect,
            Ok(LivenessState::Down) => State::Down,
            Ok(LivenessState::Unspecified) | Err(_) => return Err(CodecError::Invalid("state")),
        };
        Ok(Member::new(speaker_in(liveness.speaker)?, incarnation_in(liveness.incarnation)?, state))
    }
}

fn speaker_out(speaker: &Speaker) -> wire::Speaker {
    wire::Speaker {
        name: speaker.name.as_str().to_owned(),
        generation: speaker.generation.0,
        order: speaker.order,
        port: u32::from(speaker.port),
    }
}

fn receiver_in(speaker: Option<wire::Speaker>) -> Result<Speaker, CodecError> {
    let speaker = speaker.ok_or(CodecError::Invalid("speaker"))?;
    Ok(Speaker {
        name: MemberName::from(speaker.name.as_str()),
        generation: Generation(speaker.generation),
        order: speaker.order,
        port: u16::try_from(speaker.port).map_err(|_| CodecError::Invalid("port"))?,
    })
}

fn speaker_in(speaker: Option<wire::Speaker>) -> Result<Speaker, CodecError> {
    receiver_in(speaker).and_then(|speaker| match speaker.name.as_str() {
        "" => Err(CodecError::Invalid("name")),
        _ => Ok(speaker),
    })
}

fn incarnation_in(incarnation: u32) -> Result<u16, CodecError> {
    u16::try_from(incarnation).map_err(|_| CodecError::Invalid("incarnation"))
}

fn kind_out(message: &Message<Speaker>) -> (GossipKind, u8, Option<&Speaker>) {
    match message {
        Message::Ping(probe) => (GossipKind::Ping, *probe, None),
        Message::Ack(probe) => (GossipKind::Ack, *probe, None),
        Message::PingReq { target, probe_number } => (GossipKind::PingRequest, *probe_number, Some(target)),
        Message::IndirectPing { origin, probe_number } => (GossipKind::IndirectPing, *probe_number, Some(origin)),
        Message::IndirectAck { target, probe_number } => (GossipKind::IndirectAck, *probe_number, Some(target)),
        Message::ForwardedAck { origin, probe_number } => (GossipKind::ForwardedAck, *probe_number, Some(origin)),
        Message::Announce => (GossipKind::Announce, 0, None),
        Message::Feed => (GossipKind::Feed, 0, None),
        Message::Gossip => (GossipKind::Gossip, 0, None),
        Message::Broadcast => (GossipKind::Broadcast, 0, None),
        Message::TurnUndead => (GossipKind::TurnUndead, 0, None),
    }
}

fn kind_in(kind: i32, probe: u32, about: Option<wire::Speaker>) -> Result<Message<Speaker>, CodecError> {
    let probe_number = u8::try_from(probe).map_err(|_| CodecError::Invalid("probe"))?;
    Ok(match GossipKind::try_from(kind) {
        Ok(GossipKind::Ping) => Message::Ping(probe_number),
        Ok(GossipKind::Ack) => Message::Ack(probe_number),
        Ok(GossipKind::PingRequest) => Message::PingReq { target: speaker_in(about)?, probe_number },
        Ok(GossipKind::IndirectPing) => Message::IndirectPing { origin: speaker_in(about)?, probe_number },
        Ok(GossipKind::IndirectAck) => Message::IndirectAck { target: speaker_in(about)?, probe_number },
        Ok(GossipKind::ForwardedAck) => Message::ForwardedAck { origin: speaker_in(about)?, probe_number },
        Ok(GossipKind::Announce) => Message::Announce,
        Ok(GossipKind::Feed) => Message::Feed,
        Ok(GossipKind::Gossip) => Message::Gossip,
        Ok(GossipKind::Broadcast) => Message::Broadcast,
        Ok(GossipKind::TurnUndead) => Message::TurnUndead,
        Ok(GossipKind::Unspecified) | Err(_) => return Err(CodecError::Invalid("kind")),
    })
}

/// A datagram of foca, with its kind in front.
pub(super) fn swim(data: &[u8]) -> Bytes {
    let mut datagram = BytesMut::with_capacity(data.len() + 1);
    datagram.put_u8(SWIM);
    datagram.extend_from_slice(data);
    datagram.freeze()
}

/// Who sent a datagram of foca.
pub(super) fn sender(body: &[u8]) -> Option<MemberName> {
    let head = wire::GossipHeader::decode_length_delimited(body).ok()?;
    speaker_in(head.from).ok().map(|speaker| speaker.name)
}

/// A probe or its answer.
pub(super) fn write_probe(kind: u8, own: &Speaker, number: u64) -> Bytes {
    let mut datagram = BytesMut::new();
    datagram.put_u8(kind);
    datagram.put_u64(number);
    datagram.extend_from_slice(&speaker_out(own).encode_to_vec());
    datagram.freeze()
}

/// What [`write_probe`] wrote.
pub(super) fn read_probe(mut body: &[u8]) -> Option<(Speaker, u64)> {
    let number = body.try_get_u64().ok()?;
    let speaker = wire::Speaker::decode(body).ok()?;
    Some((speaker_in(Some(speaker)).ok()?, number))
}
