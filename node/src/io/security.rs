//! Certificates and the gossip key of one cluster (rule O20): read from a folder, or made by `init-secrets`.

use std::{
    fs, io,
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use base64::{Engine, engine::general_purpose::STANDARD as BASE64};
use mizuya_wire::settings::Settings;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};
use rustls::{
    ClientConfig, RootCertStore, ServerConfig,
    crypto::ring,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    server::WebPkiClientVerifier,
};

/// Bytes of the gossip key.
pub const GOSSIP_KEY_BYTES: usize = 32;
/// How long certificates made by `init-secrets` are valid.
const VALID_YEARS: u64 = 10;
const SECONDS_A_YEAR: u64 = 31_556_952;

/// Why certificates and keys cannot be used or made.
#[derive(Debug, thiserror::Error)]
pub enum SecurityError {
    /// Neither `security.dir` nor `security.insecure` is set.
    #[error(
        "members must know each other: run `mizuya-node init-secrets DIR --name NAME` and set security.dir to DIR (the \
         same files on every member), or set security.insecure to true to let anyone in who reaches the peer port"
    )]
    NotConfigured,
    /// A file is not there or cannot be read or written.
    #[error("security.dir: {path}: {source}; `mizuya-node init-secrets DIR` makes the files")]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The gossip key is not 32 bytes in base64.
    #[error("security.dir: {0}: must be {GOSSIP_KEY_BYTES} bytes in base64")]
    GossipKey(PathBuf),
    /// A certificate or key could not be made.
    #[error("certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// `ca.crt`, `tls.crt` and `tls.key` are no certificates and key, or the key is another's.
    #[error(
        "security.dir: {dir}: ca.crt, tls.crt and tls.key: {source}; `mizuya-node init-secrets DIR --name NAME` makes \
         them"
    )]
    Tls {
        /// The folder.
        dir: PathBuf,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

/// How members know each other.
pub enum Security {
    /// By certificates of the cluster's own authority and by a shared key for gossip.
    Mutual(Box<Secrets>),
    /// Not at all.
    Insecure,
}

/// What the folder's files make.
pub struct Secrets {
    server: Arc<ServerConfig>,
    client: Arc<ClientConfig>,
    /// Seals gossip.
    pub gossip: [u8; GOSSIP_KEY_BYTES],
}

impl Security {
    /// What the settings ask for.
    pub fn load(settings: &Settings) -> Result<Self, SecurityError> {
        match &settings.security.dir {
            Some(dir) => Ok(Self::Mutual(Box::new(Secrets::read(Path::new(dir))?))),
            None if settings.security.insecure => Ok(Self::Insecure),
            None => Err(SecurityError::NotConfigured),
        }
    }

    /// TLS of the peer port; none: plain. A caller without a certificate gets through the handshake; the port refuses
    /// it by name and counts it.
    pub fn server(&self) -> Option<&Arc<ServerConfig>> {
        let Self::Mutual(secrets) = self else { return None };
        Some(&secrets.server)
    }

    /// TLS towards a member; none: plain.
    pub fn client(&self) -> Option<&Arc<ClientConfig>> {
        let Self::Mutual(secrets) = self else { return None };
        Some(&secrets.client)
    }

    /// Key of gossip; none: datagrams go open.
    pub fn gossip(&self) -> Option<&[u8; GOSSIP_KEY_BYTES]> {
        match self {
            Self::Mutual(secrets) => Some(&secrets.gossip),
            Self::Insecure => None,
        }
    }
}

impl Secrets {
    fn read(dir: &Path) -> Result<Self, SecurityError> {
        let key_path = dir.join("gossip.key");
        let text = read(&key_path)?;
        let gossip = BASE64
            .decode(text.trim_ascii())
            .ok()
            .and_then(|key| key.try_into().ok())
            .ok_or(SecurityError::GossipKey(key_path))?;
        let (authority, certificate) = (read(&dir.join("ca.crt"))?, read(&dir.join("tls.crt"))?);
        let key = read(&dir.join("tls.key"))?;
        let (server, client) =
            tls(&authority, &certificate, &key).map_err(|source| SecurityError::Tls { dir: dir.to_owned(), source })?;
        Ok(Self { server: Arc::new(server), client: Arc::new(client), gossip })
    }
}

/// Both ends of TLS between members, from what is in the files.
fn tls(
    authority: &[u8],
    certificate: &[u8],
    key: &[u8],
) -> Result<(ServerConfig, ClientConfig), Box<dyn std::error::Error + Send + Sync>> {
    let provider = Arc::new(ring::default_provider());
    let mut roots = RootCertStore::empty();
    for root in CertificateDer::pem_slice_iter(authority) {
        roots.add(root?)?;
    }
    let chain = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>()?;
    let key = PrivateKeyDer::from_pem_slice(key)?;
    let callers = WebPkiClientVerifier::builder_with_provider(Arc::new(roots.clone()), provider.clone())
        .allow_unauthenticated()
        .build()?;
    let mut server = ServerConfig::builder_with_provider(provider.clone())
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(callers)
        .with_single_cert(chain.clone(), key.clone_key())?;
    server.alpn_protocols.push(b"h2".to_vec());
    let client = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)?;
    Ok((server, client))
}

