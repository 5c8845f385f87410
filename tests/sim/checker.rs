//! What must hold at every moment, and what must hold once the faults are over. One checker for all histories.
//!
//! ```text
//! always   what was acknowledged Placed can be read from what providers really keep, and a head that names it is with one of them
//!          a copy that the ledger has was really there when it was counted
//!          copies are given up only for a stripe of which every slot was read through its holder
//! budget   bytes pushed are no more than what was placed, and twice what each fault touched
//! at last  within a bound after the last fault: everything Placed to policy, in truth too; no two slots of a piece in one failure
//!          domain; no deal kept that nobody knows of
//! ```
//!
//! Truth is the world's, never the product's: which disks have which bytes, whole.

use std::collections::{BTreeMap, BTreeSet};

use holdfast::drive::Engine;
use holdfast::drive::ledger::{Form, PieceId, PieceRow};
use holdfast::records::{HeadValue, head_key};
use holdfast_net::DealId;

use crate::machine;
use crate::provider::{Deal, Lie, Provider};
use crate::truth::{Domain, Truth, data, deal_of, losses, losses_of, really, recorded};
use crate::world::{State, World, short};

/// How it is said that too few keep the head.
pub const HEAD_UNKEPT: &str = "the head is with";

/// Requests of all kinds, for each second and provider: a livelock in which time goes on asks more.
const REQUESTS_PER_SECOND_MAX: u64 = 4;
/// What a few placements that were broken off may cost besides.
const SLACK_BYTES: u64 = 2 << 20;
/// What a watcher that died was at began no longer ago than this.
const BROKEN_OFF_SECONDS: u64 = 600;

/// See the module.
#[derive(Default)]
pub struct Checker {
    pub acknowledged: BTreeSet<PieceId>,
    /// The highest sequence of a head that was with as many as the policy asks.
    head: u64,
    /// Domains that lost something since everything was whole.
    pub hurt: BTreeSet<Domain>,
    /// Bytes that faults touched.
    pub touched: u64,
    /// Bytes of every slot that was ever wanted.
    wanted: BTreeMap<PieceId, u64>,
    pub most_acknowledged: usize,
    /// With the owner away: which piece was last seen to be less safe than it was to be.
    pub lacking: String,
    /// Reasons to place a slot once more.
    may_move: BTreeMap<Slot, u64>,
    /// Deals of each with those that lie.
    with_liars: BTreeMap<Slot, BTreeSet<DealId>>,
    /// What honest watchers placed of each.
    placed: BTreeMap<Slot, BTreeSet<DealId>>,
    /// Pieces that only a stripe keeps, and when they were looked at last.
    striped_alone: BTreeSet<PieceId>,
    looked_at: u64,
    /// Watchers that lie, by the keys of their permits.
    pub rogues: BTreeSet<[u8; 32]>,
    /// How many ask providers, beside the owner.
    pub asking: u64,
}

/// A piece as it was when the owner went away.
struct Kept {
    id: PieceId,
    row: PieceRow,
    stripe: Option<(PieceId, PieceRow, u16)>,
    wanted: usize,
    /// The same without copies that were surplus: watchers are given none of these.
    watched: PieceRow,
}

/// What the owner left behind.
pub struct Left {
    pieces: Vec<Kept>,
    /// The head's.
    name: [u8; 32],
    copies: usize,
}

impl Kept {
    /// What is really there of a piece that is less safe than it was to be.
    fn told(&self, real: usize, truth: &Truth<'_>) -> String {
        let there = |id: &PieceId, row: &PieceRow| {
            format!("{} of {} slots {:?}", hex(id), row.slots.len(), really(id, row, truth))
        };
        let copies = there(&self.id, &self.row);
        let mut all = format!("piece {} survives {real} of {}: {copies}", hex(&self.id), self.wanted);
        if let Some((id, row, own)) = &self.stripe {
            all += &format!("; stripe {}, its own slot is {own}", there(id, row));
        }
        all
    }
}

