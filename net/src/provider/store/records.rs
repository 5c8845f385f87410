//! Records: one small file for each, the highest value that was ever shown.

use std::collections::HashMap;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use super::{Outcome, Steps, disk, storage};
use crate::codec;
use crate::error::ErrorCode;
use crate::provider::config::ProviderLimits;
use crate::record::{RECORD_BYTES_MAX, RecordKey, RecordRules, RecordVerdict};
use crate::wire::message::WireError;

const VERSION: u8 = 1;
const FILE_BYTES_MAX: usize = RECORD_BYTES_MAX + 512;

#[derive(Serialize, Deserialize)]
pub(crate) struct File {
    #[serde(with = "serde_bytes")]
    pub(crate) by: [u8; 32],
    pub(crate) key: RecordKey,
    pub(crate) v: u8,
    #[serde(with = "serde_bytes")]
    pub(crate) value: Vec<u8>,
}

/// The records' folder. One put at a time: the comparison and the write belong together.
pub(in crate::provider) struct Records {
    dir: PathBuf,
    /// Who began which record.
    begun_by: Mutex<HashMap<RecordKey, [u8; 32]>>,
    steps: Steps,
}

impl Records {
    pub(super) fn open(dir: PathBuf, steps: Steps) -> std::io::Result<Records> {
        let mut begun_by = HashMap::new();
        for name in disk::names(&dir)? {
            match read(&dir.join(&name)) {
                Ok(Some(file)) if file_name(&file.key) == name => {
                    begun_by.insert(file.key, file.by);
                }
                Ok(_) => tracing::warn!("a file that is no record: {name}"),
                Err(e) => tracing::error!("damaged record {name}: {}", e.text),
            }
        }
        Ok(Records { dir, begun_by: Mutex::new(begun_by), steps })
    }

    /// How many there are.
    pub(in crate::provider) fn len(&self) -> usize {
        self.begun_by.lock().len()
    }

    /// The highest value.
    pub(in crate::provider) fn get(&self, key: &RecordKey) -> Outcome<Option<Vec<u8>>> {
        validate(key)?;
        Ok(read(&self.dir.join(file_name(key)))?.filter(|file| file.key == *key).map(|file| file.value))
    }

    /// Keeps a value if it is higher, durably (`None`); else returns what stays.
    pub(in crate::provider) fn put(
        &self,
        rules: &dyn RecordRules,
        limits: &ProviderLimits,
        key: &RecordKey,
        value: Vec<u8>,
        by: [u8; 32],
    ) -> Outcome<Option<Vec<u8>>> {
        validate(key)?;
        if value.len() > RECORD_BYTES_MAX {
            return Err(WireError::new(ErrorCode::Malformed, "the record is too long"));
        }
        let mut begun_by = self.begun_by.lock();
        let path = self.dir.join(file_name(key));
        // A damaged file is as good as none: the owner has the true value and shows it again.
        let kept = read(&path).unwrap_or(None).filter(|file| file.key == *key);
        match rules.judge(key, &value, kept.as_ref().map(|file| file.value.as_slice())) {
            RecordVerdict::Invalid(why) => return Err(WireError::new(ErrorCode::BadRecord, why)),
            RecordVerdict::NotHigher => {
                let same = "the rules keep what is not there";
                return kept.map(|f| Some(f.value)).ok_or_else(|| WireError::new(ErrorCode::BadRecord, same));
            }
            RecordVerdict::Higher => {}
        }
        let owner = match begun_by.get(key) {
            Some(owner) => *owner,
            None => {
                let of_key = begun_by.values().filter(|owner| **owner == by).count();
                if of_key >= limits.records_per_key_max || begun_by.len() >= limits.records_max {
                    return Err(WireError::new(ErrorCode::Quota, "too many records"));
                }
                by
            }
        };
        let file = File { by: owner, key: key.clone(), v: VERSION, value };
        let write = || -> std::io::Result<()> {
            self.steps.edge("record.before")?;
            disk::write_atomic(&self.dir, &file_name(key), &codec::encode(&file))?;
            self.steps.edge("record.after")
        };
        write().map_err(|e| storage(&e))?;
        begun_by.insert(key.clone(), owner);
        Ok(None)
    }
}

fn validate(key: &RecordKey) -> Outcome<()> {
    key.validate().map_err(|e| WireError::new(ErrorCode::Malformed, e.to_string()))
}

fn file_name(key: &RecordKey) -> String {
    format!("{}-{}", u8::from(key.kind), data_encoding::HEXLOWER.encode(&key.name))
}

fn read(path: &Path) -> Outcome<Option<File>> {
    let bytes = match std::fs::read(path) {
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
