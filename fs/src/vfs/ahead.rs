//! What a file's readers will ask for next.
//!
//! Owns: the recognition of a reader who goes through a file in order, or in equal steps. Promises: who jumps about causes nothing to be
//! fetched, and neither does the first read of a file; how far ahead of a reader it looks doubles with each step that came true, up to a bound.
//! Knows no bytes and asks nobody: it says numbers of chunks, and whoever reads asks for them ([`super::readahead`]).

/// Readers of one file that are told apart; what begins when all are taken pushes out the one that was idle longest.
const STREAMS_MAX: usize = 4;
/// Requests of one reader may come in another order than they were made: so far behind its front they are still its own.
const DISORDER_CHUNKS: u64 = 16;
/// Steps up to this many chunks are recognized.
const STRIDE_CHUNKS_MAX: u64 = 256;
/// Equal steps before they are believed.
const STRIDES_MIN: u32 = 2;
/// Steps looked ahead of a reader in equal steps: its chunks are far apart, and few of each piece are wanted.
const STRIDES_AHEAD_MAX: u64 = 16;

/// One reader.
#[derive(Debug, Clone)]
struct Stream {
    /// The last chunk that was read.
    front: u64,
    /// From the beginning of a read to that of the next; 1: in order.
    stride: u64,
    /// Steps that came true.
    steps: u32,
    /// Up to here (exclusive; the beginning of a step) everything was asked for.
    asked: u64,
    /// Steps looked ahead.
    window: u64,
    /// Chunks of each read.
    width: u64,
    /// When it last moved, by count.
    moved: u64,
}

/// All readers of one file.
#[derive(Debug, Default)]
pub(crate) struct Ahead {
    streams: Vec<Stream>,
    moves: u64,
}

impl Ahead {
    /// Somebody reads chunks `first..=last` of a file that ends before chunk `end`; gives the chunks to ask for now, at most `window_max` ahead.
    pub(crate) fn note(&mut self, first: u64, last: u64, end: u64, window_max: u64) -> Vec<u64> {
        self.moves += 1;
        let moves = self.moves;
        if let Some(stream) = self.streams.iter_mut().find(|s| s.goes_on_with(first, last)) {
            stream.moved = moves;
            return stream.advance(first, last, end, window_max);
        }
        if let Some(stream) = self.streams.iter_mut().find(|s| s.may_step_to(first)) {
            stream.stride = if first == stream.front + 1 { 1 } else { first - stream.first() };
            (stream.front, stream.width) = (last, last - first + 1);
            (stream.steps, stream.window, stream.moved) = (1, 1, moves);
            return Vec::new();
        }
        if self.streams.len() >= STREAMS_MAX
            && let Some(idle) = (0..self.streams.len()).min_by_key(|n| self.streams.get(*n).map(|s| s.moved))
        {
            self.streams.swap_remove(idle);
        }
        let width = last - first + 1;
        self.streams.push(Stream {
            front: last,
            stride: 1,
            steps: 0,
            asked: 0,
            window: 1,
            width,
            moved: moves,
        });
        Vec::new()
    }
}

impl Stream {
    fn first(&self) -> u64 {
        (self.front + 1).saturating_sub(self.width)
    }

    fn goes_on_with(&self, first: u64, last: u64) -> bool {
        if self.stride == 1 {
            return first <= self.front + 1
                && last + DISORDER_CHUNKS >= self.front
                && last + 1 >= self.first();
        }
        first == self.first() + self.stride || first == self.first()
    }

    /// Whether it has done nothing yet that says how it reads on.
    fn may_step_to(&self, first: u64) -> bool {
        let unproven = self.steps == 0 || self.stride > 1;
        unproven && first > self.front && first - self.first() <= STRIDE_CHUNKS_MAX
    }

