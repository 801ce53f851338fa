//! What follows a commit: mails, and the clearing of deleted buckets.

use std::time::Duration;

use serde_json::{Value, json};

use super::{
    api::{Api, path},
    invariants,
};

/// The mails that have gone out once everything has been followed up, oldest first.
async fn mails(api: &Api) -> Vec<Value> {
    assert!(api.stack.settled(Duration::from_secs(20)).await, "the stream is not followed up");
    let mut mails = api.send("GET", "/_local/mail.json", None, None).await.ok();
    let mails = mails.as_array_mut().unwrap();
    mails.reverse();
    mails.clone()
}

/// Receiver and subject of each mail.
fn summary(mails: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    mails.iter().map(|mail| (text(&mail["to"][0]), text(&mail["subject"]))).collect()
}

fn expected(mails: &[(&str, &str)]) -> Vec<(String, String)> {
    mails.iter().map(|(to, subject)| ((*to).to_owned(), (*subject).to_owned())).collect()
}

#[tokio::test]
async fn invitations_additions_and_new_owners_are_mailed() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let member = api.user("member@example.com").await;
    let bucket = owner.creates_bucket("Tom & Jerry").await;

    owner.invites(&bucket, "new@example.com", "developer").await.ok();
    owner.adds(&bucket, &member, "admin").await;
    owner.transfers(&bucket, "member@example.com").await.ok();

    let mails = mails(&api).await;
    assert_eq!(
        summary(&mails),
        expected(&[
            ("new@example.com", "owner invites you to Tom & Jerry"),
            ("member@example.com", "owner has added you to Tom & Jerry"),
            ("member@example.com", "Tom & Jerry is yours now"),
        ])
    );
    let invitation = &mails[0];
    assert_eq!(invitation["from"], "bucket-api@example.com");
    let (text, html) = (invitation["text"].as_str().unwrap(), invitation["html"].as_str().unwrap());
    let link = format!("/#/bucket/{}", bucket["_id"].as_str().unwrap());
    assert!(text.contains("\"Tom & Jerry\", as developer") && text.contains(&link), "{text}");
    assert!(html.contains("Tom &amp; Jerry"), "{html}");
}

#[tokio::test]
async fn inviting_again_mails_again_and_other_changes_mail_nobody() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "new@example.com", "user").await.ok();
    owner.invites(&bucket, "new@example.com", "admin").await.ok();
    // Who signs in before that is in already, and not mailed an invitation any more.
    assert_eq!(mails(&api).await.len(), 2);
    owner.put(&path(&bucket, ""), &json!({ "comment": "New" })).await.ok();
    owner.put(&path(&bucket, "/user_options"), &json!({ "options": {} })).await.ok();
    owner.put(&path(&bucket, "/feedback"), &json!({ "feedback": "Good" })).await.ok();
    api.user("new@example.com").await.get("/api/bucket").await.ok();

    let invitation = ("new@example.com", "owner invites you to Servers");
    assert_eq!(summary(&mails(&api).await), expected(&[invitation, invitation]));
}

#[tokio::test]
async fn a_refusal_mails_nobody() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "owner@example.com", "user").await.is_problem(400, "already_member");
    owner.invites(&bucket, "nobody", "user").await.is_problem(400, "invalid_input");
    api.user("out@example.com")
        .await
        .invites(&bucket, "a@example.com", "user")
        .await
        .is_problem(404, "bucket_not_found");

    assert_eq!(mails(&api).await, [] as [Value; 0]);
}

/// A batch of stream records with the audit rows of `action` in `rows` as inserted.
fn batch(rows: &[Value], action: &str) -> Vec<u8> {
    batch_of(rows.iter().filter(|row| row["type"] == "audit" && row["action"] == action))
}

