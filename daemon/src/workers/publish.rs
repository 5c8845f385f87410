//! The publish worker: leaves the newest head with every provider of the drive.
//!
//! Only what a head names comes back from the words, so this is the step that makes data Placed. *Must*: a head is published only
//! when every piece that it needs has a confirmed copy, and a copy counts only once a published head names it, and a majority of the
//! anchors keeps that head; no head is made before this machine holds a term. *Should*: heads follow placements within a second
//! or two, and not more often.

mod offer;
mod tend;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use async_trait::async_trait;
use holdfast_content::block::BlockAt;
use holdfast_content::commit::PlaceBody;
use holdfast_content::keys::TreeDomain;
use holdfast_content::placement::{PlacementAction, PlacementEntry, PlacementTree, checkpoint_put};
use holdfast_content::tree::{Edit, NodeSource, Physical, PhysicalRef, SourceError};
use holdfast_fs::drive::types::CommitInfo;
use holdfast_net::term::Standing;
use offer::Given;
use tokio::task::JoinSet;
use tokio::time::Instant;

use crate::drive::Engine;
use crate::drive::head::CheckpointRow;
use crate::drive::ledger::Peer;
use crate::worker::{Context, Detail, Next, Worker};

/// Placements come in bursts; a head waits for so long to carry several, while more are on their way.
const GATHER: Duration = Duration::from_millis(700);
/// A head is offered again to providers that missed it at least this often.
const AGAIN: Duration = Duration::from_secs(5);
/// Where nothing changes, the worker looks this often all the same.
const QUIET: Duration = Duration::from_secs(30);
/// Whatever is due: not more often than this.
const REST_MIN: Duration = Duration::from_millis(100);
/// Log entries in a head's tail before a checkpoint is written: with about 700 bytes each the record stays under the
/// 512 KiB that providers take.
const TAIL_MAX: u64 = 400;

/// See the module.
pub struct PublishWorker {
    engine: Arc<Engine>,
    keyring: Vec<u8>,
    /// Who keeps the head as it stands now.
    with: BTreeSet<Peer>,
    /// Who keeps the keyring.
    keyring_with: BTreeSet<Peer>,
    offered: Option<u64>,
    /// Providers that were given a head and have not answered yet.
    giving: JoinSet<Given>,
    asked: BTreeSet<Peer>,
    /// Who was asked in this round.
    tried: BTreeSet<Peer>,
    /// When everybody was asked last.
    offered_at: Option<Instant>,
    /// Those that lack the head, and were asked, are asked once more then.
    again_at: Option<Instant>,
    /// The ledger's version that the last step saw.
    seen: u64,
    /// Who granted a higher term, of those that were given the head as it stands now.
    outvoting: BTreeSet<Peer>,
    pending: Option<CheckpointRow>,
    /// Those that granted the term that is held, and those that would not: who may become an anchor.
    joined: BTreeMap<Peer, bool>,
    detail: Detail,
}

impl PublishWorker {
    /// A worker that publishes for `engine`; `keyring` is the signed keyring.
    pub fn new(engine: Arc<Engine>, keyring: Vec<u8>) -> Self {
        Self {
            engine,
            keyring,
            with: BTreeSet::new(),
            keyring_with: BTreeSet::new(),
            offered: None,
            giving: JoinSet::new(),
            asked: BTreeSet::new(),
            tried: BTreeSet::new(),
            offered_at: None,
            again_at: None,
            seen: 0,
            outvoting: BTreeSet::new(),
            pending: None,
            joined: BTreeMap::new(),
            detail: Detail::default(),
        }
    }

    /// The newest commit of which every piece has a live copy, if the published head is behind it or behind the log.
    fn wanted(&self) -> anyhow::Result<Option<CommitInfo>> {
        let engine = &self.engine;
        let published = engine.head.published();
        let placed_up_to = self.placed_up_to()?;
        let after = published.as_ref().map_or(0, |p| p.commit_sequence);
        let candidates = engine.drive.commits_after(after.saturating_sub(1))?;
        let Some(commit) = candidates.into_iter().rfind(|c| c.sequence <= placed_up_to) else {
            return Ok(None);
        };
        let standing = engine.term.standing();
        let news = published.is_none_or(|p| {
            let stands = standing.is_some_and(|standing| p.stands(&standing));
            let newer = p.commit_sequence < commit.sequence || p.log_next < engine.ledger.chain().length;
            // A head of an older program stays until there is something to say.
            p.taken_over || newer || (p.standing.is_some() && !stands)
        });
        Ok(news.then_some(commit))
    }

