//! Facts of this machine and of a home folder, without its passphrase and without its lock.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use holdfast_content::keyfile::KEYFILE_BYTES_MAX;
use nix::sys::resource::{Resource, getrlimit};
use nix::sys::statvfs::statvfs;
use nix::unistd::{AccessFlags, access, geteuid};

use super::facts::{Daemon, HomeFacts, HomeState, HomeThere, Machine, Mount, Unusable};
use crate::home::{Home, HomeError, mountpoint};
use crate::process::ProcessRecord;

/// Whether it can mount, and its limits.
pub fn machine() -> Machine {
    Machine {
        no_fuse: mountpoint::check_fuse().err().map(|error| error.to_string()),
        open_files_max: getrlimit(Resource::RLIMIT_NOFILE).ok().map(|(_, hard)| hard),
    }
}

/// The home folder as it lies there; whether its daemon answers is known to whoever asks it.
pub fn home(path: &Path) -> HomeFacts {
    let state = match Home::open(path) {
        Ok(home) => HomeState::There(Box::new(there(&home))),
        Err(error) => HomeState::Unusable {
            why: match &error {
                HomeError::Missing(_) => Unusable::Missing,
                HomeError::NewerFormat { .. } => Unusable::Newer,
                HomeError::Damaged { .. } => Unusable::Damaged,
                _ => Unusable::Other,
            },
            what: error.to_string(),
        },
    };
    HomeFacts { path: path.to_owned(), state }
}

fn there(home: &Home) -> HomeThere {
    let (path, config) = (home.path(), home.config());
    let uid = fs::metadata(path).map(|m| m.uid()).ok();
    let me = geteuid().as_raw();
    // Some file systems count no files, and say 0 of 0.
    let (free, total, free_files) = statvfs(path).map_or((u64::MAX, u64::MAX, None), |disk| {
        let counted = (disk.files() > 0).then(|| disk.files_available());
        let bytes = |blocks: u64| blocks.saturating_mul(disk.fragment_size());
        (bytes(disk.blocks_available()), bytes(disk.blocks()), counted)
    });
    let (index, log) = (path.join("index").is_dir(), path.join("log").is_dir());
    HomeThere {
        open_to_others: open_to_others(path),
        foreign: uid.filter(|uid| *uid != me && me != 0),
        unwritable: access(path, AccessFlags::W_OK | AccessFlags::X_OK)
            .err()
            .map(|errno| errno.desc().to_owned()),
        free,
        free_min: config.limits.disk_free_bytes_min.min(total / 16),
        free_files,
        keyfile_length: fs::metadata(path.join("keyfile"))
            .map(|m| m.len())
            .ok()
            .filter(|len| *len == 0 || *len > KEYFILE_BYTES_MAX as u64),
        log_missing: index && !log && !config.restore_pending,
        set_aside: names(path).into_iter().filter(|name| name.starts_with("index.damaged-")).collect(),
        restore_pending: config.restore_pending,
        mountpoint: config.mountpoint.clone(),
        mount: config.mountpoint.as_deref().map_or(Mount::Nothing, mount),
        daemon: match ProcessRecord::read(&home.pid_path()).and_then(|record| record.find()) {
            Some(_) => Daemon::Deaf,
            None => Daemon::Absent,
        },
        copies_wanted: config.policy.copies_wanted(),
    }
}

fn mount(path: &Path) -> Mount {
    if mountpoint::is_ours(path) {
        return Mount::Drive;
    }
    match mountpoint::mounted_on(path).is_none() && !names(path).is_empty() {
        true => Mount::Files,
        false => Mount::Nothing,
    }
}

fn names(folder: &Path) -> Vec<String> {
    let Ok(entries) = fs::read_dir(folder) else { return Vec::new() };
    entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect()
}

/// The home and what lies in it that is meant for its owner alone.
fn open_to_others(home: &Path) -> Vec<std::path::PathBuf> {
    let open = |path: &Path| fs::symlink_metadata(path).is_ok_and(|m| m.mode() & 0o077 != 0);
    // A closed folder protects what is in it.
    if !open(home) {
        return Vec::new();
    }
    let secret = ["keyfile", "config", "control.sock"].map(|name| home.join(name));
    std::iter::once(home.to_owned()).chain(secret.into_iter().filter(|path| open(path))).collect()
}
