//! The envelope of gossip datagrams: sealed with ChaCha20-Poly1305 (RFC 8439) under the cluster's gossip key.
//!
//! One byte of format, four that name the key, twelve of random nonce, then the sealed text. Without a key (only with
//! `security.insecure`) the format byte stands alone before the open text. A member with a key never reads open ones.

use bytes::{BufMut, Bytes, BytesMut};
use chacha20poly1305::{AeadInOut, ChaCha20Poly1305, KeyInit, Nonce};

use crate::io::security::GOSSIP_KEY_BYTES;

const OPEN: u8 = 0;
const SEALED: u8 = 1;
const KEY_NAME: usize = 4;
const NONCE: usize = 12;
const HEAD: usize = 1 + KEY_NAME + NONCE;

/// Why a datagram is dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Rejected {
    /// Not in this format, or open where a key is needed.
    #[error("not a gossip datagram of this cluster")]
    Foreign,
    /// Sealed under another key.
    #[error("sealed with another gossip key; every member needs the same gossip.key")]
    OtherKey,
    /// Changed on its way, or forged.
    #[error("damaged")]
    Damaged,
}

/// Seals and opens datagrams.
pub struct Seal(Option<(ChaCha20Poly1305, [u8; KEY_NAME])>);

impl Seal {
    /// With a key, or open without one.
    pub fn new(key: Option<&[u8; GOSSIP_KEY_BYTES]>) -> Self {
        Self(key.map(|key| {
            let cipher = ChaCha20Poly1305::new(key.into());
            let name = key_name(&cipher);
            (cipher, name)
        }))
    }

    /// The datagram as it goes out.
    pub fn seal(&self, text: &[u8], nonce: [u8; NONCE]) -> Option<Bytes> {
        let Some((cipher, name)) = &self.0 else {
            let mut datagram = BytesMut::with_capacity(1 + text.len());
            datagram.put_u8(OPEN);
            datagram.put_slice(text);
            return Some(datagram.freeze());
        };
        let mut sealed = text.to_vec();
        cipher.encrypt_in_place(&Nonce::from(nonce), &[SEALED], &mut sealed).ok()?;
        let mut datagram = BytesMut::with_capacity(HEAD + sealed.len());
        datagram.put_u8(SEALED);
        datagram.put_slice(name);
        datagram.put_slice(&nonce);
        datagram.put_slice(&sealed);
        Some(datagram.freeze())
    }

    /// The text of a datagram that came in.
    pub fn open(&self, datagram: &[u8]) -> Result<Vec<u8>, Rejected> {
        let (format, rest) = datagram.split_first().ok_or(Rejected::Foreign)?;
        match (&self.0, *format) {
            (None, OPEN) => Ok(rest.to_vec()),
            (Some((cipher, own)), SEALED) => {
                let (name, rest) = rest.split_at_checked(KEY_NAME).ok_or(Rejected::Foreign)?;
                let (nonce, sealed) = rest.split_first_chunk::<NONCE>().ok_or(Rejected::Foreign)?;
                if name != own {
                    return Err(Rejected::OtherKey);
                }
                let mut text = sealed.to_vec();
                cipher.decrypt_in_place(&Nonce::from(*nonce), &[SEALED], &mut text).map_err(|_| Rejected::Damaged)?;
                Ok(text)
            }
            _ => Err(Rejected::Foreign),
        }
    }
}

/// Four bytes that tell keys apart and tell nothing about them: the start of the tag of an empty text.
fn key_name(cipher: &ChaCha20Poly1305) -> [u8; KEY_NAME] {
    let mut tag = Vec::new();
    let made = cipher.encrypt_in_place(&Nonce::from([0; NONCE]), b"name of the key", &mut tag);
    match (made, tag.first_chunk()) {
        (Ok(()), Some(name)) => *name,
        _ => [0; KEY_NAME],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_who_has_the_key_reads_a_datagram_and_no_bit_of_it_can_be_changed() {
        let seal = Seal::new(Some(&[7; 32]));
        let datagram = seal.seal(b"hello", [1; 12]).unwrap();
        assert_eq!(seal.open(&datagram), Ok(b"hello".to_vec()));
        assert!(!datagram.windows(5).any(|part| part == b"hello"));
        assert_eq!(Seal::new(Some(&[8; 32])).open(&datagram), Err(Rejected::OtherKey));
        for bit in 0..datagram.len() * 8 {
            let mut changed = datagram.to_vec();
            changed[bit / 8] ^= 1 << (bit % 8);
            assert!(seal.open(&changed).is_err(), "bit {bit}");
        }
        for length in 0..datagram.len() {
            assert!(seal.open(&datagram[..length]).is_err());
        }
    }

    #[test]
    fn open_and_sealed_members_do_not_hear_each_other() {
        let (open, sealed) = (Seal::new(None), Seal::new(Some(&[7; 32])));
        let word = open.seal(b"hello", [0; 12]).unwrap();
        assert_eq!(open.open(&word), Ok(b"hello".to_vec()));
        assert_eq!(sealed.open(&word), Err(Rejected::Foreign));
        assert_eq!(open.open(&sealed.seal(b"hello", [0; 12]).unwrap()), Err(Rejected::Foreign));
    }
}
