use proptest::prelude::*;

use super::*;
use crate::testing::{parameters, proven, small};

fn report() -> AuditReport {
    let (audit, proof) = proven();
    let key = parameters().verifying_key();
    AuditReport { shape: small(), set: *audit.set(), fresh: [7; 32], key, proof: proof.clone() }
}

#[test]
fn a_report_is_read_back_and_verifies() {
    let bytes = report().encode().unwrap();
    assert!(bytes.len() <= REPORT_BYTES_MAX);
    let verdict = AuditReport::decode(&bytes).unwrap().verify().unwrap();
    assert_eq!(verdict.audit(), &proven().0);
    let mut newer = bytes.clone();
    newer[1] = 2;
    assert!(matches!(AuditReport::decode(&newer), Err(ReportError::Newer(2))));
    let long = vec![0; REPORT_BYTES_MAX + 1];
    assert!(matches!(AuditReport::decode(&long), Err(ReportError::TooLong(_))));
}

/// The committed report still verifies: neither format nor circuit has changed. `HOLDFAST_BLESS=1` writes it anew.
#[test]
#[allow(clippy::disallowed_methods)]
fn the_committed_report_still_verifies() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../vectors/compressed.report");
    if std::env::var("HOLDFAST_BLESS").is_ok() {
        std::fs::write(path, report().encode().unwrap()).unwrap();
    }
    AuditReport::decode(&std::fs::read(path).unwrap()).unwrap().verify().unwrap();
}

/// One bit of each byte: no report, or one that does not verify.
#[test]
fn any_damage_is_refused() {
    let bytes = report().encode().unwrap();
    for at in 0..bytes.len() {
        let mut twin = bytes.clone();
        twin[at] ^= 1 << (at % 8);
        let accepted = AuditReport::decode(&twin).and_then(|report| report.verify());
        assert!(accepted.is_err(), "byte {at}");
        assert!(AuditReport::decode(&bytes[..at]).is_err());
    }
}

proptest! {
    #[test]
    fn decoding_is_total(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let _ = AuditReport::decode(&bytes);
        let mut framed = vec![0x86, 1, 0x43, 2, 0, 1, 0x58, 32];
        framed.extend(bytes);
        let _ = AuditReport::decode(&framed);
    }
}
