//! `holdfast verify --remote`: every copy of every piece, and every slot of every stripe, read whole from who keeps it.
//!
//! A challenge shows with some chance that bytes are kept; this shows it for each byte, and costs their transfer. Owns the reading:
//! a few providers side by side, each one slot after the other, some MiB of it in memory, at a bounded rate. What is found goes
//! into the ledger as an audit's verdict does, while the reading goes on, so that repair begins at once and whoever interrupts
//! it loses nothing that it found. Of one slot in [`BLOCKS_OF_ONE_IN`] the blocks are hashed as well: that is the piece as this
//! drive made it, and no provider's doing. Refuses to call a provider bad that is silent, busy, or was replaced meanwhile.

use std::collections::BTreeMap;
use std::io::{self, Read};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures::StreamExt;
use holdfast_content::car::PieceReader;
use holdfast_net::{DealId, NetError};
use holdfast_proofs::PieceCid;
use holdfast_proofs::commp::CommpHasher;
use tokio::sync::mpsc;

use super::{AuditWorker, Blame, Due, Heard, PATIENCE, blame, short_id, verdict};
use crate::control::{ProgressLine, ProgressSink, RemoteReport};
use crate::drive::Engine;
use crate::drive::ledger::{Peer, PieceId, Verdict};
use crate::drive::peers::peer_short;
use crate::drive::slots::Cover;

/// Providers that are read from side by side; each has a window of 8 MiB.
const PROVIDERS_AT_ONCE: usize = 3;
/// Of all of them together: a drive that is in use goes on being usable.
const BYTES_PER_SECOND_MAX: u64 = 64 << 20;
/// Parts of a slot that wait to be hashed.
const PARTS_WAITING: usize = 2;
/// A provider that sends nothing for so long is silent.
const STALL: Duration = Duration::from_secs(30);
/// One that is busy is asked again so often, after so long.
const BUSY_TRIES: u32 = 5;
const BUSY_PAUSE: Duration = Duration::from_secs(2);
/// The blocks of one in so many slots are hashed.
const BLOCKS_OF_ONE_IN: usize = 16;
/// What was right is noted in batches; what was wrong at once.
const BATCH: usize = 32;
/// How often whoever waits hears of it.
const TOLD: Duration = Duration::from_millis(500);

/// One slot to be read.
struct Whole {
    due: Due,
    len: u64,
    cover: Cover,
    /// The piece whose blocks lie in it; none in a parity slot.
    piece: Option<PieceId>,
}

/// Shared by all that read.
struct Reading {
    next: parking_lot::Mutex<Instant>,
    done: AtomicU64,
    total: u64,
    told: parking_lot::Mutex<Instant>,
    progress: ProgressSink,
}

impl Reading {
    fn new(total: u64, progress: &ProgressSink) -> Self {
        let now = Instant::now();
        let reading = Self {
            next: parking_lot::Mutex::new(now),
            done: AtomicU64::new(0),
            total,
            told: parking_lot::Mutex::new(now),
            progress: progress.clone(),
        };
        reading.tell(0);
        reading
    }

    fn tell(&self, done: u64) {
        self.progress.send(ProgressLine {
            phase: "reading".into(),
            // What is asked for again, of somebody who was busy, is no more than it is.
            done: done.min(self.total),
            total: self.total,
            unit: "bytes".into(),
            note: None,
        });
    }

    /// Returns when these bytes may go on, and counts them.
    async fn step(&self, bytes: u64) {
        let at = self.take(Instant::now(), bytes);
        tokio::time::sleep_until(at.into()).await;
        let done = self.done.fetch_add(bytes, Ordering::Relaxed).saturating_add(bytes);
        let due = {
            let mut told = self.told.lock();
            let due = told.elapsed() >= TOLD;
            if due {
                *told = Instant::now();
            }
            due
        };
        if due {
            self.tell(done);
        }
    }

    /// The next free time from `now` on; a pause saves nothing up.
    fn take(&self, now: Instant, bytes: u64) -> Instant {
        let mut next = self.next.lock();
        let at = (*next).max(now);
        let micros = bytes.saturating_mul(1_000_000) / BYTES_PER_SECOND_MAX;
        *next = at + Duration::from_micros(micros);
        at
    }
}

/// What one provider's slots showed.
#[derive(Default)]
struct Outcome {
    read: u64,
    bytes: u64,
    damaged: u64,
    blocks: u64,
    /// Slots that somebody else keeps since, or nobody has to.
    moved: u64,
    problems: Vec<String>,
}

/// What one slot's bytes are.
#[derive(Debug, PartialEq, Eq)]
struct Found {
    cid: Vec<u8>,
    blocks: u64,
    /// Why they are not the blocks of a piece.
    wrong: Option<String>,
}

