//! A node's bytes.
//!
//! ```text
//! version u8 = 1 | variant u8 | level u8 | count varint
//! count times:  shared varint | suffix length varint | suffix       key = first `shared` bytes of the one before, suffix
//!               value length varint | value
//!               links varint | links times: codec u8 (0x55 raw, 0x70 dag-pb) | digest 32 | tsize varint
//! ```
//!
//! Keys ascend strictly, `shared` is as long as it can be, varints are minimal, nothing follows: one node, one encoding.
//! Compression is this prefix sharing alone, so that a node never depends on a library's version.

use super::{
    ENTRY_LINKS_MAX, Entry, KEY_BYTES_MAX, LEVELS_MAX, NODE_BYTES_MAX, TreeError, VALUE_BYTES_MAX, Variant,
};
use crate::aead;
use crate::block::{Block, CODEC_DAG_PB, CODEC_RAW, Link, cid_from_digest, digest_of};
use crate::keys::SecretKey32;
use crate::varint;
use bytes::Bytes;
use unsigned_varint::encode;

const VERSION: u8 = 1;
const SUITE: u8 = 1;

/// A decoded node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Node {
    /// 0 for rows, more for children.
    pub level: u8,
    /// In ascending order of keys.
    pub entries: Vec<Entry>,
}

impl Node {
    /// Encodes; the plaintext of the node's `_`.
    pub fn encode<V: Variant>(&self) -> Result<Vec<u8>, TreeError> {
        let mut out = Vec::with_capacity(16 << 10);
        out.extend_from_slice(&[VERSION, V::KIND, self.level]);
        put_varint(&mut out, self.entries.len() as u64);
        let mut previous: &[u8] = &[];
        for entry in &self.entries {
            let shared = shared_prefix(previous, &entry.key);
            put_varint(&mut out, shared as u64);
            put_bytes(&mut out, entry.key.get(shared..).unwrap_or_default());
            put_bytes(&mut out, &entry.value);
            put_varint(&mut out, entry.links.len() as u64);
            for link in &entry.links {
                out.push(link.cid.codec() as u8);
                out.extend_from_slice(&digest_of(&link.cid)?);
                put_varint(&mut out, link.tsize);
            }
            previous = &entry.key;
        }
        if out.len() > NODE_BYTES_MAX {
            return Err(TreeError::Malformed(format!("a node of {} bytes", out.len())));
        }
        Ok(out)
    }

    /// Decodes any bytes.
    pub fn decode<V: Variant>(bytes: Bytes) -> Result<Self, TreeError> {
        if bytes.len() > NODE_BYTES_MAX {
            return Err(malformed("too long"));
        }
        let &[version, kind, level, ..] = bytes.as_ref() else { return Err(malformed("too short")) };
        if version > VERSION {
            return Err(TreeError::Newer(version));
        }
        if version == 0 || kind != V::KIND || level > LEVELS_MAX {
            return Err(malformed("header"));
        }
        let mut reader = Reader { bytes: &bytes, at: 3 };
        let count = reader.number(NODE_BYTES_MAX)?;
        // An entry takes at least four bytes: a count that cannot be true allocates nothing.
        if count > bytes.len() / 4 {
            return Err(malformed("count"));
        }
        let mut entries: Vec<Entry> = Vec::with_capacity(count);
        let mut keys = KeyBuffer::default();
        for _ in 0..count {
            let shared = reader.number(KEY_BYTES_MAX)?;
            let suffix = reader.bytes(KEY_BYTES_MAX)?;
            keys.push(shared, suffix)?;
            let value = reader.slice(VALUE_BYTES_MAX)?;
            let links = reader.links()?;
            entries.push(Entry { key: Bytes::new(), value, links });
        }
        if reader.at != bytes.len() {
            return Err(malformed("trailing bytes"));
        }
        keys.assign(&mut entries);
        Ok(Self { level, entries })
    }

    /// The first key, under which a parent lists the node.
    pub fn first_key(&self) -> Bytes {
        self.entries.first().map(|entry| entry.key.clone()).unwrap_or_default()
    }

    /// Encrypts: the key comes from the node key and exactly the bytes that are encrypted, so equal nodes stay equal.
    pub(super) fn seal<V: Variant>(&self, node_key: &SecretKey32) -> Result<(Block, SecretKey32), TreeError> {
        let mut buffer = self.encode::<V>()?;
        let mut hasher = blake3::Hasher::new_keyed(node_key.as_bytes());
        hasher.update(&[SUITE]);
        hasher.update(&buffer);
        let key = SecretKey32::from_bytes(hasher.finalize().into());
        aead::seal_once(key.as_bytes(), &mut buffer);
        Ok((Block::raw(buffer)?, key))
    }

