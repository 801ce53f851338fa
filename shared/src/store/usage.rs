//! What a request used of the table, measured where it is used.

use std::cell::RefCell;

use aws_sdk_dynamodb::types::ConsumedCapacity;

/// What was used.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Usage {
    /// Calls to the table, retries of the SDK not counted.
    pub calls: u32,
    /// Read request units.
    pub read_units: f64,
    /// Write request units.
    pub write_units: f64,
}

tokio::task_local! {
    static USAGE: RefCell<Usage>;
}

/// Runs `work` and tells what it used of the table.
pub async fn measured<F: Future>(work: F) -> (F::Output, Usage) {
    USAGE
        .scope(RefCell::default(), async {
            let output = work.await;
            (output, USAGE.with(|usage| *usage.borrow()))
        })
        .await
}

/// Adds one call to the usage of the request that is running, if one is.
pub(super) fn record<'a>(kind: Kind, consumed: impl IntoIterator<Item = &'a ConsumedCapacity>) {
    let units: f64 = consumed.into_iter().filter_map(ConsumedCapacity::capacity_units).sum();
    // Outside a request, during INIT, there is nothing to add to.
    let _outside = USAGE.try_with(|usage| {
        let mut usage = usage.borrow_mut();
        usage.calls += 1;
        match kind {
            Kind::Read => usage.read_units += units,
            Kind::Write => usage.write_units += units,
        }
    });
}

/// What a call does.
#[derive(Clone, Copy, Debug)]
pub(super) enum Kind {
    Read,
    Write,
}
