//! Making a home's keyfile and opening it.

use std::{fs, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path};

use holdfast_content::{
    dagcbor::FormatError,
    keyfile::{self, ArgonParams, HomeSecrets, KEYFILE_BYTES_MAX, KeyfileError},
    keys::{DriveKeys, DriveName, Generation, Keyring, Mnemonic},
    rng::{Rng, SystemRng},
};
use holdfast_store::StoreKeys;

use super::{
    CONFIG, Config, Home, HomeError, KEYFILE, Passphrase,
    files::{create_private_dir, read_limited, sync_dir, write_atomically},
};

/// The keys of an opened home. Wiped when dropped, never printed.
pub struct Unlocked {
    /// Boxed, so that it stays at the place that `lock_in_memory` locked.
    secrets: Box<HomeSecrets>,
}

impl Unlocked {
    /// The working keys of the drive's current generation.
    pub fn drive_keys(&self) -> DriveKeys {
        self.secrets.generation().keys()
    }

    /// Keeps the keys out of swap, where the system's limit on locked memory has room for a page or two.
    pub fn lock_in_memory(&self) {
        crate::memory::lock(&*self.secrets);
    }

    /// The keys of the local log and index: random, of this device alone.
    pub fn store_keys(&self) -> StoreKeys {
        StoreKeys { log: self.secrets.log_key, index: self.secrets.index_key }
    }

    pub fn drive(&self) -> DriveName {
        self.secrets.drive()
    }

    /// The signed keyring, as providers keep it.
    pub fn keyring(&self) -> &[u8] {
        &self.secrets.keyring
    }

    /// This device's name in commits.
    pub fn device(&self) -> [u8; 16] {
        self.secrets.device
    }
}

impl std::fmt::Debug for Unlocked {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Unlocked({:?})", self.secrets)
    }
}

/// What a restore found: enough to make a home.
#[derive(Debug)]
pub struct Recovered {
    pub drive: DriveName,
    pub generation: Generation,
    /// The verified keyring's bytes.
    pub keyring: Vec<u8>,
}

impl Home {
    /// A new drive: draws words, lets `keep` put them in a safe place, makes its home. `config` may already name providers
    /// and policy; its `drive` is set here. Where `keep` fails there is no home: a drive whose words nobody has must not
    /// be.
    pub fn init(
        path: &Path,
        passphrase: &Passphrase,
        config: Config,
        keep: impl FnOnce(&DriveName, &Mnemonic) -> Result<(), HomeError>,
    ) -> Result<(Home, Mnemonic), HomeError> {
        Home::check_free(path)?;
        let words = Mnemonic::generate(&SystemRng).map_err(|e| HomeError::Keys(e.to_string()))?;
        let root = words.root_key();
        let keyring = Keyring::first(&root, crate::worker::unix_now()).sign(&root).map_err(keys_failed)?;
        let found = Recovered { drive: root.drive_name(), generation: root.generation(1), keyring };
        keep(&found.drive, &words)?;
        let home = Home::create(path, passphrase, &found, config, ArgonParams::default())?;
        Ok((home, words))
    }

    /// The home of a drive that exists already, elsewhere or with its providers alone: `restore_pending` is set, and the
    /// next mount attaches the newest head.
    pub fn adopt(
        path: &Path,
        passphrase: &Passphrase,
        found: &Recovered,
        config: Config,
    ) -> Result<Home, HomeError> {
        let config = Config { restore_pending: true, ..config };
        Home::create(path, passphrase, found, config, ArgonParams::default())
    }

    /// The configuration is written last: a folder without it is no home, and making it may be tried again.
    pub(super) fn create(
        path: &Path,
        passphrase: &Passphrase,
        found: &Recovered,
        config: Config,
        cost: ArgonParams,
    ) -> Result<Home, HomeError> {
        Home::check_free(path)?;
        create_private_dir(path)?;
        // One that was there may be open to others.
        fs::set_permissions(path, fs::Permissions::from_mode(0o700))
            .map_err(|error| HomeError::io("close to others", path, error))?;
        let path = path.canonicalize().map_err(|error| HomeError::io("open", path, error))?;
        let rng: &dyn Rng = &SystemRng;
        let secrets = HomeSecrets::new(found.drive, &found.generation, found.keyring.clone(), rng)
            .map_err(|e| HomeError::Keys(e.to_string()))?;
        let sealed = keyfile::seal(passphrase.expose().as_bytes(), &secrets, cost, rng)
            .map_err(|e| HomeError::Keys(e.to_string()))?;
        write_atomically(&path.join(KEYFILE), &sealed)?;
        let config = Config { drive: found.drive.to_string(), ..config };
        config.write(&path.join(CONFIG))?;
        if let Some(parent) = path.parent() {
            sync_dir(parent)?;
        }
        Home::open(&path)
    }

