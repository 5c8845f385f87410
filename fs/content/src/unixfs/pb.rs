//! Reading dag-pb and UnixFS messages from anyone's bytes.
//!
//! `ipld-dagpb` and `rust-unixfs` write for us, and we do not let them read: the protobuf reader below both panics on
//! lengths that lie. What is read here is encoded again by the caller and compared, so this reader only has to be total.

use super::UnixfsError;
use crate::block::Link;
use cid::Cid;

/// More links than any node of at most 2 MiB can have (a link takes at least 38 bytes).
const LINKS_MAX: usize = 60_000;

/// A dag-pb node.
#[derive(Debug, Default)]
pub(crate) struct PbNode<'a> {
    pub(crate) links: Vec<PbLink<'a>>,
    pub(crate) data: &'a [u8],
}

/// A link as it stands.
#[derive(Debug)]
pub(crate) struct PbLink<'a> {
    pub(crate) cid: Cid,
    pub(crate) name: &'a [u8],
    pub(crate) tsize: Option<u64>,
}

impl PbLink<'_> {
    /// The link, if it says how much is below it.
    pub(super) fn to_link(&self) -> Result<Link, UnixfsError> {
        crate::block::check_cid(&self.cid)?;
        Ok(Link { cid: self.cid, tsize: self.tsize.ok_or_else(|| malformed("a link without a size"))? })
    }
}

/// The UnixFS message, but for what says nothing about bytes and names: modes and times.
#[derive(Debug, Default)]
pub(crate) struct UnixfsData<'a> {
    pub(crate) kind: Option<u64>,
    pub(crate) data: Option<&'a [u8]>,
    pub(crate) filesize: Option<u64>,
    pub(crate) blocksizes: Vec<u64>,
    pub(crate) hash_type: Option<u64>,
    pub(crate) fanout: Option<u64>,
}

/// A protobuf value of one of the two wire types that these messages have.
enum Value<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

pub(crate) fn read_node(bytes: &[u8]) -> Result<PbNode<'_>, UnixfsError> {
    let mut node = PbNode::default();
    let mut rest = bytes;
    while let Some((field, value)) = next_field(&mut rest)? {
        match (field, value) {
            (1, Value::Bytes(data)) => node.data = data,
            (2, Value::Bytes(link)) if node.links.len() < LINKS_MAX => node.links.push(read_link(link)?),
            _ => return Err(malformed("an unknown field of a node")),
        }
    }
    Ok(node)
}

fn read_link(bytes: &[u8]) -> Result<PbLink<'_>, UnixfsError> {
    let (mut cid, mut name, mut tsize) = (None, &[][..], None);
    let mut rest = bytes;
    while let Some((field, value)) = next_field(&mut rest)? {
        match (field, value) {
            (1, Value::Bytes(hash)) => cid = Some(Cid::try_from(hash).map_err(|_| malformed("a CID"))?),
            (2, Value::Bytes(bytes)) => name = bytes,
            (3, Value::Number(size)) => tsize = Some(size),
            _ => return Err(malformed("an unknown field of a link")),
        }
    }
    Ok(PbLink { cid: cid.ok_or_else(|| malformed("a link to nothing"))?, name, tsize })
}

pub(crate) fn read_unixfs(bytes: &[u8]) -> Result<UnixfsData<'_>, UnixfsError> {
    let mut data = UnixfsData::default();
    let mut rest = bytes;
    while let Some((field, value)) = next_field(&mut rest)? {
        match (field, value) {
            (1, Value::Number(kind)) => data.kind = Some(kind),
            (2, Value::Bytes(bytes)) => data.data = Some(bytes),
            (3, Value::Number(size)) => data.filesize = Some(size),
            (4, Value::Number(size)) if data.blocksizes.len() < LINKS_MAX => data.blocksizes.push(size),
            (5, Value::Number(hash)) => data.hash_type = Some(hash),
            (6, Value::Number(fanout)) => data.fanout = Some(fanout),
            (7, Value::Number(_)) | (8, Value::Bytes(_)) => {}
            _ => return Err(malformed("an unknown field of UnixFS")),
        }
    }
    Ok(data)
}

fn next_field<'a>(rest: &mut &'a [u8]) -> Result<Option<(u64, Value<'a>)>, UnixfsError> {
    if rest.is_empty() {
        return Ok(None);
    }
    let tag = varint(rest)?;
    let value = match tag & 7 {
        0 => Value::Number(varint(rest)?),
        2 => {
            let len = usize::try_from(varint(rest)?).map_err(|_| malformed("a length"))?;
            let (value, after) = rest.split_at_checked(len).ok_or_else(|| malformed("truncated"))?;
            *rest = after;
            Value::Bytes(value)
        }
        _ => return Err(malformed("a wire type")),
    };
    Ok(Some((tag >> 3, value)))
}

fn varint(rest: &mut &[u8]) -> Result<u64, UnixfsError> {
    let (value, after) = crate::varint::take(rest).ok_or_else(|| malformed("a varint"))?;
    *rest = after;
    Ok(value)
}

pub(crate) fn malformed(why: &str) -> UnixfsError {
    UnixfsError::Malformed(why.to_owned())
}
