//! What the functions cost: `cargo run --release -p bench` starts each binary many times over a Lambda Runtime API
//! of its own, hands it events, and sets what that took beside a function that does nothing.
//!
//! The binaries are those that ship, nothing in them knows of this. What they ask of the table goes to the stack of
//! the crate `local`, in this process: so the processor time of a function is its own alone.

mod document;
mod failure;
mod functions;
mod growth;
mod instance;
mod plot;
mod proxy;
mod routes;
mod samples;
mod stage;
mod table;
mod throughput;

pub use document::{Circumstances, Section, put_in};
pub use failure::Failure;
pub use functions::{Cost, Effort, Subject, measure};
pub use growth::{Growth, Sizes, grow};
pub use instance::{Bootstrap, Instance, Invocation};
pub use plot::plot;
pub use routes::{RouteCost, count};
pub use samples::Samples;
pub use stage::{Other, Stage};
pub use throughput::{Load, load};
