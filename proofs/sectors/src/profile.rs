//! Strength profiles: the four kinds of sector, and everything that hangs on the choice.
//!
//! Promises: what makes a proof strong or weak stands here and nowhere else; a profile of test strength says so
//! in its `Display`, in its label and in every report and proof file that names it.
//! Refuses: to mix figures of two profiles, and any size that Filecoin has no published parameters for.
//!
//! The figures are `filecoin-proofs`' own for these sector sizes; the tests hold the two against each other.

use std::fmt;
use std::str::FromStr;

use filecoin_proofs::{PoRepConfig, PoStConfig, PoStType, SectorSize};
use serde::{Deserialize, Serialize};
use storage_proofs_core::api_version::{ApiFeature, ApiVersion};
use thiserror::Error;

/// What every output of a test profile says.
pub const TEST_STRENGTH: &str = "test strength";
/// What outputs of a production profile say.
pub const PRODUCTION_STRENGTH: &str = "production strength";
/// Challenged leaves of one sector in a Window PoSt (Filecoin's constant).
pub const WINDOW_CHALLENGES: usize = 10;
/// Challenged leaves in a Winning PoSt (Filecoin's constant).
pub const WINNING_CHALLENGES: usize = 66;
/// The proofs API whose challenge derivation is used: with 1.1 Window PoSt challenges depended on a sector's
/// place in its partition, which 1.2 mended.
pub const API_VERSION: ApiVersion = ApiVersion::V1_2_0;
/// Winning PoSt lays its 66 challenges out as 66 copies of the sector with one challenge each, and with 1.2 all of
/// them would be the first one: it stays at 1.1, as in Filecoin.
pub const WINNING_API_VERSION: ApiVersion = ApiVersion::V1_1_0;

/// A kind of sector: its size, and how hard its proofs are to cheat.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Profile {
    /// 2 KiB, 2 layers, 2 challenges: seconds, and no security at all.
    #[serde(rename = "test-2k")]
    Test2k,
    /// 8 MiB, 2 layers, 2 challenges: minutes, and no security at all.
    #[serde(rename = "test-8m")]
    Test8m,
    /// 32 GiB, 11 layers, 176 challenges: Filecoin's mainnet sector.
    #[serde(rename = "production-32g")]
    Production32g,
    /// 64 GiB, 11 layers, 176 challenges: Filecoin's larger mainnet sector.
    #[serde(rename = "production-64g")]
    Production64g,
}

/// How the challenges of a seal come about.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum SealMode {
    /// Layers are kept until the challenge seed is known.
    Interactive,
    /// All candidate challenges are answered at once, so that layers can go before the seed is known (FIP-0059).
    Synthetic,
}

/// A name that is no profile.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("unknown profile '{0}'; there are test-2k, test-8m, production-32g and production-64g")]
pub struct UnknownProfile(String);

