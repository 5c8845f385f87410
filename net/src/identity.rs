//! A peer's identity: one Ed25519 key in one file, mode 0600.
//!
//! ```text
//! "holdfast identity\n"  version (1 byte, 1)  32-byte Ed25519 seed
//! ```

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use libp2p::identity::{Keypair, PublicKey};
use libp2p::{PeerId, identity};
use zeroize::Zeroizing;

use crate::env::Env;
use crate::error::NetError;

const MAGIC: &[u8] = b"holdfast identity\n";
const VERSION: u8 = 1;
const FILE_LEN: usize = MAGIC.len() + 1 + 32;

/// Reads the identity in `path`, or draws one and writes it there, durably, before it is used.
pub fn load_or_create(path: &Path, env: &Env) -> Result<Keypair, NetError> {
    match std::fs::File::open(path) {
        Ok(file) => load(path, file),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => create(path, env),
        Err(e) => Err(local(path, &e)),
    }
}

fn load(path: &Path, file: std::fs::File) -> Result<Keypair, NetError> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(FILE_LEN + 1));
    file.take(FILE_LEN as u64 + 1).read_to_end(&mut bytes).map_err(|e| local(path, &e))?;
    let bad = |what: &str| NetError::Local(format!("{}: {what}", path.display()));
    let rest = bytes.strip_prefix(MAGIC).ok_or_else(|| bad("not an identity file"))?;
    let (version, seed) = rest.split_first().ok_or_else(|| bad("cut short"))?;
    if *version > VERSION {
        return Err(bad("written by a newer version: update this program"));
    }
    let seed: [u8; 32] = seed.try_into().map_err(|_| bad("wrong length"))?;
    keypair(seed)
}

fn create(path: &Path, env: &Env) -> Result<Keypair, NetError> {
    let seed = Zeroizing::new(env.random::<32>());
    let mut bytes = Zeroizing::new(MAGIC.to_vec());
    bytes.push(VERSION);
    bytes.extend_from_slice(&seed[..]);
    let folder = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let tmp = path.with_extension("tmp");
    let write = || -> std::io::Result<()> {
        let mut file =
            std::fs::OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&tmp)?;
        file.write_all(&bytes)?;
        file.sync_all()?;
        std::fs::rename(&tmp, path)?;
        std::fs::File::open(folder)?.sync_all()
    };
    write().map_err(|e| local(path, &e))?;
    keypair(*seed)
}

/// The identity of a seed.
pub fn keypair(seed: [u8; 32]) -> Result<Keypair, NetError> {
    let mut seed = Zeroizing::new(seed);
    Keypair::ed25519_from_bytes(&mut seed[..]).map_err(|e| NetError::Local(e.to_string()))
}

/// The Ed25519 public key inside a peer id, if it is one that carries its key (all of ours do).
pub fn public_key_of(peer: &PeerId) -> Option<PublicKey> {
    let hash = peer.as_ref();
    // Code 0 is the identity hash: the digest is the protobuf of the key itself.
    if hash.code() != 0 {
        return None;
    }
    let key = PublicKey::try_decode_protobuf(hash.digest()).ok()?;
    (key.key_type() == identity::KeyType::Ed25519).then_some(key)
}

/// Whether `signature` over `message` is by the peer with this id.
pub fn verify_by_peer(peer: &PeerId, message: &[u8], signature: &[u8]) -> bool {
    public_key_of(peer).is_some_and(|key| key.verify(message, signature))
}

fn local(path: &Path, error: &std::io::Error) -> NetError {
    NetError::Local(format!("{}: {error}", path.display()))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn is_kept_and_private() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        let env = Env::system();
        let first = load_or_create(&path, &env).unwrap();
        let again = load_or_create(&path, &env).unwrap();
        assert_eq!(first.public(), again.public());
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let message = b"something";
        let signature = first.sign(message).unwrap();
        let peer = first.public().to_peer_id();
        assert!(verify_by_peer(&peer, message, &signature));
        assert!(!verify_by_peer(&peer, b"another", &signature));
        assert!(!verify_by_peer(&PeerId::random(), message, &signature));
    }

    #[test]
    fn damaged_files_are_refused_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("identity");
        let env = Env::system();
        load_or_create(&path, &env).unwrap();
        let good = std::fs::read(&path).unwrap();
        for bad in [&good[..good.len() - 1], &[], b"garbage", &[good.as_slice(), b"x"].concat()] {
            std::fs::write(&path, bad).unwrap();
            assert!(load_or_create(&path, &env).is_err());
        }
        let mut newer = good.clone();
        newer[MAGIC.len()] = 9;
        std::fs::write(&path, newer).unwrap();
        assert!(load_or_create(&path, &env).unwrap_err().to_string().contains("newer"));
    }
}