/// A slot of a piece or stripe, by its piece CID.
type Slot = (PieceId, Vec<u8>);

fn slot_of(deal: &Deal) -> Slot {
    (deal.of, deal.proposal.proposal().piece_cid.to_bytes())
}

type Check = Result<(), String>;

fn hex(id: &PieceId) -> String {
    data(id)
}

/// Who is said to keep a piece, and whether it does.
fn told(engine: &Engine, id: &PieceId, truth: &Truth<'_>) -> String {
    let providers = truth.providers;
    let of = |form: &str, id: &PieceId, row: &PieceRow| {
        let holders = row.holders().map(|(slot, h)| {
            let provider = providers.iter().position(|p| p.peer == h.provider);
            let real = really(id, row, truth).iter().any(|(_, there)| *there == slot);
            format!("{form} {slot} with p{provider:?}, failed {:?}, there: {real}", h.failed)
        });
        holders.collect::<Vec<_>>()
    };
    let mut all = engine.ledger.piece(id).map(|row| of("copy", id, &row)).unwrap_or_default();
    if let Some((stripe, row, own)) = engine.ledger.stripe_of(id) {
        all.push(format!("its own slot is {own}"));
        all.extend(of("slot", &stripe, &row));
    }
    format!("counts {:?}: {}", engine.ledger.counting(id), all.join("; "))
}

impl Checker {
    /// One look, at any time at which a daemon runs.
    pub fn look(&mut self, world: &World, engine: &Engine) -> Check {
        let wanted = usize::from(engine.policy.copies());
        let state = world.state.lock();
        let (providers, truth) = (&state.providers, Truth::of(&state));
        let pieces = engine.drive.pieces().map_err(|e| format!("the drive cannot list its pieces: {e}"))?;
        let published = engine.head.published().map_or(0, |p| p.commit_sequence);
        for piece in &pieces {
            let reached = piece.commit_sequence != 0 && piece.commit_sequence <= published;
            let (counting, _) = engine.ledger.counting(&piece.id);
            if reached && counting.min(engine.ledger.head_copies()) >= engine.wanted(&piece.id) {
                self.acknowledged.insert(piece.id);
            }
        }
        let known: BTreeSet<PieceId> = pieces.iter().map(|piece| piece.id).collect();
        self.acknowledged.retain(|id| known.contains(id));
        self.most_acknowledged = self.most_acknowledged.max(self.acknowledged.len());
        for (id, row) in engine.ledger.pieces() {
            let slots = u16::try_from(row.slots.len()).unwrap_or(0);
            let bytes = (0..slots).map(|slot| row.slot_len(slot)).sum();
            let before = self.wanted.entry(id).or_default();
            *before = (*before).max(bytes);
            self.never_was(&id, &row, providers)?;
            self.read_before(engine, &id, &row, providers)?;
        }
        self.looked_at = machine::true_seconds();
        // Of all that a head names, acknowledged or not: a daemon that has just begun acknowledges nothing yet.
        let named =
            pieces.iter().filter(|piece| piece.commit_sequence != 0 && piece.commit_sequence <= published);
        let whole = published > 0
            && named.into_iter().all(|piece| losses(engine, &piece.id, &truth) >= engine.wanted(&piece.id));
        for id in &self.acknowledged {
            if losses(engine, id, &truth) == 0 {
                let told = told(engine, id, &truth);
                return Err(format!(
                    "piece {} was Placed, and is lost (hurt: {:?}); {told}",
                    hex(id),
                    self.hurt
                ));
            }
        }
        if whole {
            self.hurt.clear();
        }
        self.heads(providers, &engine.head_name(), wanted)?;
        let chain = engine.ledger.chain().length;
        let named = engine.head.published().map_or(0, |p| p.log_next);
        if chain < named {
            return Err(format!("a head names {named} placements, and the ledger knows {chain}"));
        }
        self.placed_once(providers)?;
        self.traffic(&state)
    }

