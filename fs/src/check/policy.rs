//! Rules of policies: what a file's folders ask is what its pieces have to survive.

use holdfast_content::class::Class;
use holdfast_store::{Reads, Table};

use super::Checker;
use super::namespace::Inodes;
use crate::drive::error::{DriveError, hex};
use crate::pieces::classes;
use crate::pieces::rows::BlockRow;
use crate::policy::{Policies, SURVIVE_XATTR, parse, walk};
use crate::rows::{ChunkRow, Ino, META_SURVIVE, keys};

impl Checker<'_> {
    pub(super) fn policies(&mut self, inodes: &Inodes) -> Result<(), DriveError> {
        let policies = Policies::read(&self.rows)?;
        let mut committed = true;
        for ino in policies.inodes() {
            committed &= !self.marked.contains(Table::Meta, &[META_SURVIVE, &keys::inode(ino)].concat())?;
            let value = self.rows.xattr(ino, SURVIVE_XATTR)?.and_then(|row| parse(&row.value));
            if value.is_none() || value != policies.of(ino) {
                self.report.problem(format!("inode {ino}: its policy is not what its attribute says"));
            }
        }
        if policies.is_empty() || walk::any(self.snapshot)? {
            return Ok(());
        }
        if let Some(row) = self.inner.latest().filter(|_| committed)
            && !classes::of(self.snapshot, &row.info.commit.at.piece)?.covers(policies.highest())
        {
            self.report.problem("the newest commit is less safe than a folder asks");
        }
        self.each(Table::Chunk, |this, key, value| this.class_of_chunk(inodes, &policies, key, value))
    }

    fn class_of_chunk(
        &mut self,
        inodes: &Inodes,
        policies: &Policies,
        key: &[u8],
        value: &[u8],
    ) -> Result<(), DriveError> {
        let (ino, n) = keys::decode_pair(key)?;
        let Some(fact) = inodes.facts.get(&ino).filter(|fact| fact.named_in != 0) else { return Ok(()) };
        // What no commit has yet the next one sees to.
        if self.marked.contains(Table::Chunk, key)?
            || self.marked.contains(Table::Inode, &keys::inode(ino))?
        {
            return Ok(());
        }
        let parent_of = |at: Ino| Ok::<_, DriveError>(inodes.facts.get(&at).map_or(0, |fact| fact.named_in));
        let class = match policies.of(ino) {
            Some(losses) => Class::of(losses),
            None => policies.class(fact.named_in, parent_of)?,
        };
        let Some(block) = self.snapshot.get(Table::Block, &ChunkRow::decode(value)?.digest)? else {
            return Ok(());
        };
        let piece = BlockRow::decode(&block)?.piece;
        if !classes::of(self.snapshot, &piece)?.covers(class) {
            self.report.problem(format!(
                "chunk {n} of inode {ino}: piece {} is less safe than its folder asks",
                hex(&piece)
            ));
        }
        Ok(())
    }
}
