//! Sessions as the provider sees them: who, which keys, and what they have under way.

use std::collections::HashMap;
use std::sync::Arc;

use libp2p::PeerId;
use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::config::ProviderLimits;
use crate::deal::verify_key_signature;
use crate::env::Env;
use crate::error::ErrorCode;
use crate::permit::{PERMIT_RANGES_BYTES_MAX, Revocations, SignedPermit};
use crate::wire::life::Life;
use crate::wire::limits::{KEYS_MAX, PERMITS_MAX};
use crate::wire::message::{Ticket, WireError, session_key_message};

/// Where sessions are all taken, whoever has proven no key for so long makes room.
const STRANGER_MS: u64 = 10_000;

/// Of one session, so that it takes many to use up what all share.
const LONG_REQUESTS_MAX: usize = 8;
const LONG_REPLIES_MAX: usize = 4;
/// Bytes of all permits for ranges in one session: a drive and its watchers have one each.
const RANGES_BYTES_MAX: usize = 2 * PERMIT_RANGES_BYTES_MAX;

/// A client, from its hello to the end of its control stream.
pub(super) struct ClientSession {
    pub(super) peer: PeerId,
    pub(super) nonce: [u8; 32],
    pub(super) ticket: Ticket,
    /// Cancelled when the control stream ends; its data streams follow.
    pub(super) ended: CancellationToken,
    /// Data streams that may still be opened.
    pub(super) streams: Arc<Semaphore>,
    /// What moves on them.
    pub(super) life: Arc<Life>,
    /// Turns to have a control request in memory that is not small.
    pub(super) asking: Arc<Semaphore>,
    /// Turns to have a long control reply in memory.
    pub(super) answering: Arc<Semaphore>,
    begun_ms: u64,
    keys: Mutex<Vec<[u8; 32]>>,
    /// By client.
    permits: Mutex<HashMap<[u8; 32], Arc<SignedPermit>>>,
}

impl ClientSession {
    /// Checks and remembers a key.
    pub(super) fn prove(&self, provider: &PeerId, key: &[u8; 32], signature: &[u8]) -> Result<(), WireError> {
        let bad = || WireError::new(ErrorCode::BadSignature, "the key was not proven");
        let signature: &[u8; 64] = signature.try_into().map_err(|_| bad())?;
        let message = session_key_message(&self.peer.to_bytes(), &provider.to_bytes(), &self.nonce, key);
        verify_key_signature(key, &message, signature, "session").map_err(|_| bad())?;
        let mut keys = self.keys.lock();
        if !keys.contains(key) {
            if keys.len() >= KEYS_MAX {
                return Err(WireError::new(ErrorCode::Busy, "too many keys in one session"));
            }
            keys.push(*key);
        }
        Ok(())
    }

    /// Whether the key was proven.
    pub(super) fn has(&self, key: &[u8; 32]) -> bool {
        self.keys.lock().contains(key)
    }

    /// Remembers a permit that was judged good: one for each client.
    pub(super) fn permit(&self, permit: SignedPermit) -> Result<(), WireError> {
        let mut permits = self.permits.lock();
        if !permits.contains_key(&permit.body().client) && permits.len() >= PERMITS_MAX {
            return Err(WireError::new(ErrorCode::Busy, "too many permits in one session"));
        }
        let long = |permit: &SignedPermit| match permit.body().deals {
            Some(_) => permit.as_bytes().len(),
            None => 0,
        };
        let others = permits.values().filter(|known| known.body().client != permit.body().client);
        if long(&permit) > 0
            && others.map(|known| long(known)).sum::<usize>() + long(&permit) > RANGES_BYTES_MAX
        {
            return Err(WireError::new(ErrorCode::Busy, "too long permits in one session"));
        }
        permits.insert(permit.body().client, Arc::new(permit));
        Ok(())
    }

