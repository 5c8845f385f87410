//! Where the blocks lie that no commit covers yet: what the location tree has to learn.
//!
//! Owns: a list of 48 bytes for each block, up to [`LISTED_MAX`] of them. Promises: bounded memory, whatever a commit brings. Beyond the bound, and for
//! pieces that an earlier process wrote, only the pieces are noted, and their blocks are found among the block rows, which are in order already; that reads
//! the rows of all blocks, and is no more than a commit of so many costs anyway.

use std::cmp::Reverse;
use std::collections::BTreeSet;

use holdfast_content::block::PieceId;
use holdfast_store::{Direction, KeyRange, Reads, Store, Table};

use super::rows::BlockRow;
use crate::drive::error::DriveError;

/// Blocks listed one by one: 48 MiB.
const LISTED_MAX: usize = 1 << 20;
/// Rows fetched at once.
const PAGE_ROWS: usize = 1024;

/// A block's digest and its place.
pub(crate) type Placed = ([u8; 32], BlockRow);

/// See the module's documentation.
#[derive(Default)]
pub(crate) struct Places {
    pieces: Vec<PieceId>,
    listed: Vec<Listed>,
    /// The list is not whole: the block rows say what lies in the pieces.
    by_rows: bool,
}

struct Listed {
    digest: [u8; 32],
    offset: u64,
    len: u32,
    /// Place in `pieces`, doubled; odd for dag-pb.
    piece: u32,
}

impl Places {
    /// All blocks of these pieces that have rows.
    pub(crate) fn of_pieces(pieces: Vec<PieceId>) -> Self {
        let by_rows = !pieces.is_empty();
        Self { pieces, listed: Vec::new(), by_rows }
    }

    /// Adds blocks of a finished piece; their rows are written.
    pub(crate) fn add(&mut self, piece: PieceId, blocks: impl Iterator<Item = Placed>) {
        let nth = u32::try_from(self.pieces.len() * 2).ok();
        self.pieces.push(piece);
        let Some(nth) = nth.filter(|_| !self.by_rows) else { return self.forget_list() };
        self.listed.extend(blocks.map(|(digest, row)| Listed {
            digest,
            offset: row.offset,
            len: row.len,
            piece: nth | u32::from(row.dag_pb),
        }));
        if self.listed.len() > LISTED_MAX {
            self.forget_list();
        }
    }

    fn forget_list(&mut self) {
        self.by_rows = true;
        self.listed = Vec::new();
    }

    /// Adds all that `later` holds.
    pub(crate) fn append(&mut self, later: Places) {
        if self.by_rows || later.by_rows {
            self.pieces.extend(later.pieces);
            return self.forget_list();
        }
        let mut by_piece = vec![Vec::new(); later.pieces.len()];
        for block in &later.listed {
            let (digest, row) = block.place(&later.pieces);
            if let Some(blocks) = by_piece.get_mut(block.piece as usize / 2) {
                blocks.push((digest, row));
            }
        }
        for (piece, blocks) in later.pieces.into_iter().zip(by_piece) {
            self.add(piece, blocks.into_iter());
        }
    }

    /// All of them and `open` (ascending), in the order of digests, each once.
    pub(crate) fn in_order<'a>(
        &'a mut self,
        store: &'a Store,
        open: Vec<Placed>,
    ) -> impl Iterator<Item = Result<Placed, DriveError>> + 'a {
        // Of a block that was written twice, the later place.
        self.listed.sort_unstable_by_key(|block| (block.digest, Reverse(block.piece)));
        self.listed.dedup_by_key(|block| block.digest);
        let this: &'a Self = self;
        let finished: Box<dyn Iterator<Item = Result<Placed, DriveError>> + 'a> = match this.by_rows {
            true => Box::new(BlockRows::new(store, this.pieces.iter().copied().collect())),
            false => Box::new(this.listed.iter().map(|block| Ok(block.place(&this.pieces)))),
        };
        let (mut finished, mut open) = (finished.peekable(), open.into_iter().peekable());
        std::iter::from_fn(move || {
            let next = match (finished.peek(), open.peek()) {
                (Some(Ok((a, _))), Some((b, _))) => a.cmp(b),
                (Some(_), _) => std::cmp::Ordering::Less,
                (None, _) => std::cmp::Ordering::Greater,
            };
            if next.is_eq() {
                finished.next();
            }
            if next.is_lt() { finished.next() } else { open.next().map(Ok) }
        })
    }
}

impl Listed {
    fn place(&self, pieces: &[PieceId]) -> Placed {
        // Its piece was added before it.
        let piece = pieces.get(self.piece as usize / 2).copied().unwrap_or_default();
        (self.digest, BlockRow { dag_pb: self.piece % 2 == 1, piece, offset: self.offset, len: self.len })
    }
}

