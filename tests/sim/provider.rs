//! A provider, modelled: what it keeps, what it answers, and how it lies.
//!
//! Deals, receipts, proofs and records are the real ones, signed and made by the same code as a real provider's; only its disk is
//! a map, and its clock a number. What a claim is granted and which record is higher is decided by the functions that providers
//! run (`holdfast_net::term`, `holdfast::records`).

use std::collections::{BTreeMap, BTreeSet};

use holdfast::records::DriveRecords;
use holdfast_net::deal::{AnswerBody, DEAL_SUITE, DEAL_VERSION, ReceiptBody};
use holdfast_net::record::{RecordKey, RecordKind, RecordRules as _, RecordVerdict};
use holdfast_net::tags::Tags;
use holdfast_net::term::{self, Decision, Grant, SignedClaim};
use holdfast_net::wire::message::{
    AuditBody, AuditRequest, ProviderInfo, Reply, Request, audit_message, proof_digest, record_digest,
};
use holdfast_net::{
    DealId, ErrorCode, Keypair, NetError, SignedAnswer, SignedManifest, SignedPermit, SignedProposal,
    SignedReceipt, codec, identity,
};
use holdfast_proofs::{Challenge, CommpHasher, PieceCid, SeedInputs, TreeCache, TreeLevel};
use serde_bytes::{ByteArray, ByteBuf};

use crate::machine;
use crate::permitted::Shown;
use crate::planted::Bug;
use crate::world::Who;

/// Clocks of clients may differ by so many seconds, as with a real provider.
const CLOCK_SKEW_SECONDS: u64 = 600;
/// A deal that was taken and not pushed is forgotten after so long.
const PUSH_SECONDS: u64 = 3600;
/// An ended deal is kept for so long, by time that the provider was up.
pub const GRACE_SECONDS: u64 = 3600;
/// The longest term.
const TERM_SECONDS_MAX: u64 = 400 * 24 * 3600;
/// A real one reads all that it keeps once a month, not once an hour.
const SCRUB_SECONDS: u64 = 3600;

/// How a provider is not what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lie {
    /// It signs receipts and throws the bytes away.
    StoresNothing,
    /// It keeps one slot of each piece, with others behind the same disk or alone, and answers for the rest from there.
    AnswersFromNeighbour,
    /// It signs receipts for something else.
    FalseReceipts,
    /// It gives other bytes than it keeps.
    GivesOtherBytes,
    /// It keeps and proves everything, and knows of nothing when somebody reads.
    RefusesReads,
    /// The same, and it is busy whenever somebody reads.
    PutsReadsOff,
    /// It says yes to every challenge of an earlier day: it answers with the first proof that it ever made.
    ReplaysProofs,
}

/// All of them.
pub const LIES: [Lie; 7] = [
    Lie::StoresNothing,
    Lie::AnswersFromNeighbour,
    Lie::FalseReceipts,
    Lie::GivesOtherBytes,
    Lie::RefusesReads,
    Lie::PutsReadsOff,
    Lie::ReplaysProofs,
];

impl Lie {
    /// Whether what it keeps is nobody's who reads.
    pub fn gives_nothing(self) -> bool {
        use Lie::{AnswersFromNeighbour, GivesOtherBytes, PutsReadsOff, RefusesReads};
        matches!(self, AnswersFromNeighbour | GivesOtherBytes | PutsReadsOff | RefusesReads)
    }
}

/// What a provider keeps of a deal.
pub struct Deal {
    pub proposal: SignedProposal,
    /// The piece, or the stripe, whose slot it is.
    pub of: [u8; 16],
    pub client: [u8; 32],
    /// Whose permit it was made by, if so; and when, as the provider believes.
    pub by: Option<[u8; 32]>,
    pub accepted_at: u64,
    /// Bytes that came so far, of a push that is not over.
    pub partial: Vec<u8>,
    pub stored: Option<Stored>,
    push_until: u64,
    /// The uptime at which it was seen to have ended.
    gone: Option<u64>,
    first_proof: Option<(Vec<u8>, Vec<u8>, Vec<u8>)>,
}

