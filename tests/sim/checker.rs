//! What must hold at every moment, and what must hold once the faults are over. One checker for all histories.
//!
//! ```text
//! always   what was acknowledged Placed can be read from what providers really keep, and a head that names it is with one of them
//!          a copy that the ledger has was really there when it was counted
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
use crate::provider::{Lie, Provider};
use crate::world::World;

/// How it is said that too few keep the head.
pub const HEAD_UNKEPT: &str = "the head is with";

/// Requests of all kinds, for each second and provider: a livelock in which time goes on asks more.
const REQUESTS_PER_SECOND_MAX: u64 = 4;
/// What a few placements that were broken off may cost besides.
const SLACK_BYTES: u64 = 2 << 20;

/// Who fails together, by truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Domain {
    Group(u32),
    Alone(usize),
}

pub fn domain(n: usize, provider: &Provider) -> Domain {
    provider.group.map_or(Domain::Alone(n), Domain::Group)
}

/// See the module.
#[derive(Default)]
pub struct Checker {
    acknowledged: BTreeSet<PieceId>,
    /// The highest sequence of a head that was with as many as the policy asks.
    head: u64,
    /// Domains that lost something since everything was whole.
    pub hurt: BTreeSet<Domain>,
    /// Bytes that faults touched.
    pub touched: u64,
    /// Bytes of every slot that was ever wanted.
    wanted: BTreeMap<PieceId, u64>,
    pub most_acknowledged: usize,
}

type Check = Result<(), String>;

fn deal_of(bytes: &[u8]) -> Option<DealId> {
    bytes.try_into().ok().map(DealId)
}

fn hex(id: &PieceId) -> String {
    data(id)
}

fn data(id: &[u8]) -> String {
    id.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

/// Slots of a row that are really there: where, and which.
fn really(row: &PieceRow, providers: &[Provider]) -> Vec<(Domain, u16)> {
    let there = |peer: &Vec<u8>, deal: &[u8]| {
        let (n, provider) = providers.iter().enumerate().find(|(_, p)| &p.peer == peer)?;
        let gives = !provider.lie.is_some_and(Lie::gives_nothing);
        let stored = provider.deals.get(&deal_of(deal)?)?.stored.as_ref()?;
        (!provider.destroyed && gives && stored.intact).then(|| domain(n, provider))
    };
    row.holders().filter_map(|(slot, h)| Some((there(&h.provider, &h.deal)?, slot))).collect()
}

/// Losses of a domain that take a piece: 0, it is lost; one more than it survives.
pub fn losses(engine: &Engine, id: &PieceId, providers: &[Provider]) -> usize {
    let Some(row) = engine.ledger.piece(id) else { return 0 };
    // Each of these has the whole of it.
    let mut alone: BTreeSet<Domain> = really(&row, providers).into_iter().map(|(domain, _)| domain).collect();
    let mut more = 0;
    if let Some((_, stripe, own)) = engine.ledger.stripe_of(id) {
        let slots = really(&stripe, providers);
        let need = stripe.stripe.as_ref().map_or(usize::MAX, |s| s.data().into());
        alone.extend(slots.iter().filter(|(_, slot)| *slot == own).map(|(domain, _)| *domain));
        // Of the others, as far as they do not fall with those, it takes so many.
        let others: BTreeSet<Domain> = slots.iter().filter(|(_, n)| *n != own).map(|(d, _)| *d).collect();
        more = (others.difference(&alone).count() + 1).saturating_sub(need);
    }
    alone.len() + more
}

/// Who is said to keep a piece, and whether it does.
fn told(engine: &Engine, id: &PieceId, providers: &[Provider]) -> String {
    let of = |form: &str, row: &PieceRow| {
        let holders = row.holders().map(|(slot, h)| {
            let provider = providers.iter().position(|p| p.peer == h.provider);
            let real = really(row, providers).iter().any(|(_, there)| *there == slot);
            format!("{form} {slot} with p{provider:?}, failed {:?}, there: {real}", h.failed)
        });
        holders.collect::<Vec<_>>()
    };
    let mut all = engine.ledger.piece(id).map(|row| of("copy", &row)).unwrap_or_default();
    if let Some((_, row, own)) = engine.ledger.stripe_of(id) {
        all.push(format!("its own slot is {own}"));
        all.extend(of("slot", &row));
    }
    format!("counts {:?}: {}", engine.ledger.counting(id), all.join("; "))
}

impl Checker {
    /// One look, at any time at which a daemon runs.
    pub fn look(&mut self, world: &World, engine: &Engine) -> Check {
        let wanted = usize::from(engine.policy.copies());
        let state = world.state.lock();
        let providers = &state.providers;
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
        }
        // Of all that a head names, acknowledged or not: a daemon that has just begun acknowledges nothing yet.
        let named =
            pieces.iter().filter(|piece| piece.commit_sequence != 0 && piece.commit_sequence <= published);
        let whole = published > 0
            && named
                .into_iter()
                .all(|piece| losses(engine, &piece.id, providers) >= engine.wanted(&piece.id));
        for id in &self.acknowledged {
            if losses(engine, id, providers) == 0 {
                let told = told(engine, id, providers);
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
        let name = engine.head_name();
        let heads = providers.iter().filter(|p| !p.destroyed).filter_map(|p| p.records.get(&head_key(&name)));
        let sequences =
            heads.filter_map(|head| HeadValue::verify(head, &name).ok()).map(|h| h.record().sequence());
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
        let chain = engine.ledger.chain().length;
        let named = engine.head.published().map_or(0, |p| p.log_next);
        if chain < named {
            return Err(format!("a head names {named} placements, and the ledger knows {chain}"));
        }
        let pushed = state.traffic.pushed;
        let budget = 2 * self.wanted.values().sum::<u64>() + 2 * self.touched + SLACK_BYTES;
        if pushed > budget {
            return Err(format!("{pushed} bytes were pushed, and no more than {budget} had to be"));
        }
        let seconds = machine::elapsed_ms() / 1000 + 60;
        let most = seconds * REQUESTS_PER_SECOND_MAX * providers.len() as u64;
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

    /// A fault touched what a provider keeps.
    pub fn touch(&mut self, provider: &Provider) {
        let bytes = |deal: &crate::provider::Deal| deal.proposal.proposal().raw_len;
        self.touched += provider.deals.values().map(bytes).sum::<u64>();
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
            let (counting, real) = (engine.ledger.counting(&id).0, losses(engine, &id, &state.providers));
            if counting < wanted {
                return Some(format!("piece {} counts {counting} of {wanted}", hex(&id)));
            }
            if real < wanted {
                return Some(format!(
                    "piece {} counts {counting}, and is really {real} of {wanted}",
                    hex(&id)
                ));
            }
            let held = really(&row, &state.providers);
            let domains: BTreeSet<Domain> = held.iter().map(|(domain, _)| *domain).collect();
            if domains.len() < held.len() {
                return Some(format!("two slots of {} fail together: {held:?}", hex(&id)));
            }
        }
        for (n, provider) in
            state.providers.iter().enumerate().filter(|(_, p)| !p.destroyed && p.lie.is_none())
        {
            let orphan =
                provider.deals.iter().find(|(id, deal)| deal.stored.is_some() && !known.contains(id));
            if let Some((id, deal)) = orphan {
                return Some(format!("p{n} keeps {id} of {}, which nobody knows of", data(&deal.of)));
            }
        }
        None
    }
}
