//! The ciphers of the store.
//!
//! Two jobs, two ciphers. A segment is sealed with whatever the processor does best, under a key that lives as long as the
//! segment. What is kept under a long-lived key (segment keys, index values) is sealed with XChaCha20-Poly1305, whose
//! 192-bit nonces may be drawn at random for ever.
//!
//! Nonces inside a segment are a random 96-bit base for each record or payload, its last four bytes XORed with the frame's
//! number. A segment has at most some 10^6 records, each of at most 2^10 frames: two equal nonces under one key have a
//! probability below 2^-45, and drawing them anew means that rewriting a place after a failed write is harmless.

use std::sync::Arc;

use bytes::Bytes;
use chacha20::R20;
use ring::aead::{AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, Nonce, Tag, UnboundKey};
use zeroize::{Zeroize, Zeroizing};

use crate::ambient::NoncePool;
use crate::error::Result;
use crate::{StoreError, Table, limits};

/// Bytes of an authentication tag, in every suite.
pub(crate) const TAG_BYTES: usize = 16;
/// Bytes of the random base of a record's or payload's nonces.
pub(crate) const NONCE_BYTES: usize = 12;
/// The nonce number of a record's rows. Payload frames count from 0 and never reach it.
pub(crate) const META_FRAME: u32 = u32::MAX;

/// The cipher of a segment; the numbers are a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Suite {
    Aes256Gcm = 1,
    ChaCha20Poly1305 = 2,
}

impl Suite {
    pub(crate) fn from_number(number: u8) -> Option<Suite> {
        [Suite::Aes256Gcm, Suite::ChaCha20Poly1305].into_iter().find(|suite| *suite as u8 == number)
    }

    /// AES where the processor has its instructions (7 GB/s against 2.5), else ChaCha20 (which needs none).
    pub(crate) fn best() -> Suite {
        #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
        let aes =
            std::arch::is_x86_feature_detected!("aes") && std::arch::is_x86_feature_detected!("pclmulqdq");
        #[cfg(target_arch = "aarch64")]
        let aes = std::arch::is_aarch64_feature_detected!("aes")
            && std::arch::is_aarch64_feature_detected!("pmull");
        #[cfg(not(any(target_arch = "x86_64", target_arch = "x86", target_arch = "aarch64")))]
        let aes = false;
        if aes { Suite::Aes256Gcm } else { Suite::ChaCha20Poly1305 }
    }
}

/// A segment's key, ready for use.
pub(crate) struct SegmentCipher(LessSafeKey);

impl SegmentCipher {
    pub(crate) fn new(suite: Suite, key: &[u8; 32]) -> Self {
        let algorithm = match suite {
            Suite::Aes256Gcm => &AES_256_GCM,
            Suite::ChaCha20Poly1305 => &CHACHA20_POLY1305,
        };
        match UnboundKey::new(algorithm, key) {
            Ok(key) => SegmentCipher(LessSafeKey::new(key)),
            Err(_) => unreachable!("both algorithms take 32 bytes"),
        }
    }

    /// Seals `out[from..]` in place and appends its tag.
    pub(crate) fn seal_tail(
        &self,
        nonce: [u8; NONCE_BYTES],
        frame: u32,
        ad: &[u8],
        out: &mut Vec<u8>,
        from: usize,
    ) {
        match self.0.seal_in_place_separate_tag(frame_nonce(nonce, frame), Aad::from(ad), &mut out[from..]) {
            Ok(tag) => out.extend_from_slice(tag.as_ref()),
            Err(_) => unreachable!("sealing fails only above 2^36 bytes"),
        }
    }

    /// Opens `sealed` (ciphertext and tag) in place; `None` if one bit of it, of `ad` or of the nonce is another.
    pub(crate) fn open<'a>(
        &self,
        nonce: [u8; NONCE_BYTES],
        frame: u32,
        ad: &[u8],
        sealed: &'a mut [u8],
    ) -> Option<&'a mut [u8]> {
        self.0.open_in_place(frame_nonce(nonce, frame), Aad::from(ad), sealed).ok()
    }

    /// Appends `plain` in frames, each sealed with its tag. `place_ad` says where the payload lies.
    pub(crate) fn seal_frames(
        &self,
        nonce: [u8; NONCE_BYTES],
        place_ad: &[u8; 20],
        plain: &[u8],
        out: &mut Vec<u8>,
    ) {
        for (number, frame) in plain.chunks(limits::FRAME_BYTES).enumerate() {
            let from = out.len();
            out.extend_from_slice(frame);
            self.seal_tail(nonce, number as u32, place_ad, out, from);
        }
    }
}

