//! The seam to money.
//!
//! A deal is agreed and served off chain; a [`Settlement`] backend decides whether a deal's terms bind, and settles
//! later. Backend 0, [`NoSettlement`], is for friends and a homelab: signed deals, audits and quotas, no money.
//! Each call is made again after a crash, so each must be idempotent for one deal.

use std::collections::HashMap;

use async_trait::async_trait;
use parking_lot::Mutex;

use crate::deal::{DealId, DealProposal, SignedProposal, SignedReceipt};

/// Number of the backend without money.
pub const SETTLEMENT_NONE: u8 = 0;

/// Why a backend refuses.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SettlementError {
    /// The proposal names another backend.
    #[error("settlement backend {found}, this side speaks {expected}")]
    WrongBackend {
        /// Named in the proposal.
        found: u8,
        /// Ours.
        expected: u8,
    },
    /// The terms do not hold: no funds, a bad annex, a price where none belongs.
    #[error("settlement refused: {0}")]
    Refused(String),
    /// The backend cannot be asked now.
    #[error("settlement is unavailable: {0}")]
    Unavailable(String),
}

impl SettlementError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        matches!(self, SettlementError::Unavailable(_))
    }
}

/// How far settling has come. A paid slot counts as placed only when [`SettlementState::Active`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SettlementState {
    /// The backend does not know the deal.
    Unknown,
    /// Admitted, not binding yet.
    Pending,
    /// Binding.
    Active,
    /// Over.
    Ended,
}

/// One way to settle deals.
#[async_trait]
pub trait Settlement: Send + Sync {
    /// The number that proposals carry.
    fn backend(&self) -> u8;

    /// Buyer, before signing: fills in what the backend wants of the proposal (`settlement`, `settlement_data`).
    async fn prepare(&self, proposal: &mut DealProposal) -> Result<(), SettlementError>;

    /// Provider, before countersigning: are the terms good?
    async fn admit(&self, proposal: &SignedProposal) -> Result<(), SettlementError>;

    /// Either side, once the receipt exists: makes the deal binding, or starts to.
    async fn activate(
        &self,
        proposal: &SignedProposal,
        receipt: &SignedReceipt,
    ) -> Result<SettlementState, SettlementError>;

    /// How far it is.
    async fn state(&self, deal: DealId) -> Result<SettlementState, SettlementError>;

    /// Either side, when the deal ended, was released, or never came to a receipt.
    async fn end(&self, deal: DealId) -> Result<(), SettlementError>;
}

/// No money: a deal's terms bind by signature alone, and every deal is active once its receipt exists.
#[derive(Debug, Default)]
pub struct NoSettlement;

#[async_trait]
impl Settlement for NoSettlement {
    fn backend(&self) -> u8 {
        SETTLEMENT_NONE
    }

    async fn prepare(&self, proposal: &mut DealProposal) -> Result<(), SettlementError> {
        proposal.settlement = SETTLEMENT_NONE;
        proposal.settlement_data.clear();
        if proposal.price.is_empty() {
            Ok(())
        } else {
            Err(SettlementError::Refused("a price, but no way to pay it".into()))
        }
    }

    async fn admit(&self, proposal: &SignedProposal) -> Result<(), SettlementError> {
        let p = proposal.proposal();
        if p.settlement != SETTLEMENT_NONE {
            return Err(SettlementError::WrongBackend { found: p.settlement, expected: SETTLEMENT_NONE });
        }
        if !p.price.is_empty() || !p.settlement_data.is_empty() {
            return Err(SettlementError::Refused("a price, but no way to pay it".into()));
        }
        Ok(())
    }

    async fn activate(
        &self,
        proposal: &SignedProposal,
        receipt: &SignedReceipt,
    ) -> Result<SettlementState, SettlementError> {
        self.admit(proposal).await?;
        receipt.matches(proposal).map_err(|e| SettlementError::Refused(e.to_string()))?;
        Ok(SettlementState::Active)
    }

    async fn state(&self, _deal: DealId) -> Result<SettlementState, SettlementError> {
        // Nothing is kept: whoever holds a receipt holds an active deal.
        Ok(SettlementState::Unknown)
    }

    async fn end(&self, _deal: DealId) -> Result<(), SettlementError> {
        Ok(())
    }
}

/// A backend in memory that keeps states, for tests of both sides; it may be told to fail.
#[derive(Debug)]
pub struct FakeSettlement {
    backend: u8,
    states: Mutex<HashMap<DealId, SettlementState>>,
    down: Mutex<bool>,
}

impl FakeSettlement {
    /// Speaks as backend `backend`.
    pub fn new(backend: u8) -> FakeSettlement {
        FakeSettlement { backend, states: Mutex::new(HashMap::new()), down: Mutex::new(false) }
    }

    /// While `down`, every call is [`SettlementError::Unavailable`].
    pub fn set_down(&self, down: bool) {
        *self.down.lock() = down;
    }

    fn check(&self) -> Result<(), SettlementError> {
        if *self.down.lock() { Err(SettlementError::Unavailable("told to fail".into())) } else { Ok(()) }
    }
}

#[async_trait]
impl Settlement for FakeSettlement {
    fn backend(&self) -> u8 {
        self.backend
    }

    async fn prepare(&self, proposal: &mut DealProposal) -> Result<(), SettlementError> {
        self.check()?;
        proposal.settlement = self.backend;
        proposal.settlement_data = if self.backend == SETTLEMENT_NONE { vec![] } else { b"escrow".to_vec() };
        Ok(())
    }

    async fn admit(&self, proposal: &SignedProposal) -> Result<(), SettlementError> {
        self.check()?;
        let found = proposal.proposal().settlement;
        if found != self.backend {
            return Err(SettlementError::WrongBackend { found, expected: self.backend });
        }
        self.states.lock().entry(proposal.deal_id()).or_insert(SettlementState::Pending);
        Ok(())
    }

    async fn activate(
        &self,
        proposal: &SignedProposal,
        receipt: &SignedReceipt,
    ) -> Result<SettlementState, SettlementError> {
        self.admit(proposal).await?;
        receipt.matches(proposal).map_err(|e| SettlementError::Refused(e.to_string()))?;
        let mut states = self.states.lock();
        let state = states.entry(proposal.deal_id()).or_insert(SettlementState::Pending);
        if *state == SettlementState::Pending {
            *state = SettlementState::Active;
        }
        Ok(*state)
    }

    async fn state(&self, deal: DealId) -> Result<SettlementState, SettlementError> {
        self.check()?;
        Ok(self.states.lock().get(&deal).copied().unwrap_or(SettlementState::Unknown))
    }

    async fn end(&self, deal: DealId) -> Result<(), SettlementError> {
        self.check()?;
        self.states.lock().insert(deal, SettlementState::Ended);
        Ok(())
    }
}
