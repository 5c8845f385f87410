//! Where passphrases and words come from: a file, the environment's file, a terminal. Never an argument, never an
//! environment variable's value: other users' `ps` and crash reports would show them.
//!
//! A secrets file (`holdfast init --secrets FILE`) holds both, and every `--passphrase-file` and `--words-file` reads it:
//!
//! ```text
//!   # comment
//!   words: abandon ability ...
//!   passphrase: correct horse
//! ```
//!
//! A file without such a line is taken as the passphrase (its first line) or the words (the whole file).

use std::{
    fs::OpenOptions,
    io::{IsTerminal, Read, Write},
    os::unix::fs::{MetadataExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use zeroize::Zeroizing;

use super::HomeError;

/// A secrets file is at most this long.
const SECRETS_BYTES_MAX: u64 = 64 * 1024;
/// A shorter passphrase that a person types for a new drive is refused.
pub const PASSPHRASE_CHARS_MIN: usize = 8;
pub const PASSPHRASE_FILE_VARIABLE: &str = "HOLDFAST_PASSPHRASE_FILE";
/// 5 bits each: 24 of them are 120 bits.
const PASSPHRASE_SYMBOLS: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
const PASSPHRASE_SYMBOLS_COUNT: usize = 24;

/// What unlocks a home on this machine. Wiped from memory when dropped, never printed.
#[derive(Clone)]
pub struct Passphrase(Zeroizing<String>);

impl std::fmt::Debug for Passphrase {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Passphrase(..)")
    }
}

/// Why there is no passphrase or there are no words.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    #[error(transparent)]
    File(#[from] HomeError),
    #[error("{} holds no {what}", .path.display())]
    Empty { path: PathBuf, what: &'static str },
    #[error("there is no terminal to ask for the {what} at")]
    NoTerminal { what: &'static str },
    #[error("cannot read from the terminal: {0}")]
    Terminal(std::io::Error),
    #[error("the passphrase needs at least {PASSPHRASE_CHARS_MIN} characters")]
    TooShort,
    #[error("the two passphrases differ")]
    Differ,
}

impl Passphrase {
    pub fn new(text: impl Into<String>) -> Passphrase {
        Passphrase(Zeroizing::new(text.into()))
    }

    pub fn expose(&self) -> &str {
        &self.0
    }

    /// A random one, for drives that scripts make.
    pub fn random() -> Result<Passphrase, HomeError> {
        let mut bytes = Zeroizing::new([0u8; PASSPHRASE_SYMBOLS_COUNT]);
        getrandom::fill(bytes.as_mut())
            .map_err(|error| HomeError::Keys(format!("no random numbers from the system: {error}")))?;
        let mut text = Zeroizing::new(String::with_capacity(PASSPHRASE_SYMBOLS_COUNT + 4));
        for (n, byte) in bytes.iter().enumerate() {
            if n > 0 && n % 6 == 0 {
                text.push('-');
            }
            if let Some(symbol) = PASSPHRASE_SYMBOLS.get(usize::from(byte & 31)) {
                text.push(char::from(*symbol));
            }
        }
        Ok(Passphrase(text))
    }

    /// From the file, or the file that the environment names, or the terminal.
    pub fn obtain(file: Option<&Path>) -> Result<Passphrase, SecretError> {
        match Self::from_files(file)? {
            Some(passphrase) => Ok(passphrase),
            None => Ok(Passphrase(prompt("passphrase", "Passphrase: ")?)),
        }
    }

    /// For a new drive: as `obtain`, but a typed one is asked for twice and must not be short.
    pub fn obtain_new(file: Option<&Path>) -> Result<Passphrase, SecretError> {
        match Self::from_files(file)? {
            Some(passphrase) => Ok(passphrase),
            None => Self::prompt_new(),
        }
    }

    /// In place of the one there is: as `obtain_new`, but the environment's file is that of the old one.
    pub fn obtain_another(file: Option<&Path>) -> Result<Passphrase, SecretError> {
        match file {
            Some(file) => Self::obtain(Some(file)),
            None => Self::prompt_new(),
        }
    }

    fn prompt_new() -> Result<Passphrase, SecretError> {
        let first = prompt("passphrase", "A passphrase for this machine (it unlocks the drive here): ")?;
        if first.chars().count() < PASSPHRASE_CHARS_MIN {
            return Err(SecretError::TooShort);
        }
        let second = prompt("passphrase", "The same once more: ")?;
        if *first != *second {
            return Err(SecretError::Differ);
        }
        Ok(Passphrase(first))
    }

    /// The passphrase line of a secrets file, where it has one.
    pub fn from_secrets(path: &Path) -> Result<Option<Passphrase>, SecretError> {
        let text = read_secret_file(path)?;
        Ok(field(&text, "passphrase").filter(|found| !found.is_empty()).map(Passphrase::new))
    }

    /// From the file or the environment's file, if either is named.
    pub fn from_files(file: Option<&Path>) -> Result<Option<Passphrase>, SecretError> {
        let environment =
            std::env::var_os(PASSPHRASE_FILE_VARIABLE).filter(|v| !v.is_empty()).map(PathBuf::from);
        let Some(path) = file.map(Path::to_owned).or(environment) else { return Ok(None) };
        let text = read_secret_file(&path)?;
        match passphrase_in(&text) {
            Some(found) => Ok(Some(Passphrase::new(found))),
            None => Err(SecretError::Empty { path, what: "passphrase" }),
        }
    }
}

/// The 24 words from a file or the terminal, with single spaces; not checked yet.
pub fn obtain_words(file: Option<&Path>) -> Result<Zeroizing<String>, SecretError> {
    let Some(path) = file else {
        return Ok(normal_words(&prompt("words", "The 24 words (they are not shown): ")?));
    };
    let text = read_secret_file(path)?;
    let words = words_in(&text);
    if words.is_empty() {
        return Err(SecretError::Empty { path: path.to_owned(), what: "words" });
    }
    Ok(words)
}

/// The passphrase in a file's text.
pub(crate) fn passphrase_in(text: &str) -> Option<&str> {
    let found = field(text, "passphrase").or_else(|| plain(text).and_then(|t| t.lines().next()));
    found.filter(|found| !found.is_empty())
}

/// The words in a file's text, none where it has none.
pub(crate) fn words_in(text: &str) -> Zeroizing<String> {
    normal_words(field(text, "words").or_else(|| plain(text)).unwrap_or_default())
}

fn normal_words(text: &str) -> Zeroizing<String> {
    // People number them and write them one to a line.
    let words: Vec<String> = text
        .split(|c: char| !c.is_alphabetic())
        .filter(|w| !w.is_empty())
        .map(|w| w.to_lowercase())
        .collect();
    Zeroizing::new(words.join(" "))
}

/// Writes words and passphrase, mode 0600. An existing file is never overwritten: it may be another drive's only copy.
pub fn write_secrets(
    path: &Path,
    drive: &str,
    words: &str,
    passphrase: &Passphrase,
) -> Result<(), HomeError> {
    let failed = |error| HomeError::io("write", path, error);
    if let Some(folder) = path.parent().filter(|p| !p.as_os_str().is_empty()) {
        super::create_private_dir(folder)?;
    }
    let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path).map_err(failed)?;
    let text = Zeroizing::new(format!(
        "# Holdfast drive {drive}\n\
         # Who reads this file owns the drive. Keep it off this machine: the words alone bring everything back.\n\
         words: {words}\n\
         # Unlocks the drive on the machine where it was made.\n\
         passphrase: {}\n",
        passphrase.expose()
    ));
    file.write_all(text.as_bytes()).and_then(|()| file.sync_all()).map_err(|error| {
        // Half a phrase must not be taken for one.
        let _ = std::fs::remove_file(path);
        failed(error)
    })?;
    super::files::sync_dir(path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new(".")))
}

/// `-` is the standard input.
fn read_secret_file(path: &Path) -> Result<Zeroizing<String>, HomeError> {
    let failed = |error| HomeError::io("read", path, error);
    let mut text = Zeroizing::new(String::new());
    if path == Path::new("-") {
        std::io::stdin().lock().take(SECRETS_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
        return Ok(text);
    }
    let file = std::fs::File::open(path).map_err(failed)?;
    let metadata = file.metadata().map_err(failed)?;
    if metadata.is_file() && metadata.mode() & 0o077 != 0 {
        eprintln!("warning: other users may read {} (chmod 600 it)", path.display());
    }
    file.take(SECRETS_BYTES_MAX).read_to_string(&mut text).map_err(failed)?;
    Ok(text)
}

/// The value of a `name: value` line.
fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.trim().strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}

/// The whole text, unless it is made of fields: then another field was wanted.
fn plain(text: &str) -> Option<&str> {
    let fields = field(text, "words").is_some() || field(text, "passphrase").is_some();
    if fields { None } else { Some(text) }
}

fn prompt(what: &'static str, question: &str) -> Result<Zeroizing<String>, SecretError> {
    if !std::io::stdin().is_terminal() && !std::io::stderr().is_terminal() {
        return Err(SecretError::NoTerminal { what });
    }
    rpassword::prompt_password(question).map(Zeroizing::new).map_err(SecretError::Terminal)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn a_secrets_file_serves_as_both() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("sub/secrets");
        write_secrets(&path, "name", "one two three", &Passphrase::new("a: b c")).unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        assert_eq!(Passphrase::obtain(Some(&path)).unwrap().expose(), "a: b c");
        assert_eq!(*obtain_words(Some(&path)).unwrap(), "one two three");
        assert!(write_secrets(&path, "name", "other", &Passphrase::new("x")).is_err());
    }

    #[test]
    fn plain_files_serve_as_one() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "1. One\n2. two  THREE\n").unwrap();
        assert_eq!(*obtain_words(Some(&path)).unwrap(), "one two three");
        std::fs::write(&path, " secret with spaces \nmore").unwrap();
        assert_eq!(Passphrase::obtain(Some(&path)).unwrap().expose(), " secret with spaces ");
        std::fs::write(&path, "passphrase: x\n").unwrap();
        assert!(matches!(obtain_words(Some(&path)), Err(SecretError::Empty { what: "words", .. })));
        std::fs::write(&path, "").unwrap();
        assert!(Passphrase::obtain(Some(&path)).is_err());
    }

    #[test]
    fn random_passphrases_differ_and_debug_hides_them() {
        let (a, b) = (Passphrase::random().unwrap(), Passphrase::random().unwrap());
        assert_ne!(a.expose(), b.expose());
        assert_eq!(a.expose().len(), 27);
        assert_eq!(format!("{a:?}"), "Passphrase(..)");
    }
}
