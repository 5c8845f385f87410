//! What permits allow with a modelled provider: the rules of a real one (net/PROTOCOL.md, "Permits"), for the provider's map of deals.

use std::collections::{BTreeMap, BTreeSet};

use holdfast_net::permit::{PermitBody, Revocations};
use holdfast_net::{ByteRange, DealId, DealProposal, ErrorCode, SignedPermit};

use crate::planted::Bug;
use crate::provider::{Deal, Outcome, Provider, refuse};

const DAY_SECONDS: u64 = 24 * 3600;

/// What was shown in a session: keys that were proven, and permits by their clients.
#[derive(Clone, Default)]
pub struct Shown {
    pub keys: BTreeSet<[u8; 32]>,
    pub permits: BTreeMap<[u8; 32], SignedPermit>,
}

impl Provider {
    /// Whether a permit is for this provider and whoever asks, has not ended, and was not taken back.
    pub fn in_force(&self, shown: &Shown, permit: &SignedPermit) -> Outcome<()> {
        let may = permit.body();
        if !shown.keys.contains(&may.holder) {
            return refuse(ErrorCode::Unauthorized, "the permit's key was not proven");
        }
        if !permit.holds(&self.peer, self.now()) {
            return refuse(ErrorCode::Unauthorized, "the permit is for another provider, or has ended");
        }
        let list = self.records.get(&Revocations::key(&may.client));
        match list.and_then(|bytes| Revocations::from_bytes(bytes).ok()) {
            Some(list) if list.names(&may.holder) => {
                refuse(ErrorCode::Unauthorized, "the permit was taken back")
            }
            _ => Ok(()),
        }
    }

    fn permit<'a>(&self, shown: &'a Shown, client: &[u8; 32]) -> Option<&'a PermitBody> {
        let permit = shown.permits.get(client)?;
        self.in_force(shown, permit).is_ok().then(|| permit.body())
    }

    /// A deal that the session's own keys, or a permit, let it read; with `push`, let it fill.
    pub fn permitted(&mut self, shown: &Shown, deal: &DealId, push: bool) -> Outcome<&mut Deal> {
        let client = self.deals.get(deal).map(|deal| deal.client);
        let may = client.and_then(|client| self.permit(shown, &client));
        let may = may.is_some_and(|may| may.deals.is_none() && (!push || may.place.is_some()));
        match self.deals.get_mut(deal).filter(|deal| may || shown.keys.contains(&deal.client)) {
            Some(deal) => Ok(deal),
            None => refuse(ErrorCode::NotFound, "no such deal"),
        }
    }

    /// A deal that may be read; by a permit for ranges no others than these.
    pub fn readable(&mut self, shown: &Shown, deal: &DealId, ranges: &[ByteRange]) -> Outcome<&mut Deal> {
        let client = self.deals.get(deal).map(|deal| deal.client);
        let may = client.and_then(|client| self.permit(shown, &client)).filter(|may| may.names(&deal.0));
        match may {
            None => self.permitted(shown, deal, false),
            Some(may) if !ranges.iter().all(|range| may.reaches(&deal.0, range.offset, range.len)) => {
                refuse(ErrorCode::Unauthorized, "the permit does not reach there")
            }
            Some(_) => match self.deals.get_mut(deal) {
                Some(deal) => Ok(deal),
                None => refuse(ErrorCode::NotFound, "no such deal"),
            },
        }
    }

    /// Whether one more deal keeps within the permit that it is made by, and is of a slot that is not here yet.
    pub fn keeps_within(&self, may: &PermitBody, p: &DealProposal) -> Outcome<()> {
        let Some(place) = may.place else {
            return refuse(ErrorCode::Unauthorized, "nothing may be placed by this permit");
        };
        let of_client = || self.deals.values().filter(|deal| deal.client == p.client);
        let twice = of_client().any(|deal| deal.proposal.proposal().piece_cid == p.piece_cid);
        if twice && self.bug != Some(Bug::FellowsUnheard) {
            return refuse(ErrorCode::Busy, "this slot is kept here already, or on its way");
        }
        let own = || of_client().filter(|deal| deal.by == Some(may.holder));
        let len = |deal: &Deal| deal.proposal.proposal().raw_len;
        let since = self.now().saturating_sub(DAY_SECONDS);
        let bytes = own().map(len).sum::<u64>() + p.raw_len;
        let daily = own().filter(|deal| deal.accepted_at > since).map(len).sum::<u64>() + p.raw_len;
        if bytes > place.bytes || daily > place.daily {
            return refuse(ErrorCode::Quota, "the permit is used up here");
        }
        Ok(())
    }
}