    /// Commits up to this one have a live copy of every piece.
    fn placed_up_to(&self) -> anyhow::Result<u64> {
        let engine = &self.engine;
        let mut up_to = u64::MAX;
        for piece in engine.drive.pieces()? {
            if piece.commit_sequence != 0 && engine.ledger.live_copies(&piece.id) == 0 {
                up_to = up_to.min(piece.commit_sequence.saturating_sub(1));
            }
        }
        Ok(up_to)
    }

    /// Those that answer and lack the head.
    fn missing(&self) -> Vec<Peer> {
        let providers = self.engine.ledger.providers().into_iter();
        let lack = providers.filter(|(peer, row)| row.answers() && !self.with.contains(peer));
        lack.map(|(peer, _)| peer).collect()
    }

    /// Whether the head is to be offered: to somebody who was not asked for it yet, or once more.
    fn is_due(&self, again_at: Option<Instant>) -> bool {
        let now = Instant::now();
        // Those that do not answer are asked as well, now and then: they may be back.
        self.offered_at.is_none_or(|at| at + QUIET <= now)
            || again_at.is_some_and(|at| at <= now)
            || self.missing().iter().any(|peer| !self.tried.contains(peer))
    }

    /// Waits for placements that are on their way.
    async fn gather(&self) -> anyhow::Result<()> {
        let until = Instant::now() + GATHER;
        loop {
            let seen = *self.engine.ledger.watch().borrow();
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() || self.is_all_placed()? {
                return Ok(());
            }
            self.engine.changed_since(seen, left).await;
        }
    }

    /// No piece lacks a copy that the policy asks for.
    fn is_all_placed(&self) -> anyhow::Result<bool> {
        let engine = &self.engine;
        let pieces = engine.drive.pieces()?;
        let committed = pieces.iter().filter(|piece| piece.commit_sequence != 0);
        Ok(committed.map(|piece| piece.id).all(|id| engine.ledger.live_copies(&id) >= engine.wanted(&id)))
    }

    async fn publish(&mut self, commit: &CommitInfo, standing: Standing) -> anyhow::Result<()> {
        let engine = self.engine.clone();
        let checkpoint = self.checkpoint().await?;
        let (commit, keyring) = (commit.clone(), self.keyring.clone());
        let published = engine
            .clone()
            .blocking(move |e| e.compose_head(&commit, &keyring, checkpoint, &standing))
            .await??;
        engine
            .blocking({
                let published = published.clone();
                move |e| e.head.set(&e.ledger, published)
            })
            .await??;
        self.with.clear();
        self.outvoting.clear();
        self.offered = Some(published.sequence);
        self.offer(&published).await
    }

    /// The checkpoint that the next head names: the published one, or a newer one whose piece has a copy by now.
    async fn checkpoint(&mut self) -> anyhow::Result<Option<CheckpointRow>> {
        let engine = self.engine.clone();
        if let Some(row) = &self.pending
            && engine.ledger.live_copies(&row.piece) > 0
        {
            return Ok(self.pending.take());
        }
        let current = engine.head.published().and_then(|p| p.checkpoint);
        let covered = current.as_ref().map_or(0, |c| c.covers.length);
        if self.pending.is_none() && engine.ledger.chain().length.saturating_sub(covered) > TAIL_MAX {
            let base = current.clone();
            let row = engine.clone().blocking(move |e| write_checkpoint(e, base.as_ref())).await??;
            engine.adopt_pieces().await?;
            engine.wake.notify_waiters();
            self.pending = Some(row);
        }
        Ok(current)
    }
}

struct Blocks<'a>(&'a Engine);

impl NodeSource<Physical> for Blocks<'_> {
    fn node(&self, node: &PhysicalRef) -> Result<holdfast_content::block::Block, SourceError> {
        self.0.drive.read_block(&node.at).map_err(|e| SourceError::Other(Box::new(e)))
    }
}

