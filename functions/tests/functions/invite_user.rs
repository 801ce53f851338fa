//! `POST /api/bucket/{id}/add_user`

use serde_json::{Value, json};

use super::{
    api::{Api, path},
    invariants,
};

#[tokio::test]
async fn a_person_who_has_signed_in_is_a_member_at_once() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let member = api.user("member@example.com").await;
    member.get("/api/bucket").await.ok();

    let answer = owner.invites(&bucket, " Member@EXAMPLE.com ", "developer").await.ok();

    assert_eq!(answer, json!({ "invitations": [] }));
    assert_eq!(member.bucket_names().await, ["Servers"]);
    let members = [("owner@example.com", "owner"), ("member@example.com", "developer")];
    assert_eq!(
        owner.members(&bucket).await,
        members.map(|(email, role)| (email.to_owned(), role.to_owned()))
    );
    invariants::hold(&api).await;
}

#[tokio::test]
async fn an_address_of_nobody_is_invited_and_becomes_a_member_at_first_sign_in() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;

    let answer = owner.invites(&bucket, "new@example.com", "admin").await.ok();

    let invitation = &answer["invitations"][0];
    assert_eq!(answer["invitations"].as_array().unwrap().len(), 1);
    assert_eq!((&invitation["email"], &invitation["role"]), (&json!("new@example.com"), &json!("admin")));
    assert_eq!(invitation["invited_by"], owner.self_view().await["_id"]);
    assert_eq!(owner.members(&bucket).await.len(), 1);
    invariants::hold(&api).await;

    let new = api.user("New@example.com").await;
    assert_eq!(new.get(&path(&bucket, "/current_role")).await.ok(), json!({ "role": "admin" }));
    assert_eq!(owner.get(&path(&bucket, "/invitations")).await.ok(), json!({ "invitations": [] }));
    invariants::hold(&api).await;
}

#[tokio::test]
async fn the_role_is_user_unless_another_is_given() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;

    for body in [json!({ "email": "a@example.com" }), json!({ "email": "b@example.com", "role": null })] {
        owner.post(&path(&bucket, "/add_user"), &body).await.ok();
    }

    let rows = api.rows_of("invitation").await;
    assert!(rows.iter().all(|row| row["role"] == "user"), "{rows:?}");
    assert_eq!(rows.len(), 2);
}

#[tokio::test]
async fn inviting_again_renews_and_takes_no_second_seat() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "new@example.com", "user").await.ok();
    let mut row = api.rows_of("invitation").await.remove(0);
    let week = row["expires_at"].as_i64().unwrap() - row["created_at"].as_i64().unwrap();
    assert_eq!(week, 7 * 86_400_000);
    row["expires_at"] = json!(1);
    api.put_row(&row).await;
    assert_eq!(owner.get(&path(&bucket, "/invitations")).await.ok(), json!({ "invitations": [] }));

    let answer = owner.invites(&bucket, "new@example.com", "developer").await.ok();

    assert_eq!(answer["invitations"][0]["role"], "developer");
    assert!(api.rows_of("invitation").await[0]["expires_at"].as_i64().unwrap() > 1);
    assert_eq!(api.rows_of("bucket").await[0]["seats_used"], 2);
    invariants::hold(&api).await;
}

#[tokio::test]
async fn a_full_bucket_takes_nobody_and_says_so() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let member = api.user("member@example.com").await;
    member.get("/api/bucket").await.ok();
    let bucket = owner.creates_bucket("Servers").await;
    for number in 0..4 {
        owner.invites(&bucket, &format!("{number}@example.com"), "user").await.ok();
    }
    let rows = api.rows().await;

    for email in ["new@example.com", "member@example.com"] {
        let detail = owner.invites(&bucket, email, "user").await.is_problem(403, "seat_limit");
        assert_eq!(
            detail,
            "all 5 seats of the bucket's plan are taken; remove somebody or an invitation first"
        );
    }

    assert_eq!(api.rows().await, rows);
    // A seat that is there is not needed twice.
    owner.invites(&bucket, "0@example.com", "admin").await.ok();
    invariants::hold(&api).await;
}

#[tokio::test]
async fn expired_invitations_give_way_when_a_seat_is_needed() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    for number in 0..4 {
        owner.invites(&bucket, &format!("{number}@example.com"), "user").await.ok();
    }
    for mut row in api.rows_of("invitation").await.into_iter().take(2) {
        row["expires_at"] = json!(1);
        api.put_row(&row).await;
    }

    let answer = owner.invites(&bucket, "new@example.com", "user").await.ok();

    assert_eq!(answer["invitations"].as_array().unwrap().len(), 3);
    assert_eq!(api.rows_of("bucket").await[0]["seats_used"], 4);
    invariants::hold(&api).await;
}

