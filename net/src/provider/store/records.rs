//! Records: one small file for each, the highest value that was ever shown.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Outcome, Steps, disk, storage};
use crate::codec;
use crate::error::ErrorCode;
use crate::provider::config::ProviderConfig;
use crate::record::{HeadTerm, RECORD_BYTES_MAX, RecordKey, RecordKind, RecordRules, RecordVerdict};
use crate::term::{self, Decision, SignedClaim};
use crate::wire::message::WireError;

const VERSION: u8 = 1;
const FILE_BYTES_MAX: usize = RECORD_BYTES_MAX + 512;
/// Who has no deal here shares this part of the records' bytes with all others who have none.
const STRANGERS_SHARE: u64 = 4;

#[derive(Serialize, Deserialize)]
pub(crate) struct File {
    #[serde(with = "serde_bytes")]
    pub(crate) by: [u8; 32],
    pub(crate) key: RecordKey,
    pub(crate) v: u8,
    #[serde(with = "serde_bytes")]
    pub(crate) value: Vec<u8>,
}

/// What a put may use.
pub(in crate::provider) struct RecordBounds {
    records_max: usize,
    records_per_key_max: usize,
    bytes_max: u64,
}

impl RecordBounds {
    /// For a client with deals, or for a stranger.
    pub(in crate::provider) fn of(config: &ProviderConfig, stranger: bool) -> RecordBounds {
        let bytes_max = config.records_bytes_max() / if stranger { STRANGERS_SHARE } else { 1 };
        RecordBounds {
            records_max: config.limits.records_max,
            records_per_key_max: config.limits.records_per_key_max,
            bytes_max,
        }
    }
}

/// What memory knows of a record.
#[derive(Clone, Copy)]
struct Known {
    /// Who began it.
    by: [u8; 32],
    bytes: u64,
}

#[derive(Default)]
struct Index {
    records: HashMap<RecordKey, Known>,
    bytes: u64,
}

impl Index {
    fn insert(&mut self, key: RecordKey, known: Known) {
        let before = self.records.insert(key, known).map_or(0, |old| old.bytes);
        self.bytes = self.bytes.saturating_sub(before).saturating_add(known.bytes);
    }

    /// Whether a value of so many bytes may be kept; whose the record is then.
    fn admit(&self, bounds: &RecordBounds, key: &RecordKey, bytes: u64, by: [u8; 32]) -> Outcome<[u8; 32]> {
        let (owner, bytes_before) = match self.records.get(key) {
            Some(known) => (known.by, known.bytes),
            None => {
                let of_key = self.records.values().filter(|known| known.by == by).count();
                if of_key >= bounds.records_per_key_max || self.records.len() >= bounds.records_max {
                    return Err(WireError::new(ErrorCode::Quota, "too many records"));
                }
                (by, 0)
            }
        };
        let total = self.bytes.saturating_sub(bytes_before).saturating_add(bytes);
        // A record that does not grow is taken even where the bounds have shrunk since.
        if bytes > bytes_before && total > bounds.bytes_max {
            return Err(WireError::new(ErrorCode::Quota, "the space for records is used up"));
        }
        Ok(owner)
    }
}

/// The records' folder. One put at a time: the comparison and the write belong together.
pub(in crate::provider) struct Records {
    dir: PathBuf,
    /// Held for the whole of a put, disk included; nothing that must not wait asks for it.
    putting: Mutex<()>,
    index: Mutex<Index>,
    steps: Steps,
}

impl Records {
    pub(super) fn open(dir: PathBuf, steps: Steps) -> std::io::Result<Records> {
        let mut index = Index::default();
        for name in disk::names(&dir)? {
            match read(&dir.join(&name)) {
                Ok(Some(file)) if file_name(&file.key) == name => {
                    let known = Known { by: file.by, bytes: file.value.len() as u64 };
                    index.insert(file.key, known);
                }
                Ok(_) => tracing::warn!("a file that is no record: {name}"),
                Err(e) => tracing::error!("damaged record {name}: {}", e.text),
            }
        }
        Ok(Records { dir, putting: Mutex::new(()), index: Mutex::new(index), steps })
    }

    /// How many there are.
    pub(in crate::provider) fn len(&self) -> usize {
        self.index.lock().records.len()
    }

    /// Names of the records of a kind, and the key that began each.
    pub(in crate::provider) fn of_kind(&self, kind: RecordKind) -> Vec<(RecordKey, [u8; 32])> {
        let index = self.index.lock();
        let of_kind = index.records.iter().filter(|(key, _)| key.kind == kind);
        of_kind.map(|(key, known)| (key.clone(), known.by)).collect()
    }

    /// Bytes of all values.
    pub(in crate::provider) fn bytes(&self) -> u64 {
        self.index.lock().bytes
    }

    /// The highest value.
    pub(in crate::provider) fn get(&self, key: &RecordKey) -> Outcome<Option<Vec<u8>>> {
        validate(key)?;
        Ok(self.read(key)?.map(|file| file.value))
    }

