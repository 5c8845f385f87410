//! The two records that lead from the words to the drive, as providers keep them: what is valid, and which is higher.
//!
//! ```text
//!   keyring   name: the drive's root public key    value: the signed keyring (content)
//!   head      name: the head key's public half     value: version u8 = 1 | length u16 BE | IPNS record | sealed body
//!   parts of a watcher's bundle and log            name: the author's key | part u16 BE (`holdfast_content::watch::part`)
//!   revocations   name: the client's key           value: the signed list (`holdfast_net::permit`)
//! ```
//!
//! Promises: a provider replaces a keyring only by one with a higher sequence, signed by the root key; a head only by one
//! with a higher (term, sequence), signed by the head key, whose body is the one that the record names. Expiry is not
//! looked at: a drive that was a year offline must find its head, and rolling back is what the order forbids.
//! Refuses: everything else, with the reason.

use holdfast_content::watch::part::Part;
use holdfast_content::{
    head::HeadRecord,
    keys::{DriveName, Keyring},
};
use holdfast_net::permit::Revocations;
use holdfast_net::record::{RECORD_BYTES_MAX, RecordKey, RecordKind, RecordRules, RecordVerdict};

const HEAD_VERSION: u8 = 1;
/// So that no record counts as expired.
const NEVER_EXPIRED: u64 = 0;

/// Under which name providers keep a drive's keyring.
pub fn keyring_key(drive: &DriveName) -> RecordKey {
    RecordKey::new(RecordKind::Keyring, *drive.as_bytes())
}

/// Under which name providers keep the head of a head key.
pub fn head_key(public: &[u8; 32]) -> RecordKey {
    RecordKey::new(RecordKind::Head, *public)
}

/// Why bytes are no head.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeadValueError {
    #[error("a head of version {0}, which is newer than this program; update Holdfast")]
    Newer(u8),
    #[error("malformed head: {0}")]
    Malformed(&'static str),
    #[error(transparent)]
    Record(#[from] holdfast_content::head::RecordError),
    #[error("a head of {0} bytes does not fit into a record")]
    TooLarge(usize),
}

/// A verified record together with the sealed body that it names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadValue {
    record: HeadRecord,
    sealed: Vec<u8>,
}

impl HeadValue {
    /// Joins a record with its body.
    pub fn new(record: HeadRecord, sealed: Vec<u8>) -> Result<HeadValue, HeadValueError> {
        if !record.names(&sealed) {
            return Err(HeadValueError::Malformed("the record names another body"));
        }
        Ok(HeadValue { record, sealed })
    }

    pub fn record(&self) -> &HeadRecord {
        &self.record
    }

    pub fn sealed(&self) -> &[u8] {
        &self.sealed
    }

    /// As it travels and is kept.
    pub fn encode(&self) -> Result<Vec<u8>, HeadValueError> {
        let record = self.record.bytes();
        let length = u16::try_from(record.len()).map_err(|_| HeadValueError::TooLarge(record.len()))?;
        let mut bytes = Vec::with_capacity(3 + record.len() + self.sealed.len());
        bytes.push(HEAD_VERSION);
        bytes.extend_from_slice(&length.to_be_bytes());
        bytes.extend_from_slice(record);
        bytes.extend_from_slice(&self.sealed);
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(HeadValueError::TooLarge(bytes.len()));
        }
        Ok(bytes)
    }

    /// From anyone: verified under a head key that the keyring names.
    pub fn verify(bytes: &[u8], head_key: &[u8; 32]) -> Result<HeadValue, HeadValueError> {
        if bytes.len() > RECORD_BYTES_MAX {
            return Err(HeadValueError::TooLarge(bytes.len()));
        }
        let (&version, rest) = bytes.split_first().ok_or(HeadValueError::Malformed("empty"))?;
        if version > HEAD_VERSION {
            return Err(HeadValueError::Newer(version));
        }
        if version != HEAD_VERSION {
            return Err(HeadValueError::Malformed("version 0"));
        }
        let short = || HeadValueError::Malformed("cut short");
        let (length, rest) = rest.split_first_chunk::<2>().ok_or_else(short)?;
        let (record, sealed) = rest.split_at_checked(u16::from_be_bytes(*length).into()).ok_or_else(short)?;
        HeadValue::new(HeadRecord::verify(record, head_key, NEVER_EXPIRED)?, sealed.to_vec())
    }
}

