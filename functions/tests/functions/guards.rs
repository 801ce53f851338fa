//! Changes that rest on what was read, after it has changed: the guards refuse, and nothing happens.

use serde_json::{Value, json};
use shared::{
    domain::{
        AppUrl, Bucket, BucketChanges, BucketId, BucketName, Comment, Email, NewBucket, Timestamp, UserId,
        Username,
    },
    store::{CreateError, DeleteError, UpdateError},
};

use super::api::Api;

/// A bucket as its owner read it, and the owner.
async fn read(api: &Api) -> (Bucket, UserId) {
    let bucket = api.user("owner@example.com").await.creates_bucket("Servers").await;
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    let owner = UserId::try_from(text(&bucket["credits"]["payer"]["_id"])).unwrap();
    let id = BucketId::try_from(text(&bucket["_id"])).unwrap();
    (api.store().membership(&id, &owner).await.unwrap().unwrap().0, owner)
}

/// Changes the one row of `kind`, and gives all rows as they are then.
async fn meanwhile(api: &Api, kind: &str, changes: Value) -> Vec<Value> {
    let mut row = api.rows_of(kind).await.remove(0);
    row.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
    api.put_row(&row).await;
    api.rows().await
}

fn rename() -> BucketChanges {
    let name = BucketName::try_from("Renamed".to_owned()).unwrap();
    BucketChanges { name: Some(name), ..BucketChanges::default() }
}

#[tokio::test]
async fn an_update_of_a_bucket_that_was_deleted_meanwhile_is_refused() {
    let api = Api::start().await;
    let (bucket, owner) = read(&api).await;
    let rows = meanwhile(&api, "bucket", json!({ "deleted_at": 1, "version": 99 })).await;

    let outcome = api.store().update_bucket(bucket, &owner, rename(), Timestamp::now()).await;

    assert!(matches!(outcome, Err(UpdateError::BucketNotFound)), "{outcome:?}");
    assert_eq!(api.rows().await, rows);
}

#[tokio::test]
async fn an_update_by_who_was_the_owner_is_refused() {
    let api = Api::start().await;
    let (bucket, owner) = read(&api).await;
    let rows = meanwhile(&api, "bucket", json!({ "owner_id": "0123456789abcdef01234567" })).await;

    let outcome = api.store().update_bucket(bucket, &owner, rename(), Timestamp::now()).await;

    assert!(matches!(outcome, Err(UpdateError::NotOwner)), "{outcome:?}");
    assert_eq!(api.rows().await, rows);
}

#[tokio::test]
async fn an_update_of_a_bucket_that_changed_meanwhile_is_decided_anew() {
    let api = Api::start().await;
    let (bucket, owner) = read(&api).await;
    meanwhile(&api, "bucket", json!({ "comment": "Meanwhile", "version": 7 })).await;

    let updated = api.store().update_bucket(bucket, &owner, rename(), Timestamp::now()).await.unwrap();

    assert_eq!(
        (updated.name.as_str(), updated.comment.as_str(), updated.version),
        ("Renamed", "Meanwhile", 8)
    );
    let row = api.rows_of("bucket").await.remove(0);
    assert_eq!(
        (&row["name"], &row["comment"], &row["version"]),
        (&json!("Renamed"), &json!("Meanwhile"), &json!(8))
    );
}

#[tokio::test]
async fn a_deletion_by_who_was_the_owner_is_refused() {
    let api = Api::start().await;
    let (bucket, owner) = read(&api).await;
    let rows = meanwhile(&api, "bucket", json!({ "owner_id": "0123456789abcdef01234567" })).await;

    let billing = api.store().billing(&bucket.id).await.unwrap();

    let outcome = api.store().delete_bucket(&bucket, &billing, &owner, Timestamp::now()).await;

    assert!(matches!(outcome, Err(DeleteError::NotOwner)), "{outcome:?}");
    assert_eq!(api.rows().await, rows);
}

#[tokio::test]
async fn a_bucket_is_not_created_for_an_address_that_its_owner_no_longer_has() {
    let api = Api::start().await;
    let (_, owner) = read(&api).await;
    let user = api.store().user(&owner).await.unwrap().unwrap();
    let rows = meanwhile(&api, "user", json!({ "email": "new@example.com" })).await;
    let name = BucketName::try_from("Second".to_owned()).unwrap();
    let new = NewBucket { name, comment: Comment::default(), app_url: AppUrl::default() };

    let outcome = api.store().create_bucket(new, &user, 5, Timestamp::now()).await;

    assert!(matches!(outcome, Err(CreateError::OwnerChanged)), "{outcome:?}");
    assert_eq!(api.rows().await, rows);
}

#[tokio::test]
async fn a_person_who_was_recorded_meanwhile_is_not_recorded_again() {
    let api = Api::start().await;
    let (_, owner) = read(&api).await;
    let rows = api.rows().await;
    let other = Email::parse("other@example.com").unwrap();

    let user = api.store().register(&owner, &other, 1, &Username::from_claim(None, "other")).await.unwrap();

    assert_eq!((user.email.as_str(), user.buckets_owned), ("owner@example.com", 1));
    assert_eq!(api.rows().await, rows);
}