    /// What must be found again when the owner comes back.
    pub fn leave(&mut self, world: &World, engine: &Engine) -> Result<Left, String> {
        let published = engine.head.published().map_or(0, |p| p.commit_sequence);
        let pieces = engine.drive.pieces().map_err(|e| format!("the drive cannot list its pieces: {e}"))?;
        let state = world.state.lock();
        for (id, row) in engine.ledger.pieces() {
            let there: BTreeSet<u16> = recorded(&row, &state.providers).into_iter().map(|(_, n)| n).collect();
            for (slot, _) in row.slots.iter().zip(0u16..).filter(|(_, n)| !there.contains(n)) {
                if let Some(cid) = &slot.cid {
                    self.lacks(id, cid);
                }
            }
        }
        let named = pieces.iter().filter(|p| p.commit_sequence != 0 && p.commit_sequence <= published);
        let kept = named.filter_map(|piece| {
            let row = engine.ledger.piece(&piece.id)?;
            let (stripe, wanted) = (engine.ledger.stripe_of(&piece.id), engine.wanted(&piece.id));
            let surplus = engine.ledger.counting_as(&piece.id, Form::Stripe) >= wanted;
            let slots = if surplus { Vec::new() } else { row.slots.clone() };
            let watched = PieceRow { slots, ..row.clone() };
            Some(Kept { id: piece.id, row, stripe, wanted, watched })
        });
        let (name, copies) = (engine.head_name(), usize::from(engine.policy.copies()));
        Ok(Left { pieces: kept.collect(), name, copies })
    }

    /// One look while the owner is away: whether everything is as safe as it was to be.
    pub fn look_away(&mut self, world: &World, left: &Left) -> Result<bool, String> {
        let state = world.state.lock();
        let truth = Truth::of(&state);
        let mut whole = true;
        for piece in &left.pieces {
            let real = losses_of(&piece.id, &piece.row, piece.stripe.as_ref(), &truth);
            if real == 0 && self.acknowledged.contains(&piece.id) {
                let (id, hurt) = (hex(&piece.id), &self.hurt);
                return Err(format!(
                    "piece {id} was Placed, and is lost with its owner away (hurt: {hurt:?})"
                ));
            }
            let kept = losses_of(&piece.id, &piece.watched, piece.stripe.as_ref(), &truth);
            if kept < piece.wanted {
                whole = false;
                self.lacking = piece.told(kept, &truth);
            }
        }
        if whole {
            self.hurt.clear();
        }
        self.heads(&state.providers, &left.name, left.copies)?;
        self.placed_once(&state.providers)?;
        self.traffic(&state)?;
        Ok(whole)
    }

    /// A head that was with as many as the policy asks, or a later one, is with somebody.
    pub fn heads(&mut self, providers: &[Provider], name: &[u8; 32], wanted: usize) -> Check {
        let heads = providers.iter().filter(|p| !p.destroyed).filter_map(|p| p.records.get(&head_key(name)));
        let sequences =
            heads.filter_map(|head| HeadValue::verify(head, name).ok()).map(|h| h.record().sequence());
        let mut sequences: Vec<u64> = sequences.collect();
        sequences.sort_unstable_by(|a, b| b.cmp(a));
        if sequences.first().copied().unwrap_or(0) < self.head {
            return Err(format!(
                "head {} was with as many as the policy asks, and nobody has it or a later one",
                self.head
            ));
        }
        // So many keep this one or a later one: losses within the policy leave it.
        self.head = self.head.max(wanted.checked_sub(1).and_then(|n| sequences.get(n)).copied().unwrap_or(0));
        Ok(())
    }

    /// What went over the network had to.
    pub fn traffic(&self, state: &State) -> Check {
        let pushed = state.traffic.pushed;
        let budget = 2 * self.wanted.values().sum::<u64>() + 2 * self.touched + SLACK_BYTES;
        if pushed > budget {
            return Err(format!("{pushed} bytes were pushed, and no more than {budget} had to be"));
        }
        let seconds = machine::elapsed_ms() / 1000 + 60;
        let most = seconds * REQUESTS_PER_SECOND_MAX * state.providers.len() as u64 * (1 + self.asking);
        if state.traffic.requests > most {
            return Err(format!("{} requests in {seconds} s", state.traffic.requests));
        }
        Ok(())
    }

