//! The two records that lead from the words to the drive, as providers keep them: what is valid, and which is higher.
//!
//! ```text
//!   keyring   name: the drive's root public key    value: the signed keyring (content)
//!   head      name: the head key's public half     value: version u8 = 1 | length u16 BE | IPNS record | sealed body
//!                                                  or     version u8 = 2 | length u16 BE | IPNS record | length u16 BE | standing |
//!                                                         signature by the writer, 64 | sealed body
//!   parts of a watcher's bundle and log            name: the author's key | part u16 BE (`holdfast_content::watch::part`)
//!   revocations   name: the client's key           value: the signed list (`holdfast_net::permit`)
//! ```
//!
//! Promises: a provider replaces a keyring only by one with a higher sequence, signed by the root key; a head only by one
//! with a higher (term, sequence), signed by the head key, whose body is the one that the record names, and whose term a majority
//! of the anchors granted to who signed it. A head without a standing never takes the place of one with it; of one term and two
//! writers the first stays. Expiry is not looked at: a drive that was a year offline must find its head, and rolling back is what
//! the order forbids.
//! Refuses: everything else, with the reason.

use holdfast_content::watch::part::Part;
use holdfast_content::{
    head::HeadRecord,
    keys::{DriveName, Keyring},
};
use holdfast_net::SigningKey;
use holdfast_net::permit::Revocations;
use holdfast_net::record::{HeadTerm, RECORD_BYTES_MAX, RecordKey, RecordKind, RecordRules, RecordVerdict};
use holdfast_net::term::{self, STANDING_BYTES_MAX, Standing};

const HEAD_VERSION: u8 = 2;
const HEAD_VERSION_WITHOUT_STANDING: u8 = 1;
const SIGNATURE_BYTES: usize = 64;
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
    #[error("a head by nobody who holds its term: {0}")]
    Standing(#[from] holdfast_net::codec::CodecError),
    #[error("a head of {0} bytes does not fit into a record")]
    TooLarge(usize),
}

/// By whose grants a head was written, and that its writer wrote it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stood {
    standing: Standing,
    bytes: Vec<u8>,
    signature: [u8; SIGNATURE_BYTES],
}

/// A verified record together with the sealed body that it names, and its standing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeadValue {
    record: HeadRecord,
    stood: Option<Stood>,
    sealed: Vec<u8>,
}

impl HeadValue {
    /// Joins a record of version 1 with its body.
    pub fn new(record: HeadRecord, sealed: Vec<u8>) -> Result<HeadValue, HeadValueError> {
        HeadValue::of(record, None, sealed)
    }

    /// Joins a record with its standing and its body, as the holder of the term.
    pub fn sign(
        record: HeadRecord,
        standing: &Standing,
        writer: &SigningKey,
        sealed: Vec<u8>,
    ) -> Result<HeadValue, HeadValueError> {
        use holdfast_net::Signer as _;
        let signature = writer.sign(&term::head_message(record.bytes())).to_bytes();
        let stood = Stood { standing: standing.clone(), bytes: standing.encode(), signature };
        HeadValue::of(record, Some(stood), sealed)
    }

    fn of(record: HeadRecord, stood: Option<Stood>, sealed: Vec<u8>) -> Result<HeadValue, HeadValueError> {
        if !record.names(&sealed) {
            return Err(HeadValueError::Malformed("the record names another body"));
        }
        let digest = stood.as_ref().map(|stood| Standing::digest(&stood.bytes));
        if record.standing() != digest.as_ref() {
            return Err(HeadValueError::Malformed("the record names another standing"));
        }
        if let Some(Stood { standing, signature, .. }) = &stood {
            let claim = standing.certificate.claim();
            if claim.term != record.term() {
                return Err(HeadValueError::Malformed("a standing of another term"));
            }
            term::signed_by_writer(record.bytes(), &claim.writer, signature)?;
        }
        Ok(HeadValue { record, stood, sealed })
    }

    pub fn record(&self) -> &HeadRecord {
        &self.record
    }

    pub fn sealed(&self) -> &[u8] {
        &self.sealed
    }

    /// Who holds the term, and who grants the next one; none in version 1.
    pub fn standing(&self) -> Option<&Standing> {
        self.stood.as_ref().map(|stood| &stood.standing)
    }

    /// Who wrote it.
    pub fn writer(&self) -> Option<&[u8; 32]> {
        self.standing().map(|standing| &standing.certificate.claim().writer)
    }

    /// The order of heads, as far as there is one ([`HeadValue::rivals`]).
    pub fn rank(&self) -> (bool, u64, u64) {
        (self.stood.is_some(), self.record.term(), self.record.sequence())
    }

