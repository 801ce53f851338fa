//! Answers that succeed.

use lambda_http::{
    Body, Response,
    http::{
        HeaderValue, StatusCode,
        header::{CACHE_CONTROL, CONTENT_TYPE},
    },
};
use serde::Serialize;

use super::Problem;

/// What a function answers with.
pub type Answer = Response<Body>;

/// 200 with `value` as JSON.
///
/// # Errors
/// `value` cannot be written as JSON: a defect, answered as a 500.
pub fn json<T: Serialize + ?Sized>(value: &T) -> Result<Answer, Problem> {
    let body = serde_json::to_string(value).map_err(|error| Problem::internal(&error))?;
    Ok(with_content_type(StatusCode::OK, "application/json", body))
}

pub(super) fn with_content_type(status: StatusCode, content_type: &'static str, body: String) -> Answer {
    let mut answer = Response::new(Body::Text(body));
    *answer.status_mut() = status;
    let headers = answer.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static(content_type));
    // Roles change at once, and answers carry secrets: nothing between here and the client keeps one.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    answer
}
