//! Every guard of every change of what pays for a bucket: between what it reads and what it writes,
//! somebody else changes the table.

use serde_json::{Value, json};
use shared::{
    domain::{BucketId, Email, Plans, Right, Subscription, SubscriptionStatus, Target, Timestamp, UserId},
    store::{
        Billing, BillingCall, BillingError, ChangeEnd, DeleteError, Kept, NewChange, PeopleError, Store,
    },
};

use super::{
    api::Api,
    get_subscription::{change, subscription},
    meanwhile::{self, Edit},
};

const CHANGE: &str = "01KASMFZ5V0000000000000900";

/// A bucket of an owner, with a member; its subscription and a change of it, as far as the case has them.
struct Scene {
    api: Api,
    id: BucketId,
    owner: UserId,
    member: Target,
    subscription: Value,
    change: Value,
}

impl Scene {
    async fn set() -> Self {
        let api = Api::start().await;
        let (owner, member) = (api.user("owner@example.com").await, api.user("member@example.com").await);
        let bucket = owner.creates_bucket("Servers").await;
        owner.adds(&bucket, &member, "user").await;
        let user = |view: &Value| UserId::try_from(view["_id"].as_str().unwrap().to_owned()).unwrap();
        Self {
            id: BucketId::try_from(bucket["_id"].as_str().unwrap().to_owned()).unwrap(),
            owner: user(&owner.self_view().await),
            member: Target {
                id: user(&member.self_view().await),
                email: Email::parse("member@example.com").unwrap(),
            },
            subscription: subscription(&bucket),
            change: change(&bucket),
            api,
        }
    }

    async fn has(&self, rows: &[&Value]) {
        for row in rows {
            self.api.put_row(row).await;
        }
    }

    async fn read(&self) -> Billing {
        self.api.store().billing(&self.id).await.unwrap()
    }

    /// The bucket's row with these fields.
    async fn bucket_is(&self, fields: Value) -> Edit {
        let mut row = self.api.rows_of("bucket").await.remove(0);
        row.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
        Edit::Put(row)
    }

    fn store(&self, edits: &[Edit]) -> Store {
        meanwhile::store(&self.api, 1, edits)
    }
}

/// What Stripe tells then.
fn told() -> Subscription {
    Subscription {
        id: "sub_2".to_owned(),
        item: "si_2".to_owned(),
        customer: "cus_1".to_owned(),
        plan: Plans::built_in().unwrap().of_price("bucket_pro").unwrap().clone(),
        status: SubscriptionStatus::Active,
        period_start: Timestamp::from_seconds(1),
        period_end: Timestamp::from_seconds(4_102_444_800),
        cancel_at: None,
        canceled_at: None,
        trial_end: None,
        payment_failed: false,
    }
}

fn with(row: &Value, fields: &Value) -> Value {
    let mut row = row.clone();
    row.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    row
}

#[tokio::test]
async fn what_stripe_tells_is_kept_only_while_everything_is_as_it_was_read() {
    let scene = Scene::set().await;
    let deleted = scene.bucket_is(json!({ "deleted_at": 1, "version": 99 })).await;
    let changed = scene.bucket_is(json!({ "version": 99 })).await;
    let newer = Edit::Put(with(&scene.subscription, &json!({ "version": 2 })));
    let first = Edit::Put(scene.subscription.clone());
    let ended = Edit::Delete(scene.change.clone());
    let other = Edit::Put(with(&scene.change, &json!({ "id": "another" })));
    let seen = Edit::Put(json!({
        "pk": "STRIPE_EVENT#evt_1", "sk": "STRIPE_EVENT", "type": "stripe_event", "id": "evt_1", "ttl": 1,
    }));
    for (what, has_subscription, edit, expected) in [
        ("the bucket is deleted", true, deleted, "BucketNotFound"),
        ("the bucket has changed", true, changed, "Changed"),
        ("newer news came", true, newer, "Changed"),
        ("the first news came", false, first, "Changed"),
        ("the change has ended", true, ended, "Changed"),
        ("another change is under way", true, other, "Changed"),
        ("the event was dealt with", true, seen, "EventSeen"),
    ] {
        let scene = Scene::set().await;
        scene.has(&[&scene.change]).await;
        if has_subscription {
            scene.has(&[&scene.subscription]).await;
        }
        // The rows are those of another scene: only their keys are this one's.
        let edit = rehome(&edit, &scene).await;
        let read = scene.read().await;
        let kept = Kept {
            bucket: read.bucket.clone().unwrap(),
            before: read.subscription.as_ref(),
            subscription: told(),
            change: Some(ChangeEnd::Done(CHANGE)),
            event: Some("evt_1"),
            actor: None,
        };

        let outcome = scene.store(&[edit]).keep_subscription(kept, Timestamp::now()).await;

        assert_eq!(format!("{:?}", outcome.unwrap_err()), expected, "{what}");
        let rows = scene.api.rows().await;
        assert!(
            rows.iter().all(|row| row["plan"] != "pro" && row["subscription"]["id"] != "sub_2"),
            "{what}"
        );
        assert!(rows.iter().all(|row| row["action"] != "sync_subscription"), "{what}");
    }
}

