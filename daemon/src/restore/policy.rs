//! How many losses the drive's own policy asks for, as far as a head and its placements show it: no record says it by itself.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_content::class::ClassNote;
use holdfast_content::head::HeadBody;
use holdfast_content::placement::{PlacementAction, PlacementEntry};

use crate::drive::ledger::{Imported, PieceId, PieceRow};
use crate::home::SURVIVE_LOSSES_MAX;

/// The losses that what a head's tail names was made to survive.
pub(super) fn survived(body: &HeadBody) -> Option<u8> {
    let stripes: BTreeSet<PieceId> = body
        .tail
        .iter()
        .map(PlacementEntry::body)
        .filter(|said| said.action == PlacementAction::Stripe)
        .map(|said| said.piece)
        .collect();
    let copies = body
        .tail
        .iter()
        .map(PlacementEntry::body)
        .filter(|said| said.action == PlacementAction::Add && !stripes.contains(&said.piece));
    // Folders may ask something else of pieces than the drive does; where they do, it is said what the drive asks.
    let classes =
        body.tail.iter().map(PlacementEntry::body).filter(|said| said.action == PlacementAction::Class);
    let classes: BTreeMap<PieceId, Option<u8>> = classes
        .map(|said| (said.piece, ClassNote::decode(&said.receipt).ok().map(|note| note.drive)))
        .collect();
    let copies = copies.filter(|said| !classes.contains_key(&said.piece));
    let widest = copies.map(|said| said.slot).max().and_then(|slot| u8::try_from(slot).ok());
    widest.max(classes.into_values().flatten().max())
}

/// The policy that a drive's rows were made under: the widest copies, or the most parity.
pub fn survive_losses(found: &Imported) -> u8 {
    let of_row = |row: &PieceRow| match &row.stripe {
        Some(stripe) => stripe.parity,
        None => u16::try_from(row.slots.len()).unwrap_or(u16::MAX).saturating_sub(1),
    };
    let classed = |id: &PieceId| found.pieces.get(id).is_some_and(|row| row.class.is_some());
    // Folders may ask something else; where they do, it is said what the drive asks.
    let plain = |row: &&PieceRow| match &row.stripe {
        Some(stripe) => !stripe.pieces.iter().any(|piece| classed(&piece.id)),
        None => row.class.is_none(),
    };
    let most = found.pieces.values().filter(plain).map(of_row).max().unwrap_or(0);
    let most = most.max(found.drive_losses.unwrap_or(0).into());
    u8::try_from(most).unwrap_or(u8::MAX).min(SURVIVE_LOSSES_MAX)
}
