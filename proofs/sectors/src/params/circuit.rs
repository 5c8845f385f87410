//! The three circuits, and what identifies each of them at a profile.

use std::fmt;
use std::str::FromStr;

use filecoin_proofs::parameters::{public_params, window_post_public_params, winning_post_public_params};
use filecoin_proofs::{DefaultPieceHasher, MerkleTreeTrait};
use serde::{Deserialize, Serialize};
use storage_proofs_core::parameter_cache::CacheableParameters;
use storage_proofs_porep::stacked::{StackedCircuit, StackedCompound};
use storage_proofs_post::fallback::{FallbackPoStCircuit, FallbackPoStCompound};
use thiserror::Error;

use crate::profile::{Profile, SealMode, WINDOW_CHALLENGES, WINNING_CHALLENGES, shaped};

/// Public inputs of one challenged node of a seal: its data leaf, 6 + 8 parents, its own number, its
/// replica leaf and its column.
const POREP_INPUTS_A_CHALLENGE: usize = 18;
/// Replica id, data commitment, replica commitment.
const POREP_INPUTS_FIXED: usize = 3;

/// What a Groth16 proof is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Circuit {
    /// That a replica encodes these data.
    Porep,
    /// That replicas are there now.
    WindowPost,
    /// That one drawn replica is there now.
    WinningPost,
}

impl Circuit {
    pub const ALL: [Self; 3] = [Self::Porep, Self::WindowPost, Self::WinningPost];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Porep => "porep",
            Self::WindowPost => "window-post",
            Self::WinningPost => "winning-post",
        }
    }

    /// Filecoin's identifier: a hash of the circuit's shape.
    #[must_use]
    pub fn id(self, profile: Profile) -> String {
        match shaped!(profile, identifier(self, profile)) {
            Ok(id) => id,
            // The setup of the four supported sizes cannot fail; a name that no file has is refused downstream.
            Err(error) => format!("unavailable-{error}"),
        }
    }

    /// Public inputs of one proof.
    #[must_use]
    pub fn inputs(self, profile: Profile) -> usize {
        match self {
            Self::Porep => {
                let challenges = profile.porep_challenges().div_ceil(profile.porep_partitions());
                POREP_INPUTS_FIXED + challenges * POREP_INPUTS_A_CHALLENGE
            }
            Self::WindowPost => profile.window_sectors() * (1 + WINDOW_CHALLENGES),
            Self::WinningPost => WINNING_CHALLENGES * 2,
        }
    }
}

fn identifier<Tree: MerkleTreeTrait + 'static>(
    circuit: Circuit,
    profile: Profile,
) -> Result<String, anyhow::Error> {
    type Porep<Tree> = StackedCompound<Tree, DefaultPieceHasher>;
    type Post<Tree> = FallbackPoStCompound<Tree>;
    Ok(match circuit {
        Circuit::Porep => {
            let params = public_params::<Tree>(&profile.porep_config(SealMode::Interactive))?;
            <Porep<Tree> as CacheableParameters<StackedCircuit<Tree, DefaultPieceHasher>, _>>::cache_identifier(
                &params,
            )
        }
        Circuit::WindowPost => {
            let params = window_post_public_params::<Tree>(&profile.window_config())?;
            <Post<Tree> as CacheableParameters<FallbackPoStCircuit<Tree>, _>>::cache_identifier(&params)
        }
        Circuit::WinningPost => {
            let params = winning_post_public_params::<Tree>(&profile.winning_config())?;
            <Post<Tree> as CacheableParameters<FallbackPoStCircuit<Tree>, _>>::cache_identifier(&params)
        }
    })
}

/// A name that is no circuit.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown circuit '{0}'; there are porep, window-post and winning-post")]
pub struct UnknownCircuit(String);

impl FromStr for Circuit {
    type Err = UnknownCircuit;

    fn from_str(text: &str) -> Result<Self, UnknownCircuit> {
        let named = Self::ALL.into_iter().find(|circuit| circuit.name() == text);
        named.ok_or_else(|| UnknownCircuit(text.to_owned()))
    }
}

impl fmt::Display for Circuit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
