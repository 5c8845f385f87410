//! Control streams: a session from its hello to its end.

use std::sync::Arc;
use std::time::Duration;

use futures::AsyncReadExt;
use libp2p::{PeerId, Stream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};
use tokio::task::JoinSet;

use super::session::ClientSession;
use super::{Inner, audit, blocking};
use crate::codec::CodecError;
use crate::deal::{
    AnswerBody, DEAL_BYTES_MAX, DEAL_SUITE, DEAL_VERSION, SignedAnswer, SignedProposal, manifest_digest,
};
use crate::error::ErrorCode;
use crate::manifest::{MANIFEST_BYTES_MAX, SUITE_PUBLIC, SignedManifest};
use crate::node::AGENT;
use crate::permit::{Revocations, SignedPermit};
use crate::record::RECORD_BYTES_MAX;
use crate::record::RecordKind;
use crate::settlement::SettlementError;
use crate::term::{Grant, SignedClaim};
use crate::wire::WIRE_VERSION;
use crate::wire::frame::{FrameError, FrameKind, HEADER_BYTES};
use crate::wire::io::{self, Outgoing};
use crate::wire::limits::{FRAME_PAYLOAD_BYTES_MAX, HELLO_TIMEOUT, HOLDINGS_MAX, RANGES_MAX, READ_BYTES_MAX};
use crate::wire::message::{self, HoldingWire, ProviderInfo, Reply, Request, WireError};

use super::store::{DealState, RecordBounds};
use crate::deal::DealId;

/// Replies waiting to be written.
const OUTGOING_FRAMES_MAX: usize = 4;
/// Requests up to this length wait for no room: a session has `inflight_max` of them at most.
const SMALL_BYTES_MAX: usize = 1 << 10;
/// Bytes of a proof for each leaf that it shows, its path included; see proofs/SOUNDNESS.md, section 2.
const PROOF_LEAF_BYTES_MAX: usize = 2 << 10;
/// Clocks of clients may differ from ours by so many seconds.
const CLOCK_SKEW_SECONDS: u64 = 600;
/// Room in a page of holdings for what is not a deal.
const PAGE_SLACK_BYTES: usize = 4096;

/// Bytes in memory until they are no more, and the session's turn to have some.
struct Held {
    room: OwnedSemaphorePermit,
    _turn: OwnedSemaphorePermit,
}

impl Held {
    /// Waits for the session's turn, and until so many bytes more may be in memory.
    async fn take(turns: &Arc<Semaphore>, room: &Arc<Semaphore>, bytes: usize) -> Option<Held> {
        let turn = turns.clone().acquire_owned().await.ok()?;
        let bytes = u32::try_from(bytes).unwrap_or(u32::MAX);
        let room = room.clone().acquire_many_owned(bytes).await.ok()?;
        Some(Held { room, _turn: turn })
    }

    /// What turned out not to be needed is others'.
    fn shrink(mut self, bytes: usize) -> Held {
        let excess = self.room.num_permits().saturating_sub(bytes);
        drop(self.room.split(excess));
        self
    }
}

/// Serves one control stream until it ends.
pub(super) async fn serve(inner: &Arc<Inner>, peer: PeerId, mut stream: Stream) -> Result<(), FrameError> {
    let counters = inner.node.counters();
    let header = io::read_header(&mut stream, Some(HELLO_TIMEOUT)).await?;
    let payload = io::read_payload(&mut stream, &header).await?;
    let hello = (header.kind == FrameKind::Request).then(|| message::decode::<Request>(&payload));
    let session = match hello {
        Some(Ok(Request::Hello { v: WIRE_VERSION, .. })) => {
            inner.sessions.begin(peer, &inner.env, &inner.config.limits, &inner.stop)
        }
        Some(Ok(Request::Hello { .. })) => {
            Err(WireError::new(ErrorCode::Unsupported, format!("this is version {WIRE_VERSION}")))
        }
        _ => Err(WireError::new(ErrorCode::Malformed, "a session begins with hello")),
    };
    let session = match session {
        Ok(session) => session,
        Err(e) => {
            return io::write_flush(&mut stream, &message::error_frame(header.request, &e), &counters).await;
        }
    };
    let result = serve_session(inner, &session, stream, header.request).await;
    inner.sessions.end(&session);
    result
}