impl Profile {
    pub const ALL: [Self; 4] = [Self::Test2k, Self::Test8m, Self::Production32g, Self::Production64g];

    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Test2k => "test-2k",
            Self::Test8m => "test-8m",
            Self::Production32g => "production-32g",
            Self::Production64g => "production-64g",
        }
    }

    /// Whether proofs of this profile are worth anything.
    #[must_use]
    pub fn is_production(self) -> bool {
        matches!(self, Self::Production32g | Self::Production64g)
    }

    /// The words that stand beside every figure of this profile.
    #[must_use]
    pub fn strength(self) -> &'static str {
        if self.is_production() { PRODUCTION_STRENGTH } else { TEST_STRENGTH }
    }

    /// Bytes of a sector on disk, sealed or not.
    #[must_use]
    pub fn sector_bytes(self) -> u64 {
        match self {
            Self::Test2k => 1 << 11,
            Self::Test8m => 1 << 23,
            Self::Production32g => 1 << 35,
            Self::Production64g => 1 << 36,
        }
    }

    /// Payload bytes that fit: fr32 spends two bits in 256.
    #[must_use]
    pub fn payload_bytes_max(self) -> u64 {
        self.sector_bytes() / 128 * 127
    }

    /// Layers of the labelling; the deeper, the longer a replica takes to make again.
    #[must_use]
    pub fn layers(self) -> u64 {
        if self.is_production() { 11 } else { 2 }
    }

    /// Challenged nodes of a seal, over all partitions.
    #[must_use]
    pub fn porep_challenges(self) -> usize {
        if self.is_production() { 176 } else { 2 }
    }

    /// Groth16 proofs that a seal's proof consists of.
    #[must_use]
    pub fn porep_partitions(self) -> usize {
        if self.is_production() { 10 } else { 1 }
    }

    /// Sectors that one Groth16 proof of a Window PoSt covers.
    #[must_use]
    pub fn window_sectors(self) -> usize {
        match self {
            Self::Test2k | Self::Test8m => 2,
            Self::Production32g => 2_349,
            Self::Production64g => 2_300,
        }
    }

    /// Filecoin's number of this kind of seal (`RegisteredSealProof`, version 1.1): it enters the replica's id.
    fn registered_seal(self, mode: SealMode) -> u64 {
        let interactive = match self {
            Self::Test2k => 5,
            Self::Test8m => 6,
            Self::Production32g => 8,
            Self::Production64g => 9,
        };
        match mode {
            SealMode::Interactive => interactive,
            SealMode::Synthetic => interactive + 5,
        }
    }

    /// The number above as it enters graph and replica id: little endian, a zero nonce behind it.
    #[must_use]
    pub fn porep_id(self, mode: SealMode) -> [u8; 32] {
        let mut id = [0; 32];
        for (to, from) in id.iter_mut().zip(self.registered_seal(mode).to_le_bytes()) {
            *to = from;
        }
        id
    }

    pub(crate) fn porep_config(self, mode: SealMode) -> PoRepConfig {
        let mut config = PoRepConfig::new_groth16(self.sector_bytes(), self.porep_id(mode), API_VERSION);
        if mode == SealMode::Synthetic {
            config.api_features.push(ApiFeature::SyntheticPoRep);
        }
        config
    }

    pub(crate) fn window_config(self) -> PoStConfig {
        PoStConfig {
            sector_size: SectorSize(self.sector_bytes()),
            challenge_count: WINDOW_CHALLENGES,
            sector_count: self.window_sectors(),
            typ: PoStType::Window,
            priority: false,
            api_version: API_VERSION,
        }
    }

    pub(crate) fn winning_config(self) -> PoStConfig {
        PoStConfig {
            sector_size: SectorSize(self.sector_bytes()),
            challenge_count: WINNING_CHALLENGES,
            sector_count: 1,
            typ: PoStType::Winning,
            priority: false,
            api_version: WINNING_API_VERSION,
        }
    }
}

/// Runs a function that is generic over the shape of a sector's trees with the profile's shape.
macro_rules! shaped {
    ($profile:expr, $function:ident($($argument:expr),* $(,)?)) => {
        match $profile {
            $crate::profile::Profile::Test2k | $crate::profile::Profile::Test8m => {
                $function::<filecoin_proofs::SectorShapeBase>($($argument),*)
            }
            $crate::profile::Profile::Production32g => {
                $function::<filecoin_proofs::SectorShape32GiB>($($argument),*)
            }
            $crate::profile::Profile::Production64g => {
                $function::<filecoin_proofs::SectorShape64GiB>($($argument),*)
            }
        }
    };
}
pub(crate) use shaped;

impl fmt::Display for Profile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.name(), self.strength())
    }
}

impl FromStr for Profile {
    type Err = UnknownProfile;

    fn from_str(name: &str) -> Result<Self, UnknownProfile> {
        Self::ALL
            .into_iter()
            .find(|profile| profile.name() == name)
            .ok_or_else(|| UnknownProfile(name.to_owned()))
    }
}

