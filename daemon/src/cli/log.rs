//! The daemon's log file. It names peers, pieces and counts; never a name, a content, a key or a passphrase of the drive.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use tracing_subscriber::EnvFilter;

use crate::home::HomeError;

/// A log longer than this is set aside (as `.1`) when the daemon starts.
const LOG_BYTES_MAX: u64 = 16 << 20;
/// `HOLDFAST_LOG=debug` shows more; what libraries say is shown from warnings on.
const FILTER_DEFAULT: &str = "warn,holdfast=info,holdfast_fs=info,holdfast_net=info,holdfast_store=info";

/// Takes every line and reports no error: what cannot be written (a full disk) is a line less, and must not become a
/// second event, or a panic, in the middle of the first one. A line is one write to a file opened for appending, so that
/// threads need no lock.
struct Lines(File);

impl Write for &Lines {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let _ = (&self.0).write_all(line);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Opens the log for appending; one that has grown too long is set aside first.
pub fn open(path: &Path) -> Result<File, HomeError> {
    if std::fs::metadata(path).is_ok_and(|m| m.len() > LOG_BYTES_MAX) {
        let mut older = path.as_os_str().to_owned();
        older.push(".1");
        let _ = std::fs::rename(path, older);
    }
    let open = OpenOptions::new().create(true).append(true).mode(0o600).open(path);
    open.map_err(|e| HomeError::io("write", path, e))
}

/// Everything that is traced goes to this file from now on, panics as well.
pub fn to_file(path: &Path) -> Result<(), HomeError> {
    let file = open(path)?;
    let filter = EnvFilter::try_from_env("HOLDFAST_LOG").unwrap_or_else(|_| EnvFilter::new(FILTER_DEFAULT));
    let subscriber = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_ansi(false)
        .log_internal_errors(false)
        .with_writer(Arc::new(Lines(file)));
    // Only the first call counts; there is one log for each process.
    let _ = subscriber.try_init();
    let before = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        tracing::error!("{panic}");
        before(panic);
    }));
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_full_disk_is_a_line_less_and_no_error() {
        // /dev/full answers every write with ENOSPC.
        let full = OpenOptions::new().append(true).open("/dev/full").unwrap();
        assert!((&full).write_all(b"line").is_err());
        assert_eq!((&Lines(full)).write(b"line").unwrap(), 4);
    }
}
