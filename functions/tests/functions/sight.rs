//! First sight of a person, and whose token counts.

use serde_json::{Value, json};

use super::api::Api;

#[tokio::test]
async fn a_verified_person_is_recorded_once_with_the_claim_on_the_address() {
    let api = Api::start().await;

    // Their tokens carry no address: it comes from the provider's userinfo endpoint.
    let person = api.user("  Person@Example.com ").await;
    for path in ["/api/bucket", "/api/bucket", "/api/users/isLogged"] {
        person.get(path).await.ok();
    }

    let rows = api.rows().await;
    let kinds: Vec<_> = rows.iter().map(|row| (&row["pk"], &row["type"])).collect();
    let user_id = rows[1]["id"].as_str().unwrap();
    assert_eq!(
        kinds,
        [
            (&json!("EMAIL#person@example.com"), &json!("email_claim")),
            (&json!(format!("USER#{user_id}")), &json!("user")),
        ]
    );
    assert_eq!(rows[0]["user_id"], user_id);
}

#[tokio::test]
async fn a_person_is_recorded_before_being_told_404() {
    let api = Api::start().await;
    let person = api.user("person@example.com").await;

    person.get("/api/bucket/0123456789abcdef01234567").await.is_problem(404, "bucket_not_found");

    assert_eq!(api.rows_of("email_claim").await.len(), 1);
}

#[tokio::test]
async fn racing_first_sights_of_one_address_give_it_to_one_subject() {
    let api = Api::start().await;
    let person = |sub: &str| {
        api.user_with_claims(&json!({ "sub": sub, "email": "shared@example.com", "email_verified": true }))
    };
    let (a, b) = (person("a"), person("b"));
    let create = json!({ "name": "Servers" });

    let (first, second, third) = tokio::join!(
        a.post("/api/bucket/create_classic", &create),
        b.post("/api/bucket/create_classic", &create),
        a.post("/api/bucket/create_classic", &create),
    );

    let a_won = first.status == 200;
    assert_eq!(third.status == 200, a_won);
    assert_eq!(second.status == 200, !a_won);
    assert_eq!(api.rows_of("user").await.len(), 1);
    assert_eq!(api.rows_of("email_claim").await.len(), 1);
}

#[tokio::test]
async fn the_address_in_a_token_counts_only_when_verified() {
    let api = Api::start().await;
    for (sub, verified, status) in [
        ("a", json!(false), 403),
        ("b", Value::Null, 403),
        ("c", json!("true"), 200),
        ("d", json!(true), 200),
    ] {
        let email = format!("{sub}@example.com");
        let claims = json!({ "sub": sub, "email": email, "email_verified": verified });
        let person = api.user_with_claims(&claims);

        let answer = person.post("/api/bucket/create_classic", &json!({ "name": "Servers" })).await;

        assert_eq!(answer.status, status, "{verified}");
    }
}

#[tokio::test]
async fn a_deployment_may_vouch_for_a_provider_that_never_says_verified() {
    let api = Api::with_parameters(&[("OidcTrustEmail", "true")]).await;
    let person = api.user_with_claims(&json!({ "sub": "a", "email": "a@example.com" }));

    person.creates_bucket("Servers").await;
}

#[tokio::test]
async fn the_name_shown_is_the_one_the_person_chose() {
    let api = Api::start().await;
    let person = api.user_with_claims(&json!({
        "sub": "a", "email": "a@example.com", "email_verified": true, "preferred_username": "Alice",
    }));

    assert_eq!(person.creates_bucket("Servers").await["credits"]["payer"]["username"], "Alice");
}

#[tokio::test]
async fn without_keys_to_verify_with_nobody_is_let_in_and_the_status_is_honest() {
    let api = Api::with_parameters(&[("OidcIssuer", "http://127.0.0.1:1")]).await;
    let person = api.user_with_claims(&json!({ "sub": "a" }));

    for _ in 0..2 {
        person.get("/api/bucket").await.is_problem(503, "unavailable");
    }
    assert_eq!(api.stack.instances_started("retrieve_all"), 1);
}

#[tokio::test]
async fn a_discovery_document_of_another_issuer_is_not_used() {
    let stack = Api::start().await;
    // The same document, asked for under another name.
    let issuer = format!("{}/", stack.stack.identity().issuer());
    let api = Api::with_parameters(&[("OidcIssuer", &issuer)]).await;

    api.bearer(&stack.user("a@example.com").await.token)
        .get("/api/bucket")
        .await
        .is_problem(503, "unavailable");
    assert!(api.logs().iter().any(|line| line.contains("it names another issuer")));
}
