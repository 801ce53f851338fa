//! What agents send: the event of a connection (an input that begins with `{"`), what they report of their server
//! (`{` and a blank), the frames of a connection (a byte that is no visible ASCII), or else the handshake in HTTP's
//! own words.

#![no_main]

use std::sync::LazyLock;

use lambda_http::aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;
use libfuzzer_sys::fuzz_target;
use serde_json::{Map, Value};
use shared::{
    SocketEvent,
    domain::{PublicId, Report, SecretId, ServerName},
};
use tokio::runtime::{Builder, Runtime};

static RUNTIME: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_all().build().expect("a runtime"));

/// The keys and the name as `$connect` reads them.
fn read(socket: &SocketEvent) {
    if let Some(Ok(key)) = socket.header("X-KM-PUBLIC").map(|key| PublicId::try_from(key.to_owned())) {
        assert!(key.as_str().len() == 15 && key.as_str().is_ascii());
    }
    if let Some(Ok(key)) = socket.header("x-km-secret").map(|key| SecretId::try_from(key.to_owned())) {
        assert!(!format!("{key:?} {socket:?}").contains(key.as_str()), "a secret is shown");
    }
    if let Some(Ok(name)) = socket.header("X-KM-SERVER").map(|name| ServerName::try_from(name.to_owned())) {
        let name = name.as_str();
        assert!((1..=128).contains(&name.len()) && !name.contains(|c: char| !c.is_ascii() || c.is_control()));
    }
    let _ = (socket.connection(), socket.address(), socket.close_code(), socket.route());
}

fn report(data: &Map<String, Value>) {
    let report = Report::of_agent(data);
    let Report { hostname, pm2_version, cpus, memory } = &report;
    for text in [hostname, pm2_version] {
        assert!(text.chars().count() <= 255 && !text.contains(char::is_control), "{text:?}");
    }
    assert!(*cpus != Some(0) && *memory != Some(0), "{report:?}");
    // What is not read does not matter.
    let read = ["HOSTNAME", "PM2_VERSION", "CPUS", "MEMORY"];
    let data: Map<_, _> = data
        .iter()
        .filter(|(name, _)| read.contains(&name.as_str()))
        .map(|(n, v)| (n.clone(), v.clone()))
        .collect();
    assert_eq!(Report::of_agent(&data), report);
}

/// The frames in `sent`, which a server has sent: the first byte of each, and what it carries.
fn frames(mut sent: &[u8]) -> Vec<(u8, &[u8])> {
    let mut frames = Vec::new();
    while let [first, length, rest @ ..] = sent {
        // A server does not mask, and has nothing to say that is longer.
        assert!(*length < 126, "{sent:?}");
        let (payload, after) = rest.split_at(usize::from(*length));
        frames.push((*first, payload));
        sent = after;
    }
    assert!(sent.is_empty(), "half a frame: {sent:?}");
    frames
}

fn connection(sent: &[u8]) {
    let (code, reason, received) = RUNTIME.block_on(local::fuzzing::connection(sent));
    let frames = frames(&received);
    let (pongs, close) = match frames.split_last() {
        Some((last, before)) if last.0 == 0x88 => (before, Some(last.1)),
        _ => (&frames[..], None),
    };
    // Messages are swallowed.
    assert!(pongs.iter().all(|(first, _)| *first == 0x8a), "{frames:?}");
    match code {
        // What the gateway has against the client it tells it.
        1002 | 1003 | 1007 | 1009 if close.is_some_and(|close| close.starts_with(&code.to_be_bytes())) => {}
        // The client has closed, with a code that a client may give.
        1005 => assert!(close.is_some(), "{frames:?}"),
        1000..=1003 | 1007..=1014 | 3000..=4999 => assert!(close.is_some(), "{code} {reason:?} {frames:?}"),
        // It is just gone.
        1006 => assert!(close.is_none(), "{frames:?}"),
        _ => panic!("{code}: {reason:?}"),
    }
}

fuzz_target!(|input: &[u8]| {
    if input.first().is_some_and(|first| !first.is_ascii_graphic()) {
        connection(input);
        return;
    }
    if input.starts_with(b"{ ") {
        if let Ok(data) = serde_json::from_slice::<Map<String, Value>>(input) {
            report(&data);
        }
    } else if input.starts_with(b"{") {
        if let Ok(event) = serde_json::from_slice::<ApiGatewayWebsocketProxyRequest>(input) {
            read(&SocketEvent::from(event));
        }
    } else if let Some(request) = fuzz::request(input) {
        let sent = request.headers().clone();
        let Some((proof, told)) = RUNTIME.block_on(local::fuzzing::handshake(request.map(|_| ()))) else {
            return;
        };
        // SHA-1 in base64.
        assert!(proof.len() == 28 && proof.ends_with('='), "{proof}");
        // Each header is told once, with the value that was sent.
        for (name, value) in &told {
            let text = String::from_utf8_lossy(value.as_bytes());
            let is_sent = sent
                .get_all(name.to_ascii_lowercase().as_str())
                .iter()
                .any(|sent| String::from_utf8_lossy(sent.as_bytes()).trim() == text);
            assert!(is_sent || name.eq_ignore_ascii_case("content-length"), "{name}: {value:?} was not sent");
        }
    }
});