/// The block rows of some pieces, in order. After an error it ends.
struct BlockRows<'a> {
    store: &'a Store,
    pieces: BTreeSet<PieceId>,
    page: std::vec::IntoIter<(Vec<u8>, bytes::Bytes)>,
    range: KeyRange,
    exhausted: bool,
}

impl<'a> BlockRows<'a> {
    fn new(store: &'a Store, pieces: BTreeSet<PieceId>) -> Self {
        Self { store, pieces, page: Vec::new().into_iter(), range: KeyRange::all(), exhausted: false }
    }

    fn step(&mut self) -> Result<Option<Placed>, DriveError> {
        loop {
            for (key, row) in self.page.by_ref() {
                let row = BlockRow::decode(&row)?;
                if self.pieces.contains(&row.piece) {
                    let digest = key.as_slice().try_into();
                    return Ok(Some((digest.map_err(|_| DriveError::damaged("block row", "its key"))?, row)));
                }
            }
            if self.exhausted {
                return Ok(None);
            }
            let page = self.store.scan(Table::Block, &self.range, PAGE_ROWS, Direction::Forward)?;
            self.exhausted = page.len() < PAGE_ROWS;
            if let Some((key, _)) = page.last() {
                self.range = self.range.clone().after(key.clone());
            }
            self.page = page.into_iter();
        }
    }
}

impl Iterator for BlockRows<'_> {
    type Item = Result<Placed, DriveError>;

    fn next(&mut self) -> Option<Self::Item> {
        let step = self.step();
        if step.is_err() {
            (self.page, self.exhausted) = (Vec::new().into_iter(), true);
        }
        step.transpose()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use holdfast_store::{CrashMedium, IndexKind, StoreKeys, StoreOptions, SystemClock, SystemRng, Txn};
    use std::sync::Arc;

    fn store() -> Store {
        let options = StoreOptions { background: false, ..StoreOptions::default() };
        let keys = StoreKeys { log: [1; 32], index: [2; 32] };
        let (clock, rng) = (Arc::new(SystemClock::new()), Arc::new(SystemRng));
        let medium = Arc::new(CrashMedium::new());
        Store::open(medium, IndexKind::Memory, keys, options, clock, rng).unwrap().0
    }

    fn block(piece: u8, n: u8) -> Placed {
        let row =
            BlockRow { dag_pb: n.is_multiple_of(2), piece: [piece; 16], offset: u64::from(n) << 34, len: 7 };
        (*blake3::hash(&[n]).as_bytes(), row)
    }

    fn listed(places: &mut Places, store: &Store, open: &[Placed]) -> Vec<Placed> {
        let mut open = open.to_vec();
        open.sort_unstable_by_key(|(digest, _)| *digest);
        places.in_order(store, open).collect::<Result<_, _>>().unwrap()
    }

    /// The list, and what the rows say in its place.
    #[test]
    fn by_list_and_by_rows_the_same() {
        let store = store();
        let (mut list, mut later, mut rows) = (Places::default(), Places::default(), Places::default());
        rows.forget_list();
        let mut all = Vec::new();
        for piece in 1..5u8 {
            let blocks: Vec<Placed> = (0..40).map(|n| block(piece, piece * 40 + n)).collect();
            let mut txn = Txn::new();
            for (digest, row) in &blocks {
                txn.put(Table::Block, digest, row.encode());
            }
            store.commit(txn).unwrap();
            let to = if piece < 3 { &mut list } else { &mut later };
            to.add([piece; 16], blocks.iter().copied());
            rows.add([piece; 16], blocks.iter().copied());
            all.extend(blocks);
        }
        // Of another piece, and not asked for.
        let (digest, row) = block(9, 250);
        let mut txn = Txn::new();
        txn.put(Table::Block, digest, row.encode());
        store.commit(txn).unwrap();
        list.append(later);
        let open = [block(8, 1), block(8, 2)];
        all.extend(open);
        all.sort_unstable_by_key(|(digest, _)| *digest);
        assert_eq!(listed(&mut list, &store, &open), all);
        assert_eq!(listed(&mut list, &store, &open), all, "again");
        assert_eq!(listed(&mut rows, &store, &open), all);
        let mut of_pieces = Places::of_pieces((1..5u8).map(|piece| [piece; 16]).collect());
        list.append(Places::of_pieces(vec![[9; 16]]));
        assert_eq!(listed(&mut of_pieces, &store, &open), all);
        assert_eq!(listed(&mut list, &store, &open).len(), all.len() + 1);
        assert_eq!(listed(&mut Places::default(), &store, &[]), []);
    }

    #[test]
    fn of_a_block_in_two_pieces_the_later_place() {
        let store = store();
        let mut places = Places::default();
        places.add([1; 16], [block(1, 5), block(1, 6)].into_iter());
        places.add([2; 16], [block(2, 5)].into_iter());
        let found = listed(&mut places, &store, &[]);
        assert_eq!(found.len(), 2);
        assert!(found.contains(&block(2, 5)) && found.contains(&block(1, 6)));
    }
}