/// Writes a cluster's secrets to a folder. An authority and a gossip key that are there already are kept, so that
/// another member's certificate can be added; the certificate is always made anew, for `localhost` and these names.
/// Returns the files that were written.
pub fn init(dir: &Path, names: &[String]) -> Result<Vec<PathBuf>, SecurityError> {
    fs::create_dir_all(dir).map_err(|source| SecurityError::File { path: dir.to_owned(), source })?;
    let mut written = Vec::new();
    let ca_key = dir.join("ca.key");
    let authority = if ca_key.exists() {
        KeyPair::from_pem(&String::from_utf8_lossy(&read(&ca_key)?))?
    } else {
        let key = KeyPair::generate()?;
        write(&ca_key, key.serialize_pem().as_bytes(), &mut written)?;
        write(&dir.join("ca.crt"), authority_params().self_signed(&key)?.pem().as_bytes(), &mut written)?;
        key
    };
    let issuer = Issuer::new(authority_params(), authority);
    let key = KeyPair::generate()?;
    let certificate = member_params(names)?.signed_by(&key, &issuer)?;
    write(&dir.join("tls.crt"), certificate.pem().as_bytes(), &mut written)?;
    write(&dir.join("tls.key"), key.serialize_pem().as_bytes(), &mut written)?;
    let gossip = dir.join("gossip.key");
    if !gossip.exists() {
        let text = BASE64.encode(rand::random::<[u8; GOSSIP_KEY_BYTES]>());
        write(&gossip, text.as_bytes(), &mut written)?;
    }
    Ok(written)
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name = common_name("Mizuya cluster authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
    params.not_after = rcgen::date_time_ymd(last_year(), 1, 1);
    params
}

fn member_params(names: &[String]) -> Result<CertificateParams, SecurityError> {
    let mut all = vec!["localhost".to_owned()];
    all.extend(names.iter().filter(|name| *name != "localhost").cloned());
    let mut params = CertificateParams::new(all)?;
    params.distinguished_name = common_name("Mizuya cluster member");
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.not_after = rcgen::date_time_ymd(last_year(), 1, 1);
    Ok(params)
}

fn common_name(text: &str) -> DistinguishedName {
    let mut name = DistinguishedName::new();
    name.push(DnType::CommonName, text);
    name
}

fn last_year() -> i32 {
    let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    (1970 + seconds / SECONDS_A_YEAR + VALID_YEARS) as i32
}

fn read(path: &Path) -> Result<Vec<u8>, SecurityError> {
    fs::read(path).map_err(|source| SecurityError::File { path: path.to_owned(), source })
}

fn write(path: &Path, content: &[u8], written: &mut Vec<PathBuf>) -> Result<(), SecurityError> {
    let secret = path.extension().is_some_and(|extension| extension == "key");
    let mode = if secret { 0o600 } else { 0o644 };
    let file = |source| SecurityError::File { path: path.to_owned(), source };
    let mut target =
        fs::OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path).map_err(file)?;
    io::Write::write_all(&mut target, content).map_err(file)?;
    written.push(path.to_owned());
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings(dir: Option<&Path>, insecure: bool) -> Settings {
        let mut settings = Settings::default();
        settings.security.dir = dir.map(|dir| dir.to_string_lossy().into_owned());
        settings.security.insecure = insecure;
        settings
    }

    #[test]
    fn without_secrets_a_node_refuses_to_start_and_names_the_way_out() {
        let error = Security::load(&settings(None, false)).err().unwrap().to_string();
        assert!(error.contains("mizuya-node init-secrets DIR"), "{error}");
        assert!(Security::load(&settings(None, true)).unwrap().server().is_none());
        let dir = tempfile::tempdir().unwrap();
        let error = Security::load(&settings(Some(dir.path()), false)).err().unwrap().to_string();
        assert!(error.contains("gossip.key") && error.contains("init-secrets"), "{error}");
    }

    #[test]
    fn a_second_run_keeps_the_authority_and_the_gossip_key() {
        let dir = tempfile::tempdir().unwrap();
        let first = init(dir.path(), &["a".to_owned()]).unwrap();
        assert_eq!(first.len(), 5);
        let read = |name: &str| fs::read(dir.path().join(name)).unwrap();
        let before = (read("ca.crt"), read("gossip.key"), read("tls.crt"));
        assert_eq!(init(dir.path(), &["b".to_owned()]).unwrap().len(), 2);
        assert_eq!((&before.0, &before.1), (&read("ca.crt"), &read("gossip.key")));
        assert_ne!(before.2, read("tls.crt"));
        let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(dir.path().join("tls.key")).unwrap());
        assert_eq!(mode & 0o777, 0o600);
        assert!(Security::load(&settings(Some(dir.path()), false)).unwrap().gossip().is_some());
    }

    #[test]
    fn files_that_are_no_certificate_or_another_key_are_refused_by_name() {
        let (dir, other) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        init(dir.path(), &[]).unwrap();
        init(other.path(), &[]).unwrap();
        let refused = || Security::load(&settings(Some(dir.path()), false)).err().unwrap().to_string();
        fs::copy(other.path().join("tls.key"), dir.path().join("tls.key")).unwrap();
        let error = refused();
        assert!(error.contains("tls.key") && error.contains("init-secrets"), "{error}");
        for file in ["ca.crt", "tls.crt", "tls.key"] {
            init(dir.path(), &[]).unwrap();
            let path = dir.path().join(file);
            let kept = fs::read(&path).unwrap();
            fs::write(&path, "no certificate").unwrap();
            let error = refused();
            assert!(error.contains(file) && error.contains("init-secrets"), "{error}");
            fs::write(&path, kept).unwrap();
        }
    }
}
