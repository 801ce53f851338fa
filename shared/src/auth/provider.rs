//! The identity provider: any that speaks OpenID Connect.

use std::{
    fmt,
    time::{Duration, Instant},
};

use jsonwebtoken::jwk::JwkSet;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::form_urlencoded;

use super::{
    AuthError, Caller, Profile, bearer_token,
    keys::KeySet,
    token::{self, PersonClaims, TokenError},
};
use crate::{
    Config,
    domain::{Email, UserId, Username},
    http::Request,
    web::{Web, WebError},
};

/// How long an answer of the provider may take.
const TIMEOUT: Duration = Duration::from_secs(4);

/// What is read of the discovery document (OpenID Connect Discovery 3).
#[derive(Clone, Debug, Deserialize)]
struct Discovery {
    issuer: String,
    jwks_uri: String,
    userinfo_endpoint: Option<String>,
    token_endpoint: Option<String>,
}

/// What the userinfo endpoint answers (OpenID Connect Core 5.3.2).
#[derive(Deserialize)]
struct UserInfo {
    sub: String,
    #[serde(flatten)]
    person: PersonClaims,
}

/// Why the token endpoint refused (RFC 6749 5.2).
#[derive(Deserialize)]
struct TokenRefusal {
    error: String,
}

/// Fresh tokens of the provider (RFC 6749 5.1). Its `Debug` shows none.
#[derive(Deserialize)]
pub struct Tokens {
    /// The access token.
    pub access_token: String,
    /// The next refresh token, where the provider rotates them.
    pub refresh_token: Option<String>,
    /// Seconds until the access token expires, where the provider says.
    #[serde(default, deserialize_with = "token::lenient_seconds")]
    pub expires_in: Option<u32>,
}

impl fmt::Debug for Tokens {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Tokens").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

/// The identity provider of a deployment.
#[derive(Debug)]
pub struct IdentityProvider {
    issuer: String,
    audience: String,
    client_id: String,
    trust_email: bool,
    keys: KeySet,
    discovery: Mutex<Option<Discovery>>,
    web: Web,
}

impl IdentityProvider {
    /// The provider that `config` names. Nothing is asked of it yet.
    #[must_use]
    pub fn new(config: &Config) -> Self {
        Self {
            issuer: config.issuer.clone(),
            audience: config.audience.clone(),
            client_id: config.client_id.clone(),
            trust_email: config.trust_email,
            keys: KeySet::new(config.key_set.as_ref()),
            discovery: Mutex::default(),
            web: Web::default(),
        }
    }

    /// Fetches the key set during INIT, unless the configuration holds it. A provider that is down
    /// then is asked again when somebody comes.
    pub async fn prepare(&self) {
        self.keys.prepare(Instant::now(), async || self.fetch_keys().await).await;
    }

    /// Whose token `request` carries, verified; no network call while the key is known.
    ///
    /// # Errors
    /// No token, a bad one, or no key set to verify it with.
    pub async fn authenticate(&self, request: &Request) -> Result<Caller, AuthError> {
        let token = bearer_token(request)?;
        let hint = token::key_hint(token)?;
        let key = self.keys.find(&hint, Instant::now(), async || self.fetch_keys().await).await?;
        let claims = token::verify(token, &key, &self.issuer, &self.audience)?;
        Ok(Caller { user_id: UserId::of_subject(&self.issuer, &claims.sub), token: token.to_owned(), claims })
    }

    /// What the token itself says of `caller`, where it names an address and says whether that is
    /// verified.
    #[must_use]
    pub fn claimed_profile(&self, caller: &Caller) -> Option<Profile> {
        let person = &caller.claims.person;
        let says = person.email.is_some() && (person.email_verified.is_some() || self.trust_email);
        says.then(|| self.profile_of(person))
    }

