//! A drive read by its formats alone: from the words and one provider's address to a CAR of everything.
//!
//! Not a line of the daemon takes part, and no byte of a home folder: keyring, head and pieces come from providers, as
//! fs/FORMAT.md and net/PROTOCOL.md describe them. The CAR's root is the newest commit's directory.

use std::collections::{BTreeMap, HashSet};
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use cid::Cid;
use holdfast_content::car::PieceReader;
use holdfast_content::head::{HeadBody, HeadRecord};
use holdfast_content::keys::{DriveKeys, Keyring, Mnemonic};
use holdfast_net::client::{Client, ClientConfig, Session};
use holdfast_net::deal::DealId;
use holdfast_net::node::{Node, NodeConfig};
use holdfast_net::{Env, Multiaddr, PeerId, RecordKey, RecordKind, identity, mask};
use libp2p::multiaddr::Protocol;
use parking_lot::Mutex;

const STALL: Duration = Duration::from_secs(60);
/// The head's value as providers keep it: version, and record, standing (each after its length), signature, sealed body.
const HEAD_VERSION: u8 = 2;
/// By the writer; the standing and it are for who decides between heads.
const SIGNATURE_BYTES: usize = 64;

/// What was fetched.
#[derive(Clone, Debug)]
pub struct Fetched {
    pub root: Cid,
    pub pieces: usize,
    pub blocks: u64,
    pub bytes: u64,
}

/// Where a copy of a piece lies.
#[derive(Clone, Debug)]
struct Copy {
    session: usize,
    deal: DealId,
    slot: u16,
    raw_len: u64,
}

/// Fetches every piece of a drive from its providers and writes all blocks into one CAR.
pub fn fetch_car(words: &str, peer: &str, out: &Path) -> Result<Fetched> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(fetch(words, peer, out))
}

async fn fetch(words: &str, peer: &str, out: &Path) -> Result<Fetched> {
    let env = Env::system();
    let mut seed = [0; 32];
    env.rng.fill(&mut seed);
    let node = Node::start(NodeConfig::client(identity::keypair(seed)?)).await?;
    let client = Client::new(node.clone(), env, ClientConfig::default());
    let (peer, address) = parse(peer)?;
    let first = client.connect(peer, vec![address]).await?;

    let root_key = Mnemonic::parse(words)?.root_key();
    let keyring_key = RecordKey::new(RecordKind::Keyring, *root_key.drive_name().as_bytes());
    let keyring = first.get_record(&keyring_key).await?.context("the provider has no keyring")?;
    let keyring = Keyring::verify(&keyring, &root_key.drive_name())?;
    let current = keyring.current()?;
    let keys = root_key.generation(current.number).keys();
    let head_key = RecordKey::new(RecordKind::Head, current.head_key);
    let value = first.get_record(&head_key).await?.context("the provider has no head")?;
    let head = open_head(&value, &current.head_key, &keys)?;

    let mut sessions = Vec::new();
    for provider in &head.providers {
        let peer = PeerId::from_bytes(&provider.peer)?;
        let addresses =
            provider.addresses.iter().map(|text| text.parse()).collect::<Result<Vec<Multiaddr>, _>>()?;
        let session = client.connect(peer, addresses).await?;
        session.authenticate(keys.provider_auth(&peer.to_bytes())).await?;
        sessions.push(session);
    }
    let copies = all_copies(&sessions).await?;
    let fetched = write_car(&sessions, &copies, &keys, head.commit.root, out).await?;
    node.shutdown().await;
    Ok(fetched)
}

fn parse(address: &str) -> Result<(PeerId, Multiaddr)> {
    let mut address: Multiaddr = address.parse()?;
    match address.pop() {
        Some(Protocol::P2p(peer)) => Ok((peer, address)),
        _ => bail!("{address} does not end with an identity"),
    }
}

