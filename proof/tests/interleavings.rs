//! Every order of the calls of every two changes of one bucket.

use proof::{engine::Engine, interleavings::explore};

/// A few pairs have thousands of orders: `cargo run -p proof -- interleavings` runs all of them.
const BOUND: u32 = 100;

#[test]
fn whatever_two_changes_do_between_each_others_calls() {
    let found = explore(&[(); 2].map(|()| Engine::embedded().unwrap()), BOUND).unwrap();

    assert!(found.wrong.is_empty(), "{} went wrong:\n{}", found.wrong.len(), found.wrong.join("\n"));
    assert!(found.pairs > 1_000 && found.orders > 8_000, "{found:?}");
    assert!(found.cut_off.len() < 100, "{:?}", found.cut_off);
}