    /// What the provider says of `caller`: from the token where it names an address, else from the
    /// userinfo endpoint.
    ///
    /// # Errors
    /// The userinfo endpoint had to be asked and does not answer, or does not know the token (any more).
    pub async fn profile(&self, caller: &Caller) -> Result<Profile, AuthError> {
        if let Some(profile) = self.claimed_profile(caller) {
            return Ok(profile);
        }
        let Some(url) = self.discovery().await?.userinfo_endpoint else {
            return Ok(self.profile_of(&caller.claims.person));
        };
        let authorization = format!("Bearer {}", caller.token);
        let answer = self
            .web
            .send(
                "GET",
                &url,
                &[("authorization", authorization.as_str()), ("accept", "application/json")],
                String::new(),
                TIMEOUT,
            )
            .await?;
        // RFC 6750 3.1: a token that was revoked, and one without the scope `openid`.
        match answer.status {
            401 => return Err(AuthError::Token(TokenError::Revoked)),
            403 => return Ok(self.profile_of(&caller.claims.person)),
            _ => {}
        }
        let info: UserInfo = answer.json()?;
        // OpenID Connect Core 5.3.2: the subjects must agree, or the answer must not be used.
        if info.sub != caller.claims.sub {
            return Err(AuthError::Token(TokenError::Revoked));
        }
        Ok(self.profile_of(&info.person))
    }

    fn profile_of(&self, person: &PersonClaims) -> Profile {
        let email = person.email.as_deref().and_then(|email| Email::parse(email).ok());
        let fallback = email.as_ref().map_or("", Email::local_part);
        Profile {
            email_verified: self.trust_email || person.email_verified == Some(true),
            username: Username::from_claim(person.shown_name(), fallback),
            email,
        }
    }

    /// Exchanges a refresh token for fresh tokens (RFC 6749 6), under the deployment's client id.
    ///
    /// # Errors
    /// The provider refuses the token, or does not answer.
    pub async fn refresh(&self, refresh_token: &str) -> Result<Tokens, AuthError> {
        let discovery = self.discovery().await?;
        let Some(url) = discovery.token_endpoint else {
            return Err(AuthError::Provider(WebError::Content {
                url: discovery_url(&self.issuer),
                reason: "it names no token endpoint".to_owned(),
            }));
        };
        let form = form_urlencoded::Serializer::new(String::new())
            .append_pair("grant_type", "refresh_token")
            .append_pair("refresh_token", refresh_token)
            .append_pair("client_id", &self.client_id)
            .finish();
        let answer = self
            .web
            .send(
                "POST",
                &url,
                &[("content-type", "application/x-www-form-urlencoded"), ("accept", "application/json")],
                form,
                TIMEOUT,
            )
            .await?;
        if answer.is_success() {
            return Ok(answer.json()?);
        }
        // RFC 6749 5.2: only this word speaks of the token; the others of how the deployment asks.
        match answer.any_json::<TokenRefusal>() {
            Some(TokenRefusal { error }) if error == "invalid_grant" => Err(AuthError::InvalidGrant),
            Some(TokenRefusal { error }) => Err(AuthError::Exchange { url, error }),
            None => Err(AuthError::Provider(WebError::Status { url, status: answer.status })),
        }
    }

    async fn fetch_keys(&self) -> Result<JwkSet, WebError> {
        let url = self.discovery().await?.jwks_uri;
        self.web.send("GET", &url, &[("accept", "application/json")], String::new(), TIMEOUT).await?.json()
    }

    /// The discovery document, fetched once: an endpoint that moves comes with new functions' starts.
    async fn discovery(&self) -> Result<Discovery, WebError> {
        let mut cached = self.discovery.lock().await;
        if let Some(discovery) = &*cached {
            return Ok(discovery.clone());
        }
        let url = discovery_url(&self.issuer);
        let discovery: Discovery = self
            .web
            .send("GET", &url, &[("accept", "application/json")], String::new(), TIMEOUT)
            .await?
            .json()?;
        // OpenID Connect Discovery 4.3: the document must be of the issuer that it was asked of.
        if discovery.issuer != self.issuer {
            return Err(WebError::Content { url, reason: "it names another issuer".to_owned() });
        }
        Ok(cached.insert(discovery).clone())
    }
}

/// OpenID Connect Discovery 4.1.
fn discovery_url(issuer: &str) -> String {
    format!("{}/.well-known/openid-configuration", issuer.trim_end_matches('/'))
}

#[cfg(test)]
mod tests {
    use std::{
        collections::HashMap,
        sync::{Arc, Mutex},
    };

    use serde_json::{Value, json};
    use tokio::{
        io::{AsyncReadExt, AsyncWriteExt},
        net::TcpListener,
    };

    use super::*;

