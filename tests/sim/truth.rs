//! What is really there: which disks of the model have which slots, whole, and how many losses that takes.

use std::collections::{BTreeMap, BTreeSet};

use holdfast::drive::Engine;
use holdfast::drive::ledger::{PieceId, PieceRow};
use holdfast_net::DealId;

use crate::provider::{Lie, Provider};
use crate::world::State;

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
pub struct Truth<'a> {
    pub providers: &'a [Provider],
    /// What watchers placed and told of, whole: by piece, where, and the slot's piece CID.
    placed: BTreeMap<[u8; 16], Vec<(Domain, Vec<u8>)>>,
}

impl<'a> Truth<'a> {
    pub fn of(state: &'a State) -> Truth<'a> {
        let mut placed: BTreeMap<[u8; 16], Vec<(Domain, Vec<u8>)>> = BTreeMap::new();
        for (n, provider) in state.providers.iter().enumerate().filter(|(_, provider)| gives(provider)) {
            for (id, deal) in provider.deals.iter().filter(|(_, deal)| deal.by.is_some()) {
                if deal.stored.as_ref().is_some_and(|stored| stored.intact) && !state.untold.contains(id) {
                    let cid = deal.proposal.proposal().piece_cid.to_bytes();
                    placed.entry(deal.of).or_default().push((domain(n, provider), cid));
                }
            }
        }
        Truth { providers: &state.providers, placed }
    }
}

pub fn deal_of(bytes: &[u8]) -> Option<DealId> {
    bytes.try_into().ok().map(DealId)
}

pub fn data(id: &[u8]) -> String {
    id.iter().take(4).map(|byte| format!("{byte:02x}")).collect()
}

fn gives(provider: &Provider) -> bool {
    !provider.destroyed && !provider.lie.is_some_and(Lie::gives_nothing)
}

/// What one who answers from the disk that he shares with others, or has alone, says of each piece.
pub fn answers_with<'a>(providers: &'a [Provider], who: &Provider) -> BTreeMap<[u8; 16], &'a Vec<u8>> {
    let mut all = BTreeMap::new();
    // Honest ones give a slot to nobody but its owner.
    if who.lie != Some(Lie::AnswersFromNeighbour) {
        return all;
    }
    let same = |p: &&Provider| p.peer == who.peer || (p.group.is_some() && p.group == who.group);
    for deal in providers.iter().filter(same).flat_map(|p| p.deals.values()) {
        if let Some(stored) = deal.stored.as_ref().filter(|stored| !stored.bytes.is_empty()) {
            all.entry(deal.of).or_insert(&stored.bytes);
        }
    }
    all
}

/// Slots of a row that are really where it says: where, and which.
pub fn recorded(row: &PieceRow, providers: &[Provider]) -> Vec<(Domain, u16)> {
    let there = |peer: &Vec<u8>, deal: &[u8]| {
        let (n, provider) = providers.iter().enumerate().find(|(_, p)| &p.peer == peer)?;
        let deal = provider.deals.get(&deal_of(deal)?)?;
        let stored = deal.stored.as_ref()?;
        // Whoever answers from his neighbours' disks, and has the bytes of just this slot there, gives them.
        let own = || answers_with(providers, provider).get(&deal.of) == Some(&&stored.bytes);
        let gives = gives(provider) || (!provider.destroyed && own());
        (gives && stored.intact).then(|| domain(n, provider))
    };
    row.holders().filter_map(|(slot, h)| Some((there(&h.provider, &h.deal)?, slot))).collect()
}

/// The same, and those that watchers placed and told of.
pub fn really(id: &PieceId, row: &PieceRow, truth: &Truth<'_>) -> BTreeSet<(Domain, u16)> {
    let mut all: BTreeSet<(Domain, u16)> = recorded(row, truth.providers).into_iter().collect();
    for (domain, cid) in truth.placed.get(id).into_iter().flatten() {
        let mut slots = row.slots.iter().map(|slot| slot.cid.as_ref().map(|cid| cid.as_slice()));
        let slot = slots.position(|slot| slot == Some(cid.as_slice()));
        all.extend(slot.and_then(|slot| u16::try_from(slot).ok()).map(|slot| (*domain, slot)));
    }
    all
}

/// Losses of a domain that take a piece: 0, it is lost; one more than it survives.
pub fn losses(engine: &Engine, id: &PieceId, truth: &Truth<'_>) -> usize {
    let Some(row) = engine.ledger.piece(id) else { return 0 };
    losses_of(id, &row, engine.ledger.stripe_of(id).as_ref(), truth)
}

/// The same by rows that somebody kept.
pub fn losses_of(
    id: &PieceId,
    row: &PieceRow,
    stripe: Option<&(PieceId, PieceRow, u16)>,
    truth: &Truth<'_>,
) -> usize {
    // Each of these has the whole of it.
    let mut alone: BTreeSet<Domain> = really(id, row, truth).into_iter().map(|(domain, _)| domain).collect();
    let Some((stripe_id, stripe, own)) = stripe else { return alone.len() };
    let slots = really(stripe_id, stripe, truth);
    let need = stripe.stripe.as_ref().map_or(usize::MAX, |s| s.data().into());
    alone.extend(slots.iter().filter(|(_, slot)| slot == own).map(|(domain, _)| *domain));
    // All of these have to go in any case; of the others, whoever is left must have too few different slots between them.
    let others: BTreeSet<(Domain, u16)> =
        slots.into_iter().filter(|(domain, _)| !alone.contains(domain)).collect();
    alone.len() + fewest(&others, need)
}

/// Losses of a domain that leave fewer than `need` different slots.
fn fewest(slots: &BTreeSet<(Domain, u16)>, need: usize) -> usize {
    let different: BTreeSet<u16> = slots.iter().map(|(_, slot)| *slot).collect();
    if different.len() < need {
        return 0;
    }
    let domains: BTreeSet<Domain> = slots.iter().map(|(domain, _)| *domain).collect();
    let without = |gone: Domain| {
        let left = slots.iter().filter(|(domain, _)| *domain != gone).copied().collect();
        fewest(&left, need)
    };
    1 + domains.into_iter().map(without).min().unwrap_or(0)
}

/// What the checker counts by is checked before anything is.
pub fn check_itself() -> Result<(), String> {
    let cases: [(&str, &[(usize, u16)], usize, usize); 4] = [
        ("one slot each", &[(0, 0), (1, 1), (2, 2)], 2, 2),
        ("two different slots are no three", &[(0, 3), (1, 3), (2, 0)], 3, 0),
        ("a slot in two places counts once", &[(0, 3), (1, 3), (2, 0), (3, 1)], 3, 1),
        ("two slots that fail together", &[(0, 0), (0, 1), (1, 2)], 2, 1),
    ];
    for (what, slots, need, losses) in cases {
        let slots = slots.iter().map(|(n, slot)| (Domain::Alone(*n), *slot)).collect();
        let found = fewest(&slots, need);
        if found != losses {
            return Err(format!("the checker: {what}: {found} losses, and {losses} it is"));
        }
    }
    Ok(())
}
