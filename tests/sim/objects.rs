//! What a private link leads to, looked at with the eyes of somebody who sees every disk: places that are so, seeds of what is named and
//! of nothing else, permits that reach it, and a record with everybody who is to keep it.

use anyhow::{Context as _, Result, bail};
use holdfast::drive::Engine;
use holdfast::drive::ledger::ProviderState;
use holdfast::share::link::PrivateLink;
use holdfast::share::object::{Object, Part};
use holdfast::share::owner::KEEPERS_MAX;
use holdfast_content::watch::part::{self, Part as Signed};
use holdfast_net::permit::Revocations;
use holdfast_net::{DealId, RecordKey, RecordKind, SignedPermit};

use crate::machine;
use crate::provider::Provider;
use crate::world::World;

/// Permits last as long as the link; this much is left of them in any history.
const LEFT_SECONDS_MIN: u64 = 24 * 3600;

fn is_fit(provider: &Provider) -> bool {
    !provider.destroyed && provider.lie.is_none()
}

/// The newest number of a part, and how many fit providers have it.
fn newest(providers: &[Provider], key: &RecordKey) -> Option<(Signed, usize)> {
    let kept = providers.iter().filter(|p| is_fit(p)).filter_map(|provider| {
        let value = provider.records.get(key)?;
        Signed::verify(&key.name, value).ok()
    });
    let all: Vec<Signed> = kept.collect();
    let number = all.iter().map(|part| part.number).max()?;
    let with = all.iter().filter(|part| part.number == number).count();
    all.into_iter().find(|part| part.number == number).map(|part| (part, with))
}

fn object(providers: &[Provider], link: &PrivateLink) -> Result<(Object, usize)> {
    let key = |n| RecordKey::new(RecordKind::Share, part::name(&link.author, n));
    let (first, with) = newest(providers, &key(0)).context("nobody keeps the link's record")?;
    let open = link.keys().open;
    let plain = first.open(&open)?.to_vec();
    let mut parts = vec![plain];
    let count = parts.first().map(|plain| Part::decode(plain)).transpose()?.map_or(0, |part| part.parts());
    for n in 1..count {
        let (part, _) = newest(providers, &key(n)).context("a part that nobody keeps")?;
        parts.push(part.open(&open)?.to_vec());
    }
    Ok((Object::join(&parts)?, with))
}

/// See the module; with everything at rest.
pub fn is_so(world: &World, engine: &Engine, link: &PrivateLink) -> Result<()> {
    let state = world.state.lock();
    let (object, with) = object(&state.providers, link)?;
    let find = |peer: &[u8]| state.providers.iter().find(|provider| provider.peer == peer);
    let known = engine.ledger.providers();
    let known: Vec<_> =
        known.iter().filter(|(_, row)| row.answers() && row.state != ProviderState::Removed).collect();
    let shall = known.iter().filter(|(peer, _)| find(peer).is_some_and(is_fit)).count();
    // Some of the eight may be with those that are not fit.
    let unfit = known.len() - shall;
    if with < shall.min(KEEPERS_MAX.saturating_sub(unfit)) {
        bail!("{with} providers have what the link leads to as it is now, of {shall}");
    }
    for piece in &object.pieces {
        if let Some((stripe, row, _)) = engine.ledger.stripe_of(&piece.id)
            && row.holders().any(|(_, holder)| holder.failed.is_none())
            && !object.pieces.iter().any(|known| known.id == stripe)
        {
            bail!("the link does not name the stripe that a piece of it is in");
        }
        for (slot, n) in piece.slots.iter().zip(0..) {
            let n: u16 = n;
            let Some(held) = &slot.held else {
                if slot.seed.is_some() {
                    bail!("the link has the seed of slot {n}, which nobody keeps");
                }
                continue;
            };
            let reached = object.providers.get(usize::from(held.provider)).context("no such provider")?;
            let Some(provider) = find(&reached.known.peer).filter(|p| is_fit(p)) else { continue };
            let deal = provider.deals.get(&DealId(held.deal)).filter(|deal| deal.stored.is_some());
            let deal = deal.with_context(|| format!("the link names slot {n} where it is not"))?;
            let permits: Vec<SignedPermit> =
                reached.permits.iter().filter_map(|bytes| SignedPermit::from_bytes(bytes).ok()).collect();
            let reaches = |permit: &&SignedPermit| {
                let body = permit.body();
                let lasts = permit.holds(&provider.peer, machine::true_seconds() + LEFT_SECONDS_MIN);
                body.client == deal.client && lasts
            };
            // A stripe's slot may be too short for what is shared: no permit has to name it.
            let named = |permit: &SignedPermit| permit.body().names(&held.deal);
            let needed = permits.iter().any(named) || piece.shards.is_empty();
            if needed && !permits.iter().filter(reaches).any(named) {
                bail!("the link names slot {n}, and no permit of its owner reaches it");
            }
        }
    }
    Ok(())
}

/// Of a link that was taken back: who is still without the list that ends its permits; nothing if nobody is.
pub fn still_permitted(world: &World, engine: &Engine, link: &PrivateLink) -> Option<String> {
    let holder = link.keys().holder.verifying_key().to_bytes();
    let state = world.state.lock();
    let told = |provider: &Provider| {
        let row = engine.ledger.provider(&provider.peer);
        row.is_some_and(|row| row.answers() && row.state != ProviderState::Removed)
    };
    let fit = state.providers.iter().enumerate().filter(|(_, p)| is_fit(p) && told(p));
    for (n, provider) in fit {
        for deal in provider.deals.values().filter(|deal| deal.stored.is_some()) {
            let list = provider.records.get(&Revocations::key(&deal.client));
            let named = list.and_then(|bytes| Revocations::from_bytes(bytes).ok());
            if !named.is_some_and(|list| list.names(&holder)) {
                return Some(format!("p{n} does not know that the link was taken back"));
            }
        }
    }
    None
}
