//! Where tickets, seeds and challenges come from.
//!
//! ```text
//! value of window w = SHA-256(domain32 | secret | w u64 BE), top two bits of byte 31 cleared
//! ```
//!
//! This beacon is the provider's own: nobody but the provider need believe that it did not know a value before its window.
//! So it serves test profiles, whose proofs convince nobody anyway. A public beacon comes with the market; production is
//! refused until then.

use std::fs;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::durable;
use crate::entropy::Rng;
use crate::types::Bytes32;

const DOMAIN: [u8; 32] = *b"holdfast/beacon/own/v1\0\0\0\0\0\0\0\0\0\0";
const FILE: &str = "beacon";

/// A provider's own beacon.
#[derive(Debug, Clone)]
pub struct OwnBeacon {
    secret: [u8; 32],
}

impl OwnBeacon {
    /// The folder's secret, drawn the first time.
    pub fn open(dir: &Path, rng: &mut dyn Rng) -> io::Result<Self> {
        let path = dir.join(FILE);
        match fs::read(&path) {
            Ok(bytes) => {
                let secret = bytes.try_into().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
                Ok(Self { secret })
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                rng.fill(&mut secret);
                durable::replace(&path, &secret)?;
                Ok(Self { secret })
            }
            Err(error) => Err(error),
        }
    }

    /// The beacon's value at a window.
    pub fn at(&self, window: u64) -> Bytes32 {
        let mut value: [u8; 32] = Sha256::new()
            .chain_update(DOMAIN)
            .chain_update(self.secret)
            .chain_update(window.to_be_bytes())
            .finalize()
            .into();
        value[31] &= 0x3f;
        Bytes32(value)
    }
}
