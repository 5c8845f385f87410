//! Where tickets, seeds and challenges come from.
//!
//! ```text
//! value of window w = SHA-256(domain32 | secret | w u64 BE), top two bits of byte 31 cleared
//! ```
//!
//! This beacon is the provider's own: nobody but the provider need believe that it did not know a value before its window.
//! So it serves test profiles, whose proofs convince nobody anyway. A public beacon comes with the market; production is
//! refused until then.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::durable;
use crate::entropy::Rng;
use crate::types::Bytes32;

const DOMAIN: [u8; 32] = *b"holdfast/beacon/own/v1\0\0\0\0\0\0\0\0\0\0";
pub(super) const FILE: &str = "beacon";

const SECRET_BYTES: usize = 32;

/// A provider's own beacon.
#[derive(Debug, Clone)]
pub struct OwnBeacon {
    secret: [u8; SECRET_BYTES],
}

impl OwnBeacon {
    /// The folder's secret, drawn the first time; why one that is there could not be used. What is proven already does not
    /// rest on it, so that another one serves as well.
    pub fn open(dir: &Path, rng: &mut dyn Rng) -> io::Result<(Self, Option<String>)> {
        let path = dir.join(FILE);
        let damaged = match File::open(&path) {
            Ok(file) => {
                let mut bytes = Vec::new();
                file.take(SECRET_BYTES as u64 + 1).read_to_end(&mut bytes)?;
                match bytes.try_into() {
                    Ok(secret) => return Ok((Self { secret }, None)),
                    Err(_) => Some(format!("it is not of {SECRET_BYTES} bytes")),
                }
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => None,
            Err(error) => return Err(error),
        };
        if damaged.is_some() {
            super::aside(&path).map_err(io::Error::other)?;
        }
        let mut secret = [0; SECRET_BYTES];
        rng.fill(&mut secret);
        durable::replace_private(&path, &secret)?;
        Ok((Self { secret }, damaged))
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