/// A slot on a disk.
pub struct Stored {
    pub bytes: Vec<u8>,
    tree: Vec<u8>,
    receipt: Vec<u8>,
    pub at: u64,
    /// They are the deal's, to the last one.
    pub intact: bool,
    /// Its provider has read all of it, and found that they are not.
    damaged: bool,
}

/// See the module.
pub struct Provider {
    identity: Keypair,
    pub peer: Vec<u8>,
    /// What it says of where it belongs.
    pub tags: Tags,
    /// Who shares its disk, its operator or its region fails with it.
    pub group: Option<u32>,
    /// It runs.
    pub up: bool,
    /// It and its disk are gone for ever.
    pub destroyed: bool,
    /// Nothing passes between it and these.
    pub cut: BTreeSet<Who>,
    /// Milliseconds that its disk takes for anything.
    pub disk_ms: u64,
    /// How far its clock is wrong.
    pub clock_offset: i64,
    pub lie: Option<Lie>,
    /// Counts its starts: connections end with each.
    pub incarnation: u64,
    pub deals: BTreeMap<DealId, Deal>,
    /// Deals whose bytes it had, whole, at some time.
    pub had: BTreeSet<DealId>,
    /// How often it gave something of a deal, as it was, to who read it.
    pub gave: BTreeMap<DealId, u32>,
    pub records: BTreeMap<RecordKey, Vec<u8>>,
    uptime: u64,
    /// What is planted in it.
    pub bug: Option<Bug>,
    asked: u64,
}

pub type Outcome<T> = Result<T, NetError>;

pub fn refuse<T>(code: ErrorCode, message: &str) -> Outcome<T> {
    Err(NetError::Refused { code, message: message.to_owned() })
}

impl Provider {
    pub fn new(seed: [u8; 32], group: Option<u32>, tags: Tags) -> Outcome<Provider> {
        let identity = identity::keypair(seed)?;
        Ok(Provider {
            peer: identity.public().to_peer_id().to_bytes(),
            identity,
            tags,
            group,
            up: true,
            destroyed: false,
            cut: BTreeSet::new(),
            disk_ms: 2,
            clock_offset: 0,
            lie: None,
            incarnation: 1,
            deals: BTreeMap::new(),
            had: BTreeSet::new(),
            gave: BTreeMap::new(),
            records: BTreeMap::new(),
            uptime: 0,
            bug: None,
            asked: 0,
        })
    }

    /// Unix seconds, as it believes.
    pub fn now(&self) -> u64 {
        machine::true_seconds().saturating_add_signed(self.clock_offset)
    }

    /// What a real one looks at by itself: damage, deals that ended, and pushes that did not come.
    pub fn sweep(&mut self, seconds: u64) {
        if !self.up {
            return;
        }
        let scrubs = (self.uptime + seconds) / SCRUB_SECONDS > self.uptime / SCRUB_SECONDS;
        self.uptime += seconds;
        if scrubs && self.lie.is_none() && self.bug.is_none() {
            self.deals
                .values_mut()
                .filter_map(|deal| deal.stored.as_mut())
                .for_each(|s| s.damaged = !s.intact);
        }
        let (now, uptime) = (self.now(), self.uptime);
        self.deals.retain(|_, deal| {
            if deal.stored.is_none() && deal.push_until < now {
                return false;
            }
            match (deal.proposal.proposal().end < now, deal.gone) {
                (true, None) => deal.gone = Some(uptime),
                (false, Some(_)) => deal.gone = None,
                (true, Some(gone)) => return uptime - gone < GRACE_SECONDS,
                (false, None) => {}
            }
            true
        });
    }

    /// A restart with a planted bug: what was signed for since then was not on the disk.
    pub fn forget_since(&mut self, since: u64) {
        for deal in self.deals.values_mut() {
            if let Some(stored) = deal.stored.as_mut().filter(|stored| stored.at >= since) {
                stored.bytes.clear();
                stored.intact = false;
            }
        }
    }

