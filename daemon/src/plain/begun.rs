//! What a fetch has written so far, kept until the next attempt goes on with it.
//!
//! ```text
//! .holdfast-TAG.part      beside where the result will appear: the result, as far as it is; TAG follows from what is fetched, and to where
//! .holdfast-TAG.begun     "holdfast get 1 OF WHOLE BYTES CHECK\n": OF 64 hex digits, what is fetched; WHOLE parts are whole, and of the
//!                         next one BYTES bytes; CHECK 16 hex digits, of what stands before. Locked by whoever writes
//! ```
//!
//! Ordering: `begun` *must* say no more than what was synced before it, or a cut of power would leave zeros in a file that counts as
//! whole. So every [`SYNC_BYTES`] the file system is synced, then `begun` written; a process that is killed loses at most that much. The
//! result gets its name when it is whole and synced. Refuses to go on with what is another user's, and two at once.

use std::fs::{File, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::{TreeError, appear, beside};

/// Bytes between two syncs.
pub const SYNC_BYTES: u64 = 64 << 20;
const NOTE_BYTES_MAX: usize = 256;
const VERSION: &str = "holdfast get 1";

/// How far it is, in parts of whoever fetches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Progress {
    /// Parts that are whole, from the first on.
    pub whole: u64,
    /// Bytes of the next one.
    pub bytes: u64,
}

/// See the module.
pub struct Begun {
    folder: PathBuf,
    tree: PathBuf,
    /// How far it is, and where that stands; absent where nothing is kept.
    note: Option<(Flock<File>, PathBuf)>,
    of: String,
    kept: Progress,
    since: u64,
    over: bool,
}

fn check(text: &str) -> String {
    blake3::hash(text.as_bytes()).to_hex().as_str().chars().take(16).collect()
}

fn read(note: &File, of: &str) -> Option<Progress> {
    let mut bytes = [0; NOTE_BYTES_MAX];
    let len = note.read_at(&mut bytes, 0).ok()?;
    let text = std::str::from_utf8(bytes.get(..len)?).ok()?.strip_suffix('\n')?;
    let (said, checked) = text.rsplit_once(' ')?;
    let mut words = said.strip_prefix(VERSION)?.split_whitespace();
    let same = checked == check(said) && words.next()? == of;
    let progress = Progress { whole: words.next()?.parse().ok()?, bytes: words.next()?.parse().ok()? };
    same.then_some(progress)
}

impl Begun {
    /// Goes on with what is there of `of`, or begins. `to` must not be there yet.
    pub fn lasting(to: &Path, of: &[u8]) -> Result<Begun, TreeError> {
        if to.symlink_metadata().is_ok() {
            return Err(TreeError::Exists(to.to_owned()));
        }
        let (folder, _) = beside(to);
        let of = blake3::hash(of).to_hex().to_string();
        let name = to.file_name().unwrap_or_default().as_encoded_bytes();
        let tag = blake3::Hasher::new().update(of.as_bytes()).update(name).finalize().to_hex();
        let tag: String = tag.as_str().chars().take(16).collect();
        let tree = folder.join(format!(".holdfast-{tag}.part"));
        let path = folder.join(format!(".holdfast-{tag}.begun"));
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600).custom_flags(libc::O_NOFOLLOW);
        let note = options.open(&path).map_err(TreeError::io("open", &path))?;
        let us = nix::unistd::geteuid().as_raw();
        let about = note.metadata().map_err(TreeError::io("look at", &path))?;
        if about.uid() != us || tree.symlink_metadata().is_ok_and(|about| about.uid() != us) {
            return Err(TreeError::Foreign(path));
        }
        let note = Flock::lock(note, FlockArg::LockExclusiveNonblock);
        let note = note.map_err(|_| TreeError::Busy(to.to_owned()))?;
        let kept = read(&note, &of).unwrap_or_default();
        let mut begun = Begun { folder, tree, note: Some((note, path)), of, kept, since: 0, over: false };
        if begun.kept == Progress::default() || begun.tree.symlink_metadata().is_err() {
            begun.anew()?;
        }
        Ok(begun)
    }

    /// Keeps nothing of what does not become whole.
    pub fn passing(to: &Path) -> Result<Begun, TreeError> {
        if to.symlink_metadata().is_ok() {
            return Err(TreeError::Exists(to.to_owned()));
        }
        let (folder, tree) = beside(to);
        let (of, kept) = (String::new(), Progress::default());
        Ok(Begun { folder, tree, note: None, of, kept, since: 0, over: false })
    }

    /// What is there is not what the note says: it is begun again.
    pub fn anew(&mut self) -> Result<(), TreeError> {
        remove(&self.tree).map_err(TreeError::io("remove", &self.tree))?;
        self.write(Progress::default())
    }

    /// Where the result comes to be.
    pub fn tree(&self) -> PathBuf {
        self.tree.clone()
    }

    /// How far it was when it was synced last.
    pub fn kept(&self) -> Progress {
        self.kept
    }

    /// So many bytes more were written, and it is so far now.
    pub fn wrote(&mut self, bytes: u64, at: Progress) -> Result<(), TreeError> {
        self.since = self.since.saturating_add(bytes);
        if self.since >= SYNC_BYTES { self.keep(at) } else { Ok(()) }
    }

    /// Syncs what there is, and says so; less than was kept before is not worth saying.
    pub fn keep(&mut self, at: Progress) -> Result<(), TreeError> {
        if self.note.is_none() || at <= self.kept {
            return Ok(());
        }
        self.sync()?;
        self.since = 0;
        self.write(at)
    }

    fn sync(&self) -> Result<(), TreeError> {
        // One sync for all files costs less than one for each.
        let synced = File::open(&self.folder).and_then(|folder| Ok(nix::unistd::syncfs(&folder)?));
        synced.map_err(TreeError::io("sync", &self.folder))
    }

    fn write(&mut self, at: Progress) -> Result<(), TreeError> {
        if let Some((note, path)) = &self.note {
            let said = format!("{VERSION} {} {} {}", self.of, at.whole, at.bytes);
            let text = format!("{said} {}\n", check(&said));
            let wrote = note.write_all_at(text.as_bytes(), 0).and_then(|()| note.set_len(text.len() as u64));
            wrote.and_then(|()| note.sync_data()).map_err(TreeError::io("write", path))?;
        }
        self.kept = at;
        Ok(())
    }

    /// It is whole: it gets its name.
    pub fn appear(mut self, to: &Path) -> Result<(), TreeError> {
        self.sync()?;
        appear(&self.tree, to, &self.folder)?;
        self.over = true;
        Ok(())
    }

    /// Nothing of it is of use.
    pub fn discard(mut self) {
        self.over = true;
    }
}

