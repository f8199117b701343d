//! Keys and certificates: a CA for each cluster, one certificate for its nodes, one for the operator (rule O20).
//!
//! The operator's Secret is the root: it also keeps the gossip key, so that the nodes' Secret can be made again from it.

use std::collections::BTreeMap;

use base64::{Engine, engine::general_purpose::STANDARD};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
    date_time_ymd,
};

use crate::logic::children::secrets::{CA_CERTIFICATE, CA_KEY, CERTIFICATE, GOSSIP_KEY, KEY, Subject};

/// Files of a Secret.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Why a certificate cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum CertificateError {
    /// Making keys or signing failed.
    #[error("cannot make a certificate: {0}")]
    Generate(#[from] rcgen::Error),
    /// A Secret lacks a file that it must have.
    #[error("the operator's Secret has no usable '{0}'; delete it and the Secret of the nodes to have both made anew")]
    Missing(&'static str),
}

/// The operator's files: CA with its key, a client certificate, the gossip key.
pub fn operator_files(subject: &Subject) -> Result<Files, CertificateError> {
    let ca_key = KeyPair::generate()?;
    let ca = ca_params().self_signed(&ca_key)?;
    let ca_key_pem = ca_key.serialize_pem();
    let (certificate, key) = issue(ca_key, subject)?;
    let gossip: [u8; 32] = rand::random();
    Ok(Files::from([
        (CA_CERTIFICATE.to_owned(), ca.pem().into_bytes()),
        (CA_KEY.to_owned(), ca_key_pem.into_bytes()),
        (CERTIFICATE.to_owned(), certificate),
        (KEY.to_owned(), key),
        (GOSSIP_KEY.to_owned(), STANDARD.encode(gossip).into_bytes()),
    ]))
}

/// The nodes' files, made from the operator's.
pub fn node_files(operator: &Files, subject: &Subject) -> Result<Files, CertificateError> {
    let file = |name: &'static str| operator.get(name).cloned().ok_or(CertificateError::Missing(name));
    let ca_key = String::from_utf8(file(CA_KEY)?).map_err(|_| CertificateError::Missing(CA_KEY))?;
    let (certificate, key) = issue(KeyPair::from_pem(&ca_key)?, subject)?;
    Ok(Files::from([
        (CA_CERTIFICATE.to_owned(), file(CA_CERTIFICATE)?),
        (CERTIFICATE.to_owned(), certificate),
        (KEY.to_owned(), key),
        (GOSSIP_KEY.to_owned(), file(GOSSIP_KEY)?),
    ]))
}

/// The CA's parameters are constant, so that its key alone is enough to sign again.
fn ca_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, "mizuya cluster CA");
    params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    params
}

/// A certificate for server and client, and its key.
fn issue(ca_key: KeyPair, subject: &Subject) -> Result<(Vec<u8>, Vec<u8>), CertificateError> {
    let mut params = CertificateParams::new(subject.dns_names.clone())?;
    params.distinguished_name.remove(DnType::CommonName);
    params.distinguished_name.push(DnType::CommonName, subject.common_name.as_str());
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    // Not rotated yet, so they last as long as the CA.
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2120, 1, 1);
    let key = KeyPair::generate()?;
    let certificate = params.signed_by(&key, &Issuer::new(ca_params(), ca_key))?;
    Ok((certificate.pem().into_bytes(), key.serialize_pem().into_bytes()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::logic::children::{
        Identity,
        secrets::{node_subject, operator_subject},
    };

    #[test]
    fn the_nodes_secret_can_be_made_again_from_the_operators() {
        let id = Identity { name: "quickstart".into(), namespace: "default".into(), uid: "1".into() };
        let operator = operator_files(&operator_subject()).unwrap();
        let (first, second) =
            (node_files(&operator, &node_subject(&id)).unwrap(), node_files(&operator, &node_subject(&id)).unwrap());
        assert_eq!(first[CA_CERTIFICATE], second[CA_CERTIFICATE]);
        assert_eq!(first[GOSSIP_KEY], operator[GOSSIP_KEY]);
        assert_eq!(STANDARD.decode(&first[GOSSIP_KEY]).unwrap().len(), 32);
        assert!(!first.contains_key(CA_KEY), "nodes never get the CA's key");
    }

    #[test]
    fn an_operators_secret_without_the_ca_key_is_named() {
        let id = Identity { name: "a".into(), namespace: "b".into(), uid: "1".into() };
        let mut operator = operator_files(&operator_subject()).unwrap();
        operator.remove(CA_KEY);
        let error = node_files(&operator, &node_subject(&id)).unwrap_err().to_string();
        assert!(error.contains("ca.key"), "{error}");
    }
}
