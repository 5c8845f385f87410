//! One round of a claim: what the anchors answered, and what follows from it. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::{Anchors, Certificate, Claim, Grant, majority};

/// What follows from the answers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The term is held.
    Held(Certificate),
    /// This one is not to be had; the next to be tried is above all that were met.
    Next(u64),
    /// Too few answered, or too few can grant.
    TooFew,
}

/// The answers to one claim.
#[derive(Debug, Clone)]
pub struct Round {
    claim: Claim,
    by: Anchors,
    grants: BTreeMap<Vec<u8>, Grant>,
    /// Granted this very term to another.
    rivals: BTreeSet<Vec<u8>>,
    refused: BTreeSet<Vec<u8>>,
    highest: u64,
}

impl Round {
    /// `claim` was sent to all of `by`.
    pub fn new(claim: Claim, by: Anchors) -> Round {
        let highest = claim.term;
        let (grants, rivals, refused) = Default::default();
        Round { claim, by, grants, rivals, refused, highest }
    }

    /// What is claimed.
    pub fn claim(&self) -> &Claim {
        &self.claim
    }

    /// Whom to ask.
    pub fn anchors(&self) -> &Anchors {
        &self.by
    }

    /// An anchor granted.
    pub fn granted(&mut self, grant: Grant) {
        if self.by.contains(grant.anchor()) {
            self.grants.insert(grant.anchor().to_vec(), grant);
        }
    }

    /// An anchor showed a claim that it granted, of this term or a higher one.
    pub fn taken(&mut self, anchor: &[u8], other: &Claim) {
        if !self.by.contains(anchor) || other.name != self.claim.name {
            return;
        }
        self.refused.insert(anchor.to_vec());
        self.highest = self.highest.max(other.term);
        if other.term == self.claim.term && other.writer != self.claim.writer {
            self.rivals.insert(anchor.to_vec());
        }
    }

    /// An anchor showed a head of this term or a higher one.
    pub fn passed(&mut self, anchor: &[u8], term: u64) {
        if self.by.contains(anchor) {
            self.refused.insert(anchor.to_vec());
            self.highest = self.highest.max(term);
        }
    }

    /// Whether those that answered yes are a majority already.
    pub fn has_majority(&self) -> bool {
        self.by.is_majority(|peer| self.grants.contains_key(peer))
    }

    /// Grants so far.
    pub fn grants(&self) -> Vec<Grant> {
        self.grants.values().cloned().collect()
    }

    /// Whether another may have got this term with the help of one anchor that granted it twice.
    fn in_doubt(&self) -> bool {
        if self.rivals.is_empty() {
            return false;
        }
        let may_be_his = |peer: &&Vec<u8>| {
            let silent = !self.grants.contains_key(*peer) && !self.refused.contains(*peer);
            silent || self.rivals.contains(*peer)
        };
        self.by.sets().any(|set| set.iter().filter(may_be_his).count() + 1 >= majority(set.len()))
    }

    /// When everybody has answered, or will not.
    pub fn outcome(&self) -> Outcome {
        if self.has_majority() && !self.in_doubt() {
            let made = Certificate::new(self.claim, self.by.clone(), &self.grants(), false);
            // Each grant was verified when it came.
            return made.map_or(Outcome::TooFew, Outcome::Held);
        }
        match self.refused.is_empty() {
            true => Outcome::TooFew,
            false => Outcome::Next(self.highest.saturating_add(1)),
        }
    }

    /// The term by the owner's word, with those that granted as anchors.
    pub fn forced(&self) -> Option<Certificate> {
        Certificate::new(self.claim, self.by.clone(), &self.grants(), true).ok()
    }
}