fn frame_nonce(mut base: [u8; NONCE_BYTES], frame: u32) -> Nonce {
    for (byte, mask) in base[NONCE_BYTES - 4..].iter_mut().zip(frame.to_le_bytes()) {
        *byte ^= mask;
    }
    Nonce::assume_unique_for_key(base)
}

/// Sealed length of `len` payload bytes.
pub(crate) fn framed_len(len: usize) -> usize {
    len + len.div_ceil(limits::FRAME_BYTES) * TAG_BYTES
}

/// A long-lived key: XChaCha20-Poly1305 with random nonces.
///
/// Put together of HChaCha20, which makes a key of the nonce's first 16 bytes, and `ring`'s ChaCha20-Poly1305 under that key, as the construction says: for
/// values of some tens of bytes, as rows are, that takes a third of the time of the same in one crate.
pub(crate) struct LongCipher(Zeroizing<[u8; 32]>);

/// `nonce (24), ciphertext, tag (16)`: what `LongCipher` adds to a plaintext.
pub(crate) const LONG_OVERHEAD: usize = 24 + TAG_BYTES;

impl LongCipher {
    pub(crate) fn new(key: &[u8; 32]) -> Self {
        LongCipher(Zeroizing::new(*key))
    }

    pub(crate) fn seal(&self, nonce: [u8; 24], ad: &[u8], plain: &[u8], out: &mut Vec<u8>) -> Result<()> {
        out.reserve(plain.len() + LONG_OVERHEAD);
        out.extend_from_slice(&nonce);
        let from = out.len();
        out.extend_from_slice(plain);
        let (key, nonce) = self.under(nonce);
        let sealed = out.get_mut(from..).unwrap_or_default();
        let tag = key.seal_in_place_separate_tag(nonce, Aad::from(ad), sealed);
        out.extend_from_slice(tag.map_err(|_| StoreError::corrupt("a value too long to seal"))?.as_ref());
        Ok(())
    }

    /// `None` if it was not sealed under this key with this `ad`.
    pub(crate) fn open(&self, ad: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
        let (nonce, rest) = sealed.split_first_chunk::<24>()?;
        let (ciphertext, tag) = rest.split_last_chunk::<TAG_BYTES>()?;
        // In memory of exactly its length, which `Bytes` takes as it is.
        let mut plain = ciphertext.to_vec();
        let (key, nonce) = self.under(*nonce);
        key.open_in_place_separate_tag(nonce, Aad::from(ad), Tag::from(*tag), &mut plain, 0..).ok()?;
        Some(plain)
    }

    /// The key and the short nonce that stand for a long one.
    fn under(&self, nonce: [u8; 24]) -> (LessSafeKey, Nonce) {
        let (mut head, mut tail) = ([0; 16], [0; NONCE_BYTES]);
        head.copy_from_slice(&nonce[..16]);
        tail[4..].copy_from_slice(&nonce[16..]);
        let mut key = chacha20::hchacha::<R20>((&*self.0).into(), (&head).into());
        let short = match UnboundKey::new(&CHACHA20_POLY1305, &key) {
            Ok(short) => LessSafeKey::new(short),
            Err(_) => unreachable!("the algorithm takes 32 bytes"),
        };
        key.as_mut_slice().zeroize();
        (short, Nonce::assume_unique_for_key(tail))
    }
}

/// Seals the values of the index: `version (1), nonce (24), ciphertext, tag (16)`, the full key as associated data. Of tables whose keys say everything:
/// `version (1), value`.
pub(crate) struct ValueCipher {
    cipher: LongCipher,
    nonces: Arc<NoncePool>,
}

/// Version and suite: XChaCha20-Poly1305.
const VALUE_VERSION: u8 = 1;
/// As it is. Refused for rows of other tables: whoever writes to the disk must not choose how a row is read.
const VALUE_BARE: u8 = 2;

/// Whether the keys of this row's table, which the index has in the open anyway, say all that its rows do.
fn is_bare(key: &[u8]) -> bool {
    key.first().and_then(|tag| Table::from_tag(*tag)).is_some_and(Table::is_said_by_keys)
}

impl ValueCipher {
    pub(crate) fn new(key: &[u8; 32], nonces: Arc<NoncePool>) -> Self {
        ValueCipher { cipher: LongCipher::new(key), nonces }
    }