    /// Answers a control request of `auditor`, in whose session something was `shown`. `siblings`: what the others behind its disk keep.
    pub fn answer(
        &mut self,
        auditor: &[u8],
        shown: &Shown,
        request: Request,
        siblings: &BTreeMap<[u8; 16], Vec<u8>>,
    ) -> Outcome<Reply> {
        match request {
            Request::Info {} => Ok(Reply::Info(ProviderInfo {
                agent: "model".into(),
                accepting: true,
                free: 1 << 40,
                len_max: 1 << 30,
                now: self.now(),
                price: Vec::new(),
                settlement: 0,
                term_max: TERM_SECONDS_MAX,
            })),
            Request::Tags {} => Ok(Reply::Tags(self.tags.clone())),
            Request::Propose { proposal, manifest } => self.propose(shown, &proposal, &manifest),
            Request::Receipt { deal } => {
                let deal = self.permitted(shown, &deal, false)?;
                match &deal.stored {
                    Some(stored) => Ok(Reply::Receipt { receipt: stored.receipt.clone() }),
                    None => refuse(ErrorCode::NotStored, "the slot has not been stored"),
                }
            }
            Request::Audit(request) => self.audit(auditor, shown, &request, siblings),
            Request::Put { key, value } => self.put(shown, key, value),
            Request::Get { key } => {
                let owner = || self.deals.values().any(|deal| shown.keys.contains(&deal.client));
                let unheard = self.bug == Some(Bug::FellowsUnheard) && key.kind == RecordKind::WatchLog;
                let deaf = unheard && !owner();
                let value = self.records.get(&key).filter(|_| !deaf).cloned();
                Ok(Reply::Record { value: value.map(ByteBuf::from) })
            }
            Request::Claim { claim, head } => self.claim(shown, &claim, head),
            Request::Release { deal } => {
                match self.bug {
                    Some(Bug::PermitsRelease) => self.permitted(shown, &deal, false)?,
                    _ => self.owned(shown, &deal)?,
                };
                if self.bug != Some(Bug::ReleasesLost) {
                    self.deals.remove(&deal);
                }
                Ok(Reply::Ok {})
            }
            Request::Permit { permit } => {
                self.in_force(shown, &SignedPermit::from_bytes(&permit)?)?;
                Ok(Reply::Ok {})
            }
            Request::Hello { .. } | Request::Auth { .. } | Request::Holdings { .. } => {
                refuse(ErrorCode::Unsupported, "not in the model")
            }
        }
    }

    pub fn owned(&mut self, shown: &Shown, deal: &DealId) -> Outcome<&mut Deal> {
        match self.deals.get_mut(deal).filter(|deal| shown.keys.contains(&deal.client)) {
            Some(deal) => Ok(deal),
            None => refuse(ErrorCode::NotFound, "no such deal"),
        }
    }

    fn propose(&mut self, shown: &Shown, proposal: &[u8], manifest: &[u8]) -> Outcome<Reply> {
        let proposal = SignedProposal::from_bytes(proposal)?;
        let manifest = SignedManifest::from_bytes(manifest)?;
        let (p, id, now) = (proposal.proposal().clone(), proposal.deal_id(), self.now());
        match proposal.permit() {
            Some(permit) => self.in_force(shown, permit)?,
            None if !shown.keys.contains(&p.client) => {
                return refuse(ErrorCode::Unauthorized, "the client's key was not proven");
            }
            None => {}
        }
        if p.provider != self.peer {
            return refuse(ErrorCode::Malformed, "a proposal for another provider");
        }
        if !self.deals.contains_key(&id) {
            if p.end <= now || p.end > now.saturating_add(TERM_SECONDS_MAX) {
                return refuse(ErrorCode::Terms, "the deal has ended, or its term is too long");
            }
            if p.start > now.saturating_add(CLOCK_SKEW_SECONDS) {
                return refuse(ErrorCode::Terms, "the deal begins in the future");
            }
            if let Some(permit) = proposal.permit() {
                self.keeps_within(permit.body(), &p)?;
            }
        }
        let push_until = now.saturating_add(PUSH_SECONDS);
        let taken = Deal {
            of: manifest.manifest().id,
            client: p.client,
            by: proposal.permit().map(|permit| permit.body().holder),
            accepted_at: now,
            partial: Vec::new(),
            stored: None,
            push_until,
            gone: None,
            first_proof: None,
            proposal,
        };
        self.deals.entry(id).or_insert(taken);
        let body =
            AnswerBody { version: DEAL_VERSION, suite: DEAL_SUITE, deal: id, accepted_at: now, push_until };
        Ok(Reply::Answer { answer: SignedAnswer::sign(body, &self.identity)?.to_bytes() })
    }

