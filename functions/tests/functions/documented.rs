//! Each function's documented statuses, against its recorded events: each documented one has an
//! event, and each recorded one is documented.

use std::collections::BTreeSet;

use openapi::Page;

use super::{
    api::workspace,
    replay::{Case, cases},
};

type Refusal = (u16, String);

/// The refusals in the table of a function's page.
fn documented(function: &str) -> BTreeSet<Refusal> {
    let page = Page::read(&workspace(), function).unwrap();
    let refusals = page.refusals.into_iter();
    refusals.flat_map(|refusal| refusal.codes.into_iter().map(move |code| (refusal.status, code))).collect()
}

#[test]
fn every_documented_status_has_an_event_and_every_recorded_one_is_documented() {
    let cases = cases();
    // What is not called over HTTP has no statuses.
    let functions: BTreeSet<_> =
        cases.iter().map(|case| case.function.clone()).filter(|function| function != "notify").collect();
    for function in functions {
        let answers: Vec<_> =
            cases.iter().filter(|case| case.function == function).map(Case::recorded_answer).collect();
        let recorded: BTreeSet<_> = answers
            .iter()
            .filter(|answer| answer["status"] != 200)
            .map(|answer| {
                let code = answer["body"]["code"].as_str().unwrap().to_owned();
                (u16::try_from(answer["status"].as_u64().unwrap()).unwrap(), code)
            })
            .collect();

        assert_eq!(documented(&function), recorded, "{function}");
        assert!(
            function == "not_found" || answers.iter().any(|answer| answer["status"] == 200),
            "{function} has no event that succeeds"
        );
    }
}
