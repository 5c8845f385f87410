//! Proofs of spacetime over sealed sectors: find the faulty ones, prove the rest.
//!
//! Every sector is first answered by itself and the answer verified, so that one lost replica costs its own place
//! in the proof and not the whole proof. The faulty are returned to be declared and recovered. Challenges depend
//! on randomness and sector number only, so an answer found alone is the answer in any partition.

use std::fs;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use filecoin_hashers::Hasher;
use filecoin_proofs::parameters::{window_post_setup_params, winning_post_setup_params};
use filecoin_proofs::{
    FallbackPoStSectorProof, MerkleTreeTrait, PoStConfig, PrivateReplicaInfo,
    generate_fallback_sector_challenges, generate_single_vanilla_proof, partition_vanilla_proofs,
    single_partition_vanilla_proofs,
};
use serde::{Deserialize, Serialize};
use storage_proofs_core::compound_proof::{CompoundProof, PublicParams, SetupParams};
use storage_proofs_core::sector::SectorId;
use storage_proofs_post::fallback::{
    FallbackPoSt, FallbackPoStCompound, PublicInputs, PublicSector as LibrarySector,
};

use super::journal::Journal;
use super::{FINAL, PC2, Phase, SEALED, SYNTHETIC, SectorError};
use crate::params::{Circuit, ParameterStore};
use crate::profile::{Profile, shaped};
use crate::proof::{
    ProofFile, PublicSector, Statement, WindowStatement, WinningStatement, check_sectors, in_field,
};

const WINDOW: &str = "window post";
const WINNING: &str = "winning post";

/// A sector as a PoSt needs it: read without its lock, since proofs do not wait for sealing.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProvableSector {
    pub profile: Profile,
    pub public: PublicSector,
    /// Replica and trees.
    folder: PathBuf,
}

impl ProvableSector {
    /// Reads what a sealed sector's journal says of it.
    ///
    /// # Errors
    /// `WrongPhase` before there is a replica; `Journal`, `Io`.
    pub fn load(dir: &Path) -> Result<Self, SectorError> {
        let journal = Journal::load(dir)?;
        let at = journal.phase();
        let folder = match at {
            Phase::Cleared => FINAL,
            _ if at < Phase::PreCommit2 => return Err(SectorError::WrongPhase { at }),
            _ if journal.finished.iter().any(|finished| finished.phase == Phase::Synthetic) => SYNTHETIC,
            _ => PC2,
        };
        let comm_r = journal.comm_r.ok_or(SectorError::WrongPhase { at })?;
        Ok(Self {
            profile: journal.spec.profile,
            public: PublicSector { number: journal.spec.number, comm_r },
            folder: dir.join(folder),
        })
    }

    /// The replica's file, for those who measure disks or test losses.
    #[must_use]
    pub fn replica_path(&self) -> PathBuf {
        self.folder.join(SEALED)
    }
}

/// A sector that could not be proven.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    pub number: u64,
    pub reason: String,
}

/// What a Window PoSt came to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WindowOutcome {
    /// Over all sectors that could be proven; none if none could.
    pub proof: Option<ProofFile>,
    /// To be declared, and recovered.
    pub faults: Vec<Fault>,
}

/// Proves all sectors of the statement that can be proven; `statement.sectors` is set by it.
///
/// # Errors
/// `Params`, `Library`, and `Proof` for a list that is none (empty, a number twice, other profiles).
pub fn prove_window(
    parameters: &ParameterStore,
    mut statement: WindowStatement,
    sectors: &[ProvableSector],
) -> Result<WindowOutcome, SectorError> {
    let mut sorted: Vec<&ProvableSector> = sectors.iter().collect();
    sorted.sort_by_key(|sector| sector.public.number);
    statement.sectors = sorted.iter().map(|sector| sector.public).collect();
    check_sectors(&statement.sectors)?;
    if sorted.iter().any(|sector| sector.profile != statement.profile) {
        return Err(crate::proof::ProofFileError::Sectors.into());
    }
    shaped!(statement.profile, window(parameters, statement, &sorted))
}

/// Proves one sector at 66 places.
///
/// # Errors
/// `Library` where it is faulty; `Params`.
pub fn prove_winning(
    parameters: &ParameterStore,
    mut statement: WinningStatement,
    sector: &ProvableSector,
) -> Result<ProofFile, SectorError> {
    statement.sector = sector.public;
    statement.profile = sector.profile;
    shaped!(statement.profile, winning(parameters, statement, sector))
}

type Answer<Tree> = FallbackPoStSectorProof<Tree>;
type Inputs<Tree> = PublicInputs<<<Tree as MerkleTreeTrait>::Hasher as Hasher>::Domain>;
type Params<'a, Tree> = PublicParams<'a, FallbackPoSt<'a, Tree>>;

fn inputs<Tree: MerkleTreeTrait>(
    randomness: [u8; 32],
    sectors: &[PublicSector],
    k: Option<usize>,
) -> Result<Inputs<Tree>, SectorError> {
    let sectors = sectors
        .iter()
        .map(|sector| {
            let comm_r = in_field(&sector.comm_r.0, "replica commitment")?;
            Ok(LibrarySector { id: SectorId::from(sector.number), comm_r })
        })
        .collect::<Result<Vec<_>, SectorError>>()?;
    let randomness = in_field(&randomness, "randomness")?;
    // No circuit takes the prover; the randomness binds it.
    Ok(PublicInputs { randomness, prover_id: Default::default(), sectors, k })
}

