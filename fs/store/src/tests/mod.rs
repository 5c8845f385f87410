//! Tests of the store as a whole.
#![allow(clippy::unwrap_used)]

mod basics;
mod crash;
mod full;
mod ranges;
mod support;
