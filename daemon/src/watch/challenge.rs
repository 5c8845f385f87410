//! A watcher's challenges: which slots are asked for at a look, and what the answers say.
//!
//! Promises: a greeting is no proof, so who answers everything but challenges is as silent as who answers nothing; what one provider
//! says of the capability ends it only where the owner's signature is on it.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use futures::StreamExt;
use holdfast_net::{ErrorCode, NetError};
use serde_bytes::ByteBuf;

use super::bundle::Bundle;
use super::picture::{Deal, Picture};
use super::reads;
use super::state::Fault;
use super::watcher::{AT_ONCE, Answers, CHALLENGED, Watcher};
use crate::drive::ledger::Peer;
use crate::drive::peers::peer_short;
use crate::reading::Look;

/// Challenges of one provider in one look.
const CHALLENGES_MAX: usize = 64;
/// Reads of one provider in one look.
const READS_MAX: usize = 4;

/// A challenge to be sent.
struct Due {
    deal: Deal,
    cid: Vec<u8>,
    last: Option<Instant>,
    /// Some of the slot is read before.
    read: bool,
}

/// What a challenge came to, and what was read before it.
type Said = (Deal, Result<Option<Look>, NetError>);

/// Whether a challenge was answered, in whatever way.
fn is_answer(said: &Result<Option<Look>, NetError>) -> bool {
    match said {
        Ok(_) => true,
        Err(error) => {
            let unknown = matches!(error.code(), Some(ErrorCode::NotFound | ErrorCode::Ended));
            error.is_fault_of_provider() || unknown
        }
    }
}

impl Watcher {
    /// What is due, of each provider that answers.
    fn due(&mut self, bundle: &Bundle, answers: &BTreeMap<Peer, Answers>) -> BTreeMap<Peer, Vec<Due>> {
        let faults: BTreeSet<Deal> = self.state.faults.iter().map(|fault| fault.deal).collect();
        let deals: Vec<Deal> = self.picture(bundle).all().map(|(_, keeper)| keeper.deal).collect();
        self.draw_reads(&deals);
        let to_read = std::mem::take(&mut self.to_read);
        let picture = self.picture(bundle);
        let mut due: BTreeMap<Peer, Vec<Due>> = BTreeMap::new();
        for (slot, keeper) in picture.all() {
            let piece = picture.piece(&slot.piece);
            let cid = piece.and_then(|piece| piece.slots.get(usize::from(slot.slot))).map(|s| s.cid.to_vec());
            let last = self.proven.get(&keeper.deal).copied();
            let fresh = last.is_some_and(|at| at.elapsed() < CHALLENGED);
            let read = to_read.contains(&keeper.deal) || (!fresh && self.readings.is_doubtful(&keeper.deal));
            let asked =
                (!fresh || read) && answers.contains_key(&keeper.peer) && !faults.contains(&keeper.deal);
            if let Some(cid) = cid.filter(|_| asked) {
                let of = due.entry(keeper.peer.clone()).or_default();
                of.push(Due { deal: keeper.deal, cid, last, read });
            }
        }
        for list in due.values_mut() {
            list.sort_by_key(|due| (!due.read, due.last));
            list.truncate(CHALLENGES_MAX);
            list.iter_mut().skip(READS_MAX).for_each(|due| due.read = false);
        }
        due
    }

    /// Challenges what is due; gives those who answered none of what they were asked.
    pub(super) async fn challenge(
        &mut self,
        bundle: &Bundle,
        answers: &BTreeMap<Peer, Answers>,
    ) -> BTreeSet<Peer> {
        let due = self.due(bundle, answers);
        let reach = &self.reach;
        let heard: Vec<(Peer, Vec<Said>)> = futures::stream::iter(due)
            .map(|(peer, list)| async move {
                let (mut said, mut withheld) = (Vec::new(), false);
                for due in list {
                    let answer = reach.audit(&peer, due.deal, &due.cid, due.read && !withheld).await;
                    withheld |= matches!(answer, Ok(Some(Look::Withheld)));
                    let stop =
                        answer.as_ref().is_err_and(|e| !e.is_fault_of_provider() && e.code().is_none());
                    said.push((due.deal, answer));
                    if stop {
                        break;
                    }
                }
                (peer, said)
            })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let (mut mute, mut refusing) = (BTreeSet::new(), BTreeSet::new());
        for (peer, said) in heard {
            if !said.iter().any(|(_, answer)| is_answer(answer)) {
                mute.insert(peer.clone());
            }
            for (deal, answer) in said {
                if let Ok(Some(look)) = &answer {
                    self.looked(&peer, deal, *look);
                }
                let refused = answer.as_ref().is_err_and(|e| e.code() == Some(ErrorCode::Unauthorized));
                if refused {
                    refusing.insert(peer.clone());
                }
                self.heard(&peer, deal, answer.map(|_| ()));
            }
        }
        for peer in refusing {
            if self.reach.is_taken_back(&peer).await {
                let short = peer_short(&peer);
                self.ended = Some(format!(
                    "the owner took the capability back, as its list with provider {short} says"
                ));
            }
        }
        let lost = {
            let others = self.fellows.values().flat_map(|heard| heard.log.entries());
            let picture = Picture::new(bundle, self.log.entries(), others);
            reads::not_given(&picture, &self.state, &self.proven, &self.readings, &mut self.to_read)
        };
        for (peer, deal, why) in lost {
            self.fault(&peer, deal, why);
        }
        mute
    }

    fn heard(&mut self, peer: &Peer, deal: Deal, answer: Result<(), NetError>) {
        let Err(error) = answer else {
            self.missed.remove(&deal);
            self.proven.insert(deal, Instant::now());
            return;
        };
        let short = peer_short(peer);
        match error.code() {
            // Its clock may be wrong, or it lies: it gives nothing, and that is all it shows.
            Some(ErrorCode::Unauthorized) => {
                tracing::info!(peer = %short, %error, "the owner's permit is refused");
                self.reach.show_again(peer);
            }
            // The owner may have moved it: a newer bundle says so, or the next look finds the same.
            Some(ErrorCode::NotFound | ErrorCode::Ended) if self.missed.insert(deal) => {
                self.reach.show_again(peer);
            }
            Some(ErrorCode::NotFound | ErrorCode::Ended) => {
                self.fault(peer, deal, "it does not know it any more")
            }
            _ if error.is_fault_of_provider() => self.fault(peer, deal, &error.to_string()),
            _ => tracing::debug!(peer = %short, %error, "a challenge was not answered"),
        }
    }

    /// This watcher has just seen it proven.
    pub(super) fn proven_now(&mut self, deal: Deal) {
        self.proven.insert(deal, Instant::now());
    }

    fn fault(&mut self, peer: &Peer, deal: Deal, why: &str) {
        tracing::warn!(peer = %peer_short(peer), why, "a slot is lost");
        self.proven.remove(&deal);
        let (peer, why) = (ByteBuf::from(peer.clone()), why.chars().take(200).collect());
        self.state.faults.push(Fault { deal, peer, why });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_refuses_to_be_challenged_has_answered_nothing() {
        let refused = |code| Err(NetError::Refused { code, message: String::new() });
        assert!(is_answer(&Ok(None)));
        for code in [ErrorCode::NotFound, ErrorCode::Ended, ErrorCode::NotStored, ErrorCode::Corrupt] {
            assert!(is_answer(&refused(code)), "{code:?}");
        }
        for code in [ErrorCode::Busy, ErrorCode::Unauthorized] {
            assert!(!is_answer(&refused(code)), "{code:?}");
        }
        assert!(!is_answer(&Err(NetError::Closed)));
    }
}