async fn serve_session(
    inner: &Arc<Inner>,
    session: &Arc<ClientSession>,
    stream: Stream,
    hello: u32,
) -> Result<(), FrameError> {
    let counters = inner.node.counters();
    let inflight_max = inner.config.limits.inflight_max;
    let (mut reader, mut writer) = stream.split();
    let (replies, mut outgoing) = mpsc::channel::<Outgoing<Option<Held>>>(OUTGOING_FRAMES_MAX);
    let greeting = Reply::Hello {
        agent: AGENT.into(),
        inflight: inflight_max,
        nonce: session.nonce,
        ranges: RANGES_MAX,
        read: READ_BYTES_MAX,
        ticket: session.ticket,
        v: WIRE_VERSION,
    };
    let greeting = message::frame_of(FrameKind::Reply, hello, &greeting);
    let _ = replies.send(Outgoing { frame: greeting, _held: None }).await;
    let idle = Duration::from_secs(inner.config.limits.idle_seconds.max(1));
    let inflight = Arc::new(Semaphore::new(usize::from(inflight_max)));
    let read = async {
        let mut tasks = JoinSet::new();
        loop {
            while tasks.try_join_next().is_some() {}
            let header = match io::read_header(&mut reader, Some(idle)).await {
                // Whoever waits for a long answer is not idle, nor is one whose data streams move.
                Err(FrameError::Idle) if !tasks.is_empty() || session.life.still() < idle => continue,
                result => result?,
            };
            let room = match header.payload > SMALL_BYTES_MAX {
                true => Held::take(&session.asking, &inner.asked, header.payload).await,
                false => None,
            };
            let payload = io::read_payload(&mut reader, &header).await?;
            counters.add_received(payload.len() + HEADER_BYTES);
            match header.kind {
                FrameKind::Request => {}
                // Every control request is short.
                FrameKind::Cancel => continue,
                kind => return Err(FrameError::Kind(kind as u8)),
            }
            // A client that keeps to what hello told never waits here; another one is not read any further.
            let Ok(permit) = inflight.clone().acquire_owned().await else { return Ok(()) };
            let (inner, session, replies) = (inner.clone(), session.clone(), replies.clone());
            tasks.spawn(async move {
                let request = message::decode::<Request>(&payload);
                drop(payload);
                let (reply, held) = match request {
                    Ok(request) => {
                        let held = hold_reply(&inner, &session, &request).await;
                        (answer(&inner, &session, request).await, held)
                    }
                    Err(e) => (Err(WireError::new(ErrorCode::Malformed, e.to_string())), None),
                };
                drop(room);
                let frame = match reply {
                    Ok(reply) => message::frame_of(FrameKind::Reply, header.request, &reply),
                    Err(e) => message::error_frame(header.request, &e),
                };
                let held = held.map(|held| held.shrink(frame.encoded().len()));
                let _ = replies.send(Outgoing { frame, _held: held }).await;
                drop(permit);
            });
        }
    };
    tokio::select! {
        result = read => result,
        result = io::write_all(&mut writer, &mut outgoing, &counters) => result,
        // It made room for another one.
        () = session.ended.cancelled() => Ok(()),
    }
}

/// Room for the longest answer to a request, before any of it is made. Proofs have their own: who does not take its pages
/// keeps nobody from being audited. Whoever gets but an error waits for nothing.
async fn hold_reply(inner: &Inner, session: &ClientSession, request: &Request) -> Option<Held> {
    let (room, bytes) = match request {
        Request::Audit(audit) if inner.stored(session, &audit.deal).is_ok() => {
            (&inner.proofs, PROOF_LEAF_BYTES_MAX * (usize::from(audit.count) + 1))
        }
        Request::Holdings { .. } if !session.keys().is_empty() => (&inner.answered, FRAME_PAYLOAD_BYTES_MAX),
        Request::Put { .. } if !session.keys().is_empty() => (&inner.answered, RECORD_BYTES_MAX),
        Request::Get { .. } => (&inner.answered, RECORD_BYTES_MAX),
        _ => return None,
    };
    Held::take(&session.answering, room, bytes.min(FRAME_PAYLOAD_BYTES_MAX)).await
}