/// `edit`, of the bucket of `scene`.
async fn rehome(edit: &Edit, scene: &Scene) -> Edit {
    let home = |row: &Value| {
        let mut row = row.clone();
        if row["pk"].as_str().unwrap().starts_with("BUCKET#") {
            row["pk"] = json!(format!("BUCKET#{}", scene.id.as_str()));
        }
        row
    };
    match edit {
        Edit::Delete(row) => Edit::Delete(home(row)),
        Edit::Put(row) if row["type"] == "bucket" => {
            let own = scene.api.rows_of("bucket").await.remove(0);
            let fields = json!({ "deleted_at": row["deleted_at"], "version": row["version"] });
            let mut fields = fields;
            fields.as_object_mut().unwrap().retain(|_, value| !value.is_null());
            Edit::Put(with(&own, &fields))
        }
        Edit::Put(row) => Edit::Put(home(row)),
    }
}

#[tokio::test]
async fn a_change_begins_for_the_owner_of_a_live_bucket_where_none_is_under_way() {
    let asks = async |scene: &Scene, edits: &[Edit]| {
        let change = NewChange { actor: &scene.owner, right: Right::ChangePlan, new_owner: None };
        let outcome = scene.store(edits).begin_change(&scene.id, &change, Timestamp::now()).await;
        format!("{:?}", outcome.map(|begun| begun.actor).map_err(|error| error.to_string()))
    };
    let scene = Scene::set().await;
    let edits = [scene.bucket_is(json!({ "deleted_at": 1, "version": 99 })).await];
    assert!(asks(&scene, &edits).await.contains("there is no such bucket"));
    let scene = Scene::set().await;
    let edits = [scene.bucket_is(json!({ "owner_id": scene.member.id.as_str() })).await];
    assert!(asks(&scene, &edits).await.contains("only the owner has the right ChangePlan"));
    let scene = Scene::set().await;
    let edits = [Edit::Put(scene.change.clone())];
    assert!(asks(&scene, &edits).await.contains("under way"));
    assert_eq!(scene.api.rows_of("billing_change").await[0]["id"], CHANGE);
    let scene = Scene::set().await;
    assert!(asks(&scene, &[]).await.starts_with("Ok"));
    assert!(asks(&scene, &[]).await.contains("under way"), "it has its lease");
}

#[tokio::test]
async fn one_that_was_left_is_taken_over_by_one() {
    let scene = Scene::set().await;
    let left = with(&scene.change, &json!({ "lease_until": 1 }));
    scene.has(&[&left]).await;
    let read = scene.read().await.change.unwrap();
    let change = NewChange { actor: &scene.owner, right: Right::ChangePlan, new_owner: None };

    // Somebody takes it, or ends it, in between.
    for edit in [Edit::Put(scene.change.clone()), Edit::Delete(scene.change.clone())] {
        scene.has(&[&left]).await;
        let outcome =
            scene.store(std::slice::from_ref(&edit)).begin_change(&scene.id, &change, Timestamp::now()).await;
        assert!(matches!(outcome, Err(BillingError::Busy)), "{outcome:?}");
        scene.has(&[&left]).await;
        let taken = scene.store(&[edit]).lease_change(&scene.id, &read, Timestamp::now()).await.unwrap();
        assert_eq!(taken, None);
    }
    scene.has(&[&left]).await;
    let outcome = scene.api.store().begin_change(&scene.id, &change, Timestamp::now()).await;
    let Err(BillingError::Unfinished(found)) = outcome else { panic!("{outcome:?}") };
    assert!(found.id == CHANGE && found.lease_until > Timestamp::now());
}

