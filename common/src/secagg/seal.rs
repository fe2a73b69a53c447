//! Seals what one site says to another through the server: AES-256-GCM.
//!
//! The key is for one message in one direction, so the nonce is 0. The attempt and both ranks are
//! authenticated, so that a message reflected or sent to somebody else does not open.

use aes_gcm::aead::{Aead, Payload};
use aes_gcm::{Aes256Gcm, KeyInit, Nonce};
use zeroize::Zeroizing;

use super::secret::Secret;

/// Seals; the result is 16 bytes longer than the plaintext.
pub fn seal(key: &Secret, t1: &[u8; 32], from: u32, to: u32, plaintext: &[u8]) -> Vec<u8> {
    cipher(key)
        .encrypt(&Nonce::default(), Payload { msg: plaintext, aad: &context(t1, from, to) })
        .expect("a message is shorter than 64 GiB")
}

/// Opens; `None` when anything was changed, or when it was sealed by somebody else, for somebody else, or in
/// another attempt.
pub fn open(key: &Secret, t1: &[u8; 32], from: u32, to: u32, sealed: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    cipher(key)
        .decrypt(&Nonce::default(), Payload { msg: sealed, aad: &context(t1, from, to) })
        .ok()
        .map(Zeroizing::new)
}

fn cipher(key: &Secret) -> Aes256Gcm {
    Aes256Gcm::new(key.bytes().into())
}

fn context(t1: &[u8; 32], from: u32, to: u32) -> [u8; 40] {
    let mut context = [0; 40];
    context[..32].copy_from_slice(t1);
    context[32..36].copy_from_slice(&from.to_le_bytes());
    context[36..].copy_from_slice(&to.to_le_bytes());
    context
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_very_message_opens() {
        let (key, t1) = (Secret::new([3; 32]), [4; 32]);
        let sealed = seal(&key, &t1, 1, 2, b"shares");
        assert_eq!(sealed.len(), 22);
        assert_eq!(open(&key, &t1, 1, 2, &sealed).unwrap().as_slice(), b"shares");
        assert_eq!(open(&key, &t1, 2, 1, &sealed), None);
        assert_eq!(open(&key, &[5; 32], 1, 2, &sealed), None);
        assert_eq!(open(&Secret::new([5; 32]), &t1, 1, 2, &sealed), None);
        assert_eq!(open(&key, &t1, 1, 2, &sealed[..15]), None);
        for at in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[at] ^= 1;
            assert_eq!(open(&key, &t1, 1, 2, &changed), None);
        }
    }
}