    /// The permit for this client's deals, if there is one that has not ended.
    pub(super) fn permitted(
        &self,
        client: &[u8; 32],
        provider: &[u8],
        now: u64,
    ) -> Option<Arc<SignedPermit>> {
        self.permits.lock().get(client).filter(|permit| permit.holds(provider, now)).cloned()
    }

    /// Forgets what was taken back.
    fn revoke(&self, list: &Revocations) {
        let mut permits = self.permits.lock();
        permits.retain(|client, permit| *client != list.client || !list.names(&permit.body().holder));
    }

    /// The keys that were proven, and the clients that permits for all their deals are of.
    pub(super) fn clients(&self) -> Vec<[u8; 32]> {
        let mut all = self.keys();
        let permits = self.permits.lock();
        all.extend(permits.values().filter(|p| p.body().deals.is_none()).map(|p| p.body().client));
        all
    }

    /// All that were.
    pub(super) fn keys(&self) -> Vec<[u8; 32]> {
        self.keys.lock().clone()
    }
}

/// Of those who have proven nothing in their time, the one who has had the most of it.
fn idle_stranger(sessions: &HashMap<Ticket, Arc<ClientSession>>, now_ms: u64) -> Option<Ticket> {
    let idle = sessions
        .values()
        .filter(|s| now_ms.saturating_sub(s.begun_ms) >= STRANGER_MS && s.keys.lock().is_empty());
    idle.min_by_key(|s| s.begun_ms).map(|s| s.ticket)
}

/// The living sessions.
#[derive(Default)]
pub(super) struct Sessions {
    by_ticket: Mutex<HashMap<Ticket, Arc<ClientSession>>>,
}

impl Sessions {
    /// Begins one, within the limits.
    pub(super) fn begin(
        &self,
        peer: PeerId,
        env: &Env,
        limits: &ProviderLimits,
        parent: &CancellationToken,
    ) -> Result<Arc<ClientSession>, WireError> {
        let mut sessions = self.by_ticket.lock();
        let now_ms = env.clock.monotonic_ms();
        let busy = || WireError::new(ErrorCode::Busy, "too many sessions");
        if sessions.values().filter(|s| s.peer == peer).count() >= limits.sessions_per_peer_max {
            return Err(busy());
        }
        if sessions.len() >= limits.sessions_max {
            let ticket = idle_stranger(&sessions, now_ms).ok_or_else(busy)?;
            if let Some(stranger) = sessions.remove(&ticket) {
                stranger.ended.cancel();
            }
        }
        let session = Arc::new(ClientSession {
            peer,
            nonce: env.random(),
            ticket: Ticket(env.random()),
            ended: parent.child_token(),
            streams: Arc::new(Semaphore::new(limits.streams_per_session_max)),
            life: Arc::new(Life::new()),
            asking: Arc::new(Semaphore::new(LONG_REQUESTS_MAX)),
            answering: Arc::new(Semaphore::new(LONG_REPLIES_MAX)),
            begun_ms: now_ms,
            keys: Mutex::default(),
            permits: Mutex::default(),
        });
        sessions.insert(session.ticket, session.clone());
        Ok(session)
    }

    /// Ends one.
    pub(super) fn end(&self, session: &ClientSession) {
        session.ended.cancel();
        self.by_ticket.lock().remove(&session.ticket);
    }

    /// The session that a data stream of this peer wants to join.
    pub(super) fn find(&self, peer: &PeerId, ticket: &Ticket) -> Option<Arc<ClientSession>> {
        self.by_ticket.lock().get(ticket).filter(|s| s.peer == *peer && !s.ended.is_cancelled()).cloned()
    }

    /// Permits that were taken back count no more, in sessions under way as well.
    pub(super) fn revoke(&self, list: &Revocations) {
        self.by_ticket.lock().values().for_each(|session| session.revoke(list));
    }

    pub(super) fn count(&self) -> usize {
        self.by_ticket.lock().len()
    }
}