#[tokio::test]
async fn an_expired_invitation_makes_nobody_a_member() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "new@example.com", "user").await.ok();
    let mut row = api.rows_of("invitation").await.remove(0);
    row["expires_at"] = json!(1);
    api.put_row(&row).await;

    assert_eq!(api.user("new@example.com").await.get("/api/bucket").await.ok(), json!([]));

    assert_eq!(api.rows_of("bucket").await[0]["seats_used"], 1);
    invariants::hold(&api).await;
}

#[tokio::test]
async fn what_an_inviter_may_no_longer_grant_the_invitation_no_longer_gives() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let (admin, gone) = (api.user("admin@example.com").await, api.user("gone@example.com").await);
    let bucket = owner.creates_bucket("Servers").await;
    owner.adds(&bucket, &admin, "admin").await;
    owner.adds(&bucket, &gone, "admin").await;
    admin.invites(&bucket, "a@example.com", "admin").await.ok();
    gone.invites(&bucket, "b@example.com", "developer").await.ok();
    owner.sets_role(&bucket, "admin@example.com", "developer").await.ok();
    owner.removes(&bucket, "gone@example.com").await.ok();

    for invitee in ["a@example.com", "b@example.com"] {
        let role = api.user(invitee).await.get(&path(&bucket, "/current_role")).await.ok();
        assert_eq!(role, json!({ "role": "user" }), "{invitee}");
    }
    invariants::hold(&api).await;
}

#[tokio::test]
async fn an_unverified_address_claims_nothing_and_is_not_found() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "new@example.com", "user").await.ok();
    let unverified = api.user("new@example.com#unverified").await;

    assert_eq!(unverified.get("/api/bucket").await.ok(), json!([]));
    unverified.get(&path(&bucket, "")).await.is_problem(404, "bucket_not_found");
    owner.sets_role(&bucket, "new@example.com", "admin").await.is_problem(404, "user_not_found");
    assert_eq!(api.rows_of("invitation").await.len(), 1);

    assert_eq!(api.user("new@example.com").await.bucket_names().await, ["Servers"]);
    // Verified once, the person is known whatever a later token says.
    assert_eq!(unverified.bucket_names().await, ["Servers"]);
}

/// Leaves the table as a crash right behind the first transaction of new@example.com's sign-in does.
async fn interrupted_sign_in(api: &Api) {
    let id = shared::domain::UserId::of_subject(api.stack.identity().issuer(), "new@example.com");
    api.put_row(&json!({
        "pk": format!("USER#{}", id.as_str()), "sk": "USER", "type": "user", "id": id.as_str(),
        "email": "new@example.com", "email_from": 0, "username": "new", "buckets_owned": 0, "unfinished": true,
    }))
    .await;
    api.put_row(&json!({
        "pk": "EMAIL#new@example.com", "sk": "USER", "type": "email_claim", "email": "new@example.com",
        "user_id": id.as_str(),
    }))
    .await;
}

#[tokio::test]
async fn an_interrupted_first_sign_in_is_completed_by_the_next_request() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "new@example.com", "admin").await.ok();
    interrupted_sign_in(&api).await;

    let role = api.user("new@example.com").await.get(&path(&bucket, "/current_role")).await.ok();

    assert_eq!(role, json!({ "role": "admin" }));
    invariants::hold(&api).await;
}

#[tokio::test]
async fn who_adds_an_interrupted_person_completes_the_sign_in_first() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "new@example.com", "admin").await.ok();
    interrupted_sign_in(&api).await;

    owner.invites(&bucket, "new@example.com", "user").await.is_problem(400, "already_member");

    assert_eq!(api.rows_of("bucket").await[0]["seats_used"], 2);
    invariants::hold(&api).await;
}