    /// A copy in the ledger whose provider never had its bytes.
    fn never_was(&self, id: &PieceId, row: &PieceRow, providers: &[Provider]) -> Check {
        for (slot, holder) in row.holders().filter(|(_, h)| h.failed.is_none()) {
            let provider = providers.iter().position(|p| p.peer == holder.provider);
            let had = provider.and_then(|n| providers.get(n)).zip(deal_of(&holder.deal));
            if !had.is_some_and(|(provider, deal)| provider.had.contains(&deal)) {
                return Err(format!(
                    "slot {slot} of {} counts with p{provider:?}, which never had it",
                    hex(id)
                ));
            }
        }
        Ok(())
    }

    /// Copies that were just given up, for slots that nobody ever read. What was placed since the last look had no time for it.
    fn read_before(
        &mut self,
        engine: &Engine,
        id: &PieceId,
        row: &PieceRow,
        providers: &[Provider],
    ) -> Check {
        let alone = row.stripe.is_none() && row.slots.is_empty();
        if !alone || !engine.ledger.is_striped(id) {
            self.striped_alone.remove(id);
            return Ok(());
        }
        if !self.striped_alone.insert(*id) {
            return Ok(());
        }
        let Some((stripe, row, _)) = engine.ledger.stripe_of(id) else { return Ok(()) };
        for (slot, holder) in row.holders().filter(|(_, h)| h.failed.is_none()) {
            let provider = providers.iter().find(|p| p.peer == holder.provider);
            let Some((provider, deal)) = provider.zip(deal_of(&holder.deal)) else { continue };
            let at = provider.deals.get(&deal).and_then(|deal| deal.stored.as_ref()).map(|stored| stored.at);
            let times = provider.gave.get(&deal).copied().unwrap_or(0);
            // Once it was read when it was placed.
            // Of one who turns single bytes a read of a few leaves may be right.
            let turns = provider.lie == Some(Lie::GivesOtherBytes);
            if times < 2 && !turns && at.is_none_or(|at| at < self.looked_at) {
                let (id, stripe) = (hex(id), hex(&stripe));
                return Err(format!(
                    "the copies of {id} were given up, and nobody has read slot {slot} of stripe {stripe} since it was placed"
                ));
            }
        }
        Ok(())
    }

    /// A fault touched what a provider keeps.
    pub fn touch(&mut self, provider: &Provider) {
        for deal in provider.deals.values() {
            self.touched += deal.proposal.proposal().raw_len;
            *self.may_move.entry(slot_of(deal)).or_default() += 1;
        }
    }

    /// A watcher's process ended: what it was at may be done again, with another provider.
    pub fn broken_off(&mut self, providers: &[Provider], holder: &[u8; 32]) {
        for provider in providers {
            let lately = provider.now().saturating_sub(BROKEN_OFF_SECONDS);
            let own = |deal: &&Deal| deal.by.as_ref() == Some(holder) && deal.accepted_at >= lately;
            for deal in provider.deals.values().filter(own) {
                self.touched += deal.proposal.proposal().raw_len;
                *self.may_move.entry(slot_of(deal)).or_default() += 1;
            }
        }
    }

    /// A slot that nobody keeps may be placed.
    pub fn lacks(&mut self, id: PieceId, cid: &[u8]) {
        *self.may_move.entry((id, cid.to_vec())).or_default() += 1;
    }

