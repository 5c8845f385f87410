//! The placement ledger: which provider keeps which slot of which piece, and on what evidence.
//!
//! Owns the daemon's durable rows about pieces, providers and the placement log, and the one in-memory picture
//! of them that every worker, `status` and the durability ladder read.
//!
//! Promises: a change is on disk before it is visible; a holder *counts* only with a receipt, a ranged read and a
//! fresh challenge behind it, while its provider is not failing; two slots of one piece never lie with one provider.
//!
//! Refuses: to forget a holder without a row that says why, and to hold any secret (seeds are derived on use).
//!
//! ```text
//!   piece/<piece id, 16>   PieceRow      raw length, the slots, an intent for each slot that is being placed;
//!                                        or a stripe under its id: which pieces, and the slots;
//!                                        of a public piece also of which publication it is
//!   prov/<peer id>         ProviderRow   addresses, what was seen of it
//!   log/<number, u64 BE>   bytes         one signed placement entry (fs/format/content.md)
//!   chain                  ChainEnd      what the next entry follows
//!   rel/<deal id, 32>      Release       a copy that is to be given up, once a published head says so
//!   watch/<capability, 16> GrantRow      who may repair with the owner away
//!   share/<link, 16>       ShareRow      what private links show, or showed
//!   note/<name>            bytes         the head as it was published (head.rs)
//! ```

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use holdfast_content::placement::ChainEnd;
use holdfast_content::share::ShareId;
use holdfast_content::watch::CapabilityId;
use parking_lot::RwLock;
use serde::{Deserialize, Serialize};
use thiserror::Error;
use tokio::sync::watch;

use super::clock::age;

mod classes;
mod grants;
mod memory;
mod public;
mod release;
mod rows;
mod shares;
mod stripes;
mod survival;
#[cfg(test)]
mod tests;

pub use classes::copies;
pub(crate) use grants::decode_grant;
pub use grants::{GrantRow, Hearsay};
pub use memory::MemoryRows;
pub use public::NewPublic;
pub use release::Release;
pub use rows::{
    Holder, Intent, Lost, PieceRow, ProviderRow, ProviderState, PublicRow, SlotRow, StripePiece, StripeRow,
};
pub use shares::ShareRow;
pub(crate) use shares::decode_share;
pub use stripes::{Said, Sign};
pub use survival::Form;

/// A piece's random name.
pub type PieceId = [u8; 16];
/// A libp2p peer id in its binary form.
pub type Peer = Vec<u8>;
/// Unix time in seconds.
pub type Seconds = u64;

/// Durable key-value rows with atomic batches; the drive's own log stands behind it (`wiring.rs`).
pub trait RowStore: Send + Sync {
    /// Every row whose key starts with `prefix`, in key order.
    fn scan(&self, prefix: &[u8]) -> Result<Vec<(Vec<u8>, Vec<u8>)>, RowError>;
    /// Applies all of `rows` or none; durable when it returns.
    fn commit(&self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), RowError>;
}

/// The row store could not do what was asked; the text is its own.
#[derive(Debug, Error)]
#[error("the drive's log refused a row: {0}")]
pub struct RowError(pub String);

/// Why the ledger could not be read or changed.
#[derive(Debug, Error)]
pub enum LedgerError {
    /// The store below failed.
    #[error(transparent)]
    Rows(#[from] RowError),
    /// A row does not decode: it was damaged.
    #[error("ledger row {0} cannot be read: {1}")]
    BadRow(String, String),
    /// A newer version wrote the row.
    #[error(
        "ledger row {row} was written by a newer Holdfast (format {found}, this one knows up to {known})"
    )]
    Newer { row: String, found: u8, known: u8 },
    /// The named piece is not in the ledger.
    #[error("piece {0} is not in the ledger")]
    UnknownPiece(String),
    /// The placement entry could not be signed.
    #[error("signing a placement: {0}")]
    Entry(String),
    /// The change would put two slots of one piece on one provider.
    #[error("provider already keeps a slot of piece {0}")]
    SameProvider(String),
    /// The slot was given up meanwhile.
    #[error("piece {0} has no slot {1} any more")]
    UnknownSlot(String, u16),
    /// The stripe does not fit what is there.
    #[error("stripe {0} cannot be made: {1}")]
    Stripe(String, String),
}

