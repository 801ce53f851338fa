//! The frame around a handler: starts it once, feeds it requests, writes one log line for each.

use std::{convert::Infallible, time::Instant};

use lambda_http::{
    Body,
    aws_lambda_events::apigw::{ApiGatewayV2httpRequest, ApiGatewayV2httpResponse},
};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use tracing::Level;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    config::ConfigError,
    http::{Answer, Problem, Request},
    store::measured,
};

/// Why a function cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The environment is not as it must be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// No TLS client could be made.
    #[error("no TLS client could be made: {0}")]
    Tls(String),
}

/// What a function keeps between requests.
pub trait Context: Sized {
    /// Makes it, during INIT.
    ///
    /// # Errors
    /// The function cannot run as deployed; the message names what to change.
    fn start() -> impl Future<Output = Result<Self, StartError>>;
}

/// Runs `handle` for each request of this process.
///
/// Every outcome is an answer: an `Err` of a Lambda function is a failed invocation, which the client
/// would see as API Gateway's own 500.
///
/// # Errors
/// The context cannot be made, or the Lambda Runtime API is gone.
pub async fn serve<C, H>(handle: H) -> Result<(), Error>
where
    C: Context,
    H: AsyncFn(&C, &Request) -> Result<Answer, Problem>,
{
    log_as_json();
    let context = Box::pin(C::start()).await.map_err(|error| {
        tracing::error!(error = %error, "the function cannot start");
        Error::from(error.to_string())
    })?;
    let (context, handle) = (&context, &handle);
    let run = lambda_runtime::run(service_fn(async move |event: LambdaEvent<ApiGatewayV2httpRequest>| {
        let request_id = event.context.request_id;
        let request = Request::from(event.payload);
        Ok::<_, Infallible>(into_event(respond(handle, context, &request, &request_id).await))
    }));
    Box::pin(run).await
}

async fn respond<C>(
    handle: &impl AsyncFn(&C, &Request) -> Result<Answer, Problem>,
    context: &C,
    request: &Request,
    request_id: &str,
) -> Answer {
    let start = Instant::now();
    let (outcome, usage) = measured(handle(context, request)).await;
    // Microseconds are as exact as anybody reads.
    let duration_ms = f64::from(u32::try_from(start.elapsed().as_micros()).unwrap_or(u32::MAX)) / 1000.0;
    let (status, code, cause) = match &outcome {
        Ok(answer) => (answer.status().as_u16(), None, None),
        Err(problem) => (problem.status().as_u16(), Some(problem.code()), problem.cause()),
    };
    macro_rules! line {
        ($level:expr) => {
            tracing::event!(
                $level,
                request_id,
                route = request.route(),
                status,
                code,
                error = cause,
                duration_ms,
                table_calls = usage.calls,
                read_units = usage.read_units,
                write_units = usage.write_units,
                "request"
            )
        };
    }
    if cause.is_some() {
        line!(Level::ERROR);
    } else {
        line!(Level::INFO);
    }
    outcome.unwrap_or_else(|problem| problem.into_answer(request_id))
}

/// The form in which a function answers API Gateway (payload format 2.0).
fn into_event(answer: Answer) -> ApiGatewayV2httpResponse {
    let (parts, body) = answer.into_parts();
    let mut event = ApiGatewayV2httpResponse::default();
    event.status_code = i64::from(parts.status.as_u16());
    event.headers = parts.headers;
    event.body = Some(body).filter(|body| !matches!(body, Body::Empty));
    event
}

/// One JSON object a line, as Lambda's JSON log format takes them. Of the libraries below, warnings
/// are enough; they are not told what a request carries.
fn log_as_json() {
    let lines = tracing_subscriber::fmt::layer()
        .json()
        .flatten_event(true)
        .with_current_span(false)
        .with_target(false);
    let _set_before = tracing_subscriber::registry()
        .with(lines)
        .with(Targets::new().with_default(Level::WARN).with_target("shared", Level::INFO))
        .try_init();
}
