//! Folders with a policy of their own, as the workers meet them: every piece has a class, and wants as many copies as that says.
//!
//! Owns: the way from the file system's rows to the ledger's and the placement log. Promises: whoever counts copies asks here how many there should be; what
//! leads to all the data (the head, its anchors) is as safe as the piece that wants most.

use holdfast_content::class::{Class, ClassNote};
use holdfast_content::placement::{ChainEnd, PlacementAction};
use holdfast_fs::drive::PieceId;

use super::Engine;
use super::ledger::copies;

impl Engine {
    /// Losses that take a piece, or a stripe, which is as safe as it should be: one more than it survives.
    pub fn wanted(&self, id: &PieceId) -> usize {
        self.ledger.wanted(id, self.policy.copies().into())
    }

    /// Copies that a piece should have.
    pub fn copies_of(&self, id: &PieceId) -> u16 {
        copies(self.ledger.class(id), self.policy.copies())
    }

    /// The most losses that anything on the drive has to survive.
    pub fn highest_losses(&self) -> u8 {
        self.ledger.highest_class().losses(self.policy.survive_losses)
    }

    /// So many providers have to keep the head.
    pub fn head_wanted(&self) -> usize {
        usize::from(self.highest_losses()) + 1
    }

    /// Takes over what the file system wants of its pieces; a piece that the ledger does not know yet comes with its class later.
    pub fn adopt_classes(&self) -> anyhow::Result<()> {
        for (id, class) in self.drive.classes()? {
            if !self.ledger.class(&id).covers(class) {
                self.raise(id, class)?;
            }
        }
        Ok(())
    }

    /// A piece that was just finished.
    pub(super) fn add_classed(&self, id: PieceId, raw_len: u64, class: Class) -> anyhow::Result<()> {
        let sign = |class, chain: &ChainEnd| self.sign_class(id, class, chain);
        Ok(self.ledger.add_classed(id, raw_len, class, self.policy.copies(), sign)?)
    }

    fn raise(&self, id: PieceId, class: Class) -> anyhow::Result<()> {
        let sign = |class, chain: &ChainEnd| self.sign_class(id, class, chain);
        self.ledger.raise(id, class, self.policy.copies(), sign)?;
        Ok(())
    }

    fn sign_class(&self, id: PieceId, class: Class, chain: &ChainEnd) -> Result<(Vec<u8>, ChainEnd), String> {
        let note = ClassNote { class, drive: self.policy.survive_losses };
        self.sign_note(PlacementAction::Class, id, &note.encode(), chain)
    }
}
