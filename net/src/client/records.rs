//! Records and terms: what is asked of a provider as one that keeps the way from the words to the drive.

use bytes::Bytes;

use super::link::unexpected;
use super::session::Session;
use crate::error::NetError;
use crate::record::{RECORD_BYTES_MAX, RecordKey};
use crate::term::{Claim, Grant, SignedClaim};
use crate::wire::message::{Reply, Request};

/// What became of a record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PutOutcome {
    /// It is the highest, and durable.
    Stored,
    /// This one is as high or higher, and stays. To be verified by the caller.
    Superseded(Bytes),
}

/// What an anchor said to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Said {
    /// Yes; its signature was verified.
    Granted(Grant),
    /// It granted that claim, of this term or a higher one; its signatures were verified.
    Taken(Claim),
    /// The head that it keeps is of that term, or a higher one, or so it says.
    Passed,
}

/// An anchor's answer to a claim.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClaimAnswer {
    /// Yes or no.
    pub said: Said,
    /// The head that it keeps, if it is another than the claimant has. To be verified by the caller.
    pub head: Option<Bytes>,
}

impl Session {
    /// Leaves a record with the provider.
    pub async fn put_record(&self, key: &RecordKey, value: &[u8]) -> Result<PutOutcome, NetError> {
        if value.len() > RECORD_BYTES_MAX {
            return Err(NetError::Invalid(format!("a record of {} bytes", value.len())));
        }
        match self.call(Request::Put { key: key.clone(), value: value.to_vec() }).await? {
            Reply::Put { kept: None } => Ok(PutOutcome::Stored),
            Reply::Put { kept: Some(kept) } => Ok(PutOutcome::Superseded(Bytes::from(kept.into_vec()))),
            _ => Err(unexpected("put")),
        }
    }

    /// The highest such record that the provider has. To be verified by the caller.
    pub async fn get_record(&self, key: &RecordKey) -> Result<Option<Bytes>, NetError> {
        match self.call(Request::Get { key: key.clone() }).await? {
            Reply::Record { value } => Ok(value.map(|v| Bytes::from(v.into_vec()))),
            _ => Err(unexpected("get")),
        }
    }

    /// Claims a term; `have` is the digest ([`record_digest`](crate::wire::message::record_digest)) of the head that is known here.
    /// Repeating it is harmless.
    pub async fn claim(&self, claim: &SignedClaim, have: Option<[u8; 32]>) -> Result<ClaimAnswer, NetError> {
        let head = have.map(serde_bytes::ByteArray::new);
        let request = Request::Claim { claim: claim.bytes().to_vec(), head };
        let Reply::Claimed { claim: taken, grant, head } = self.call(request).await? else {
            return Err(unexpected("claim"));
        };
        let said = match (grant, taken) {
            (Some(grant), _) => {
                Said::Granted(Grant::verify(&grant, claim.claim(), &self.peer_id().to_bytes())?)
            }
            (None, Some(taken)) => {
                let other = *SignedClaim::from_bytes(&taken)?.claim();
                if other.name != claim.claim().name || other.term < claim.claim().term {
                    return Err(NetError::Protocol("a claim that takes nothing".into()));
                }
                Said::Taken(other)
            }
            (None, None) => Said::Passed,
        };
        Ok(ClaimAnswer { said, head: head.map(|head| Bytes::from(head.into_vec())) })
    }
}