/// A batch of stream records with `rows` as inserted, in their order.
fn batch_of<'r>(rows: impl IntoIterator<Item = &'r Value>) -> Vec<u8> {
    let records: Vec<Value> = rows
        .into_iter()
        .map(|row| {
            let image: Value = row
                .as_object()
                .unwrap()
                .iter()
                .map(|(name, value)| match value {
                    Value::Number(number) => (name.clone(), json!({ "N": number.to_string() })),
                    Value::Null | Value::Bool(_) | Value::String(_) | Value::Array(_) | Value::Object(_) => {
                        (name.clone(), json!({ "S": value }))
                    }
                })
                .collect();
            json!({ "eventName": "INSERT", "dynamodb": { "SequenceNumber": row["id"], "NewImage": image } })
        })
        .collect();
    assert!(!records.is_empty());
    json!({ "Records": records }).to_string().into_bytes()
}

async fn deliver(api: &Api, action: &str) -> Value {
    delivered(api, batch(&api.rows().await, action)).await
}

/// What `notify` answers to `batch`.
async fn delivered(api: &Api, batch: Vec<u8>) -> Value {
    serde_json::from_slice(&api.stack.invoke("notify", batch).await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_batch_goes_as_far_as_what_fails_and_on_from_there_and_every_mail_goes_once() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    for name in ["a", "b", "c"] {
        owner.invites(&bucket, &format!("{name}@example.com"), "user").await.ok();
    }
    assert_eq!(mails(&api).await.len(), 3);
    // As if nothing had been mailed yet, and another delivery were sending the one in the middle.
    let mut rows = api.rows_of("audit").await;
    rows.retain(|row| row["action"] == "invite");
    rows.reverse();
    for (number, row) in rows.iter().enumerate() {
        let mut row = row.clone();
        if number == 1 {
            row["mail_lease"] = json!(4_102_444_800_000_u64);
        }
        api.put_row(&row).await;
    }

    let first = delivered(&api, batch_of(&rows)).await;

    assert_eq!(first, json!({ "batchItemFailures": [{ "itemIdentifier": rows[1]["id"] }] }));
    assert_eq!(mails(&api).await.len(), 4);
    // Lambda delivers what failed, and all behind it, once more; and perhaps what went before, too.
    let mut row = rows[1].clone();
    row["mail_lease"] = json!(1);
    api.put_row(&row).await;
    for _ in 0..2 {
        assert_eq!(delivered(&api, batch_of(&rows)).await, json!({ "batchItemFailures": [] }));
    }
    let invitation = |to| (to, "owner invites you to Servers");
    let [a, b, c] = ["a@example.com", "b@example.com", "c@example.com"].map(invitation);
    assert_eq!(summary(&mails(&api).await), expected(&[a, b, c, c, b, a]));
}

#[tokio::test]
async fn a_deletion_that_comes_before_what_it_ends_clears_all_and_mails_nobody() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let member = api.user("member@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.adds(&bucket, &member, "user").await;
    owner.invites(&bucket, "new@example.com", "user").await.ok();
    assert_eq!(mails(&api).await.len(), 2);
    // As if nothing had been mailed yet, and the bucket were just deleted.
    let mut row = api.rows_of("bucket").await.remove(0);
    row["deleted_at"] = json!(1);
    api.put_row(&row).await;
    let mut records = api.rows_of("audit").await;
    for row in &records {
        api.put_row(row).await;
    }
    records[0]["action"] = json!("delete");

    for _ in 0..2 {
        assert_eq!(delivered(&api, batch_of(&records)).await, json!({ "batchItemFailures": [] }));
        records.reverse();
    }

    assert_eq!(mails(&api).await.len(), 2);
    let rows = api.rows().await;
    let mut left: Vec<_> = rows.iter().map(|row| row["type"].as_str().unwrap()).collect();
    left.sort_unstable();
    left.dedup();
    assert_eq!(left, ["agent_key", "audit", "bucket", "email_claim", "user"]);
}

#[tokio::test]
async fn a_record_that_is_delivered_again_sends_nothing_again() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "new@example.com", "user").await.ok();
    assert_eq!(mails(&api).await.len(), 1);

    for _ in 0..3 {
        assert_eq!(deliver(&api, "invite").await, json!({ "batchItemFailures": [] }));
    }

    assert_eq!(mails(&api).await.len(), 1);
}

