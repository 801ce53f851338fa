//! An OpenID provider for one machine: everybody may sign in, the e-mail address being the password.
//!
//! It knows the refresh grant only, which is what the published clients use. Nothing is kept but the
//! signing key: the refresh token is the address, and what else there is to say stands in the access
//! token.
//!
//! Sources: OpenID Connect Core and Discovery 1.0, RFC 6749 (grants), RFC 9068 (access tokens).

use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fmt, fs};

use aws_lc_rs::digest::{SHA256, digest};
use aws_lc_rs::error::Unspecified;
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _, UnparsedPublicKey,
};
use axum::Router;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS, ACCESS_CONTROL_ALLOW_ORIGIN, AUTHORIZATION,
    CACHE_CONTROL, CONTENT_TYPE, WWW_AUTHENTICATE,
};
use axum::http::{HeaderMap, HeaderValue, Method, Request, StatusCode};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{get, post};
use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD as BASE64;
use serde_json::{Value, json};
use time::OffsetDateTime;
use url::form_urlencoded;

use crate::client::{self, ClientError};
use crate::{http, ids};

/// Below the stack's origin.
pub(crate) const PATH: &str = "/_local/oidc";
/// The audience and the client of a deployment that names no other.
pub(crate) const DEFAULT_CLIENT: &str = "bucket-api";

/// Seconds that an access token lives if its refresh token does not say.
const LIFETIME: i64 = 3600;
/// Seconds beyond its end that an access token is still good for userinfo: clocks differ.
const LEEWAY: i64 = 60;
/// Bytes of a form.
const MAX_FORM: usize = 64 * 1024;
/// Marks the token of a person whose address is not verified.
const UNVERIFIED: &str = "local_unverified";

/// The provider.
#[derive(Clone)]
pub struct Identity {
    inner: Arc<Inner>,
}

struct Inner {
    issuer: String,
    audience: String,
    client_id: String,
    key: EcdsaKeyPair,
    /// The public key as a JWK.
    jwk: Value,
}

/// Why there is no provider.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// The file of the key cannot be read or written.
    #[error("cannot use the signing key {}: {source}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The file holds something else.
    #[error("{} is not a signing key: delete it, and a new one is made (people keep their ids)", path.display())]
    Key {
        /// The file.
        path: PathBuf,
    },
    /// The machine has no randomness to give.
    #[error("cannot make a signing key")]
    Generate,
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// It is not an address with the marks that this provider knows.
    #[error("the refresh token must be an e-mail address, with `#unverified` or `#ttl=SECONDS` if wanted")]
    InvalidGrant,
    /// The library refused to sign.
    #[error("cannot sign the token")]
    Sign,
}

/// What a refresh token stands for.
#[derive(Debug, PartialEq, Eq)]
struct Grant {
    /// Trimmed, in small letters: the subject.
    email: String,
    verified: bool,
    /// Seconds; negative for a token that has expired.
    lifetime: i64,
}

impl Identity {
    /// A provider whose key is kept in `file`, or made afresh if there is none.
    pub(crate) fn open(
        file: Option<&Path>,
        issuer: String,
        audience: String,
        client_id: String,
    ) -> Result<Self, IdentityError> {
        let key = match file {
            Some(path) => kept_key(path)?,
            None => generate()?,
        };
        let jwk = public_jwk(&key);
        Ok(Self { inner: Arc::new(Inner { issuer, audience, client_id, key, jwk }) })
    }

    /// The `iss` of its tokens; the base of its endpoints.
    #[must_use]
    pub fn issuer(&self) -> &str {
        &self.inner.issuer
    }

    /// The `aud` of its tokens.
    #[must_use]
    pub fn audience(&self) -> &str {
        &self.inner.audience
    }

    /// The access token that the token endpoint gives for `refresh_token`.
    pub fn token(&self, refresh_token: &str) -> Result<String, TokenError> {
        self.access_token(&Grant::parse(refresh_token)?)
    }

    /// A token with exactly these claims, under this provider's key.
    pub fn sign(&self, claims: &Value) -> Result<String, TokenError> {
        let kid = self.inner.jwk.get("kid");
        self.sign_with_header(&json!({ "alg": "ES256", "typ": "at+jwt", "kid": kid }), claims)
    }

    /// A token with exactly this header and these claims. The signature is always ES256, whatever the
    /// header says.
    pub fn sign_with_header(&self, header: &Value, claims: &Value) -> Result<String, TokenError> {
        self.sign_message(&format!(
            "{}.{}",
            BASE64.encode(header.to_string()),
            BASE64.encode(claims.to_string())
        ))
    }

