//! The URL that the functions are given: keeps a record, makes faults, has every request judged, keeps
//! Stripe's rules of idempotency, and lets the request be played.

use std::{
    collections::HashMap,
    convert::Infallible,
    mem,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::http::{HeaderMap, Request, Response};
use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;
use url::form_urlencoded;

use super::{
    Fault, Sent,
    forms::Refusal,
    played::{self, Fields, Played, Shown},
    webhooks,
};

/// As long as localstripe waits before it delivers an event, so that none overtakes another's cause.
const DELIVERY: Duration = Duration::from_secs(1);

/// Where localstripe delivers its events.
pub(super) const DELIVERIES: &str = "/_rig/deliveries";

/// No answer, not even a status.
#[derive(Debug, thiserror::Error)]
#[error("the connection is closed")]
struct Closed;

/// What became of the first request with an idempotency key.
#[derive(Clone, Debug)]
enum Kept {
    Running,
    Answered { status: u16, body: Value },
}

/// A fault and whom it is for.
#[derive(Debug)]
struct Planned {
    method: String,
    path_prefix: String,
    fault: Fault,
    left: usize,
}

#[derive(Debug, Default)]
struct State {
    sent: Vec<Sent>,
    verdicts: Vec<String>,
    planned: Vec<Planned>,
    /// By key: method, path and fields, and the answer.
    kept: HashMap<String, ((String, String, Fields), Kept)>,
    delivers_to: Option<String>,
}

/// A request as it came.
#[derive(Clone, Debug)]
struct Came {
    method: String,
    /// Path and query.
    uri: String,
    path: String,
    fields: Fields,
    headers: HeaderMap,
    body: String,
}

impl Came {
    async fn read(request: Request<Incoming>) -> Result<Self, hyper::Error> {
        let (parts, body) = request.into_parts();
        let body = String::from_utf8_lossy(&body.collect().await?.to_bytes()).into_owned();
        let mut fields = Fields::new();
        for encoded in [parts.uri.query().unwrap_or_default(), &body] {
            fields.extend(form_urlencoded::parse(encoded.as_bytes()).into_owned());
        }
        Ok(Self {
            method: parts.method.to_string(),
            uri: parts.uri.to_string(),
            path: parts.uri.path().to_owned(),
            fields,
            headers: parts.headers,
            body,
        })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// Stripe heeds a key of a POST only.
    fn key(&self) -> Option<&str> {
        self.header("idempotency-key").filter(|_| self.method == "POST")
    }
}

/// An answer before it is HTTP.
struct Outcome {
    status: u16,
    body: Value,
    replayed: bool,
}

impl Outcome {
    fn first(answer: Result<Value, Refusal>) -> Self {
        let (status, body) = match answer {
            Ok(body) => (200, body),
            Err(refusal) => (refusal.status, refusal.body),
        };
        Self { status, body, replayed: false }
    }

    fn into_http(self) -> Response<Full<Bytes>> {
        let mut response = Response::builder()
            .status(self.status)
            .header("content-type", "application/json")
            .header("request-id", "req_rig");
        if self.replayed {
            response = response.header("idempotent-replayed", "true");
        }
        response.body(Full::new(Bytes::from(self.body.to_string()))).unwrap()
    }
}

#[derive(Debug)]
pub(super) struct Front {
    /// Where stripe-mock listens.
    judge: Option<String>,
    state: Mutex<State>,
    pub(super) shown: Shown,
    /// One request at a time, as each of them is several at localstripe.
    pub(super) played: tokio::sync::Mutex<Played>,
}

impl Front {
    pub(super) fn over(localstripe: &str, judge: Option<&str>) -> Arc<Self> {
        let shown = Shown::default();
        Arc::new(Self {
            judge: judge.map(str::to_owned),
            state: Mutex::default(),
            shown: Arc::clone(&shown),
            played: tokio::sync::Mutex::new(Played::over(localstripe, shown)),
        })
    }

    /// Serves until the task is dropped.
    pub(super) async fn serve(self: Arc<Self>, listener: TcpListener) -> Infallible {
        loop {
            let Ok((stream, _)) = listener.accept().await else { continue };
            let front = Arc::clone(&self);
            tokio::spawn(async move {
                let service = service_fn(|request| Arc::clone(&front).receive(request));
                // Fails when a fault closes it, or the client does.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    }

    async fn receive(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Closed> {
        // Broken off in the middle, it asks for nothing.
        let Ok(came) = Came::read(request).await else { return Err(Closed) };
        if came.path == DELIVERIES {
            self.deliver_on(&came.body).await;
            return Ok(Response::new(Full::default()));
        }
        let number = self.record(&came);
        let fault = self.fault_for(&came);
        let outcome = match fault {
            Some(Fault::Silence) => std::future::pending().await,
            Some(Fault::Closed) => return Err(Closed),
            Some(Fault::Status(status)) if status >= 500 => self.fail(&came, status),
            Some(Fault::Status(status)) => Outcome::first(Err(Refusal::made_up(status))),
            // As a task: it goes on when the client does not wait for it.
            None | Some(Fault::LostAnswer | Fault::ClosedAfter) => {
                tokio::spawn(Arc::clone(&self).exchange(came)).await.unwrap()
            }
        };
        match fault {
            Some(Fault::LostAnswer) => std::future::pending().await,
            Some(Fault::ClosedAfter) => Err(Closed),
            _ => {
                self.state.lock().unwrap().sent[number].status = Some(outcome.status);
                Ok(outcome.into_http())
            }
        }
    }

    /// A failure at Stripe's end, which is kept under the key like any other answer.
    fn fail(&self, came: &Came, status: u16) -> Outcome {
        if let Some(key) = came.key() {
            if let Some(earlier) = self.earlier(key, came) {
                return earlier;
            }
            if let Some((_, kept)) = self.state.lock().unwrap().kept.get_mut(key) {
                *kept = Kept::Answered { status, body: Refusal::made_up(status).body };
            }
        }
        Outcome::first(Err(Refusal::made_up(status)))
    }

    fn record(&self, came: &Came) -> usize {
        let sent = &mut self.state.lock().unwrap().sent;
        sent.push(Sent {
            method: came.method.clone(),
            path: came.path.clone(),
            fields: came.fields.clone(),
            idempotency_key: came.header("idempotency-key").map(str::to_owned),
            status: None,
        });
        sent.len() - 1
    }

    pub(super) fn sent(&self) -> Vec<Sent> {
        self.state.lock().unwrap().sent.clone()
    }

    pub(super) fn plan(&self, method: &str, path_prefix: &str, fault: Fault, times: usize) {
        let (method, path_prefix) = (method.to_owned(), path_prefix.to_owned());
        self.state.lock().unwrap().planned.push(Planned { method, path_prefix, fault, left: times });
    }

    fn fault_for(&self, came: &Came) -> Option<Fault> {
        let mut state = self.state.lock().unwrap();
        let planned = state.planned.iter_mut().find(|planned| {
            let is_there = if planned.path_prefix.ends_with('/') {
                came.path.starts_with(&planned.path_prefix)
            } else {
                came.path == planned.path_prefix
            };
            planned.left > 0 && planned.method == came.method && is_there
        })?;
        planned.left -= 1;
        Some(planned.fault)
    }

    /// Judges, plays and keeps.
    async fn exchange(self: Arc<Self>, came: Came) -> Outcome {
        if came.header("authorization") != Some(&format!("Bearer {}", super::SECRET_KEY)) {
            return Outcome::first(Err(Refusal::unauthorized()));
        }
        let key = came.key().map(str::to_owned);
        if let Some(key) = &key
            && let Some(earlier) = self.earlier(key, &came)
        {
            return earlier;
        }
        if let Some(refusal) = self.judge(&came).await {
            // Refused before it began, so the key is still free.
            if let Some(key) = &key {
                self.state.lock().unwrap().kept.remove(key);
            }
            return Outcome::first(Err(refusal));
        }
        let answer = {
            let mut played = self.played.lock().await;
            let answer = played.answer(&came.method, &came.path, &came.fields).await;
            self.state.lock().unwrap().verdicts.append(&mut played.complaints);
            answer
        };
        let is_update = came.method == "POST" && came.path.starts_with("/v1/subscriptions/");
        if let Ok(subscription) = &answer
            && is_update
        {
            self.deliver("customer.subscription.updated", subscription);
        }
        let outcome = Outcome::first(answer);
        if let Some(key) = key
            && let Some((_, kept)) = self.state.lock().unwrap().kept.get_mut(&key)
        {
            *kept = Kept::Answered { status: outcome.status, body: outcome.body.clone() };
        }
        outcome
    }

    /// What the key stands for already. If nothing, it stands for this request from now on.
    fn earlier(&self, key: &str, came: &Came) -> Option<Outcome> {
        let request = (came.method.clone(), came.path.clone(), came.fields.clone());
        let kept = &mut self.state.lock().unwrap().kept;
        match kept.get(key) {
            None => {
                kept.insert(key.to_owned(), (request, Kept::Running));
                None
            }
            Some((first, _)) if *first != request => Some(Outcome::first(Err(Refusal::other_request(key)))),
            Some((_, Kept::Running)) => Some(Outcome::first(Err(Refusal::still_running(key)))),
            Some((_, Kept::Answered { status, body })) => {
                Some(Outcome { status: *status, body: body.clone(), replayed: true })
            }
        }
    }

    /// What Stripe's own description of its API says against a request.
    async fn judge(&self, came: &Came) -> Option<Refusal> {
        let judge = self.judge.as_ref()?;
        let mut request = Request::builder()
            .method(came.method.as_str())
            .uri(format!("{judge}{}", came.uri))
            .header("authorization", "Bearer sk_test_123");
        if let Some(version) = came.header("stripe-version") {
            request = request.header("stripe-version", version);
        }
        // Stripe takes a POST with nothing in it without a type; the judge does not.
        let kind = came
            .header("content-type")
            .or((came.method == "POST").then_some("application/x-www-form-urlencoded"));
        if let Some(kind) = kind {
            request = request.header("content-type", kind);
        }
        let answer = played::send(request.body(came.body.clone()).unwrap()).await;
        let (status, body) = answer.unwrap_or_else(|error| panic!("stripe-mock is gone: {error}"));
        // Its own failures are no verdict: it could not make up an answer.
        if !(400..500).contains(&status) {
            return None;
        }
        let said = body["error"]["message"].as_str().unwrap_or_default();
        // It prefixes the address of a validator, of use to nobody.
        let reason = said.split_once(" failed: ").map_or(said, |(_, reason)| reason);
        let verdict = format!("{} {}: {reason} in {:?}", came.method, came.path, came.fields);
        self.state.lock().unwrap().verdicts.push(verdict);
        Some(if reason.contains("additional properties") {
            Refusal::coded(400, "parameter_unknown", None, "Received unknown parameter")
        } else {
            Refusal::invalid(None, reason)
        })
    }

    pub(super) fn is_judged(&self) -> bool {
        self.judge.is_some()
    }

    pub(super) fn take_verdicts(&self) -> Vec<String> {
        mem::take(&mut self.state.lock().unwrap().verdicts)
    }

    pub(super) fn delivers_to(&self, url: &str) {
        self.state.lock().unwrap().delivers_to = Some(url.to_owned());
    }

    /// Delivers an event to the test's URL, if there is one, after a while.
    pub(super) fn deliver(&self, kind: &str, object: &Value) {
        let Some(url) = self.state.lock().unwrap().delivers_to.clone() else { return };
        let payload = webhooks::event(kind, object);
        tokio::spawn(async move {
            tokio::time::sleep(DELIVERY).await;
            post(&url, payload).await;
        });
    }

    /// Delivers an event of localstripe's in Stripe's form.
    async fn deliver_on(&self, event: &str) {
        let event: Value = serde_json::from_str(event).unwrap();
        let raw = &event["data"]["object"];
        let played = self.played.lock().await;
        // localstripe made it and the rig took it back.
        if played.never_was(raw) {
            return;
        }
        let object = played.in_form(raw);
        drop(played);
        let url = self.state.lock().unwrap().delivers_to.clone().unwrap();
        post(&url, webhooks::event(event["type"].as_str().unwrap(), &object)).await;
    }
}

/// Posts a signed event. Stripe tries again what is not taken; the rig does not.
async fn post(url: &str, payload: String) {
    let request = Request::post(url)
        .header("content-type", "application/json; charset=utf-8")
        .header("stripe-signature", webhooks::sign(&payload, super::WEBHOOK_SECRET, played::now()));
    let _ = local::client::send(request.body(payload).unwrap()).await;
}