    /// A push may begin, from some byte on; or there is a receipt already. A slot of the same piece CID that another of the client's
    /// deals keeps is not sent again.
    pub fn begin_push(&mut self, shown: &Shown, deal: &DealId) -> Outcome<Result<u64, Vec<u8>>> {
        let (client, cid) = {
            let deal = self.permitted(shown, deal, true)?;
            if let Some(stored) = &deal.stored {
                return Ok(Err(stored.receipt.clone()));
            }
            (deal.client, deal.proposal.proposal().piece_cid)
        };
        let same = |other: &&Deal| other.client == client && other.proposal.proposal().piece_cid == cid;
        let known = self.deals.values().filter(same).find_map(|other| {
            other.stored.as_ref().filter(|stored| stored.intact).map(|stored| stored.bytes.clone())
        });
        if let Some(bytes) = known {
            // Under another deal, which is as good.
            self.had.insert(*deal);
            return self.finish_push(deal, bytes).map(Err);
        }
        let lies = self.lie == Some(Lie::StoresNothing);
        let deal = self.permitted(shown, deal, true)?;
        if lies {
            deal.partial.clear();
        }
        Ok(Ok(deal.partial.len() as u64))
    }

    /// All bytes came: they are hashed, kept, and signed for.
    pub fn finish_push(&mut self, id: &DealId, bytes: Vec<u8>) -> Outcome<Vec<u8>> {
        let (lie, peer) = (self.lie, self.peer.clone());
        let stored_at = self.now();
        let Some(deal) = self.deals.get_mut(id) else { return refuse(ErrorCode::NotFound, "no such deal") };
        let p = deal.proposal.proposal().clone();
        let mut hasher = CommpHasher::with_cache(TreeLevel::within(bytes.len() as u64, bytes.len() as u64));
        hasher.update(&bytes);
        let mut tree = hasher.drain_cache();
        let (cid, rest) = hasher.finish_with_cache();
        tree.extend(rest);
        deal.partial = Vec::new();
        let honest = cid.to_bytes() == p.piece_cid.to_bytes();
        if !honest && lie.is_none() {
            return refuse(ErrorCode::PieceMismatch, "the pushed bytes are not the deal's");
        }
        let body = ReceiptBody {
            version: DEAL_VERSION,
            suite: DEAL_SUITE,
            deal: if lie == Some(Lie::FalseReceipts) { DealId([7; 32]) } else { *id },
            piece_cid: p.piece_cid,
            raw_len: p.raw_len,
            client: p.client,
            provider: peer,
            stored_at,
        };
        let receipt = SignedReceipt::sign(body, &self.identity)?.to_bytes();
        let keeps = !matches!(lie, Some(Lie::StoresNothing | Lie::AnswersFromNeighbour));
        if keeps && honest {
            self.had.insert(*id);
        }
        let fools = self.bug == Some(Bug::AuditsPass);
        let bytes = if keeps || fools { bytes } else { Vec::new() };
        let intact = keeps && honest;
        deal.stored = Some(Stored {
            bytes,
            tree,
            receipt: receipt.clone(),
            at: machine::true_seconds(),
            intact,
            damaged: false,
        });
        Ok(receipt)
    }

    /// The bytes that it would answer for a deal with.
    fn bytes_of(&self, id: &DealId, siblings: &BTreeMap<[u8; 16], Vec<u8>>) -> Option<Vec<u8>> {
        let deal = self.deals.get(id)?;
        let stored = deal.stored.as_ref()?;
        match self.lie {
            Some(Lie::AnswersFromNeighbour) if self.bug != Some(Bug::AuditsPass) => {
                siblings.get(&deal.of).cloned()
            }
            _ => Some(stored.bytes.clone()),
        }
    }