/// Answers one sector's challenges from its files.
fn answer<Tree: MerkleTreeTrait + 'static>(
    config: &PoStConfig,
    randomness: [u8; 32],
    sector: &ProvableSector,
) -> Result<Answer<Tree>, anyhow::Error> {
    let id = SectorId::from(sector.public.number);
    let challenges = generate_fallback_sector_challenges::<Tree>(config, &randomness, &[id], [0; 32])?;
    let drawn = challenges.get(&id).map_or(&[][..], Vec::as_slice);
    let replica = sector.replica_path();
    // The library maps the replica; a short file would be a fault of the process, not an error.
    let found = fs::metadata(&replica)?.len();
    anyhow::ensure!(found == sector.profile.sector_bytes(), "the replica has {found} bytes");
    let replica = PrivateReplicaInfo::<Tree>::new(replica, sector.public.comm_r.0, sector.folder.clone())?;
    generate_single_vanilla_proof::<Tree>(config, id, &replica, drawn)
}

fn window<Tree: MerkleTreeTrait + 'static>(
    parameters: &ParameterStore,
    mut statement: WindowStatement,
    sectors: &[&ProvableSector],
) -> Result<WindowOutcome, SectorError> {
    let config = statement.profile.window_config();
    let randomness = statement.randomness();
    let vanilla_params = window_post_setup_params(&config);
    let alone = setup::<Tree>(SetupParams {
        vanilla_params: vanilla_params.clone(),
        partitions: None,
        priority: false,
    })?;
    let (mut answers, mut faults, mut good) = (Vec::new(), Vec::new(), Vec::new());
    for sector in sectors {
        let own = inputs::<Tree>(randomness, &[sector.public], Some(0))?;
        let answered = unwinding(|| {
            let answer = answer::<Tree>(&config, randomness, sector)?;
            let answers = [answer];
            single_partition_vanilla_proofs(&config, &alone.vanilla_params, &own, &answers)?;
            let [answer] = answers;
            Ok(answer)
        });
        match answered {
            Ok(answer) => {
                answers.push(answer);
                good.push(sector.public);
            }
            Err(error) => {
                faults.push(Fault { number: sector.public.number, reason: format!("{error:#}") });
            }
        }
    }
    if good.is_empty() {
        return Ok(WindowOutcome { proof: None, faults });
    }
    let partitions = good.len().div_ceil(statement.profile.window_sectors());
    let public = setup::<Tree>(SetupParams {
        vanilla_params,
        partitions: (partitions > 1).then_some(partitions),
        priority: false,
    })?;
    let all = inputs::<Tree>(randomness, &good, None)?;
    statement.sectors = good;
    let claim = Statement::WindowPost(statement);
    let proof =
        groth(parameters, Circuit::WindowPost, claim, WINDOW, &config, &public, &all, &answers, partitions)?;
    Ok(WindowOutcome { proof: Some(proof), faults })
}

fn winning<Tree: MerkleTreeTrait + 'static>(
    parameters: &ParameterStore,
    statement: WinningStatement,
    sector: &ProvableSector,
) -> Result<ProofFile, SectorError> {
    let config = statement.profile.winning_config();
    let randomness = statement.randomness();
    let answer =
        unwinding(|| answer::<Tree>(&config, randomness, sector)).map_err(SectorError::library(WINNING))?;
    let vanilla_params = winning_post_setup_params(&config).map_err(SectorError::library(WINNING))?;
    let public = setup::<Tree>(SetupParams { vanilla_params, partitions: None, priority: false })?;
    let own = inputs::<Tree>(randomness, &[sector.public], None)?;
    let claim = Statement::WinningPost(statement);
    groth(parameters, Circuit::WinningPost, claim, WINNING, &config, &public, &own, &[answer], 1)
}

fn setup<Tree: MerkleTreeTrait + 'static>(
    params: SetupParams<'static, FallbackPoSt<'static, Tree>>,
) -> Result<Params<'static, Tree>, SectorError> {
    <FallbackPoStCompound<Tree> as CompoundProof<FallbackPoSt<'_, Tree>, _>>::setup(&params)
        .map_err(SectorError::library("post"))
}

/// The Groth16 proofs of all partitions, verified before they are handed out.
fn groth<Tree: MerkleTreeTrait + 'static>(
    parameters: &ParameterStore,
    circuit: Circuit,
    statement: Statement,
    phase: &'static str,
    config: &PoStConfig,
    public: &Params<'static, Tree>,
    inputs: &Inputs<Tree>,
    answers: &[Answer<Tree>],
    partitions: usize,
) -> Result<ProofFile, SectorError> {
    let profile = statement.circuit().map_or(Profile::Test2k, |(profile, _)| profile);
    let parted = partition_vanilla_proofs(config, &public.vanilla_params, inputs, partitions, answers)
        .map_err(SectorError::library(phase))?;
    let loaded = parameters.check(profile, circuit)?.load()?;
    let proofs =
        <FallbackPoStCompound<Tree> as CompoundProof<FallbackPoSt<'_, Tree>, _>>::prove_with_vanilla(
            public,
            inputs,
            parted,
            &loaded.params,
        )
        .map_err(SectorError::library(phase))?;
    let mut bytes = Vec::new();
    for proof in &proofs {
        proof.write(&mut bytes).map_err(|error| SectorError::library(phase)(error.into()))?;
    }
    let file = ProofFile::groth(statement, &loaded.key, bytes);
    file.verify_with(&loaded.key)?;
    Ok(file)
}

/// The library asserts where a damaged tree surprises it; such a sector is faulty, and the others go on.
fn unwinding<T>(work: impl FnOnce() -> Result<T, anyhow::Error>) -> Result<T, anyhow::Error> {
    catch_unwind(AssertUnwindSafe(work))
        .unwrap_or_else(|_| Err(anyhow::anyhow!("the replica's tree is damaged")))
}
