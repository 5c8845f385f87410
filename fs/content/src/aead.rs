//! The two ciphers of this crate, each behind one pair of functions.
//!
//! ChaCha20-Poly1305 with a zero nonce is for keys that are used for exactly one message (convergent keys).
//! XChaCha20-Poly1305 is for keys that live long; its nonce is random or synthetic, and stands before the ciphertext.

use chacha20poly1305::aead::{Aead as _, KeyInit as _, Payload};
use chacha20poly1305::{XChaCha20Poly1305, XNonce};
use ring::aead::{Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, UnboundKey};
use zeroize::Zeroizing;

/// Both ciphers append this many bytes.
pub const TAG_BYTES: usize = 16;
/// XChaCha20-Poly1305's nonce.
pub const XNONCE_BYTES: usize = 24;

/// The bytes were not sealed under this key (or with this associated data), or were changed since.
#[derive(Debug, Clone, Copy, thiserror::Error, PartialEq, Eq)]
#[error("decryption failed: wrong key or damaged bytes")]
pub struct OpenError;

fn one_time_key(key: &[u8; 32]) -> LessSafeKey {
    match UnboundKey::new(&CHACHA20_POLY1305, key) {
        Ok(key) => LessSafeKey::new(key),
        Err(_) => unreachable!("the key's length is that of the algorithm"),
    }
}

/// Encrypts in place under a key that never encrypts anything else, and appends the tag.
pub(crate) fn seal_once(key: &[u8; 32], buffer: &mut Vec<u8>) {
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let sealed = one_time_key(key).seal_in_place_append_tag(nonce, Aad::empty(), buffer);
    // The cipher refuses only messages of 256 GiB and more; a block is at most 2 MiB.
    assert!(sealed.is_ok(), "the message exceeds the cipher's limit");
}

/// Reverses [`seal_once`]; the buffer is left with the plaintext.
pub(crate) fn open_once(key: &[u8; 32], buffer: &mut Vec<u8>) -> Result<(), OpenError> {
    let nonce = Nonce::assume_unique_for_key([0; 12]);
    let plain_len =
        one_time_key(key).open_in_place(nonce, Aad::empty(), buffer).map_err(|_| OpenError)?.len();
    buffer.truncate(plain_len);
    Ok(())
}

/// `nonce || ciphertext || tag` under a long-lived key.
pub(crate) fn seal_xnonce(key: &[u8; 32], nonce: &[u8; XNONCE_BYTES], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let cipher = XChaCha20Poly1305::new(&(*key).into());
    let sealed = cipher.encrypt(&XNonce::from(*nonce), Payload { msg: plain, aad });
    let mut out = nonce.to_vec();
    // As above: only messages of 256 GiB are refused.
    assert!(sealed.is_ok(), "the message exceeds the cipher's limit");
    out.extend_from_slice(&sealed.unwrap_or_default());
    out
}

/// Reverses [`seal_xnonce`].
pub(crate) fn open_xnonce(
    key: &[u8; 32],
    aad: &[u8],
    sealed: &[u8],
) -> Result<Zeroizing<Vec<u8>>, OpenError> {
    let (nonce, ciphertext) = sealed.split_first_chunk::<XNONCE_BYTES>().ok_or(OpenError)?;
    let cipher = XChaCha20Poly1305::new(&(*key).into());
    let plain =
        cipher.decrypt(&XNonce::from(*nonce), Payload { msg: ciphertext, aad }).map_err(|_| OpenError)?;
    Ok(Zeroizing::new(plain))
}

/// Like [`seal_xnonce`] with a nonce computed from key, associated data and message: deterministic, and safe without a
/// generator, since different messages get different nonces. Equal messages are recognisably equal.
pub(crate) fn seal_synthetic(key: &[u8; 32], aad: &[u8], plain: &[u8]) -> Vec<u8> {
    let nonce_key = Zeroizing::new(blake3::derive_key("holdfast 2026 synthetic nonce v1", key));
    let mut hasher = blake3::Hasher::new_keyed(&nonce_key);
    hasher.update(&(aad.len() as u64).to_le_bytes());
    hasher.update(aad);
    hasher.update(plain);
    let mut nonce = [0; XNONCE_BYTES];
    hasher.finalize_xof().fill(&mut nonce);
    seal_xnonce(key, &nonce, aad, plain)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn round_trips_and_refusals() {
        let mut buffer = b"message".to_vec();
        seal_once(&[7; 32], &mut buffer);
        assert_eq!(buffer.len(), 7 + TAG_BYTES);
        let mut damaged = buffer.clone();
        damaged[3] ^= 1;
        assert_eq!(open_once(&[7; 32], &mut damaged), Err(OpenError));
        assert_eq!(open_once(&[8; 32], &mut buffer.clone()), Err(OpenError));
        assert_eq!(open_once(&[7; 32], &mut vec![1, 2, 3]), Err(OpenError));
        open_once(&[7; 32], &mut buffer).unwrap();
        assert_eq!(buffer, b"message");

        let sealed = seal_synthetic(&[1; 32], b"ad", b"message");
        assert_eq!(sealed, seal_synthetic(&[1; 32], b"ad", b"message"));
        assert_ne!(sealed[..24], seal_synthetic(&[1; 32], b"ae", b"message")[..24]);
        assert_eq!(open_xnonce(&[1; 32], b"ad", &sealed).unwrap().as_slice(), b"message");
        assert!(open_xnonce(&[1; 32], b"", &sealed).is_err());
        assert!(open_xnonce(&[1; 32], b"ad", &sealed[..20]).is_err());
    }

    /// RFC 8439's cipher in two implementations: what `ring` seals, RustCrypto opens.
    #[test]
    fn two_implementations_agree() {
        use chacha20poly1305::ChaCha20Poly1305;
        let mut buffer = vec![42; 1000];
        seal_once(&[9; 32], &mut buffer);
        let plain =
            ChaCha20Poly1305::new(&[9; 32].into()).decrypt(&[0; 12].into(), buffer.as_slice()).unwrap();
        assert_eq!(plain, vec![42; 1000]);
    }
}
