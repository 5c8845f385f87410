//! One key for each purpose, derived from a generation's secret.

use crate::share::ShareKeys;
use crate::watch::WatchKeys;
use ed25519_dalek::SigningKey;
use zeroize::{Zeroize, ZeroizeOnDrop};

/// BLAKE3 `derive_key` contexts: one for each purpose, fixed for ever. A new suite gets new ones.
pub(super) mod contexts {
    pub const ROOT: &str = "holdfast 2026 root key v1";
    pub const ROOT_SIGNING: &str = "holdfast 2026 root signing v1";
    pub const GENERATION: &str = "holdfast 2026 generation v1";
    pub const CONVERGENCE: &str = "holdfast 2026 chunk convergence v1";
    pub const DEDUP: &str = "holdfast 2026 chunk dedup tag v1";
    pub const NAME_TAG: &str = "holdfast 2026 directory name tag v1";
    pub const TREE_NODE: &str = "holdfast 2026 tree node v1";
    pub const TREE_BOUNDARY: &str = "holdfast 2026 tree boundary v1";
    pub const COMMIT: &str = "holdfast 2026 commit v1";
    pub const COMMIT_WRAP: &str = "holdfast 2026 commit wrap v1";
    pub const HEAD_BODY: &str = "holdfast 2026 head body v1";
    pub const HEAD_SIGNING: &str = "holdfast 2026 head signing v1";
    pub const PLACEMENT_SIGNING: &str = "holdfast 2026 placement signing v1";
    pub const MASK: &str = "holdfast 2026 slot mask v1";
    pub const PROVIDER_AUTH: &str = "holdfast 2026 provider auth v1";
    pub const WATCH: &str = "holdfast 2026 watch v1";
    pub const SHARE: &str = "holdfast 2026 share v1";
}

/// A 32-byte secret: wiped when dropped, never printed.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey32([u8; 32]);

impl SecretKey32 {
    /// A key of given bytes.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The key's bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// A key for one purpose.
    fn derive(context: &str, secret: &[u8; 32]) -> Self {
        Self(blake3::derive_key(context, secret))
    }
}

impl std::fmt::Debug for SecretKey32 {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("SecretKey32(..)")
    }
}

macro_rules! purpose {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Debug)]
        pub struct $name(SecretKey32);

        impl $name {
            /// A key of given bytes.
            pub fn from_bytes(bytes: [u8; 32]) -> Self {
                Self(SecretKey32::from_bytes(bytes))
            }

            /// The key's bytes.
            pub fn as_bytes(&self) -> &[u8; 32] {
                self.0.as_bytes()
            }
        }
    };
}

purpose! {
    /// Makes chunk keys from chunks.
    ConvergenceKey
}
purpose! {
    /// Makes the local index's tags from plain chunks.
    DedupKey
}
purpose! {
    /// Makes directory tags from names.
    NameTagKey
}
purpose! {
    /// Makes slot seeds.
    MaskKey
}
purpose! {
    /// Makes the keys by which each provider, and no two of them together, knows the drive.
    ProviderAuthKey
}

/// Which search tree: each has keys of its own, so that one can be handed out without another.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[repr(u8)]
pub enum TreeDomain {
    /// Names, attributes, chunk keys.
    Namespace = 1,
    /// CID to place.
    Location = 2,
    /// Checkpoints of the placement log.
    Placement = 3,
}

/// The two keys of a search tree.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TreeKeys {
    /// Makes node keys from nodes.
    pub node: SecretKey32,
    /// Decides where nodes end.
    pub boundary: SecretKey32,
}

/// A numbered secret from which all working keys of the drive come. A home keeps this, not the root.
#[derive(Clone, PartialEq, Eq)]
pub struct Generation {
    number: u32,
    secret: SecretKey32,
}

impl Generation {
    /// A generation read back from a keyfile.
    pub fn from_parts(number: u32, secret: [u8; 32]) -> Self {
        Self { number, secret: SecretKey32::from_bytes(secret) }
    }

    /// Its number, from 1.
    pub fn number(&self) -> u32 {
        self.number
    }