#[tokio::test]
async fn two_deliveries_at_once_send_one_mail() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    for round in 0..10 {
        owner.invites(&bucket, "new@example.com", "user").await.ok();
        let batch = batch(&api.rows().await, "invite");

        let deliver = || api.stack.invoke("notify", batch.clone());
        futures_util::future::join3(deliver(), deliver(), deliver()).await.0.unwrap();

        assert_eq!(mails(&api).await.len(), round + 1);
    }
}

#[tokio::test]
async fn a_mail_that_another_delivery_is_sending_is_asked_for_again_later() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "new@example.com", "user").await.ok();
    assert_eq!(mails(&api).await.len(), 1);
    let mut row = api.rows_of("audit").await.into_iter().find(|row| row["action"] == "invite").unwrap();
    row.as_object_mut().unwrap().remove("mailed_at");
    row["mail_lease"] = json!(4_102_444_800_000_u64);
    api.put_row(&row).await;

    let held = deliver(&api, "invite").await;
    assert_eq!(held, json!({ "batchItemFailures": [{ "itemIdentifier": row["id"] }] }));
    assert_eq!(mails(&api).await.len(), 1);

    // The sender was never heard of again.
    row["mail_lease"] = json!(1);
    api.put_row(&row).await;
    assert_eq!(deliver(&api, "invite").await, json!({ "batchItemFailures": [] }));
    assert_eq!(mails(&api).await.len(), 2);
}

#[tokio::test]
async fn what_is_no_longer_so_is_not_mailed() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let member = api.user("member@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "new@example.com", "user").await.ok();
    owner.adds(&bucket, &member, "user").await;
    assert_eq!(mails(&api).await.len(), 2);
    owner.delete(&path(&bucket, "/invitation?email=new@example.com")).await.ok();
    owner.removes(&bucket, "member@example.com").await.ok();
    for mut row in api.rows_of("audit").await {
        row.as_object_mut().unwrap().remove("mailed_at");
        api.put_row(&row).await;
    }

    deliver(&api, "invite").await;
    deliver(&api, "add_user").await;

    assert_eq!(mails(&api).await.len(), 2);
}

#[tokio::test]
async fn a_mail_that_cannot_be_sent_is_delivered_again_and_sent_then() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.invites(&bucket, "new@example.com", "user").await.ok();
    assert_eq!(mails(&api).await.len(), 1);
    let mut row = api.rows_of("audit").await.into_iter().find(|row| row["action"] == "invite").unwrap();
    row.as_object_mut().unwrap().remove("mailed_at");
    api.put_row(&row).await;
    // A subject that fails with the first real name, and not before.
    let broken = Api::with_parameters(&[("InvitationSubject", "{{ 1 // (0 if actor else 1) }}")]).await;
    for row in api.rows().await {
        broken.put_row(&row).await;
    }

    let failed = deliver(&broken, "invite").await;

    assert_eq!(failed["batchItemFailures"].as_array().unwrap().len(), 1);
    assert_eq!(deliver(&api, "invite").await, json!({ "batchItemFailures": [] }));
    assert_eq!(mails(&api).await.len(), 2);
}

#[tokio::test]
async fn what_hangs_under_a_deleted_bucket_is_cleared() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let member = api.user("member@example.com").await;
    let (gone, kept) = (owner.creates_bucket("Gone").await, owner.creates_bucket("Kept").await);
    for bucket in [&gone, &kept] {
        owner.adds(bucket, &member, "user").await;
        owner.invites(bucket, "new@example.com", "user").await.ok();
        owner.put(&path(bucket, "/feedback"), &json!({ "feedback": "Good" })).await.ok();
    }

    owner.delete(&path(&gone, "")).await.ok();
    mails(&api).await;

    let id = gone["_id"].as_str().unwrap();
    let mut left: Vec<_> = api
        .rows()
        .await
        .into_iter()
        .filter(|row| row.to_string().contains(id))
        .map(|row| row["type"].as_str().unwrap().to_owned())
        .collect();
    left.sort();
    left.dedup();
    assert_eq!(left, ["audit", "bucket"]);
    assert_eq!(api.rows_of("member").await.len(), 2);
    invariants::hold(&api).await;
}

