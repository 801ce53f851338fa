//! Bodies: each type that a route takes, in one object. The first line is the content type.

#![no_main]

use base64::{Engine, engine::general_purpose::STANDARD};
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use libfuzzer_sys::fuzz_target;
use serde::Deserialize;
use serde_json::{Value, json};
use shared::{
    domain::{
        AppUrl, BucketName, Comment, Configuration, Email, Feedback, GrantableRole, NotificationState,
        PlanName, Role, ServerName, UserOptions,
    },
    http::{Problem, Request},
};

/// What the bodies of the routes are made of.
#[derive(Deserialize)]
struct Everything {
    name: Option<BucketName>,
    comment: Option<Comment>,
    app_url: Option<AppUrl>,
    configuration: Option<Configuration>,
    options: Option<UserOptions>,
    email: Option<Email>,
    role: Option<GrantableRole>,
    state: Option<NotificationState>,
    feedback: Option<Feedback>,
    server_name: Option<ServerName>,
    plan: Option<PlanName>,
    stripe_token: Option<String>,
}

fn read(content_type: &str, body: &str, is_base64: bool) -> Option<Result<Everything, Problem>> {
    let event = json!({
        "version": "2.0", "routeKey": "PUT /", "rawPath": "/", "headers": { "content-type": content_type },
        "requestContext": { "http": { "method": "PUT" } }, "body": body, "isBase64Encoded": is_base64,
    });
    let event: ApiGatewayV2httpRequest = serde_json::from_value(event).ok()?;
    Some(Request::from(event).json_body())
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Asserts the bounds of what was taken, and gives it back as a body.
fn written_again(taken: Everything) -> String {
    let Everything {
        name,
        comment,
        app_url,
        configuration,
        options,
        email,
        role,
        state,
        feedback,
        server_name,
        plan,
        stripe_token,
    } = taken;
    if let Some(name) = name.as_ref().map(BucketName::as_str) {
        assert!(
            (1..=100).contains(&length(name)) && !name.trim().is_empty() && !name.contains(char::is_control)
        );
    }
    assert!(comment.as_ref().is_none_or(|comment| length(comment.as_str()) <= 1_000));
    if let Some(url) = app_url.as_ref().map(AppUrl::as_str).filter(|url| !url.is_empty()) {
        assert!(length(url) <= 2_048 && !url.contains(char::is_whitespace), "{url:?}");
        let scheme = url.split(':').next().map(str::to_ascii_lowercase);
        assert!(matches!(scheme.as_deref(), Some("http" | "https")), "{url:?}");
    }
    assert!(feedback.as_ref().is_none_or(|feedback| (1..=10_000).contains(&length(feedback.as_str()))));
    for (json, max) in [
        (configuration.as_ref().map(Configuration::as_json), Configuration::MAX_BYTES),
        (options.as_ref().map(UserOptions::as_json), UserOptions::MAX_BYTES),
    ] {
        assert!(json.is_none_or(|json| json.len() <= max));
    }
    let stored = configuration.as_ref().map(|kept| Configuration::from_stored(kept.as_json().to_owned()));
    assert!(stored.is_none_or(|stored| stored.ok() == configuration), "the table gives back another");
    let role = role.map(Role::from);
    assert!(role != Some(Role::Owner));
    let state = state.map(NotificationState::as_str);
    let text = |value: Option<&str>| json!(value).to_string();
    let written = |name: &str, json: &str| format!("\"{name}\":{json}");
    let fields = [
        written("name", &text(name.as_ref().map(BucketName::as_str))),
        written("comment", &text(comment.as_ref().map(Comment::as_str))),
        written("app_url", &text(app_url.as_ref().map(AppUrl::as_str))),
        written("configuration", configuration.as_ref().map_or("null", Configuration::as_json)),
        written("options", options.as_ref().map_or("null", UserOptions::as_json)),
        written("email", &text(email.as_ref().map(Email::as_str))),
        written("role", &text(role.map(Role::as_str))),
        written("state", &text(state)),
        written("feedback", &text(feedback.as_ref().map(Feedback::as_str))),
        written("server_name", &text(server_name.as_ref().map(ServerName::as_str))),
        written("plan", &text(plan.as_ref().map(PlanName::as_str))),
        written("stripe_token", &text(stripe_token.as_deref())),
    ];
    format!("{{{}}}", fields.join(","))
}

fuzz_target!(|input: &[u8]| {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return };
    let (Ok(content_type), body) = (std::str::from_utf8(&input[..end]), &input[end + 1..]) else { return };

    let Some(outcome) = read(content_type, &STANDARD.encode(body), true) else { return };
    let plain = std::str::from_utf8(body).ok().and_then(|body| read(content_type, body, false));
    if let Some(plain) = &plain {
        assert_eq!(plain.is_ok(), outcome.is_ok(), "the encoding matters");
    }
    match outcome {
        Ok(taken) => {
            assert!(body.len() <= Request::MAX_BODY_BYTES);
            let once = written_again(taken);
            // What grows over the bound on the way is another matter.
            if once.len() <= Request::MAX_BODY_BYTES {
                let again = read("application/json", &once, false).and_then(Result::ok).map(written_again);
                assert_eq!(again.as_ref(), Some(&once), "read twice, it is another");
            }
        }
        Err(problem) => {
            let status = problem.status().as_u16();
            assert!(matches!(status, 400 | 413 | 415), "{problem:?}");
            assert_eq!(status == 413, body.len() > Request::MAX_BODY_BYTES, "{problem:?}");
            assert!(!problem.detail().is_empty());
            let answer = problem.into_answer("1");
            let lambda_http::Body::Text(text) = answer.body() else { panic!("no text") };
            let told: Value = serde_json::from_str(text).expect("an answer is JSON");
            assert_eq!(told["status"], status);
        }
    }
});