    /// Ranges of a slot, one after the other.
    pub fn read(
        &mut self,
        shown: &Shown,
        id: &DealId,
        ranges: &[holdfast_net::ByteRange],
        siblings: &BTreeMap<[u8; 16], Vec<u8>>,
    ) -> Outcome<Vec<u8>> {
        let deal = self.readable(shown, id, ranges)?;
        if deal.stored.is_none() {
            return refuse(ErrorCode::NotStored, "the slot has not been stored");
        }
        match self.lie {
            Some(Lie::RefusesReads) => return refuse(ErrorCode::NotFound, "no such deal"),
            Some(Lie::PutsReadsOff) => return refuse(ErrorCode::Busy, "too many reads"),
            _ => {}
        }
        let bytes = self.bytes_of(id, siblings).unwrap_or_default();
        let mut out = Vec::new();
        for range in ranges {
            let (from, len) = (usize::try_from(range.offset).unwrap_or(usize::MAX), range.len as usize);
            match bytes.get(from..from.saturating_add(len)) {
                Some(part) => out.extend_from_slice(part),
                // A liar makes something up; who lost the file says so.
                None if self.lie.is_some() => out.resize(out.len() + len, 0x55),
                None => return refuse(ErrorCode::Corrupt, "the slot cannot be read"),
            }
        }
        if self.lie == Some(Lie::GivesOtherBytes) {
            out.iter_mut().step_by(97).for_each(|byte| *byte ^= 1);
        } else if self
            .deals
            .get(id)
            .and_then(|deal| deal.stored.as_ref())
            .is_some_and(|s| !bytes.is_empty() && s.bytes == bytes)
        {
            *self.gave.entry(*id).or_default() += 1;
        }
        Ok(out)
    }

    fn audit(
        &mut self,
        auditor: &[u8],
        shown: &Shown,
        request: &AuditRequest,
        siblings: &BTreeMap<[u8; 16], Vec<u8>>,
    ) -> Outcome<Reply> {
        self.asked += 1;
        if self.bug == Some(Bug::Restless) && self.asked.is_multiple_of(3) {
            return refuse(ErrorCode::Corrupt, "so it says");
        }
        let lies_to_watchers = self.bug == Some(Bug::WatchersMisled) && !shown.permits.is_empty();
        if lies_to_watchers && self.asked.is_multiple_of(5) {
            return refuse(ErrorCode::Corrupt, "so it says to who has a permit");
        }
        let deal = self.permitted(shown, &request.deal, false)?;
        let Some(stored) = &deal.stored else {
            return refuse(ErrorCode::NotStored, "the slot has not been stored");
        };
        if stored.damaged {
            return refuse(ErrorCode::Corrupt, "the slot is damaged");
        }
        let replay = deal.first_proof.clone();
        let piece = PieceCid::from_bytes(&deal.proposal.proposal().piece_cid.to_bytes())
            .map_err(|e| NetError::Local(e.to_string()))?;
        let tree = stored.tree.clone();
        if self.lie == Some(Lie::ReplaysProofs)
            && let Some((body, proof, sig)) = replay
        {
            return Ok(Reply::Audit { body, proof, sig });
        }
        let seed = Challenge::seed_from(&SeedInputs {
            nonce: request.nonce,
            auditor,
            prover: &self.peer,
            deal: &request.deal.0,
            epoch: request.epoch,
        });
        let challenge = Challenge::new(seed, request.count).map_err(|e| NetError::Invalid(e.to_string()))?;
        let bytes = self.bytes_of(&request.deal, siblings).unwrap_or_default();
        let proof = TreeCache::open(tree, &piece)
            .map_err(|e| e.to_string())
            .and_then(|tree| holdfast_proofs::prove(&bytes, &tree, &challenge).map_err(|e| e.to_string()))
            .and_then(|proof| proof.encode().map_err(|e| e.to_string()));
        let proof = match proof {
            Ok(proof) => {
                // Somebody behind the same disk has this very slot, and for as long so has this one.
                if self.lie == Some(Lie::AnswersFromNeighbour) && self.bug != Some(Bug::AuditsPass) {
                    self.had.insert(request.deal);
                }
                proof
            }
            // What a liar has in its stead.
            Err(_) if self.lie == Some(Lie::AnswersFromNeighbour) => {
                let mut hasher =
                    CommpHasher::with_cache(TreeLevel::within(piece.payload_len(), piece.payload_len()));
                hasher.update(&bytes);
                let mut tree = hasher.drain_cache();
                let (other, rest) = hasher.finish_with_cache();
                tree.extend(rest);
                let made = TreeCache::open(tree, &other).ok().and_then(|tree| {
                    holdfast_proofs::prove(&bytes, &tree, &challenge)
                        .ok()
                        .and_then(|proof| proof.encode().ok())
                });
                made.unwrap_or_default()
            }
            Err(why) => return refuse(ErrorCode::Corrupt, &why),
        };
        let record =
            request.record.as_ref().and_then(|key| self.records.get(key)).map(|value| record_digest(value));
        let body = codec::encode(&AuditBody {
            at: self.now(),
            count: request.count,
            deal: request.deal,
            proof: proof_digest(&proof),
            record: record.map(ByteArray::new),
            seed,
            v: 1,
        });
        let sig = self.identity.sign(&audit_message(&body)).map_err(|e| NetError::Local(e.to_string()))?;
        if let Some(deal) = self.deals.get_mut(&request.deal) {
            deal.first_proof.get_or_insert_with(|| (body.clone(), proof.clone(), sig.clone()));
        }
        Ok(Reply::Audit { body, proof, sig })
    }

