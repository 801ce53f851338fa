//! Races over HTTP: everything at once, many rounds, and the table recounted after each.

use futures_util::future::{join, join_all, join3};
use serde_json::json;

use super::{
    api::{Answer, Api, Person, path},
    invariants,
};

const ROUNDS: usize = 30;

async fn api() -> Api {
    Api::with_parameters(&[("BucketsPerOwner", "1000")]).await
}

fn sorted(statuses: impl IntoIterator<Item = u16>) -> Vec<u16> {
    let mut statuses: Vec<_> = statuses.into_iter().collect();
    statuses.sort_unstable();
    statuses
}

/// A person who has signed in.
async fn known<'a>(api: &'a Api, email: &str) -> Person<'a> {
    let person = api.user(email).await;
    person.get("/api/bucket").await.ok();
    person
}

/// Asserts that `answer` is a success or one of `refusals`.
#[track_caller]
fn is_ok_or(answer: &Answer, refusals: &[&str]) {
    let refused = answer.body["code"].as_str().is_some_and(|code| refusals.contains(&code));
    assert!(answer.status == 200 || refused, "{answer:?}");
}

#[tokio::test]
async fn of_many_at_the_last_seat_one_gets_it() {
    let api = api().await;
    let owner = api.user("owner@example.com").await;
    for member in ["a@example.com", "b@example.com"] {
        known(&api, member).await;
    }
    for _ in 0..ROUNDS {
        let bucket = owner.creates_bucket("Servers").await;
        for number in 0..3 {
            owner.invites(&bucket, &format!("{number}@example.com"), "user").await.ok();
        }
        let racers = ["a@example.com", "b@example.com", "new1@example.com", "new2@example.com"];

        let answers = join_all(racers.map(|email| owner.invites(&bucket, email, "user"))).await;

        assert_eq!(sorted(answers.iter().map(|answer| answer.status)), [200, 403, 403, 403]);
        invariants::hold(&api).await;
    }
}

#[tokio::test]
async fn one_address_invited_by_many_at_once_takes_one_seat() {
    let api = api().await;
    let owner = api.user("owner@example.com").await;
    known(&api, "member@example.com").await;
    for round in 0..ROUNDS {
        let bucket = owner.creates_bucket("Servers").await;
        let new = format!("new{round}@example.com");

        let answers = join_all([0; 3].map(|_| owner.invites(&bucket, &new, "user"))).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?}");
        let answers = join_all([0; 3].map(|_| owner.invites(&bucket, "member@example.com", "user"))).await;
        assert_eq!(sorted(answers.iter().map(|answer| answer.status)), [200, 400, 400]);

        let bucket_row =
            api.rows_of("bucket").await.into_iter().find(|row| row["id"] == bucket["_id"]).unwrap();
        assert_eq!(bucket_row["seats_used"], 3);
        invariants::hold(&api).await;
    }
}

#[tokio::test]
async fn an_invitation_that_races_with_the_first_sign_in_is_not_missed() {
    let api = api().await;
    let owner = api.user("owner@example.com").await;
    for round in 0..ROUNDS {
        let bucket = owner.creates_bucket("Servers").await;
        let email = format!("new{round}@example.com");
        let new = api.user(&email).await;

        let (invited, listed) = join(owner.invites(&bucket, &email, "admin"), new.get("/api/bucket")).await;

        invited.ok();
        listed.ok();
        assert_eq!(
            new.get(&path(&bucket, "/current_role")).await.ok(),
            json!({ "role": "admin" }),
            "{round}"
        );
        invariants::hold(&api).await;
    }
}

#[tokio::test]
async fn two_first_sign_ins_take_up_an_invitation_once() {
    let api = api().await;
    let owner = api.user("owner@example.com").await;
    for round in 0..ROUNDS {
        let bucket = owner.creates_bucket("Servers").await;
        let email = format!("new{round}@example.com");
        owner.invites(&bucket, &email, "user").await.ok();
        let new = api.user(&email).await;
        let role = path(&bucket, "/current_role");

        join3(new.get("/api/bucket"), new.get("/api/users/isLogged"), new.get(&role)).await.0.ok();

        assert_eq!(new.get(&role).await.ok(), json!({ "role": "user" }));
        invariants::hold(&api).await;
    }
}

#[tokio::test]
async fn of_two_transfers_one_happens() {
    let api = api().await;
    let owner = api.user("owner@example.com").await;
    let (a, b) = (known(&api, "a@example.com").await, known(&api, "b@example.com").await);
    for _ in 0..ROUNDS {
        let bucket = owner.creates_bucket("Servers").await;
        owner.adds(&bucket, &a, "admin").await;
        owner.adds(&bucket, &b, "admin").await;

        let (to_a, to_b) =
            join(owner.transfers(&bucket, "a@example.com"), owner.transfers(&bucket, "b@example.com")).await;

        assert_eq!(sorted([to_a.status, to_b.status]), [200, 403]);
        let heir = if to_a.status == 200 { "a@example.com" } else { "b@example.com" };
        assert!(owner.members(&bucket).await.contains(&(heir.to_owned(), "owner".to_owned())));
        invariants::hold(&api).await;
    }
}

