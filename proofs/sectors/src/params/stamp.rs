//! The stamp of a locally made pair: what was made, and that it proves nothing to others.
//!
//! Written last, so that a pair without one was interrupted and is made again.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Circuit, ParamsError};
use crate::durable::{self, hex};
use crate::profile::{Profile, TEST_STRENGTH};

const VERSION: u32 = 1;
/// A stamp is a few hundred bytes.
const STAMP_BYTES_MAX: u64 = 1 << 16;

/// What stands beside a pair that was made on this machine.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Stamp {
    version: u32,
    pub profile: Profile,
    pub circuit: Circuit,
    /// The words "test strength", for whoever opens the file.
    pub strength: String,
    pub params_bytes: u64,
    pub params_sha256: String,
    pub key_sha256: String,
}

impl Stamp {
    pub(super) fn of(
        profile: Profile,
        circuit: Circuit,
        params: &Path,
        key: &Path,
    ) -> Result<Self, ParamsError> {
        let (params_bytes, params_sha256) = durable::sha256_file(params).map_err(ParamsError::io(params))?;
        let (_, key_sha256) = durable::sha256_file(key).map_err(ParamsError::io(key))?;
        Ok(Self {
            version: VERSION,
            profile,
            circuit,
            strength: TEST_STRENGTH.to_owned(),
            params_bytes,
            params_sha256: hex(&params_sha256),
            key_sha256: hex(&key_sha256),
        })
    }

    pub(super) fn write(&self, file: &Path) -> Result<(), ParamsError> {
        let text = serde_json::to_vec_pretty(self)
            .map_err(|error| ParamsError::Stamp { file: file.to_owned(), reason: error.to_string() })?;
        durable::replace(file, &text).map_err(ParamsError::io(file))
    }

    pub(super) fn read(file: &Path) -> Result<Self, ParamsError> {
        let bad = |reason: String| ParamsError::Stamp { file: file.to_owned(), reason };
        let len = fs::metadata(file).map_err(ParamsError::io(file))?.len();
        if len > STAMP_BYTES_MAX {
            return Err(bad(format!("{len} bytes are too many")));
        }
        let text = fs::read(file).map_err(ParamsError::io(file))?;
        Self::parse(&text).map_err(bad)
    }

    fn parse(text: &[u8]) -> Result<Self, String> {
        let stamp: Self = serde_json::from_slice(text).map_err(|error| error.to_string())?;
        if stamp.version == VERSION {
            Ok(stamp)
        } else {
            Err(format!("version {} is not known", stamp.version))
        }
    }

    /// That the two files are, byte for byte, what was made.
    pub(super) fn compare(&self, params: &Path, key: &Path) -> Result<(), ParamsError> {
        for file in [params, key] {
            if !file.exists() {
                return Err(ParamsError::NotGenerated { file: file.to_owned() });
            }
        }
        // A cut file is found before its gigabyte is hashed.
        let len = fs::metadata(params).map_err(ParamsError::io(params))?.len();
        let now = if len == self.params_bytes {
            Self::of(self.profile, self.circuit, params, key)?
        } else {
            return Err(ParamsError::Damaged { file: params.to_owned() });
        };
        if now.params_sha256 != self.params_sha256 {
            return Err(ParamsError::Damaged { file: params.to_owned() });
        }
        if now.key_sha256 != self.key_sha256 {
            return Err(ParamsError::Damaged { file: key.to_owned() });
        }
        Ok(())
    }
}

/// Any bytes as a stamp, for fuzzing: what is understood comes back.
pub(crate) fn decode_any(bytes: &[u8]) {
    if let Ok(stamp) = Stamp::parse(bytes) {
        let again = serde_json::to_vec_pretty(&stamp).ok().and_then(|bytes| Stamp::parse(&bytes).ok());
        assert_eq!(again, Some(stamp), "another stamp comes back");
    }
}

/// The bytes of a stamp.
#[cfg(test)]
pub(crate) fn sample() -> Vec<u8> {
    let stamp = Stamp {
        version: VERSION,
        profile: Profile::Test2k,
        circuit: Circuit::WinningPost,
        strength: TEST_STRENGTH.to_owned(),
        params_bytes: 9,
        params_sha256: hex(&[1; 32]),
        key_sha256: hex(&[2; 32]),
    };
    serde_json::to_vec_pretty(&stamp).unwrap()
}