impl Engine {
    /// Reads everything that providers keep; gives what that was, and what is wrong.
    pub async fn read_everything(
        self: &Arc<Self>,
        progress: &ProgressSink,
    ) -> anyhow::Result<(RemoteReport, Vec<String>)> {
        let by_peer = self.wholes()?;
        let (mut report, mut problems) = (RemoteReport::default(), Vec::new());
        for whole in by_peer.values().flatten() {
            report.copies += 1;
            report.bytes = report.bytes.saturating_add(whole.len);
        }
        let reading = Reading::new(report.bytes, progress);
        let outcomes: Vec<anyhow::Result<Outcome>> = futures::stream::iter(by_peer)
            .map(|(peer, list)| read_all(self, &reading, peer, list))
            .buffer_unordered(PROVIDERS_AT_ONCE)
            .collect()
            .await;
        for outcome in outcomes {
            let outcome = outcome?;
            report.copies = report.copies.saturating_sub(outcome.moved);
            report.read_copies += outcome.read;
            report.read_bytes = report.read_bytes.saturating_add(outcome.bytes);
            report.damaged += outcome.damaged;
            report.blocks += outcome.blocks;
            problems.extend(outcome.problems);
        }
        Ok((report, problems))
    }

    /// All slots that are not known to be lost, by provider.
    fn wholes(&self) -> anyhow::Result<BTreeMap<Peer, Vec<Whole>>> {
        let mut by_peer: BTreeMap<Peer, Vec<Whole>> = BTreeMap::new();
        for (id, row) in self.ledger.pieces() {
            for (slot, n) in row.slots.iter().zip(0u16..) {
                let (Some(holder), Some(cid)) = (&slot.holder, &slot.cid) else { continue };
                if holder.failed.is_some() {
                    continue;
                }
                let piece = match &row.stripe {
                    None => Some(id),
                    Some(stripe) => stripe.pieces.get(usize::from(n)).map(|piece| piece.id),
                };
                let cid = PieceCid::from_bytes(cid)?;
                let due = Due { piece: id, slot: n, cid, holder: holder.clone(), read: false };
                let cover = Cover::of(self.keys.mask.as_bytes(), id, n, &row);
                let whole = Whole { due, len: row.slot_len(n), cover, piece };
                by_peer.entry(holder.provider.clone()).or_default().push(whole);
            }
        }
        Ok(by_peer)
    }
}

/// Whether the slot is still this provider's by this deal.
fn is_still(engine: &Engine, due: &Due) -> bool {
    let row = engine.ledger.piece(&due.piece);
    let slot = row.as_ref().and_then(|row| row.slots.get(usize::from(due.slot)));
    slot.and_then(|slot| slot.holder.as_ref())
        .is_some_and(|h| h.deal == due.holder.deal && h.failed.is_none())
}

/// One provider's slots, one after the other; silence ends them, and so does being busy for long.
async fn read_all(
    engine: &Arc<Engine>,
    reading: &Reading,
    peer: Peer,
    list: Vec<Whole>,
) -> anyhow::Result<Outcome> {
    let short = peer_short(&peer);
    let mut outcome = Outcome::default();
    let mut verdicts: Vec<Verdict> = Vec::new();
    let commit = |verdicts: Vec<Verdict>, silent: Option<String>| {
        let heard = Heard { peer: peer.clone(), verdicts, silent, busy: false };
        AuditWorker::new(engine.clone()).commit(vec![heard])
    };
    let all = list.len();
    let mut random = [0; 8];
    engine.env.rng.fill(&mut random);
    let places = BLOCKS_OF_ONE_IN.min(all.max(1));
    let first = usize::try_from(u64::from_le_bytes(random) % places as u64).unwrap_or(0);
    for (n, whole) in list.iter().enumerate() {
        if !is_still(engine, &whole.due) {
            outcome.moved += 1;
            continue;
        }
        let what = format!("provider {short}, piece {}", short_id(&whole.due.piece));
        let blocks = whole.piece.filter(|_| n % BLOCKS_OF_ONE_IN == first);
        let error = match read_patiently(engine, reading, whole, blocks).await {
            Ok(found) => {
                outcome.read += 1;
                outcome.bytes = outcome.bytes.saturating_add(whole.len);
                outcome.blocks += found.blocks;
                if found.cid == whole.due.cid.to_bytes() {
                    engine.retriever.readings.right(&whole.due.holder.deal, Instant::now());
                    verdicts.push(verdict(engine, &whole.due, None));
                    if let Some(why) = found.wrong {
                        outcome.problems.push(format!("{what}: it is as it was made, but damaged: {why}"));
                    }
                    if verdicts.len() >= BATCH {
                        commit(std::mem::take(&mut verdicts), None)?;
                    }
                    continue;
                }
                NetError::Protocol("its bytes are not those that it was given".to_owned())
            }
            Err(error) => error,
        };
        if !is_still(engine, &whole.due) {
            outcome.moved += 1;
            continue;
        }
        let silent = match blame(&error, 0, engine.audit_interval()) {
            Blame::Fault(_) => {
                let fault = match &error {
                    NetError::Protocol(what) => format!("read whole: {what}"),
                    other => format!("it does not give the whole of it: {other}"),
                };
                outcome.damaged += 1;
                outcome.problems.push(format!("{what}: {fault}"));
                verdicts.push(verdict(engine, &whole.due, Some(fault)));
                commit(std::mem::take(&mut verdicts), None)?;
                continue;
            }
            Blame::Nobody => {
                outcome.problems.push(format!("{what}: it could not be read: {error}"));
                continue;
            }
            Blame::Busy => None,
            Blame::Silence => Some(error.to_string()),
        };
        let does = if silent.is_some() { "does not answer" } else { "is too busy" };
        let left = all.saturating_sub(n);
        outcome
            .problems
            .push(format!("provider {short} {does}, so {left} of its copies were not read: {error}"));
        if silent.is_some() {
            engine.peers.failed(&peer);
        }
        commit(std::mem::take(&mut verdicts), silent)?;
        break;
    }
    if !verdicts.is_empty() {
        commit(verdicts, None)?;
    }
    Ok(outcome)
}

