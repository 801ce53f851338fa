//! Each function's documented statuses, against its recorded events: each documented one has an
//! event, and each recorded one is documented.

use std::collections::BTreeSet;

use super::{
    contract::documentation,
    replay::{Case, cases},
};

type Refusal = (u16, String);

/// The refusals in the table of a function's documentation.
fn documented(function: &str) -> BTreeSet<Refusal> {
    let mut refusals = BTreeSet::new();
    for line in documentation(function) {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, status, codes, _, _] = cells.as_slice() else { continue };
        let Ok(status) = status.parse() else { continue };
        refusals.extend(codes.split(',').map(|code| (status, code.trim().trim_matches('`').to_owned())));
    }
    refusals
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