async fn answer(
    inner: &Arc<Inner>,
    session: &Arc<ClientSession>,
    request: Request,
) -> Result<Reply, WireError> {
    match request {
        Request::Hello { .. } => Err(WireError::new(ErrorCode::Malformed, "a second hello")),
        Request::Auth { key, sig } => {
            session.prove(&inner.node.peer_id(), &key, &sig)?;
            Ok(Reply::Ok {})
        }
        Request::Info {} => info(inner, session).await,
        Request::Propose { proposal, manifest } => propose(inner, session, proposal, manifest).await,
        Request::Receipt { deal } => receipt(inner, session, deal).await,
        Request::Audit(request) => audit::answer(inner, session, request).await,
        Request::Holdings { after, max } => holdings(inner, session, after, max).await,
        Request::Put { key, value } => {
            let (by, bounds) = record_writer(inner, session).await?;
            let worker = inner.clone();
            let reply = blocking(move || {
                let list = (key.kind == RecordKind::Revocations).then(|| Revocations::from_bytes(&value));
                let kept = worker.store.records.put(worker.rules.as_ref(), &bounds, &key, value, by)?;
                if let (None, Some(Ok(list))) = (&kept, list) {
                    worker.sessions.revoke(&list);
                }
                Ok(Reply::Put { kept: kept.map(serde_bytes::ByteBuf::from) })
            })
            .await;
            inner.announcing.notify_one();
            reply
        }
        Request::Claim { claim, head } => self::claim(inner, session, &claim, head).await,
        Request::Get { key } => {
            let worker = inner.clone();
            blocking(move || {
                let value = worker.store.records.get(&key)?;
                Ok(Reply::Record { value: value.map(serde_bytes::ByteBuf::from) })
            })
            .await
        }
        Request::Release { deal } => release(inner, session, deal).await,
        Request::Tags {} => Ok(Reply::Tags(inner.config.tags.clone())),
        Request::Permit { permit } => {
            let permit = SignedPermit::from_bytes(&permit)
                .map_err(|e| WireError::new(ErrorCode::Malformed, e.to_string()))?;
            in_force(inner, session, &permit).await?;
            session.permit(permit)?;
            Ok(Reply::Ok {})
        }
    }
}

/// Whether a permit is for this provider and whoever asks, has not ended, and was not taken back.
async fn in_force(
    inner: &Arc<Inner>,
    session: &ClientSession,
    permit: &SignedPermit,
) -> Result<(), WireError> {
    let refuse = |text: &str| Err(WireError::new(ErrorCode::Unauthorized, text));
    let may = permit.body();
    if !session.has(&may.holder) {
        return refuse("the permit's key was not proven");
    }
    if !permit.holds(&inner.node.peer_id().to_bytes(), inner.env.clock.unix_seconds()) {
        return refuse("the permit is for another provider, or has ended");
    }
    let (worker, client) = (inner.clone(), may.client);
    let list = blocking(move || worker.store.records.get(&Revocations::key(&client))).await?;
    // What is kept was judged once: what does not verify any more is damage, and nobody's word.
    match list.and_then(|bytes| Revocations::from_bytes(&bytes).ok()) {
        Some(list) if list.names(&may.holder) => refuse("the permit was taken back"),
        _ => Ok(()),
    }
}

/// Who writes a record, within which bounds.
async fn record_writer(
    inner: &Inner,
    session: &ClientSession,
) -> Result<([u8; 32], RecordBounds), WireError> {
    let Some(first) = session.keys().first().copied() else {
        return Err(WireError::new(ErrorCode::Unauthorized, "no key was proven"));
    };
    let served = |client: &[u8; 32]| !inner.store.deals_of(&[*client], None, 1).is_empty();
    let served = session.clients().into_iter().find(served);
    let (stranger, by) = (served.is_none(), served.unwrap_or(first));
    if stranger && !inner.allows(&session.peer).await {
        return Err(WireError::new(ErrorCode::NotAllowed, "not a client of this provider"));
    }
    Ok((by, RecordBounds::of(&inner.config, stranger)))
}

/// A term is asked for; the claim is on the disk before the grant is signed.
async fn claim(
    inner: &Arc<Inner>,
    session: &ClientSession,
    claim: &[u8],
    have: Option<serde_bytes::ByteArray<32>>,
) -> Result<Reply, WireError> {
    let claim = SignedClaim::from_bytes(claim).map_err(|e| match e {
        CodecError::BadSignature(_) => WireError::new(ErrorCode::BadSignature, e.to_string()),
        e => WireError::new(ErrorCode::Malformed, e.to_string()),
    })?;
    let (by, bounds) = record_writer(inner, session).await?;
    let worker = inner.clone();
    blocking(move || {
        let claimed = worker.store.records.claim(worker.rules.as_ref(), &bounds, &claim, by)?;
        let grant = claimed.granted.then(|| Grant::sign(claim.claim(), worker.node.identity())).transpose();
        let grant = grant.map_err(|e| WireError::new(ErrorCode::Storage, e.to_string()))?;
        let known = |head: &Vec<u8>| have.is_some_and(|have| *have == message::record_digest(head));
        Ok(Reply::Claimed {
            claim: claimed.taken.map(|claim| serde_bytes::ByteBuf::from(claim.bytes().to_vec())),
            grant: grant.map(|grant| serde_bytes::ByteBuf::from(grant.signature().to_vec())),
            head: claimed.head.filter(|head| !known(head)).map(serde_bytes::ByteBuf::from),
        })
    })
    .await
}