#[derive(Default)]
struct State {
    pieces: BTreeMap<PieceId, PieceRow>,
    /// Which stripe a piece is in, and its slot there: what the stripes' rows say, the other way round.
    striped: HashMap<PieceId, (PieceId, u16)>,
    providers: BTreeMap<Peer, ProviderRow>,
    chain: ChainEnd,
    /// Entries with a lower sequence are named by the published head.
    log_published: u64,
    head_holders: BTreeSet<Peer>,
    /// Pieces that went since the start: who listed the drive's pieces before does not bring them back.
    given_up: BTreeSet<PieceId>,
    grants: BTreeMap<CapabilityId, GrantRow>,
    shares: BTreeMap<ShareId, ShareRow>,
    /// By piece or stripe.
    hearsay: HashMap<PieceId, Vec<(u16, Holder)>>,
}

impl State {
    fn put(&mut self, id: PieceId, row: PieceRow) {
        if let Some(stripe) = &row.stripe {
            self.striped.extend(stripe.pieces.iter().zip(0u16..).map(|(piece, slot)| (piece.id, (id, slot))));
        }
        self.pieces.insert(id, row);
    }

    fn forget(&mut self, id: &PieceId) {
        if self.pieces.remove(id).is_some_and(|row| row.stripe.is_some()) {
            self.striped.retain(|_, (stripe, _)| stripe != id);
        }
    }
}

/// The ledger; cheap to clone handles of it are made with `Arc`.
pub struct Ledger {
    rows: Arc<dyn RowStore>,
    state: RwLock<State>,
    /// Serializes changes, so that rows and memory move together.
    writer: parking_lot::Mutex<()>,
    version: watch::Sender<u64>,
}

/// The highest versions of the rows that say one.
const PIECE_VERSION_MAX: u8 = rows::CLASS_VERSION;
const PROVIDER_VERSION_MAX: u8 = 1;
const RELEASE_VERSION_MAX: u8 = 1;
const PIECE: &[u8] = b"piece/";
const PROVIDER: &[u8] = b"prov/";
const LOG: &[u8] = b"log/";
const CHAIN: &[u8] = b"chain";
const NOTE: &[u8] = b"note/";

fn key(prefix: &[u8], rest: &[u8]) -> Vec<u8> {
    [prefix, rest].concat()
}

fn encode<T: Serialize>(value: &T) -> Vec<u8> {
    // Encoding plain structs into memory has no failing case; an empty row would be refused on reading.
    serde_ipld_dagcbor::to_vec(value).unwrap_or_default()
}

fn decode<T: for<'a> Deserialize<'a>>(key: &[u8], bytes: &[u8]) -> Result<T, LedgerError> {
    serde_ipld_dagcbor::from_slice(bytes)
        .map_err(|e| LedgerError::BadRow(data_encoding::HEXLOWER.encode(key), e.to_string()))
}

/// Rows that say their version. What a newer program added to a row would be lost at its next change.
fn decode_versioned<T: for<'a> Deserialize<'a>>(
    key: &[u8],
    bytes: &[u8],
    known: u8,
) -> Result<T, LedgerError> {
    #[derive(Deserialize)]
    struct VersionOnly {
        v: u8,
    }
    let VersionOnly { v: found } = decode(key, bytes)?;
    match found {
        0 => Err(LedgerError::BadRow(data_encoding::HEXLOWER.encode(key), "version 0".into())),
        found if found > known => {
            let row = data_encoding::HEXLOWER.encode(key);
            Err(LedgerError::Newer { row, found, known })
        }
        _ => decode(key, bytes),
    }
}

/// A piece's or a stripe's row.
pub(crate) fn decode_piece(key: &[u8], bytes: &[u8]) -> Result<PieceRow, LedgerError> {
    let row: PieceRow = decode_versioned(key, bytes, PIECE_VERSION_MAX)?;
    if !row.is_sound() {
        let key = data_encoding::HEXLOWER.encode(key);
        return Err(LedgerError::BadRow(key, "its parts do not fit each other".into()));
    }
    Ok(row)
}