#[tokio::test]
async fn a_changed_address_moves_the_claim_and_the_memberships() {
    let api = Api::start().await;
    let claims = |email: &str| json!({ "sub": "person", "email": email, "email_verified": true });
    let owner = api.user("owner@example.com").await;
    let (first, second) = (owner.creates_bucket("First").await, owner.creates_bucket("Second").await);
    api.user_with_claims(&claims("old@example.com")).get("/api/bucket").await.ok();
    owner.invites(&first, "old@example.com", "admin").await.ok();
    owner.invites(&second, "new@example.com", "developer").await.ok();
    owner.invites(&first, "new@example.com", "user").await.ok();

    let moved = api.user_with_claims(&claims("new@example.com"));
    assert_eq!(moved.bucket_names().await, ["First", "Second"]);

    let named =
        |members: Vec<(String, String)>| members.into_iter().map(|(email, _)| email).collect::<Vec<_>>();
    assert_eq!(named(owner.members(&first).await), ["owner@example.com", "new@example.com"]);
    assert_eq!(named(owner.members(&second).await), ["owner@example.com", "new@example.com"]);
    owner.removes(&first, "old@example.com").await.is_problem(404, "user_not_found");
    invariants::hold(&api).await;

    // An older token of the same person, still good, moves nothing back.
    let (mut older, identity) = (claims("old@example.com"), api.stack.identity());
    older.as_object_mut().unwrap().extend([
        ("iss".to_owned(), json!(identity.issuer())),
        ("aud".to_owned(), json!(identity.audience())),
        ("exp".to_owned(), json!(4_102_444_800_u32)),
        ("iat".to_owned(), json!(1)),
    ]);
    let older = api.bearer(&identity.sign(&older).unwrap());
    assert_eq!(older.self_view().await["email"], "new@example.com");

    // The former address is free, for whoever verifies it.
    let other =
        api.user_with_claims(&json!({ "sub": "other", "email": "old@example.com", "email_verified": true }));
    other.creates_bucket("Third").await;
    // And an address that somebody has is not taken over.
    let still =
        api.user_with_claims(&json!({ "sub": "other", "email": "new@example.com", "email_verified": true }));
    assert_eq!(still.self_view().await["email"], "old@example.com");
    invariants::hold(&api).await;
}

#[tokio::test]
async fn who_moves_to_an_address_that_they_invited_themselves_keeps_one_seat() {
    let api = Api::start().await;
    let claims = |email: &str| json!({ "sub": "person", "email": email, "email_verified": true });
    let owner = api.user("owner@example.com").await;
    let (stays, leaves) = (owner.creates_bucket("Stays").await, owner.creates_bucket("Leaves").await);
    let person = api.user_with_claims(&claims("old@example.com"));
    for bucket in [&stays, &leaves] {
        owner.adds(bucket, &person, "admin").await;
        person.invites(bucket, "new@example.com", "admin").await.ok();
    }
    person.removes(&leaves, "old@example.com").await.ok();

    let moved = api.user_with_claims(&claims("new@example.com"));
    moved.get("/api/bucket").await.ok();

    assert_eq!(moved.get(&path(&stays, "/current_role")).await.ok(), json!({ "role": "admin" }));
    assert_eq!(moved.get(&path(&leaves, "/current_role")).await.ok(), json!({ "role": "user" }));
    assert!(api.rows_of("bucket").await.iter().all(|row| row["seats_used"] == 2));
    invariants::hold(&api).await;
}

#[tokio::test]
async fn bad_input_names_the_field_and_changes_nothing() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let rows = api.rows().await;

    for (body, field) in [
        (json!({}), "email"),
        (json!({ "email": null }), "email"),
        (json!({ "email": "nobody" }), "email"),
        (json!({ "email": "a@example.com,b@example.com" }), "email"),
        (json!({ "email": ["a@example.com"] }), "email"),
        (json!({ "email": "a@example.com", "role": "owner" }), "role"),
        (json!({ "email": "a@example.com", "role": "Admin" }), "role"),
        (json!({ "email": "a@example.com", "role": 1 }), "role"),
    ] {
        owner.post(&path(&bucket, "/add_user"), &body).await.blames(&[field]);
    }
    owner.invites(&bucket, "owner@example.com", "user").await.is_problem(400, "already_member");
    assert_eq!(api.rows().await, rows);
}

#[tokio::test]
async fn an_invitation_to_a_deleted_bucket_brings_nobody_in() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "new@example.com", "user").await.ok();
    owner.delete(&path(&bucket, "")).await.ok();

    assert_eq!(api.user("new@example.com").await.get("/api/bucket").await.ok(), json!([]));
    owner.invites(&bucket, "other@example.com", "user").await.is_problem(404, "bucket_not_found");
    assert_eq!(api.rows_of("member").await.iter().filter(|row| row["email"] == "new@example.com").count(), 0);
    let invited: Vec<Value> = api.rows_of("invitation").await;
    assert!(invited.iter().all(|row| row["email"] != "other@example.com"));
}