/// What a provider goes by.
#[derive(Debug, Clone, Copy, Default)]
pub struct DriveRecords;

impl RecordRules for DriveRecords {
    fn judge(&self, key: &RecordKey, new: &[u8], kept: Option<&[u8]>) -> RecordVerdict {
        if matches!(key.kind, RecordKind::WatchBundle | RecordKind::WatchLog) {
            return judge_part(&key.name, new, kept);
        }
        let Ok(name) = <[u8; 32]>::try_from(key.name.as_slice()) else {
            return RecordVerdict::Invalid("a name of another length than a public key's".into());
        };
        match key.kind {
            RecordKind::Keyring => judge_keyring(&DriveName::from_bytes(name), new, kept),
            RecordKind::Head => judge_head(&name, new, kept),
            RecordKind::Revocations => judge_revocations(&name, new, kept),
            RecordKind::WatchBundle | RecordKind::WatchLog => judge_part(&key.name, new, kept),
        }
    }
}

fn judge_keyring(drive: &DriveName, new: &[u8], kept: Option<&[u8]>) -> RecordVerdict {
    let new = match Keyring::verify(new, drive) {
        Ok(keyring) => keyring,
        Err(error) => return RecordVerdict::Invalid(error.to_string()),
    };
    // What is kept was judged once; if it does not verify any more, its file was damaged and any valid one is better.
    let kept = kept.and_then(|bytes| Keyring::verify(bytes, drive).ok());
    match kept {
        Some(kept) if kept.sequence >= new.sequence => RecordVerdict::NotHigher,
        _ => RecordVerdict::Higher,
    }
}

/// What owner and watchers leave for each other: signed by whom the name says, and the higher number wins.
fn judge_part(name: &[u8], new: &[u8], kept: Option<&[u8]>) -> RecordVerdict {
    let new = match Part::verify(name, new) {
        Ok(part) => part,
        Err(error) => return RecordVerdict::Invalid(error.to_string()),
    };
    match kept.and_then(|bytes| Part::verify(name, bytes).ok()) {
        Some(kept) if new.number <= kept.number => RecordVerdict::NotHigher,
        _ => RecordVerdict::Higher,
    }
}

fn judge_revocations(client: &[u8; 32], new: &[u8], kept: Option<&[u8]>) -> RecordVerdict {
    let read = |bytes: &[u8]| Revocations::from_bytes(bytes).ok().filter(|list| list.client == *client);
    let Some(new) = read(new) else {
        return RecordVerdict::Invalid("no list of revocations by that client".into());
    };
    match kept.and_then(read) {
        Some(kept) if new.number <= kept.number => RecordVerdict::NotHigher,
        _ => RecordVerdict::Higher,
    }
}

