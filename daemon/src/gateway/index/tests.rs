#![allow(clippy::unwrap_used)]

use super::*;
use holdfast_content::block::cid_of;
use holdfast_content::car::PieceWriter;
use holdfast_proofs::PieceCid;
use std::fs;

/// A public slot with these blocks.
pub(crate) fn slot(dir: &Path, number: u8, blocks: &[Block]) -> StoredDeal {
    let slot = dir.join(format!("slot-{number}"));
    let mut writer = PieceWriter::new(fs::File::create(&slot).unwrap(), [0; 16]).unwrap();
    for block in blocks {
        writer.write(block).unwrap();
    }
    writer.finish().unwrap();
    let piece = PieceCid::new(1000, [number & 0x3f; 32]).unwrap();
    StoredDeal { deal: DealId([number; 32]), piece, public: true, end: 99, slot }
}

fn raw(text: &str) -> Block {
    Block::raw(text.as_bytes().to_vec()).unwrap()
}

#[test]
fn blocks_are_found_until_their_last_slot_is_gone() {
    let dir = tempfile::tempdir().unwrap();
    let index = PublicIndex::open(dir.path()).unwrap();
    let stop = CancellationToken::new();
    let (a, both, b) = (raw("a"), raw("both"), raw("b"));
    let one = slot(dir.path(), 1, &[a.clone(), both.clone()]);
    let two = slot(dir.path(), 2, &[both.clone(), b.clone()]);
    let private = StoredDeal { public: false, ..slot(dir.path(), 3, &[raw("private")]) };
    index.sync(&[one.clone(), two.clone(), private.clone()], &stop);
    assert_eq!(index.blocks(), 3);
    assert_eq!(index.read(both.cid()), Some(both.clone()));
    assert_eq!(index.len_of(b.cid()), Some(1));
    assert_eq!(index.read(raw("private").cid()), None, "nobody looks into what is not public");
    index.sync(&[two.clone(), private.clone()], &stop);
    assert_eq!((index.read(a.cid()), index.read(both.cid())), (None, Some(both.clone())));
    assert!(!dir.path().join("public").join(one.deal.to_string()).exists());
    // What was hashed is not hashed again.
    let again = PublicIndex::open(dir.path()).unwrap();
    let bytes = fs::read(&two.slot).unwrap();
    fs::write(&two.slot, vec![0; bytes.len()]).unwrap();
    again.sync(std::slice::from_ref(&two), &stop);
    assert_eq!(again.blocks(), 2);
    assert_eq!(again.read(b.cid()), None, "and what is damaged is not served");
    fs::write(&two.slot, bytes).unwrap();
    assert_eq!(again.read(b.cid()), Some(b));
    // A damaged index is made anew.
    fs::write(dir.path().join("public").join(two.deal.to_string()), b"HFPI").unwrap();
    let again = PublicIndex::open(dir.path()).unwrap();
    again.sync(&[two], &stop);
    assert_eq!(again.read(both.cid()), Some(both));
    again.sync(&[], &stop);
    assert_eq!(again.blocks(), 0);
}

/// However many slots have a block, it costs three places; whichever slots go, it is served from one that is left.
#[test]
fn a_block_of_many_slots_takes_few_places() {
    let dir = tempfile::tempdir().unwrap();
    let index = PublicIndex::open(dir.path()).unwrap();
    let stop = CancellationToken::new();
    let shared = raw("shared");
    let slots: Vec<StoredDeal> = (1..=6)
        .map(|n| slot(dir.path(), n, &[shared.clone(), raw(&format!("own {n}")), shared.clone()]))
        .collect();
    index.sync(&slots, &stop);
    assert_eq!((index.blocks(), index.state.read().places), (7, 6 + PLACES_OF_BLOCK_MAX));
    assert_eq!(index.state.read().partly.len(), 6 - PLACES_OF_BLOCK_MAX);
    for left in (1..slots.len()).rev() {
        index.sync(&slots[..left], &stop);
        assert_eq!(index.read(shared.cid()), Some(shared.clone()), "{left} are left");
        assert_eq!(index.state.read().places, left + left.min(PLACES_OF_BLOCK_MAX));
    }
    index.sync(&[], &stop);
    let state = index.state.read();
    assert_eq!((state.places, state.blocks.len(), state.others.len(), state.partly.len()), (0, 0, 0, 0));
}

#[test]
fn a_slot_without_room_waits_until_another_goes() {
    let dir = tempfile::tempdir().unwrap();
    let index = PublicIndex::open(dir.path()).unwrap();
    let stop = CancellationToken::new();
    let blocks = |from: u8| -> Vec<Block> { (from..from + 4).map(|n| raw(&format!("block {n}"))).collect() };
    let (one, two) = (slot(dir.path(), 1, &blocks(0)), slot(dir.path(), 2, &blocks(4)));
    index.sync(std::slice::from_ref(&one), &stop);
    index.take(two.deal, &two.slot, &index.entries(&two), 7);
    assert_eq!(index.blocks(), 4);
    index.sync(&[one, two.clone()], &stop);
    assert_eq!(index.blocks(), 4, "it is not tried again while nothing has changed");
    index.sync(std::slice::from_ref(&two), &stop);
    assert_eq!(index.read(blocks(4)[0].cid()), Some(blocks(4)[0].clone()));
}

