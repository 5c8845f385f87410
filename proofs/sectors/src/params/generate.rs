//! Making parameters for test profiles: one circuit at a time, by portions, each kept once it is whole.
//!
//! The points are those of `bellperson`'s own generator from the same secrets (`holdfast-setup`; the tests compare them). What
//! is stamped stays; what was interrupted goes on after its last synced portion (`draft`), with the secrets that it began with.

use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use bellpepper_core::{Circuit as Constraints, ConstraintSystem, SynthesisError};
use filecoin_proofs::parameters::{public_params, window_post_public_params, winning_post_public_params};
use filecoin_proofs::{DefaultPieceHasher, MerkleTreeTrait};
use holdfast_setup::{Fr, Secrets, Setup};
use nix::fcntl::{Flock, FlockArg};
use nix::time::{ClockId, clock_gettime};
use serde::{Deserialize, Serialize};
use storage_proofs_core::compound_proof::CompoundProof;
use storage_proofs_porep::stacked::{StackedCompound, StackedDrg};
use storage_proofs_post::fallback::{FallbackPoSt, FallbackPoStCompound};

use super::draft::Draft;
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
    /// The circuit is laid out: nothing can be said of how far that is.
    LayingOut,
    /// Points are made and written.
    Computing,
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
    /// Points made, and all of them, while they are made: a resumed making begins where it was.
    pub points: u64,
    pub points_total: u64,
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
        let mut tell = |stage, (points, points_total)| {
            let cpu_seconds = cpu_seconds() - started;
            progress(GenerateProgress { profile, circuit, stage, cpu_seconds, points, points_total });
        };
        const NONE: (u64, u64) = (0, 0);
        let (params, key) = (self.params_path(profile, circuit), self.key_path(profile, circuit));
        tell(GenerateStage::Checking, NONE);
        match self.check(profile, circuit) {
            Ok(checked) => {
                Draft::forget(&params)?;
                tell(GenerateStage::Done, NONE);
                return Ok(checked);
            }
            Err(error @ ParamsError::Io { .. }) => return Err(error),
            // Whatever else is wrong, making it anew mends it.
            Err(_) => {}
        }
        let stamp_path = self.stamp_path(profile, circuit);
        durable::remove(&stamp_path).map_err(ParamsError::io(&stamp_path))?;
        let mut draft = Draft::open(&params, profile, circuit, &mut Adapter(rng))?;
        let secrets = draft.secrets.clone();
        let setup = ticking(
            || tell(GenerateStage::LayingOut, NONE),
            || shaped!(profile, lay_out(profile, circuit, &secrets)),
        )?;
        let made = draft.make(&setup, |portions| {
            let progress = setup.progress(portions);
            tell(GenerateStage::Computing, (progress.done, progress.total));
        })?;
        write(&key, |out| setup.key().write(out))?;
        drop(setup);
        fs::rename(&made, &params).map_err(ParamsError::io(&params))?;
        durable::sync_dir(self.dir()).map_err(ParamsError::io(self.dir()))?;
        tell(GenerateStage::Stamping, NONE);
        let stamp = Stamp::of(profile, circuit, &params, &key)?;
        Draft::forget(&params)?;
        stamp.write(&stamp_path)?;
        let checked = self.check(profile, circuit)?;
        tell(GenerateStage::Done, NONE);
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

/// The parameters' scalars, from a circuit without witnesses.
pub(super) fn lay_out<Tree: MerkleTreeTrait + 'static>(
    profile: Profile,
    circuit: Circuit,
    secrets: &Secrets,
) -> Result<Setup, ParamsError> {
    match circuit {
        Circuit::Porep => scalars(|| porep::<Tree>(profile), secrets),
        Circuit::WindowPost | Circuit::WinningPost => scalars(|| post::<Tree>(profile, circuit), secrets),
    }
}

fn scalars<C: Constraints<Fr>>(
    blank: impl Fn() -> Result<C, anyhow::Error>,
    secrets: &Secrets,
) -> Result<Setup, ParamsError> {
    let threads = rayon::current_num_threads();
    // Both passes need a circuit; whether there is one is known before the first.
    let library = |error: anyhow::Error| ParamsError::Library(format!("{error:#}"));
    let circuits = std::cell::RefCell::new(vec![blank().map_err(library)?, blank().map_err(library)?]);
    let next = || circuits.borrow_mut().pop();
    Setup::new(|| Blank(next()), secrets, threads).map_err(|error| ParamsError::Library(error.to_string()))
}

/// A circuit that is laid out once.
struct Blank<C>(Option<C>);

impl<C: Constraints<Fr>> Constraints<Fr> for Blank<C> {
    fn synthesize<CS: ConstraintSystem<Fr>>(self, cs: &mut CS) -> Result<(), SynthesisError> {
        self.0.ok_or(SynthesisError::AssignmentMissing)?.synthesize(cs)
    }
}

/// The circuit of a seal: interactive and synthetic seals have the same.
pub(super) fn porep<Tree: MerkleTreeTrait + 'static>(
    profile: Profile,
) -> Result<impl Constraints<Fr>, anyhow::Error> {
    let params = public_params::<Tree>(&profile.porep_config(SealMode::Interactive))?;
    Ok(<StackedCompound<Tree, DefaultPieceHasher> as CompoundProof<
        StackedDrg<'_, Tree, DefaultPieceHasher>,
        _,
    >>::blank_circuit(&params))
}

pub(super) fn post<Tree: MerkleTreeTrait + 'static>(
    profile: Profile,
    circuit: Circuit,
) -> Result<impl Constraints<Fr>, anyhow::Error> {
    let params = if circuit == Circuit::WindowPost {
        window_post_public_params::<Tree>(&profile.window_config())
    } else {
        winning_post_public_params::<Tree>(&profile.winning_config())
    }?;
    Ok(<FallbackPoStCompound<Tree> as CompoundProof<FallbackPoSt<'_, Tree>, _>>::blank_circuit(&params))
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
