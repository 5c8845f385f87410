//! Row keys. Big-endian, so that byte order is number order and one inode's rows stand together.

use super::RowError;
use super::inode::Ino;

/// A directory slot: 56 bits of keyed name hash, 7 bits of collision number. Also the readdir cookie.
///
/// 63 bits, so that it fits a signed `off_t`; 0, 1 and 2 are the beginning, `.` and `..`.
pub type Tag = u64;

/// Slots that share one name hash.
pub const TAG_SLOTS: u64 = 128;

/// The drive's key for names. Whoever lacks it cannot tell which names a directory holds.
#[derive(Clone, zeroize::ZeroizeOnDrop)]
pub struct NameKey([u8; 32]);

impl NameKey {
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The first slot of a name's collision chain.
    ///
    /// The parent is hashed too, so that equal names in two directories have unlike tags.
    pub fn first_slot(&self, parent: Ino, name: &[u8]) -> Tag {
        let mut input = [0u8; 8 + super::NAME_BYTES_MAX];
        let len = name.len().min(super::NAME_BYTES_MAX);
        let (head, tail) = input.split_at_mut(8);
        head.copy_from_slice(&parent.to_be_bytes());
        if let (Some(to), Some(from)) = (tail.get_mut(..len), name.get(..len)) {
            to.copy_from_slice(from);
        }
        let hash = blake3::keyed_hash(&self.0, input.get(..8 + len).unwrap_or_default());
        let [a, b, c, d, e, f, g, ..] = *hash.as_bytes();
        // Hash 0 would give slots 0..=127, where the reserved cookies are.
        let hash56 = u64::from_be_bytes([0, a, b, c, d, e, f, g]).max(1);
        hash56 << 7
    }

    /// The last 16 bytes of an xattr's key.
    pub fn xattr_tag(&self, name: &[u8]) -> [u8; 16] {
        let hash = blake3::keyed_hash(&self.0, name);
        let mut tag = [0; 16];
        tag.iter_mut().zip(hash.as_bytes()).for_each(|(to, from)| *to = *from);
        tag
    }
}

impl std::fmt::Debug for NameKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("NameKey(..)")
    }
}

fn pair(first: u64, second: u64) -> [u8; 16] {
    ((u128::from(first) << 64) | u128::from(second)).to_be_bytes()
}

/// Key of `inode[ino]` and `orphan[ino]`.
pub fn inode(ino: Ino) -> [u8; 8] {
    ino.to_be_bytes()
}

/// Key of `entry[parent, tag]`.
pub fn entry(parent: Ino, tag: Tag) -> [u8; 16] {
    pair(parent, tag)
}

/// Key of `xattr[ino, name]`.
pub fn xattr(ino: Ino, tag: [u8; 16]) -> [u8; 24] {
    let mut key = [0; 24];
    key.iter_mut().zip(ino.to_be_bytes().into_iter().chain(tag)).for_each(|(to, from)| *to = from);
    key
}

/// Key of `extent[ino, off]`.
pub fn extent(ino: Ino, off: u64) -> [u8; 16] {
    pair(ino, off)
}

/// Key of `chunk[ino, n]`.
pub fn chunk(ino: Ino, n: u64) -> [u8; 16] {
    pair(ino, n)
}

/// A row's key among those of all tables, as in a commit's tree and in marks: the table's tag before the row's own key.
pub fn full(table: holdfast_store::Table, key: &[u8]) -> Vec<u8> {
    let mut out = Vec::with_capacity(1 + key.len());
    out.push(table as u8);
    out.extend_from_slice(key);
    out
}

/// Reads an 8-byte key.
pub fn decode_inode(key: &[u8]) -> Result<Ino, RowError> {
    key.try_into().map(u64::from_be_bytes).map_err(|_| RowError::Corrupt { what: "key" })
}

/// Reads a 16-byte key of two numbers.
pub fn decode_pair(key: &[u8]) -> Result<(u64, u64), RowError> {
    let both = key.try_into().map(u128::from_be_bytes).map_err(|_| RowError::Corrupt { what: "key" })?;
    Ok(((both >> 64) as u64, both as u64))
}

/// The range of all keys that begin with `ino`: start (included) and end (excluded).
pub fn of_inode(ino: Ino) -> ([u8; 8], [u8; 8]) {
    (ino.to_be_bytes(), ino.saturating_add(1).to_be_bytes())
}