impl fmt::Display for SealMode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Interactive => "interactive",
            Self::Synthetic => "synthetic",
        })
    }
}

#[cfg(test)]
mod tests {
    use filecoin_proofs::constants::{LAYERS, POREP_PARTITIONS, WINDOW_POST_SECTOR_COUNT};

    use super::*;

    #[test]
    fn figures_are_the_librarys() {
        for profile in Profile::ALL {
            let size = profile.sector_bytes();
            assert_eq!(LAYERS.read().unwrap()[&size] as u64, profile.layers());
            assert_eq!(usize::from(POREP_PARTITIONS.read().unwrap()[&size]), profile.porep_partitions());
            assert_eq!(WINDOW_POST_SECTOR_COUNT.read().unwrap()[&size], profile.window_sectors());
            for mode in [SealMode::Interactive, SealMode::Synthetic] {
                let config = profile.porep_config(mode);
                assert_eq!(config.minimum_challenges(), profile.porep_challenges());
                assert_eq!(config.feature_enabled(ApiFeature::SyntheticPoRep), mode == SealMode::Synthetic);
            }
        }
        assert_eq!(filecoin_proofs::WINNING_POST_CHALLENGE_COUNT, WINNING_CHALLENGES);
        assert_eq!(filecoin_proofs::WINDOW_POST_CHALLENGE_COUNT, WINDOW_CHALLENGES);
    }

    #[test]
    fn test_profiles_say_so_everywhere() {
        for profile in Profile::ALL {
            assert_eq!(profile.to_string().contains(TEST_STRENGTH), !profile.is_production());
            assert_eq!(profile.name().starts_with("test-"), !profile.is_production());
            assert_eq!(profile.name().parse(), Ok(profile));
            assert_eq!(serde_json::to_string(&profile).unwrap(), format!("\"{}\"", profile.name()));
        }
        assert!("production".parse::<Profile>().is_err());
    }

    #[test]
    fn winning_challenges_differ() {
        let id = storage_proofs_core::sector::SectorId::from(7);
        let drawn = filecoin_proofs::generate_fallback_sector_challenges::<filecoin_proofs::SectorShapeBase>(
            &Profile::Test8m.winning_config(),
            &[9; 32],
            &[id],
            [0; 32],
        )
        .unwrap();
        let mut leaves = drawn[&id].clone();
        assert_eq!(leaves.len(), WINNING_CHALLENGES);
        leaves.sort_unstable();
        leaves.dedup();
        // Of 262,144 leaves two in 66 meet once in a hundred draws; this draw has none.
        assert_eq!(leaves.len(), WINNING_CHALLENGES);
    }

    #[test]
    fn whoever_has_no_circuits_is_told_the_same_sizes() {
        use holdfast_proofs::sealing::{PROFILES, piece_bytes_max};
        assert_eq!(Profile::ALL.map(|profile| (profile.name(), profile.sector_bytes())), PROFILES);
        for profile in Profile::ALL {
            assert_eq!(piece_bytes_max(profile.name()), Some(profile.payload_bytes_max()));
        }
        assert_eq!(piece_bytes_max("test-3k"), None);
    }

    #[test]
    fn every_kind_of_seal_has_its_own_id() {
        let mut ids: Vec<_> = Profile::ALL
            .into_iter()
            .flat_map(|p| [p.porep_id(SealMode::Interactive), p.porep_id(SealMode::Synthetic)])
            .collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), 8);
        // Filecoin's mainnet: StackedDrg32GiBV1_1 is 8, with synthetic challenges 13.
        assert_eq!(Profile::Production32g.porep_id(SealMode::Interactive)[..2], [8, 0]);
        assert_eq!(Profile::Production32g.porep_id(SealMode::Synthetic)[..2], [13, 0]);
    }
}