/// A deal's that is to be ended.
pub(crate) fn decode_release(key: &[u8], bytes: &[u8]) -> Result<Release, LedgerError> {
    decode_versioned(key, bytes, RELEASE_VERSION_MAX)
}

/// A provider's row.
pub(crate) fn decode_provider(key: &[u8], bytes: &[u8]) -> Result<ProviderRow, LedgerError> {
    decode_versioned(key, bytes, PROVIDER_VERSION_MAX)
}

fn hex(id: &PieceId) -> String {
    data_encoding::HEXLOWER.encode(id)
}

impl Ledger {
    /// Reads every row once; memory is about 400 bytes for each slot.
    pub fn open(rows: Arc<dyn RowStore>) -> Result<Self, LedgerError> {
        let mut state = State::default();
        for (k, v) in rows.scan(PIECE)? {
            let id = k.get(PIECE.len()..).and_then(|s| PieceId::try_from(s).ok());
            let id = id.ok_or_else(|| LedgerError::BadRow("piece key".into(), "length".into()))?;
            state.put(id, decode_piece(&k, &v)?);
        }
        for (k, v) in rows.scan(PROVIDER)? {
            let peer = k.get(PROVIDER.len()..).unwrap_or_default().to_vec();
            state.providers.insert(peer, decode_provider(&k, &v)?);
        }
        for (k, v) in rows.scan(grants::WATCH)? {
            let id = k.get(grants::WATCH.len()..).and_then(|s| CapabilityId::try_from(s).ok());
            let id = id.ok_or_else(|| LedgerError::BadRow("capability key".into(), "length".into()))?;
            state.grants.insert(id, decode_grant(&k, &v)?);
        }
        for (k, v) in rows.scan(shares::SHARE)? {
            let id = k.get(shares::SHARE.len()..).and_then(|s| ShareId::try_from(s).ok());
            let id = id.ok_or_else(|| LedgerError::BadRow("link key".into(), "length".into()))?;
            state.shares.insert(id, decode_share(&k, &v)?);
        }
        if let Some((k, v)) = rows.scan(CHAIN)?.first() {
            state.chain = decode(k, v)?;
        }
        Ok(Self {
            rows,
            state: RwLock::new(state),
            writer: parking_lot::Mutex::new(()),
            version: watch::Sender::new(0),
        })
    }

