//! How much the whole local stack takes: gateway, functions and table on one machine, over HTTP.

use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper::client::conn::http1::{self, SendRequest};
use hyper::header::{AUTHORIZATION, CONTENT_TYPE, HOST};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::functions::milliseconds;
use crate::{Failure, Samples, Stage};

/// Connections at a time.
const CONNECTIONS: [usize; 3] = [1, 8, 32];

/// What is asked for: a read and a change.
const CASES: [(&str, &str); 2] = [("retrieve", "as_user"), ("update_user_options", "updated")];

/// What so many connections get.
#[derive(Clone, Debug)]
pub struct Load {
    /// Method and path.
    pub route: String,
    /// Connections, each with one request at a time.
    pub connections: usize,
    /// Answers per second.
    pub rate: f64,
    /// From a request to its answer, in milliseconds.
    pub took: Samples,
    /// Answers that were not 200.
    pub refused: usize,
}

/// A request that is sent again and again.
#[derive(Clone)]
struct Ask {
    authority: String,
    method: String,
    path: String,
    token: String,
    body: Bytes,
}

/// Asks for each of two routes over 1, 8 and 32 connections, `time` each.
pub async fn load(stage: &Stage, time: Duration, told: &(dyn Fn(&str) + Sync)) -> Result<Vec<Load>, Failure> {
    let mut loads = Vec::new();
    for (function, name) in CASES {
        let case = stage.case(function, name)?;
        let text =
            |pointer| case.event.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let ask = Ask {
            authority: stage.stack.origin().trim_start_matches("http://").to_owned(),
            method: text("/requestContext/http/method"),
            path: text("/rawPath"),
            token: text("/headers/authorization"),
            body: text("/body").into(),
        };
        for connections in CONNECTIONS {
            told(&format!("throughput: {function} over {connections} connections"));
            // Instances are started meanwhile.
            run(&ask, connections, time / 4).await?;
            let start = Instant::now();
            let (took, refused) = run(&ask, connections, time).await?;
            let answers = u32::try_from(took.count()).unwrap_or(u32::MAX);
            let rate = f64::from(answers) / start.elapsed().as_secs_f64();
            loads.push(Load { route: case.route().to_owned(), connections, rate, took, refused });
        }
    }
    stage.restore().await?;
    Ok(loads)
}

async fn run(ask: &Ask, connections: usize, time: Duration) -> Result<(Samples, usize), Failure> {
    let mut running = JoinSet::new();
    for _ in 0..connections {
        running.spawn(one(ask.clone(), time));
    }
    let (mut all, mut refused) = (Samples::default(), 0);
    while let Some(outcome) = running.join_next().await {
        let outcome = outcome.map_err(|error| Failure::Table(error.to_string()))?;
        let (took, others) =
            outcome.map_err(|what| Failure::function(&ask.path, format!("breaks off: {what}")))?;
        for took in took {
            all.push(took);
        }
        refused += others;
    }
    Ok((all, refused))
}

type Broken = Box<dyn std::error::Error + Send + Sync>;

async fn one(ask: Ask, time: Duration) -> Result<(Vec<f64>, usize), Broken> {
    let stream = TcpStream::connect(&ask.authority).await?;
    stream.set_nodelay(true)?;
    let (mut sender, connection) = http1::handshake::<_, Full<Bytes>>(TokioIo::new(stream)).await?;
    // Ends when the sender is dropped.
    tokio::spawn(connection);
    let (mut all, mut refused) = (Vec::new(), 0);
    let start = Instant::now();
    while start.elapsed() < time {
        let (took, status) = exchange(&mut sender, &ask).await?;
        all.push(took);
        refused += usize::from(status != 200);
    }
    Ok((all, refused))
}

async fn exchange(sender: &mut SendRequest<Full<Bytes>>, ask: &Ask) -> Result<(f64, u16), Broken> {
    let request = Request::builder()
        .method(ask.method.as_str())
        .uri(&ask.path)
        .header(HOST, &ask.authority)
        .header(AUTHORIZATION, &ask.token)
        .header(CONTENT_TYPE, "application/json")
        .body(Full::new(ask.body.clone()))?;
    let start = Instant::now();
    let answer = sender.send_request(request).await?;
    let status = answer.status().as_u16();
    answer.into_body().collect().await?;
    Ok((milliseconds(start.elapsed()), status))
}
