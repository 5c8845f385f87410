//! The keyfile: what a home keeps, under a passphrase.
//!
//! ```text
//! magic "HFKF" | version u8 = 1 | suite u8 = 1 | memory KiB u32 | passes u32 | lanes u32 | salt 16 | (all little endian)
//! nonce 24 | ciphertext | tag 16
//! key = Argon2id(passphrase, salt, memory, passes, lanes) -> 32;  XChaCha20-Poly1305, associated data = the header
//! plaintext = canonical DAG-CBOR of HomeSecrets
//! ```
//!
//! The root key is never in it. A stolen home costs an attacker one Argon2id for each guess of the passphrase.

use crate::aead::{self, XNONCE_BYTES};
use crate::dagcbor::{self, FormatError};
use crate::keys::{DriveName, Generation};
use crate::rng::{Rng, RngError, random};
use argon2::{Algorithm, Argon2, Params, Version};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

const WHAT: &str = "keyfile";
const MAGIC: &[u8; 4] = b"HFKF";
const VERSION: u8 = 1;
const SUITE: u8 = 1;
const SALT_BYTES: usize = 16;
const HEADER_BYTES: usize = 4 + 2 + 12 + SALT_BYTES;
/// No keyfile is larger (it holds a keyring of at most 64 KiB).
pub const KEYFILE_BYTES_MAX: usize = 128 << 10;
/// A keyfile that asks for more memory was not made by us.
pub const MEMORY_KIB_MAX: u32 = 2 << 20;
/// The same for passes.
pub const PASSES_MAX: u32 = 32;
/// The same for lanes.
pub const LANES_MAX: u32 = 16;

/// Why a keyfile was not opened or made.
#[derive(Debug, thiserror::Error)]
pub enum KeyfileError {
    /// The passphrase does not open it (or the file was changed, which looks the same).
    #[error("the passphrase does not open the keyfile")]
    WrongPassphrase,
    /// Not a keyfile, or one of a newer version.
    #[error(transparent)]
    Format(#[from] FormatError),
    /// The parameters are outside the limits.
    #[error("the keyfile asks for unreasonable work: {memory_kib} KiB, {passes} passes, {lanes} lanes")]
    Parameters {
        /// Memory asked for.
        memory_kib: u32,
        /// Passes asked for.
        passes: u32,
        /// Lanes asked for.
        lanes: u32,
    },
    /// Argon2 failed: no memory.
    #[error("stretching the passphrase: {0}")]
    Stretch(String),
    /// No randomness.
    #[error(transparent)]
    Rng(#[from] RngError),
}

/// How much work one guess costs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ArgonParams {
    /// Memory in KiB.
    pub memory_kib: u32,
    /// Passes over it.
    pub passes: u32,
    /// Lanes.
    pub lanes: u32,
}

impl Default for ArgonParams {
    /// 128 MiB, 3 passes: twice the memory of RFC 9106's second recommendation, about 0.3 s on a laptop's core.
    fn default() -> Self {
        Self { memory_kib: 128 << 10, passes: 3, lanes: 1 }
    }
}

impl ArgonParams {
    /// Quick and weak: for tests only.
    pub fn weak_for_tests() -> Self {
        Self { memory_kib: 64, passes: 1, lanes: 1 }
    }

    fn check(self) -> Result<Self, KeyfileError> {
        let Self { memory_kib, passes, lanes } = self;
        let fits = memory_kib <= MEMORY_KIB_MAX
            && (1..=PASSES_MAX).contains(&passes)
            && (1..=LANES_MAX).contains(&lanes)
            && memory_kib >= 8 * lanes;
        if fits { Ok(self) } else { Err(KeyfileError::Parameters { memory_kib, passes, lanes }) }
    }