    /// Decrypts and decodes.
    pub(super) fn open<V: Variant>(block: &Block, key: &SecretKey32) -> Result<Self, TreeError> {
        let mut buffer = block.bytes().to_vec();
        aead::open_once(key.as_bytes(), &mut buffer)
            .map_err(|_| TreeError::WrongKey(Box::new(*block.cid())))?;
        Self::decode::<V>(buffer.into())
    }

    /// The place of the last entry whose key is not above `key`.
    pub(super) fn position_not_above(&self, key: &[u8]) -> Option<usize> {
        self.entries.partition_point(|entry| entry.key <= key).checked_sub(1)
    }
}

/// All keys of a node in one allocation.
#[derive(Default)]
struct KeyBuffer {
    bytes: Vec<u8>,
    ends: Vec<usize>,
}

impl KeyBuffer {
    fn push(&mut self, shared: usize, suffix: &[u8]) -> Result<(), TreeError> {
        let start = self.bytes.len();
        let before = self.ends.iter().nth_back(1).copied().unwrap_or(0);
        let previous_len = if self.ends.is_empty() { 0 } else { start - before };
        if shared > previous_len || shared + suffix.len() > KEY_BYTES_MAX {
            return Err(malformed("key length"));
        }
        // The longest possible prefix is shared and keys ascend: the next byte is there, and larger than the old one.
        let old_next = if shared < previous_len { self.bytes.get(before + shared).copied() } else { None };
        let ascends = match (old_next, suffix.first()) {
            _ if self.ends.is_empty() => true,
            (Some(old), Some(new)) => new > &old,
            (None, Some(_)) => true,
            (_, None) => false,
        };
        if !ascends {
            return Err(malformed("key order"));
        }
        self.bytes.extend_from_within(before..before + shared);
        self.bytes.extend_from_slice(suffix);
        self.ends.push(self.bytes.len());
        Ok(())
    }

    fn assign(self, entries: &mut [Entry]) {
        let bytes = Bytes::from(self.bytes);
        let mut start = 0;
        for (entry, end) in entries.iter_mut().zip(self.ends) {
            entry.key = bytes.slice(start..end);
            start = end;
        }
    }
}

fn shared_prefix(a: &[u8], b: &[u8]) -> usize {
    a.iter().zip(b).take_while(|(a, b)| a == b).count()
}

fn put_varint(out: &mut Vec<u8>, value: u64) {
    out.extend_from_slice(encode::u64(value, &mut encode::u64_buffer()));
}

fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

fn malformed(why: &str) -> TreeError {
    TreeError::Malformed(why.to_owned())
}

struct Reader<'a> {
    bytes: &'a Bytes,
    at: usize,
}

impl<'a> Reader<'a> {
    fn varint(&mut self) -> Result<u64, TreeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let (value, left) = varint::take(rest).ok_or_else(|| malformed("varint"))?;
        self.at = self.bytes.len() - left.len();
        Ok(value)
    }

    fn number(&mut self, max: usize) -> Result<usize, TreeError> {
        let value = self.varint()?;
        usize::try_from(value)
            .ok()
            .filter(|&value| value <= max)
            .ok_or_else(|| malformed("a number above its limit"))
    }

    fn take(&mut self, len: usize) -> Result<std::ops::Range<usize>, TreeError> {
        let end = self.at.checked_add(len).filter(|&end| end <= self.bytes.len());
        let range = self.at..end.ok_or_else(|| malformed("truncated"))?;
        self.at = range.end;
        Ok(range)
    }

    fn bytes(&mut self, max: usize) -> Result<&'a [u8], TreeError> {
        let len = self.number(max)?;
        let range = self.take(len)?;
        Ok(self.bytes.get(range).unwrap_or_default())
    }

    fn slice(&mut self, max: usize) -> Result<Bytes, TreeError> {
        let len = self.number(max)?;
        let range = self.take(len)?;
        Ok(self.bytes.slice(range))
    }

    fn links(&mut self) -> Result<Vec<Link>, TreeError> {
        let count = self.number(ENTRY_LINKS_MAX)?;
        let mut links = Vec::with_capacity(count);
        for _ in 0..count {
            let range = self.take(33)?;
            let (codec, digest) = match self.bytes.get(range) {
                Some([codec, digest @ ..]) => (u64::from(*codec), <&[u8; 32]>::try_from(digest)),
                _ => return Err(malformed("link")),
            };
            let digest = digest.map_err(|_| malformed("link"))?;
            if !matches!(codec, CODEC_RAW | CODEC_DAG_PB) {
                return Err(malformed("a link's codec"));
            }
            links.push(Link { cid: cid_from_digest(codec, digest), tsize: self.varint()? });
        }
        Ok(links)
    }
}
