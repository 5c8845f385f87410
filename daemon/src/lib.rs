//! The `holdfast` program: everything that joins the rooms.
//!
//! - `home`, `control`, `metrics`, `worker`, `records`: what a drive's process is made of.
//! - `doctor`: what can be wrong, and what to do about it.
//! - `cli`: the commands; thin, all of them. `provide` and `local_network`: the provider's side.
//! - `plain`: folders as plain UnixFS and CAR files, without a drive. `public`: what a drive has published. `gateway`: how
//!   providers give it to anybody. `link`, `get`: how anybody finds and fetches it.
//! - `watch`: repair by others while the owner's machine is off: capabilities, and the watcher.
//! - `drive`, `workers`, `wiring`, `retrieve`, `restore`, `status`: the drive itself, which fs and net meet in.
//!
//! The seam between the commands and the drive:
//!
//! ```text
//!   cli::mount    home (locked), unlocked keys, checked mountpoint
//!       -> drive::run(run::RunOptions) -> anyhow::Result<control::UnmountReport>
//!          opens the store, mounts, calls `ready`, serves control.sock, runs the workers; returns when `shutdown` is
//!          cancelled, `unmount` was asked for, or the mount is gone
//!          drive::mount_options(&[String]) -> Result<MountOptions, impl Display>     the words after -o
//!   cli::restore  words, peers -> restore::find(..) : keyring and providers, from which a home is made with
//!          `restore_pending`; then the same drive::run, which sees the flag, attaches the newest head and clears it
//!          restore::find(&RootKey, Search, ProgressSink) -> anyhow::Result<restore::Found{ recovered:
//!          home::Recovered, providers: Vec<ProviderAddr>, survive_losses: Option<u8>, answered: u32, asked: u32 }>
//!   cli::verify   drive::verify_unmounted(Home, Unlocked, (deep, remote), ProgressSink)
//!          -> anyhow::Result<control::VerifyReport>
//! ```

pub mod cli;
pub mod control;
pub mod doctor;
pub mod drive;
#[doc(hidden)]
pub mod fuzzing;
pub mod gateway;
pub mod get;
pub mod handler;
pub mod home;
pub mod keep;
pub mod link;
pub mod local_network;
pub mod memory;
pub mod metrics;
pub mod plain;
pub mod process;
pub mod progress;
pub mod prover;
pub mod provide;
pub mod public;
pub mod reading;
pub mod records;
pub mod restore;
pub mod retrieve;
pub mod run;
pub mod sealing;
pub mod share;
pub mod status;
pub mod watch;
pub mod wiring;
pub mod worker;
pub mod workers;