    /// `message`, which need not be two parts of a token, with its signature behind a dot.
    pub fn sign_message(&self, message: &str) -> Result<String, TokenError> {
        let signature = self.inner.key.sign(&SystemRandom::new(), message.as_bytes());
        // The library says nothing but that it failed.
        let signature = signature.map_err(|Unspecified| TokenError::Sign)?;
        Ok(format!("{message}.{}", BASE64.encode(signature)))
    }

    fn access_token(&self, grant: &Grant) -> Result<String, TokenError> {
        let now = OffsetDateTime::now_utc().unix_timestamp();
        let mut claims = json!({
            "iss": self.inner.issuer,
            "sub": grant.email,
            "aud": self.inner.audience,
            "client_id": self.inner.client_id,
            "iat": now,
            "exp": now + grant.lifetime,
            "jti": ids::uuid(),
        });
        if let (false, Some(claims)) = (grant.verified, claims.as_object_mut()) {
            claims.insert(UNVERIFIED.to_owned(), Value::Bool(true));
        }
        self.sign(&claims)
    }

    /// The claims of an access token of this provider that has not expired.
    fn verify(&self, token: &str) -> Option<Value> {
        let (message, signature) = token.rsplit_once('.')?;
        let (_, claims) = message.split_once('.')?;
        let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, self.inner.key.public_key().as_ref());
        key.verify(message.as_bytes(), &BASE64.decode(signature).ok()?).ok()?;
        let claims: Value = serde_json::from_slice(&BASE64.decode(claims).ok()?).ok()?;
        let lives = claims.get("exp")?.as_i64()? + LEEWAY > OffsetDateTime::now_utc().unix_timestamp();
        (lives && claims.get("iss")? == self.inner.issuer.as_str()).then_some(claims)
    }

    /// The endpoints, below [`PATH`].
    pub(crate) fn router(&self) -> Router {
        Router::new()
            .route("/.well-known/openid-configuration", get(discovery))
            .route("/jwks", get(jwks))
            .route("/token", post(token).options(preflight))
            .route("/userinfo", get(userinfo).post(userinfo).options(preflight))
            .layer(map_response(open_to_pages))
            .with_state(self.clone())
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Not the key.
        let Inner { issuer, audience, client_id, key: _, jwk: _ } = &*self.inner;
        formatter
            .debug_struct("Identity")
            .field("issuer", issuer)
            .field("audience", audience)
            .field("client_id", client_id)
            .finish_non_exhaustive()
    }
}

impl Grant {
    fn parse(refresh_token: &str) -> Result<Self, TokenError> {
        let mut parts = refresh_token.split('#');
        let email = parts.next().unwrap_or_default().trim().to_ascii_lowercase();
        let is_address = email
            .split_once('@')
            .is_some_and(|(local, domain)| !local.is_empty() && !domain.is_empty() && !domain.contains('@'));
        if !is_address
            || email.contains(|character: char| character.is_whitespace() || character.is_control())
        {
            return Err(TokenError::InvalidGrant);
        }
        let mut grant = Self { email, verified: true, lifetime: LIFETIME };
        for mark in parts {
            match mark.split_once('=') {
                None if mark == "unverified" => grant.verified = false,
                Some(("ttl", seconds)) => {
                    let seconds: i32 = seconds.parse().map_err(|_not_a_number| TokenError::InvalidGrant)?;
                    grant.lifetime = seconds.into();
                }
                _ => return Err(TokenError::InvalidGrant),
            }
        }
        Ok(grant)
    }
}

/// The key in `path`, which is made if it is not there.
fn kept_key(path: &Path) -> Result<EcdsaKeyPair, IdentityError> {
    let file_error = |source| IdentityError::File { path: path.to_owned(), source };
    match fs::read(path) {
        // The library says nothing but that it is not one.
        Ok(pkcs8) => EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &pkcs8)
            .map_err(|_rejected| IdentityError::Key { path: path.to_owned() }),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let key = generate()?;
            let pkcs8 = key.to_pkcs8v1().map_err(|Unspecified| IdentityError::Generate)?;
            // Readable by nobody else from the first moment; complete or not there at all.
            let new = path.with_extension("key.new");
            fs::OpenOptions::new()
                .write(true)
                .create(true)
                .truncate(true)
                .mode(0o600)
                .open(&new)
                .and_then(|mut file| file.write_all(pkcs8.as_ref()))
                .and_then(|()| fs::rename(&new, path))
                .map_err(file_error)?;
            Ok(key)
        }
        Err(error) => Err(file_error(error)),
    }
}

