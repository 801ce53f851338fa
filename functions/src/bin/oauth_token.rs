//! `POST /api/oauth/token`: exchange a refresh token for an access token.
//!
//! Caller: anybody; the published clients send a stale or empty `Authorization` along, which is
//! ignored. Body: [`TokenRequest`]; the `client_id` that clients send is their maker's, so the
//! deployment's own takes its place. Answers 200 with
//! `{ access_token, refresh_token, token_type, expire_at }`.
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `invalid_input` | a field is missing or of the wrong type |
//! | 400 | `unsupported_grant_type` | `grant_type` is not `refresh_token` |
//! | 403 | `invalid_grant` | the identity provider does not accept the refresh token |
//! | 413 | `body_too_large` | the body has more than 64 KiB |
//! | 415 | `unsupported_media_type` | the body is not JSON |

use shared::{
    IdentityProvider, Tokens,
    domain::Timestamp,
    http::{Answer, FieldError, Problem, Request, TokenAnswer, TokenRequest, json},
    serve,
};

/// Seconds that a token is said to last where the provider does not tell: the clients come back for
/// another as soon as one is refused.
const DEFAULT_LIFETIME: u32 = 3_600;

async fn handle(provider: &IdentityProvider, request: &Request) -> Result<Answer, Problem> {
    let TokenRequest { grant_type, refresh_token, client_id: _ } = request.json_body()?;
    if grant_type != "refresh_token" {
        return Err(Problem::unsupported_grant_type());
    }
    if refresh_token.is_empty() {
        return Err(Problem::invalid_input(vec![FieldError::new("refresh_token", "must not be empty")]));
    }
    let Tokens { access_token, refresh_token: rotated, expires_in } =
        provider.refresh(&refresh_token).await?;
    json(&TokenAnswer {
        access_token,
        // RFC 6749 6: without a new one, the old one stays good.
        refresh_token: rotated.unwrap_or(refresh_token),
        token_type: "Bearer",
        expire_at: Timestamp::now().plus_seconds(expires_in.unwrap_or(DEFAULT_LIFETIME)),
    })
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve(handle).await
}
