//! `POST /api/bucket/{id}/manage_notif`

use serde_json::{Value, json};

use super::api::{Api, Person, path};

async fn sets(person: &Person<'_>, bucket: &Value, email: &str, state: &str) -> super::api::Answer {
    person.post(&path(bucket, "/manage_notif"), &json!({ "email": email, "state": state })).await
}

fn states(answer: &Value) -> Vec<(&str, &str)> {
    let states = answer.as_array().unwrap().iter();
    states.map(|row| (row["email"].as_str().unwrap(), row["state"].as_str().unwrap())).collect()
}

#[tokio::test]
async fn members_set_their_own_state_and_admins_everybodys() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let (user, admin) = (api.user("user@example.com").await, api.user("admin@example.com").await);
    owner.adds(&bucket, &user, "user").await;
    owner.adds(&bucket, &admin, "admin").await;

    let answer = sets(&user, &bucket, "User@example.com", "none").await.ok();
    let expected =
        [("owner@example.com", "email"), ("user@example.com", "none"), ("admin@example.com", "email")];
    assert_eq!(states(&answer), expected);
    assert_eq!(answer[1]["_id"], user.self_view().await["_id"]);
    assert_eq!(answer[1]["username"], "user");

    // As the published reference spells it.
    assert_eq!(states(&sets(&admin, &bucket, "owner@example.com", "nonde").await.ok())[0].1, "none");
    assert_eq!(states(&sets(&admin, &bucket, "user@example.com", "email").await.ok())[1].1, "email");
    sets(&user, &bucket, "owner@example.com", "email").await.is_problem(403, "role_too_low");
}

#[tokio::test]
async fn bad_input_names_the_field_and_changes_nothing() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let rows = api.rows().await;

    for (body, field) in [
        (json!({ "state": "none" }), "email"),
        (json!({ "email": "owner@example.com" }), "state"),
        (json!({ "email": "owner@example.com", "state": "sms" }), "state"),
        (json!({ "email": "owner@example.com", "state": null }), "state"),
    ] {
        owner.post(&path(&bucket, "/manage_notif"), &body).await.blames(&[field]);
    }
    sets(&owner, &bucket, "nobody@example.com", "none").await.is_problem(404, "user_not_found");
    assert_eq!(api.rows().await, rows);
}
