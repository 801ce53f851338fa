//! Random histories against the model, on the embedded engine.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use proof::{engine::Engine, histories::Histories};

fn histories(count: u32) -> Histories {
    Histories { engine: Engine::embedded().unwrap(), count, seed: 1 }
}

#[test]
fn one_after_another_everything_is_answered_as_the_model_says() {
    if let Err(violation) = histories(200).sequential(|_| {}) {
        unreachable!("{violation}");
    }
}

#[test]
fn at_once_everything_could_have_come_one_after_another() {
    if let Err(violation) = histories(300).concurrent(|_| {}) {
        unreachable!("{violation}");
    }
}