impl Drop for Begun {
    fn drop(&mut self) {
        if !self.over && self.kept != Progress::default() {
            return;
        }
        // What says how far it is goes last.
        let both = [Some(&self.tree), self.note.as_ref().map(|(_, path)| path)];
        for path in both.into_iter().flatten() {
            if let Err(error) = remove(path) {
                tracing::warn!(path = %path.display(), %error, "what was not whole could not be removed");
                return;
            }
        }
    }
}

/// Takes something away, whatever it is; nothing is that already.
pub fn remove(path: &Path) -> io::Result<()> {
    match path.symlink_metadata() {
        Ok(about) if about.is_dir() => match std::fs::remove_dir_all(path) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
                open_up(path)?;
                std::fs::remove_dir_all(path)
            }
            done => done,
        },
        Ok(_) => std::fs::remove_file(path),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(error),
    }
}

/// A folder that nobody may write cannot be emptied.
fn open_up(root: &Path) -> io::Result<()> {
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        std::fs::set_permissions(&path, Permissions::from_mode(0o700))?;
        for entry in std::fs::read_dir(&path)? {
            let entry = entry?;
            if entry.file_type()?.is_dir() {
                todo.push(entry.path());
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const AT: Progress = Progress { whole: 7, bytes: 9 };

    #[test]
    fn what_was_kept_is_gone_on_with_and_nothing_else() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let names = || std::fs::read_dir(dir.path()).unwrap().count();
        drop(Begun::lasting(&to, b"a").unwrap());
        assert_eq!(names(), 0, "nothing was kept");
        let mut begun = Begun::lasting(&to, b"a").unwrap();
        std::fs::write(begun.tree(), b"half").unwrap();
        begun.wrote(SYNC_BYTES - 1, AT).unwrap();
        assert_eq!(begun.kept(), Progress::default(), "not synced yet");
        begun.wrote(1, AT).unwrap();
        assert_eq!(begun.kept(), AT);
        assert!(matches!(Begun::lasting(&to, b"a"), Err(TreeError::Busy(_))), "two at once");
        drop(begun);
        let other = Begun::lasting(&to, b"b").unwrap();
        assert_eq!((other.kept(), names()), (Progress::default(), 3), "of something else");
        drop(other);
        let begun = Begun::lasting(&to, b"a").unwrap();
        assert_eq!((begun.kept(), std::fs::read(begun.tree()).unwrap()), (AT, b"half".to_vec()));
        begun.appear(&to).unwrap();
        assert_eq!((names(), std::fs::read(&to).unwrap()), (1, b"half".to_vec()));
        assert!(matches!(Begun::lasting(&to, b"a"), Err(TreeError::Exists(_))));
    }

    #[test]
    fn a_note_that_is_damaged_or_of_a_tree_that_is_gone_counts_for_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let to = dir.path().join("to");
        let begin = |harm: &dyn Fn(&Path, &Path)| {
            let mut begun = Begun::lasting(&to, b"a").unwrap();
            std::fs::create_dir_all(begun.tree().join("x/y")).unwrap();
            begun.keep(AT).unwrap();
            let (tree, note) = (begun.tree(), begun.note.as_ref().unwrap().1.clone());
            drop(begun);
            harm(&tree, &note);
            let begun = Begun::lasting(&to, b"a").unwrap();
            let found = (begun.kept(), begun.tree().exists());
            begun.discard();
            found
        };
        assert_eq!(begin(&|_, _| {}), (AT, true));
        let none = (Progress::default(), false);
        assert_eq!(begin(&|tree, _| std::fs::remove_dir_all(tree).unwrap()), none);
        for at in [0, 20, 82] {
            let flip = |_: &Path, note: &Path| {
                let mut bytes = std::fs::read(note).unwrap();
                bytes[at] ^= 1;
                std::fs::write(note, bytes).unwrap();
            };
            assert_eq!(begin(&flip), none, "byte {at}");
        }
        let shut = |tree: &Path, note: &Path| {
            std::fs::write(note, b"").unwrap();
            std::fs::set_permissions(tree.join("x"), Permissions::from_mode(0o555)).unwrap();
        };
        assert_eq!(begin(&shut), none, "what cannot be written is removed all the same");
        let passing = Begun::passing(&to).unwrap();
        std::fs::write(passing.tree(), b"x").unwrap();
        drop(passing);
        assert_eq!(std::fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
