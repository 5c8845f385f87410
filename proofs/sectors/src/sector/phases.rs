//! The heavy phases: each makes its outputs in a folder beside, then installs the folder in one rename.
//!
//! The library writes fixed names into one cache folder and encodes the replica in place, so a phase gets a
//! folder of its own in which the earlier phase's files are hard links: an interrupted phase harms nobody.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Write};
use std::path::{Path, PathBuf};

use filecoin_hashers::{Domain, Hasher};
use filecoin_proofs::parameters::public_params;
use filecoin_proofs::{
    DefaultPieceDomain, DefaultPieceHasher, MerkleTreeTrait, PieceInfo, PoRepConfig, SealCommitPhase1Output,
    SealPreCommitOutput, SealPreCommitPhase1Output, as_safe_commitment, clear_cache, generate_synth_proofs,
    seal_commit_phase1, seal_pre_commit_phase1, seal_pre_commit_phase2,
};
use serde::Serialize;
use serde::de::DeserializeOwned;
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_core::sector::SectorId;
use storage_proofs_porep::stacked::{PublicInputs, StackedCompound, StackedDrg, Tau};

use super::{
    COMMIT1, FINAL, Output, PC1, PC2, PROOF, Phase, SEALED, SYNTHETIC, Sector, SectorError, UNSEALED,
};
use crate::durable;
use crate::params::Circuit;
use crate::profile::shaped;
use crate::proof::{ProofFile, ProofFileError, SealStatement};
use crate::types::Bytes32;
use crate::workshop::Workshop;

/// What pre-commit 1 hands to pre-commit 2, beside the layers.
const HANDOVER: &str = "output.json";
/// Files of a cleared sector, by how their names begin: roots, and the tree over the replica.
const KEPT: [&str; 4] = [SEALED, "p_aux", "t_aux", "sc-02-data-tree-r-last"];

impl Sector {
    /// Does one phase and returns what it made. Repeating it after an interruption is always safe.
    pub(super) fn heavy(&mut self, phase: Phase, workshop: &Workshop) -> Result<Vec<Output>, SectorError> {
        let profile = self.journal.spec.profile;
        match phase {
            Phase::PreCommit1 => {
                workshop.enter()?;
                shaped!(profile, pre_commit_1(self))
            }
            Phase::PreCommit2 => {
                workshop.enter()?;
                let (outputs, comm_r) = shaped!(profile, pre_commit_2(self))?;
                if let Some(before) = self.journal.comm_r.filter(|before| *before != comm_r) {
                    return Err(SectorError::OtherReplica { before, found: comm_r });
                }
                self.journal.comm_r = Some(comm_r);
                Ok(outputs)
            }
            Phase::Synthetic => {
                workshop.enter()?;
                shaped!(profile, synthetic(self))
            }
            Phase::Commit1 => {
                workshop.enter()?;
                shaped!(profile, commit_1(self))
            }
            Phase::Commit2 => shaped!(profile, commit_2(self, workshop)),
            Phase::Cleared => self.clear(),
            Phase::Filling | Phase::Packed => Err(SectorError::WrongPhase { at: self.phase() }),
        }
    }

    pub(super) fn config(&self) -> PoRepConfig {
        self.journal.spec.profile.porep_config(self.journal.spec.mode)
    }

    fn infos(&self) -> Result<Vec<PieceInfo>, SectorError> {
        self.layout()?.piece_infos().map_err(SectorError::library("pieces"))
    }

    pub(super) fn library_id(&self) -> SectorId {
        SectorId::from(self.journal.spec.number)
    }

    pub(super) fn ticket_bytes(&self) -> Result<[u8; 32], SectorError> {
        Ok(self.journal.ticket.ok_or(SectorError::WrongPhase { at: self.phase() })?.0)
    }

    fn commitments(&self) -> Result<SealPreCommitOutput, SectorError> {
        let comm_r = self.journal.comm_r.ok_or(SectorError::WrongPhase { at: self.phase() })?;
        Ok(SealPreCommitOutput { comm_r: comm_r.0, comm_d: self.layout()?.comm_d().0 })
    }