    /// Whether a home may be made here: nothing is there, or an empty folder, or what an interrupted `init` left.
    pub fn check_free(path: &Path) -> Result<(), HomeError> {
        let entries = match fs::read_dir(path) {
            Ok(entries) => entries,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(HomeError::io("open", path, error)),
        };
        if path.join(CONFIG).exists() {
            return Err(HomeError::Exists(path.to_owned()));
        }
        let leftovers = [KEYFILE, "keyfile.new", "config.new"];
        for entry in entries {
            let entry = entry.map_err(|error| HomeError::io("read", path, error))?;
            if !leftovers.iter().any(|known| entry.file_name() == *known) {
                return Err(HomeError::NotEmpty(path.to_owned()));
            }
        }
        Ok(())
    }

    /// Opens the keyfile. Takes a third of a second on purpose: that is what each guess of a passphrase costs.
    pub fn unlock(&self, passphrase: &Passphrase) -> Result<Unlocked, HomeError> {
        let path = self.path.join(KEYFILE);
        let file = read_limited(&path, KEYFILE_BYTES_MAX as u64)?;
        let damaged = |reason: String| HomeError::Damaged { path: path.clone(), reason };
        let secrets = self.open_keyfile(passphrase, &file)?;
        if secrets.drive().to_string() != self.config.drive {
            return Err(damaged("keyfile and config belong to different drives".to_owned()));
        }
        Keyring::verify(&secrets.keyring, &secrets.drive()).map_err(|e| damaged(e.to_string()))?;
        Ok(Unlocked { secrets: Box::new(secrets) })
    }

    /// Seals the keyfile under another passphrase; works while the drive is mounted too. At every moment one whole keyfile
    /// is there: the new one is opened before it replaces the old one, which is then overwritten.
    pub fn change_passphrase(&self, old: &Passphrase, new: &Passphrase) -> Result<(), HomeError> {
        self.reseal(old, new, ArgonParams::default())
    }

    fn reseal(&self, old: &Passphrase, new: &Passphrase, cost: ArgonParams) -> Result<(), HomeError> {
        let path = self.path.join(KEYFILE);
        let failed = |error| HomeError::io("lock", &path, error);
        // One change at a time; the home's own lock belongs to the daemon.
        let folder = fs::File::open(&self.path).map_err(failed)?;
        folder.lock().map_err(failed)?;
        let unlocked = self.unlock(old)?;
        let rng: &dyn Rng = &SystemRng;
        let keys = |error: KeyfileError| HomeError::Keys(error.to_string());
        let sealed = keyfile::seal(new.expose().as_bytes(), &unlocked.secrets, cost, rng).map_err(keys)?;
        let again = keyfile::open(new.expose().as_bytes(), &sealed).map_err(keys)?;
        if again != *unlocked.secrets {
            return Err(HomeError::Keys("the new keyfile does not open; the old one is kept".to_owned()));
        }
        let mut replaced = fs::OpenOptions::new().write(true).open(&path).map_err(failed)?;
        write_atomically(&path, &sealed)?;
        // It has no name any more. Where the file system writes in place, its bytes are gone as well.
        let len = replaced.metadata().map_or(0, |file| file.len()).min(KEYFILE_BYTES_MAX as u64) as usize;
        if let Err(error) = replaced.write_all(&vec![0; len]).and_then(|()| replaced.sync_all()) {
            tracing::warn!(%error, "the old keyfile could not be overwritten");
        }
        Ok(())
    }

