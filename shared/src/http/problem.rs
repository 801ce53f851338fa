//! Refusals and failures as `application/problem+json` (RFC 9457): the only file with status codes.
//!
//! Members beside those of the RFC: `code` (stable, for programs), `request_id` (to find the log
//! line), `msg` (what the published clients print), for bad input `errors` and `fields` (their
//! names, as the original backend had them), and for the token route `error` and
//! `error_description` (RFC 6749 5.2).

use std::{borrow::Cow, error::Error, fmt};

use lambda_http::http::{
    HeaderValue, StatusCode,
    header::{RETRY_AFTER, WWW_AUTHENTICATE},
};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::Serialize;
use serde_json::Value;

use super::{Answer, answer::with_content_type};
use crate::{
    auth::{AuthError, TokenError},
    cause::chain,
    config::optional,
    domain::Right,
    store::{
        AgentError, BillingError, CreateError, DeleteError, PeopleError, PlanError, ServerError, StoreError,
        TrialError, UpdateError,
    },
};

/// What a problem's type is without a place where people could read about it (RFC 9457, section 3.1.1).
const URN: &str = "urn:bucket-api:problem:";

/// Seconds after which a client that got a 503 may ask again.
const RETRY_AFTER_SECONDS: HeaderValue = HeaderValue::from_static("1");

/// Seconds after which an address that has tried too many wrong keys may try again, at most.
const RETRY_AFTER_ATTEMPTS: HeaderValue = HeaderValue::from_static("600");

/// What is wrong with one field of the input.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, JsonSchema)]
pub struct FieldError {
    /// The field's path, such as `options.theme`.
    field: String,
    /// What is wrong with it.
    detail: String,
}

impl FieldError {
    /// `field` is wrong in the way of `detail`.
    #[must_use]
    pub fn new(field: impl Into<String>, detail: impl Into<String>) -> Self {
        Self { field: field.into(), detail: detail.into() }
    }
}

/// An answer that is not a success.
#[derive(Debug)]
pub struct Problem {
    status: StatusCode,
    code: &'static str,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    dialect: Dialect,
    /// For the log; never in the answer.
    cause: Option<String>,
}

/// What an answer says beside RFC 9457, for clients who know other forms.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Dialect {
    Plain,
    /// RFC 6749 5.2, with its word for it.
    OAuth(&'static str),
    /// That of pm2's agents, who stop only when they are told in it, and look at no status.
    Agent,
}

/// A refusal or a failure (RFC 9457).
#[derive(Serialize, JsonSchema)]
#[schemars(rename = "Problem")]
struct Body<'a> {
    /// `urn:bucket-api:problem:` and the code, or where the operator has docs/problems.md and the code.
    r#type: String,
    /// What the status says.
    title: &'a str,
    /// The status.
    status: u16,
    /// What happened and what to do next.
    detail: &'a str,
    /// What happened, for programs: it stays the same.
    code: &'a str,
    /// By which the operator finds the line in the log.
    request_id: &'a str,
    /// The detail again, for the published clients.
    msg: &'a str,
    /// Of bad input: each field that is bad.
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    errors: &'a [FieldError],
    /// Of bad input: the names of the fields.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    fields: Vec<String>,
    /// On the token route, the word of RFC 6749 5.2; to agents, true.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<Value>,
    /// On the token route, the detail again.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "String")]
    error_description: Option<&'a str>,
    /// To agents, false.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(with = "bool")]
    active: Option<bool>,
}

/// That of its answer.
impl JsonSchema for Problem {
    fn schema_name() -> Cow<'static, str> {
        Body::schema_name()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        Body::json_schema(generator)
    }
}

impl Problem {
    fn new(status: StatusCode, code: &'static str, detail: impl Into<Cow<'static, str>>) -> Self {
        Self { status, code, detail: detail.into(), errors: Vec::new(), dialect: Dialect::Plain, cause: None }
    }