async fn info(inner: &Arc<Inner>, session: &ClientSession) -> Result<Reply, WireError> {
    let allowed = inner.allows(&session.peer).await;
    let worker = inner.clone();
    let free = blocking(move || Ok(worker.store.room(&worker.config))).await?;
    let config = &inner.config;
    Ok(Reply::Info(ProviderInfo {
        agent: AGENT.into(),
        accepting: allowed && free > 0,
        free,
        len_max: config.limits.slot_bytes_max,
        now: inner.env.clock.unix_seconds(),
        price: config.price.clone(),
        settlement: inner.settlement.backend(),
        term_max: config.limits.term_seconds_max,
    }))
}

async fn propose(
    inner: &Arc<Inner>,
    session: &ClientSession,
    proposal: Vec<u8>,
    manifest: Vec<u8>,
) -> Result<Reply, WireError> {
    if proposal.len() > DEAL_BYTES_MAX || manifest.len() > MANIFEST_BYTES_MAX {
        return Err(WireError::new(ErrorCode::Malformed, "the proposal or its manifest is too long"));
    }
    let malformed = |e: crate::codec::CodecError| WireError::new(ErrorCode::Malformed, e.to_string());
    let proposal = SignedProposal::from_bytes(&proposal).map_err(malformed)?;
    let signed = SignedManifest::from_bytes(&manifest).map_err(malformed)?;
    let allowed = inner.allows(&session.peer).await;
    if let Some(permit) = proposal.permit() {
        in_force(inner, session, permit).await?;
    }
    check_proposal(inner, session, &proposal, &signed, allowed)?;
    let admitted = inner.settlement.admit(&proposal).await;
    admitted.map_err(|e| match e {
        SettlementError::WrongBackend { .. } => WireError::new(ErrorCode::Price, e.to_string()),
        SettlementError::Refused(_) => WireError::new(ErrorCode::Settlement, e.to_string()),
        SettlementError::Unavailable(_) => WireError::new(ErrorCode::Busy, e.to_string()),
    })?;
    let now = inner.env.clock.unix_seconds();
    let push_until = now.saturating_add(inner.config.limits.pending_seconds_max);
    let body = AnswerBody {
        version: DEAL_VERSION,
        suite: DEAL_SUITE,
        deal: proposal.deal_id(),
        accepted_at: now,
        push_until,
    };
    let answer = SignedAnswer::sign(body, inner.node.identity())
        .map_err(|e| WireError::new(ErrorCode::Storage, e.to_string()))?
        .to_bytes();
    let worker = inner.clone();
    let answer =
        blocking(move || worker.store.take(&worker.config, &proposal, &manifest, answer, push_until)).await?;
    Ok(Reply::Answer { answer })
}

fn check_proposal(
    inner: &Inner,
    session: &ClientSession,
    proposal: &SignedProposal,
    manifest: &SignedManifest,
    allowed: bool,
) -> Result<(), WireError> {
    let p = proposal.proposal();
    let refuse = |code, text: &str| Err(WireError::new(code, text));
    // A permit's holder was proven before.
    if proposal.permit().is_none() && !session.has(&p.client) {
        return refuse(ErrorCode::Unauthorized, "the deal's key was not proven");
    }
    if p.provider != inner.node.peer_id().to_bytes() {
        return refuse(ErrorCode::Malformed, "a proposal for another provider");
    }
    if p.manifest != manifest_digest(manifest.as_bytes()) {
        return refuse(ErrorCode::Malformed, "another manifest than the proposal's");
    }
    let slots = &manifest.manifest().slots;
    if !slots.iter().any(|slot| slot.piece_cid == p.piece_cid && slot.raw_len == p.raw_len) {
        return refuse(ErrorCode::Malformed, "the manifest does not have this slot");
    }
    // What was promised already is answered again even if the policy has changed since.
    if inner.store.entry(&proposal.deal_id()).is_some() {
        return Ok(());
    }
    if !allowed {
        return refuse(ErrorCode::NotAllowed, "this provider takes no deals from you");
    }
    if manifest.manifest().suite == SUITE_PUBLIC && !inner.config.public {
        return refuse(ErrorCode::NotAllowed, "this provider takes no public data");
    }
    let limits = &inner.config.limits;
    let now = inner.env.clock.unix_seconds();
    if p.raw_len > limits.slot_bytes_max {
        return refuse(ErrorCode::Terms, "the slot is too long");
    }
    if p.end <= now || p.end > now.saturating_add(limits.term_seconds_max) {
        return refuse(ErrorCode::Terms, "the deal has ended, or its term is too long");
    }
    if p.start > now.saturating_add(CLOCK_SKEW_SECONDS) {
        return refuse(ErrorCode::Terms, "the deal begins in the future");
    }
    if is_less(&p.price, &inner.config.price) {
        return refuse(ErrorCode::Price, "below the asking price");
    }
    match inner.config.gate.refuses(p.raw_len) {
        Some(reason) => refuse(ErrorCode::Busy, &reason),
        None => Ok(()),
    }
}