    /// Fires after every change.
    pub fn watch(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    fn bump(&self) {
        self.version.send_modify(|v| *v = v.wrapping_add(1));
    }

    // ---- pieces -------------------------------------------------------------------------------------------

    /// Takes note of a finished piece that wants `slots` copies; known pieces are left as they are.
    pub fn add_piece(&self, id: PieceId, raw_len: u64, slots: u16) -> Result<(), LedgerError> {
        let _w = self.writer.lock();
        if self.knows(&id) {
            return Ok(());
        }
        self.put_piece(id, PieceRow::new(raw_len, slots), Vec::new(), None)
    }

    /// One piece as it stands.
    pub fn piece(&self, id: &PieceId) -> Option<PieceRow> {
        self.state.read().pieces.get(id).cloned()
    }

    /// Every piece as it stands, in the order of the ids.
    pub fn pieces(&self) -> Vec<(PieceId, PieceRow)> {
        self.state.read().pieces.iter().map(|(k, v)| (*k, v.clone())).collect()
    }

    /// Writes the slot CIDs, known once the masked slots were hashed.
    pub fn set_slot_cids(&self, id: PieceId, cids: Vec<Vec<u8>>) -> Result<(), LedgerError> {
        self.change_piece(id, |row| {
            for (slot, cid) in row.slots.iter_mut().zip(cids) {
                slot.cid = Some(serde_bytes::ByteBuf::from(cid));
            }
            Ok(Vec::new())
        })
    }

    /// The intent row: written before a provider is asked, so that a crash finds the deal again. A deal that was proposed and is
    /// not gone on with is to be ended: its provider may keep the slot.
    pub fn set_intent(&self, id: PieceId, slot: u16, intent: Option<Intent>) -> Result<(), LedgerError> {
        self.change_piece(id, |row| {
            if let Some(i) = &intent
                && row.holders().any(|(n, h)| n != slot && h.provider == i.provider && h.failed.is_none())
            {
                return Err(LedgerError::SameProvider(hex(&id)));
            }
            let s = row.slot_mut(slot).ok_or_else(|| LedgerError::UnknownSlot(hex(&id), slot))?;
            let before = std::mem::replace(&mut s.intent, intent);
            let same = |before: &Intent| s.intent.as_ref().is_some_and(|now| now.proposal == before.proposal);
            let given_up =
                before.filter(|before| !same(before)).and_then(|before| Release::of_intent(&before));
            let holds = |r: &Release| s.holder.as_ref().is_some_and(|holder| holder.deal == r.deal);
            Ok(given_up.filter(|release| !holds(release)).map(|release| release.row()).into_iter().collect())
        })
    }

    /// The repair row: the slot wants another holder (or no longer does).
    pub fn set_lost(&self, id: PieceId, slot: u16, lost: Option<Lost>) -> Result<(), LedgerError> {
        self.change_piece(id, |row| {
            if let Some(s) = row.slot_mut(slot) {
                s.lost = lost;
            }
            Ok(Vec::new())
        })
    }

    /// The placement row: the slot lies with `holder`, and `entry` (signed) says so in the placement log.
    /// `entry` gets the end of the chain that it follows, and gives its bytes and the new end.
    pub fn set_holder(
        &self,
        id: PieceId,
        slot: u16,
        mut holder: Holder,
        entry: impl FnOnce(&ChainEnd) -> Result<(Vec<u8>, ChainEnd), String>,
    ) -> Result<(), LedgerError> {
        self.change_piece_logged(id, |row, chain| {
            if row.holders().any(|(n, h)| n != slot && h.provider == holder.provider && h.failed.is_none()) {
                return Err(LedgerError::SameProvider(hex(&id)));
            }
            let s = row.slot_mut(slot).ok_or_else(|| LedgerError::UnknownSlot(hex(&id), slot))?;
            let (bytes, end) = entry(chain).map_err(LedgerError::Entry)?;
            holder.entry = chain.length;
            let deal = holder.deal.clone();
            let asked = s.intent.take().and_then(|intent| Release::of_intent(&intent));
            s.lost = None;
            let before = s.holder.replace(holder).filter(|before| before.deal != deal);
            // Whom it replaces has nothing to keep any more once a head names the new one.
            let ended = before.map(|before| Release::of(&before, chain.length).row());
            let mut rows = vec![
                (key(LOG, &chain.length.to_be_bytes()), Some(bytes)),
                (CHAIN.to_vec(), Some(encode(&end))),
            ];
            rows.extend(ended);
            rows.extend(asked.filter(|asked| asked.deal != deal).map(|asked| asked.row()));
            Ok((rows, Some(end)))
        })
    }

    /// Verdicts of audits, many pieces in one batch. `ok` renews the holder's proof time; otherwise the reason fails it.
    pub fn record_verdicts(&self, verdicts: &[Verdict]) -> Result<(), LedgerError> {
        let _w = self.writer.lock();
        let mut touched: BTreeMap<PieceId, PieceRow> = BTreeMap::new();
        for v in verdicts {
            let current = touched.get(&v.piece).cloned().or_else(|| self.piece(&v.piece));
            let Some(mut row) = current else { continue };
            if let Some(holder) = row.slot_mut(v.slot).and_then(|s| s.holder.as_mut())
                && holder.deal == v.deal
            {
                match &v.fault {
                    // A proof from the future was noted under a clock that was ahead: it shows nothing any more.
                    None if age(v.at, holder.proven_at) == u64::MAX => holder.proven_at = v.at,
                    None => holder.proven_at = holder.proven_at.max(v.at),
                    Some(reason) => holder.failed = Some(reason.clone()),
                }
                touched.insert(v.piece, row);
            }
        }
        let rows = touched.iter().map(|(id, row)| (key(PIECE, id), Some(encode(row)))).collect();
        self.rows.commit(rows)?;
        self.state.write().pieces.extend(touched);
        self.bump();
        Ok(())
    }

    fn change_piece(
        &self,
        id: PieceId,
        change: impl FnOnce(&mut PieceRow) -> Result<Vec<LogRow>, LedgerError>,
    ) -> Result<(), LedgerError> {
        self.change_piece_logged(id, |row, _| Ok((change(row)?, None)))
    }

    fn change_piece_logged(
        &self,
        id: PieceId,
        change: impl FnOnce(&mut PieceRow, &ChainEnd) -> Result<(Vec<LogRow>, Option<ChainEnd>), LedgerError>,
    ) -> Result<(), LedgerError> {
        let _w = self.writer.lock();
        let (mut row, chain) = {
            let state = self.state.read();
            let row = state.pieces.get(&id).cloned().ok_or_else(|| LedgerError::UnknownPiece(hex(&id)))?;
            (row, state.chain)
        };
        let (extra, end) = change(&mut row, &chain)?;
        self.put_piece(id, row, extra, end)
    }

    fn put_piece(
        &self,
        id: PieceId,
        row: PieceRow,
        extra: Vec<LogRow>,
        end: Option<ChainEnd>,
    ) -> Result<(), LedgerError> {
        let mut rows = extra;
        rows.push((key(PIECE, &id), Some(encode(&row))));
        self.rows.commit(rows)?;
        let mut state = self.state.write();
        state.put(id, row);
        if let Some(end) = end {
            state.chain = end;
        }
        drop(state);
        self.bump();
        Ok(())
    }

    // ---- providers ----------------------------------------------------------------------------------------

    /// Adds a provider or renews its addresses; a removed one comes back as new.
    pub fn add_provider(&self, peer: Peer, addrs: Vec<String>, now: Seconds) -> Result<(), LedgerError> {
        self.change_provider(peer, |row| {
            let row = row.get_or_insert_with(|| ProviderRow::new(now));
            row.addrs = addrs;
            if matches!(row.state, ProviderState::Removed) {
                row.state = ProviderState::Active;
            }
        })
    }

    /// Applies `change` to a provider that is known; an unknown one is passed over.
    pub fn update_provider(
        &self,
        peer: &Peer,
        change: impl FnOnce(&mut ProviderRow),
    ) -> Result<(), LedgerError> {
        self.change_provider(peer.clone(), |row| {
            if let Some(row) = row {
                change(row);
            }
        })
    }

    fn change_provider(
        &self,
        peer: Peer,
        change: impl FnOnce(&mut Option<ProviderRow>),
    ) -> Result<(), LedgerError> {
        let _w = self.writer.lock();
        let before = self.state.read().providers.get(&peer).cloned();
        let mut row = before.clone();
        change(&mut row);
        let Some(after) = row else { return Ok(()) };
        if before.as_ref() == Some(&after) {
            return Ok(());
        }
        self.rows.commit(vec![(key(PROVIDER, &peer), Some(encode(&after)))])?;
        self.state.write().providers.insert(peer, after);
        self.bump();
        Ok(())
    }

    /// Every provider that the drive knows.
    pub fn providers(&self) -> Vec<(Peer, ProviderRow)> {
        self.state.read().providers.iter().map(|(k, v)| (k.clone(), v.clone())).collect()
    }

    /// One provider.
    pub fn provider(&self, peer: &Peer) -> Option<ProviderRow> {
        self.state.read().providers.get(peer).cloned()
    }

    // ---- the log and the head -----------------------------------------------------------------------------

    /// Entries from `from` on, oldest first.
    pub fn log_from(&self, from: u64) -> Result<Vec<(u64, Vec<u8>)>, LedgerError> {
        let mut out = Vec::new();
        for (k, v) in self.rows.scan(LOG)? {
            let n = k.get(LOG.len()..).and_then(|s| <[u8; 8]>::try_from(s).ok()).map(u64::from_be_bytes);
            if let Some(n) = n.filter(|n| *n >= from) {
                out.push((n, v));
            }
        }
        Ok(out)
    }

    /// What the next entry of the log follows; its length is the next entry's number.
    pub fn chain(&self) -> ChainEnd {
        self.state.read().chain
    }

    /// Restore: takes over the holders and the log that a head named, all in one batch.
    pub fn import(&self, found: Imported) -> Result<(), LedgerError> {
        let _w = self.writer.lock();
        let log = found.log.iter().map(|(n, v)| (key(LOG, &n.to_be_bytes()), Some(v.clone())));
        let pieces = found.pieces.iter().map(|(id, row)| (key(PIECE, id), Some(encode(row))));
        let providers = found.providers.iter().map(|(p, row)| (key(PROVIDER, p), Some(encode(row))));
        let grants = found.grants.iter().map(|(id, row)| (key(grants::WATCH, id), Some(encode(row))));
        let shares = found.shares.iter().map(|(id, row)| (key(shares::SHARE, id), Some(encode(row))));
        let mut rows: Vec<LogRow> = log.chain(pieces).chain(providers).chain(grants).chain(shares).collect();
        rows.push((CHAIN.to_vec(), Some(encode(&found.chain))));
        self.rows.commit(rows)?;
        let mut state = self.state.write();
        for (id, row) in found.pieces {
            state.put(id, row);
        }
        state.providers.extend(found.providers);
        state.grants.extend(found.grants);
        state.shares.extend(found.shares);
        state.chain = found.chain;
        drop(state);
        self.bump();
        Ok(())
    }

    /// A row of the workers' own beside the ledger's (the head as it was published).
    pub fn note(&self, name: &str) -> Result<Option<Vec<u8>>, LedgerError> {
        let name = key(NOTE, name.as_bytes());
        Ok(self.rows.scan(&name)?.into_iter().find(|(k, _)| *k == name).map(|(_, v)| v))
    }

    /// Writes such a row; durable when it returns.
    pub fn set_note(&self, name: &str, value: Vec<u8>) -> Result<(), LedgerError> {
        Ok(self.rows.commit(vec![(key(NOTE, name.as_bytes()), Some(value))])?)
    }

    /// After a head was left with `holders`: entries below `next` are restorable from the words.
    pub fn set_published(&self, next: u64, holders: BTreeSet<Peer>) {
        {
            let mut state = self.state.write();
            if state.log_published == next && state.head_holders == holders {
                return;
            }
            state.log_published = next;
            state.head_holders = holders;
        }
        self.bump();
    }

    /// How many losses the head itself survives, with its holders that are well.
    pub fn head_copies(&self) -> usize {
        let state = self.state.read();
        state
            .head_holders
            .iter()
            .filter(|p| state.providers.get(*p).is_some_and(ProviderRow::answers))
            .count()
    }
}

/// What a head says of the placements, to be taken over by an empty ledger.
#[derive(Clone, Default)]
pub struct Imported {
    /// The pieces and who keeps them.
    pub pieces: BTreeMap<PieceId, PieceRow>,
    /// The log's entries by number.
    pub log: BTreeMap<u64, Vec<u8>>,
    /// The providers.
    pub providers: BTreeMap<Peer, ProviderRow>,
    /// The capabilities.
    pub grants: BTreeMap<CapabilityId, GrantRow>,
    /// The private links.
    pub shares: BTreeMap<ShareId, ShareRow>,
    /// What the next entry follows.
    pub chain: ChainEnd,
    /// The losses that the drive's own policy asked for, where a class says so.
    pub drive_losses: Option<u8>,
}

type LogRow = (Vec<u8>, Option<Vec<u8>>);

/// What an audit of one slot said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The piece whose slot was asked.
    pub piece: PieceId,
    /// The slot.
    pub slot: u16,
    /// The deal that was asked; a verdict about an older deal changes nothing.
    pub deal: Vec<u8>,
    /// When.
    pub at: Seconds,
    /// `None`: the proof verified. Otherwise what was wrong, as a person reads it.
    pub fault: Option<String>,
}
