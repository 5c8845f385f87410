//! What the tests and benchmarks share.
//!
//! Owns: a file system that loses power (`powercut`), the programs under test started as real processes (`harness`), and
//! the means to say that what came back is what went in (`compare`, `ledger`, `search`), and a reader of drives that has
//! nothing but the words and the providers (`fetch`), and a model of a file system that a history of calls is compared with
//! (`reference`). For the benchmarks: what a piece of work costs (`measure`), and a bare stream to hold it against (`raw`).
//!
//! Promises: a test talks to the product only as a person or a program would (its command line, its mountpoint, its
//! sockets), and ends only processes that it started, by their id.

pub mod compare;
pub mod fetch;
pub mod fixture;
pub mod harness;
pub mod ledger;
pub mod measure;
pub mod plot;
pub mod powercut;
pub mod raw;
pub mod reference;
pub mod search;
