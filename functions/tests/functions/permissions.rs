//! The permissions that the template gives: each function has those that it uses, and no others.
//!
//! One that is missing fails every test of what needs it, since the local stack refuses it as AWS does. One
//! too many is found here: the functions are driven through what they do, and the stacks say what they asked
//! for.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use serde_json::{Value, json};

use super::{
    api::{Api, path},
    every_route, replay,
};

/// The actions that each function has used.
type Used = BTreeMap<String, BTreeSet<String>>;

/// Waits until everything that was committed is followed up.
async fn settled(api: &Api) {
    let is_settled = api.stack.settled(Duration::from_secs(20)).await;
    let cause = api.logs().into_iter().rfind(|line| line.contains("\"error\""));
    assert!(is_settled, "notify cannot follow up what was committed: {cause:?}");
}

/// What the functions of `api` have used. Ends it.
async fn used(api: Api) -> Used {
    settled(&api).await;
    let functions = api.stack.template().functions.iter();
    let used =
        functions.map(|function| (function.name.clone(), api.stack.actions_used(&function.name))).collect();
    api.stack.stop().await;
    used
}

/// Has the table of the recorded events as it was before the first of them. What came of the changes since
/// is over by then: a deleted bucket must not live again before it is cleared.
async fn restore(api: &Api) {
    settled(api).await;
    let (table, rows) = (api.table(), replay::table());
    let is_in = |rows: &[Value], row: &Value| {
        rows.iter().any(|kept| kept["pk"] == row["pk"] && kept["sk"] == row["sk"])
    };
    for row in api.rows().await {
        if !is_in(&rows, &row) {
            table.delete(&row).await;
        }
    }
    table.put_all(&rows).await;
}

/// Every recorded event of a deployment with an account at Stripe, or of one without.
async fn recorded_events(api: &Api, are_paid: bool) {
    for case in replay::cases() {
        // The embedded provider answers to the other people of this test.
        if case.is_paid() != are_paid || case.function == "oauth_token" {
            continue;
        }
        // A function that cannot start is an error.
        let _ = api.stack.invoke(&case.function, case.event().to_string().into_bytes()).await;
        // A refusal has changed nothing that others look at.
        if case.recorded_answer()["status"].as_u64().is_none_or(|status| status < 300) {
            restore(api).await;
        }
    }
}

/// Stripe tells of a subscription while a change is there that its author has left, and that nothing came of.
async fn an_event_meets_a_change_that_was_left(api: &Api) {
    let rows = replay::table();
    let row_of = |kind: &str| rows.iter().find(|row| row["type"] == kind).unwrap().clone();
    let mut change = row_of("billing_change");
    change["lease_until"] = json!(0);
    // Of whom Stripe knows nothing.
    assert!(row_of("user")["stripe_customer"].is_null());
    change["actor_id"] = row_of("user")["id"].take();
    api.put_row(&change).await;
    let cases = replay::cases();
    let is_its =
        |case: &&replay::Case| case.function == "stripe_webhook" && case.name() == "paid_plan_changing";
    let event = cases.iter().find(is_its).unwrap().event();
    let _ = api.stack.invoke("stripe_webhook", event.to_string().into_bytes()).await;
}

/// On every route comes somebody who was invited and has never been seen: their invitation is taken up first.
/// The last bucket is deleted.
async fn first_sights(api: &Api) {
    let owner = api.user("owner@example.com").await;
    for number in 0.. {
        let created = owner.post("/api/bucket/create_classic", &json!({ "name": "Servers" })).await;
        let bucket = &created.body["bucket"];
        let Some(id) = bucket["_id"].as_str() else { return };
        let calls = every_route::calls(api, id);
        let Some(call) = calls.get(number) else {
            owner.delete(&path(bucket, "")).await;
            return;
        };
        if call.is_public() {
            continue;
        }
        let email = format!("{number}@example.com");
        owner.invites(bucket, &email, "user").await;
        let newcomer = api.user(&email).await;
        api.send(&call.method, &call.path, Some(&newcomer.token), Some(r#"{"name":"Own"}"#)).await;
    }
}

// Nothing on the way is asserted: whatever is not done shows as an action that is not used.
#[tokio::test]
async fn every_function_may_do_what_it_does_and_nothing_else() {
    let (free, paid, new) = tokio::join!(
        async {
            let api = replay::recorded(false).await;
            recorded_events(&api, false).await;
            used(api).await
        },
        async {
            let api = replay::recorded(true).await;
            recorded_events(&api, true).await;
            an_event_meets_a_change_that_was_left(&api).await;
            used(api).await
        },
        async {
            let api = Api::with_parameters(&[("BucketsPerOwner", "999")]).await;
            first_sights(&api).await;
            used(api).await
        },
    );

    let template = Api::start().await.stack.template().clone();
    let (mut missing, mut needless) = (Vec::new(), Vec::new());
    for function in &template.functions {
        let used: BTreeSet<_> =
            [&free, &paid, &new].iter().flat_map(|used| &used[&function.name]).cloned().collect();
        let allowed = function.actions_allowed();
        let named = |action: &String| format!("{}: {action}", function.logical_id);
        missing.extend(used.difference(&allowed).map(named));
        needless.extend(allowed.difference(&used).map(named));
    }
    assert!(missing.is_empty(), "these are used and not allowed: {missing:#?}");
    assert!(needless.is_empty(), "these are allowed and not used: {needless:#?}");
}
