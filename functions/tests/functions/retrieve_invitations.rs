//! `GET /api/bucket/{id}/invitations`

use super::api::{Api, path};

#[tokio::test]
async fn admins_and_the_owner_see_what_is_pending_oldest_first() {
    let api = Api::start().await;
    let owner = api.user("owner@example.com").await;
    let bucket = owner.creates_bucket("Servers").await;
    let admin = api.user("admin@example.com").await;
    owner.adds(&bucket, &admin, "admin").await;
    for email in ["z@example.com", "a@example.com"] {
        admin.invites(&bucket, email, "user").await.ok();
    }

    for person in [&owner, &admin] {
        let answer = person.get(&path(&bucket, "/invitations")).await.ok();
        let emails: Vec<_> =
            answer["invitations"].as_array().unwrap().iter().map(|row| &row["email"]).collect();
        assert_eq!(emails, ["z@example.com", "a@example.com"]);
    }
}
