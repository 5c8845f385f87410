//! A pair that is being made: what is on disk of it, and the secrets to go on with.
//!
//! ```text
//! v28-<circuit id>.making        the proving key so far, as it will be
//! v28-<circuit id>.making.json   the secrets, and how much of the other file is whole: readable by its owner only
//! ```
//!
//! Must: points are synced before the journal counts them, and hashed when they are gone on with (else a power cut could leave
//! a hole in a proving key). Must: the journal, and so the secrets, are gone before the stamp is there. What a file system
//! keeps of a removed file is beyond us: it is one more reason why nothing may rest on such parameters.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use holdfast_setup::{Secrets, Setup};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{Circuit, ParamsError};
use crate::durable::{self, hex};
use crate::entropy::Adapter;
use crate::profile::Profile;

/// The first version had no sum of itself; a making of it begins anew.
const VERSION: u32 = 2;
/// A journal is a kilobyte.
const JOURNAL_BYTES_MAX: u64 = 1 << 16;
/// Points between two syncs: half a second of work or more.
const SYNC_BYTES: u64 = 4 << 20;
const READ_CHUNK: usize = 1 << 20;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Journal {
    version: u32,
    profile: Profile,
    /// Filecoin's identifier: another circuit is another making.
    circuit: String,
    /// Hexadecimal. Whoever reads it can forge.
    secrets: String,
    portions: usize,
    bytes: u64,
    /// Of those bytes.
    sha256: String,
    /// Of all the rest: a turned bit in a count or in a secret would make a key that proves nothing, and nobody would know.
    sum: String,
}

impl Journal {
    fn parse(text: &[u8]) -> Option<(Self, Secrets)> {
        let journal: Self = serde_json::from_slice(text).ok()?;
        let secrets = Secrets::from_bytes(&unhex(&journal.secrets)?)?;
        (journal.version == VERSION && journal.own_sum().ok()? == journal.sum).then_some((journal, secrets))
    }

    fn own_sum(&self) -> serde_json::Result<String> {
        durable::json_sum(&Self { sum: String::new(), ..self.clone() })
    }

    fn encode(&self) -> serde_json::Result<Vec<u8>> {
        serde_json::to_vec_pretty(&Self { sum: self.own_sum()?, ..self.clone() })
    }
}

/// Any bytes as the journal of a making, for fuzzing: what is understood comes back.
pub(crate) fn decode_any(bytes: &[u8]) {
    if let Some((journal, secrets)) = Journal::parse(bytes) {
        assert_eq!(unhex(&journal.secrets), Some(secrets.to_bytes()), "other secrets come back");
        let again = journal.encode().ok().and_then(|bytes| Journal::parse(&bytes));
        assert_eq!(again.map(|(again, _)| again), Some(journal), "another journal comes back");
    }
}

/// A making, from its beginning or from where it was.
pub(super) struct Draft {
    file: PathBuf,
    journal_file: PathBuf,
    journal: Journal,
    pub(super) secrets: Secrets,
}

impl Draft {
    /// Takes up what is there of the pair whose proving key will be `params`, or draws secrets and begins.
    pub(super) fn open(
        params: &Path,
        profile: Profile,
        circuit: Circuit,
        rng: &mut Adapter<'_>,
    ) -> Result<Self, ParamsError> {
        let file = params.with_extension("making");
        let journal_file = params.with_extension("making.json");
        let id = circuit.id(profile);
        let there =
            read(&journal_file).filter(|(journal, _)| (journal.profile, &journal.circuit) == (profile, &id));
        if let Some((journal, secrets)) = there {
            // Named already, not stamped yet.
            if !file.exists() && params.exists() {
                fs::rename(params, &file).map_err(ParamsError::io(params))?;
            }
            return Ok(Self { file, journal_file, journal, secrets });
        }
        let secrets = Secrets::new(rng);
        let journal = Journal {
            version: VERSION,
            profile,
            circuit: id,
            secrets: hex(&secrets.to_bytes()),
            portions: 0,
            bytes: 0,
            sha256: hex(&Sha256::digest([])),
            sum: String::new(),
        };
        let draft = Self { file, journal_file, journal, secrets };
        draft.store()?;
        Ok(draft)
    }

    fn store(&self) -> Result<(), ParamsError> {
        let text = self.journal.encode().map_err(|error| ParamsError::Stamp {
            file: self.journal_file.clone(),
            reason: error.to_string(),
        })?;
        durable::replace_private(&self.journal_file, &text).map_err(ParamsError::io(&self.journal_file))
    }

