//! The parent's side: start a worker, listen to it, stop it, and tell its ends apart.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc::{self, Receiver, TryRecvError};

use nix::sys::signal::Signal;
use thiserror::Error;

use super::{Assignment, Job, JobResult, LINE_BYTES_MAX, Limits, Message};
use crate::workshop::Workshop;

/// Lines that may wait for a parent that does not look: then the worker waits too.
const LINES_MAX: usize = 1_024;
/// The end of a worker's error output that is kept for its failure's text.
const STDERR_BYTES_MAX: usize = 4_096;

/// Why a worker could not be started or listened to.
#[derive(Debug, Error)]
pub enum ChildError {
    #[error("the worker cannot be started: {0}")]
    Start(io::Error),
    #[error("the assignment is {0} bytes, too long")]
    TooLong(usize),
    #[error("the assignment cannot be written: {0}")]
    Assign(String),
    #[error("the worker cannot be waited for: {0}")]
    Wait(io::Error),
}

/// How a worker ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChildEnd {
    Done(JobResult),
    Failed {
        permanent: bool,
        reason: String,
    },
    /// Memory ran out: its own limit, or the kernel chose it. The step can be tried again with more.
    OutOfMemory,
    /// We stopped it.
    Stopped,
    /// It ended without a word.
    Crashed {
        reason: String,
    },
}

/// How workers are started: the program and the arguments that make it call `worker_main`.
#[derive(Debug, Clone)]
pub struct Launcher {
    program: PathBuf,
    arguments: Vec<OsString>,
    workshop: Workshop,
}

impl Launcher {
    #[must_use]
    pub fn new(program: PathBuf, arguments: Vec<OsString>, workshop: Workshop) -> Self {
        Self { program, arguments, workshop }
    }

    #[must_use]
    pub fn workshop(&self) -> &Workshop {
        &self.workshop
    }

    /// Starts a worker on a job.
    ///
    /// # Errors
    /// `Start`, `TooLong`, `Assign`.
    pub fn start(&self, job: Job, limits: Limits) -> Result<Child, ChildError> {
        let (workshop, parameters) =
            (self.workshop.dir().to_owned(), self.workshop.parameters().dir().to_owned());
        let assignment = Assignment { job, limits, workshop, parameters };
        let mut line =
            serde_json::to_vec(&assignment).map_err(|error| ChildError::Assign(error.to_string()))?;
        line.push(b'\n');
        if line.len() > LINE_BYTES_MAX {
            return Err(ChildError::TooLong(line.len()));
        }
        let mut child = Command::new(&self.program)
            .args(&self.arguments)
            .current_dir(self.workshop.run_dir())
            .envs(self.workshop.environment())
            .env("RAYON_NUM_THREADS", limits.cores.max(1).to_string())
            // Whoever is out of memory has none for a backtrace, and would wait for ever for the lock that it holds itself.
            .env("RUST_BACKTRACE", "0")
            .env("RUST_LIB_BACKTRACE", "0")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .map_err(ChildError::Start)?;
        let (send, messages) = mpsc::sync_channel(LINES_MAX);
        let (Some(mut input), Some(output), Some(errors)) =
            (child.stdin.take(), child.stdout.take(), child.stderr.take())
        else {
            return Err(ChildError::Assign("no pipes".to_owned()));
        };
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output);
            let mut line = Vec::new();
            loop {
                line.clear();
                let got = (&mut lines).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line);
                if !matches!(got, Ok(1..)) {
                    break;
                }
                // The library logs nothing to standard output; a line that is no message is no message.
                if let Ok(message) = serde_json::from_slice::<Message>(&line)
                    && send.send(message).is_err()
                {
                    break;
                }
            }
        });
        let stderr = std::thread::spawn(move || tail(errors));
        if let Err(error) = input.write_all(&line).and_then(|()| input.flush()) {
            // It ended before it read: its status tells more than the pipe does.
            let _ = child.kill();
            let _ = child.wait();
            return Err(ChildError::Assign(error.to_string()));
        }
        Ok(Child {
            process: child,
            input: Some(input),
            messages,
            stderr: Some(stderr),
            last: None,
            stopped: false,
        })
    }
}

