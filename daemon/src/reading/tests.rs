#![allow(clippy::unwrap_used)]

use super::*;
use rand_chacha::ChaCha8Rng;
use rand_chacha::rand_core::{RngCore, SeedableRng};

/// Numbers that a seed gives.
struct Seeded(Mutex<ChaCha8Rng>);

impl Seeded {
    fn new(seed: u64) -> Seeded {
        Seeded(Mutex::new(ChaCha8Rng::seed_from_u64(seed)))
    }
}

impl Rng for Seeded {
    fn fill(&self, out: &mut [u8]) {
        self.0.lock().fill_bytes(out);
    }
}

const A: &[u8] = b"a";
const B: &[u8] = b"b";
const C: &[u8] = b"c";

fn others() -> Vec<Vec<u8>> {
    vec![B.to_vec(), C.to_vec()]
}

fn at(seconds: u64) -> Instant {
    static BEGIN: std::sync::OnceLock<Instant> = std::sync::OnceLock::new();
    *BEGIN.get_or_init(Instant::now) + Duration::from_secs(seconds)
}

#[test]
fn other_bytes_three_times_in_a_row_are_a_fault_once_others_gave_right_ones_since() {
    let readings = Readings::default();
    readings.looked(B, Look::Right, at(0));
    for n in 1..=2 {
        readings.looked(A, Look::Other, at(n));
        assert!(readings.is_doubtful(A) && !readings.is_given_up(A, at(9)));
    }
    readings.looked(A, Look::Right, at(3));
    assert!(!readings.is_doubtful(A));
    assert!(readings.right_since(B, at(0)) && !readings.right_since(B, at(1)));
    assert!(!readings.right_since(A, at(3)), "right once, after two that were not");
    (3..=5).for_each(|_| readings.looked(A, Look::Right, at(3)));
    assert!(readings.right_since(A, at(3)) && !readings.right_since(A, at(4)));
    assert!(!readings.right_since(C, at(0)), "who was never read");
    (4..=6).for_each(|n| readings.looked(A, Look::Other, at(n)));
    assert!(readings.is_given_up(A, at(9)));
    assert!(!readings.right_since(A, at(3)), "right once, and no more");
    let unsure = |first| Judged::Unsure { others: others(), first };
    assert_eq!(readings.judge(A, &others(), 1, at(9)), unsure(true), "what B gave before says nothing");
    assert_eq!(readings.judge(A, &others(), 1, at(9)), unsure(false));
    readings.looked(B, Look::Right, at(10));
    assert_eq!(readings.judge(A, &others(), 1, at(11)), Judged::Fault);
    let c = Judged::Unsure { others: vec![C.to_vec()], first: false };
    assert_eq!(readings.judge(A, &others(), 2, at(11)), c, "a stripe of two needs both");
    readings.looked(C, Look::Right, at(12));
    assert_eq!(readings.judge(A, &others(), 2, at(13)), Judged::Fault);
    readings.looked(C, Look::Withheld, at(14));
    assert!(matches!(readings.judge(A, &others(), 2, at(15)), Judged::Unsure { .. }), "C does not, any more");
}

#[test]
fn a_line_that_is_bad_for_everybody_blames_nobody() {
    for look in [Look::Other, Look::Withheld] {
        let readings = Readings::default();
        for n in 0..100 {
            for deal in [A, B, C] {
                readings.looked(deal, look, at(n * 600));
                assert!(!matches!(readings.judge(deal, &others(), 1, at(n * 600)), Judged::Fault));
            }
        }
    }
}

#[test]
fn what_is_put_off_is_a_fault_only_if_it_goes_on() {
    let readings = Readings::default();
    let hour = WITHHELD_MIN.as_secs();
    (0..100).for_each(|n| readings.looked(A, Look::Withheld, at(n)));
    assert!(!readings.is_given_up(A, at(hour - 1)));
    readings.looked(B, Look::Right, at(hour));
    assert_eq!(readings.judge(A, &others(), 1, at(hour)), Judged::Fault);
    readings.looked(A, Look::Right, at(hour));
    assert_eq!(readings.judge(A, &others(), 1, at(2 * hour)), Judged::Nothing);
    (0..2).for_each(|_| readings.looked(A, Look::Withheld, at(hour)));
    assert!(!readings.is_given_up(A, at(9 * hour)), "twice is not enough, after however long");
}

#[test]
fn leaves_that_are_right_take_nothing_back_of_blocks_that_were_not() {
    let readings = Readings::default();
    for n in 0..3 {
        readings.wrong(A, at(3 * n));
        readings.looked(A, Look::Right, at(3 * n + 1));
        readings.looked(B, Look::Right, at(3 * n + 2));
    }
    assert_eq!(readings.judge(A, &others(), 1, at(20)), Judged::Fault);
    readings.right(A, at(21));
    assert_eq!(readings.judge(A, &others(), 1, at(22)), Judged::Nothing);
    readings.wrong(B, at(30));
    readings.keep(|deal| deal == A);
    assert!(!readings.is_doubtful(B));
}

