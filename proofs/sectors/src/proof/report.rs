//! What a verification says: what was shown, how strong it is, on whose word, and what it does not show.

use std::fmt;

use holdfast_proofs::Verdict;
use serde::{Deserialize, Serialize};

use super::Statement;
use crate::params::KeyTrust;
use crate::profile::Profile;
use crate::types::Bytes32;

/// An accepted proof, in words and for programs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct VerifyReport {
    pub kind: String,
    /// "test strength" or "production strength".
    pub strength: String,
    pub profile: Option<Profile>,
    /// On whose word the verifying key stands; none for possession, which needs no key.
    pub key_trust: Option<KeyTrust>,
    pub key_sha256: Option<Bytes32>,
    pub shows: Vec<String>,
    pub does_not_show: Vec<String>,
}

impl VerifyReport {
    /// Whether money may rest on it: full strength, and a key that no single party could have cheated with.
    #[must_use]
    pub fn is_production(&self) -> bool {
        self.profile.is_none_or(Profile::is_production)
            && self.key_trust.is_none_or(|trust| trust == KeyTrust::Published)
    }

    pub(super) fn possession(statement: &Statement, verdict: &Verdict) -> Self {
        Self::new(statement, verdict.shows(), verdict.does_not_show())
    }

    pub(super) fn groth(statement: &Statement, trust: KeyTrust, key: Bytes32) -> Self {
        let mut shows = Vec::new();
        let mut not = Vec::new();
        match statement {
            Statement::Possession(_) => {}
            Statement::Seal(seal) => {
                shows.push(format!(
                    "replica {} encodes {} piece(s) for prover {}, sector {}, after ticket {}",
                    seal.comm_r,
                    seal.pieces.len(),
                    seal.prover,
                    seal.number,
                    seal.ticket
                ));
                not.push("that the replica is there now: a proof of spacetime shows that".to_owned());
                not.push("exact lengths of pieces: their CIDs bind those".to_owned());
                not.push("that the seed was unknown when the replica was committed to".to_owned());
            }
            Statement::WindowPost(window) => {
                shows.push(format!(
                    "the replicas of {} sector(s) of prover {} were there at epoch {}, after beacon {}",
                    window.sectors.len(),
                    window.prover,
                    window.epoch,
                    window.beacon
                ));
                not.push("that these are all sectors of the prover".to_owned());
                not.push("what the replicas encode: the proofs of their seals show that".to_owned());
            }
            Statement::WinningPost(winning) => {
                shows.push(format!(
                    "the replica of sector {} of prover {} was there at epoch {}, after beacon {}",
                    winning.sector.number, winning.prover, winning.epoch, winning.beacon
                ));
                not.push("that this sector was the one to be drawn: the prover's list says".to_owned());
            }
        }
        if trust != KeyTrust::Published {
            not.push(
                "anything to whoever does not trust the maker of the parameters: it could forge".to_owned(),
            );
        }
        let mut report = Self::new(statement, shows, not);
        report.key_trust = Some(trust);
        report.key_sha256 = Some(key);
        report
    }

    fn new(statement: &Statement, shows: Vec<String>, does_not_show: Vec<String>) -> Self {
        let kind = match statement {
            Statement::Possession(_) => "possession",
            Statement::Seal(_) => "seal",
            Statement::WindowPost(_) => "window-post",
            Statement::WinningPost(_) => "winning-post",
        };
        Self {
            kind: kind.to_owned(),
            strength: statement.strength().to_owned(),
            profile: statement.circuit().map(|(profile, _)| profile),
            key_trust: None,
            key_sha256: None,
            shows,
            does_not_show,
        }
    }
}

impl fmt::Display for VerifyReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.profile {
            Some(profile) => writeln!(f, "valid: {}, {profile}", self.kind)?,
            None => writeln!(f, "valid: {}", self.kind)?,
        }
        if let (Some(trust), Some(key)) = (self.key_trust, self.key_sha256) {
            writeln!(f, "  key            {key}, {trust}")?;
        }
        for line in &self.shows {
            writeln!(f, "  shows          {line}")?;
        }
        for line in &self.does_not_show {
            writeln!(f, "  does not show  {line}")?;
        }
        Ok(())
    }
}