fn judge_head(key: &[u8; 32], new: &[u8], kept: Option<&[u8]>) -> RecordVerdict {
    let new = match HeadValue::verify(new, key) {
        Ok(head) => head,
        Err(error) => return RecordVerdict::Invalid(error.to_string()),
    };
    let kept = kept.and_then(|bytes| HeadValue::verify(bytes, key).ok());
    match kept {
        Some(kept) if new.record.compare(&kept.record).is_le() => RecordVerdict::NotHigher,
        _ => RecordVerdict::Higher,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use RecordVerdict::{Higher, NotHigher};
    use holdfast_content::{head::sealed_cid, keys::Mnemonic};
    use holdfast_net::SigningKey;

    fn head(signer: &SigningKey, body: &[u8], term: u64, sequence: u64) -> Vec<u8> {
        // Long expired on purpose.
        let record = HeadRecord::sign(&sealed_cid(body), sequence, term, 1_000_000, signer).unwrap();
        HeadValue::new(record, body.to_vec()).unwrap().encode().unwrap()
    }

    #[test]
    fn heads_only_rise_and_only_by_their_key() {
        let signer = SigningKey::from_bytes(&[7; 32]);
        let key = head_key(&signer.verifying_key().to_bytes());
        let judge = |new: &[u8], kept: Option<&[u8]>| DriveRecords.judge(&key, new, kept);
        let (a, b, c) = (head(&signer, b"a", 1, 5), head(&signer, b"b", 1, 6), head(&signer, b"c", 2, 3));
        assert_eq!(judge(&a, None), Higher);
        assert_eq!(judge(&b, Some(&a)), Higher);
        assert_eq!(judge(&a, Some(&b)), NotHigher);
        assert_eq!(judge(&a, Some(&a)), NotHigher);
        assert_eq!(judge(&c, Some(&b)), Higher, "the term counts before the sequence");
        assert_eq!(judge(&a, Some(b"damaged")), Higher);
        let stranger = head(&SigningKey::from_bytes(&[8; 32]), b"a", 9, 9);
        let mut swapped = a.clone();
        *swapped.last_mut().unwrap() ^= 1;
        let mut newer = a.clone();
        newer[0] = 2;
        for bad in [&stranger[..], &swapped, &newer, &a[..a.len() - 1], &a[..2], b"", b"\x01\xff\xff"] {
            assert!(matches!(judge(bad, None), RecordVerdict::Invalid(_)));
        }
        let other = RecordKey::new(RecordKind::Head, vec![1; 31]);
        assert!(matches!(DriveRecords.judge(&other, &a, None), RecordVerdict::Invalid(_)));
    }

    #[test]
    fn keyrings_only_rise_and_only_by_their_root() {
        let root = Mnemonic::from_entropy([3; 32]).root_key();
        let first = Keyring::first(&root, 1);
        let mut second = first.clone();
        second.sequence += 1;
        let (first, second) = (first.sign(&root).unwrap(), second.sign(&root).unwrap());
        let key = keyring_key(&root.drive_name());
        let judge = |new: &[u8], kept: Option<&[u8]>| DriveRecords.judge(&key, new, kept);
        assert_eq!(judge(&first, None), Higher);
        assert_eq!(judge(&second, Some(&first)), Higher);
        assert_eq!(judge(&first, Some(&second)), NotHigher);
        let other = Mnemonic::from_entropy([4; 32]).root_key();
        let stranger = Keyring::first(&other, 1).sign(&other).unwrap();
        assert!(matches!(judge(&stranger, None), RecordVerdict::Invalid(_)));
    }

    #[test]
    fn parts_and_lists_only_rise_and_only_by_their_author() {
        use holdfast_content::{keys::SecretKey32, watch::part};
        let author = SigningKey::from_bytes(&[7; 32]);
        let public = author.verifying_key().to_bytes();
        let sealing = SecretKey32::from_bytes([1; 32]);
        let part = |n, number| part::write(&author, n, number, &sealing, b"plain").unwrap();
        let key = RecordKey::new(RecordKind::WatchLog, part::name(&public, 3));
        let judge = |new: &[u8], kept: Option<&[u8]>| DriveRecords.judge(&key, new, kept);
        assert_eq!(judge(&part(3, 1), None), Higher);
        assert_eq!(judge(&part(3, 2), Some(&part(3, 1))), Higher);
        assert_eq!(judge(&part(3, 1), Some(&part(3, 2))), NotHigher);
        assert!(matches!(judge(&part(4, 9), None), RecordVerdict::Invalid(_)), "another part");
        let list = |number| Revocations::new(public, [[1; 32]], number).sign(&author).unwrap();
        let key = Revocations::key(&public);
        let judge = |new: &[u8], kept: Option<&[u8]>| DriveRecords.judge(&key, new, kept);
        assert_eq!(judge(&list(2), Some(&list(1))), Higher);
        assert_eq!(judge(&list(1), Some(&list(2))), NotHigher);
        let other = DriveRecords.judge(&Revocations::key(&[9; 32]), &list(3), None);
        assert!(matches!(other, RecordVerdict::Invalid(_)));
    }

    #[test]
    fn a_head_comes_back_as_it_was() {
        let signer = SigningKey::from_bytes(&[7; 32]);
        let bytes = head(&signer, b"body", 1, 1);
        let value = HeadValue::verify(&bytes, &signer.verifying_key().to_bytes()).unwrap();
        assert_eq!((value.sealed(), value.record().sequence()), (&b"body"[..], 1));
        assert_eq!(value.encode().unwrap(), bytes);
    }
}
