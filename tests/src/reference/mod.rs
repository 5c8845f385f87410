//! A file system that is only a map, and the same history of calls on a folder of a real one.
//!
//! Owns: the calls ([`Op`]), what they mean ([`model`]), and how a folder is asked and compared ([`real`]). Promises: the model follows POSIX as Linux
//! does it for root, and says so by a test of its own, which runs it against the file system that the tests lie on; a history shrinks to the calls that matter.
//! Histories are of one thread: what calls do to each other at the same time is other tests' matter.

pub mod model;
pub mod real;
#[cfg(test)]
mod tests;

use proptest::prelude::*;

/// A call. Paths are numbers of [`path`]; handles are numbers of open files, the oldest first.
#[derive(Debug, Clone)]
pub enum Op {
    Create {
        at: usize,
    },
    Mkdir {
        at: usize,
    },
    Mkfifo {
        at: usize,
    },
    Symlink {
        at: usize,
        target: u8,
    },
    Link {
        from: usize,
        to: usize,
    },
    Unlink {
        at: usize,
    },
    Rmdir {
        at: usize,
    },
    Rename {
        from: usize,
        to: usize,
        how: How,
    },
    Chmod {
        at: usize,
        mode: u32,
    },
    SetXattr {
        at: usize,
        name: u8,
        value: Vec<u8>,
        how: How,
    },
    RemoveXattr {
        at: usize,
        name: u8,
    },
    /// What is deleted or renamed later is still reached.
    Open {
        at: usize,
        append: bool,
    },
    Close {
        handle: usize,
    },
    Write {
        handle: usize,
        off: u64,
        len: usize,
        byte: u8,
    },
    Truncate {
        handle: usize,
        size: u64,
    },
    Allocate {
        handle: usize,
        off: u64,
        len: u64,
        how: Allocate,
    },
    Copy {
        from: usize,
        to: usize,
        src: u64,
        dst: u64,
        len: u64,
    },
    Fsync {
        handle: usize,
    },
    Read {
        handle: usize,
        off: u64,
        len: usize,
    },
}

/// Flags of renameat2 and setxattr.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum How {
    /// Whatever is there.
    Any,
    /// Only where nothing is there.
    New,
    /// Only where something is there: exchanged, or replaced.
    Old,
}

/// Modes of fallocate.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Allocate {
    Grow,
    Keep,
    Punch,
    Zero,
}

/// Open files at most.
pub const HANDLES_MAX: usize = 4;
const PATHS: usize = 39;

/// Paths of at most three names out of three: enough to collide all the time.
pub fn path(at: usize) -> Vec<&'static str> {
    const NAMES: [&str; 3] = ["a", "b", "c"];
    match at {
        0..3 => vec![NAMES[at]],
        3..12 => vec![NAMES[(at - 3) / 3], NAMES[at % 3]],
        _ => vec![NAMES[(at - 12) / 9 % 3], NAMES[(at - 12) / 3 % 3], NAMES[at % 3]],
    }
}

/// The bytes of one write.
pub fn bytes(len: usize, byte: u8) -> Vec<u8> {
    (0..len).map(|i| byte ^ (i / 100) as u8).collect()
}

/// One call.
pub fn op() -> impl Strategy<Value = Op> {
    let at = || 0..PATHS;
    let handle = || 0..HANDLES_MAX;
    let off =
        || prop_oneof![4 => 0u64..20_000, 2 => (0u64..5).prop_map(|n| n * 4096), 1 => 240_000u64..560_000];
    let len = || prop_oneof![4 => 1usize..9_000, 1 => 1usize..140_000];
    let how = || prop_oneof![3 => Just(How::Any), 1 => Just(How::New), 1 => Just(How::Old)];
    let allocate = || {
        prop_oneof![Just(Allocate::Grow), Just(Allocate::Keep), Just(Allocate::Punch), Just(Allocate::Zero)]
    };
    let names = prop_oneof![
        4 => at().prop_map(|at| Op::Create { at }),
        4 => at().prop_map(|at| Op::Mkdir { at }),
        1 => at().prop_map(|at| Op::Mkfifo { at }),
        1 => (at(), any::<u8>()).prop_map(|(at, target)| Op::Symlink { at, target }),
        2 => (at(), at()).prop_map(|(from, to)| Op::Link { from, to }),
        2 => at().prop_map(|at| Op::Unlink { at }),
        2 => at().prop_map(|at| Op::Rmdir { at }),
        4 => (at(), at(), how()).prop_map(|(from, to, how)| Op::Rename { from, to, how }),
        1 => (at(), 0u32..0o1000).prop_map(|(at, mode)| Op::Chmod { at, mode }),
        2 => (at(), 0u8..3, proptest::collection::vec(any::<u8>(), 0..40), how())
            .prop_map(|(at, name, value, how)| Op::SetXattr { at, name, value, how }),
        1 => (at(), 0u8..3).prop_map(|(at, name)| Op::RemoveXattr { at, name }),
    ];
    let data = prop_oneof![
        4 => (at(), any::<bool>()).prop_map(|(at, append)| Op::Open { at, append }),
        1 => handle().prop_map(|handle| Op::Close { handle }),
        6 => (handle(), off(), len(), any::<u8>())
            .prop_map(|(handle, off, len, byte)| Op::Write { handle, off, len, byte }),
        2 => (handle(), off()).prop_map(|(handle, size)| Op::Truncate { handle, size }),
        3 => (handle(), off(), len(), allocate())
            .prop_map(|(handle, off, len, how)| Op::Allocate { handle, off, len: len as u64, how }),
        2 => (handle(), handle(), off(), off(), len())
            .prop_map(|(from, to, src, dst, len)| Op::Copy { from, to, src, dst, len: len as u64 }),
        1 => handle().prop_map(|handle| Op::Fsync { handle }),
        3 => (handle(), off(), len()).prop_map(|(handle, off, len)| Op::Read { handle, off, len }),
    ];
    prop_oneof![1 => names, 1 => data]
}

/// A history.
pub fn history(calls: usize) -> impl Strategy<Value = Vec<Op>> {
    proptest::collection::vec(op(), 1..calls)
}

/// What a call gives: errno, or the bytes that were read.
pub type Outcome = Result<Vec<u8>, i32>;

/// Runs a history on both, call by call. Says where they differ.
pub fn run(history: &[Op], model: &mut model::Model, real: &mut real::Real) -> Result<(), String> {
    for (nth, op) in history.iter().enumerate() {
        let (expected, found) = (model.call(op), real.call(op));
        if expected != found {
            let show = |outcome: &Outcome| match outcome {
                Ok(bytes) => format!("{} bytes", bytes.len()),
                Err(errno) => std::io::Error::from_raw_os_error(*errno).to_string(),
            };
            return Err(format!("call {nth}, {op:?}: expected {}, found {}", show(&expected), show(&found)));
        }
    }
    real.compare(model)
}