    fn stretch(self, passphrase: &[u8], salt: &[u8]) -> Result<Zeroizing<[u8; 32]>, KeyfileError> {
        let Self { memory_kib, passes, lanes } = self.check()?;
        let failed = |error: argon2::Error| KeyfileError::Stretch(error.to_string());
        let params = Params::new(memory_kib, passes, lanes, Some(32)).map_err(failed)?;
        let mut key = Zeroizing::new([0; 32]);
        Argon2::new(Algorithm::Argon2id, Version::V0x13, params)
            .hash_password_into(passphrase, salt, key.as_mut_slice())
            .map_err(failed)?;
        Ok(key)
    }
}

/// What a home must not lose and must not show.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize, Zeroize, ZeroizeOnDrop)]
#[serde(deny_unknown_fields)]
pub struct HomeSecrets {
    version: u64,
    suite: u64,
    #[serde(with = "serde_bytes")]
    drive: [u8; 32],
    generation: u32,
    #[serde(with = "serde_bytes")]
    generation_secret: [u8; 32],
    /// The key of the local log: random for each device.
    #[serde(with = "serde_bytes")]
    pub log_key: [u8; 32],
    /// The key of the local index: random for each device.
    #[serde(with = "serde_bytes")]
    pub index_key: [u8; 32],
    /// The seed of this device's network identity and the name of the device in commits.
    #[serde(with = "serde_bytes")]
    pub device: [u8; 16],
    /// The signed keyring, as providers keep it.
    #[zeroize(skip)]
    pub keyring: ByteBuf,
}

impl HomeSecrets {
    /// The secrets of a new home: local keys and the device's name are drawn here.
    pub fn new(
        drive: DriveName,
        generation: &Generation,
        keyring: Vec<u8>,
        rng: &dyn Rng,
    ) -> Result<Self, RngError> {
        Ok(Self {
            version: 1,
            suite: 1,
            drive: *drive.as_bytes(),
            generation: generation.number(),
            generation_secret: *generation.secret().as_bytes(),
            log_key: random(rng)?,
            index_key: random(rng)?,
            device: random(rng)?,
            keyring: ByteBuf::from(keyring),
        })
    }

    /// The drive of this home.
    pub fn drive(&self) -> DriveName {
        DriveName::from_bytes(self.drive)
    }

    /// The generation whose keys the home works with.
    pub fn generation(&self) -> Generation {
        Generation::from_parts(self.generation, self.generation_secret)
    }
}

impl std::fmt::Debug for HomeSecrets {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "HomeSecrets({}, generation {}, ..)", self.drive(), self.generation)
    }
}

/// Makes a keyfile's bytes.
pub fn seal(
    passphrase: &[u8],
    secrets: &HomeSecrets,
    params: ArgonParams,
    rng: &dyn Rng,
) -> Result<Vec<u8>, KeyfileError> {
    let salt: [u8; SALT_BYTES] = random(rng)?;
    let nonce: [u8; XNONCE_BYTES] = random(rng)?;
    let mut file = Vec::with_capacity(1024);
    file.extend_from_slice(MAGIC);
    file.extend_from_slice(&[VERSION, SUITE]);
    for number in [params.memory_kib, params.passes, params.lanes] {
        file.extend_from_slice(&number.to_le_bytes());
    }
    file.extend_from_slice(&salt);
    let key = params.stretch(passphrase, &salt)?;
    let plain = Zeroizing::new(dagcbor::encode(WHAT, secrets)?);
    let sealed = aead::seal_xnonce(&key, &nonce, &file, &plain);
    file.extend_from_slice(&sealed);
    if file.len() > KEYFILE_BYTES_MAX {
        return Err(FormatError::TooLarge { what: WHAT, len: file.len(), max: KEYFILE_BYTES_MAX }.into());
    }
    Ok(file)
}

