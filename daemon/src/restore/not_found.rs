//! What is said when nobody shows a drive's keyring or head that can be used: that it is newer, damaged, or not there are three
//! different things for whoever wants their data back.

use holdfast_content::dagcbor::FormatError;
use holdfast_content::head::RecordError;

use super::Answer;
use crate::records::HeadValueError;

/// Why what the providers showed leads to no drive.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum NotFound {
    /// It is there, and this program cannot read it.
    #[error(
        "the providers keep a {what} of version {version}, which is newer than this program; update Holdfast"
    )]
    Newer { what: &'static str, version: u64 },
    /// Something is there under its name, and nobody shows a good one.
    #[error(
        "what the providers show as the drive's {what} is damaged, or was forged ({why}); none of those that answered shows a good one"
    )]
    Damaged { what: &'static str, why: String },
    /// Nobody keeps anything under its name.
    #[error(
        "the {answered} peers that answered know no drive of these words ({drive}), nor anybody who does: either the words are \
         another drive's, or none of these peers keeps this drive or knows who does"
    )]
    Unknown { drive: String, answered: u32 },
    /// The drive's keyring is there, and no head.
    #[error("the drive is known there, but nothing was ever placed from it")]
    NothingPlaced,
}

/// Why one answer is not what was asked for.
pub(super) enum Refusal {
    Newer(u64),
    Bad(String),
}

impl From<FormatError> for Refusal {
    fn from(error: FormatError) -> Self {
        match error {
            FormatError::Newer { found, .. } => Refusal::Newer(found),
            other => Refusal::Bad(other.to_string()),
        }
    }
}

impl From<HeadValueError> for Refusal {
    fn from(error: HeadValueError) -> Self {
        match error {
            HeadValueError::Newer(version) => Refusal::Newer(version.into()),
            HeadValueError::Record(RecordError::Newer(version)) => Refusal::Newer(version),
            other => Refusal::Bad(other.to_string()),
        }
    }
}

/// What is wrong with the answers that `judge` refuses, if it refuses any: before everything else that they are newer.
pub(super) fn refusal(
    what: &'static str,
    answers: &[Answer],
    judge: impl Fn(&[u8]) -> Result<(), Refusal>,
) -> Option<NotFound> {
    let all: Vec<Refusal> =
        answers.iter().flatten().flatten().filter_map(|bytes| judge(bytes).err()).collect();
    let newer = all.iter().filter_map(|refusal| match refusal {
        Refusal::Newer(version) => Some(*version),
        Refusal::Bad(_) => None,
    });
    if let Some(version) = newer.max() {
        return Some(NotFound::Newer { what, version });
    }
    all.into_iter().find_map(|refusal| match refusal {
        Refusal::Bad(why) => Some(NotFound::Damaged { what, why }),
        Refusal::Newer(_) => None,
    })
}