    /// 400 `invalid_input`: the fields of `errors`, at least one, are bad.
    #[must_use]
    pub fn invalid_input(errors: Vec<FieldError>) -> Self {
        let detail = errors
            .iter()
            .map(|FieldError { field, detail }| format!("`{field}`: {detail}"))
            .collect::<Vec<_>>()
            .join("; ");
        Self { errors, ..Self::new(StatusCode::BAD_REQUEST, "invalid_input", detail) }
    }

    /// 400 `invalid_input`: the body as a whole is bad.
    #[must_use]
    pub fn invalid_body(detail: &str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_input", detail.to_owned())
    }

    /// 400 `unsupported_grant_type` (RFC 6749 5.2).
    #[must_use]
    pub fn unsupported_grant_type() -> Self {
        let detail = "must be `refresh_token`, the only grant that is exchanged here";
        Self {
            code: "unsupported_grant_type",
            dialect: Dialect::OAuth("unsupported_grant_type"),
            ..Self::invalid_input(vec![FieldError::new("grant_type", detail)])
        }
    }

    /// 403 `invalid_grant`: the identity provider refused the refresh token. RFC 6749 5.2 says 400;
    /// the published clients know this refusal as 403.
    #[must_use]
    pub fn invalid_grant() -> Self {
        Self {
            dialect: Dialect::OAuth("invalid_grant"),
            ..Self::new(
                StatusCode::FORBIDDEN,
                "invalid_grant",
                "the identity provider does not accept this refresh token; sign in again",
            )
        }
    }