    pub(crate) fn seal(&self, key: &[u8], value: &[u8]) -> Result<Vec<u8>> {
        if is_bare(key) {
            return Ok([&[VALUE_BARE], value].concat());
        }
        let mut out = Vec::with_capacity(1 + value.len() + LONG_OVERHEAD);
        out.push(VALUE_VERSION);
        self.cipher.seal(self.nonces.take(), key, value, &mut out)?;
        Ok(out)
    }

    pub(crate) fn open(&self, key: &[u8], sealed: &[u8]) -> Result<Bytes> {
        match sealed.split_first() {
            Some((&VALUE_VERSION, rest)) => match self.cipher.open(key, rest) {
                Some(value) => Ok(value.into()),
                None => Err(StoreError::corrupt(format!("index row {key:02x?} does not open"))),
            },
            Some((&VALUE_BARE, value)) if is_bare(key) => Ok(Bytes::copy_from_slice(value)),
            Some((&VALUE_BARE, _)) => Err(StoreError::corrupt(format!("index row {key:02x?} is not sealed"))),
            Some((&found, _)) => {
                Err(StoreError::NewerFormat { what: "an index row".to_owned(), found, known: VALUE_BARE })
            }
            None => Err(StoreError::corrupt(format!("index row {key:02x?} is empty"))),
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use chacha20poly1305::aead::{Aead, KeyInit, Payload};
    use chacha20poly1305::{XChaCha20Poly1305, XNonce};

    #[test]
    fn only_what_keys_say_is_bare_and_older_values_open() {
        let values = ValueCipher::new(&[7; 32], Arc::new(NoncePool::new(Arc::new(crate::SystemRng))));
        let (mark, inode) = ([Table::Changed.tag(), 1, 2], [Table::Inode.tag(), 1, 2]);
        assert_eq!(values.seal(&mark, b"m").unwrap(), [VALUE_BARE, b'm']);
        assert_eq!(values.open(&mark, &[VALUE_BARE, b'm']).unwrap(), b"m"[..]);
        let sealed = values.seal(&inode, b"row").unwrap();
        assert_eq!((sealed[0], sealed.len()), (VALUE_VERSION, 1 + 3 + LONG_OVERHEAD));
        assert_eq!(values.open(&inode, &sealed).unwrap(), b"row"[..]);
        // As the version before wrote marks.
        let mut old = vec![VALUE_VERSION];
        LongCipher::new(&[7; 32]).seal([3; 24], &mark, b"m", &mut old).unwrap();
        assert_eq!(values.open(&mark, &old).unwrap(), b"m"[..]);
        // Nobody who writes to the disk puts a row there by leaving the seal out.
        assert!(matches!(values.open(&inode, &[VALUE_BARE, b'm']), Err(StoreError::Corrupt { .. })));
        assert!(matches!(values.open(&mark, &[3, b'm']), Err(StoreError::NewerFormat { .. })));
        let state = values.seal(&crate::index::STATE_KEY, b"state").unwrap();
        assert_eq!(state[0], VALUE_VERSION);
    }

    /// What other programs, and earlier versions of this one, know by that name.
    #[test]
    fn it_is_xchacha20_poly1305() {
        let key: [u8; 32] = std::array::from_fn(|i| i as u8 * 7);
        let (ours, theirs) = (LongCipher::new(&key), XChaCha20Poly1305::new(&key.into()));
        for len in [0, 1, 15, 16, 63, 64, 65, 200, 5000] {
            let nonce: [u8; 24] = std::array::from_fn(|i| (i + len) as u8);
            let plain: Vec<u8> = (0..len).map(|i| i as u8).collect();
            let ad = &plain[..len.min(20)];
            let mut sealed = b"before".to_vec();
            ours.seal(nonce, ad, &plain, &mut sealed).unwrap();
            let sealed = sealed.strip_prefix(b"before").unwrap();
            let payload = Payload { msg: &plain, aad: ad };
            let expected = theirs.encrypt(&XNonce::from(nonce), payload).unwrap();
            assert_eq!(sealed, [&nonce[..], &expected].concat());
            assert_eq!(ours.open(ad, sealed).unwrap(), plain);
            for bit in [0, 24 * 8, sealed.len() * 8 - 1] {
                let mut damaged = sealed.to_vec();
                damaged[bit / 8] ^= 1 << (bit % 8);
                assert_eq!(ours.open(ad, &damaged), None);
            }
            assert_eq!(ours.open(b"else", sealed), None);
            assert_eq!(ours.open(ad, &sealed[..39]), None);
        }
    }
}
