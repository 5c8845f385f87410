//! Heads by real providers in this process: honest ones, late ones, and some that make them up.

use holdfast_content::head::{HeadRecord, ProviderAddresses};
use holdfast_net::SigningKey;
use holdfast_net::client::PutOutcome;

use super::keeper::Keeper;
use super::*;

const UNTIL: u64 = 4_000_000_000;

fn root() -> RootKey {
    Mnemonic::from_entropy([1; 32]).root_key()
}

/// What the owner said of every provider.
fn tags() -> Tags {
    Tags { operator: Some("acme".to_owned()), ..Tags::default() }
}

/// A head that names these providers, signed by `signer`.
fn head(sequence: u64, named: &[&Keeper], signer: &SigningKey) -> Vec<u8> {
    let mut body = Chain::new().head(0);
    body.sequence = sequence;
    body.providers = named
        .iter()
        .map(|k| {
            let address = k.address();
            let peer = ByteBuf::from(k.node.peer_id().to_bytes());
            ProviderAddresses { peer, addresses: address.addrs, tags: tags().to_map() }
        })
        .collect();
    let sealed = body.seal(&keys()).unwrap();
    let record = HeadRecord::sign(sealed.cid(), sequence, 1, None, UNTIL, signer).unwrap();
    HeadValue::new(record, sealed.bytes().to_vec()).unwrap().encode().unwrap()
}

fn true_head(sequence: u64, named: &[&Keeper]) -> Vec<u8> {
    head(sequence, named, keys().head_signing())
}

fn head_name() -> RecordKey {
    head_key(&keys().head_signing().verifying_key().to_bytes())
}

async fn newest_by(asked: &[&Keeper]) -> anyhow::Result<Newest> {
    let client = searcher(&Env::system(), Finder::new(Env::system(), Vec::new(), false)).await?;
    let asked: Vec<ProviderAddr> = asked.iter().map(|k| k.address()).collect();
    newest(&client, &keys(), &asked).await
}

