//! The words, the root key and the drive's name.

use super::derive::{Generation, contexts};
use crate::block::BlockError;
use crate::rng::{Rng, RngError};
use cid::Cid;
use cid::multihash::Multihash;
use ed25519_dalek::{Signature, Signer as _, SigningKey, VerifyingKey};
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// 256 bits of entropy and 8 of checksum.
pub const WORD_COUNT: usize = 24;
/// The multicodec of a libp2p public key, IPNS's kind of name.
const CODEC_LIBP2P_KEY: u64 = 0x72;
/// A libp2p public key in protobuf: type Ed25519 (1), 32 bytes of data.
const LIBP2P_ED25519_PREFIX: [u8; 4] = [0x08, 0x01, 0x12, 0x20];

/// Why words were refused.
#[derive(Debug, thiserror::Error)]
pub enum WordsError {
    /// Not 24 words.
    #[error("expected {WORD_COUNT} words, found {0}")]
    Count(usize),
    /// The word at this place (from 1) is not in the English list.
    #[error("word {0} is not in the word list")]
    UnknownWord(usize),
    /// Each word is known, together they are not what was written down.
    #[error("the words do not fit together (checksum): one is wrong or two are swapped")]
    Checksum,
    /// No randomness for new words.
    #[error(transparent)]
    Rng(#[from] RngError),
}

/// Twenty-four words: all that a person must keep.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Mnemonic {
    entropy: [u8; 32],
}

impl Mnemonic {
    /// New words.
    pub fn generate(rng: &dyn Rng) -> Result<Self, WordsError> {
        let mut entropy = [0; 32];
        rng.fill(&mut entropy)?;
        Ok(Self { entropy })
    }

    /// The words of given entropy.
    pub fn from_entropy(entropy: [u8; 32]) -> Self {
        Self { entropy }
    }

    /// Reads words as a person types them: any case, any white space.
    pub fn parse(text: &str) -> Result<Self, WordsError> {
        let text = Zeroizing::new(text.to_lowercase());
        let words: Zeroizing<Vec<String>> =
            Zeroizing::new(text.split_whitespace().map(str::to_owned).collect());
        if words.len() != WORD_COUNT {
            return Err(WordsError::Count(words.len()));
        }
        let joined = Zeroizing::new(words.join(" "));
        let mnemonic =
            bip39::Mnemonic::parse_in_normalized(bip39::Language::English, &joined).map_err(|error| {
                match error {
                    bip39::Error::UnknownWord(at) => WordsError::UnknownWord(at + 1),
                    _ => WordsError::Checksum,
                }
            })?;
        let bytes = Zeroizing::new(mnemonic.to_entropy());
        let entropy = bytes.as_slice().try_into().map_err(|_| WordsError::Checksum)?;
        Ok(Self { entropy })
    }

    /// The words, separated by single spaces.
    pub fn phrase(&self) -> Zeroizing<String> {
        let mut phrase = Zeroizing::new(String::with_capacity(WORD_COUNT * 9));
        for (at, word) in self.bip39().words().enumerate() {
            if at > 0 {
                phrase.push(' ');
            }
            phrase.push_str(word);
        }
        phrase
    }

    /// The root key. BIP39's own stretching (PBKDF2, 2048 rounds, no passphrase) comes first, so that a wallet for the
    /// same words can be derived by the usual paths beside it.
    pub fn root_key(&self) -> RootKey {
        let seed = Zeroizing::new(self.bip39().to_seed_normalized(""));
        RootKey::from_bytes(blake3::derive_key(contexts::ROOT, seed.as_slice()))
    }

    fn bip39(&self) -> bip39::Mnemonic {
        match bip39::Mnemonic::from_entropy_in(bip39::Language::English, &self.entropy) {
            Ok(mnemonic) => mnemonic,
            Err(_) => unreachable!("32 bytes are always 24 words"),
        }
    }
}

impl std::fmt::Debug for Mnemonic {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Mnemonic(..)")
    }
}

/// The key above all others. Made from the words when needed, wiped after, written nowhere.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct RootKey([u8; 32]);

impl RootKey {
    /// A root key of given bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    fn signing_key(&self) -> SigningKey {
        SigningKey::from_bytes(&blake3::derive_key(contexts::ROOT_SIGNING, &self.0))
    }

    /// The drive that these words open.
    pub fn drive_name(&self) -> DriveName {
        DriveName(self.signing_key().verifying_key().to_bytes())
    }

    /// The secret of generation `number` (the first is 1).
    pub fn generation(&self, number: u32) -> Generation {
        let mut hasher = blake3::Hasher::new_derive_key(contexts::GENERATION);
        hasher.update(&self.0);
        hasher.update(&number.to_be_bytes());
        Generation::from_parts(number, hasher.finalize().into())
    }

    pub(super) fn sign(&self, message: &[u8]) -> [u8; 64] {
        self.signing_key().sign(message).to_bytes()
    }
}

impl std::fmt::Debug for RootKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("RootKey(..)")
    }
}

/// A drive's name: the public half of its root key. Shown as an IPNS name (`k51…`).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DriveName([u8; 32]);

impl DriveName {
    /// A name from its 32 bytes; whether it is a valid key shows when something is verified under it.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    pub(super) fn verify(&self, message: &[u8], signature: &[u8; 64]) -> bool {
        VerifyingKey::from_bytes(&self.0)
            .is_ok_and(|key| key.verify_strict(message, &Signature::from_bytes(signature)).is_ok())
    }
}

impl std::fmt::Display for DriveName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&ipns_name(&self.0))
    }
}

impl std::fmt::Debug for DriveName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DriveName({self})")
    }
}

impl std::str::FromStr for DriveName {
    type Err = BlockError;

    fn from_str(text: &str) -> Result<Self, BlockError> {
        let cid: Cid = text.parse().map_err(|_| BlockError::MalformedCid)?;
        let unsupported = || BlockError::UnsupportedCid(Box::new(cid));
        // An Ed25519 name is an identity hash of the whole public key.
        if cid.codec() != CODEC_LIBP2P_KEY || cid.hash().code() != 0 {
            return Err(unsupported());
        }
        let key = cid.hash().digest().strip_prefix(&LIBP2P_ED25519_PREFIX).ok_or_else(unsupported)?;
        Ok(Self(key.try_into().map_err(|_| unsupported())?))
    }
}

/// The IPNS name of an Ed25519 public key, in base 36 as is usual.
pub fn ipns_name(public: &[u8; 32]) -> String {
    let mut key = LIBP2P_ED25519_PREFIX.to_vec();
    key.extend_from_slice(public);
    let cid = Cid::new_v1(CODEC_LIBP2P_KEY, Multihash::wrap(0, &key).unwrap_or_default());
    cid.to_string_of_base(cid::multibase::Base::Base36Lower).unwrap_or_default()
}
