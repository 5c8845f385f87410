//! Opening without an index that is damaged: it is set aside, and the log makes another one if it can.

use std::path::{Path, PathBuf};

use crate::error::Result;
use crate::{RecoveryReport, StoreError};

/// More damaged indexes than this are not kept: somebody should have looked by then.
const KEPT_MAX: u32 = 9;

/// Renames the index at `path`, and calls `open`, which makes a new one there. Where that fails, or would lose records, all
/// is as it was before, and the damage is the error.
pub(crate) fn open_without<T>(
    path: &Path,
    what: String,
    open: impl FnOnce() -> Result<(T, RecoveryReport)>,
) -> Result<(T, RecoveryReport)> {
    let failed = |op, error| StoreError::io(op, &path.display().to_string(), error);
    let Some(aside) = free_name(path) else { return Err(StoreError::IndexDamaged(what)) };
    std::fs::rename(path, &aside).map_err(|error| failed("set the damaged index aside", error))?;
    match open() {
        Ok((opened, mut report)) if report.index_rebuilt => {
            tracing::warn!(%what, aside = %aside.display(), "the index was damaged and was made again from the log");
            report.index_set_aside = Some(what);
            Ok((opened, report))
        }
        other => {
            let why = match &other {
                Err(error) => format!("{what} (it cannot be made again: {error})"),
                Ok(_) => what,
            };
            drop(other);
            // What is there now was made a moment ago and holds nothing.
            std::fs::remove_dir_all(path)
                .and_then(|()| std::fs::rename(&aside, path))
                .map_err(|error| failed("put the damaged index back", error))?;
            Err(StoreError::IndexDamaged(why))
        }
    }
}

fn free_name(path: &Path) -> Option<PathBuf> {
    let name = path.file_name()?.to_str()?;
    (1..=KEPT_MAX).map(|n| path.with_file_name(format!("{name}.damaged-{n}"))).find(|aside| !aside.exists())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn folder() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("index");
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("old"), b"damaged").unwrap();
        (dir, path)
    }

    #[test]
    fn what_can_be_made_again_is_and_the_old_one_is_kept() {
        let (dir, path) = folder();
        let open = || {
            std::fs::create_dir(&path).unwrap();
            Ok(((), RecoveryReport { index_rebuilt: true, ..Default::default() }))
        };
        let ((), report) = open_without(&path, "bits".into(), open).unwrap();
        assert_eq!(report.index_set_aside.as_deref(), Some("bits"));
        assert!(!path.join("old").exists());
        assert_eq!(std::fs::read(dir.path().join("index.damaged-1/old")).unwrap(), b"damaged");
    }

    #[test]
    fn what_cannot_be_made_again_is_left_as_it_was() {
        for rebuilt in [None, Some(false)] {
            let (dir, path) = folder();
            let open = || {
                std::fs::create_dir(&path).unwrap();
                match rebuilt {
                    None => Err(StoreError::IndexMissing { log_from: 70 }),
                    Some(index_rebuilt) => Ok(((), RecoveryReport { index_rebuilt, ..Default::default() })),
                }
            };
            let error = open_without(&path, "bits".into(), open).unwrap_err();
            assert!(matches!(&error, StoreError::IndexDamaged(what) if what.starts_with("bits")), "{error}");
            assert_eq!(std::fs::read(path.join("old")).unwrap(), b"damaged");
            assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 1);
        }
    }
}
