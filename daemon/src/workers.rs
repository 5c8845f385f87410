//! The drive's background work, one file for each kind.
//!
//! ```text
//! seal ──commit row──► place ──placement rows──► publish ──head──►  (Placed)
//!                        ▲                                │
//!                        └──────verdict rows── audit ◄────┘      evict: drops local copies of what is safe
//!                        ▲                                               pin: brings back what shall stay
//!                        └──────stripe rows── stripe: makes stripes of copies    public: drops what is public and placed
//! ```
//!
//! Nobody calls anybody: each looks at rows, does one bounded step, commits rows.

pub mod audit;
pub mod evict;
pub mod pin;
pub mod place;
pub mod public;
pub mod publish;
pub mod repair;
pub mod retain;
pub mod seal;
pub mod stripe;
