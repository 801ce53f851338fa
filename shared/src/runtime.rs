//! The frame around a handler: starts it once, feeds it requests, writes one log line for each.

use std::{
    convert::Infallible,
    time::{Duration, Instant, SystemTime},
};

use lambda_http::{
    Body,
    aws_lambda_events::apigw::{
        ApiGatewayV2httpRequest, ApiGatewayV2httpResponse, ApiGatewayWebsocketProxyRequest,
    },
    http::HeaderValue,
};
use lambda_runtime::{Error, LambdaEvent, service_fn};
use tracing::Level;
use tracing_subscriber::{filter::Targets, layer::SubscriberExt, util::SubscriberInitExt};

use crate::{
    agents::SocketEvent,
    config::ConfigError,
    http::{Answer, Problem, Request},
    metrics,
    store::measured,
};

/// 18 July 2019, when the published client's reference marked the routes about plans as deprecated.
static DEPRECATED_SINCE: HeaderValue = HeaderValue::from_static("@1563408000");

/// Why a function cannot start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The environment is not as it must be.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Something else is missing or wrong.
    #[error("{0}")]
    Other(String),
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
/// The Lambda Runtime API is gone.
pub async fn serve<C, H>(handle: H) -> Result<(), Error>
where
    C: Context,
    H: AsyncFn(&C, &Request) -> Result<Answer, Problem>,
{
    Box::pin(run(handle, None)).await
}

/// As [`serve`], for a route that is deprecated: every answer says so (RFC 9745).
///
/// # Errors
/// As [`serve`].
pub async fn serve_deprecated<C, H>(handle: H) -> Result<(), Error>
where
    C: Context,
    H: AsyncFn(&C, &Request) -> Result<Answer, Problem>,
{
    Box::pin(run(handle, Some(&DEPRECATED_SINCE))).await
}

async fn run<C, H>(handle: H, deprecation: Option<&'static HeaderValue>) -> Result<(), Error>
where
    C: Context,
    H: AsyncFn(&C, &Request) -> Result<Answer, Problem>,
{
    log_as_json();
    let context = start::<C>().await;
    let (context, handle, deprecation) = (&context, &handle, &deprecation);
    let run = lambda_runtime::run(service_fn(async move |event: LambdaEvent<ApiGatewayV2httpRequest>| {
        let request = Request::from(event.payload);
        let answer = respond(handle(context, &request), request.route(), &event.context).await;
        Ok::<_, Infallible>(into_event(deprecated(answer, *deprecation)))
    }));
    Box::pin(run).await
}

/// Runs `handle` for each event of a WebSocket API's connections that comes to this process. A refusal of
/// `$connect` refuses the connection, with the problem's status.
///
/// # Errors
/// The Lambda Runtime API is gone.
pub async fn serve_sockets<C, H>(handle: H) -> Result<(), Error>
where
    C: Context,
    H: AsyncFn(&C, &SocketEvent) -> Result<(), Problem>,
{
    log_as_json();
    let context = start::<C>().await;
    let (context, handle) = (&context, &handle);
    let run =
        lambda_runtime::run(service_fn(async move |event: LambdaEvent<ApiGatewayWebsocketProxyRequest>| {
            let socket = SocketEvent::from(event.payload);
            let work = async { handle(context, &socket).await.map(|()| Answer::default()) };
            let answer = respond(work, socket.route(), &event.context).await;
            Ok::<_, Infallible>(into_event(answer))
        }));
    Box::pin(run).await
}

/// Makes the context, or ends the process: why is in the log then, once and as JSON, which what
/// `main` returns would not be.
pub(crate) async fn start<C: Context>() -> C {
    match Box::pin(C::start()).await {
        Ok(context) => context,
        Err(error) => {
            tracing::error!(error = %error, "the function cannot start");
            std::process::exit(1);
        }
    }
}

async fn respond(
    work: impl Future<Output = Result<Answer, Problem>>,
    route: &str,
    invocation: &lambda_runtime::Context,
) -> Answer {
    let start = Instant::now();
    let request_id = invocation.request_id.as_str();
    let bounded = async {
        match tokio::time::timeout(time_for_work(invocation), work).await {
            Ok(outcome) => outcome,
            Err(error) => Err(Problem::unavailable(&error)),
        }
    };
    let (outcome, usage) = measured(bounded).await;
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
                route,
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
    outcome.unwrap_or_else(|problem| {
        metrics::count(&problem, route);
        problem.into_answer(request_id)
    })
}

/// The time until shortly before Lambda cuts the function off: whoever waits gets an answer that says
/// so, however many calls have each taken their own time-out.
fn time_for_work(invocation: &lambda_runtime::Context) -> Duration {
    const TIME_TO_ANSWER: Duration = Duration::from_millis(500);
    let left = invocation.deadline().duration_since(SystemTime::now()).unwrap_or_default();
    left.saturating_sub(TIME_TO_ANSWER)
}

/// `answer`, which says that its route is deprecated, if it is.
fn deprecated(mut answer: Answer, since: Option<&'static HeaderValue>) -> Answer {
    if let Some(since) = since {
        answer.headers_mut().insert("deprecation", since.clone());
    }
    answer
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
pub(crate) fn log_as_json() {
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