    /// Makes what is missing of the proving key, and gives the finished file. `tell` hears of every portion that is done.
    pub(super) fn make(
        &mut self,
        setup: &Setup,
        mut tell: impl FnMut(usize),
    ) -> Result<PathBuf, ParamsError> {
        let io = |source| ParamsError::Io { file: self.file.clone(), source };
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&self.file)
            .map_err(io)?;
        let mut hash = match rehash(&mut file, self.journal.bytes).map_err(io)? {
            Some(hash) if hex(&hash.clone().finalize()) == self.journal.sha256 => hash,
            // What was counted is not there any more: the same points are made again.
            _ => {
                (self.journal.portions, self.journal.bytes) = (0, 0);
                Sha256::new()
            }
        };
        file.set_len(self.journal.bytes).map_err(io)?;
        file.seek(SeekFrom::End(0)).map_err(io)?;
        let (mut bytes, mut unsynced) = (self.journal.bytes, 0);
        for portion in self.journal.portions..setup.portions() {
            tell(portion);
            let points = setup.bytes(portion).map_err(|error| ParamsError::Library(error.to_string()))?;
            let points = points.unwrap_or_default();
            file.write_all(&points).map_err(io)?;
            hash.update(&points);
            (bytes, unsynced) = (bytes + points.len() as u64, unsynced + points.len() as u64);
            if unsynced >= SYNC_BYTES || portion + 1 == setup.portions() {
                file.sync_all().map_err(io)?;
                self.journal.portions = portion + 1;
                self.journal.bytes = bytes;
                self.journal.sha256 = hex(&hash.clone().finalize());
                self.store()?;
                unsynced = 0;
            }
        }
        tell(setup.portions());
        Ok(self.file.clone())
    }

    /// Forgets the secrets.
    pub(super) fn forget(params: &Path) -> Result<(), ParamsError> {
        for name in ["making.json", "making"] {
            let path = params.with_extension(name);
            durable::remove(&path).map_err(ParamsError::io(&path))?;
        }
        let dir = params.parent().unwrap_or(Path::new("."));
        durable::sync_dir(dir).map_err(ParamsError::io(dir))
    }
}

/// A journal of ours; anything else is as good as none, since making anew mends it.
fn read(path: &Path) -> Option<(Journal, Secrets)> {
    let mut text = Vec::new();
    File::open(path).ok()?.take(JOURNAL_BYTES_MAX).read_to_end(&mut text).ok()?;
    Journal::parse(&text)
}

/// The hash of a file's first bytes; none where it has fewer.
fn rehash(file: &mut File, bytes: u64) -> io::Result<Option<Sha256>> {
    let (mut hash, mut left) = (Sha256::new(), bytes);
    let mut chunk = vec![0; READ_CHUNK];
    file.rewind()?;
    while left > 0 {
        let want = usize::try_from(left).unwrap_or(READ_CHUNK).min(READ_CHUNK);
        let Some(room) = chunk.get_mut(..want) else { break };
        match file.read_exact(room) {
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
            other => other?,
        }
        hash.update(&*room);
        left -= want as u64;
    }
    Ok(Some(hash))
}

fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.as_bytes();
    if !digits.len().is_multiple_of(2) || !digits.iter().all(u8::is_ascii_hexdigit) {
        return None;
    }
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).ok()?, 16).ok();
    digits.chunks(2).map(byte).collect()
}

/// The bytes of the journal of a making, with secrets that are none.
#[cfg(test)]
pub(crate) fn sample() -> Vec<u8> {
    use group::Group;
    use holdfast_setup::Fr;
    let [alpha, beta, gamma, delta, tau] = [2, 3, 4, 5, 6].map(Fr::from);
    let (g1, g2) = (blstrs::G1Projective::generator(), blstrs::G2Projective::generator());
    let secrets = hex(&Secrets { g1, g2, alpha, beta, gamma, delta, tau }.to_bytes());
    let circuit = Circuit::WindowPost.id(Profile::Test2k);
    let (portions, bytes, sha256) = (3, 99, hex(&[7; 32]));
    let profile = Profile::Test2k;
    let sum = String::new();
    let journal = Journal { version: VERSION, profile, circuit, secrets, portions, bytes, sha256, sum };
    let bytes = journal.encode().unwrap();
    assert!(Journal::parse(&bytes).is_some());
    bytes
}