async fn read_patiently(
    engine: &Engine,
    reading: &Reading,
    whole: &Whole,
    blocks: Option<PieceId>,
) -> Result<Found, NetError> {
    for _ in 0..BUSY_TRIES {
        match read(engine, reading, whole, blocks).await {
            Err(NetError::Refused { code, .. }) if code.is_retryable() => {
                tokio::time::sleep(BUSY_PAUSE).await
            }
            other => return other,
        }
    }
    read(engine, reading, whole, blocks).await
}

async fn read(
    engine: &Engine,
    reading: &Reading,
    whole: &Whole,
    blocks: Option<PieceId>,
) -> Result<Found, NetError> {
    let holder = &whole.due.holder;
    let deal = <[u8; 32]>::try_from(holder.deal.as_slice());
    let deal = DealId(deal.map_err(|_| NetError::Invalid("deal id".into()))?);
    let session = engine.peers.session(&engine.ledger, &holder.provider);
    let session =
        tokio::time::timeout(PATIENCE, session).await.map_err(|_| NetError::Timeout(PATIENCE))??;
    let (parts, waiting) = mpsc::channel::<Bytes>(PARTS_WAITING);
    let incoming = Incoming::new(waiting, whole.cover.clone());
    let hashing = tokio::task::spawn_blocking(move || incoming.judge(blocks));
    let fetched = session
        .fetch(deal, 0, whole.len, STALL, |_, bytes| {
            let parts = parts.clone();
            async move {
                reading.step(bytes.len() as u64).await;
                parts.send(bytes).await.map_err(|_| NetError::Local("the hashing ended".into()))
            }
        })
        .await;
    drop(parts);
    let found = hashing.await.map_err(|error| NetError::Local(error.to_string()))?;
    fetched?;
    Ok(found)
}

/// A slot's bytes as they come: hashed as they are, and given on without what lies over them.
struct Incoming {
    parts: mpsc::Receiver<Bytes>,
    cover: Cover,
    hasher: CommpHasher,
    offset: u64,
    plain: Vec<u8>,
    at: usize,
}

impl Incoming {
    fn new(parts: mpsc::Receiver<Bytes>, cover: Cover) -> Self {
        Self { parts, cover, hasher: CommpHasher::new(), offset: 0, plain: Vec::new(), at: 0 }
    }

    /// Takes the next part; false at the end.
    fn take_part(&mut self, uncover: bool) -> io::Result<bool> {
        let Some(bytes) = self.parts.blocking_recv() else { return Ok(false) };
        self.hasher.update(&bytes);
        let offset = self.offset;
        self.offset = offset.saturating_add(bytes.len() as u64);
        if uncover {
            self.plain.clear();
            self.plain.extend_from_slice(&bytes);
            self.at = 0;
            self.cover.apply(offset, &mut self.plain).map_err(io::Error::other)?;
        }
        Ok(true)
    }