/// Folds the log since `base` into the placement tree, in a piece of its own.
fn write_checkpoint(engine: &Engine, base: Option<&CheckpointRow>) -> anyhow::Result<CheckpointRow> {
    let from = base.map_or(0, |b| b.covers.length);
    let covers = engine.ledger.chain();
    let mut newest: BTreeMap<([u8; 16], u16), PlacementEntry> = BTreeMap::new();
    for (_, bytes) in engine.ledger.log_from(from)? {
        let entry = PlacementEntry::verify(&bytes)?;
        newest.insert((entry.body().piece, entry.body().slot), entry);
    }
    let tree = PlacementTree::new(engine.keys.tree(TreeDomain::Placement), 2 << 20);
    let root = base.map(CheckpointRow::root);
    let source = Blocks(engine);
    let mut edits: BTreeMap<Vec<u8>, Edit> = BTreeMap::new();
    for ((piece, slot), entry) in &newest {
        // Whom the older checkpoint names for a slot that changed: those rows go. A restored home has them nowhere else.
        if let Some(root) = &root {
            let from = [&piece[..], &slot.to_be_bytes()].concat();
            for row in tree.iter(&source, root, &from, None)? {
                let row = row?;
                if !row.key.starts_with(&from) {
                    break;
                }
                edits.insert(row.key.to_vec(), Edit::delete(row.key));
            }
        }
        // There is no adder but the owner, so that what the owner removed need not be told any more.
        if entry.body().action != PlacementAction::Remove {
            let put = checkpoint_put(entry);
            edits.insert(put.key.to_vec(), put);
        }
    }
    let (piece, root) = engine.drive.put_checkpoint_piece(|sink| {
        tree.apply(&source, root.as_ref(), edits.into_values(), sink)
            .map(|applied| applied.root)
            .map_err(holdfast_fs::drive::DriveError::from)
    })?;
    Ok(CheckpointRow { root: place(&root.at, &root.key), covers, piece: piece.id })
}

fn place(at: &BlockAt, key: &holdfast_content::keys::SecretKey32) -> PlaceBody {
    PlaceBody::new(at, key)
}

#[async_trait]
impl Worker for PublishWorker {
    fn name(&self) -> &'static str {
        "publish"
    }

    fn status(&self) -> Detail {
        self.detail.clone()
    }

    async fn work(&mut self, context: &Context) -> anyhow::Result<Next> {
        // Before anything is looked at: what changes from here on ends the next wait.
        self.seen = *self.engine.ledger.watch().borrow();
        let again_at = self.again_at.take();
        if self.engine.overtaken().is_some() {
            self.offered_at = None;
            self.engine.keep_conflict().await.context("keeping what only this machine has")?;
            return Ok(Next::Idle);
        }
        if self.engine.drive.read_only().is_some() {
            self.offered_at = None;
            return Ok(Next::Idle);
        }
        for doubted in self.engine.doubted.lock().drain() {
            self.with.remove(&doubted);
            self.tried.remove(&doubted);
        }
        let wanted = self.wanted()?;
        let mut standing = self.engine.term.standing();
        if standing.is_none() && (wanted.is_some() || self.engine.is_waiting()) {
            match self.engine.hold_term().await? {
                Ok(held) => standing = Some(held),
                Err(why) => {
                    self.detail = Detail { doing: format!("waiting: {why}"), ..Detail::default() };
                    if self.engine.is_waiting() {
                        self.engine.set_waiting(Some(why));
                    }
                    return Ok(Next::After(AGAIN));
                }
            }
        }
        if let Some((commit, standing)) = wanted.zip(standing) {
            self.gather().await?;
            let commit = self.wanted()?.unwrap_or(commit);
            context.report(Detail {
                doing: format!("publishing commit {}", commit.sequence),
                ..Detail::default()
            });
            self.publish(&commit, standing).await.context("publishing the head")?;
        } else if let Some(published) = self.engine.head.published()
            && self.is_due(again_at)
        {
            self.offer(&published).await?;
        }
        if self.tend_anchors().await.context("choosing anchors")? {
            return Ok(Next::Again);
        }
        let missing = self.missing().len();
        self.detail = Detail { queue: missing as u64, ..Detail::default() };
        let now = Instant::now();
        let waits = again_at.filter(|at| *at > now);
        self.again_at = (missing > 0).then(|| waits.unwrap_or(now + AGAIN));
        // Whoever lacks the head is no reason to leave what is placed meanwhile without one.
        Ok(Next::Idle)
    }

    async fn wait(&mut self) {
        let all = self.offered_at.map(|at| at + QUIET);
        let next = [all, self.again_at].into_iter().flatten().min();
        let rest = next.map_or(QUIET, |at| at.saturating_duration_since(Instant::now()));
        self.engine.changed_since(self.seen, rest.clamp(REST_MIN, QUIET)).await;
    }
}
