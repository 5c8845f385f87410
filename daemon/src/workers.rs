//! The drive's background work, one file for each kind.
//!
//! ```text
//! seal ──commit row──► place ──placement rows──► publish ──head──►  (Placed)
//!                        ▲                                │
//!                        └──────verdict rows── audit ◄────┘      evict: drops local copies of what is safe
//!                        ▲                                               pin: brings back what shall stay
//!                        └──────stripe rows── stripe: makes stripes of copies    public: drops what is public and placed
//!
//! policy: raises what folders ask more of than it was packed for
//! share: renews what private links lead to
//! watch: takes over what watchers placed while this machine was off, before anything is placed anew; leaves them what they need
//! ```
//!
//! Nobody calls anybody: each looks at rows, does one bounded step, commits rows.

pub mod audit;
pub mod evict;
pub mod pin;
pub mod place;
pub mod policy;
pub mod public;
pub mod publish;
pub mod repair;
pub mod retain;
pub mod seal;
pub mod share;
pub mod stripe;
pub mod watch;
