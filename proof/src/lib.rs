//! The claims of this project about races, retries and faults, and what checks them.
//!
//! [`model`] says what should be so; [`world`] does it with the real store; [`table`] reads what came of it.

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
pub mod model;
pub mod schedule;
pub mod story;
pub mod stage;
mod table;
pub mod world;
