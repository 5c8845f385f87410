#![allow(clippy::unwrap_used)]

use super::*;
use crate::control::{ControlError, ErrorKind, KeepRequest, ProgressLine, PublicRequest, RuleChange};
use crate::doctor::facts::{DealFacts, ProviderFacts, Said};
use crate::drive::ledger::{PieceRow, ProviderRow, Release, StripePiece, StripeRow};
use holdfast_compressed::{Shape, SlotEntry, SlotSet, SlotTree, SlotTreeBuilder, StoredLevel, open_binding};
use holdfast_content::publication::PublicPiece;
use holdfast_proofs::{Challenge, TreeCache, TreeLevel};
use std::collections::BTreeSet;

const SEEDS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../tests/fuzz/seeds");

/// The first seeds of each decoder are valid values: they must still be among the committed ones, and still be accepted as
/// what they are. `HOLDFAST_BLESS=1` adds what is missing.
fn seed(name: &str, bytes: &[u8]) {
    let path = format!("{}/../tests/fuzz/seeds/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let line: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    let mut seeds = std::fs::read_to_string(&path).unwrap_or_default();
    if !seeds.lines().any(|seed| seed == line) && std::env::var_os("HOLDFAST_BLESS").is_some() {
        seeds.push_str(&format!("{line}\n"));
        std::fs::write(&path, &seeds).unwrap();
    }
    assert!(seeds.lines().any(|seed| seed == line), "{path} lacks a valid value: its format has changed");
    let decoder = OWN.iter().find(|(known, _)| *known == name).unwrap().1;
    decoder(bytes);
}

const SEALING_STATUS: &str = r#"{"schema":1,"now":100,"pid":1,"profile":"test-2k","strength":"test strength","budget":{"cores":2,"memory_bytes":9},"used":{"cores":0,"memory_bytes":0},"accepts":true,"reasons":[],"piece_bytes_max":2032,"pieces":{"waiting":1,"in_sectors":0,"too_large":0},"sectors":[{"number":9,"phase":"cleared","pieces":3,"until":7,"proven_at":80}],"sectors_total":1,"sectors_faulty":0,"windows":{"period_seconds":60,"deadline_seconds":30,"proven":1,"missed":0},"tasks":[],"events":[{"at":95,"warning":true,"text":"x"}]}"#;

/// Openings of a slot, and the way to the second slot of a set of two.
fn compressed() -> (Vec<u8>, Vec<u8>) {
    let slot = |byte: u8| {
        let payload: Vec<u8> = (0..700).map(|i| (i % 251) as u8 ^ byte).collect();
        let mut hasher = CommpHasher::with_cache(TreeLevel::MIN);
        hasher.update(&payload);
        let mut cache = hasher.drain_cache();
        let (piece, rest) = hasher.finish_with_cache();
        cache.extend(rest);
        let mut builder = SlotTreeBuilder::new(StoredLevel::DEFAULT);
        builder.update(&payload, 1);
        let mut tree = builder.drain();
        let (commitment, rest) = builder.finish(&piece).unwrap();
        tree.extend(rest);
        (payload, cache, tree, commitment)
    };
    let (payload, cache, tree, commitment) = slot(0);
    let challenge = Challenge::new([7; 32], 3).unwrap();
    let cache = TreeCache::open(cache.as_slice(), commitment.piece()).unwrap();
    let tree = SlotTree::open(tree.as_slice(), &commitment).unwrap();
    let binding = open_binding(&payload, &cache, &tree, &challenge).unwrap();
    let file = OpeningFile { slot: commitment, challenge, binding };
    let entries = [commitment, slot(1).3].iter().map(SlotEntry::from).collect();
    let set = SlotSet::new(Shape::new(2, 1).unwrap(), entries).unwrap();
    (file.encode().unwrap(), set.path(1).unwrap().encode().unwrap())
}

fn cbor<T: serde::Serialize>(value: &T) -> Vec<u8> {
    serde_ipld_dagcbor::to_vec(value).unwrap()
}

fn watches() {
    use crate::watch::{bundle, capability, log, state};
    let file = capability::tests::sample();
    seed("daemon-watch-capability", &file);
    seed("daemon-watch-capability", &cbor(&capability::Capability::read(&file).unwrap()));
    seed("daemon-watch-bundle", &bundle::tests::sample(2).parts().unwrap().0[0]);
    let log = log::tests::sample(2).0;
    let intent = log::SlotName { piece: [4; 16], slot: 1 };
    seed("daemon-watch-log", &log.head(vec![intent], Vec::new()).unwrap());
    seed("daemon-watch-log", &log.parts(0).unwrap()[0].1);
    seed("daemon-watch-state", &state::tests::sample().encode().unwrap());
}

fn shares() {
    use crate::share::{link, object};
    let note =
        holdfast_content::share::ShareNote::new("/a/b", 1_800_000_000, 1_900_000_000, 3, 9, 2).unwrap();
    seed("daemon-ledger-share", &cbor(&crate::drive::ledger::ShareRow::new(note.encode().unwrap())));
    seed("daemon-share-object", &object::tests::sample(b"index").parts().unwrap()[0]);
    seed("daemon-share-object", &object::ended().unwrap());
    seed("daemon-private-link", link::tests::sample().to_string().as_bytes());
}

#[test]
fn valid_values_are_seeds() {
    let peer = "12D3KooWGzJ3FZnGPJGLjjZ7Xc9oRkQhRhNq5xnYVvaAPkjCBxUM";
    let provider = format!("/ip4/192.0.2.7/tcp/4001/p2p/{peer}");
    seed("daemon-address", provider.as_bytes());
    let mut config = Config::new("k51drive".into());
    config.mountpoint = Some("/home/a/Holdfast".into());
    config.providers.extend(provider.parse::<ProviderAddr>());
    seed("daemon-config", &serde_json::to_vec(&config).unwrap());
    seed("daemon-provider-config", br#"{"version":1,"capacity_bytes":9,"listen":["/ip4/0.0.0.0/tcp/4001"]}"#);
    seed(
        "daemon-provider-config",
        br#"{"version":1,"capacity_bytes":9,"listen":["/ip4/0.0.0.0/tcp/1"],"metrics":"127.0.0.1:9464","tree_permille":3,"scrub_days":7}"#,
    );
    let known = vec![provider.parse::<ProviderAddr>().unwrap()];
    seed("daemon-known-peers", &serde_json::to_vec(&known).unwrap());
    let finding = format!(
        r#"{{"version":1,"capacity_bytes":9,"listen":["/ip4/0.0.0.0/udp/4001/quic-v1"],"bootstrap":{},"no_mdns":true}}"#,
        serde_json::to_string(&known).unwrap()
    );
    seed("daemon-provider-config", finding.as_bytes());
    seed("daemon-pid", b"4711 12345 5b2ff7b2-4d3c-4a7e-9d4c-1f1f1f1f1f1f\n");
    let requests = [
        Request::Status {},
        Request::Sync { wait: true, timeout_seconds: Some(9) },
        Request::Unmount { lazy: false },
        Request::Verify { deep: true, remote: true },
        Request::Doctor {},
        Request::Keep {
            what: KeepRequest::Prune { rule: RuleChange { weekly: Some(4), ..RuleChange::default() } },
        },
        Request::ProviderRemove { peer_id: peer.into() },
        Request::Public { what: PublicRequest::List {} },
        Request::Share { what: crate::control::ShareRequest::End { which: "/a".into() } },
        Request::Watch { what: crate::control::WatchRequest::Revoke { which: "attic".into() } },
        Request::Public {
            what: PublicRequest::Publish {
                batch: "07".repeat(16),
                root: "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap(),
                name: "/a".into(),
                profile: "unixfs-v0-2015".into(),
                size: 7,
            },
        },
    ];
    for request in requests {
        seed("daemon-request", &serde_json::to_vec(&request).unwrap());
    }
    let responses = [
        Response::Progress(ProgressLine { phase: "placing".into(), done: 1, total: 2, ..Default::default() }),
        Response::Ok(serde_json::json!({"synced": true})),
        Response::Error(ControlError::new(ErrorKind::Busy, "open files")),
    ];
    for response in responses {
        seed("daemon-response", &serde_json::to_vec(&response).unwrap());
    }
    let stands = crate::control::provider_sample();
    seed("daemon-provider-status", &serde_json::to_vec(&stands).unwrap());
    seed("daemon-metrics-request", b"GET /metrics HTTP/1.1\r\nHost: localhost:9464\r\n\r\n");
    let status = crate::control::render::tests::sample();
    seed("daemon-status", &serde_json::to_vec(&status).unwrap());
    let facts = DriveFacts {
        status,
        corruption: None,
        open_files: Some((9, 99)),
        writers_wait: false,
        quota: None,
        deals: DealFacts::default(),
        providers: vec![ProviderFacts {
            peer_id: peer.into(),
            said: Some(Said { ahead_seconds: -2, free: 7, accepting: Some(true) }),
            silence: None,
            domain: 1,
            barred_until: None,
            reason: None,
            bytes: 5,
        }],
    };
    seed("daemon-doctor", &serde_json::to_vec(&facts).unwrap());
    seed("daemon-ledger-piece", &cbor(&PieceRow::new(1 << 20, 3)));
    let pieces = [1, 2, 3].map(|n| StripePiece { id: [n; 16], len: 1000 * u64::from(n) }).to_vec();
    let note = holdfast_content::watch::GrantNote::new(holdfast_content::watch::GrantTerms {
        label: "attic".into(),
        at: 1_800_000_000,
        until: 1_900_000_000,
        bytes: 1 << 40,
        daily: 1 << 36,
        silent_seconds: 1800,
        newcomers: false,
        apart: vec![vec![7; 38]],
    })
    .unwrap();
    seed("daemon-ledger-watch", &cbor(&crate::drive::ledger::GrantRow::new(note.encode().unwrap())));
    watches();
    shares();
    let stripe = PieceRow::striped(StripeRow { parity: 2, pieces, entry: 9 }, vec![vec![1; 40]; 5]).unwrap();
    seed("daemon-ledger-piece", &cbor(&stripe));
    let root: cid::Cid = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH".parse().unwrap();
    let public =
        PublicPiece::new(root, "/a".into(), "unixfs-v0-2015".into(), 7, 1_800_000_000, (0, 1)).unwrap();
    seed("daemon-ledger-piece", &cbor(&PieceRow::public(1 << 20, 3, public.encode().unwrap())));
    seed("daemon-ledger-provider", &cbor(&ProviderRow::new(1_800_000_000)));
    let release =
        Release { v: 1, provider: vec![2; 38], deal: vec![3; 32], entry: 9, ends_at: 1_800_000_000 };
    seed("daemon-ledger-release", &cbor(&release));
    seed("daemon-published", &cbor(&Published::default()));
    seed("daemon-head-value", &[1, 0, 2, 8, 8, 9]);
    seed("daemon-head-value", &[2, 0, 2, 8, 8, 0, 1, 7]);
    seed("daemon-secrets", b"# comment\nwords: one two\npassphrase: a b\n");
    seed("daemon-size", b"2TiB");
    seed("daemon-link", format!("holdfast://pub/{root}/a%20b?at={provider}").as_bytes());
    seed("daemon-link", format!("ipfs://{root}").as_bytes());
    let url = format!("/ipfs/{root}/a%20b?format=car&dag-scope=entity&entity-bytes=-5:*");
    seed("daemon-gateway-url", format!("{url}\napplication/vnd.ipld.car;version=1\nbytes=1-2").as_bytes());
    seed("daemon-gateway-url", format!("/ipfs/{root}\napplication/vnd.ipld.raw\nbytes=-2").as_bytes());
    let entry = crate::gateway::index::Entry { digest: [5; 32], offset: 99, len: 7 };
    seed("daemon-public-index", &crate::gateway::index::encode(&[entry]));
    let piece = PieceCid::new(1000, [3; 32]).unwrap();
    seed("proofs-piece-cid", &piece.to_bytes());
    let vectors = concat!(env!("CARGO_MANIFEST_DIR"), "/../proofs/vectors");
    for name in ["possession.proof", "possession-set.proof"] {
        seed("proofs-file", &std::fs::read(format!("{vectors}/{name}")).unwrap());
    }
    seed("proofs-compressed-report", &std::fs::read(format!("{vectors}/compressed.report")).unwrap());
    let (openings, path) = compressed();
    seed("proofs-compressed-openings", &openings);
    seed("proofs-compressed-set-path", &path);
    seed("proofs-sealing-order", br#"{"ended":{"deal":"d1"}}"#);
    seed("proofs-sealing-status", SEALING_STATUS.as_bytes());
    let mut hasher = CommpHasher::new();
    hasher.update(&[9; 1000]);
    seed("proofs-checkpoint", &hasher.checkpoint().state);
    seed(
        "proofs-possession",
        &cbor(&(1u8, serde_bytes::Bytes::new(&[1; 64]), serde_bytes::Bytes::new(&[2; 32]))),
    );
}

/// The committed seeds: valid values, and what fuzzing found worth keeping. Each is decoded, cut short at every length
/// that is quick, and with a bit turned at each place.
#[test]
fn every_decoder_stands_its_seeds() {
    let mut found = BTreeSet::new();
    for (name, decoder) in decoders() {
        assert!(found.insert(format!("{name}.hex")), "two decoders are called {name}");
        let seeds = std::fs::read_to_string(format!("{SEEDS}/{name}.hex")).unwrap_or_default();
        assert!(!seeds.trim().is_empty(), "no seeds for {name}");
        for line in seeds.lines() {
            let bytes = data_encoding::HEXLOWER.decode(line.as_bytes()).unwrap();
            decoder(&bytes);
            for cut in 0..bytes.len().min(300) {
                decoder(&bytes[..cut]);
            }
            for at in 0..bytes.len().min(300) {
                let mut changed = bytes.clone();
                changed[at] ^= 1 << (at % 8);
                decoder(&changed);
            }
        }
    }
    let files: BTreeSet<String> = std::fs::read_dir(SEEDS)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    assert_eq!(files, found, "seeds without a decoder, or the other way round");
}