    /// Reads it all. Blocks.
    fn judge(mut self, blocks: Option<PieceId>) -> Found {
        let (blocks, wrong) = match blocks {
            Some(piece) => self.hash_blocks(piece),
            None => (0, None),
        };
        // The rest of what is no piece, and of what nobody asked the blocks of.
        while self.take_part(false).unwrap_or(false) {}
        Found { cid: self.hasher.finish().to_bytes(), blocks, wrong }
    }

    fn hash_blocks(&mut self, piece: PieceId) -> (u64, Option<String>) {
        let mut reader = match PieceReader::new(self, piece) {
            Ok(reader) => reader,
            Err(error) => return (0, Some(error.to_string())),
        };
        let mut hashed = 0;
        loop {
            match reader.next_block() {
                Ok(Some(_)) => hashed += 1,
                Ok(None) => return (hashed, None),
                Err(error) => return (hashed, Some(error.to_string())),
            }
        }
    }
}

impl Read for Incoming {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        loop {
            let rest = self.plain.get(self.at..).unwrap_or_default();
            if !rest.is_empty() || buf.is_empty() {
                let len = rest.len().min(buf.len());
                for (to, from) in buf.iter_mut().zip(rest) {
                    *to = *from;
                }
                self.at += len;
                return Ok(len);
            }
            if !self.take_part(true)? {
                return Ok(0);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::drive::ledger::PieceRow;
    use holdfast_content::block::Block;
    use holdfast_content::car::PieceWriter;

    const PIECE: PieceId = [9; 16];

    /// A piece of three blocks, as slot 1 covers it.
    fn slot(cover: &Cover, harm: impl FnOnce(&mut Vec<u8>)) -> Vec<u8> {
        let mut writer = PieceWriter::new(Vec::new(), PIECE).unwrap();
        for n in 0..3u8 {
            writer.write(&Block::raw(vec![n; 100_000]).unwrap()).unwrap();
        }
        let mut bytes = writer.finish().unwrap();
        harm(&mut bytes);
        cover.apply(0, &mut bytes).unwrap();
        bytes
    }

    fn cid_of(bytes: &[u8]) -> Vec<u8> {
        let mut hasher = CommpHasher::new();
        hasher.update(bytes);
        hasher.finish().to_bytes()
    }

    async fn judged(bytes: &[u8], cover: &Cover, blocks: Option<PieceId>) -> Found {
        let (parts, waiting) = mpsc::channel(PARTS_WAITING);
        let incoming = Incoming::new(waiting, cover.clone());
        let hashing = tokio::task::spawn_blocking(move || incoming.judge(blocks));
        for part in bytes.chunks(33_333) {
            parts.send(Bytes::copy_from_slice(part)).await.unwrap();
        }
        drop(parts);
        hashing.await.unwrap()
    }

    #[tokio::test]
    async fn bytes_are_hashed_as_they_are_kept_and_blocks_as_they_were_made() {
        for row in [PieceRow::new(0, 3), PieceRow::public(0, 3, Vec::new())] {
            let cover = Cover::of(&[5; 32], PIECE, 1, &row);
            let good = slot(&cover, |_| {});
            let whole = Found { cid: cid_of(&good), blocks: 3, wrong: None };
            assert_eq!(judged(&good, &cover, Some(PIECE)).await, whole);
            assert_eq!(judged(&good, &cover, None).await, Found { blocks: 0, ..whole });
            let mut rotten = good.clone();
            rotten[250_000] ^= 1;
            let found = judged(&rotten, &cover, Some(PIECE)).await;
            assert_eq!(found.cid, cid_of(&rotten));
            assert!(found.cid != cid_of(&good) && found.blocks == 2, "{found:?}");
            // Damaged before it was ever placed: its slot is what it should be, and the blocks are not.
            let made_so = slot(&cover, |bytes| bytes[150_000] ^= 1);
            let found = judged(&made_so, &cover, Some(PIECE)).await;
            assert_eq!((found.cid, found.blocks), (cid_of(&made_so), 1));
            assert!(found.wrong.unwrap().contains("damaged piece"));
            let noise = judged(&[7; 5_000], &cover, Some(PIECE)).await;
            assert_eq!(noise.cid, cid_of(&[7; 5_000]), "read to its end all the same");
            assert!(noise.wrong.is_some());
        }
    }

    #[test]
    fn reading_keeps_to_its_rate() {
        let reading = Reading::new(1, &ProgressSink::none());
        let start = Instant::now() + Duration::from_secs(1);
        let part = BYTES_PER_SECOND_MAX / 4;
        let took: Vec<Duration> = (0..9).map(|_| reading.take(start, part) - start).collect();
        assert_eq!(took.last(), Some(&Duration::from_secs(2)));
        let later = start + Duration::from_secs(60);
        assert_eq!(reading.take(later, part), later, "a pause saves nothing up");
    }
}