    /// Whether the same term has two writers.
    pub fn rivals(&self, other: &HeadValue) -> bool {
        let both = self.writer().zip(other.writer());
        self.record.term() == other.record.term() && both.is_some_and(|(ours, theirs)| ours != theirs)
    }

    /// Whether it takes the place of `kept`.
    pub fn supersedes(&self, kept: &HeadValue) -> bool {
        self.rank() > kept.rank() && !self.rivals(kept)
    }

    /// As it travels and is kept.
    pub fn encode(&self) -> Result<Vec<u8>, HeadValueError> {
        let version = if self.stood.is_some() { HEAD_VERSION } else { HEAD_VERSION_WITHOUT_STANDING };
        let mut bytes = vec![version];
        let mut put = |part: &[u8]| {
            let length = u16::try_from(part.len()).map_err(|_| HeadValueError::TooLarge(part.len()))?;
            bytes.extend_from_slice(&length.to_be_bytes());
            bytes.extend_from_slice(part);
            Ok::<(), HeadValueError>(())
        };
        put(self.record.bytes())?;
        if let Some(stood) = &self.stood {
            put(&stood.bytes)?;
            bytes.extend_from_slice(&stood.signature);
        }
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
        let (&version, mut rest) = bytes.split_first().ok_or(HeadValueError::Malformed("empty"))?;
        if version > HEAD_VERSION {
            return Err(HeadValueError::Newer(version));
        }
        if version == 0 {
            return Err(HeadValueError::Malformed("version 0"));
        }
        let record = HeadRecord::verify(take(&mut rest)?, head_key, NEVER_EXPIRED)?;
        let mut stood = None;
        if version == HEAD_VERSION {
            let bytes = take(&mut rest)?.to_vec();
            if bytes.len() > STANDING_BYTES_MAX {
                return Err(HeadValueError::Malformed("a standing that is too long"));
            }
            let (signature, after) = rest.split_first_chunk::<SIGNATURE_BYTES>().ok_or(SHORT)?;
            rest = after;
            let standing = Standing::decode(&bytes)?;
            if standing.certificate.claim().name != *head_key {
                return Err(HeadValueError::Malformed("a standing of another drive"));
            }
            stood = Some(Stood { standing, bytes, signature: *signature });
        }
        HeadValue::of(record, stood, rest.to_vec())
    }
}

const SHORT: HeadValueError = HeadValueError::Malformed("cut short");

/// A part behind its length.
fn take<'a>(rest: &mut &'a [u8]) -> Result<&'a [u8], HeadValueError> {
    let (length, after) = rest.split_first_chunk::<2>().ok_or(SHORT)?;
    let (part, after) = after.split_at_checked(u16::from_be_bytes(*length).into()).ok_or(SHORT)?;
    *rest = after;
    Ok(part)
}

/// What a provider goes by.
#[derive(Debug, Clone, Copy, Default)]
pub struct DriveRecords;

impl RecordRules for DriveRecords {
    fn judge(&self, key: &RecordKey, new: &[u8], kept: Option<&[u8]>) -> RecordVerdict {
        if matches!(key.kind, RecordKind::WatchBundle | RecordKind::WatchLog | RecordKind::Share) {
            return judge_part(&key.name, new, kept);
        }
        let Ok(name) = <[u8; 32]>::try_from(key.name.as_slice()) else {
            return RecordVerdict::Invalid("a name of another length than a public key's".into());
        };
        match key.kind {
            RecordKind::Keyring => judge_keyring(&DriveName::from_bytes(name), new, kept),
            RecordKind::Head => judge_head(&name, new, kept),
            RecordKind::Claim => RecordVerdict::Invalid("terms are claimed, not put".into()),
            RecordKind::Revocations => judge_revocations(&name, new, kept),
            RecordKind::WatchBundle | RecordKind::WatchLog | RecordKind::Share => {
                judge_part(&key.name, new, kept)
            }
        }
    }

    fn term(&self, key: &RecordKey, head: &[u8]) -> Option<HeadTerm> {
        let name = <[u8; 32]>::try_from(key.name.as_slice()).ok()?;
        let head = HeadValue::verify(head, &name).ok()?;
        Some(HeadTerm { term: head.record.term(), writer: head.writer().copied() })
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

/// What owner and watchers leave for each other, and the owner for who has a link: signed by whom the name says, and the higher number wins.
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
        Some(kept) if !new.supersedes(&kept) => RecordVerdict::NotHigher,
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
        let record = HeadRecord::sign(&sealed_cid(body), sequence, term, None, 1_000_000, signer).unwrap();
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
        newer[0] = 3;
        for bad in [&stranger[..], &swapped, &newer, &a[..a.len() - 1], &a[..2], b"", b"\x01\xff\xff"] {
            assert!(matches!(judge(bad, None), RecordVerdict::Invalid(_)));
        }
        let other = RecordKey::new(RecordKind::Head, vec![1; 31]);
        assert!(matches!(DriveRecords.judge(&other, &a, None), RecordVerdict::Invalid(_)));
    }

