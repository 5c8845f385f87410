//! Claiming a term: asking every anchor, until one outcome is certain or the patience is over.
//!
//! Promises: what comes out as held was granted by a majority, each grant verified; a head that is higher than the one that was
//! begun from ends the claim, whoever showed it; every wait ends. Refuses to believe in terms that nobody claimed.

use std::future::Future;
use std::time::Duration;

use futures::StreamExt;
use futures::stream::FuturesUnordered;
use holdfast_content::keys::DriveKeys;
use holdfast_net::client::{ClaimAnswer, Said};
use holdfast_net::term::{Anchors, Certificate, Outcome, Round, SignedClaim};
use holdfast_net::wire::message::record_digest;
use holdfast_net::{Env, ErrorCode, NetError, Session, SigningKey};

use super::ledger::Peer;
use crate::records::HeadValue;

/// How long answers are waited for once a majority has granted: the others may know of a rival.
const GRACE: Duration = Duration::from_secs(1);
/// Terms tried one after the other.
const ROUNDS_MAX: usize = 8;
/// A term by the owner's word is so far above the others, and up to twice as far: those that were not asked may grant the next one
/// to somebody else, who must not hold the same.
const FORCED_ABOVE: u64 = 1024;
/// Two that claim at once are told apart by the first who waits longer; it doubles up to four times.
const PAUSE_MS: u64 = 60;

/// What a claim begins from.
#[derive(Debug, Clone)]
pub struct Base {
    /// The highest head that is known, as it travels.
    pub head: Option<Vec<u8>>,
    /// Of which term it is; 0 without one.
    pub term: u64,
    /// Whom to ask.
    pub anchors: Anchors,
}

/// Why there is no term yet.
#[derive(Debug, Clone)]
pub struct TooFew {
    /// Anchors that granted.
    pub granted: usize,
    /// Of so many ...
    pub of: usize,
    /// ... of which so many are of an older version.
    pub older: usize,
}

impl std::fmt::Display for TooFew {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self { granted, of, older } = self;
        write!(f, "{granted} of the {of} providers that decide who writes the drive have agreed")?;
        match older {
            0 => Ok(()),
            n => write!(f, ", and {n} run an older Holdfast that cannot"),
        }
    }
}

/// What became of it.
#[derive(Debug)]
pub enum Claimed {
    /// The term is this machine's.
    Held(Certificate),
    /// Somebody showed a higher head.
    Newer(Box<HeadValue>),
    /// Too few answered.
    TooFew(TooFew),
}

/// Who claims.
pub struct Claimant<'a> {
    pub keys: &'a DriveKeys,
    pub writer: &'a SigningKey,
    pub env: &'a Env,
    /// How long one round of answers is waited for.
    pub patience: Duration,
    /// Whether, by the owner's word, those that grant are enough.
    pub force: bool,
}

impl Claimant<'_> {
    /// Claims the term after `base`'s, or the next that can be had.
    pub async fn claim<S, F>(&self, base: &Base, session: S) -> Claimed
    where
        S: Fn(Peer) -> F,
        F: Future<Output = Result<Session, NetError>>,
    {
        let mut term = base.term.saturating_add(1);
        let mut last = TooFew { granted: 0, of: base.anchors.all().len(), older: 0 };
        for attempt in 0..ROUNDS_MAX {
            let claim = SignedClaim::sign(term, self.keys.head_signing(), self.writer);
            let (round, newer, older) = self.ask(base, &claim, &session).await;
            if let Some(newer) = newer {
                return Claimed::Newer(Box::new(newer));
            }
            last = TooFew { granted: round.grants().len(), older, ..last };
            match round.outcome() {
                Outcome::Held(certificate) => return Claimed::Held(certificate),
                Outcome::Next(higher) => term = higher,
                Outcome::TooFew => break,
            }
            self.pause(attempt).await;
        }
        if !self.force {
            return Claimed::TooFew(last);
        }
        let random = u64::from(u16::from_be_bytes(self.random())) % FORCED_ABOVE;
        let term = term.saturating_add(FORCED_ABOVE + random);
        let claim = SignedClaim::sign(term, self.keys.head_signing(), self.writer);
        let (round, newer, _) = self.ask(base, &claim, &session).await;
        match (newer, round.forced()) {
            (Some(newer), _) => Claimed::Newer(Box::new(newer)),
            (None, Some(certificate)) => Claimed::Held(certificate),
            (None, None) => Claimed::TooFew(last),
        }
    }

    async fn ask<S, F>(
        &self,
        base: &Base,
        claim: &SignedClaim,
        session: &S,
    ) -> (Round, Option<HeadValue>, usize)
    where
        S: Fn(Peer) -> F,
        F: Future<Output = Result<Session, NetError>>,
    {
        let mut round = Round::new(*claim.claim(), base.anchors.clone());
        let known = base.head.as_ref().and_then(|head| HeadValue::verify(head, &claim.claim().name).ok());
        let have = base.head.as_deref().map(record_digest);
        let (mut newer, mut older): (Option<HeadValue>, usize) = (None, 0);
        let mut answers: FuturesUnordered<_> = base
            .anchors
            .all()
            .into_iter()
            .map(|peer| async move {
                let asking = async { session(peer.clone()).await?.claim(claim, have).await };
                let answer = asking.await;
                (peer, answer)
            })
            .collect();
        let patience = tokio::time::sleep(self.patience);
        tokio::pin!(patience);
        let mut enough = false;
        loop {
            let (peer, answer) = tokio::select! {
                () = &mut patience => break,
                next = answers.next() => match next {
                    Some(answer) => answer,
                    None => break,
                },
            };
            match answer {
                Ok(answer) => {
                    let head = hear(&mut round, &peer, answer);
                    newer = [newer, head].into_iter().flatten().max_by_key(HeadValue::rank);
                }
                Err(error) => {
                    // Who does not know the question cannot decode it.
                    older += usize::from(error.code() == Some(ErrorCode::Malformed));
                    tracing::debug!(%error, "no answer to a claim");
                }
            }
            if !enough && round.has_majority() {
                enough = true;
                let soon = tokio::time::Instant::now() + GRACE;
                if soon < patience.deadline() {
                    patience.as_mut().reset(soon);
                }
            }
        }
        let newer = newer.filter(|head| known.as_ref().is_none_or(|known| head.rank() > known.rank()));
        (round, newer, older)
    }

    fn random<const N: usize>(&self) -> [u8; N] {
        let mut bytes = [0; N];
        self.env.rng.fill(&mut bytes);
        bytes
    }

    async fn pause(&self, attempt: usize) {
        let longest = PAUSE_MS << attempt.min(4);
        let [random] = self.random();
        tokio::time::sleep(Duration::from_millis(longest / 4 + longest * u64::from(random) / 256)).await;
    }
}

/// Takes an answer down; the head in it, if it is one.
fn hear(round: &mut Round, peer: &Peer, answer: ClaimAnswer) -> Option<HeadValue> {
    let name = round.claim().name;
    let head = answer.head.and_then(|head| HeadValue::verify(&head, &name).ok());
    match (answer.said, &head) {
        (Said::Granted(grant), _) => round.granted(grant),
        (Said::Taken(other), _) => round.taken(peer, &other),
        (Said::Passed, Some(head)) if head.record().term() >= round.claim().term => {
            round.passed(peer, head.record().term());
        }
        // It says no and shows nothing for it.
        (Said::Passed, _) => {
            tracing::warn!(peer = %super::peers::peer_short(peer), "refused a term without a reason")
        }
    }
    head
}

#[cfg(test)]
mod tests;
