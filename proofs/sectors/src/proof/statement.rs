//! What proof files claim.
//!
//! ```text
//! PoSt randomness = SHA-256(domain32 | beacon | epoch u64 BE | prover), top two bits of byte 31 cleared
//! ```
//!
//! The circuits of Filecoin's PoSt do not take the prover's name; the randomness above binds it, and the epoch.
//! It does not bind the list of sectors, on purpose: a prover that chooses its list could choose its challenges.

use holdfast_proofs::{Challenge, PieceCid};
use serde::{Deserialize, Serialize};
use serde_bytes::ByteBuf;
use sha2::{Digest, Sha256};

use super::ProofFileError;
use crate::packing::PieceRoot;
use crate::params::Circuit;
use crate::profile::{PRODUCTION_STRENGTH, Profile, SealMode};
use crate::types::Bytes32;

/// Sectors in one Window PoSt: 2 PiB of 32 GiB sectors, 28 partitions.
pub const WINDOW_SECTORS_MAX: usize = 1 << 16;

const WINDOW_DOMAIN: [u8; 32] = *b"holdfast/post/window/v1\0\0\0\0\0\0\0\0\0";
const WINNING_DOMAIN: [u8; 32] = *b"holdfast/post/winning/v1\0\0\0\0\0\0\0\0";
const DRAW_DOMAIN: [u8; 32] = *b"holdfast/post/draw/v1\0\0\0\0\0\0\0\0\0\0\0";

/// A claim with its public data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Statement {
    Possession(PossessionStatement),
    Seal(SealStatement),
    WindowPost(WindowStatement),
    WinningPost(WinningStatement),
}

/// That drawn leaves of a piece could be produced after the seed was known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PossessionStatement {
    count: u16,
    /// The piece's binary CID.
    piece: ByteBuf,
    seed: Bytes32,
}

impl PossessionStatement {
    pub(super) fn new(piece: &PieceCid, seed: [u8; 32], count: u16) -> Self {
        Self { count, piece: ByteBuf::from(piece.to_bytes()), seed: Bytes32(seed) }
    }

    /// Piece and challenge.
    ///
    /// # Errors
    /// `Encoding` for a CID that is none, `Possession` for a number of draws that is none.
    pub fn parts(&self) -> Result<(PieceCid, Challenge), ProofFileError> {
        let piece =
            PieceCid::from_bytes(&self.piece).map_err(|error| ProofFileError::Encoding(error.to_string()))?;
        Ok((piece, Challenge::new(self.seed.0, self.count)?))
    }
}

/// That a replica encodes these pieces, for this prover and number, made after the ticket was known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SealStatement {
    pub profile: Profile,
    pub mode: SealMode,
    pub prover: Bytes32,
    pub number: u64,
    pub ticket: Bytes32,
    pub seed: Bytes32,
    pub comm_r: Bytes32,
    pub pieces: Vec<PieceRoot>,
}

/// A sector by what everybody knows of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PublicSector {
    pub number: u64,
    pub comm_r: Bytes32,
}

/// That the replicas of all these sectors were there after the beacon was known.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WindowStatement {
    pub profile: Profile,
    pub prover: Bytes32,
    pub beacon: Bytes32,
    pub epoch: u64,
    /// In the order of their numbers, each once.
    pub sectors: Vec<PublicSector>,
}

/// That the replica of one sector was there after the beacon was known, at 66 places.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct WinningStatement {
    pub profile: Profile,
    pub prover: Bytes32,
    pub beacon: Bytes32,
    pub epoch: u64,
    /// Which one must be proven, `draw_sector` says to whoever knows the prover's list.
    pub sector: PublicSector,
}

impl Statement {
    /// Profile and circuit of a Groth16 proof; none for possession.
    #[must_use]
    pub fn circuit(&self) -> Option<(Profile, Circuit)> {
        match self {
            Self::Possession(_) => None,
            Self::Seal(statement) => Some((statement.profile, Circuit::Porep)),
            Self::WindowPost(statement) => Some((statement.profile, Circuit::WindowPost)),
            Self::WinningPost(statement) => Some((statement.profile, Circuit::WinningPost)),
        }
    }

    /// The words for its strength. Possession needs no parameters and has no weak profile.
    #[must_use]
    pub fn strength(&self) -> &'static str {
        self.circuit().map_or(PRODUCTION_STRENGTH, |(profile, _)| profile.strength())
    }

    /// What can be said against it before any proof is looked at.
    pub(super) fn check(&self) -> Result<(), ProofFileError> {
        match self {
            Self::WindowPost(statement) => check_sectors(&statement.sectors),
            Self::Possession(_) | Self::Seal(_) | Self::WinningPost(_) => Ok(()),
        }
    }
}

/// One to many, each once, in one order.
pub(crate) fn check_sectors(sectors: &[PublicSector]) -> Result<(), ProofFileError> {
    let ordered = sectors.is_sorted_by(|left, right| left.number < right.number);
    if sectors.is_empty() || sectors.len() > WINDOW_SECTORS_MAX || !ordered {
        return Err(ProofFileError::Sectors);
    }
    Ok(())
}

impl WindowStatement {
    /// The randomness that challenges are drawn with.
    #[must_use]
    pub fn randomness(&self) -> [u8; 32] {
        randomness(&WINDOW_DOMAIN, &self.beacon, self.epoch, &self.prover)
    }
}

impl WinningStatement {
    /// The randomness that challenges are drawn with.
    #[must_use]
    pub fn randomness(&self) -> [u8; 32] {
        randomness(&WINNING_DOMAIN, &self.beacon, self.epoch, &self.prover)
    }
}

fn randomness(domain: &[u8; 32], beacon: &Bytes32, epoch: u64, prover: &Bytes32) -> [u8; 32] {
    let mut out: [u8; 32] = Sha256::new()
        .chain_update(domain)
        .chain_update(beacon.0)
        .chain_update(epoch.to_be_bytes())
        .chain_update(prover.0)
        .finalize()
        .into();
    out[31] &= 0x3f;
    out
}

/// Which of a prover's sectors a Winning PoSt must be about: its place in the list that stood before the beacon.
/// None where there is no sector.
#[must_use]
pub fn draw_sector(beacon: &Bytes32, epoch: u64, prover: &Bytes32, sectors: u64) -> Option<u64> {
    // 128 bits over at most 64: the bias is below 2^-64.
    let drawn = randomness(&DRAW_DOMAIN, beacon, epoch, prover);
    let wide = u128::from_le_bytes(*drawn.first_chunk::<16>()?);
    u64::try_from(wide.checked_rem(u128::from(sectors))?).ok()
}
