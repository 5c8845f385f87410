//! Rules of commits: the chain is whole, and the newest one holds what the rows hold.

use std::collections::HashSet;

use bytes::Bytes;
use cid::Cid;
use holdfast_content::block::Block;
use holdfast_content::commit::Commit;
use holdfast_content::retrieve::Priority;
use holdfast_content::unixfs;
use holdfast_store::{Direction, KeyRange, Reads, Table};

use super::{Checker, PAGE_ROWS};
use crate::drive::error::DriveError;
use crate::drive::scan;
use crate::rows::{ChunkRow, Ino, InodeRow, OrphanRow, Time, inode_flags, is_tombstone, keys};
use crate::seal::commit_row::CommitRow;
use crate::seal::edits::links_of;

/// Tables whose rows are in the tree.
const COMMITTED: [Table; 5] = [Table::Inode, Table::Entry, Table::Xattr, Table::Chunk, Table::Dag];

impl Checker<'_> {
    pub(super) fn commits(&mut self) -> Result<(), DriveError> {
        let mut before: Option<CommitRow> = None;
        let mut range = KeyRange::all();
        loop {
            let page = self.snapshot.scan(Table::Commit, &range, PAGE_ROWS, Direction::Forward)?;
            let last = page.len() < PAGE_ROWS;
            if let Some((key, _)) = page.last() {
                range = range.after(key.clone());
            }
            for (_, value) in page {
                self.report.commits += 1;
                let row = CommitRow::decode(&value)?;
                self.chain(before.as_ref(), &row)?;
                before = Some(row);
            }
            if last {
                break;
            }
        }
        let Some(newest) = before else { return Ok(()) };
        self.tree_against_rows(&newest)?;
        self.rows_against_tree(&newest)?;
        if self.options.deep {
            self.unixfs(&newest)?;
        }
        Ok(())
    }

    fn chain(&mut self, before: Option<&CommitRow>, row: &CommitRow) -> Result<(), DriveError> {
        let sequence = row.info.sequence;
        let at = &row.info.commit.at;
        let blocks = &self.inner.parts.trees.blocks;
        if !blocks.is_local(at) {
            self.report.blocks_remote += 1;
            return Ok(());
        }
        let block = match blocks.read_local(at) {
            Ok(Some(block)) => block,
            Ok(None) => return Ok(()),
            Err(error) => {
                self.report.problem(format!("commit {sequence}: {error}"));
                return Ok(());
            }
        };
        let commit = match Commit::decode(&block, &row.info.commit.key, &self.inner.parts.keys) {
            Ok(commit) => commit,
            Err(error) => {
                self.report.problem(format!("commit {sequence}: {error}"));
                return Ok(());
            }
        };
        if commit.sequence != sequence || commit.namespace != row.namespace || commit.stats != row.stats {
            self.report.problem(format!("commit {sequence}: its row and its block differ"));
        }
        if let Some(before) = before {
            let follows = before.info.sequence + 1 == sequence;
            if before.info.sequence >= sequence || before.cut() > row.cut() {
                self.report
                    .problem(format!("commit {sequence} does not follow commit {}", before.info.sequence));
            }
            // Between two that are kept others may have been dropped.
            // Compaction moves a commit's block; its name and key stay.
            let named = commit.previous.as_ref().is_some_and(|named| {
                let known = &before.info.commit;
                (named.root, named.at.cid, &named.key) == (known.root, known.at.cid, &known.key)
            });
            if follows && !named {
                self.report.problem(format!("commit {sequence} does not name the one before it"));
            }
        }
        Ok(())
    }

    /// Is the inode gone (or about to go), so that its rows are in no commit?
    fn owner_gone(&self, table: Table, key: &[u8]) -> Result<bool, DriveError> {
        let owner = match table {
            Table::Meta => return Ok(false),
            _ => keys::decode_inode(key.get(..8).unwrap_or_default())?,
        };
        Ok(self.marked.contains(Table::Inode, &keys::inode(owner))? || self.is_orphan(owner)?)
    }

    fn is_orphan(&self, ino: Ino) -> Result<bool, DriveError> {
        match self.snapshot.get(Table::Orphan, &keys::inode(ino))? {
            Some(row) => Ok(OrphanRow::decode(&row)? == OrphanRow::Unlinked),
            None => Ok(false),
        }
    }

    /// What the newest tree holds, the rows hold, unless they changed since.
    fn tree_against_rows(&mut self, newest: &CommitRow) -> Result<(), DriveError> {
        let trees = self.inner.parts.trees.clone();
        let source = trees.source(Priority::Bulk);
        let mut rows = 0;
        for entry in trees.namespace.iter(&source, &newest.namespace, &[], None)? {
            let entry = entry?;
            rows += 1;
            let Some((&tag, key)) = entry.key.split_first() else { continue };
            let Some(table) = Table::from_tag(tag) else {
                self.report.problem(format!("the tree has rows of table {tag}"));
                continue;
            };
            if links_of(table, key, &entry.value)? != entry.links {
                self.report.problem(format!("{table:?} {key:02x?}: the tree links something else"));
            }
            if self.marked.contains(table, key)? || self.owner_gone(table, key)? {
                continue;
            }
            match self.rows.get(table, key)? {
                Some(row) if same(table, &row, &entry.value)? => {}
                Some(_) => self.report.problem(format!("{table:?} {key:02x?}: the tree has another row")),
                None => self.report.problem(format!("{table:?} {key:02x?}: in the tree, but not here")),
            }
        }
        tracing::debug!(rows, "the newest tree was compared");
        Ok(())
    }

    /// What the rows hold, the newest tree holds, unless they changed since.
    fn rows_against_tree(&mut self, newest: &CommitRow) -> Result<(), DriveError> {
        let trees = self.inner.parts.trees.clone();
        let source = trees.source(Priority::Bulk);
        for table in COMMITTED {
            let mut from = Vec::new();
            loop {
                let page = scan::range(self.snapshot, table, &from, &[0xff; 33], PAGE_ROWS)?;
                let last = page.len() < PAGE_ROWS;
                for (key, row) in page {
                    let full = keys::full(table, &key);
                    let absent = !is_tombstone(&row)
                        && trees.namespace.get(&source, &newest.namespace, &full)?.is_none();
                    if absent
                        && !self.marked.contains(table, &key)?
                        && !self.owner_gone(table, &key)?
                        && self.rows.inode(keys::decode_inode(key.get(..8).unwrap_or_default())?)?.is_some()
                    {
                        self.report.problem(format!("{table:?} {key:02x?}: unchanged, but in no commit"));
                    }
                    from = key;
                    from.push(0);
                }
                if last {
                    break;
                }
            }
        }
        Ok(())
    }

    /// Plain UnixFS from the newest commit's root reaches every block that the tree's rows name.
    fn unixfs(&mut self, newest: &CommitRow) -> Result<(), DriveError> {
        let trees = self.inner.parts.trees.clone();
        let blocks = &trees.blocks;
        let mut seen: HashSet<Cid> = HashSet::new();
        let mut pending = vec![newest.info.commit.root];
        while let Some(cid) = pending.pop() {
            if !seen.insert(cid) {
                continue;
            }
            let want = blocks.want(Priority::Bulk, self.inner.parts.options.fetch_deadline);
            let at = match blocks.locate(&cid, want)? {
                Some(at) => at,
                None => {
                    self.report.problem(format!("UnixFS links {cid}, which is nowhere"));
                    continue;
                }
            };
            if !blocks.is_local(&at) {
                self.report.blocks_remote += 1;
                continue;
            }
            let block: Option<Block> = match blocks.read_local(&at) {
                Ok(block) => block,
                Err(error) => {
                    self.report.problem(format!("UnixFS block {cid}: {error}"));
                    None
                }
            };
            if let Some(block) = block {
                match unixfs::links(&block) {
                    Ok(links) => pending.extend(links),
                    Err(error) => self.report.problem(format!("UnixFS block {cid}: {error}")),
                }
            }
        }
        if self.report.blocks_remote > 0 {
            return Ok(());
        }
        let source = trees.source(Priority::Bulk);
        for entry in trees.namespace.iter(
            &source,
            &newest.namespace,
            &[Table::Chunk as u8],
            Some(&[Table::Chunk as u8 + 1]),
        )? {
            let row = ChunkRow::decode(&entry?.value)?;
            let cid =
                holdfast_content::block::cid_from_digest(holdfast_content::block::CODEC_RAW, &row.digest);
            if !seen.contains(&cid) {
                self.report.problem(format!("plain UnixFS does not reach {cid}"));
            }
        }
        Ok(())
    }
}

/// Equal, but for what changes without a mark: when a file was read, the hint that there may be chunks, what
/// earlier versions did not say of files without data, and LSNs of other devices.
fn same(table: Table, row: &Bytes, committed: &Bytes) -> Result<bool, DriveError> {
    if row == committed {
        return Ok(true);
    }
    Ok(match table {
        Table::Inode => {
            let hint = inode_flags::HAS_CHUNKS | inode_flags::LACKS_DATA;
            let unmarked =
                |row: InodeRow| InodeRow { atime: Time::default(), lsn: 0, flags: row.flags & !hint, ..row };
            unmarked(InodeRow::decode(row)?) == unmarked(InodeRow::decode(committed)?)
        }
        Table::Chunk => {
            ChunkRow { cut: 0, ..ChunkRow::decode(row)? }
                == ChunkRow { cut: 0, ..ChunkRow::decode(committed)? }
        }
        _ => false,
    })
}
