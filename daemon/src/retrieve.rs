//! Blocks from providers: the network side of the file system's `Retriever`.
//!
//! Owns the order in which holders are asked: by when each should have answered, what it was asked before counted in, so that much is shared
//! out among all. Promises: what it returns hashes to the wanted CID; a holder that is late is
//! joined by the next one (a hedge) before the reader notices, one that sends other bytes is reported and passed over;
//! the deadline holds whatever the network does. A slot of a stripe that is out of reach is decoded from the others (`decode`).
//! Refuses to retry beyond the deadline: the reader decides.

use std::collections::{BTreeMap, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use bytes::Bytes;
use futures::StreamExt;
use futures::future::BoxFuture;
use futures::stream::FuturesUnordered;
use holdfast_content::block::{Block, BlockAt};
use holdfast_content::retrieve::{FetchError, Priority, Retriever};
use holdfast_net::{ByteRange, DealId, NetError, mask};
use parking_lot::Mutex;
use tokio::runtime::Handle;

use crate::drive::ledger::{Holder, Ledger, PieceId, PieceRow};
use crate::drive::peers::Peers;
use crate::drive::slots;
use crate::reading::{Judged, Readings, is_suspicious};

mod decode;

use decode::Striped;

/// A hedge starts when an answer is later than 95 of 100 from this provider, within these bounds. Not sooner: a disk seek and a queue of a
/// few requests are no failure.
const HEDGE_MIN: Duration = Duration::from_millis(150);
/// Not later, where somebody waits: three holders fit into the 8 s that a FUSE read does.
const HEDGE_MAX: Duration = Duration::from_millis(2000);
/// Not later, where nobody waits: on a slow line that is full an answer may well take some seconds.
const HEDGE_BULK_MAX: Duration = Duration::from_secs(10);
/// Ranges asked in one request; the provider's own limit is higher.
const RANGES_MAX: usize = 64;
/// So much of a piece is asked of one holder at once; what is more is shared out among all of them.
const REQUEST_BYTES: u64 = 1 << 20;

/// From where the seeds of slots are had.
pub enum Seeds {
    /// They follow from the drive's mask key.
    Key([u8; 32]),
    /// These were given, and no others: of what a private link shows.
    Given(HashMap<(PieceId, u16), mask::SlotSeed>),
}

impl Seeds {
    fn of(&self, piece: PieceId, slot: u16) -> Option<mask::SlotSeed> {
        match self {
            Seeds::Key(key) => Some(slots::seed(key, piece, slot)),
            Seeds::Given(seeds) => seeds.get(&(piece, slot)).cloned(),
        }
    }
}

/// Slots that the audit worker asks next.
pub type Suspicions = Mutex<HashSet<(PieceId, u16)>>;

/// What the retriever needs once the drive is open.
pub struct Sources {
    /// Where slots lie.
    pub ledger: Arc<Ledger>,
    /// How to reach who keeps them.
    pub peers: Arc<Peers>,
}

/// What a fetch brings: one block, or why not, for each that is wanted.
pub type Fetched = Vec<Result<Block, FetchError>>;

/// Waits for a fetch on behalf of a thread that may block.
pub trait Waits: Send + Sync {
    /// What it brings; nothing where the deadline is sure to come first.
    fn wait(&self, fetch: BoxFuture<'_, Fetched>) -> Option<Fetched>;
}

impl Waits for Handle {
    fn wait(&self, fetch: BoxFuture<'_, Fetched>) -> Option<Fetched> {
        Some(self.block_on(fetch))
    }
}

/// The `Retriever` of a mounted drive. Made before the drive is open, joined with its sources after.
pub struct NetRetriever {
    waits: Box<dyn Waits>,
    seeds: Seeds,
    sources: ArcSwapOption<Sources>,
    /// To be challenged: they gave bytes which do not match, or were refused for good.
    pub suspicions: Suspicions,
    /// To be read and challenged: what they give is in doubt, or shall be compared with what another one gives.
    pub to_read: Suspicions,
    /// What reads of each deal showed.
    pub readings: Readings,
}

impl NetRetriever {
    /// Answers `NotFound` until it is joined. `waits`: a runtime's handle, whose threads run the fetch meanwhile.
    pub fn new(waits: impl Waits + 'static, seeds: Seeds) -> Self {
        Self {
            waits: Box::new(waits),
            seeds,
            sources: ArcSwapOption::empty(),
            suspicions: Mutex::default(),
            to_read: Mutex::default(),
            readings: Readings::default(),
        }
    }

    /// From now on it asks these.
    pub fn join(&self, sources: Sources) {
        self.sources.store(Some(Arc::new(sources)));
    }

    /// The async form, for workers.
    pub async fn fetch_async(
        &self,
        wants: &[BlockAt],
        priority: Priority,
        deadline: Duration,
    ) -> Vec<Result<Block, FetchError>> {
        let Some(sources) = self.sources.load_full() else {
            return wants.iter().map(|_| Err(FetchError::NotFound)).collect();
        };
        let until = Instant::now() + deadline;
        let mut by_piece: BTreeMap<PieceId, Vec<(usize, BlockAt)>> = BTreeMap::new();
        for (n, want) in wants.iter().enumerate() {
            by_piece.entry(want.piece).or_default().push((n, *want));
        }
        let mut groups: FuturesUnordered<_> = by_piece
            .into_iter()
            .flat_map(|(piece, wants)| shares(wants).into_iter().map(move |share| (piece, share)))
            .map(|(piece, wants)| self.fetch_group(&sources, piece, wants, priority, until))
            .collect();
        let mut out: Vec<Result<Block, FetchError>> =
            wants.iter().map(|_| Err(FetchError::Timeout)).collect();
        while let Some(results) = groups.next().await {
            for (n, result) in results {
                if let Some(place) = out.get_mut(n) {
                    *place = result;
                }
            }
        }
        out
    }

    async fn fetch_group(
        &self,
        sources: &Sources,
        piece: PieceId,
        wants: Vec<(usize, BlockAt)>,
        priority: Priority,
        until: Instant,
    ) -> Vec<(usize, Result<Block, FetchError>)> {
        let mut ways = order(sources, &piece, bytes_of(&wants));
        let mut group = Group { missing: wants, done: Vec::new(), worst: FetchError::NotFound };
        let mut running: FuturesUnordered<BoxFuture<'_, Outcome>> = FuturesUnordered::new();
        let mut hedge_at = Instant::now();
        while !group.missing.is_empty() {
            let now = Instant::now();
            if now >= until {
                group.worst = FetchError::Timeout;
                break;
            }
            if (running.is_empty() || now >= hedge_at)
                && let Some(way) = ways.pop_front()
            {
                let wants = group.missing.clone();
                match way {
                    Way::Slot { id, slot, holder } => {
                        hedge_at = now + hedge_after(sources, &holder, bytes_of(&wants), priority);
                        let asking = self.ask(sources, id, slot, holder, wants, priority, until);
                        running.push(Box::pin(async move { Outcome::Answer(asking.await) }));
                    }
                    Way::Decoded(at) => {
                        hedge_at = now + HEDGE_MAX;
                        let decoding = self.decode(sources, at, wants, priority, until);
                        running.push(Box::pin(async move {
                            let (blocks, worst) = decoding.await;
                            Outcome::Decoded(blocks, worst)
                        }));
                    }
                }
            }
            if running.is_empty() {
                break;
            }
            let wake = if ways.is_empty() { until } else { hedge_at.min(until) };
            tokio::select! {
                Some(outcome) = running.next() => {
                    let clean = match outcome {
                        Outcome::Answer(answer) => self.take(sources, &mut group, answer),
                        Outcome::Decoded(blocks, worst) => group.decoded(blocks, worst),
                    };
                    if !clean {
                        hedge_at = Instant::now();
                    }
                }
                () = tokio::time::sleep_until(wake.into()) => {}
            }
        }
        group.finish()
    }

    /// One holder is asked for everything that is missing.
    async fn ask(
        &self,
        sources: &Sources,
        piece: PieceId,
        slot: u16,
        holder: Holder,
        wants: Vec<(usize, BlockAt)>,
        priority: Priority,
        until: Instant,
    ) -> Answer {
        let started = Instant::now();
        let asking = sources.peers.asking(&holder.provider, bytes_of(&wants));
        let ranges: Vec<ByteRange> = wants.iter().map(|(_, w)| ByteRange::new(w.offset, w.len)).collect();
        let read = async {
            let deal = DealId(
                <[u8; 32]>::try_from(holder.deal.as_slice())
                    .map_err(|_| NetError::Invalid("deal id".into()))?,
            );
            let session = sources.peers.session(&sources.ledger, &holder.provider).await?;
            let left = until.saturating_duration_since(Instant::now());
            session.read(deal, &ranges, net_priority(priority), left).await
        };
        let bytes = match tokio::time::timeout_at(until.into(), read).await {
            Ok(result) => result,
            Err(_) => Err(NetError::Timeout(until.saturating_duration_since(started))),
        };
        if bytes.is_ok() {
            asking.answered();
        }
        Answer { piece, slot, holder, wants, bytes }
    }

    /// Verifies an answer. `false`: the next holder should be asked without waiting.
    fn take(&self, sources: &Sources, group: &mut Group, answer: Answer) -> bool {
        let parts = match answer.bytes {
            Ok(parts) if parts.len() == answer.wants.len() => parts,
            Ok(_) => {
                self.suspect(sources, &answer.piece, answer.slot, &answer.holder);
                return false;
            }
            Err(error) => {
                tracing::debug!(peer = %crate::drive::peers::peer_short(&answer.holder.provider), %error, "read failed");
                sources.peers.failed(&answer.holder.provider);
                if is_suspicious(&error) {
                    self.gave_other_bytes(answer.piece, answer.slot, &answer.holder.deal);
                }
                group.worst = match error {
                    NetError::Timeout(_) => FetchError::Timeout,
                    _ => FetchError::Unreachable,
                };
                return false;
            }
        };
        let Some(seed) = self.seeds.of(answer.piece, answer.slot) else { return false };
        let mut clean = true;
        for ((n, want), masked) in answer.wants.into_iter().zip(parts) {
            match unmask(&seed, &want, masked) {
                Some(block) => group.got(n, block),
                None => clean = false,
            }
        }
        if clean {
            sources.peers.heard(&answer.holder.provider);
            self.readings.right(&answer.holder.deal, Instant::now());
        } else {
            group.worst = FetchError::Corrupt;
            self.suspect(sources, &answer.piece, answer.slot, &answer.holder);
        }
        clean
    }

    fn suspect(&self, sources: &Sources, piece: &PieceId, slot: u16, holder: &Holder) {
        sources.peers.failed(&holder.provider);
        self.gave_other_bytes(*piece, slot, &holder.deal);
    }

    /// A read of this deal brought bytes that are not the slot's, or was refused for good: it is read and challenged next.
    pub fn gave_other_bytes(&self, piece: PieceId, slot: u16, deal: &[u8]) {
        self.readings.wrong(deal, Instant::now());
        self.suspicions.lock().insert((piece, slot));
        self.to_read.lock().insert((piece, slot));
    }

    /// Whether a deal gave other bytes, or none, so often in a row that asking it for a whole slot is a waste.
    pub fn is_given_up(&self, deal: &[u8]) -> bool {
        self.readings.is_given_up(deal, Instant::now())
    }

    /// Whether this holder of `row` gives other bytes, or none, time and again while enough others give the right ones: if they did not,
    /// the fault would be nearer to this machine. Where that is not known they are read next, and this one once more.
    pub fn gives_other_bytes(&self, piece: PieceId, row: &PieceRow, slot: u16, deal: &[u8]) -> bool {
        let counts = |n: u16, held: &Holder| n != slot && held.failed.is_none() && held.proven_at > 0;
        let others: Vec<(u16, &Holder)> = row.holders().filter(|(n, held)| counts(*n, held)).collect();
        let deals: Vec<Vec<u8>> = others.iter().map(|(_, held)| held.deal.clone()).collect();
        let need = row.stripe.as_ref().map_or(1, |stripe| stripe.pieces.len());
        match self.readings.judge(deal, &deals, need, Instant::now()) {
            Judged::Nothing => false,
            Judged::Fault => true,
            Judged::Unsure { others: asked, first } => {
                let mut to_read = self.to_read.lock();
                let asked = others.iter().filter(|(_, held)| asked.contains(&held.deal));
                to_read.extend(asked.map(|(n, _)| (piece, *n)));
                if first {
                    to_read.insert((piece, slot));
                }
                false
            }
        }
    }
}

impl Retriever for NetRetriever {
    fn fetch(
        &self,
        wants: &[BlockAt],
        priority: Priority,
        deadline: Duration,
    ) -> Vec<Result<Block, FetchError>> {
        let fetched = self.waits.wait(Box::pin(self.fetch_async(wants, priority, deadline)));
        fetched.unwrap_or_else(|| wants.iter().map(|_| Err(FetchError::Timeout)).collect())
    }
}

/// How blocks may be had.
enum Way {
    /// From somebody who keeps the whole piece: a copy, or the piece's slot of a stripe.
    Slot { id: PieceId, slot: u16, holder: Holder },
    /// From the other slots of its stripe.
    Decoded(Striped),
}

/// What a way led to.
enum Outcome {
    Answer(Answer),
    Decoded(Vec<(usize, Block)>, FetchError),
}

struct Answer {
    piece: PieceId,
    slot: u16,
    holder: Holder,
    wants: Vec<(usize, BlockAt)>,
    bytes: Result<Vec<Bytes>, NetError>,
}

struct Group {
    missing: Vec<(usize, BlockAt)>,
    done: Vec<(usize, Result<Block, FetchError>)>,
    worst: FetchError,
}

impl Group {
    fn got(&mut self, n: usize, block: Block) {
        let before = self.missing.len();
        self.missing.retain(|(m, _)| *m != n);
        // A hedge may bring a block a second time.
        if self.missing.len() < before {
            self.done.push((n, Ok(block)));
        }
    }

    /// Blocks that came out of a stripe. `false`: the next way should be tried without waiting.
    fn decoded(&mut self, blocks: Vec<(usize, Block)>, worst: FetchError) -> bool {
        for (n, block) in blocks {
            self.got(n, block);
        }
        if !self.missing.is_empty() {
            self.worst = worst;
        }
        self.missing.is_empty()
    }

    fn finish(mut self) -> Vec<(usize, Result<Block, FetchError>)> {
        let worst = self.worst;
        self.done.extend(self.missing.into_iter().map(|(n, _)| (n, Err(worst))));
        self.done
    }
}

fn unmask(seed: &mask::SlotSeed, want: &BlockAt, masked: Bytes) -> Option<Block> {
    // In the memory that it came in, where it is alone there.
    let mut plain = Vec::from(masked);
    if plain.len() != usize::try_from(want.len).ok()? {
        return None;
    }
    mask::apply(seed, want.offset, &mut plain).ok()?;
    Block::verify(want.cid, Bytes::from(plain)).ok()
}

/// Ways to a piece, the best first: who keeps the whole of it and answers, then decoding, then those that are silent, then those that
/// failed: one that lost a leaf, or answered an audit wrongly, may have the very blocks that nobody else has.
fn order(sources: &Sources, piece: &PieceId, bytes: u64) -> VecDeque<Way> {
    let mut all: Vec<(PieceId, u16, Holder)> = Vec::new();
    if let Some(row) = sources.ledger.piece(piece) {
        all.extend(row.holders().map(|(slot, h)| (*piece, slot, h.clone())));
    }
    all.extend(sources.ledger.hearsay(piece).into_iter().map(|(slot, h)| (*piece, slot, h)));
    let striped = sources.ledger.stripe_of(piece);
    if let Some((stripe, row, slot)) = &striped
        && let Some(holder) = row.slots.get(usize::from(*slot)).and_then(|s| s.holder.clone())
    {
        all.push((*stripe, *slot, holder));
    }
    if let Some((stripe, _, slot)) = &striped {
        let said = sources.ledger.hearsay(stripe).into_iter().filter(|(n, _)| n == slot);
        all.extend(said.map(|(slot, h)| (*stripe, slot, h)));
    }
    let answers = |h: &Holder| sources.ledger.provider(&h.provider).is_some_and(|p| p.answers());
    all.sort_by_cached_key(|(_, _, h)| {
        let (failed, expected) = sources.peers.rank(&h.provider, bytes);
        (h.failed.is_some(), !answers(h), failed, expected)
    });
    let silent = all.iter().position(|(_, _, h)| h.failed.is_some() || !answers(h)).unwrap_or(all.len());
    let mut ways: VecDeque<Way> =
        all.into_iter().map(|(id, slot, holder)| Way::Slot { id, slot, holder }).collect();
    if let Some((stripe, row, slot)) = striped {
        ways.insert(silent, Way::Decoded(Striped { stripe, row, slot }));
    }
    ways
}

fn hedge_after(sources: &Sources, holder: &Holder, bytes: u64, priority: Priority) -> Duration {
    let most = if priority == Priority::Interactive { HEDGE_MAX } else { HEDGE_BULK_MAX };
    sources.peers.late(&holder.provider, bytes).clamp(HEDGE_MIN, most)
}

fn bytes_of(wants: &[(usize, BlockAt)]) -> u64 {
    wants.iter().map(|(_, want)| u64::from(want.len)).sum()
}

/// Cuts what is wanted of a piece into requests.
fn shares(wants: Vec<(usize, BlockAt)>) -> Vec<Vec<(usize, BlockAt)>> {
    let mut out: Vec<Vec<(usize, BlockAt)>> = Vec::new();
    let mut bytes = 0;
    for want in wants {
        let len = u64::from(want.1.len);
        match out.last_mut() {
            Some(share) if share.len() < RANGES_MAX && bytes + len <= REQUEST_BYTES => {
                bytes += len;
                share.push(want);
            }
            _ => {
                bytes = len;
                out.push(vec![want]);
            }
        }
    }
    out
}

fn net_priority(p: Priority) -> holdfast_net::client::Priority {
    match p {
        Priority::Interactive => holdfast_net::client::Priority::Interactive,
        Priority::Readahead | Priority::Bulk => holdfast_net::client::Priority::Bulk,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reading::WRONG_READS_MAX;
    use holdfast_net::ErrorCode;

    struct Nowhere;

    impl Waits for Nowhere {
        fn wait(&self, _: BoxFuture<'_, Fetched>) -> Option<Fetched> {
            None
        }
    }

    #[test]
    fn whoever_proves_a_slot_and_never_gives_it_is_at_fault_while_others_give_it() {
        let retriever = NetRetriever::new(Nowhere, Seeds::Key([0; 32]));
        let mut row = PieceRow::new(100, 3);
        for (n, slot) in (0u8..).zip(&mut row.slots) {
            slot.holder = Some(Holder {
                provider: vec![n],
                deal: vec![n; 32],
                entry: 0,
                confirmed_at: 1,
                proven_at: 1,
                ends_at: 9,
                failed: None,
            });
        }
        let piece = [1; 16];
        let deal = |slot: u8| [slot; 32];
        let wrong = |slot: u8| retriever.gave_other_bytes(piece, u16::from(slot), &deal(slot));
        let right = |slot: u8| retriever.readings.right(&deal(slot), Instant::now());
        let at_fault = |slot: u8| retriever.gives_other_bytes(piece, &row, u16::from(slot), &deal(slot));
        for _ in 1..WRONG_READS_MAX {
            wrong(0);
            assert!(!at_fault(0));
        }
        retriever.to_read.lock().clear();
        wrong(0);
        assert!(!at_fault(0), "nobody gave right bytes since: it may be us");
        let asked: HashSet<(PieceId, u16)> = (0..3).map(|slot| (piece, slot)).collect();
        assert_eq!(*retriever.to_read.lock(), asked, "the others are read, and this one with them");
        right(1);
        assert!(at_fault(0) && !at_fault(1));
        wrong(1);
        assert!(!at_fault(0), "nobody does any more");
        right(2);
        assert!(at_fault(0), "the third one gives the right bytes");
        wrong(2);
        assert!(!at_fault(0));
        right(2);
        right(0);
        assert!(!at_fault(0), "a right read wipes it out");
        assert_eq!(retriever.suspicions.lock().len(), 3);
    }

    #[test]
    fn whoever_refuses_a_read_for_good_is_challenged() {
        let refused = |code| NetError::Refused { code, message: String::new() };
        for code in ErrorCode::ALL {
            use ErrorCode::{Busy, Cancelled, NoSpace, PushRunning, Quota, ShuttingDown, TooSlow};
            let passes =
                [Busy, Cancelled, NoSpace, PushRunning, Quota, ShuttingDown, TooSlow].contains(&code);
            assert_eq!(is_suspicious(&refused(code)), !passes, "{code:?}");
        }
        assert!(is_suspicious(&NetError::Protocol("other bytes".into())));
        assert!(!is_suspicious(&NetError::Timeout(Duration::from_secs(1))));
        assert!(!is_suspicious(&NetError::Disconnected("gone".into())));
    }
}
