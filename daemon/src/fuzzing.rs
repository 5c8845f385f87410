//! Every decoder of the program: the daemon's own, and those of the rooms below. The one list that `cargo fuzz` (tests/fuzz)
//! and the test of its seeds call; a violated promise panics.

use std::path::Path;

use holdfast_compressed::{AuditReport, OpeningFile, SetPath};
use holdfast_net::record::{RECORD_BYTES_MAX, RecordRules as _};
use holdfast_proofs::{
    CommpHasher, PieceCid, PossessionProof,
    file::ProofFile,
    sealing::{Order, SealingStatus},
};

use crate::cli::args::parse_size;
use crate::control::{ProviderStatusReport, Request, Response, StatusReport};
use crate::doctor::DriveFacts;
use crate::drive::head::Published;
use crate::drive::ledger;
use crate::gateway::index;
use crate::gateway::request::{self, Form, Scope};
use crate::home::{Config, ProviderAddr, passphrase};
use crate::link::Link;
use crate::process::ProcessRecord;
use crate::records::{DriveRecords, HeadValue, head_key, keyring_key};
use crate::share::link::PrivateLink;
use crate::watch::bundle::Bundle;

/// A decoder: its name, and what takes any bytes.
pub type Decoder = (&'static str, fn(&[u8]));

const OWN: &[Decoder] = &[
    ("daemon-config", config),
    ("daemon-provider-config", |bytes| drop(crate::provide::parse_config(bytes, Path::new("config")))),
    ("daemon-known-peers", |bytes| drop(crate::provide::parse_known_peers(bytes))),
    ("daemon-pid", |bytes| drop(ProcessRecord::parse(text(bytes)))),
    ("daemon-request", |bytes| drop(serde_json::from_slice::<Request>(bytes))),
    ("daemon-response", |bytes| drop(serde_json::from_slice::<Response>(bytes))),
    ("daemon-provider-status", provider_status),
    ("daemon-metrics-request", |bytes| crate::metrics::judge_any(bytes)),
    ("daemon-status", |bytes| drop(serde_json::from_slice::<StatusReport>(bytes))),
    ("daemon-doctor", |bytes| drop(serde_json::from_slice::<DriveFacts>(bytes))),
    ("daemon-ledger-piece", |bytes| drop(ledger::decode_piece(b"row", bytes))),
    ("daemon-ledger-provider", |bytes| drop(ledger::decode_provider(b"row", bytes))),
    ("daemon-ledger-release", |bytes| drop(ledger::decode_release(b"row", bytes))),
    ("daemon-ledger-watch", |bytes| drop(ledger::decode_grant(b"row", bytes))),
    ("daemon-watch-capability", watch_capability),
    ("daemon-watch-bundle", watch_bundle),
    ("daemon-watch-log", crate::watch::log::decode_any),
    ("daemon-watch-state", |bytes| drop(crate::watch::state::State::decode(bytes))),
    ("daemon-ledger-share", |bytes| drop(ledger::decode_share(b"row", bytes))),
    ("daemon-share-object", crate::share::object::decode_any),
    ("daemon-private-link", private_link),
    ("daemon-published", |bytes| drop(serde_ipld_dagcbor::from_slice::<Published>(bytes))),
    ("daemon-head-value", head_value),
    ("daemon-secrets", secrets),
    ("daemon-address", address),
    ("daemon-link", link),
    ("daemon-gateway-url", gateway_url),
    ("daemon-public-index", public_index),
    ("daemon-size", |bytes| drop(parse_size(text(bytes)))),
    ("proofs-possession", possession),
    ("proofs-piece-cid", piece_cid),
    ("proofs-file", proof_file),
    ("proofs-sealing-order", |bytes| drop(serde_json::from_slice::<Order>(bytes))),
    ("proofs-sealing-status", sealing_status),
    ("proofs-compressed-report", compressed_report),
    ("proofs-compressed-openings", openings),
    ("proofs-compressed-set-path", set_path),
    ("proofs-checkpoint", |bytes| drop(CommpHasher::resume(bytes))),
];

/// Every decoder there is.
pub fn decoders() -> Vec<Decoder> {
    let rooms = [
        holdfast_store::fuzzing::DECODERS,
        holdfast_content::fuzzing::DECODERS,
        holdfast_fs::fuzzing::DECODERS,
        holdfast_net::fuzzing::DECODERS,
        OWN,
    ];
    rooms.concat()
}

fn text(bytes: &[u8]) -> &str {
    std::str::from_utf8(bytes).unwrap_or_default()
}

fn config(bytes: &[u8]) {
    let path = Path::new("config");
    if let Ok(config) = Config::parse(bytes, path) {
        let again = serde_json::to_vec(&config).ok().and_then(|bytes| Config::parse(&bytes, path).ok());
        assert_eq!(again, Some(config), "another configuration comes back");
    }
}

/// What anybody may hand to a provider as a record, and to a drive as a head.
fn head_value(bytes: &[u8]) {
    let name = [1; 32];
    if bytes.len() <= RECORD_BYTES_MAX {
        let _ = HeadValue::verify(bytes, &name);
        let _ = DriveRecords.judge(&head_key(&name), bytes, None);
        let drive = holdfast_content::keys::DriveName::from_bytes(name);
        let _ = DriveRecords.judge(&keyring_key(&drive), bytes, None);
    }
}

fn watch_capability(bytes: &[u8]) {
    use crate::watch::capability::Capability;
    let _ = (Capability::read(bytes), Capability::decode(bytes));
}

/// As if it were the only part.
fn watch_bundle(bytes: &[u8]) {
    if let Ok(bundle) = Bundle::join(1, &std::collections::BTreeMap::from([(0, bytes.to_vec())])) {
        for piece in &bundle.pieces {
            assert!(piece.shards.is_empty() || piece.shape().is_some(), "a stripe without a shape");
        }
    }
}

fn secrets(bytes: &[u8]) {
    let _ = (passphrase::passphrase_in(text(bytes)), passphrase::words_in(text(bytes)));
}

fn address(bytes: &[u8]) {
    if let Ok(address) = text(bytes).parse::<ProviderAddr>() {
        assert!(address.parts().is_ok(), "an address that was parsed has no parts");
        for full in address.full_addrs() {
            assert!(full.parse::<ProviderAddr>().is_ok(), "an address does not come back");
        }
    }
}

fn link(bytes: &[u8]) {
    if let Ok(link) = text(bytes).parse::<Link>() {
        assert_eq!(link.to_string().parse::<Link>().as_ref(), Ok(&link), "another link comes back");
    }
}

fn private_link(bytes: &[u8]) {
    if let Ok(link) = text(bytes).parse::<PrivateLink>() {
        assert_eq!(link.to_string().parse::<PrivateLink>().as_ref(), Ok(&link), "another link comes back");
    }
}

/// The URL in the first line, an Accept header in the second, a range in the third.
fn gateway_url(bytes: &[u8]) {
    let mut lines = text(bytes).lines();
    let (url, accept) = (lines.next().unwrap_or_default(), lines.next().unwrap_or_default());
    if let Ok(question) = request::parse(url, &[accept]) {
        let sound = |name: &String| holdfast_content::plain::add::check_name(name).is_ok();
        assert!(question.path.iter().all(sound), "a name that leads elsewhere");
        if let Form::Car(Scope::Entity(Some(span))) = question.form {
            let range = span.range(1000);
            assert!(range.start <= range.end && range.end <= 1000);
        }
    }
    if let Some(Some(range)) = request::byte_range(lines.next().unwrap_or_default(), 1000) {
        assert!(range.start < range.end && range.end <= 1000);
    }
}

fn public_index(bytes: &[u8]) {
    if let Some(entries) = index::decode(bytes) {
        assert_eq!(index::encode(&entries), bytes, "two encodings of one index");
    }
}

fn possession(bytes: &[u8]) {
    if let Ok(proof) = PossessionProof::decode(bytes) {
        assert!(proof.encode().is_ok_and(|again| again == bytes), "two encodings of one proof");
    }
}

fn piece_cid(bytes: &[u8]) {
    if let Ok(cid) = PieceCid::from_bytes(bytes) {
        assert_eq!(cid.to_bytes(), bytes, "two encodings of one piece CID");
        let _ = (cid.padding(), cid.leaf_count(), cid.padded_len());
    }
}

fn proof_file(bytes: &[u8]) {
    match ProofFile::decode(bytes) {
        Ok(ProofFile::Possession(file)) => {
            assert!(file.encode().is_ok_and(|again| again == bytes), "two encodings of one proof file");
            let _ = file.verify();
        }
        Ok(ProofFile::Set(file)) => {
            assert!(file.encode().is_ok_and(|again| again == bytes), "two encodings of one set's proof file");
            let _ = file.verify();
        }
        Ok(ProofFile::Sealed(_)) | Err(_) => {}
    }
}

fn provider_status(bytes: &[u8]) {
    if let Ok(mut report) = serde_json::from_slice::<ProviderStatusReport>(bytes) {
        report.judge();
        let _ = (report.render(), crate::metrics::provider_page(&report));
    }
}

fn sealing_status(bytes: &[u8]) {
    if let Ok(status) = serde_json::from_slice::<SealingStatus>(bytes) {
        let _ = status.to_string();
    }
}

fn compressed_report(bytes: &[u8]) {
    if let Ok(report) = AuditReport::decode(bytes) {
        assert!(report.encode().is_ok_and(|again| again == bytes), "two encodings of one report");
    }
}

fn openings(bytes: &[u8]) {
    let found = OpeningFile::decode(bytes);
    assert!(found.is_err() || OpeningFile::is_one(bytes), "openings that do not begin as such");
    if let Ok(file) = found {
        assert!(file.encode().is_ok_and(|again| again == bytes), "two encodings of the same openings");
        let _ = file.verify();
    }
}

fn set_path(bytes: &[u8]) {
    if let Ok(path) = SetPath::decode(bytes) {
        assert!(path.encode().is_ok_and(|again| again == bytes), "two encodings of one way in a set");
    }
}

#[cfg(test)]
mod tests;
