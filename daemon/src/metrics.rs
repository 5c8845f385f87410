//! Metrics: a drive's or a provider's figures as a page that Prometheus and its like read.
//!
//! ```text
//! status report -> drive::page / provider::page -> Exposition (text) -> Endpoint: GET /metrics
//! ```
//!
//! Promises: the page is made of the same report that `holdfast status` shows, so the two never differ; counts, bytes, times
//! and states are in it, and no name, path, address, identity or key. It listens on this machine only, unless an address is
//! named. Refuses to be asked for anything else.

mod drive;
mod endpoint;
mod exposition;
mod provider;

pub use drive::page as drive_page;
pub(crate) use endpoint::judge_any;
pub use endpoint::{Endpoint, MetricsError, Page, parse_address};
pub use provider::page as provider_page;