    /// Its secret, for the keyfile only.
    pub fn secret(&self) -> &SecretKey32 {
        &self.secret
    }

    /// The working keys.
    pub fn keys(&self) -> DriveKeys {
        DriveKeys::derive(self)
    }
}

impl std::fmt::Debug for Generation {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Generation({}, ..)", self.number)
    }
}

/// Every working key of one generation.
#[derive(Clone)]
pub struct DriveKeys {
    /// The generation's number: part of what names a key in rows and commits.
    pub generation: u32,
    /// Chunk keys.
    pub convergence: ConvergenceKey,
    /// Tags of the local index of chunks.
    pub dedup: DedupKey,
    /// Tags of names in directories.
    pub name_tag: NameTagKey,
    /// Slot seeds.
    pub mask: MaskKey,
    /// Encrypts head bodies.
    pub head_body: SecretKey32,
    /// Makes commit keys from commits.
    pub commit: SecretKey32,
    /// Wraps the namespace key inside a commit.
    pub commit_wrap: SecretKey32,
    tree_secret: SecretKey32,
    head_signing: SigningKey,
    placement_signing: SigningKey,
    provider_auth: ProviderAuthKey,
    watch: WatchKeys,
    share: ShareKeys,
}

impl DriveKeys {
    fn derive(generation: &Generation) -> Self {
        let secret = generation.secret.as_bytes();
        let key = |context| SecretKey32::derive(context, secret);
        let signer = |context| SigningKey::from_bytes(key(context).as_bytes());
        Self {
            generation: generation.number,
            convergence: ConvergenceKey(key(contexts::CONVERGENCE)),
            dedup: DedupKey(key(contexts::DEDUP)),
            name_tag: NameTagKey(key(contexts::NAME_TAG)),
            mask: MaskKey(key(contexts::MASK)),
            head_body: key(contexts::HEAD_BODY),
            commit: key(contexts::COMMIT),
            commit_wrap: key(contexts::COMMIT_WRAP),
            tree_secret: generation.secret.clone(),
            head_signing: signer(contexts::HEAD_SIGNING),
            placement_signing: signer(contexts::PLACEMENT_SIGNING),
            provider_auth: ProviderAuthKey(key(contexts::PROVIDER_AUTH)),
            watch: WatchKeys::new(key(contexts::WATCH)),
            share: ShareKeys::new(key(contexts::SHARE)),
        }
    }

    /// The keys of one of the search trees.
    pub fn tree(&self, domain: TreeDomain) -> TreeKeys {
        let derive = |context| {
            let mut hasher = blake3::Hasher::new_derive_key(context);
            hasher.update(self.tree_secret.as_bytes());
            hasher.update(&[domain as u8]);
            SecretKey32::from_bytes(hasher.finalize().into())
        };
        TreeKeys { node: derive(contexts::TREE_NODE), boundary: derive(contexts::TREE_BOUNDARY) }
    }

    /// Signs head records; the keyring names its public half.
    pub fn head_signing(&self) -> &SigningKey {
        &self.head_signing
    }

    /// Signs placement entries.
    pub fn placement_signing(&self) -> &SigningKey {
        &self.placement_signing
    }

    /// Makes the keys of repair capabilities.
    pub fn watch(&self) -> &WatchKeys {
        &self.watch
    }

    /// Makes the keys of private links.
    pub fn share(&self) -> &ShareKeys {
        &self.share
    }

    /// The key by which one provider knows this drive (`peer_id` in binary). Providers that compare notes cannot tell
    /// from their keys that they serve the same drive.
    pub fn provider_auth(&self, peer_id: &[u8]) -> SigningKey {
        SigningKey::from_bytes(blake3::keyed_hash(self.provider_auth.as_bytes(), peer_id).as_bytes())
    }
}

impl std::fmt::Debug for DriveKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "DriveKeys(generation {}, ..)", self.generation)
    }
}

impl serde::Serialize for SecretKey32 {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serde_bytes::serialize(&self.0, serializer)
    }
}

impl<'de> serde::Deserialize<'de> for SecretKey32 {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde_bytes::deserialize(deserializer).map(Self)
    }
}