    fn open_keyfile(&self, passphrase: &Passphrase, file: &[u8]) -> Result<HomeSecrets, HomeError> {
        let path = self.path.join(KEYFILE);
        let damaged = |reason: String| HomeError::Damaged { path: path.clone(), reason };
        keyfile::open(passphrase.expose().as_bytes(), file).map_err(|error| match error {
            KeyfileError::WrongPassphrase => HomeError::WrongPassphrase,
            KeyfileError::Format(FormatError::Newer { found, known, .. }) => {
                HomeError::NewerFormat { path: path.clone(), found, known }
            }
            KeyfileError::Stretch(_) | KeyfileError::Rng(_) => HomeError::Keys(error.to_string()),
            other => damaged(other.to_string()),
        })
    }
}

fn keys_failed(error: FormatError) -> HomeError {
    HomeError::Keys(error.to_string())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn weak(path: &Path, passphrase: &Passphrase) -> Result<Home, HomeError> {
        let root = Mnemonic::from_entropy([5; 32]).root_key();
        let keyring = Keyring::first(&root, 1).sign(&root).unwrap();
        let found = Recovered { drive: root.drive_name(), generation: root.generation(1), keyring };
        Home::create(path, passphrase, &found, Config::new(String::new()), ArgonParams::weak_for_tests())
    }

    #[test]
    fn a_home_opens_with_its_passphrase_only_and_is_never_overwritten() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/home");
        let right = Passphrase::new("right");
        let home = weak(&path, &right).unwrap();
        let unlocked = home.unlock(&right).unwrap();
        assert_eq!(unlocked.drive().to_string(), home.config().drive);
        assert!(matches!(home.unlock(&Passphrase::new("wrong")), Err(HomeError::WrongPassphrase)));
        assert!(matches!(weak(&path, &right), Err(HomeError::Exists(_))));
        fs::remove_file(path.join(CONFIG)).unwrap();
        assert!(matches!(Home::open(&path), Err(HomeError::Missing(_))));
        weak(&path, &right).unwrap();
        fs::write(path.join("x"), b"").unwrap();
        fs::remove_file(path.join(CONFIG)).unwrap();
        assert!(matches!(weak(&path, &right), Err(HomeError::NotEmpty(_))));
        assert!(!format!("{unlocked:?}").contains(&format!("{:?}", unlocked.device())));
    }

    #[test]
    fn another_passphrase_opens_the_same_and_the_old_one_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (Passphrase::new("old one"), Passphrase::new("new one"));
        let home = weak(&dir.path().join("h"), &old).unwrap();
        let before = home.unlock(&old).unwrap();
        let keyfile = home.path().join(KEYFILE);
        let kept = dir.path().join("linked");
        fs::hard_link(&keyfile, &kept).unwrap();
        let weak = ArgonParams::weak_for_tests();
        assert!(matches!(home.reseal(&new, &old, weak), Err(HomeError::WrongPassphrase)));
        assert!(home.unlock(&old).is_ok(), "a refused change changes nothing");
        home.reseal(&old, &new, weak).unwrap();
        assert!(matches!(home.unlock(&old), Err(HomeError::WrongPassphrase)));
        assert_eq!(*home.unlock(&new).unwrap().secrets, *before.secrets);
        assert!(fs::read(&kept).unwrap().iter().all(|byte| *byte == 0), "the old keyfile is overwritten");
        assert!(!home.path().join("keyfile.new").exists());
    }

    #[test]
    fn one_process_at_a_time_and_no_change_without_the_lock() {
        let dir = tempfile::tempdir().unwrap();
        let passphrase = Passphrase::new("p");
        let mut home = weak(&dir.path().join("h"), &passphrase).unwrap();
        assert!(matches!(home.change_config(|c| c.listen.clear()), Err(HomeError::NotLocked(_))));
        home.lock().unwrap();
        home.change_config(|c| c.policy.survive_losses = 1).unwrap();
        let mut other = Home::open(home.path()).unwrap();
        assert_eq!(other.config().policy.survive_losses, 1);
        let pid = std::process::id();
        assert!(matches!(other.lock(), Err(HomeError::InUse { pid: p, .. }) if p == pid));
        drop(home);
        other.lock().unwrap();
    }
}
