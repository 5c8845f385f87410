//! What a permit bounds: deals made in a client's name by another's key.

use super::{DealState, Entry, Outcome};
use crate::error::ErrorCode;
use crate::permit::Place;
use crate::wire::message::WireError;

const DAY_SECONDS: u64 = 24 * 3600;

/// Whether one more deal keeps within the permit, beside those of the same client. Bytes are counted for each holder; the same
/// slot is taken once, whoever offers it: of two that repair the same loss, the later one hears so.
pub(super) fn check(entry: &Entry, of_client: &[&Entry], place: &Place) -> Outcome<()> {
    let refuse = |code, text: &str| Err(WireError::new(code, text));
    let live = |other: &&&Entry| other.state != DealState::Released;
    if of_client.iter().filter(live).any(|other| other.piece == entry.piece) {
        return refuse(ErrorCode::Busy, "this slot is kept here already, or on its way");
    }
    let own = || of_client.iter().filter(|other| other.by == entry.by);
    let sum = |bytes: u64, other: &&Entry| bytes.saturating_add(other.raw_len);
    let bytes = own().filter(live).fold(entry.raw_len, sum);
    // What was given up meanwhile was moved all the same.
    let since = entry.accepted_at.saturating_sub(DAY_SECONDS);
    let daily = own().filter(|other| other.accepted_at > since).fold(entry.raw_len, sum);
    if bytes > place.bytes || daily > place.daily {
        return refuse(ErrorCode::Quota, "the permit is used up here");
    }
    Ok(())
}