    /// 404 `bucket_not_found`: also for a bucket that the caller is no member of.
    #[must_use]
    pub fn bucket_not_found() -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "bucket_not_found",
            "there is no such bucket, or you are not a member of it",
        )
    }

    /// 404 `user_not_found`: nobody in the bucket has the address that was named.
    #[must_use]
    pub fn user_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "user_not_found", "no member of the bucket has this e-mail address")
    }

    /// 404 `subscription_not_found`: nothing is paid or tried for the bucket.
    #[must_use]
    pub fn subscription_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "subscription_not_found", "the bucket has no subscription")
    }

    /// 400 `trial_unavailable`: the deployment has no trial at all.
    #[must_use]
    pub fn no_trial() -> Self {
        Self::new(StatusCode::BAD_REQUEST, "trial_unavailable", "no plan can be tried here")
    }

    /// 403 `card_required`: what is paid for needs the card of whoever `who` names.
    #[must_use]
    pub fn card_required(detail: &'static str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "card_required", detail)
    }

    /// 403 `card_declined`, with what Stripe says of it, which is meant for the card's holder.
    #[must_use]
    pub fn card_declined(message: &str) -> Self {
        Self::new(StatusCode::FORBIDDEN, "card_declined", format!("the card was not accepted: {message}"))
    }

    /// 500 `stripe_error`: Stripe does not answer, or not as it should. `cause` is logged, not told.
    #[must_use]
    pub fn stripe(detail: &'static str, cause: &(dyn Error + 'static)) -> Self {
        Self {
            cause: Some(chain(cause)),
            ..Self::new(StatusCode::INTERNAL_SERVER_ERROR, "stripe_error", detail)
        }
    }

    /// 400 `invalid_signature`: what came is not from who it says.
    #[must_use]
    pub fn invalid_signature(detail: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, "invalid_signature", detail)
    }

    /// 403 `plan_not_allowed`: an owner cannot choose the plan.
    #[must_use]
    pub fn plan_not_allowed() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "plan_not_allowed",
            "this plan cannot be chosen; ask who runs this service for it",
        )
    }

    /// 404 `route_not_found`.
    #[must_use]
    pub fn route_not_found() -> Self {
        Self::new(StatusCode::NOT_FOUND, "route_not_found", "nothing answers this method and path")
    }

    /// 403 `role_too_low`: a member without `right`.
    #[must_use]
    pub fn role_too_low(right: Right) -> Self {
        let detail = match right {
            Right::SeeSecret => "only an admin or the owner may see the secret",
            Right::Invite => "only an admin or the owner may see, make or remove invitations",
            Right::ManageNotifications => {
                "only an admin or the owner may set the notification state of others"
            }
            Right::DeleteServer => "only an admin or the owner may delete a server",
            Right::RotateSecret => "only the owner may change the secret",
            Right::SeeBilling => "only an admin or the owner may see the subscription and the invoices",
            Right::ChangePlan => "only the owner may choose the plan",
            Right::Update => "only the owner may change the bucket",
            Right::RemoveUser => "only the owner may remove others",
            Right::SetRole => "only the owner may set roles",
            Right::Transfer => "only the owner may hand the bucket over",
            Right::Delete => "only the owner may delete the bucket",
        };
        Self::new(StatusCode::FORBIDDEN, "role_too_low", detail)
    }

    /// 403 `email_unverified`.
    #[must_use]
    pub fn email_unverified() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "email_unverified",
            "your e-mail address is not verified; verify it at your identity provider and try again",
        )
    }

    /// 403 `email_taken`: the caller's address belongs to another subject.
    #[must_use]
    pub fn email_taken() -> Self {
        Self::new(
            StatusCode::FORBIDDEN,
            "email_taken",
            "your e-mail address belongs to another account; sign in with that one",
        )
    }

    /// 413 `body_too_large`: the body has more than `max` bytes.
    #[must_use]
    pub fn body_too_large(max: usize) -> Self {
        Self::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            "body_too_large",
            format!("the body has more than {max} bytes"),
        )
    }

    /// 415 `unsupported_media_type`.
    #[must_use]
    pub fn unsupported_media_type() -> Self {
        Self::new(
            StatusCode::UNSUPPORTED_MEDIA_TYPE,
            "unsupported_media_type",
            "send the body as application/json",
        )
    }

    /// 500 `internal`: a defect or a wrong deployment. `cause` is logged, not told.
    #[must_use]
    pub fn internal(cause: &(dyn Error + 'static)) -> Self {
        Self {
            cause: Some(chain(cause)),
            ..Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "internal",
                "something went wrong here; report it with the request id",
            )
        }
    }

    /// 503 `unavailable` with `Retry-After`: something that is needed does not answer. A change whose
    /// answer was lost may have happened all the same.
    #[must_use]
    pub fn unavailable(cause: &(dyn Error + 'static)) -> Self {
        Self {
            cause: Some(chain(cause)),
            ..Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "unavailable",
                "a service that this one needs does not answer; try again in a moment",
            )
        }
    }

    fn unauthorized(code: &'static str, detail: &'static str) -> Self {
        Self::new(StatusCode::UNAUTHORIZED, code, detail)
    }

    /// The problem in the form in which pm2's agents take a refusal for final: without it they would try
    /// again, and tell their user that all went well. What may pass is left as it is, so that they do.
    #[must_use]
    pub fn for_agents(self) -> Self {
        if self.status.is_server_error() { self } else { Self { dialect: Dialect::Agent, ..self } }
    }

    /// The status.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        self.status
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.code
    }

    /// What happened and what to do next.
    #[must_use]
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The names of the bad fields.
    #[must_use]
    pub fn fields(&self) -> Vec<String> {
        self.errors.iter().map(|error| error.field.clone()).collect()
    }

    /// What to write to the log: the cause of a failure, nothing for a refusal.
    #[must_use]
    pub fn cause(&self) -> Option<&str> {
        self.cause.as_deref()
    }

    /// The answer to the request `request_id`.
    #[must_use]
    pub fn into_answer(self, request_id: &str) -> Answer {
        let body = Body {
            r#type: optional("PROBLEM_TYPES").unwrap_or_else(|| URN.to_owned()) + self.code,
            title: self.status.canonical_reason().unwrap_or_default(),
            status: self.status.as_u16(),
            detail: &self.detail,
            code: self.code,
            request_id,
            msg: &self.detail,
            errors: &self.errors,
            fields: self.fields(),
            error: match self.dialect {
                Dialect::Plain => None,
                Dialect::OAuth(word) => Some(word.into()),
                Dialect::Agent => Some(true.into()),
            },
            error_description: matches!(self.dialect, Dialect::OAuth(_)).then_some(&*self.detail),
            active: (self.dialect == Dialect::Agent).then_some(false),
        };
        // Texts and numbers only: this cannot fail, and if it did the status still stands.
        let body = serde_json::to_string(&body).unwrap_or_default();
        let mut answer = with_content_type(self.status, "application/problem+json", body);
        match self.status {
            StatusCode::UNAUTHORIZED => {
                // RFC 6750 3: no error code when the request carried no token at all.
                let challenge = if self.code == "missing_token" {
                    HeaderValue::from_static("Bearer")
                } else {
                    HeaderValue::from_static("Bearer error=\"invalid_token\"")
                };
                answer.headers_mut().insert(WWW_AUTHENTICATE, challenge);
            }
            StatusCode::SERVICE_UNAVAILABLE => {
                answer.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_SECONDS);
            }
            StatusCode::TOO_MANY_REQUESTS => {
                answer.headers_mut().insert(RETRY_AFTER, RETRY_AFTER_ATTEMPTS);
            }
            _ => {}
        }
        answer
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{} {}: {}", self.status.as_u16(), self.code, self.detail)
    }
}