/// Opens a keyfile.
pub fn open(passphrase: &[u8], file: &[u8]) -> Result<HomeSecrets, KeyfileError> {
    let (params, header, sealed) = parse(file)?;
    let salt = header.last_chunk::<SALT_BYTES>().ok_or_else(|| FormatError::malformed(WHAT, "too short"))?;
    let key = params.stretch(passphrase, salt)?;
    let plain = aead::open_xnonce(&key, header, sealed).map_err(|_| KeyfileError::WrongPassphrase)?;
    Ok(decode_plain(&plain)?)
}

/// Reads what stands inside the seal.
pub(crate) fn decode_plain(plain: &[u8]) -> Result<HomeSecrets, FormatError> {
    let version = dagcbor::peek_version(WHAT, plain)?;
    dagcbor::check_version(WHAT, version.version, 1)?;
    dagcbor::check_version(WHAT, version.suite, 1)?;
    dagcbor::decode(WHAT, plain, KEYFILE_BYTES_MAX)
}

/// Parameters, header and sealed part of a keyfile.
pub(crate) fn parse(file: &[u8]) -> Result<(ArgonParams, &[u8], &[u8]), KeyfileError> {
    if file.len() > KEYFILE_BYTES_MAX {
        return Err(FormatError::TooLarge { what: WHAT, len: file.len(), max: KEYFILE_BYTES_MAX }.into());
    }
    let malformed = || FormatError::malformed(WHAT, "not a keyfile");
    let (header, sealed) = file.split_at_checked(HEADER_BYTES).ok_or_else(malformed)?;
    let fields = header.strip_prefix(MAGIC).ok_or_else(malformed)?;
    let (&[version, suite], fields) = fields.split_first_chunk::<2>().ok_or_else(malformed)?;
    dagcbor::check_version(WHAT, version.into(), VERSION.into())?;
    dagcbor::check_version(WHAT, suite.into(), SUITE.into())?;
    let mut numbers = fields.chunks_exact(4).map(|bytes| bytes.try_into().map_or(0, u32::from_le_bytes));
    let mut next = || numbers.next().ok_or_else(malformed);
    let params = ArgonParams { memory_kib: next()?, passes: next()?, lanes: next()? };
    Ok((params.check()?, header, sealed))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::keys::{Keyring, Mnemonic};
    use crate::rng::SeededRng;

    fn secrets() -> HomeSecrets {
        let root = Mnemonic::from_entropy([1; 32]).root_key();
        let keyring = Keyring::first(&root, 1_800_000_000).sign(&root).unwrap();
        HomeSecrets::new(root.drive_name(), &root.generation(1), keyring, &SeededRng::new(1)).unwrap()
    }

    #[test]
    fn opens_with_the_passphrase_only() {
        let secrets = secrets();
        let weak = ArgonParams::weak_for_tests();
        let file = seal(b"correct horse", &secrets, weak, &SeededRng::new(2)).unwrap();
        assert_eq!(open(b"correct horse", &file).unwrap(), secrets);
        assert!(matches!(open(b"correct horsf", &file), Err(KeyfileError::WrongPassphrase)));
        assert_ne!(file, seal(b"correct horse", &secrets, weak, &SeededRng::new(3)).unwrap());
        assert!(!format!("{secrets:?}").contains(&format!("{:?}", secrets.log_key)));
        crate::golden::check("keyfile", &data_encoding::HEXLOWER.encode(&file));
    }

    #[test]
    fn every_changed_or_missing_byte_is_an_error() {
        let file = seal(b"p", &secrets(), ArgonParams::weak_for_tests(), &SeededRng::new(2)).unwrap();
        for at in 0..file.len() {
            let mut changed = file.clone();
            changed[at] ^= 0x80;
            assert!(open(b"p", &changed).is_err(), "byte {at}");
        }
        for len in 0..file.len() {
            assert!(open(b"p", &file[..len]).is_err(), "length {len}");
        }
        let mut newer = file.clone();
        newer[4] = 2;
        let message = open(b"p", &newer).unwrap_err().to_string();
        assert!(message.contains("newer"), "{message}");
    }
}
