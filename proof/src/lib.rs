//! The claims of this project about races, retries and faults, and what checks them.
//!
//! [`model`] says what should be so; [`world`] does it with the real store; `table` reads what came of it.

#![expect(clippy::indexing_slicing, reason = "only JSON is indexed, by names: what is not there is null")]
#![expect(clippy::too_many_lines, reason = "a list of all commands is as long as there are commands")]
#![expect(
    clippy::wildcard_enum_match_arm,
    reason = "what is asked of a few commands is not so of the others"
)]

pub mod catalogue;
#[cfg(debug_assertions)]
pub mod control;
pub mod engine;
pub mod explain;
pub mod footprint;
#[cfg(debug_assertions)]
mod hand;
pub mod histories;
pub mod interleavings;
pub mod invariants;
pub mod model;
pub mod schedule;
pub mod stage;
pub mod story;
mod table;
pub mod world;