#[test]
fn ranges_hold_a_leaf_that_will_be_asked_and_say_nothing_of_where() {
    for (seed, len) in (0..400u64).zip([1, 100, 127, 5_000, 300_000, 64 << 20].into_iter().cycle()) {
        let leaves = holdfast_proofs::commp::leaf_count(len);
        let positions: Vec<u64> = (0..5).map(|n| (leaves - 1) * n / 4).collect();
        let ranges = ranges(&Seeded::new(seed), &positions, len);
        assert!(!ranges.is_empty() && ranges.len() as u64 <= RANGES_MAX);
        for range in ranges {
            let end = range.offset + u64::from(range.len);
            assert!(
                end <= len && range.len > 0 && u64::from(range.len) <= RANGE_BYTES_MAX,
                "{range:?} of {len}"
            );
            let holds = |p: &&u64| {
                let (from, to) = leaf_span(len, **p, 1);
                from >= range.offset && to <= end
            };
            assert!(positions.iter().any(|p| holds(&p)), "{range:?} of {len}");
        }
    }
    // Somewhere in a range, anywhere: as often in its first half as in its second.
    let begins = (0..1_000).flat_map(|seed| ranges(&Seeded::new(seed), &[1_000_000], 64 << 20));
    let (early, late): (Vec<f64>, Vec<f64>) = begins
        .filter(|range| range.len > 1_000)
        .map(|range| (31_750_000 - range.offset) as f64 / f64::from(range.len))
        .partition(|place| *place < 0.5);
    assert!(early.len() * 2 > late.len() && late.len() * 2 > early.len(), "{} {}", early.len(), late.len());
}

#[test]
fn every_end_of_a_read_says_what_it_says() {
    let ranges = vec![ByteRange::new(0, 4), ByteRange::new(10, 2)];
    let look = |read: Result<Vec<&'static [u8]>, NetError>| {
        let read = read.map(|parts| parts.into_iter().map(Bytes::from_static).collect());
        Beside { ranges: ranges.clone(), read }.compared(|_, part| !part.contains(&9))
    };
    assert_eq!(look(Ok(vec![&[1, 1, 1, 1], &[1, 1]])), Some(Look::Right));
    assert_eq!(look(Ok(vec![&[1, 1, 1, 1], &[1, 9]])), Some(Look::Other));
    assert_eq!(look(Ok(vec![&[1, 1, 1], &[1, 1]])), Some(Look::Other), "too short");
    assert_eq!(look(Ok(vec![&[1, 1, 1, 1]])), Some(Look::Other), "one of two");
    let refused = |code| NetError::Refused { code, message: String::new() };
    assert_eq!(look(Err(refused(ErrorCode::NotFound))), Some(Look::Other));
    assert_eq!(look(Err(refused(ErrorCode::Busy))), Some(Look::Withheld));
    assert_eq!(look(Err(NetError::Timeout(READ_PATIENCE))), Some(Look::Withheld));
    assert_eq!(look(Err(NetError::Disconnected("at every read".into()))), Some(Look::Withheld));
    assert_eq!(look(Err(refused(ErrorCode::Cancelled))), None);
    assert_eq!(look(Err(NetError::Local("our disk".into()))), None);
}

#[test]
fn times_keep_to_their_mean_and_save_nothing_up() {
    let (rng, mut times) = (Seeded::new(7), Times::default());
    let mean = Duration::from_secs(4_800);
    let read: usize = (0..20_000).map(|n| times.due(&rng, at(5 * n), mean, 100, 64)).sum();
    // 100,000 s of 100 copies, each every 4,800 s: 2,083, give or take 46.
    assert!((1_850..2_320).contains(&read), "{read}");
    assert_eq!(times.due(&rng, at(100_000 + 1_000_000), mean, 100, 64), 64, "a pause");
    assert!(times.due(&rng, at(1_100_005), mean, 100, 64) < 8);
    assert_eq!(times.due(&rng, at(2_000_000), Duration::ZERO, 100, 64), 0, "no reads");
    assert_eq!(times.due(&rng, at(2_000_000), mean, 0, 64), 0, "no copies");
    let mut hit = [0u32; 10];
    for _ in 0..5_000 {
        Times::which(&rng, 1, 10).into_iter().for_each(|n| hit[n as usize] += 1);
    }
    assert!(hit.iter().all(|n| (380..630).contains(n)), "{hit:?}");
}