#[test]
fn so_many_have_to_show_a_head() {
    // Providers that the head names, losses that the drive survives, heads that it takes.
    for (named, survive, expected) in [
        (0, 2, 1),
        (1, 2, 1),
        (3, 2, 1),
        (3, 1, 2),
        (3, 0, 2),
        (5, 2, 3),
        (10, 2, 6),
        (10, 5, 5),
        (100, 2, 51),
    ] {
        assert_eq!(needed(named, survive), expected, "{named} named, {survive} losses");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_newest_head_wins_over_late_and_forged_ones() {
    let late = Keeper::start(true, &[]).await;
    let honest = Keeper::start(true, &[]).await;
    let [forger, replayer, noise] =
        [Keeper::start(false, &[]).await, Keeper::start(false, &[]).await, Keeper::start(false, &[]).await];
    let named = [&late, &honest, &forger, &replayer, &noise];
    let (older, newer) = (true_head(5, &named), true_head(6, &named));
    late.keep(&head_name(), &older).await;
    honest.keep(&head_name(), &older).await;
    honest.keep(&head_name(), &newer).await;
    // By another key, and one that was true once with a body of now.
    forger.keep(&head_name(), &head(9, &named, &SigningKey::from_bytes(&[5; 32]))).await;
    replayer.keep(&head_name(), &older).await;
    noise.keep(&head_name(), &[7; 900]).await;

    let found = newest_by(&[&forger, &late]).await.unwrap();
    assert_eq!((found.body.sequence, &found.value), (6, &newer));
    assert_eq!(found.deciding, [Deciding { named: 5, shown: 3 }]);
    assert_eq!(found.refused, 2);
    found.check(2).unwrap();
    // An honest provider does not go back.
    let error = {
        let client = searcher(&Env::system(), Finder::new(Env::system(), Vec::new(), false)).await.unwrap();
        let (peer, addrs) = honest.address().parts().unwrap();
        let session = client.connect(peer, addrs).await.unwrap();
        session.authenticate(SigningKey::from_bytes(&[4; 32])).await.unwrap();
        session.put_record(&head_name(), &older).await.unwrap()
    };
    assert!(matches!(error, PutOutcome::Superseded(kept) if kept == newer));
    for keeper in [late, honest, forger, replayer, noise] {
        keeper.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_head_that_cannot_be_read_is_not_taken_for_none() {
    let empty = Keeper::start(true, &[]).await;
    let late = Keeper::start(true, &[]).await;
    let [newer, noise] = [Keeper::start(false, &[]).await, Keeper::start(false, &[]).await];
    let mut of_tomorrow = true_head(7, &[&late, &newer, &noise]);
    of_tomorrow[0] = 3;
    newer.keep(&head_name(), &of_tomorrow).await;
    noise.keep(&head_name(), &[1, 0, 3, 7, 7]).await;
    let why = |found: anyhow::Result<Newest>| found.err().unwrap().downcast::<NotFound>().unwrap();
    assert_eq!(why(newest_by(&[&empty]).await), NotFound::NothingPlaced);
    assert!(matches!(why(newest_by(&[&empty, &noise]).await), NotFound::Damaged { what: "head", .. }));
    let tomorrow = NotFound::Newer { what: "head", version: 3 };
    assert_eq!(why(newest_by(&[&noise, &newer]).await), tomorrow);
    // What can be read is an older state; whether it is enough is still counted.
    late.keep(&head_name(), &true_head(6, &[&late, &newer, &noise])).await;
    let found = newest_by(&[&late, &newer]).await.unwrap();
    assert_eq!((found.body.sequence, found.refused), (6, 2));
    found.enough(2).unwrap();
    assert_eq!(found.enough(0).unwrap_err().downcast::<NotFound>().unwrap(), tomorrow);
    for keeper in [empty, late, newer, noise] {
        keeper.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_minority_cannot_pass_an_older_state_off_as_the_newest() {
    let mut keepers = Vec::new();
    for _ in 0..5 {
        keepers.push(Keeper::start(true, &[]).await);
    }
    let named: Vec<&Keeper> = keepers.iter().collect();
    let (older, newer) = (true_head(5, &named), true_head(6, &named));
    for (n, keeper) in keepers.iter().enumerate() {
        keeper.keep(&head_name(), if n < 2 { &older } else { &newer }).await;
    }
    // Those with the newer head are out of reach.
    let gone = keepers.split_off(2);
    for keeper in gone {
        keeper.stop().await;
    }
    let asked: Vec<&Keeper> = keepers.iter().collect();
    let found = newest_by(&asked).await.unwrap();
    assert_eq!(found.body.sequence, 5, "nobody shows the newer one");
    assert_eq!(found.check(2).unwrap_err(), TooFew { shown: 2, named: 5, needed: 3 });
    assert_eq!(found.check(3), Ok(()), "what survives three losses is whole with two");
    for keeper in keepers {
        keeper.stop().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_words_and_any_one_peer_of_the_dht_lead_to_the_drive() {
    // The first one keeps nothing of the drive.
    let door = Keeper::start(true, &[]).await;
    let keeper = Keeper::start(true, &[&door]).await;
    let root = root();
    let keyring = Keyring::first(&root, 1).sign(&root).unwrap();
    let name = keyring_key(&root.drive_name());
    keeper.keep(&name, &keyring).await;
    keeper.keep(&head_name(), &true_head(1, &[&keeper])).await;
    // Only records of clients with a deal are announced; this test is about finding what was.
    let announced = vec![DhtKey::of_record(&name)];
    let peers = [door.address()];
    let search = Search { peers: &peers, mdns: false, minority: false };
    let mut last = None;
    for _ in 0..100 {
        keeper.node.announce(announced.clone()).await.unwrap();
        match find(&root, search, ProgressSink::none()).await {
            Ok(found) => {
                assert_eq!(found.peers, [keeper.address()]);
                let tagged = ProviderAddr { tags: Some(tags()), ..keeper.address() };
                assert_eq!(found.providers, [tagged]);
                assert_eq!(found.recovered.keyring, keyring);
                last = None;
                break;
            }
            Err(error) => last = Some(format!("{error:#}")),
        }
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    assert_eq!(last, None);

    let stranger = Mnemonic::from_entropy([9; 32]).root_key();
    let error = find(&stranger, search, ProgressSink::none()).await.unwrap_err().to_string();
    assert!(error.contains("know no drive of these words"), "{error}");
    let nobody = Search { peers: &[], mdns: false, minority: false };
    let error = find(&stranger, nobody, ProgressSink::none()).await.unwrap_err().to_string();
    assert!(error.contains("no provider was named"), "{error}");
    door.stop().await;
    keeper.stop().await;
}