    /// Of each slot watchers have placed no more copies than there were reasons to: none of one that was well, and two watchers one.
    pub fn placed_once(&mut self, providers: &[Provider]) -> Check {
        for provider in providers.iter().filter(|provider| provider.lie.is_none()) {
            for (id, deal) in &provider.deals {
                let honest = deal.by.is_some_and(|by| !self.rogues.contains(&by));
                if honest && deal.stored.as_ref().is_some_and(|stored| stored.intact) {
                    self.placed.entry(slot_of(deal)).or_default().insert(*id);
                }
            }
        }
        // What liars signed for is a reason, too: they are caught.
        for provider in providers.iter().filter(|provider| provider.lie.is_some()) {
            for (id, deal) in provider.deals.iter().filter(|(_, deal)| deal.stored.is_some()) {
                self.with_liars.entry(slot_of(deal)).or_default().insert(*id);
            }
        }
        for (slot, deals) in &self.placed {
            let liars = self.with_liars.get(slot).map_or(0, |deals| deals.len() as u64);
            let most = self.may_move.get(slot).copied().unwrap_or(0) + liars;
            if deals.len() as u64 > most {
                let told: Vec<String> = deals.iter().map(short).collect();
                let piece = hex(&slot.0);
                return Err(format!(
                    "watchers placed a slot of {piece} as {told:?}, and lost it {most} times"
                ));
            }
        }
        Ok(())
    }

    /// Why not everything is as it should be at last; nothing if it is.
    pub fn unrest(&self, world: &World, engine: &Engine) -> Option<String> {
        if let Some(why) = engine.overtaken().or_else(|| engine.read_only()) {
            return Some(format!("the drive is read-only: {why}"));
        }
        match engine.drive.dirty() {
            Ok(dirty) if dirty.is_dirty() => return Some("something is not sealed".into()),
            Ok(_) => {}
            Err(error) => return Some(error.to_string()),
        }
        match engine.drive.walks() {
            Ok(0) => {}
            left => {
                return Some(format!("folders and files that are less safe than asked, perhaps: {left:?}"));
            }
        }
        if engine.ledger.head_copies() < engine.head_wanted() {
            return Some(format!("{HEAD_UNKEPT} {} providers", engine.ledger.head_copies()));
        }
        let latest = engine.drive.latest_commit().ok().flatten().map_or(0, |commit| commit.sequence);
        if engine.head.published_sequence().unwrap_or(0) < latest {
            return Some(format!("commit {latest} is not published"));
        }
        let state = world.state.lock();
        let truth = Truth::of(&state);
        let mut known = BTreeSet::new();
        for (id, row) in engine.ledger.pieces() {
            let wanted = engine.wanted(&id);
            let slots = row.slots.iter().enumerate();
            for (n, slot) in slots {
                known.extend(slot.holder.iter().filter_map(|h| deal_of(&h.deal)));
                if slot.lost.is_some() || slot.intent.is_some() || slot.holder.is_none() {
                    let stripe = row.stripe.is_some();
                    let enough = !stripe && engine.ledger.counting_as(&id, Form::Stripe) >= wanted;
                    if !enough {
                        return Some(format!("slot {n} of {} (stripe: {stripe}): {slot:?}", hex(&id)));
                    }
                }
            }
            if row.stripe.is_some() {
                continue;
            }
            let (counting, real) = (engine.ledger.counting(&id).0, losses(engine, &id, &truth));
            if counting < wanted {
                return Some(format!("piece {} counts {counting} of {wanted}", hex(&id)));
            }
            if real < wanted {
                return Some(format!(
                    "piece {} counts {counting}, and is really {real} of {wanted}",
                    hex(&id)
                ));
            }
            let held = recorded(&row, &state.providers);
            let domains: BTreeSet<Domain> = held.iter().map(|(domain, _)| *domain).collect();
            if domains.len() < held.len() {
                return Some(format!("two slots of {} fail together: {held:?}", hex(&id)));
            }
        }
        for (n, provider) in
            state.providers.iter().enumerate().filter(|(_, p)| !p.destroyed && p.lie.is_none())
        {
            // What a rogue told nobody of ends by its term alone.
            let orphan = provider.deals.iter().find(|(id, deal)| {
                deal.stored.is_some() && !known.contains(id) && !state.untold.contains(id)
            });
            if let Some((id, deal)) = orphan {
                return Some(format!("p{n} keeps {id} of {}, which nobody knows of", data(&deal.of)));
            }
        }
        None
    }
}