    /// The statement that the seal's proof is for.
    fn statement(&self) -> Result<SealStatement, SectorError> {
        let wrong = || SectorError::WrongPhase { at: self.phase() };
        let spec = self.journal.spec;
        Ok(SealStatement {
            profile: spec.profile,
            mode: spec.mode,
            prover: spec.prover,
            number: spec.number,
            ticket: self.journal.ticket.ok_or_else(wrong)?,
            seed: self.journal.seed.ok_or_else(wrong)?,
            comm_r: self.journal.comm_r.ok_or_else(wrong)?,
            pieces: self.roots(),
        })
    }

    /// A fresh folder for a phase's outputs.
    fn beside(&self, folder: &str) -> Result<PathBuf, SectorError> {
        let path = durable::partial(&self.path(folder));
        durable::remove(&path).map_err(SectorError::io(&path))?;
        fs::create_dir(&path).map_err(SectorError::io(&path))?;
        Ok(path)
    }

    /// Installs a phase's folder and hashes what is in it.
    fn install(&self, beside: &Path, folder: &str) -> Result<Vec<Output>, SectorError> {
        let path = self.path(folder);
        durable::remove(&path).map_err(SectorError::io(&path))?;
        durable::install_dir(beside, &path).map_err(SectorError::io(&path))?;
        Output::of_folder(&self.dir, folder).map_err(SectorError::io(&path))
    }

    /// Keeps replica and tree; layers and the other trees go once the journal says so.
    fn clear(&self) -> Result<Vec<Output>, SectorError> {
        let from = self.replica_dir()?;
        let beside = self.beside(FINAL)?;
        link_all(&from, &beside, |name| KEPT.iter().any(|kept| name.starts_with(kept)))?;
        self.install(&beside, FINAL)
    }
}

fn pre_commit_1<Tree: MerkleTreeTrait + 'static>(sector: &Sector) -> Result<Vec<Output>, SectorError> {
    let beside = sector.beside(PC1)?;
    // The library wants a place for a copy of the data; the next phase makes its own.
    let scratch = beside.join(SEALED);
    File::create(&scratch).map_err(SectorError::io(&scratch))?;
    let output: SealPreCommitPhase1Output<Tree> = seal_pre_commit_phase1(
        &sector.config(),
        &beside,
        sector.path(UNSEALED),
        &scratch,
        sector.journal.spec.prover.0,
        sector.library_id(),
        sector.ticket_bytes()?,
        &sector.infos()?,
    )
    .map_err(SectorError::library("pre-commit 1"))?;
    durable::remove(&scratch).map_err(SectorError::io(&scratch))?;
    write_json(&beside.join(HANDOVER), &output)?;
    sector.install(&beside, PC1)
}

fn pre_commit_2<Tree: MerkleTreeTrait + 'static>(
    sector: &Sector,
) -> Result<(Vec<Output>, Bytes32), SectorError> {
    let from = sector.path(PC1);
    let beside = sector.beside(PC2)?;
    link_all(&from, &beside, |name| name != HANDOVER)?;
    let sealed = beside.join(SEALED);
    fs::copy(sector.path(UNSEALED), &sealed).map_err(SectorError::io(&sealed))?;
    let output: SealPreCommitPhase1Output<Tree> = read_json(&from.join(HANDOVER))?;
    let output = seal_pre_commit_phase2::<_, _, Tree>(&sector.config(), output, &beside, &sealed)
        .map_err(SectorError::library("pre-commit 2"))?;
    Ok((sector.install(&beside, PC2)?, Bytes32(output.comm_r)))
}

fn synthetic<Tree: MerkleTreeTrait + 'static>(sector: &Sector) -> Result<Vec<Output>, SectorError> {
    let beside = sector.beside(SYNTHETIC)?;
    link_all(&sector.path(PC2), &beside, |_| true)?;
    generate_synth_proofs::<_, Tree>(
        &sector.config(),
        beside.clone(),
        beside.join(SEALED),
        sector.journal.spec.prover.0,
        sector.library_id(),
        sector.ticket_bytes()?,
        sector.commitments()?,
        &sector.infos()?,
    )
    .map_err(SectorError::library("synthetic proofs"))?;
    // Links to layers and to the trees that the candidates are answered from.
    clear_cache(&beside).map_err(SectorError::library("synthetic proofs"))?;
    sector.install(&beside, SYNTHETIC)
}