#[tokio::test]
async fn what_is_written_of_a_change_is_of_that_change() {
    let call = BillingCall { path: "/subscriptions".to_owned(), form: "customer=cus_1".to_owned() };
    let other = |scene: &Scene| Edit::Put(with(&scene.change, &json!({ "id": "another" })));

    let scene = Scene::set().await;
    scene.has(&[&scene.change]).await;
    let outcome = scene.store(&[other(&scene)]).note_call(&scene.id, CHANGE, &call).await;
    assert!(matches!(outcome, Err(BillingError::Changed)), "{outcome:?}");
    scene.store(&[other(&scene)]).drop_change(&scene.id, CHANGE).await.unwrap();
    scene.store(&[other(&scene)]).leave_change(&scene.id, CHANGE, Timestamp::now()).await.unwrap();
    let rows = scene.api.rows_of("billing_change").await;
    assert_eq!(rows, [with(&scene.change, &json!({ "id": "another" }))], "that is another one's");

    scene.has(&[&scene.change]).await;
    scene.api.store().note_call(&scene.id, CHANGE, &call).await.unwrap();
    assert_eq!(scene.read().await.change.unwrap().call, Some(call));
    scene.api.store().leave_change(&scene.id, CHANGE, Timestamp::now()).await.unwrap();
    assert!(scene.read().await.change.unwrap().lease_until <= Timestamp::now());
    scene.api.store().drop_change(&scene.id, CHANGE).await.unwrap();
    assert!(scene.read().await.change.is_none());
}

#[tokio::test]
async fn handing_over_and_deleting_rest_on_what_pays() {
    for (before, edit) in [
        ("nothing", "subscription"),
        ("nothing", "change"),
        ("subscription", "news"),
        ("subscription", "change"),
    ] {
        for deletes in [false, true] {
            let scene = Scene::set().await;
            let mut over = scene.subscription.clone();
            over["subscription"]["status"] = json!("canceled");
            if before == "subscription" {
                scene.has(&[&over]).await;
            }
            let edit = Edit::Put(match edit {
                "change" => scene.change.clone(),
                "news" => with(&scene.subscription, &json!({ "version": 2 })),
                _ => scene.subscription.clone(),
            });
            let (read, now) = (scene.read().await, Timestamp::now());
            let (store, bucket) = (scene.store(std::slice::from_ref(&edit)), read.bucket.clone().unwrap());

            if deletes {
                let outcome = store.delete_bucket(&bucket, &read, &scene.owner, now).await;
                assert!(matches!(outcome, Err(DeleteError::Changed)), "{before} {edit:?}: {outcome:?}");
            } else {
                let outcome = store.hand_over(&read, &scene.owner, &scene.member, 5, None, now).await;
                assert!(matches!(outcome, Err(PeopleError::Changed)), "{before} {edit:?}: {outcome:?}");
            }
            let row = scene.api.rows_of("bucket").await.remove(0);
            assert_eq!((&row["owner_id"], &row["deleted_at"]), (&json!(scene.owner.as_str()), &Value::Null));
        }
    }
}

#[tokio::test]
async fn a_move_commits_bucket_payer_and_what_is_yet_to_be_ended_together() {
    let scene = Scene::set().await;
    let ending = with(&scene.subscription, &json!({}));
    scene.has(&[&ending, &scene.change]).await;
    let mut row = scene.api.rows_of("bucket").await.remove(0);
    row["plan"] = json!("plus");
    row["plan_ends_at"] = json!(4_102_444_800_000_u64);
    scene.has(&[&row]).await;
    let read = scene.read().await;
    let end = ChangeEnd::Replaced { id: CHANGE, subscription: "sub_1" };
    let now = Timestamp::now();

    let ended = [Edit::Delete(scene.change.clone())];
    let outcome =
        scene.store(&ended).hand_over(&read, &scene.owner, &scene.member, 5, Some((end, told())), now).await;
    assert!(matches!(outcome, Err(PeopleError::Changed)), "{outcome:?}");

    scene.has(&[&scene.change]).await;
    let store = scene.api.store();
    store.hand_over(&read, &scene.owner, &scene.member, 5, Some((end, told())), now).await.unwrap();

    let billing = scene.read().await;
    let bucket = billing.bucket.unwrap();
    assert_eq!((bucket.owner_id, bucket.plan.as_str(), bucket.plan_ends_at), (scene.member.id, "pro", None));
    assert_eq!(billing.subscription.unwrap().subscription.id, "sub_2");
    assert_eq!(billing.change.unwrap().replaced.as_deref(), Some("sub_1"));
}

#[tokio::test]
async fn the_first_customer_of_a_person_stands() {
    let scene = Scene::set().await;
    let store = scene.api.store();
    assert_eq!(store.set_customer(&scene.owner, "cus_1", None).await.unwrap(), "cus_1");
    assert_eq!(store.set_customer(&scene.owner, "cus_2", None).await.unwrap(), "cus_1");
    assert_eq!(store.set_customer(&scene.owner, "cus_3", Some("cus_2")).await.unwrap(), "cus_1");
    assert_eq!(store.set_customer(&scene.owner, "cus_4", Some("cus_1")).await.unwrap(), "cus_4");
}