    fn advance(&mut self, first: u64, last: u64, end: u64, window_max: u64) -> Vec<u64> {
        if last <= self.front {
            return Vec::new();
        }
        self.steps = self.steps.saturating_add(1);
        self.front = last;
        if self.stride > 1 {
            return self.strides(first, end, window_max);
        }
        self.window = (self.window * 2).min(window_max.max(1));
        let from = self.asked.max(last + 1);
        let to = (last + 1 + self.window).min(end);
        self.asked = self.asked.max(to);
        (from..to).collect()
    }

    fn strides(&mut self, first: u64, end: u64, window_max: u64) -> Vec<u64> {
        if self.steps < STRIDES_MIN {
            return Vec::new();
        }
        self.window = (self.window * 2).min(STRIDES_AHEAD_MAX).min((window_max / self.width).max(1));
        let steps = (1..=self.window).map(|step| first.saturating_add(self.stride.saturating_mul(step)));
        let new: Vec<u64> = steps.filter(|at| *at >= self.asked).collect();
        self.asked = new.last().map_or(self.asked, |at| at.saturating_add(self.stride));
        new.into_iter().flat_map(|at| at..at.saturating_add(self.width)).filter(|n| *n < end).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(reads: impl IntoIterator<Item = (u64, u64)>, end: u64, window: u64) -> Vec<Vec<u64>> {
        let mut ahead = Ahead::default();
        reads.into_iter().map(|(first, last)| ahead.note(first, last, end, window)).collect()
    }

    #[test]
    fn in_order_the_window_doubles_up_to_its_bound_and_nothing_is_asked_twice() {
        let asked = run((0..40).map(|n| (n, n)), 1000, 8);
        assert!(asked[0].is_empty(), "a first read may be the only one");
        assert_eq!(asked[1], [2, 3]);
        assert_eq!(asked[2], [4, 5, 6]);
        assert_eq!(asked[3], [7, 8, 9, 10, 11]);
        let all: Vec<u64> = asked.concat();
        assert_eq!(all, (2..48).collect::<Vec<u64>>(), "each once, in order, eight ahead at last");
    }

    #[test]
    fn it_ends_with_the_file() {
        let all: Vec<u64> = run((0..10).map(|n| (n, n)), 10, 32).concat();
        assert_eq!(all, (2..10).collect::<Vec<u64>>());
    }

    #[test]
    fn who_jumps_about_causes_nothing() {
        let places = [5, 900, 17, 444, 3, 871, 230, 612, 99, 505, 42, 777];
        assert!(run(places.map(|n| (n, n)), 1000, 32).concat().is_empty());
    }

    #[test]
    fn equal_steps_are_seen_after_three_reads() {
        let asked = run((0..6).map(|n| (n * 10, n * 10)), 1000, 32);
        assert!(asked[0].is_empty() && asked[1].is_empty());
        assert_eq!(asked[2], [30, 40]);
        assert_eq!(asked[3], [50, 60, 70]);
        let wide = run((0..4).map(|n| (n * 10, n * 10 + 1)), 1000, 32);
        assert_eq!(wide[2], [30, 31, 40, 41]);
    }

    #[test]
    fn requests_that_overtake_each_other_are_one_reader() {
        // Four chunks a request, every second one late.
        let reads = [(0, 3), (4, 7), (12, 15), (8, 11), (16, 19), (24, 27), (20, 23), (28, 31), (32, 35)];
        let mut all: Vec<u64> = run(reads, 1000, 16).concat();
        all.sort_unstable();
        all.dedup();
        assert!((36..40).all(|n| all.contains(&n)), "{all:?}");
    }

    #[test]
    fn two_readers_of_one_file_are_told_apart() {
        let reads = (0..20).flat_map(|n| [(n, n), (500 + n, 500 + n)]);
        let all: Vec<u64> = run(reads, 1000, 8).concat();
        assert!((2..28).all(|n| all.contains(&n)) && (502..528).all(|n| all.contains(&n)));
    }
}
