//! The verifiers of the three circuits, from public data alone.
//!
//! Everything that the library would assert is checked here first: lengths, field elements, the number of sectors.
//! The library's own key cache is not used; the key comes from the caller.

use filecoin_hashers::{Domain, Hasher};
use filecoin_proofs::parameters::{setup_params, window_post_setup_params, winning_post_setup_params};
use filecoin_proofs::{DefaultPieceDomain, DefaultPieceHasher, MerkleTreeTrait, as_safe_commitment};
use storage_proofs_core::compound_proof::{CompoundProof, SetupParams};
use storage_proofs_core::multi_proof::MultiProof;
use storage_proofs_core::sector::SectorId;
use storage_proofs_porep::stacked::{self, StackedCompound, StackedDrg, Tau, generate_replica_id};
use storage_proofs_post::fallback::{self, FallbackPoSt, FallbackPoStCompound};

use super::statement::check_sectors;
use super::{GROTH_PROOF_BYTES, ProofFileError, PublicSector, SealStatement, Statement};
use crate::packing::Layout;
use crate::params::Key;
use crate::profile::{Profile, WINDOW_CHALLENGES, WINNING_CHALLENGES, shaped};

/// Accepts a proof only if its equation holds for the statement under the key.
pub(super) fn verify(statement: &Statement, key: &Key, proof: &[u8]) -> Result<(), ProofFileError> {
    let holds = match statement {
        Statement::Possession(_) => return Err(ProofFileError::KeyPresence),
        Statement::Seal(seal) => shaped!(seal.profile, seal_holds(seal, key, proof))?,
        Statement::WindowPost(window) => {
            check_sectors(&window.sectors)?;
            let partitions = window.sectors.len().div_ceil(window.profile.window_sectors());
            let claim = PostClaim {
                profile: window.profile,
                randomness: window.randomness(),
                sectors: window.sectors.clone(),
                partitions,
                window: true,
            };
            shaped!(window.profile, post_holds(&claim, key, proof))?
        }
        Statement::WinningPost(winning) => {
            let claim = PostClaim {
                profile: winning.profile,
                randomness: winning.randomness(),
                sectors: vec![winning.sector; WINNING_CHALLENGES],
                partitions: 1,
                window: false,
            };
            shaped!(winning.profile, post_holds(&claim, key, proof))?
        }
    };
    if holds { Ok(()) } else { Err(ProofFileError::Rejected) }
}

fn library(error: anyhow::Error) -> ProofFileError {
    ProofFileError::Library(format!("{error:#}"))
}

/// A commitment as the circuits take it.
pub(crate) fn in_field<D: Domain>(bytes: &[u8; 32], what: &'static str) -> Result<D, ProofFileError> {
    if *bytes == [0; 32] {
        return Err(ProofFileError::NotInField(what));
    }
    as_safe_commitment(bytes, what).map_err(|_| ProofFileError::NotInField(what))
}

/// Splits and decompresses the proofs of all partitions.
fn proofs<'k>(partitions: usize, bytes: &[u8], key: &'k Key) -> Result<MultiProof<'k>, ProofFileError> {
    let expected = partitions * GROTH_PROOF_BYTES;
    if bytes.len() != expected {
        return Err(ProofFileError::ProofLength { expected, found: bytes.len() });
    }
    // Points that are none are a lie like any other.
    MultiProof::new_from_bytes(Some(partitions), bytes, key.prepared()).map_err(|_| ProofFileError::Rejected)
}

fn seal_holds<Tree: MerkleTreeTrait + 'static>(
    seal: &SealStatement,
    key: &Key,
    proof: &[u8],
) -> Result<bool, ProofFileError> {
    type Compound<Tree> = StackedCompound<Tree, DefaultPieceHasher>;
    let partitions = seal.profile.porep_partitions();
    let proofs = proofs(partitions, proof, key)?;
    let config = seal.profile.porep_config(seal.mode);
    let comm_r: <Tree::Hasher as Hasher>::Domain = in_field(&seal.comm_r.0, "replica commitment")?;
    let layout = Layout::of(seal.profile, seal.pieces.iter().copied())?;
    let comm_d: DefaultPieceDomain = in_field(&layout.comm_d().0, "data commitment")?;
    let replica_id = generate_replica_id::<Tree::Hasher, _>(
        &seal.prover.0,
        seal.number,
        &seal.ticket.0,
        comm_d,
        &config.porep_id,
    );
    let setup = SetupParams {
        vanilla_params: setup_params(&config).map_err(library)?,
        partitions: Some(partitions),
        priority: false,
    };
    let public =
        <Compound<Tree> as CompoundProof<StackedDrg<'_, Tree, DefaultPieceHasher>, _>>::setup(&setup)
            .map_err(library)?;
    let inputs = stacked::PublicInputs {
        replica_id,
        tau: Some(Tau { comm_d, comm_r }),
        seed: Some(seal.seed.0),
        k: None,
    };
    let required = stacked::ChallengeRequirements { minimum_challenges: seal.profile.porep_challenges() };
    <Compound<Tree> as CompoundProof<StackedDrg<'_, Tree, DefaultPieceHasher>, _>>::verify(
        &public, &inputs, &proofs, &required,
    )
    .map_err(library)
}

/// What both kinds of PoSt come down to.
struct PostClaim {
    profile: Profile,
    randomness: [u8; 32],
    sectors: Vec<PublicSector>,
    partitions: usize,
    window: bool,
}

fn post_holds<Tree: MerkleTreeTrait + 'static>(
    claim: &PostClaim,
    key: &Key,
    proof: &[u8],
) -> Result<bool, ProofFileError> {
    type Compound<Tree> = FallbackPoStCompound<Tree>;
    let proofs = proofs(claim.partitions, proof, key)?;
    let sectors = claim
        .sectors
        .iter()
        .map(|sector| {
            let comm_r = in_field(&sector.comm_r.0, "replica commitment")?;
            Ok(fallback::PublicSector { id: SectorId::from(sector.number), comm_r })
        })
        .collect::<Result<Vec<_>, ProofFileError>>()?;
    let inputs = fallback::PublicInputs {
        randomness: in_field::<<Tree::Hasher as Hasher>::Domain>(&claim.randomness, "randomness")?,
        // No circuit takes it; the randomness binds the prover.
        prover_id: Default::default(),
        sectors,
        k: None,
    };
    let (vanilla_params, minimum_challenge_count) = if claim.window {
        let config = claim.profile.window_config();
        (window_post_setup_params(&config), WINDOW_CHALLENGES * claim.profile.window_sectors())
    } else {
        let config = claim.profile.winning_config();
        (winning_post_setup_params(&config).map_err(library)?, WINNING_CHALLENGES)
    };
    let partitions = (claim.partitions > 1).then_some(claim.partitions);
    let setup = SetupParams { vanilla_params, partitions, priority: false };
    let public =
        <Compound<Tree> as CompoundProof<FallbackPoSt<'_, Tree>, _>>::setup(&setup).map_err(library)?;
    let required = fallback::ChallengeRequirements { minimum_challenge_count };
    <Compound<Tree> as CompoundProof<FallbackPoSt<'_, Tree>, _>>::verify(&public, &inputs, &proofs, &required)
        .map_err(library)
}