    /// A provider that answers each path as it was told to, and keeps what it was sent.
    struct Fake {
        issuer: String,
        answers: Arc<Mutex<HashMap<&'static str, (u16, Value)>>>,
        requests: Arc<Mutex<Vec<String>>>,
    }

    impl Fake {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let issuer = format!("http://{}", listener.local_addr().unwrap());
            let fake = Self { issuer, answers: Arc::default(), requests: Arc::default() };
            let (answers, requests) = (Arc::clone(&fake.answers), Arc::clone(&fake.requests));
            tokio::spawn(async move {
                while let Ok((mut stream, _)) = listener.accept().await {
                    let mut request = vec![0; 16 * 1024];
                    let read = stream.read(&mut request).await.unwrap();
                    let request = String::from_utf8_lossy(&request[..read]).into_owned();
                    let path = request.split(' ').nth(1).unwrap().to_owned();
                    requests.lock().unwrap().push(request);
                    let (status, body) = answers.lock().unwrap().get(path.as_str()).cloned().unwrap();
                    let body = body.to_string();
                    let head = format!(
                        "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: close\r\n\r\n",
                        body.len()
                    );
                    stream.write_all(format!("{head}{body}").as_bytes()).await.unwrap();
                }
            });
            let issuer = &fake.issuer;
            let discovery = json!({
                "issuer": issuer, "jwks_uri": format!("{issuer}/jwks"),
                "userinfo_endpoint": format!("{issuer}/userinfo"), "token_endpoint": format!("{issuer}/token"),
            });
            fake.answers("/.well-known/openid-configuration", 200, discovery);
            fake
        }

        fn answers(&self, path: &'static str, status: u16, body: Value) {
            self.answers.lock().unwrap().insert(path, (status, body));
        }

        fn provider(&self) -> IdentityProvider {
            IdentityProvider::new(&Config {
                table_name: String::new(),
                issuer: self.issuer.clone(),
                audience: "bucket-api".to_owned(),
                client_id: "our-client".to_owned(),
                key_set: None,
                trust_email: false,
                public_origin: None,
                buckets_per_owner: 1,
                invitation_days: 1,
                plans: crate::domain::Plans::built_in().unwrap(),
            })
        }

        fn requests(&self) -> Vec<String> {
            self.requests.lock().unwrap().clone()
        }
    }

    fn caller(claims: &Value) -> Caller {
        let mut all = json!({ "iss": "issuer", "sub": "alice" });
        all.as_object_mut().unwrap().extend(claims.as_object().unwrap().clone());
        Caller {
            user_id: UserId::of_subject("issuer", "alice"),
            token: "the-token".to_owned(),
            claims: serde_json::from_value(all).unwrap(),
        }
    }

    fn address(profile: &Profile) -> Option<&str> {
        profile.verified_email().map(Email::as_str)
    }

    #[tokio::test]
    async fn what_a_token_leaves_out_the_userinfo_endpoint_says() {
        let fake = Fake::start().await;
        let info =
            json!({ "sub": "alice", "email": "Alice@example.com", "email_verified": true, "name": ["odd"] });
        fake.answers("/userinfo", 200, info);
        let provider = fake.provider();

        for claims in [json!({}), json!({ "email": "alice@example.com" })] {
            let profile = provider.profile(&caller(&claims)).await.unwrap();

            assert_eq!(address(&profile), Some("alice@example.com"));
            assert_eq!(profile.username.as_str(), "alice");
        }
        let sent = fake.requests();
        // The discovery document is asked for once.
        assert_eq!(sent.len(), 3);
        assert!(sent[1].contains("authorization: Bearer the-token"), "{}", sent[1]);
    }

    #[tokio::test]
    async fn a_token_that_says_it_all_needs_no_call() {
        let fake = Fake::start().await;
        let claims = json!({ "email": "alice@example.com", "email_verified": true });

        let profile = fake.provider().profile(&caller(&claims)).await.unwrap();

        assert_eq!(address(&profile), Some("alice@example.com"));
        assert!(fake.requests().is_empty());
    }