#[tokio::test]
async fn a_large_bucket_is_cleared_in_batches_and_can_be_resumed() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Large").await;
    let id = bucket["_id"].as_str().unwrap();
    for number in 0..120 {
        let user = format!("{number:024x}");
        api.put_row(&json!({
            "pk": format!("BUCKET#{id}"), "sk": format!("MEMBER#{user}"), "type": "member", "bucket_id": id,
            "user_id": user, "role": "user", "email": format!("{number}@example.com"), "username": "x",
            "notification": "email", "options": "{}", "joined_at": 0,
        }))
        .await;
        // The pointers of some are gone already, as an interrupted clearing would not leave them.
        if number % 2 == 0 {
            api.put_row(&json!({
                "pk": format!("USER#{user}"), "sk": format!("BUCKET#{id}"), "type": "bucket_pointer",
                "user_id": user, "bucket_id": id,
            }))
            .await;
        }
    }

    owner.delete(&path(&bucket, "")).await.ok();
    mails(&api).await;

    assert_eq!(api.rows_of("member").await.len() + api.rows_of("bucket_pointer").await.len(), 0);
    assert_eq!(deliver(&api, "delete").await, json!({ "batchItemFailures": [] }));
}

#[tokio::test]
async fn a_live_bucket_is_never_cleared() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let mut row = api.rows_of("audit").await.remove(0);
    row["action"] = json!("delete");
    let rows = api.rows().await;

    let outcome = api.stack.invoke("notify", batch(&[row], "delete")).await.unwrap();

    let outcome: Value = serde_json::from_slice(&outcome).unwrap();
    assert_eq!(outcome["batchItemFailures"].as_array().unwrap().len(), 1);
    assert_eq!(api.rows().await, rows);
    owner.get(&path(&bucket, "")).await.ok();
}

#[tokio::test]
async fn each_change_leaves_its_audit_row_without_secrets() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let member = api.user("member@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    owner.put(&path(&bucket, ""), &json!({ "name": "Renamed" })).await.ok();
    owner.invites(&bucket, "new@example.com", "admin").await.ok();
    owner.delete(&path(&bucket, "/invitation?email=new@example.com")).await.ok();
    owner.adds(&bucket, &member, "user").await;
    owner.sets_role(&bucket, "member@example.com", "admin").await.ok();
    member
        .post(&path(&bucket, "/manage_notif"), &json!({ "email": "owner@example.com", "state": "none" }))
        .await
        .ok();
    owner.transfers(&bucket, "member@example.com").await.ok();
    owner.removes(&bucket, "owner@example.com").await.ok();
    member.delete(&path(&bucket, "")).await.ok();

    let rows = api.rows_of("audit").await;
    let (me, you) = (owner.self_view().await["_id"].clone(), member.self_view().await["_id"].clone());
    let told: Vec<_> = rows
        .iter()
        .map(|row| {
            let target = if row["target_id"].is_null() { &row["target_email"] } else { &row["target_id"] };
            (row["action"].as_str().unwrap(), row["actor_id"] == me, target.clone(), row["role"].clone())
        })
        .collect();
    let (nobody, none, new) = (Value::Null, Value::Null, json!("new@example.com"));
    assert_eq!(
        told,
        [
            ("create", true, nobody.clone(), none.clone()),
            ("update", true, nobody.clone(), none.clone()),
            ("invite", true, new.clone(), json!("admin")),
            ("remove_invitation", true, new, none.clone()),
            ("add_user", true, you.clone(), json!("user")),
            ("set_role", true, you.clone(), json!("admin")),
            ("set_notification_state", false, me.clone(), none.clone()),
            ("transfer_ownership", true, you, none.clone()),
            ("leave", true, nobody.clone(), none.clone()),
            ("delete", false, nobody, none),
        ]
    );
    let text = serde_json::to_string(&rows).unwrap();
    assert!(!text.contains(bucket["secret_id"].as_str().unwrap()));
}
