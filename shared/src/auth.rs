//! Who is asking: from a bearer token to a [`Caller`], from a caller to a [`Profile`].

mod keys;
mod provider;
mod token;

use std::fmt;

use crate::{
    domain::{Email, UserId, Username},
    http::Request,
    web::WebError,
};

pub use provider::{IdentityProvider, Tokens};
pub use token::TokenError;

/// Why a caller is not known.
#[derive(Debug, thiserror::Error)]
pub enum AuthError {
    /// No bearer token in the request.
    #[error("no bearer token")]
    MissingToken,
    /// The token does not prove who it is.
    #[error(transparent)]
    Token(#[from] TokenError),
    /// The identity provider refused a refresh token.
    #[error("the refresh token is not accepted")]
    InvalidGrant,
    /// The identity provider refused to exchange tokens for this deployment.
    #[error("{url} refuses the exchange of tokens: {error}")]
    Exchange {
        /// Its token endpoint.
        url: String,
        /// Its word for it (RFC 6749 5.2).
        error: String,
    },
    /// The identity provider could not be asked.
    #[error("the identity provider does not answer")]
    Provider(#[from] WebError),
}

/// Whose token came with a request. Its `Debug` shows the identifier alone.
pub struct Caller {
    /// Who it is.
    pub user_id: UserId,
    token: String,
    claims: token::Claims,
}

impl Caller {
    /// When the token was issued, in seconds since 1970; 0 where it does not say.
    #[must_use]
    pub fn issued_at(&self) -> u32 {
        self.claims.iat.unwrap_or_default()
    }
}

impl fmt::Debug for Caller {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Caller").field("user_id", &self.user_id).finish_non_exhaustive()
    }
}

/// What the identity provider says of a person.
#[derive(Clone, Debug)]
pub struct Profile {
    /// The address, where the provider gave a well-formed one.
    pub email: Option<Email>,
    /// Whether the provider, or the deployment on its behalf, vouches for it.
    pub email_verified: bool,
    /// The name to show.
    pub username: Username,
}

impl Profile {
    /// The address, if it counts: only a verified one claims anything.
    #[must_use]
    pub fn verified_email(&self) -> Option<&Email> {
        self.email.as_ref().filter(|_| self.email_verified)
    }
}

/// The bearer token of `request` (RFC 6750 2.1; the scheme in any case, RFC 9110 11.1).
fn bearer_token(request: &Request) -> Result<&str, AuthError> {
    let header = request.header("authorization").ok_or(AuthError::MissingToken)?;
    let (scheme, token) = header.trim().split_once(' ').ok_or(AuthError::MissingToken)?;
    let token = token.trim();
    if !scheme.eq_ignore_ascii_case("bearer") || token.is_empty() {
        return Err(AuthError::MissingToken);
    }
    Ok(token)
}

#[cfg(test)]
mod tests {
    use lambda_http::aws_lambda_events::apigw::ApiGatewayV2httpRequest;
    use serde_json::{Value, json};

    use super::*;

    fn request(headers: &Value) -> Request {
        let event: ApiGatewayV2httpRequest = serde_json::from_value(json!({
            "routeKey": "GET /", "headers": headers, "requestContext": { "http": { "method": "GET" } },
        }))
        .unwrap();
        event.into()
    }

    #[test]
    fn a_bearer_token_stands_behind_its_scheme() {
        for (header, token) in [
            ("Bearer a.b.c", Some("a.b.c")),
            ("bearer a.b.c", Some("a.b.c")),
            ("  BEARER   a.b.c ", Some("a.b.c")),
            ("Bearer a b", Some("a b")),
            ("Bearer", None),
            ("Bearer ", None),
            ("a.b.c", None),
            ("Basic a.b.c", None),
            ("Basic ", None),
            ("", None),
        ] {
            let request = request(&json!({ "authorization": header }));
            assert_eq!(bearer_token(&request).ok(), token, "{header:?}");
        }
        assert!(matches!(bearer_token(&request(&json!({}))), Err(AuthError::MissingToken)));
    }

    #[test]
    fn a_caller_does_not_show_the_token() {
        let claims = json!({ "iss": "issuer", "sub": "alice", "iat": 5, "email": "alice@example.com" });
        let user_id = UserId::of_subject("issuer", "alice");
        let shown = format!("Caller {{ user_id: {user_id:?}, .. }}");
        let claims = serde_json::from_value(claims).unwrap();
        let caller = Caller { user_id, token: "the-token".to_owned(), claims };

        assert_eq!(format!("{caller:?}"), shown);
        assert_eq!(caller.issued_at(), 5);
    }
}