fn generate() -> Result<EcdsaKeyPair, IdentityError> {
    EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).map_err(|Unspecified| IdentityError::Generate)
}

/// The public half as a JWK, its `kid` being the thumbprint of RFC 7638.
fn public_jwk(key: &EcdsaKeyPair) -> Value {
    // An uncompressed point: a 4, then both coordinates.
    let point = key.public_key().as_ref();
    let (x, y) = point.get(1..).unwrap_or_default().split_at(point.len() / 2);
    let (x, y) = (BASE64.encode(x), BASE64.encode(y));
    let thumbprint =
        digest(&SHA256, format!(r#"{{"crv":"P-256","kty":"EC","x":"{x}","y":"{y}"}}"#).as_bytes());
    json!({
        "kty": "EC",
        "crv": "P-256",
        "x": x,
        "y": y,
        "kid": BASE64.encode(thumbprint),
        "alg": "ES256",
        "use": "sig",
    })
}

async fn discovery(State(identity): State<Identity>) -> Response {
    let issuer = identity.issuer();
    let document = json!({
        "issuer": issuer,
        "jwks_uri": format!("{issuer}/jwks"),
        "token_endpoint": format!("{issuer}/token"),
        "userinfo_endpoint": format!("{issuer}/userinfo"),
        "grant_types_supported": ["refresh_token"],
        "response_types_supported": ["none"],
        "scopes_supported": ["openid", "email", "profile"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["ES256"],
        "token_endpoint_auth_methods_supported": ["none"],
        "claims_supported": ["sub", "email", "email_verified", "preferred_username"],
    });
    http::json(StatusCode::OK, &document)
}

async fn jwks(State(identity): State<Identity>) -> Response {
    http::json(StatusCode::OK, &json!({ "keys": [identity.inner.jwk] }))
}

async fn token(State(identity): State<Identity>, request: Request<Body>) -> Response {
    let (parts, body) = request.into_parts();
    let content_type =
        parts.headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !content_type.trim().to_ascii_lowercase().starts_with("application/x-www-form-urlencoded") {
        return refused("invalid_request", "send a form: application/x-www-form-urlencoded");
    }
    let Ok(body) = http::read_body(body, MAX_FORM).await else {
        return refused("invalid_request", "the form is too long");
    };
    let form: Vec<_> = form_urlencoded::parse(&body).collect();
    let field = |name: &str| form.iter().find(|(field, _)| field == name).map(|(_, value)| &**value);

    // The client of `bucket-api token` is good for any deployment.
    if field("client_id").is_none_or(|id| id != identity.inner.client_id && id != DEFAULT_CLIENT) {
        let client_id = &identity.inner.client_id;
        return refused("invalid_client", &format!("the client_id of this deployment is {client_id}"));
    }
    match field("grant_type") {
        Some("refresh_token") => {}
        Some(_) => return refused("unsupported_grant_type", "only refresh_token is supported"),
        None => return refused("invalid_request", "the grant_type is missing"),
    }
    let Some(refresh_token) = field("refresh_token") else {
        return refused("invalid_request", "the refresh_token is missing");
    };
    let granted = Grant::parse(refresh_token).and_then(|grant| Ok((identity.access_token(&grant)?, grant)));
    match granted {
        Ok((access_token, grant)) => {
            let body = json!({
                "access_token": access_token,
                "token_type": "Bearer",
                "expires_in": grant.lifetime.max(0),
                "refresh_token": refresh_token,
            });
            let mut response = http::json(StatusCode::OK, &body);
            response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
            response
        }
        Err(error @ TokenError::InvalidGrant) => refused("invalid_grant", &error.to_string()),
        Err(error @ TokenError::Sign) => {
            http::json(StatusCode::INTERNAL_SERVER_ERROR, &json!({ "error": error.to_string() }))
        }
    }
}

async fn userinfo(State(identity): State<Identity>, headers: HeaderMap) -> Response {
    let bearer = headers.get(AUTHORIZATION).and_then(|value| value.to_str().ok()).and_then(|value| {
        let (scheme, token) = value.split_once(' ')?;
        scheme.eq_ignore_ascii_case("bearer").then_some(token)
    });
    let claims = bearer.and_then(|token| identity.verify(token));
    let Some(email) = claims.as_ref().and_then(|claims| claims.get("sub")?.as_str()) else {
        let mut response = http::json(StatusCode::UNAUTHORIZED, &json!({ "error": "invalid_token" }));
        let challenge = HeaderValue::from_static("Bearer error=\"invalid_token\"");
        response.headers_mut().insert(WWW_AUTHENTICATE, challenge);
        return response;
    };
    let unverified = claims.as_ref().and_then(|claims| claims.get(UNVERIFIED)).is_some();
    let body = json!({
        "sub": email,
        "email": email,
        "email_verified": !unverified,
        "preferred_username": email.split('@').next(),
    });
    http::json(StatusCode::OK, &body)
}

/// The answer to a page that asks whether it may send a form or a token.
async fn preflight() -> StatusCode {
    StatusCode::NO_CONTENT
}

/// Lets any page read the answer.
async fn open_to_pages(mut response: Response) -> Response {
    let headers = response.headers_mut();
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    if response.status() == StatusCode::NO_CONTENT {
        let headers = response.headers_mut();
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, HeaderValue::from_static("GET, POST"));
        headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, HeaderValue::from_static("authorization, content-type"));
    }
    response
}

/// An error of RFC 6749, section 5.2.
fn refused(error: &str, description: &str) -> Response {
    http::json(StatusCode::BAD_REQUEST, &json!({ "error": error, "error_description": description }))
}

/// Why the running stack gave no token.
#[derive(Debug, thiserror::Error)]
pub enum RequestTokenError {
    /// Nobody answered.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The provider refused.
    #[error("{0}")]
    Refused(String),
    /// Whoever answered is not this provider.
    #[error("what answers at {origin} is not a bucket-api stack")]
    Stranger {
        /// Where it answers.
        origin: String,
    },
}

/// Asks the stack at `origin` for an access token, as a client would.
pub async fn request_token(origin: &str, refresh_token: &str) -> Result<String, RequestTokenError> {
    let form = form_urlencoded::Serializer::new(String::new())
        .append_pair("grant_type", "refresh_token")
        .append_pair("client_id", DEFAULT_CLIENT)
        .append_pair("refresh_token", refresh_token)
        .finish();
    let stranger = || RequestTokenError::Stranger { origin: origin.to_owned() };
    let request = Request::builder()
        .method(Method::POST)
        .uri(format!("{origin}{PATH}/token"))
        .header(CONTENT_TYPE, "application/x-www-form-urlencoded")
        .body(form)
        .map_err(|_invalid| stranger())?;
    let response = client::send(request).await?;
    let body: Value = serde_json::from_slice(response.body()).map_err(|_not_json| stranger())?;
    let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
    match (text("access_token"), text("error_description")) {
        (Some(token), _) => Ok(token),
        (None, Some(reason)) => Err(RequestTokenError::Refused(reason)),
        (None, None) => Err(stranger()),
    }
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::jwk::JwkSet;
    use jsonwebtoken::{Algorithm, DecodingKey, Validation};
    use tokio::net::TcpListener;

    use super::*;

    /// A provider on a port of its own.
    struct Provider {
        identity: Identity,
        _server: http::Server,
    }

    impl Provider {
        async fn start() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let issuer = format!("http://{}{PATH}", listener.local_addr().unwrap());
            let identity = Identity::open(None, issuer, "audience".to_owned(), "client".to_owned()).unwrap();
            let router = Router::new().nest(PATH, identity.router());
            Self { identity, _server: http::Server::spawn(listener, router) }
        }

        async fn send(
            &self,
            method: Method,
            path: &str,
            headers: &[(&str, &str)],
            body: &str,
        ) -> (StatusCode, Value) {
            let mut request =
                Request::builder().method(method).uri(format!("{}{path}", self.identity.issuer()));
            for (name, value) in headers {
                request = request.header(*name, *value);
            }
            let response = client::send(request.body(body.to_owned()).unwrap()).await.unwrap();
            assert_eq!(response.headers()["access-control-allow-origin"], "*", "{path}");
            (response.status(), serde_json::from_slice(response.body()).unwrap_or_default())
        }

        async fn grant(&self, form: &str) -> (StatusCode, Value) {
            self.send(Method::POST, "/token", &[("content-type", "application/x-www-form-urlencoded")], form)
                .await
        }

        async fn userinfo(&self, token: &str) -> (StatusCode, Value) {
            self.send(Method::GET, "/userinfo", &[("authorization", &format!("Bearer {token}"))], "").await
        }

        /// The claims of `token`, verified by another library with the published key set.
        async fn verify(&self, token: &str) -> Value {
            let (_, keys) = self.send(Method::GET, "/jwks", &[], "").await;
            let keys: JwkSet = serde_json::from_value(keys).unwrap();
            let header = jsonwebtoken::decode_header(token).unwrap();
            assert_eq!(header.typ.as_deref(), Some("at+jwt"));
            let key = DecodingKey::from_jwk(keys.find(&header.kid.unwrap()).unwrap()).unwrap();
            let mut validation = Validation::new(Algorithm::ES256);
            validation.set_audience(&["audience"]);
            validation.set_issuer(&[self.identity.issuer()]);
            validation.validate_exp = false;
            jsonwebtoken::decode::<Value>(token, &key, &validation).unwrap().claims
        }
    }

    fn form(refresh_token: &str) -> String {
        form_urlencoded::Serializer::new("grant_type=refresh_token&client_id=client".to_owned())
            .append_pair("refresh_token", refresh_token)
            .finish()
    }

    #[tokio::test]
    async fn an_address_is_good_for_an_access_token() {
        let provider = Provider::start().await;

        let (status, answer) = provider.grant(&form(" You@Example.com ")).await;

        assert_eq!(status, StatusCode::OK);
        assert_eq!(answer["token_type"], "Bearer");
        assert_eq!(answer["expires_in"], 3600);
        assert_eq!(answer["refresh_token"], " You@Example.com ");
        assert!(answer.get("id_token").is_none());
        let token = answer["access_token"].as_str().unwrap();
        let claims = provider.verify(token).await;
        assert_eq!(claims["sub"], "you@example.com");
        assert_eq!(claims["client_id"], "client");
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), 3600);
        assert!(claims.get("email").is_none() && claims.get("email_verified").is_none());
        assert_eq!(
            provider.userinfo(token).await,
            (
                StatusCode::OK,
                json!({
                    "sub": "you@example.com",
                    "email": "you@example.com",
                    "email_verified": true,
                    "preferred_username": "you",
                })
            )
        );
    }

    #[tokio::test]
    async fn marks_say_what_is_unusual_about_the_person() {
        let provider = Provider::start().await;
        for (refresh_token, verified, lifetime) in [
            ("a@b.c#unverified", false, 3600),
            ("a@b.c#ttl=60", true, 60),
            ("a@b.c#unverified#ttl=30", false, 30),
            ("a@b.c#ttl=30#unverified", false, 30),
        ] {
            let (status, answer) = provider.grant(&form(refresh_token)).await;
            assert_eq!(status, StatusCode::OK, "{refresh_token}");
            assert_eq!(answer["expires_in"], lifetime);
            let token = answer["access_token"].as_str().unwrap();
            assert_eq!(provider.verify(token).await["sub"], "a@b.c");
            assert_eq!(provider.userinfo(token).await.1["email_verified"], verified);
        }

        let (_, answer) = provider.grant(&form("a@b.c#ttl=-120")).await;
        assert_eq!(answer["expires_in"], 0);
        let token = answer["access_token"].as_str().unwrap();
        let claims = provider.verify(token).await;
        assert_eq!(claims["exp"].as_i64().unwrap() - claims["iat"].as_i64().unwrap(), -120);
        assert_eq!(provider.userinfo(token).await.0, StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn what_is_no_grant_is_refused_as_rfc_6749_says() {
        let provider = Provider::start().await;
        for refresh_token in [
            "",
            "you",
            "a@",
            "@b",
            "a@b@c",
            "a b@c",
            "a@b\tc",
            "a@b#x",
            "a@b#ttl",
            "a@b#ttl=x",
            "a@b#ttl=1e9",
            "a@b#",
        ] {
            let (status, answer) = provider.grant(&form(refresh_token)).await;
            assert_eq!(
                (status, &answer["error"]),
                (StatusCode::BAD_REQUEST, &json!("invalid_grant")),
                "{refresh_token}"
            );
        }
        for (form, error) in [
            ("grant_type=password&client_id=client&refresh_token=a@b", "unsupported_grant_type"),
            ("client_id=client&refresh_token=a@b", "invalid_request"),
            ("grant_type=refresh_token&client_id=client", "invalid_request"),
            ("grant_type=refresh_token&client_id=other&refresh_token=a@b", "invalid_client"),
            ("grant_type=refresh_token&refresh_token=a@b", "invalid_client"),
        ] {
            let (status, answer) = provider.grant(form).await;
            assert_eq!((status, &answer["error"]), (StatusCode::BAD_REQUEST, &json!(error)), "{form}");
        }
        let json = [("content-type", "application/json")];
        let (_, answer) = provider.send(Method::POST, "/token", &json, &form("a@b")).await;
        assert_eq!(answer["error"], "invalid_request");
    }

    #[tokio::test]
    async fn userinfo_wants_a_token_of_this_provider() {
        let (provider, other) = (Provider::start().await, Provider::start().await);
        let good = provider.identity.token("a@b.c").unwrap();
        let claims = provider.verify(&good).await;
        let mut foreign = claims.clone();
        foreign["iss"] = json!("https://elsewhere.example");
        let mut changed = good.clone();
        changed.insert(20, 'x');

        assert_eq!(provider.userinfo(&good).await.0, StatusCode::OK);
        for bad in [
            other.identity.token("a@b.c").unwrap(),
            other.identity.sign(&claims).unwrap(),
            provider.identity.sign(&foreign).unwrap(),
            changed,
            "a.b.c".to_owned(),
            String::new(),
        ] {
            assert_eq!(provider.userinfo(&bad).await.0, StatusCode::UNAUTHORIZED, "{bad}");
        }
        assert_eq!(provider.send(Method::GET, "/userinfo", &[], "").await.0, StatusCode::UNAUTHORIZED);
        let basic = [("authorization", &*format!("Basic {good}"))];
        assert_eq!(provider.send(Method::GET, "/userinfo", &basic, "").await.0, StatusCode::UNAUTHORIZED);
    }

    #[tokio::test]
    async fn the_discovery_document_names_endpoints_that_answer() {
        let provider = Provider::start().await;
        let (_, document) = provider.send(Method::GET, "/.well-known/openid-configuration", &[], "").await;
        assert_eq!(document["issuer"], provider.identity.issuer());
        for (endpoint, method) in
            [("jwks_uri", Method::GET), ("token_endpoint", Method::POST), ("userinfo_endpoint", Method::POST)]
        {
            let path = document[endpoint].as_str().unwrap().strip_prefix(provider.identity.issuer()).unwrap();
            let (status, _) = provider.send(method, path, &[], "").await;
            assert!(
                status != StatusCode::NOT_FOUND && status != StatusCode::METHOD_NOT_ALLOWED,
                "{endpoint}"
            );
        }
    }

    #[tokio::test]
    async fn a_page_may_ask_for_a_token() {
        let provider = Provider::start().await;
        assert_eq!(provider.send(Method::OPTIONS, "/token", &[], "").await.0, StatusCode::NO_CONTENT);
    }

    #[tokio::test]
    async fn any_header_can_be_signed() {
        let provider = Provider::start().await;
        let token =
            provider.identity.sign_with_header(&json!({ "alg": "none" }), &json!({ "sub": "x" })).unwrap();
        let parts: Vec<_> = token.split('.').collect();
        assert_eq!(BASE64.decode(parts[0]).unwrap(), br#"{"alg":"none"}"#);
        assert_eq!(BASE64.decode(parts[1]).unwrap(), br#"{"sub":"x"}"#);
        assert_eq!(BASE64.decode(parts[2]).unwrap().len(), 64);
    }

    #[test]
    fn the_key_is_kept_from_one_start_to_the_next_and_from_others() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("identity.key");
        let open = || Identity::open(Some(&file), String::new(), String::new(), String::new());

        let first = open().unwrap();
        let second = open().unwrap();

        assert_eq!(first.inner.jwk, second.inner.jwk);
        assert!(second.verify(&first.token("a@b.c").unwrap()).is_some());
        let mode = std::os::unix::fs::PermissionsExt::mode(&fs::metadata(&file).unwrap().permissions());
        assert_eq!(mode & 0o777, 0o600);

        fs::write(&file, "something else").unwrap();
        let error = open().unwrap_err().to_string();
        assert!(error.contains("is not a signing key: delete it"), "{error}");
    }

    #[test]
    fn what_is_printed_of_a_provider_has_no_key() {
        let identity = Identity::open(None, "i".to_owned(), "a".to_owned(), "c".to_owned()).unwrap();
        assert_eq!(format!("{identity:?}"), r#"Identity { issuer: "i", audience: "a", client_id: "c", .. }"#);
    }
}