/// Compares big-endian numbers without leading zeros.
fn is_less(a: &[u8], b: &[u8]) -> bool {
    (a.len(), a) < (b.len(), b)
}

async fn receipt(inner: &Arc<Inner>, session: &ClientSession, deal: DealId) -> Result<Reply, WireError> {
    inner.stored(session, &deal)?;
    let worker = inner.clone();
    blocking(move || {
        let receipt = worker.store.row(&deal)?.receipt;
        let missing = || WireError::new(ErrorCode::NotStored, "the slot has not been stored");
        Ok(Reply::Receipt { receipt: receipt.ok_or_else(missing)?.into_vec() })
    })
    .await
}

async fn holdings(
    inner: &Arc<Inner>,
    session: &ClientSession,
    after: Option<DealId>,
    max: u16,
) -> Result<Reply, WireError> {
    let keys = session.keys();
    if keys.is_empty() {
        return Err(WireError::new(ErrorCode::Unauthorized, "no key was proven"));
    }
    let worker = inner.clone();
    blocking(move || {
        let max = usize::from(max.clamp(1, HOLDINGS_MAX));
        let mut list: Vec<HoldingWire> = Vec::new();
        let mut room = FRAME_PAYLOAD_BYTES_MAX - PAGE_SLACK_BYTES;
        let mut cursor = after;
        // Deals whose rows cannot be read fill no page: the walk goes on behind them.
        loop {
            let ids = worker.store.deals_of(&keys, cursor, max);
            if ids.is_empty() {
                return Ok(Reply::Holdings { list, next: None });
            }
            for id in ids {
                let Ok(row) = worker.store.row(&id) else {
                    cursor = Some(id);
                    continue;
                };
                let receipt = row.receipt.filter(|_| row.state == DealState::Stored);
                let receipt_len = receipt.as_ref().map_or(0, |r| r.len());
                let len = row.manifest.len() + row.proposal.len() + receipt_len + 128;
                if list.len() >= max || len > room {
                    let next = list.last().map(|h| h.deal);
                    return Ok(Reply::Holdings { list, next });
                }
                cursor = Some(id);
                room -= len;
                list.push(HoldingWire { deal: id, manifest: row.manifest, proposal: row.proposal, receipt });
            }
        }
    })
    .await
}

async fn release(inner: &Arc<Inner>, session: &ClientSession, deal: DealId) -> Result<Reply, WireError> {
    inner.owned(session, &deal)?;
    let pushing = inner.pushing.lock().get(&deal).cloned();
    if let Some(push) = pushing {
        push.cancel();
    }
    let worker = inner.clone();
    blocking(move || worker.store.release(&deal)).await?;
    // What the settlement cannot end now, it ends with the deal's term.
    if let Err(e) = inner.settlement.end(deal).await {
        tracing::warn!(%deal, "settlement did not take the release: {e}");
    }
    Ok(Reply::Ok {})
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn room_is_given_back_as_it_is_not_needed() {
        let (turns, room) = (Arc::new(Semaphore::new(2)), Arc::new(Semaphore::new(1000)));
        let held = Held::take(&turns, &room, 700).await.unwrap();
        assert_eq!((turns.available_permits(), room.available_permits()), (1, 300));
        let held = held.shrink(200);
        assert_eq!((turns.available_permits(), room.available_permits()), (1, 800));
        let held = held.shrink(5000);
        assert_eq!(room.available_permits(), 800, "a longer one than was thought takes no more");
        let second = Held::take(&turns, &room, 800).await.unwrap();
        drop(held);
        assert_eq!((turns.available_permits(), room.available_permits()), (1, 200));
        drop(second);
        assert_eq!((turns.available_permits(), room.available_permits()), (2, 1000));
    }
}
