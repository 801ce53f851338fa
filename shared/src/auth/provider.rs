//! The identity provider: any that speaks OpenID Connect.

use std::{fmt, time::Instant};

use jsonwebtoken::jwk::JwkSet;
use serde::Deserialize;
use tokio::sync::Mutex;
use url::form_urlencoded;

use super::{
    AuthError, Caller, Profile, bearer_token,
    keys::KeySet,
    token::{self, PersonClaims},
    web::{Web, WebError},
};
use crate::{
    Config,
    domain::{Email, UserId, Username},
    http::Request,
};

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

/// Fresh tokens of the provider (RFC 6749 5.1). Its `Debug` shows none.
#[derive(Deserialize)]
pub struct Tokens {
    /// The access token.
    pub access_token: String,
    /// The next refresh token, where the provider rotates them.
    pub refresh_token: Option<String>,
    /// Seconds until the access token expires, where the provider says.
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

    /// What the provider says of `caller`: from the token where it names an address, else from the
    /// userinfo endpoint.
    ///
    /// # Errors
    /// The userinfo endpoint had to be asked and does not answer, or answers for somebody else.
    pub async fn profile(&self, caller: &Caller) -> Result<Profile, WebError> {
        if caller.claims.person.email.is_some() {
            return Ok(self.profile_of(&caller.claims.person));
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
            )
            .await?;
        let info: UserInfo = answer.json()?;
        // OpenID Connect Core 5.3.2: the subjects must agree, or the answer must not be used.
        if info.sub != caller.claims.sub {
            return Err(WebError::Content { url, reason: "it answers for another subject".to_owned() });
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
            )
            .await?;
        match answer.status {
            // RFC 6749 5.2: 400, or 401 where the client is at fault too. Either way this token
            // opens nothing.
            400 | 401 | 403 => Err(AuthError::InvalidGrant),
            _ => Ok(answer.json()?),
        }
    }

    async fn fetch_keys(&self) -> Result<JwkSet, WebError> {
        let url = self.discovery().await?.jwks_uri;
        self.web.send("GET", &url, &[("accept", "application/json")], String::new()).await?.json()
    }

    /// The discovery document, fetched once: an endpoint that moves comes with new functions' starts.
    async fn discovery(&self) -> Result<Discovery, WebError> {
        let mut cached = self.discovery.lock().await;
        if let Some(discovery) = &*cached {
            return Ok(discovery.clone());
        }
        let url = discovery_url(&self.issuer);
        let discovery: Discovery =
            self.web.send("GET", &url, &[("accept", "application/json")], String::new()).await?.json()?;
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