impl From<AuthError> for Problem {
    fn from(error: AuthError) -> Self {
        match error {
            AuthError::MissingToken => {
                Self::unauthorized("missing_token", "send an access token as `Authorization: Bearer <token>`")
            }
            AuthError::Token(TokenError::Expired) => {
                Self::unauthorized("expired_token", "the access token has expired; get a new one")
            }
            AuthError::Token(TokenError::OtherIssuer) => Self::unauthorized(
                "invalid_token",
                "the access token is of another issuer than this API trusts",
            ),
            AuthError::Token(TokenError::OtherAudience) => Self::unauthorized(
                "invalid_token",
                "the access token is meant for another audience than this API",
            ),
            AuthError::Token(
                TokenError::TooLong
                | TokenError::Malformed
                | TokenError::Header
                | TokenError::UnknownKey
                | TokenError::Revoked
                | TokenError::Signature
                | TokenError::NotYetValid
                | TokenError::Claims,
            ) => Self::unauthorized("invalid_token", "the access token is not valid; get a new one"),
            AuthError::InvalidGrant => Self::invalid_grant(),
            AuthError::Exchange { .. } => Self::internal(&error),
            AuthError::Provider(error) => Self::unavailable(&error),
        }
    }
}

impl From<StoreError> for Problem {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Unavailable(_) => Self::unavailable(&error),
            StoreError::Refused(_) | StoreError::Row(_) | StoreError::Random(_) => Self::internal(&error),
        }
    }
}

impl From<CreateError> for Problem {
    fn from(error: CreateError) -> Self {
        match error {
            CreateError::BucketLimit { limit } => Self::new(
                StatusCode::FORBIDDEN,
                "bucket_limit",
                format!("one person may own {limit} buckets, and you do; delete or hand over one first"),
            ),
            CreateError::OwnerChanged | CreateError::IdTaken => Self::unavailable(&error),
            CreateError::Store(error) => error.into(),
        }
    }
}

