//! Who is who in the cluster: authorities, certificates and the key of service account tokens.

use super::state::State;
use super::topology::{CLUSTER_DOMAIN, CONTROL_PLANE, KUBERNETES_SERVICE};
use anyhow::{Context, Result};
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair, KeyUsagePurpose,
};
use std::path::PathBuf;

/// A certificate with its key, as PEM files.
#[derive(Clone, Debug)]
pub struct Pair {
    /// The certificate's file.
    pub certificate: PathBuf,
    /// The private key's file.
    pub key: PathBuf,
}

/// Signs certificates of its own kind.
#[derive(Debug)]
pub struct Authority<'a> {
    state: &'a State,
    issuer: CertifiedIssuer<'static, KeyPair>,
    /// The authority's own certificate and key.
    pub files: Pair,
}

/// A user by Kubernetes' rule: the certificate's common name, and its organizations as groups.
#[derive(Clone, Copy, Debug)]
pub struct User<'a> {
    /// The user's name.
    pub name: &'a str,
    /// The user's group, if any.
    pub group: Option<&'a str>,
}

impl<'a> Authority<'a> {
    /// A new authority, in files of this name.
    pub fn new(state: &'a State, name: &str) -> Result<Self> {
        let mut request = CertificateParams::default();
        request.distinguished_name = subject(name, None);
        request.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        request.key_usages =
            vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
        let issuer = CertifiedIssuer::self_signed(request, KeyPair::generate()?)?;
        let files = write(state, name, &issuer.pem(), &issuer.key().serialize_pem())?;
        Ok(Self { state, issuer, files })
    }

    /// A certificate with which `user` is known to servers.
    pub fn client(&self, file: &str, user: User<'_>) -> Result<Pair> {
        let mut request = CertificateParams::default();
        request.distinguished_name = subject(user.name, user.group);
        request.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self.sign(file, request)
    }

    /// A certificate with which the API server is known under all its names.
    pub fn api_server(&self) -> Result<Pair> {
        let names = [
            "localhost".to_owned(),
            "kubernetes".to_owned(),
            "kubernetes.default".to_owned(),
            "kubernetes.default.svc".to_owned(),
            format!("kubernetes.default.svc.{CLUSTER_DOMAIN}"),
            KUBERNETES_SERVICE.to_owned(),
            CONTROL_PLANE.to_owned(),
        ];
        let mut request = CertificateParams::new(names)?;
        request.distinguished_name = subject("kube-apiserver", None);
        request.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        self.sign("kube-apiserver", request)
    }

    fn sign(&self, file: &str, mut request: CertificateParams) -> Result<Pair> {
        request.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        let key = KeyPair::generate()?;
        let certificate = request.signed_by(&key, &self.issuer)?;
        write(self.state, file, &certificate.pem(), &key.serialize_pem())
    }
}

/// The key that signs service account tokens, and its public half.
pub fn service_account_key(state: &State) -> Result<Pair> {
    let key = KeyPair::generate()?;
    write(state, "service-account", &key.public_key_pem(), &key.serialize_pem())
}

fn subject(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    subject.push(DnType::CommonName, name);
    if let Some(group) = group {
        subject.push(DnType::OrganizationName, group);
    }
    subject
}

fn write(state: &State, name: &str, certificate: &str, key: &str) -> Result<Pair> {
    let certificate = state.write(&format!("certificates/{name}.crt"), certificate)?;
    let key = state.write(&format!("certificates/{name}.key"), key).context("can't keep a private key")?;
    std::fs::set_permissions(&key, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(Pair { certificate, key })
}
