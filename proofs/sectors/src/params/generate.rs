//! Making parameters for test profiles: one circuit at a time, each kept once it is whole.
//!
//! The generator is `bellperson`'s own, with the caller's randomness, of which nothing is kept. It cannot be interrupted inside a circuit, so that is the grain at which making resumes: what is
//! stamped stays, what is not is made again.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use bellperson::groth16::{Parameters, generate_random_parameters};
use blstrs::Bls12;
use filecoin_proofs::parameters::{public_params, window_post_public_params, winning_post_public_params};
use filecoin_proofs::{DefaultPieceHasher, MerkleTreeTrait};
use nix::fcntl::{Flock, FlockArg};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_porep::stacked::{StackedCompound, StackedDrg};
use storage_proofs_post::fallback::{FallbackPoSt, FallbackPoStCompound};

use super::{Checked, Circuit, ParameterStore, ParamsError, Stamp};
use crate::durable;
use crate::entropy::{Adapter, Rng};
use crate::profile::{Profile, SealMode, shaped};

/// How often progress is told while the generator runs.
const TICK: Duration = Duration::from_secs(1);

/// What making a pair is busy with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum GenerateStage {
    /// Hashing what is already there.
    Checking,
    /// The generator runs.
    Computing,
    Writing,
    /// Hashing what was written, for the stamp.
    Stamping,
    Done,
}

/// Where making a pair stands. All of it is of test strength.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct GenerateProgress {
    pub profile: Profile,
    pub circuit: Circuit,
    pub stage: GenerateStage,
    /// Seconds of processor time spent on this circuit so far.
    pub cpu_seconds: f64,
    /// What it took where it was measured, if it was.
    pub expected_cpu_seconds: Option<f64>,
}

impl Circuit {
    /// Processor time of the generator as measured (SOUNDNESS.md has the machine).
    fn generate_cpu_seconds(self, profile: Profile) -> Option<f64> {
        match (profile, self) {
            (Profile::Test2k, Self::Porep) => Some(1_500.0),
            (Profile::Test2k, Self::WindowPost) => Some(4.5),
            (Profile::Test2k, Self::WinningPost) => Some(13.0),
            (Profile::Test8m, Self::WindowPost) => Some(9.0),
            _ => None,
        }
    }
}

impl ParameterStore {
    /// Makes a pair unless a sound one is there, and says what there is in the end.
    ///
    /// # Errors
    /// `NeverLocal` for production; `Busy` where another process makes some in this folder; `Library`, `Io`.
    pub fn generate(
        &self,
        profile: Profile,
        circuit: Circuit,
        rng: &mut dyn Rng,
        progress: &mut (dyn FnMut(GenerateProgress) + Send),
    ) -> Result<Checked, ParamsError> {
        if profile.is_production() {
            return Err(ParamsError::NeverLocal(profile));
        }
        fs::create_dir_all(self.dir()).map_err(ParamsError::io(self.dir()))?;
        let _lock = self.lock()?;
        let started = cpu_seconds();
        let expected_cpu_seconds = circuit.generate_cpu_seconds(profile);
        let mut tell = |stage| {
            let cpu_seconds = cpu_seconds() - started;
            progress(GenerateProgress { profile, circuit, stage, cpu_seconds, expected_cpu_seconds });
        };
        tell(GenerateStage::Checking);
        match self.check(profile, circuit) {
            Ok(checked) => {
                tell(GenerateStage::Done);
                return Ok(checked);
            }
            Err(error @ ParamsError::Io { .. }) => return Err(error),
            // Whatever else is wrong, making it anew mends it.
            Err(_) => {}
        }
        let stamp_path = self.stamp_path(profile, circuit);
        durable::remove(&stamp_path).map_err(ParamsError::io(&stamp_path))?;
        let made =
            ticking(|| tell(GenerateStage::Computing), || shaped!(profile, compute(profile, circuit, rng)))?;
        tell(GenerateStage::Writing);
        let (params, key) = (self.params_path(profile, circuit), self.key_path(profile, circuit));
        write(&params, |out| made.write(out))?;
        write(&key, |out| made.vk.write(out))?;
        drop(made);
        tell(GenerateStage::Stamping);
        Stamp::of(profile, circuit, &params, &key)?.write(&stamp_path)?;
        let checked = self.check(profile, circuit)?;
        tell(GenerateStage::Done);
        Ok(checked)
    }

    fn lock(&self) -> Result<Flock<fs::File>, ParamsError> {
        let path = self.dir().join("lock");
        let file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(&path)
            .map_err(ParamsError::io(&path))?;
        Flock::lock(file, FlockArg::LockExclusiveNonblock)
            .map_err(|_| ParamsError::Busy { dir: self.dir().to_owned() })
    }
}

fn write(
    path: &Path,
    body: impl FnOnce(&mut BufWriter<&mut fs::File>) -> io::Result<()>,
) -> Result<(), ParamsError> {
    durable::write_with(path, |file| {
        let mut out = BufWriter::with_capacity(1 << 20, file);
        body(&mut out)?;
        out.flush()
    })
    .map_err(ParamsError::io(path))
}

fn compute<Tree: MerkleTreeTrait + 'static>(
    profile: Profile,
    circuit: Circuit,
    rng: &mut dyn Rng,
) -> Result<Parameters<Bls12>, ParamsError> {
    let mut rng = Adapter(rng);
    let library = |error: anyhow::Error| ParamsError::Library(format!("{error:#}"));
    let made = match circuit {
        Circuit::Porep => {
            let params =
                public_params::<Tree>(&profile.porep_config(SealMode::Interactive)).map_err(library)?;
            let blank = <StackedCompound<Tree, DefaultPieceHasher> as CompoundProof<
                StackedDrg<'_, Tree, DefaultPieceHasher>,
                _,
            >>::blank_circuit(&params);
            generate_random_parameters::<Bls12, _, _>(blank, &mut rng)
        }
        Circuit::WindowPost | Circuit::WinningPost => {
            let params = if circuit == Circuit::WindowPost {
                window_post_public_params::<Tree>(&profile.window_config())
            } else {
                winning_post_public_params::<Tree>(&profile.winning_config())
            }
            .map_err(library)?;
            let blank =
                <FallbackPoStCompound<Tree> as CompoundProof<FallbackPoSt<'_, Tree>, _>>::blank_circuit(
                    &params,
                );
            generate_random_parameters::<Bls12, _, _>(blank, &mut rng)
        }
    };
    made.map_err(|error| ParamsError::Library(error.to_string()))
}

/// Runs `work` while another thread tells that it still does.
fn ticking<T>(mut tell: impl FnMut() + Send, work: impl FnOnce() -> T) -> T {
    std::thread::scope(|scope| {
        let (done, wait) = mpsc::channel::<()>();
        scope.spawn(move || {
            tell();
            // The channel closes when the work is over, however it ends.
            while wait.recv_timeout(TICK) == Err(mpsc::RecvTimeoutError::Timeout) {
                tell();
            }
        });
        let out = work();
        drop(done);
        out
    })
}

/// Processor time of this process, all threads.
fn cpu_seconds() -> f64 {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map(Duration::from).unwrap_or_default().as_secs_f64()
}