    /// Keeps a value if it is higher, durably (`None`); else returns what stays.
    pub(in crate::provider) fn put(
        &self,
        rules: &dyn RecordRules,
        bounds: &RecordBounds,
        key: &RecordKey,
        value: Vec<u8>,
        by: [u8; 32],
    ) -> Outcome<Option<Vec<u8>>> {
        validate(key)?;
        if value.len() > RECORD_BYTES_MAX {
            return Err(WireError::new(ErrorCode::Malformed, "the record is too long"));
        }
        if key.kind == RecordKind::Claim {
            return Err(WireError::new(ErrorCode::BadRecord, "terms are claimed"));
        }
        let _one_at_a_time = self.putting.lock();
        // A damaged file is as good as none: the owner has the true value and shows it again.
        let kept = self.read(key).unwrap_or(None);
        match rules.judge(key, &value, kept.as_ref().map(|file| file.value.as_slice())) {
            RecordVerdict::Invalid(why) => return Err(WireError::new(ErrorCode::BadRecord, why)),
            RecordVerdict::NotHigher => {
                let same = "the rules keep what is not there";
                return kept.map(|f| Some(f.value)).ok_or_else(|| WireError::new(ErrorCode::BadRecord, same));
            }
            RecordVerdict::Higher => {}
        }
        if key.kind == RecordKind::Head
            && let Some(of) = rules.term(key, &value)
        {
            let granted = self.granted(&key.name)?;
            if !term::admits(granted.as_ref().map(SignedClaim::claim), of.term, of.writer.as_ref()) {
                return Err(WireError::new(ErrorCode::Overtaken, "a higher term was granted"));
            }
        }
        self.write(bounds, key, value, by)?;
        Ok(None)
    }

    /// Decides over a claim; what is granted is durable when this returns.
    pub(in crate::provider) fn claim(
        &self,
        rules: &dyn RecordRules,
        bounds: &RecordBounds,
        claim: &SignedClaim,
        by: [u8; 32],
    ) -> Outcome<Claimed> {
        let name = claim.claim().name;
        let head_key = RecordKey::new(RecordKind::Head, name);
        let _one_at_a_time = self.putting.lock();
        // What cannot be read may have been a grant: no other one is made beside it.
        let granted = self.granted(&name)?;
        let head = self.read(&head_key)?.map(|file| file.value);
        let of: Option<HeadTerm> = head.as_ref().and_then(|head| rules.term(&head_key, head));
        let decision = term::decide(granted.as_ref().map(SignedClaim::claim), of.as_ref(), claim.claim());
        if decision == Decision::Grant {
            let key = RecordKey::new(RecordKind::Claim, name);
            self.write(bounds, &key, claim.bytes().to_vec(), by)?;
        }
        let taken = granted.filter(|_| decision == Decision::Taken);
        Ok(Claimed { granted: matches!(decision, Decision::Grant | Decision::Again), taken, head })
    }

    fn granted(&self, name: &[u8]) -> Outcome<Option<SignedClaim>> {
        let file = self.read(&RecordKey::new(RecordKind::Claim, name))?;
        let claim = file.map(|file| SignedClaim::from_bytes(&file.value)).transpose();
        claim.map_err(|e| WireError::new(ErrorCode::Storage, format!("the claim that was granted: {e}")))
    }

    fn read(&self, key: &RecordKey) -> Outcome<Option<File>> {
        Ok(read(&self.dir.join(file_name(key)))?.filter(|file| file.key == *key))
    }

    fn write(&self, bounds: &RecordBounds, key: &RecordKey, value: Vec<u8>, by: [u8; 32]) -> Outcome<()> {
        let owner = self.index.lock().admit(bounds, key, value.len() as u64, by)?;
        let bytes = value.len() as u64;
        let file = File { by: owner, key: key.clone(), v: VERSION, value };
        let write = || -> std::io::Result<()> {
            self.steps.edge("record.before")?;
            disk::write_atomic(&self.dir, &file_name(key), &codec::encode(&file))?;
            self.steps.edge("record.after")
        };
        write().map_err(|e| storage(&e))?;
        self.index.lock().insert(key.clone(), Known { by: owner, bytes });
        Ok(())
    }
}

/// What became of a claim.
pub(in crate::provider) struct Claimed {
    pub(in crate::provider) granted: bool,
    /// The claim that was granted instead.
    pub(in crate::provider) taken: Option<SignedClaim>,
    /// The head that is kept.
    pub(in crate::provider) head: Option<Vec<u8>>,
}

fn validate(key: &RecordKey) -> Outcome<()> {
    key.validate().map_err(|e| WireError::new(ErrorCode::Malformed, e.to_string()))
}

fn file_name(key: &RecordKey) -> String {
    format!("{}-{}", u8::from(key.kind), data_encoding::HEXLOWER.encode(&key.name))
}

fn read(path: &Path) -> Outcome<Option<File>> {
    let bytes = match disk::read_limited(path, FILE_BYTES_MAX as u64) {
        Ok(bytes) => bytes,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(None),
        Err(e) => return Err(storage(&e)),
    };
    decode(&bytes).map(Some)
}

pub(crate) fn decode(bytes: &[u8]) -> Outcome<File> {
    match codec::decode::<File>(bytes, FILE_BYTES_MAX) {
        Ok(file) if file.v == VERSION => Ok(file),
        Ok(_) => Err(WireError::new(ErrorCode::Storage, "a record of another version")),
        Err(e) => Err(WireError::new(ErrorCode::Storage, e.to_string())),
    }
}