fn commit_1<Tree: MerkleTreeTrait + 'static>(sector: &Sector) -> Result<Vec<Output>, SectorError> {
    let folder = sector.replica_dir()?;
    let seed = sector.journal.seed.ok_or(SectorError::WrongPhase { at: sector.phase() })?;
    let output: SealCommitPhase1Output<Tree> = seal_commit_phase1(
        &sector.config(),
        folder.clone(),
        folder.join(SEALED),
        sector.journal.spec.prover.0,
        sector.library_id(),
        sector.ticket_bytes()?,
        seed.0,
        sector.commitments()?,
        &sector.infos()?,
    )
    .map_err(SectorError::library("commit 1"))?;
    let path = sector.path(COMMIT1);
    write_json(&path, &output)?;
    Ok(vec![Output::of(&sector.dir, COMMIT1.to_owned()).map_err(SectorError::io(&path))?])
}

fn commit_2<Tree: MerkleTreeTrait + 'static>(
    sector: &Sector,
    workshop: &Workshop,
) -> Result<Vec<Output>, SectorError> {
    let path = sector.path(PROOF);
    let statement = sector.statement()?;
    // A replica that was made again is the same one, and its proof still holds.
    let there = File::open(&path).map_err(ProofFileError::from).and_then(ProofFile::read);
    if !there.is_ok_and(|there| there.is_for(&statement)) {
        let output: SealCommitPhase1Output<Tree> = read_json(&sector.path(COMMIT1))?;
        let file = prove::<Tree>(sector, workshop, &statement, output)?;
        durable::replace(&path, &file.encode()?).map_err(SectorError::io(&path))?;
    }
    Ok(vec![Output::of(&sector.dir, PROOF.to_owned()).map_err(SectorError::io(&path))?])
}

/// The Groth16 proof over the answers, verified before it is handed out.
fn prove<Tree: MerkleTreeTrait + 'static>(
    sector: &Sector,
    workshop: &Workshop,
    statement: &SealStatement,
    output: SealCommitPhase1Output<Tree>,
) -> Result<ProofFile, SectorError> {
    let library = || SectorError::library("commit 2");
    let loaded = workshop.parameters().check(sector.journal.spec.profile, Circuit::Porep)?.load()?;
    let comm_r: <Tree::Hasher as Hasher>::Domain =
        as_safe_commitment(&output.comm_r, "comm_r").map_err(library())?;
    let comm_d = DefaultPieceDomain::try_from_bytes(&output.comm_d).map_err(library())?;
    let inputs = PublicInputs {
        replica_id: output.replica_id,
        tau: Some(Tau { comm_d, comm_r }),
        k: None,
        seed: Some(output.seed),
    };
    let public = public_params::<Tree>(&sector.config()).map_err(library())?;
    let proofs = <StackedCompound<Tree, DefaultPieceHasher> as CompoundProof<
        StackedDrg<'_, Tree, DefaultPieceHasher>,
        _,
    >>::circuit_proofs(&inputs, output.vanilla_proofs, &public, &loaded.params, false)
    .map_err(library())?;
    let mut bytes = Vec::new();
    for proof in &proofs {
        proof.write(&mut bytes).map_err(|error| library()(error.into()))?;
    }
    let file = ProofFile::seal(statement.clone(), &loaded.key, bytes);
    file.verify_with(&loaded.key)?;
    Ok(file)
}

/// Links the files of a folder into another; copies where the file system has no links.
fn link_all(from: &Path, to: &Path, keep: impl Fn(&str) -> bool) -> Result<(), SectorError> {
    for entry in fs::read_dir(from).map_err(SectorError::io(from))? {
        let name = entry.map_err(SectorError::io(from))?.file_name();
        if !keep(&name.to_string_lossy()) {
            continue;
        }
        let (old, new) = (from.join(&name), to.join(&name));
        fs::hard_link(&old, &new)
            .or_else(|_| fs::copy(&old, &new).map(drop))
            .map_err(SectorError::io(&old))?;
    }
    Ok(())
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), SectorError> {
    durable::write_with(path, |file| {
        let mut out = BufWriter::new(file);
        serde_json::to_writer(&mut out, value).map_err(io::Error::from)?;
        out.flush()
    })
    .map_err(SectorError::io(path))
}

fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, SectorError> {
    let file = File::open(path).map_err(SectorError::io(path))?;
    serde_json::from_reader(BufReader::new(file))
        .map_err(|error| SectorError::io(path)(io::Error::from(error)))
}
