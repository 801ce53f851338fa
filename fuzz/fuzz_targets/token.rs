//! Tokens. An input is a header, a line break and claims, which are signed with the one key that counts; behind
//! another line break may stand what is to be changed in the token afterwards (a place and a character). An input
//! without line break is a token as it is.

#![no_main]

use std::sync::LazyLock;

use aws_lc_rs::signature::{Ed25519KeyPair, KeyPair};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequest;
use libfuzzer_sys::fuzz_target;
use serde_json::{Value, json};
use shared::{
    AuthError, Config, IdentityProvider, TokenError,
    domain::{Plans, UserId},
    http::Request,
};
use tokio::runtime::{Builder, Runtime};

/// Nothing listens there: an unknown key is looked for in vain.
const ISSUER: &str = "http://127.0.0.1:1";
const AUDIENCE: &str = "bucket-api";

struct Bench {
    key: Ed25519KeyPair,
    provider: IdentityProvider,
    runtime: Runtime,
}

static BENCH: LazyLock<Bench> = LazyLock::new(|| {
    let key = Ed25519KeyPair::from_seed_unchecked(b"the key of nothing but fuzzing..").expect("a key");
    let x = URL_SAFE_NO_PAD.encode(key.public_key());
    let key_set = json!({ "keys": [{ "kty": "OKP", "crv": "Ed25519", "kid": "1", "alg": "EdDSA", "x": x }] });
    let config = Config {
        table_name: String::new(),
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        client_id: String::new(),
        key_set: serde_json::from_value(key_set).expect("a key set"),
        trust_email: false,
        public_origin: None,
        buckets_per_owner: 1,
        invitation_days: 1,
        plans: Plans::built_in().expect("plans"),
    };
    let runtime = Builder::new_current_thread().enable_all().build().expect("a runtime");
    Bench { key, provider: IdentityProvider::new(&config), runtime }
});

/// Who carries `token`.
fn authenticate(token: &str) -> Result<UserId, AuthError> {
    let event = json!({
        "version": "2.0", "routeKey": "GET /", "rawPath": "/", "isBase64Encoded": false,
        "headers": { "authorization": format!("Bearer {token}") },
        "requestContext": { "http": { "method": "GET" } },
    });
    // What HTTP cannot carry does not get here.
    let Ok(event) = serde_json::from_value::<ApiGatewayV2httpRequest>(event) else {
        return Err(AuthError::MissingToken);
    };
    let request = Request::from(event);
    let caller = BENCH.runtime.block_on(BENCH.provider.authenticate(&request))?;
    Ok(caller.user_id)
}

/// Asserts that a token of `header` and `claims` may be taken, read by another parser.
fn assert_acceptable(header: &str, claims: &str, user: &UserId) {
    let header: Value = serde_json::from_str(header).expect("the header is JSON");
    let claims: Value = serde_json::from_str(claims).expect("the claims are JSON");
    assert_eq!(header["alg"], "EdDSA");
    assert!(header["kid"].is_null() || header["kid"] == "1", "{header}");
    for name in ["crit", "jku", "jwk", "x5u", "x5c"] {
        assert!(header[name].is_null(), "{name} in {header}");
    }
    assert_eq!(claims["iss"], ISSUER);
    let audience = if claims["aud"].is_null() { &claims["client_id"] } else { &claims["aud"] };
    let is_meant =
        audience == AUDIENCE || audience.as_array().is_some_and(|all| all.contains(&AUDIENCE.into()));
    assert!(is_meant, "{claims}");
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock").as_secs_f64();
    assert!(claims["exp"].as_f64().expect("exp") > now - 62.0, "{claims}");
    assert!(claims["nbf"].as_f64().is_none_or(|nbf| nbf < now + 62.0), "{claims}");
    let subject = claims["sub"].as_str().expect("sub");
    assert!(!subject.is_empty());
    assert_eq!(*user, UserId::of_subject(ISSUER, subject));
}

/// Whether the object `json` has a member of this name twice, as far as that is plain to see.
fn has_twice(json: &str, name: &str) -> bool {
    json.matches(&format!("\"{name}\"")).count() > 1
        && !json.contains('\\')
        && json.matches(['{', '[']).count() == 1
}

fuzz_target!(|text: &str| {
    let mut lines = text.splitn(3, '\n');
    let (Some(header), Some(claims)) = (lines.next(), lines.next()) else {
        match authenticate(text) {
            Ok(_) => panic!("nobody has signed {text:?}"),
            Err(AuthError::MissingToken | AuthError::Token(_)) => return,
            Err(error) => panic!("{error} for {text:?}"),
        }
    };
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let signature = URL_SAFE_NO_PAD.encode(BENCH.key.sign(message.as_bytes()));
    let token = format!("{message}.{signature}");
    let outcome = authenticate(&token);
    if token.len() > 8 * 1024 {
        assert!(matches!(outcome, Err(AuthError::Token(TokenError::TooLong))), "{outcome:?}");
    }
    match &outcome {
        Ok(user) => {
            assert_acceptable(header, claims, user);
            for name in ["iss", "sub", "aud", "exp", "email", "email_verified"] {
                // In the place of a value it says nothing.
                assert!(!has_twice(claims, name) || claims.contains(&format!(":\"{name}\"")), "{claims}");
            }
        }
        Err(AuthError::Token(TokenError::Signature | TokenError::Revoked)) => {
            panic!("{outcome:?} for {text:?}")
        }
        Err(AuthError::Token(_)) => {}
        Err(error) => panic!("{error} for {text:?}"),
    }

    // Whatever is changed in it afterwards makes it no token.
    let Some(change) = lines.next() else { return };
    let mut change = change.chars();
    let (Some(place), Some(to)) = (change.next(), change.next()) else { return };
    let mut changed: Vec<char> = token.chars().collect();
    let place = place as usize % changed.len();
    if changed[place] != to {
        changed[place] = to;
        let changed: String = changed.into_iter().collect();
        // A blank at its end is not part of it.
        if changed.trim() == changed {
            assert!(authenticate(&changed).is_err(), "{changed:?} is taken for {token:?}");
        }
    }
});