impl From<PeopleError> for Problem {
    fn from(error: PeopleError) -> Self {
        match error {
            PeopleError::BucketNotFound => Self::bucket_not_found(),
            PeopleError::RoleTooLow(right) => Self::role_too_low(right),
            PeopleError::SeatLimit { seats } => Self::new(
                StatusCode::FORBIDDEN,
                "seat_limit",
                format!(
                    "all {seats} seats of the bucket's plan are taken; remove somebody or an invitation first"
                ),
            ),
            PeopleError::AlreadyMember => Self::new(
                StatusCode::BAD_REQUEST,
                "already_member",
                "this person is a member of the bucket already",
            ),
            PeopleError::UserNotFound => Self::user_not_found(),
            PeopleError::InvitationNotFound => Self::new(
                StatusCode::NOT_FOUND,
                "invitation_not_found",
                "this e-mail address is not invited to the bucket",
            ),
            PeopleError::OwnerStays => Self::new(
                StatusCode::FORBIDDEN,
                "owner_stays",
                "the owner cannot be removed or leave; hand the bucket over first",
            ),
            PeopleError::OwnerRoleFixed => Self::new(
                StatusCode::FORBIDDEN,
                "owner_role_fixed",
                "the owner's role cannot be set; hand the bucket over instead",
            ),
            PeopleError::AlreadyOwner => {
                Self::invalid_input(vec![FieldError::new("new_owner", "is the owner already")])
            }
            PeopleError::NewOwnerLimit { limit } => Self::new(
                StatusCode::FORBIDDEN,
                "bucket_limit",
                format!("one person may own {limit} buckets, and the new owner does"),
            ),
            PeopleError::Paid | PeopleError::Changed => Self::unavailable(&error),
            PeopleError::Store(error) => error.into(),
        }
    }
}

impl From<PlanError> for Problem {
    fn from(error: PlanError) -> Self {
        match error {
            PlanError::BucketNotFound => Self::bucket_not_found(),
            PlanError::NotOwner => Self::role_too_low(Right::ChangePlan),
            PlanError::Changed => Self::unavailable(&error),
            PlanError::Store(error) => error.into(),
        }
    }
}

impl From<BillingError> for Problem {
    fn from(error: BillingError) -> Self {
        match error {
            BillingError::BucketNotFound => Self::bucket_not_found(),
            BillingError::NotOwner(right) => Self::role_too_low(right),
            BillingError::Busy => Self::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "plan_changing",
                "another change of what pays for this bucket is under way; try again in a moment",
            ),
            BillingError::Unfinished(_) | BillingError::Changed | BillingError::EventSeen => {
                Self::unavailable(&error)
            }
            BillingError::Store(error) => error.into(),
        }
    }
}

impl From<AgentError> for Problem {
    fn from(error: AgentError) -> Self {
        match error {
            AgentError::WrongKeys => Self::new(
                StatusCode::FORBIDDEN,
                "wrong_keys",
                "no bucket has these keys; copy the public and the secret key again from the bucket",
            ),
            AgentError::TooManyAttempts => Self::new(
                StatusCode::TOO_MANY_REQUESTS,
                "too_many_attempts",
                "too many wrong keys were tried from this address; wait ten minutes",
            ),
            AgentError::ServerLimit { servers } => Self::new(
                StatusCode::FORBIDDEN,
                "server_limit",
                format!(
                    "all {servers} servers of the bucket's plan are linked; delete one or choose a bigger plan"
                ),
            ),
            AgentError::Oversized => Self::new(
                StatusCode::PAYLOAD_TOO_LARGE,
                "agent_oversized",
                "this agent sends more at once than a connection takes; its server is active while it reports",
            ),
            AgentError::NotLinked => Self::new(
                StatusCode::FORBIDDEN,
                "server_not_linked",
                "no server of this name is linked to the bucket",
            ),
            AgentError::Changed => Self::unavailable(&error),
            AgentError::Store(error) => error.into(),
        }
    }
}

impl From<ServerError> for Problem {
    fn from(error: ServerError) -> Self {
        match error {
            ServerError::NotFound => Self::invalid_input(vec![FieldError::new(
                "server_name",
                "no server of the bucket has this name",
            )]),
            ServerError::Connected => Self::new(
                StatusCode::NOT_ACCEPTABLE,
                "server_connected",
                "this server's agent is connected; run `pm2 unlink` there first",
            ),
            ServerError::People(error) => error.into(),
        }
    }
}