fn open_head(value: &[u8], head_key: &[u8; 32], keys: &DriveKeys) -> Result<HeadBody> {
    fn counted(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
        let (len, rest) = bytes.split_first_chunk::<2>()?;
        rest.split_at_checked(u16::from_be_bytes(*len).into())
    }
    let (version, rest) = value.split_first().context("an empty head")?;
    ensure!(*version == HEAD_VERSION, "a head of version {version}");
    let cut = "the head is cut short";
    let (record, rest) = counted(rest).context(cut)?;
    let (_standing, rest) = counted(rest).context(cut)?;
    let (_signature, sealed) = rest.split_at_checked(SIGNATURE_BYTES).context(cut)?;
    let record = HeadRecord::verify(record, head_key, 0)?;
    ensure!(record.names(sealed), "the record names another body");
    Ok(HeadBody::open(sealed, keys)?)
}

/// One copy of each piece that any provider says it stores.
async fn all_copies(sessions: &[Session]) -> Result<BTreeMap<[u8; 16], Copy>> {
    let mut copies = BTreeMap::new();
    for (number, session) in sessions.iter().enumerate() {
        let mut after = None;
        loop {
            let page = session.holdings(after).await?;
            for holding in &page.holdings {
                let proposal = holding.proposal.proposal();
                let manifest = holding.manifest.manifest();
                let slot = holding.manifest.slot_of(&proposal.piece_cid).context("a slot of no manifest")?;
                if holding.receipt.is_some() {
                    let deal = holding.proposal.deal_id();
                    copies
                        .insert(manifest.id, Copy { session: number, deal, slot, raw_len: proposal.raw_len });
                }
            }
            after = page.next;
            if after.is_none() {
                break;
            }
        }
    }
    Ok(copies)
}

async fn write_car(
    sessions: &[Session],
    copies: &BTreeMap<[u8; 16], Copy>,
    keys: &DriveKeys,
    root: Cid,
    out: &Path,
) -> Result<Fetched> {
    let mut car = BufWriter::new(File::create(out)?);
    let header = car_header(&root);
    write_section(&mut car, &header)?;
    let mut fetched = Fetched { root, pieces: 0, blocks: 0, bytes: 0 };
    let mut written: HashSet<Cid> = HashSet::new();
    for (piece, copy) in copies {
        let session = sessions.get(copy.session).context("no such session")?;
        let bytes = fetch_piece(session, copy, keys, *piece).await?;
        fetched.pieces += 1;
        fetched.bytes += bytes.len() as u64;
        let mut reader = PieceReader::new(bytes.as_slice(), *piece)?;
        while let Some((block, _)) = reader.next_block()? {
            if written.insert(*block.cid()) {
                write_section(&mut car, &[block.cid().to_bytes(), block.bytes().to_vec()].concat())?;
                fetched.blocks += 1;
            }
        }
    }
    car.flush()?;
    ensure!(written.contains(&root), "the root {root} is in no piece");
    Ok(fetched)
}

async fn fetch_piece(session: &Session, copy: &Copy, keys: &DriveKeys, piece: [u8; 16]) -> Result<Vec<u8>> {
    let bytes = Arc::new(Mutex::new(Vec::with_capacity(copy.raw_len as usize)));
    let sink = bytes.clone();
    session
        .fetch(copy.deal, 0, copy.raw_len, STALL, |_, part| {
            sink.lock().extend_from_slice(&part);
            std::future::ready(Ok(()))
        })
        .await?;
    let mut bytes = std::mem::take(&mut *bytes.lock());
    let seed = mask::slot_seed(keys.mask.as_bytes(), piece, copy.slot);
    mask::apply(&seed, 0, &mut bytes)?;
    Ok(bytes)
}

/// `{roots: [root], version: 1}` in DAG-CBOR.
fn car_header(root: &Cid) -> Vec<u8> {
    let cid = root.to_bytes();
    let mut out = vec![0xa2, 0x65];
    out.extend_from_slice(b"roots");
    // One element: tag 42, a byte string of up to 255 bytes that begins with a zero.
    out.extend_from_slice(&[0x81, 0xd8, 0x2a, 0x58, (cid.len() + 1) as u8, 0x00]);
    out.extend_from_slice(&cid);
    out.push(0x67);
    out.extend_from_slice(b"version");
    out.push(0x01);
    out
}

fn write_section(out: &mut impl Write, bytes: &[u8]) -> Result<()> {
    let mut length = bytes.len();
    while length >= 0x80 {
        out.write_all(&[length as u8 | 0x80])?;
        length >>= 7;
    }
    out.write_all(&[length as u8])?;
    out.write_all(bytes)?;
    Ok(())
}
