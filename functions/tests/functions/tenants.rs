//! One bucket's people in another's: nothing of a bucket is reached from outside, nor is it found out that
//! there is one.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use super::{
    api::{Answer, Api, path},
    every_route::{UNKNOWN, calls},
    matrix::{Cast, good_body},
    servers,
};

/// All of an answer that may tell something: what is of the moment is left out.
fn told(answer: &Answer) -> (u16, BTreeMap<String, String>, Value) {
    let headers =
        answer.headers.iter().filter(|(name, _)| !matches!(name.as_str(), "date" | "apigw-requestid"));
    let headers =
        headers.map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect();
    let mut body = answer.body.clone();
    body.as_object_mut().unwrap().remove("request_id");
    (answer.status, headers, body)
}

/// The rows that are about buckets and people: wrong keys are counted elsewhere.
async fn rows(api: &Api) -> Vec<Value> {
    api.rows().await.into_iter().filter(|row| row["type"] != "agent_attempts").collect()
}

#[tokio::test]
async fn the_owner_of_a_bucket_is_told_of_others_what_is_told_of_none() {
    let api = Api::with_parameters(&[("BucketsPerOwner", "1000")]).await;
    let cast = Cast::of(&api).await;
    let stranger = api.user("stranger@example.com").await;
    let own = stranger.creates_bucket("Own").await;
    let mut reached = 0;

    for call in calls(&api, UNKNOWN).iter().filter(|call| call.path.contains(UNKNOWN)) {
        // What the call needs to succeed is there, and its body is good.
        let bucket = cast.bucket_for(&call.function).await;
        let id = bucket["_id"].as_str().unwrap();
        let body = good_body(&call.function).to_string();
        let path = call.path.replace("{email}", "invited@example.com");
        let rows = rows(&api).await;
        let asks = async |path: &str| api.send(&call.method, path, Some(&stranger.token), Some(&body)).await;

        let of_none = asks(&path).await;
        let of_theirs = asks(&path.replace(UNKNOWN, id)).await;

        of_none.is_problem(404, "bucket_not_found");
        assert_eq!(told(&of_theirs), told(&of_none), "{} {}", call.method, call.path);
        // One's own id elsewhere in the request is no way in.
        let own_id = own["_id"].as_str().unwrap();
        let with_own = format!("{}?id={own_id}&bucket_id={own_id}", path.replace(UNKNOWN, id));
        assert_eq!(told(&asks(&with_own).await), told(&of_none), "{with_own}");
        assert_eq!(self::rows(&api).await, rows, "{} {}", call.method, call.path);
        reached += 1;
    }
    assert!(reached >= 20, "{reached} routes are about a bucket");
}

#[tokio::test]
async fn what_is_in_another_bucket_is_not_found_in_ones_own() {
    let api = Api::start().await;
    let (owner, other) = (api.user("owner@example.com").await, api.user("other@example.com").await);
    let (own, others) = (owner.creates_bucket("Own").await, other.creates_bucket("Others").await);
    for (person, bucket, prefix) in [(&owner, &own, "own"), (&other, &others, "others")] {
        let member = api.user(&format!("{prefix}-member@example.com")).await;
        person.adds(bucket, &member, "admin").await;
        person.invites(bucket, &format!("{prefix}-invited@example.com"), "user").await.ok();
        servers::links(&api, bucket, &format!("{prefix}-server")).await.ok();
    }
    let rows = rows(&api).await;

    for email in ["other@example.com", "others-member@example.com"] {
        for (route, body) in [
            ("/remove_user", json!({ "email": email })),
            ("/promote_user", json!({ "email": email, "role": "user" })),
            ("/manage_notif", json!({ "email": email, "state": "none" })),
            ("/transfer_ownership", json!({ "new_owner": email })),
        ] {
            owner.post(&path(&own, route), &body).await.is_problem(404, "user_not_found");
        }
    }
    let invited = "others-invited@example.com";
    for (rest, body) in [
        (format!("/invitation?email={invited}"), json!({})),
        (format!("/invitation/{invited}"), json!({})),
        ("/invitation".to_owned(), json!({ "params": { "email": invited } })),
    ] {
        let answer =
            api.send("DELETE", &path(&own, &rest), Some(&owner.token), Some(&body.to_string())).await;

        answer.is_problem(404, "invitation_not_found");
    }
    owner
        .post(&path(&own, "/data/deleteServer"), &json!({ "server_name": "others-server" }))
        .await
        .blames(&["server_name"]);

    // Half of one bucket's keys and half of another's are nobody's.
    for (public, secret) in [(&own, &others), (&others, &own)] {
        let mixed = json!({ "public_id": public["public_id"], "secret_id": secret["secret_id"] });
        for name in ["own-server", "others-server"] {
            servers::links(&api, &mixed, name).await.is_problem(403, "wrong_keys");
            let (status, answer) = servers::connects(&api, &mixed, name, "c").await;
            assert_eq!((status, &answer["code"]), (403, &json!("wrong_keys")));
        }
    }
    // With one's own keys, the name of another's server is just a name.
    let (status, answer) = servers::connects(&api, &own, "others-server", "c").await;
    assert_eq!((status, &answer["code"]), (403, &json!("server_not_linked")));

    assert_eq!(self::rows(&api).await, rows);
}