#[test]
fn files_are_counted_and_left_by_nobody() {
    let dir = tempfile::tempdir().unwrap();
    let index = PublicIndex::open(dir.path()).unwrap();
    let stop = CancellationToken::new();
    let files = dir.path().join("public");
    let (old, other) = (files.join(DealId([9; 32]).to_string()), files.join("no deal"));
    fs::write(&old, b"left by an earlier run").unwrap();
    fs::write(&other, b"not ours").unwrap();
    let (one, two) = (slot(dir.path(), 1, &[raw("a")]), slot(dir.path(), 2, &[raw("a"), raw("b")]));
    index.sync(&[one.clone(), two], &stop);
    assert!(!old.exists() && other.exists());
    let len = |blocks: usize| (HEAD_BYTES + blocks * ENTRY_BYTES + DIGEST_BYTES) as u64;
    assert_eq!(index.file_bytes(), len(1) + len(2));
    assert_eq!(fs::metadata(files.join(one.deal.to_string())).unwrap().len(), len(1));
    index.sync(&[one], &stop);
    assert_eq!(index.file_bytes(), len(1));
}

#[test]
fn a_block_that_lies_is_not_indexed() {
    let dir = tempfile::tempdir().unwrap();
    let index = PublicIndex::open(dir.path()).unwrap();
    let stop = CancellationToken::new();
    let (good, bad) = (raw("good"), raw("bad!"));
    let deal = slot(dir.path(), 1, &[good.clone(), bad.clone()]);
    let mut bytes = fs::read(&deal.slot).unwrap();
    *bytes.last_mut().unwrap() ^= 1;
    fs::write(&deal.slot, bytes).unwrap();
    let honest = slot(dir.path(), 2, std::slice::from_ref(&bad));
    index.sync(&[deal, honest], &stop);
    assert_eq!((index.read(good.cid()), index.read(bad.cid())), (Some(good), Some(bad)));
    let odd = StoredDeal { slot: dir.path().join("none"), ..slot(dir.path(), 4, &[]) };
    fs::write(dir.path().join("none"), b"no piece at all").unwrap();
    index.sync(&[odd], &stop);
    assert_eq!(index.blocks(), 0);
}

#[test]
fn index_files_come_back() {
    let entries: Vec<Entry> =
        (0..3u8).map(|n| Entry { digest: [n; 32], offset: u64::from(n) << 33, len: 7 }).collect();
    let bytes = encode(&entries);
    assert_eq!(decode(&bytes), Some(entries));
    assert_eq!(decode(&encode(&[])), Some(Vec::new()));
    for at in 0..bytes.len() {
        let mut changed = bytes.clone();
        changed[at] ^= 1;
        assert_eq!(decode(&changed), None, "byte {at}");
        assert_eq!(decode(&bytes[..at]), None);
    }
    assert!(
        PublicIndex::open(tempfile::tempdir().unwrap().path()).unwrap().read(&cid_of(0x55, b"x")).is_none()
    );
}

/// Deals that come when the test says so.
#[derive(Clone, Default)]
struct Coming(Arc<RwLock<(u64, Vec<StoredDeal>)>>);

impl Deals for Coming {
    fn changes(&self) -> u64 {
        self.0.read().0
    }
    fn stored(&self) -> Vec<StoredDeal> {
        self.0.read().1.clone()
    }
    fn counts(&self, _bytes: u64) {}
}

#[tokio::test]
async fn what_was_stored_before_it_was_asked_for_is_found() {
    let dir = tempfile::tempdir().unwrap();
    let index = PublicIndex::open(dir.path()).unwrap();
    let (deals, stop) = (Coming::default(), CancellationToken::new());
    tokio::spawn(index.clone().follow(deals.clone(), stop.clone()));
    // The first look is over: the next is a second away.
    index.settled().await;
    tokio::time::sleep(Duration::from_millis(20)).await;
    for number in 1..=3u8 {
        let block = raw(&format!("block {number}"));
        let stored = slot(dir.path(), number, std::slice::from_ref(&block));
        {
            let mut deals = deals.0.write();
            deals.1.push(stored);
            deals.0 += 1;
        }
        assert_eq!(index.read(block.cid()), None);
        let (asked, cid) = (index.clone(), *block.cid());
        let found = match number {
            // As a CAR's thread does.
            1 => tokio::task::spawn_blocking(move || asked.block(&cid).ok()).await.unwrap(),
            _ => {
                asked.settled().await;
                asked.read(&cid)
            }
        };
        assert_eq!(found, Some(block));
    }
    // What is nowhere costs no wait.
    let start = std::time::Instant::now();
    index.settled().await;
    assert!(start.elapsed() < SYNC_EVERY / 2);
    stop.cancel();
}
