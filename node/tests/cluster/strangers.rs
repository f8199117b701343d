//! What a stream of the peer port says to callers that must not have one.

use std::sync::Arc;

use mizuya_node::io::security::Security;
use mizuya_wire::peer::{Frame, Opening};
use prost::Message;
use rustls::{
    ClientConfig, RootCertStore,
    crypto::ring,
    pki_types::{CertificateDer, ServerName, pem::PemObject},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{TlsConnector, client::TlsStream};

use crate::support::{LIMIT, Member, Place};

const PREFACE: &[u8] = b"mizuya/1";

struct Caller(TlsStream<TcpStream>);

impl Caller {
    async fn new(place: &Place, tls: Arc<ClientConfig>) -> Self {
        let socket = TcpStream::connect(place.address(1, 3322)).await.unwrap();
        let host = ServerName::try_from("localhost").unwrap();
        Self(TlsConnector::from(tls).connect(host, socket).await.unwrap())
    }

    /// Without a certificate.
    async fn stranger(place: &Place) -> Self {
        let mut roots = RootCertStore::empty();
        let authority = std::fs::read(place.secrets.path().join("ca.crt")).unwrap();
        roots.add(CertificateDer::from_pem_slice(&authority).unwrap()).unwrap();
        let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self::new(place, Arc::new(tls)).await
    }

    /// With the certificate of a member.
    async fn member(place: &Place) -> Self {
        let security = Security::load(&place.settings(1, 1)).unwrap();
        let mut caller = Self::new(place, security.client().unwrap().clone()).await;
        caller.0.write_all(PREFACE).await.unwrap();
        caller
    }

    async fn say(&mut self, frame: &Frame) {
        let bytes = frame.encode_to_vec();
        self.0.write_u32(bytes.len() as u32).await.unwrap();
        self.0.write_all(&bytes).await.unwrap();
    }

    async fn open(&mut self, member: &str, generation: u64) -> Opening {
        let opening = Opening { member: member.to_owned(), generation, refused: None };
        self.say(&Frame { opening: Some(opening), ..Frame::default() }).await;
        self.hear().await.unwrap().opening.unwrap()
    }

    /// None: the connection has ended.
    async fn hear(&mut self) -> Option<Frame> {
        let frame = async {
            let length = self.0.read_u32().await.ok()?;
            let mut bytes = vec![0; length as usize];
            self.0.read_exact(&mut bytes).await.ok()?;
            Some(Frame::decode(&bytes[..]).unwrap())
        };
        timeout(LIMIT, frame).await.unwrap()
    }
}

fn refusal(answer: &Opening) -> &str {
    &answer.refused.as_ref().unwrap().code
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_without_a_certificate_is_refused_and_counted() {
    let place = Place::new();
    let member = place.start(place.settings(1, 1)).await;
    let mut stranger = Caller::stranger(&place).await;
    stranger.0.write_all(PREFACE).await.unwrap();
    let answer = stranger.open("stranger", 1).await;
    assert_eq!(refusal(&answer), "NoCertificate");
    assert!(answer.refused.unwrap().message.contains("tls.crt"));
    assert!(stranger.hear().await.is_none());
    assert_eq!(member.runtime().rejected().0, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_that_begins_wrong_ends_and_harms_nobody() {
    let place = Place::new();
    let member: Member = place.start(place.settings(1, 1)).await;
    let own = member.runtime().identity();
    assert_eq!(refusal(&Caller::member(&place).await.open(own.name.as_str(), own.generation.0).await), "Ourselves");
    let mut nobody = Caller::member(&place).await;
    assert_eq!(refusal(&nobody.open("", 1).await), "NoOpening");
    assert!(nobody.hear().await.is_none());
    // Who is not known yet has no room for large frames.
    let mut large = Caller::member(&place).await;
    large.0.write_u32(1 << 20).await.unwrap();
    assert!(large.hear().await.is_none());
    // A frame that is none ends a stream that was opened.
    let mut torn = Caller::member(&place).await;
    let answer = torn.open("somebody", 1).await;
    assert_eq!((answer.member.as_str(), answer.refused), (own.name.as_str(), None));
    torn.0.write_all(b"\0\0\0\x02\xff\xff").await.unwrap();
    assert!(torn.hear().await.is_none());
    let status = place.admin(1).await.status(mizuya_wire::admin::StatusRequest {}).await.unwrap().into_inner();
    assert!(status.ready, "{}", status.not_ready_because);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_keep_nobody_out_who_is_known() {
    let place = Place::new();
    let member = place.start(place.settings(1, 1)).await;
    let (mut silent, mut half) = (Vec::new(), Vec::new());
    for _ in 0..300 {
        silent.push(TcpStream::connect(place.address(1, 3322)).await.unwrap());
        let mut stranger = Caller::stranger(&place).await;
        stranger.0.write_all(b"PRI * HT").await.unwrap();
        half.push(stranger);
    }
    let opened = Caller::member(&place).await.open("somebody", 1).await;
    assert_eq!(opened.member, member.runtime().identity().name.as_str());
    place.admin(1).await.status(mizuya_wire::admin::StatusRequest {}).await.unwrap();
}