    /// A head of this term, by this writer, with grants of these of three anchors.
    fn granted(signer: &SigningKey, term: u64, sequence: u64, writer: u8, by: &[u8]) -> HeadValue {
        let standing = standing(signer, term, writer, by);
        let digest = Standing::digest(&standing.encode());
        let body = [writer, u8::try_from(sequence).unwrap()];
        let record =
            HeadRecord::sign(&sealed_cid(&body), sequence, term, Some(digest), 1_000_000, signer).unwrap();
        HeadValue::sign(record, &standing, &SigningKey::from_bytes(&[writer; 32]), body.to_vec()).unwrap()
    }

    fn standing(signer: &SigningKey, term: u64, writer: u8, by: &[u8]) -> Standing {
        let anchor = |n: u8| holdfast_net::identity::keypair([n; 32]).unwrap();
        let public = |key: &SigningKey| key.verifying_key().to_bytes();
        let claim = term::Claim::new(public(signer), term, public(&SigningKey::from_bytes(&[writer; 32])));
        let grants: Vec<_> = by.iter().map(|n| term::Grant::sign(&claim, &anchor(*n)).unwrap()).collect();
        let all = [1, 2, 3].map(|n| anchor(n).public().to_peer_id().to_bytes());
        let anchors = term::Anchors::new(all, []).unwrap();
        let certificate = term::Certificate::new(claim, anchors.clone(), &grants, false).unwrap();
        Standing { certificate, anchors }
    }

    #[test]
    fn a_term_is_its_holders() {
        let signer = SigningKey::from_bytes(&[7; 32]);
        let key = head_key(&signer.verifying_key().to_bytes());
        let judge = |new: &[u8], kept: &[u8]| DriveRecords.judge(&key, new, Some(kept));
        let bytes = |head: &HeadValue| head.encode().unwrap();
        let ours = granted(&signer, 5, 10, 21, &[1, 2]);
        let public = signer.verifying_key().to_bytes();
        assert_eq!(HeadValue::verify(&bytes(&ours), &public).unwrap(), ours);
        let writer = SigningKey::from_bytes(&[21; 32]).verifying_key().to_bytes();
        let of = DriveRecords.term(&key, &bytes(&ours));
        assert_eq!(of, Some(HeadTerm { term: 5, writer: Some(writer) }));

        // The holder of the same term by a lying anchor's second grant, whatever the sequence.
        let rival = granted(&signer, 5, 99, 22, &[2, 3]);
        assert_eq!(judge(&bytes(&rival), &bytes(&ours)), NotHigher);
        assert!(rival.rivals(&ours));
        let twice =
            ours.standing().unwrap().certificate.granted_twice(&rival.standing().unwrap().certificate);
        assert_eq!(twice.len(), 1);
        assert_eq!(judge(&bytes(&granted(&signer, 6, 3, 22, &[2, 3])), &bytes(&ours)), Higher);
        // Of a program that knows no terms.
        assert_eq!(judge(&head(&signer, b"old", 9, 99), &bytes(&ours)), NotHigher);
        assert_eq!(judge(&bytes(&ours), &head(&signer, b"old", 4, 99)), Higher);

        // Another's standing beside a record that does not name it; another writer's signature; bits.
        let theirs = standing(&signer, 5, 22, &[1, 2]);
        let record = ours.record().clone();
        let stolen =
            HeadValue::sign(record, &theirs, &SigningKey::from_bytes(&[22; 32]), ours.sealed.clone());
        assert!(stolen.is_err());
        let own = ours.standing().unwrap();
        let forged = SigningKey::from_bytes(&[22; 32]);
        assert!(HeadValue::sign(ours.record().clone(), own, &forged, ours.sealed.clone()).is_err());
        let whole = bytes(&ours);
        for at in 0..whole.len() {
            let mut changed = whole.clone();
            changed[at] ^= 1;
            assert!(HeadValue::verify(&changed, &public).is_err(), "byte {at}");
            assert!(HeadValue::verify(&whole[..at], &public).is_err(), "{at} bytes");
        }
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
