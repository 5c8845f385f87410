//! Where `holdfast-prover` is: the program that has Filecoin's circuits, started as a process of its own.
//!
//! It is looked for beside this program and then in PATH, and nowhere else: whoever can name another one can make it say
//! that a proof holds.

use std::path::{Path, PathBuf};

pub const PROGRAM: &str = "holdfast-prover";

/// The prover is neither beside this program nor in PATH.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the program {PROGRAM} is missing: it is neither beside this program nor in PATH")]
pub struct Missing;

impl Missing {
    pub const HINT: &str = "Build it with `cargo build --release --locked --manifest-path proofs/sectors/Cargo.toml --target-dir target` (packaging/\
                            quickstart --prover does) and put it beside `holdfast`. Possession and compressed proofs need no such program.";
}

/// Finds the prover for the program at `own`.
pub fn find(own: Option<&Path>, path: Option<&std::ffi::OsStr>) -> Result<PathBuf, Missing> {
    let beside = own.and_then(Path::parent).map(|dir| dir.join(PROGRAM));
    let searched = path.map(std::env::split_paths).into_iter().flatten();
    // An empty part of PATH would mean whatever folder the user is in.
    let in_path = searched.filter(|dir| dir.is_absolute()).map(|dir| dir.join(PROGRAM));
    beside.into_iter().chain(in_path).find(|program| is_program(program)).ok_or(Missing)
}

fn is_program(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(path).is_ok_and(|meta| meta.is_file() && meta.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn beside_us_first_then_in_absolute_folders_of_path() {
        let dir = tempfile::tempdir().unwrap();
        let put = |name: &str, mode: u32| {
            let folder = dir.path().join(name);
            std::fs::create_dir(&folder).unwrap();
            let program = folder.join(PROGRAM);
            std::fs::write(&program, "").unwrap();
            std::fs::set_permissions(&program, std::fs::Permissions::from_mode(mode)).unwrap();
            program
        };
        let (own, other, plain) = (put("own", 0o755), put("other", 0o755), put("plain", 0o644));
        let path =
            std::env::join_paths([Path::new("relative"), plain.parent().unwrap(), other.parent().unwrap()])
                .unwrap();
        let holdfast = own.with_file_name("holdfast");
        assert_eq!(find(Some(&holdfast), Some(&path)), Ok(own));
        assert_eq!(find(Some(Path::new("/nowhere/holdfast")), Some(&path)), Ok(other));
        assert_eq!(find(None, None), Err(Missing));
        assert_eq!(find(Some(&plain.with_file_name("holdfast")), None), Err(Missing));
    }
}
