//! The control socket: how `holdfast status`, `sync`, `unmount`, `verify` and `provider` speak with a mounted drive, and
//! `status` with a running provider.
//!
//! One Unix socket, `home/control.sock` (mode 0600 in a 0700 folder: who may open it, owns the drive), and the same name in a
//! provider's folder. A connection
//! carries one request and its answers, each a line of JSON:
//!
//! ```text
//!   -> {"op":"sync","wait":true,"timeout_seconds":null}
//!   <- {"progress":{"phase":"placing","done":1048576,"total":9437184,"unit":"bytes"}}     any number
//!   <- {"ok":{...}}   or   {"error":{"kind":"timeout","message":"..."}}                   exactly one, the last
//! ```
//!
//! Owns: the protocol, both ends, and the shape of every report. Promises: a client that goes away ends what it asked
//! for only where that is a wait; lines have a length limit on both sides. Refuses: anything but the same user.

mod client;
mod keep;
mod policy;
mod protocol;
mod provider;
mod public;
pub mod render;
pub mod report;
mod server;
mod share;
mod short;
mod watch;

pub use client::{Client, ClientError, STATUS_SECONDS_MAX};
pub use keep::*;
pub use policy::*;
pub use protocol::{
    ControlError, ErrorKind, KeepRequest, ProgressLine, Request, Response, RuleChange, Target,
};
pub use provider::*;
pub use public::*;
pub use report::*;
pub use server::{Answers, ControlHandler, ProgressSink, Server};
pub use share::*;
pub use watch::*;

#[cfg(test)]
mod tests;