    fn put(&mut self, shown: &Shown, key: RecordKey, value: Vec<u8>) -> Outcome<Reply> {
        if shown.keys.is_empty() {
            return refuse(ErrorCode::Unauthorized, "no key was proven");
        }
        let stale = self.bug == Some(Bug::SharesStale) && key.kind == RecordKind::Share;
        if (stale && self.records.contains_key(&key))
            || (self.bug == Some(Bug::LogsLost) && key.kind == RecordKind::WatchLog)
        {
            return Ok(Reply::Put { kept: None });
        }
        let kept = self.records.get(&key);
        match DriveRecords.judge(&key, &value, kept.map(Vec::as_slice)) {
            RecordVerdict::Invalid(why) => return refuse(ErrorCode::BadRecord, &why),
            RecordVerdict::NotHigher => return Ok(Reply::Put { kept: kept.cloned().map(ByteBuf::from) }),
            RecordVerdict::Higher => {}
        }
        if key.kind == RecordKind::Head
            && let Some(of) = DriveRecords.term(&key, &value)
        {
            let granted = self.granted(&key.name)?;
            if !term::admits(granted.as_ref().map(SignedClaim::claim), of.term, of.writer.as_ref()) {
                return refuse(ErrorCode::Overtaken, "a higher term was granted");
            }
        }
        self.records.insert(key, value);
        Ok(Reply::Put { kept: None })
    }

    fn granted(&self, name: &[u8]) -> Outcome<Option<SignedClaim>> {
        let claim = self.records.get(&RecordKey::new(RecordKind::Claim, name));
        Ok(claim.map(|claim| SignedClaim::from_bytes(claim)).transpose()?)
    }

    fn claim(&mut self, shown: &Shown, claim: &[u8], have: Option<ByteArray<32>>) -> Outcome<Reply> {
        if shown.keys.is_empty() {
            return refuse(ErrorCode::Unauthorized, "no key was proven");
        }
        let claim = SignedClaim::from_bytes(claim)?;
        let name = claim.claim().name;
        let head_key = RecordKey::new(RecordKind::Head, name);
        let granted = self.granted(&name)?;
        let head = self.records.get(&head_key).cloned();
        let of = head.as_ref().and_then(|head| DriveRecords.term(&head_key, head));
        let decision = term::decide(granted.as_ref().map(SignedClaim::claim), of.as_ref(), claim.claim());
        if decision == Decision::Grant {
            self.records.insert(RecordKey::new(RecordKind::Claim, name), claim.bytes().to_vec());
        }
        let grants = matches!(decision, Decision::Grant | Decision::Again);
        let grant = grants.then(|| Grant::sign(claim.claim(), &self.identity)).transpose()?;
        let taken = granted.filter(|_| decision == Decision::Taken);
        let known = |head: &Vec<u8>| have.is_some_and(|have| *have == record_digest(head));
        Ok(Reply::Claimed {
            claim: taken.map(|claim| ByteBuf::from(claim.bytes().to_vec())),
            grant: grant.map(|grant| ByteBuf::from(grant.signature().to_vec())),
            head: head.filter(|head| !known(head)).map(ByteBuf::from),
        })
    }
}