impl From<TrialError> for Problem {
    fn from(error: TrialError) -> Self {
        let no_trial = |detail| Self::new(StatusCode::BAD_REQUEST, "trial_unavailable", detail);
        match error {
            TrialError::BucketNotFound => Self::bucket_not_found(),
            TrialError::NotOwner => Self::role_too_low(Right::ChangePlan),
            TrialError::BucketHadOne => no_trial("this bucket has had its trial; choose a plan instead"),
            TrialError::OwnerHadOne => no_trial("you have had your trial; choose a plan instead"),
            TrialError::OnPlan => no_trial("a trial is for buckets on the free plan, and this one is not"),
            TrialError::Store(error) => error.into(),
        }
    }
}

impl From<UpdateError> for Problem {
    fn from(error: UpdateError) -> Self {
        match error {
            UpdateError::BucketNotFound => Self::bucket_not_found(),
            UpdateError::NotOwner => Self::role_too_low(Right::Update),
            UpdateError::Changed => Self::unavailable(&error),
            UpdateError::Store(error) => error.into(),
        }
    }
}

impl From<DeleteError> for Problem {
    fn from(error: DeleteError) -> Self {
        match error {
            DeleteError::BucketNotFound => Self::bucket_not_found(),
            DeleteError::NotOwner => Self::role_too_low(Right::Delete),
            DeleteError::Changed => Self::unavailable(&error),
            DeleteError::Store(error) => error.into(),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn answered(problem: Problem) -> (Value, Answer) {
        let answer = problem.into_answer("request-1");
        let lambda_http::Body::Text(text) = answer.body() else { panic!("{:?}", answer.body()) };
        (serde_json::from_str(text).unwrap(), answer)
    }

    #[test]
    fn bad_input_names_its_fields_in_all_three_forms() {
        let (body, answer) = answered(Problem::invalid_input(vec![
            FieldError::new("name", "is missing"),
            FieldError::new("comment", "is too long"),
        ]));

        let detail = "`name`: is missing; `comment`: is too long";
        assert_eq!(answer.status(), 400);
        assert_eq!(answer.headers()["content-type"], "application/problem+json");
        assert_eq!(
            body,
            json!({
                "type": "urn:bucket-api:problem:invalid_input", "title": "Bad Request", "status": 400,
                "detail": detail, "msg": detail, "code": "invalid_input", "request_id": "request-1",
                "errors": [
                    { "field": "name", "detail": "is missing" },
                    { "field": "comment", "detail": "is too long" },
                ],
                "fields": ["name", "comment"],
            })
        );
    }

    #[test]
    fn a_failure_tells_the_log_and_not_the_client() {
        let problem = Problem::internal(&std::io::Error::other("table secret-name"));

        assert_eq!(problem.cause(), Some("table secret-name"));
        assert!(!answered(problem).0.to_string().contains("secret-name"));
    }

    #[test]
    fn a_missing_and_a_bad_token_are_challenged_as_rfc_6750_says() {
        for (error, code, challenge) in [
            (AuthError::MissingToken, "missing_token", "Bearer"),
            (AuthError::Token(TokenError::Expired), "expired_token", "Bearer error=\"invalid_token\""),
            (AuthError::Token(TokenError::Signature), "invalid_token", "Bearer error=\"invalid_token\""),
        ] {
            let (body, answer) = answered(error.into());

            assert_eq!((answer.status().as_u16(), &body["code"]), (401, &json!(code)));
            assert_eq!(answer.headers()["www-authenticate"], challenge);
        }
    }

    #[test]
    fn who_gets_a_503_is_told_when_to_come_back() {
        let (_, answer) = answered(Problem::unavailable(&std::io::Error::other("down")));

        assert_eq!(answer.headers()["retry-after"], "1");
    }

    #[test]
    fn the_token_route_also_speaks_oauth() {
        let (body, answer) = answered(Problem::invalid_grant());

        assert_eq!(answer.status(), 403);
        assert_eq!(body["error"], "invalid_grant");
        assert_eq!(body["error_description"], body["msg"]);
    }
}