/// The last bytes of a stream.
fn tail(mut from: impl Read) -> String {
    let mut kept = Vec::new();
    let mut chunk = [0; 1_024];
    while let Ok(got @ 1..) = from.read(&mut chunk) {
        kept.extend_from_slice(chunk.get(..got).unwrap_or_default());
        let excess = kept.len().saturating_sub(STDERR_BYTES_MAX);
        kept.drain(..excess);
    }
    String::from_utf8_lossy(&kept).trim().to_owned()
}

/// A running worker. Dropping it kills it.
#[derive(Debug)]
pub struct Child {
    process: std::process::Child,
    input: Option<std::process::ChildStdin>,
    messages: Receiver<Message>,
    stderr: Option<std::thread::JoinHandle<String>>,
    last: Option<Message>,
    stopped: bool,
}

impl Child {
    #[must_use]
    pub fn id(&self) -> u32 {
        self.process.id()
    }

    /// What it said since the last look.
    pub fn progress(&mut self) -> Vec<Message> {
        let mut heard = Vec::new();
        loop {
            match self.messages.try_recv() {
                Ok(message @ (Message::Done(_) | Message::Failed { .. })) => self.last = Some(message),
                Ok(message) => heard.push(message),
                Err(TryRecvError::Empty | TryRecvError::Disconnected) => return heard,
            }
        }
    }

    /// How it ended, if it has. Call `progress` first: what it said before its end is lost after.
    ///
    /// # Errors
    /// `Wait`.
    pub fn try_end(&mut self) -> Result<Option<ChildEnd>, ChildError> {
        let Some(status) = self.process.try_wait().map_err(ChildError::Wait)? else { return Ok(None) };
        Ok(Some(self.ended(status)))
    }

    /// Waits for its end.
    ///
    /// # Errors
    /// `Wait`.
    pub fn wait(&mut self) -> Result<ChildEnd, ChildError> {
        // While waiting, somebody must listen, or a talkative worker would wait for us.
        while let Ok(message) = self.messages.recv() {
            if matches!(message, Message::Done(_) | Message::Failed { .. }) {
                self.last = Some(message);
            }
        }
        let status = self.process.wait().map_err(ChildError::Wait)?;
        Ok(self.ended(status))
    }

    /// Kills it at once: every phase is crash-safe, so nothing is lost but the phase that it is in.
    pub fn stop(&mut self) {
        self.stopped = true;
        self.input = None;
        // Already dead is as good.
        let _ = self.process.kill();
    }

    fn ended(&mut self, status: ExitStatus) -> ChildEnd {
        // The reading thread ends with the pipe; what it still holds is read here.
        while let Ok(message) = self.messages.recv() {
            if matches!(message, Message::Done(_) | Message::Failed { .. }) {
                self.last = Some(message);
            }
        }
        let errors = self.stderr.take().and_then(|thread| thread.join().ok()).unwrap_or_default();
        match self.last.take() {
            Some(Message::Done(result)) => ChildEnd::Done(result),
            Some(Message::Failed { permanent, reason }) => ChildEnd::Failed { permanent, reason },
            _ if self.stopped => ChildEnd::Stopped,
            _ if ran_out(status, &errors) => ChildEnd::OutOfMemory,
            _ => ChildEnd::Crashed { reason: format!("{status}: {errors}") },
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.stop();
        // Reaped, so that no zombie stays.
        let _ = self.process.wait();
    }
}

/// Whether it died for want of memory: killed by the kernel, or aborted by its allocator at its own limit.
fn ran_out(status: ExitStatus, errors: &str) -> bool {
    let by = |signal: Signal| status.signal() == Some(signal as i32);
    by(Signal::SIGKILL)
        || (by(Signal::SIGABRT) || status.code() == Some(101)) && {
            let errors = errors.to_ascii_lowercase();
            // A thread whose stack has no room is refused in other words than an allocation.
            let signs = ["memory allocation of", "cannot allocate memory", "failed to spawn thread"];
            signs.iter().any(|sign| errors.contains(sign))
        }
}