    #[tokio::test]
    async fn a_refusal_of_the_userinfo_endpoint_is_the_tokens_fault() {
        let fake = Fake::start().await;
        let provider = fake.provider();
        let me = caller(&json!({ "email": "alice@example.com" }));

        fake.answers("/userinfo", 401, json!({}));
        assert!(matches!(provider.profile(&me).await, Err(AuthError::Token(TokenError::Revoked))));
        fake.answers("/userinfo", 403, json!({}));
        let profile = provider.profile(&me).await.unwrap();
        assert_eq!((address(&profile), profile.email.is_some()), (None, true));
        fake.answers(
            "/userinfo",
            200,
            json!({ "sub": "mallory", "email": "m@example.com", "email_verified": true }),
        );
        assert!(matches!(provider.profile(&me).await, Err(AuthError::Token(TokenError::Revoked))));
        for (status, body) in [(500, json!({})), (200, json!("text")), (302, json!({}))] {
            fake.answers("/userinfo", status, body);
            assert!(matches!(provider.profile(&me).await, Err(AuthError::Provider(_))), "{status}");
        }
    }

    #[tokio::test]
    async fn a_refresh_token_is_exchanged_in_the_deployments_name() {
        let fake = Fake::start().await;
        fake.answers(
            "/token",
            200,
            json!({ "access_token": "a", "token_type": "Bearer", "expires_in": "60" }),
        );

        let tokens = fake.provider().refresh("r+&=").await.unwrap();

        assert_eq!(
            (tokens.access_token.as_str(), tokens.refresh_token, tokens.expires_in),
            ("a", None, Some(60))
        );
        let sent = fake.requests().remove(1);
        assert!(
            sent.ends_with("grant_type=refresh_token&refresh_token=r%2B%26%3D&client_id=our-client"),
            "{sent}"
        );
    }

    #[test]
    fn tokens_are_not_shown() {
        let tokens = json!({ "access_token": "secret", "refresh_token": "secret", "expires_in": 60 });
        let tokens: Tokens = serde_json::from_value(tokens).unwrap();

        assert_eq!(format!("{tokens:?}"), "Tokens { expires_in: Some(60), .. }");
    }

    #[tokio::test]
    async fn the_key_set_is_fetched_at_start_and_serves_whoever_comes() {
        let fake = Fake::start().await;
        let key = json!({
            "kty": "OKP", "crv": "Ed25519", "kid": "a", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo",
        });
        fake.answers("/jwks", 200, json!({ "keys": [key] }));
        let provider = fake.provider();
        provider.prepare().await;
        assert_eq!(fake.requests().len(), 2);

        let base64url = |text: &str| {
            use base64::Engine;
            base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(text)
        };
        for (kid, refused) in [("a", TokenError::Signature), ("b", TokenError::UnknownKey)] {
            let header = base64url(&json!({ "alg": "EdDSA", "kid": kid }).to_string());
            let token = format!("{header}.{}.{}", base64url("{}"), base64url(&"x".repeat(64)));
            let event = json!({
                "headers": { "authorization": format!("Bearer {token}") },
                "requestContext": { "http": { "method": "GET" } },
            });
            let event: lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequest =
                serde_json::from_value(event).unwrap();

            let outcome = provider.authenticate(&event.into()).await;

            assert!(matches!(&outcome, Err(AuthError::Token(error)) if *error == refused), "{outcome:?}");
        }
        assert_eq!(fake.requests().len(), 2);
    }

    #[tokio::test]
    async fn only_an_invalid_grant_is_the_callers_fault() {
        let fake = Fake::start().await;
        let provider = fake.provider();

        fake.answers("/token", 400, json!({ "error": "invalid_grant" }));
        assert!(matches!(provider.refresh("r").await, Err(AuthError::InvalidGrant)));
        fake.answers("/token", 401, json!({ "error": "invalid_client" }));
        let refused = provider.refresh("r").await;
        assert!(
            matches!(&refused, Err(AuthError::Exchange { error, .. }) if error == "invalid_client"),
            "{refused:?}"
        );
        for status in [400, 429, 500] {
            fake.answers("/token", status, json!("busy"));
            assert!(matches!(provider.refresh("r").await, Err(AuthError::Provider(_))), "{status}");
        }
    }

    #[tokio::test]
    async fn a_discovery_document_of_another_issuer_is_not_used() {
        let fake = Fake::start().await;
        fake.answers(
            "/.well-known/openid-configuration",
            200,
            json!({ "issuer": "https://other.example", "jwks_uri": "x" }),
        );

        assert!(matches!(
            fake.provider().refresh("r").await,
            Err(AuthError::Provider(WebError::Content { .. }))
        ));
    }
}