#[tokio::test]
async fn a_transfer_a_removal_and_a_demotion_of_one_person_leave_one_owner() {
    let api = api().await;
    let owner = api.user("owner@example.com").await;
    let heir = known(&api, "heir@example.com").await;
    for _ in 0..ROUNDS {
        let bucket = owner.creates_bucket("Servers").await;
        owner.adds(&bucket, &heir, "admin").await;

        let (transferred, removed, demoted) = join3(
            owner.transfers(&bucket, "heir@example.com"),
            owner.removes(&bucket, "heir@example.com"),
            owner.sets_role(&bucket, "heir@example.com", "user"),
        )
        .await;

        is_ok_or(&transferred, &["user_not_found"]);
        is_ok_or(&removed, &["role_too_low"]);
        is_ok_or(&demoted, &["role_too_low", "user_not_found"]);
        assert_ne!(transferred.status == 200, removed.status == 200);
        invariants::hold(&api).await;
    }
}

#[tokio::test]
async fn a_new_owner_does_not_leave_by_a_race() {
    let api = api().await;
    let owner = api.user("owner@example.com").await;
    let heir = known(&api, "heir@example.com").await;
    for _ in 0..ROUNDS {
        let bucket = owner.creates_bucket("Servers").await;
        owner.adds(&bucket, &heir, "admin").await;

        let (transferred, left) =
            join(owner.transfers(&bucket, "heir@example.com"), heir.removes(&bucket, "heir@example.com"))
                .await;

        is_ok_or(&transferred, &["user_not_found"]);
        is_ok_or(&left, &["owner_stays"]);
        assert_ne!(transferred.status == 200, left.status == 200);
        invariants::hold(&api).await;
    }
}

#[tokio::test]
async fn who_is_removed_while_promoted_is_out() {
    let api = api().await;
    let owner = api.user("owner@example.com").await;
    let member = known(&api, "member@example.com").await;
    for _ in 0..ROUNDS {
        let bucket = owner.creates_bucket("Servers").await;
        owner.adds(&bucket, &member, "user").await;

        let (promoted, removed) = join(
            owner.sets_role(&bucket, "member@example.com", "admin"),
            owner.removes(&bucket, "member@example.com"),
        )
        .await;

        is_ok_or(&promoted, &["user_not_found"]);
        removed.ok();
        member.get(&path(&bucket, "")).await.is_problem(404, "bucket_not_found");
        invariants::hold(&api).await;
    }
}

#[tokio::test]
async fn who_is_demoted_while_inviting_invites_before_or_not_at_all() {
    let api = api().await;
    let owner = api.user("owner@example.com").await;
    let admin = known(&api, "admin@example.com").await;
    for round in 0..ROUNDS {
        let bucket = owner.creates_bucket("Servers").await;
        owner.adds(&bucket, &admin, "admin").await;
        let email = format!("friend{round}@example.com");

        let (demoted, invited) = join(
            owner.sets_role(&bucket, "admin@example.com", "user"),
            admin.invites(&bucket, &email, "admin"),
        )
        .await;

        demoted.ok();
        is_ok_or(&invited, &["role_too_low"]);
        let friend = api.user(&email).await;
        let role = friend.get(&path(&bucket, "/current_role")).await;
        if invited.status == 200 {
            // Invited in time, but by somebody who may no longer grant it.
            assert_eq!(role.ok(), json!({ "role": "user" }));
        } else {
            role.is_problem(404, "bucket_not_found");
        }
        invariants::hold(&api).await;
    }
}

#[tokio::test]
async fn a_deletion_wins_over_whatever_races_with_it() {
    let api = api().await;
    let owner = api.user("owner@example.com").await;
    for round in 0..ROUNDS {
        let bucket = owner.creates_bucket("Servers").await;
        let at = path(&bucket, "");
        let email = format!("new{round}@example.com");
        let rename = json!({ "name": "Renamed" });

        let (deleted, invited, updated) =
            join3(owner.delete(&at), owner.invites(&bucket, &email, "user"), owner.put(&at, &rename)).await;

        deleted.ok();
        is_ok_or(&invited, &["bucket_not_found"]);
        is_ok_or(&updated, &["bucket_not_found"]);
        owner.get(&at).await.is_problem(404, "bucket_not_found");
        assert_eq!(api.user(&email).await.get("/api/bucket").await.ok(), json!([]));
        invariants::hold(&api).await;
    }
}

#[tokio::test]
async fn at_the_bucket_limit_creations_and_a_transfer_stop_together() {
    let api = Api::with_parameters(&[("BucketsPerOwner", "3")]).await;
    let (giver, heir) = (api.user("giver@example.com").await, api.user("heir@example.com").await);
    let gift = giver.creates_bucket("Gift").await;
    giver.adds(&gift, &heir, "user").await;
    let mut gift_owner = &giver;
    for _ in 0..ROUNDS {
        if std::ptr::eq(gift_owner, &raw const heir) {
            heir.transfers(&gift, "giver@example.com").await.ok();
            gift_owner = &giver;
        }
        let create = || async { heir.post("/api/bucket/create_classic", &json!({ "name": "Mine" })).await };

        let (created, transferred) =
            join(join_all([(); 4].map(|()| create())), giver.transfers(&gift, "heir@example.com")).await;

        let gained = created.iter().filter(|answer| answer.status == 200).count()
            + usize::from(transferred.status == 200);
        assert_eq!(gained, 3, "{created:?} {transferred:?}");
        for answer in &created {
            is_ok_or(answer, &["bucket_limit"]);
        }
        is_ok_or(&transferred, &["bucket_limit"]);
        if transferred.status == 200 {
            gift_owner = &heir;
        }
        invariants::hold(&api).await;
        for bucket in heir.get("/api/bucket").await.ok().as_array().unwrap() {
            if bucket["name"] == "Mine" {
                heir.delete(&path(bucket, "")).await.ok();
            }
        }
    }
}
