//! The CLI's end of the control socket: blocking, one request for each connection.

use std::{
    io::{BufRead, BufReader, Read, Write},
    net::Shutdown,
    path::Path,
    time::Duration,
};

use serde::de::DeserializeOwned;

use super::{
    ControlError, ProgressLine, Request,
    protocol::{RESPONSE_BYTES_MAX, Response},
};

/// A daemon that runs answers a status in milliseconds; one that does not within this time hangs.
pub const STATUS_SECONDS_MAX: u64 = 15;

#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// No daemon listens: the drive is not mounted.
    #[error("the drive is not mounted (nothing listens at {0})")]
    NotRunning(String),
    #[error("the daemon does not answer")]
    Silent,
    #[error("the connection to the daemon broke: {0}")]
    Io(#[from] std::io::Error),
    #[error("the daemon's answer is not understood ({0}); is it another version?")]
    Format(String),
    #[error(transparent)]
    Refused(#[from] ControlError),
}

pub struct Client<'a> {
    socket: &'a Path,
    patience: Option<Duration>,
}

impl<'a> Client<'a> {
    /// Waits for answers as long as they take.
    pub fn new(socket: &'a Path) -> Client<'a> {
        Client { socket, patience: None }
    }

    /// Gives up when no line comes for this long.
    pub fn patience(mut self, patience: Duration) -> Client<'a> {
        self.patience = Some(patience);
        self
    }

    pub fn is_running(&self) -> bool {
        super::short::connect(self.socket).is_ok()
    }

    pub fn call<T: DeserializeOwned>(
        &self,
        request: &Request,
        mut progress: impl FnMut(ProgressLine),
    ) -> Result<T, ClientError> {
        use std::io::ErrorKind::{ConnectionRefused, NotFound, TimedOut, WouldBlock};
        let mut stream = super::short::connect(self.socket).map_err(|error| match error.kind() {
            NotFound | ConnectionRefused => ClientError::NotRunning(self.socket.display().to_string()),
            _ => ClientError::Io(error),
        })?;
        stream.set_read_timeout(self.patience)?;
        let mut line = serde_json::to_vec(request).map_err(|e| ClientError::Format(e.to_string()))?;
        line.push(b'\n');
        stream.write_all(&line)?;
        let mut reader = BufReader::new(&stream);
        let answer = loop {
            let mut line = Vec::new();
            let read = (&mut reader).take(RESPONSE_BYTES_MAX as u64).read_until(b'\n', &mut line);
            match read {
                Ok(0) => return Err(ClientError::Io(std::io::ErrorKind::UnexpectedEof.into())),
                Ok(_) => {}
                Err(error) if matches!(error.kind(), WouldBlock | TimedOut) => {
                    return Err(ClientError::Silent);
                }
                Err(error) => return Err(error.into()),
            }
            match serde_json::from_slice(&line).map_err(|e| ClientError::Format(e.to_string()))? {
                Response::Progress(line) => progress(line),
                Response::Ok(value) => break value,
                Response::Error(error) => return Err(error.into()),
            }
        };
        let _ = stream.shutdown(Shutdown::Both);
        serde_json::from_value(answer).map_err(|e| ClientError::Format(e.to_string()))
    }
}
