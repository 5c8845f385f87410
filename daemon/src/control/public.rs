//! Requests and reports about what is published. Stable as those of `report.rs`; documented in daemon/CLI.md.

use std::fmt::Write as _;

use cid::Cid;
use serde::{Deserialize, Serialize};

use super::render::{count, size};

/// Requests about public data.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "do", rename_all = "snake_case", deny_unknown_fields)]
pub enum PublicRequest {
    /// Makes public what lies in a batch of the home's `public` folder. Answer: `PublicationReport`.
    Publish {
        /// The name that the client drew, 32 hexadecimal digits.
        batch: String,
        #[serde(with = "text")]
        root: Cid,
        /// The path, as it was given.
        name: String,
        profile: String,
        /// Bytes of its files.
        size: u64,
    },
    /// By CID or path. Answer: `PublicationReport`, as it was.
    Unpublish { which: String },
    /// Answer: `PublicationsReport`.
    List {},
}

/// CIDs as people write them.
mod text {
    use cid::Cid;
    use serde::{Deserialize, Deserializer, Serializer, de::Error};

    pub fn serialize<S: Serializer>(cid: &Cid, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(cid)
    }

    pub fn deserialize<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Cid, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// One publication: `holdfast publish --json`, `holdfast unpublish --json`, and each of `holdfast published --json`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationReport {
    pub root: String,
    /// As it was given when it was published.
    pub path: String,
    pub profile: String,
    /// Of its files.
    pub bytes: u64,
    /// Of its pieces: what each copy takes at a provider.
    pub stored_bytes: u64,
    pub at: u64,
    pub pieces: u64,
    /// No piece is missing: its publishing was not cut short.
    pub complete: bool,
    /// Providers that keep it whole, named by the published head and proven.
    pub copies: u64,
    pub copies_wanted: u64,
    /// Enough providers keep the head that names it.
    pub head_published: bool,
    /// What leads to it from anywhere: `holdfast get LINK --out PATH`.
    pub link: String,
}

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PublicationsReport {
    /// Oldest first.
    pub publications: Vec<PublicationReport>,
}

impl PublicationReport {
    /// Enough providers have it.
    pub fn is_placed(&self) -> bool {
        self.complete && self.head_published && self.copies >= self.copies_wanted
    }

    pub fn render(&self) -> String {
        let (bytes, pieces) = (size(self.bytes), count(self.pieces, "piece"));
        let state = match (self.complete, self.is_placed()) {
            (false, _) => "NOT WHOLE: publishing was cut short; unpublish it and publish it again".to_owned(),
            (true, true) => format!("with {} providers", self.copies),
            (true, false) => format!("with {} of {} providers so far", self.copies, self.copies_wanted),
        };
        format!("{}  {bytes} in {pieces}, {state}\n  {}\n  {}\n", self.root, self.path, self.link)
    }
}

impl PublicationsReport {
    pub fn render(&self) -> String {
        let mut out = String::new();
        for publication in &self.publications {
            let _ = write!(out, "{}", publication.render());
        }
        if self.publications.is_empty() {
            out.push_str("Nothing is published.\n");
        }
        out
    }
}
