//! Amazon SES v2 that delivers nothing: mails are kept, and shown on a page.
//!
//! Source: `SendEmail` in the Amazon SES API v2 reference.

use std::fmt::Write as _;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{ACCEPT, CONTENT_SECURITY_POLICY};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Uri};
use axum::response::Response;
use axum::routing::{get, post};
use axum::{Extension, Router};
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use serde::de::IgnoredAny;
use serde::{Deserialize, Serialize};
use serde_json::json;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use url::form_urlencoded;

use crate::iam::{Asked, Permissions, arn};
use crate::{http, ids};

/// Where the page is, below the stack's origin.
pub(crate) const PAGE: &str = "/_local/mail";
/// Where the AWS SDK sends mails to, below the stack's origin.
pub(crate) const ENDPOINT: &str = "/_local/ses";

/// Who mails are from, unless a parameter says otherwise.
pub(crate) const DEFAULT_SENDER: &str = "bucket-api@example.com";

/// Bytes of a mail: 40 MB in base64, as SES takes.
const MAX_MAIL: usize = 56 * 1024 * 1024;

/// A mail that a function has sent.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Mail {
    message_id: String,
    received_at: String,
    from: String,
    to: Vec<String>,
    cc: Vec<String>,
    bcc: Vec<String>,
    reply_to: Vec<String>,
    subject: String,
    text: Option<String>,
    html: Option<String>,
}

/// The mails, oldest first.
#[derive(Clone)]
pub(crate) struct Outbox {
    inner: Arc<Mutex<Kept>>,
}

struct Kept {
    mails: Vec<Mail>,
    /// Where each is written to, one JSON object a line.
    file: Option<File>,
}

/// Why there is no outbox.
#[derive(Debug, thiserror::Error)]
#[error("cannot use the outbox {}: {source}", path.display())]
pub struct MailError {
    /// The file.
    pub path: PathBuf,
    /// What the system said.
    pub source: io::Error,
}

impl Outbox {
    /// An outbox whose mails are kept in `file`; in memory if there is none.
    pub(crate) fn open(file: Option<&Path>) -> Result<Self, MailError> {
        let kept = match file {
            Some(path) => kept(path).map_err(|source| MailError { path: path.to_owned(), source })?,
            None => Kept { mails: Vec::new(), file: None },
        };
        Ok(Self { inner: Arc::new(Mutex::new(kept)) })
    }

    /// The endpoint for functions, who may send what `permissions` allow, and the page for people.
    pub(crate) fn router(&self, permissions: &Arc<Permissions>) -> Router {
        Router::new()
            .route(&format!("{ENDPOINT}/v2/email/outbound-emails"), post(send))
            .route(PAGE, get(page))
            .route(&format!("{PAGE}.json"), get(list))
            .layer(Extension(Arc::clone(permissions)))
            .with_state(self.clone())
    }

    fn keep(&self, mail: Mail) -> io::Result<()> {
        let mut kept = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(file) = &mut kept.file {
            // In one write, so that a stop in between leaves no half of a line before another one.
            let mut line = serde_json::to_vec(&mail)?;
            line.push(b'\n');
            file.write_all(&line)?;
        }
        kept.mails.push(mail);
        Ok(())
    }

    fn newest_first(&self, limit: usize) -> Vec<Mail> {
        let kept = self.inner.lock().unwrap_or_else(PoisonError::into_inner);
        kept.mails.iter().rev().take(limit).cloned().collect()
    }
}

fn kept(path: &Path) -> io::Result<Kept> {
    let text = match fs::read_to_string(path) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => String::new(),
        Err(error) => return Err(error),
    };
    // A line that was cut off by the end of the machine is no reason not to start.
    let mails = text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
    let mut file = OpenOptions::new().create(true).append(true).open(path)?;
    if !text.is_empty() && !text.ends_with('\n') {
        file.write_all(b"\n")?;
    }
    Ok(Kept { mails, file: Some(file) })
}

/// The body of `SendEmail`, as far as it is shown.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct SendEmail {
    from_email_address: String,
    destination: Option<Destination>,
    #[serde(default)]
    reply_to_addresses: Vec<String>,
    content: Content,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct Destination {
    #[serde(rename = "ToAddresses")]
    to: Vec<String>,
    #[serde(rename = "CcAddresses")]
    cc: Vec<String>,
    #[serde(rename = "BccAddresses")]
    bcc: Vec<String>,
}

/// Exactly one of the three.
#[derive(Deserialize)]
enum Content {
    Simple(Simple),
    Raw(Part),
    Template(IgnoredAny),
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Simple {
    subject: Part,
    body: Parts,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Parts {
    text: Option<Part>,
    html: Option<Part>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Part {
    data: String,
}

async fn send(
    State(outbox): State<Outbox>,
    Extension(permissions): Extension<Arc<Permissions>>,
    headers: HeaderMap,
    body: Body,
) -> Response {
    let Ok(body) = http::read_body(body, MAX_MAIL).await else {
        return refused(StatusCode::BAD_REQUEST, "BadRequestException", "the message is too long");
    };
    let mail = match serde_json::from_slice(&body).map_err(|error| error.to_string()).and_then(mail) {
        Ok(mail) => mail,
        Err(reason) => return refused(StatusCode::BAD_REQUEST, "BadRequestException", &reason),
    };
    if let Some(caller) = permissions.caller(&headers)
        && let Err(denied) = caller.may(&[sending_from(&mail.from)])
    {
        return refused(StatusCode::FORBIDDEN, "AccessDeniedException", &denied.to_string());
    }
    let answer = json!({ "MessageId": mail.message_id });
    match outbox.keep(mail) {
        Ok(()) => http::json(StatusCode::OK, &answer),
        Err(error) => {
            refused(StatusCode::INTERNAL_SERVER_ERROR, "InternalServiceErrorException", &error.to_string())
        }
    }
}

/// What it takes to send a mail from `sender`, as if that very address had been verified.
fn sending_from(sender: &str) -> Asked {
    // It may stand behind a name: `Buckets <no-reply@example.com>`.
    let address = sender.rsplit_once('<').map_or(sender, |(_, address)| address.trim_end_matches('>'));
    let resource = arn("ses", &format!("identity/{address}"));
    Asked { from_address: Some(address.to_owned()), ..Asked::new("ses", "SendEmail", resource) }
}

fn mail(request: SendEmail) -> Result<Mail, String> {
    let SendEmail { from_email_address, destination, reply_to_addresses, content } = request;
    let Destination { to, cc, bcc } = destination.unwrap_or_default();
    let (subject, text, html) = match content {
        Content::Simple(Simple { subject, body: Parts { text, html } }) => {
            (subject.data, text.map(|part| part.data), html.map(|part| part.data))
        }
        Content::Raw(Part { data }) => {
            let message =
                BASE64_STANDARD.decode(data).map_err(|error| format!("the raw message: {error}"))?;
            ("(raw message)".to_owned(), Some(String::from_utf8_lossy(&message).into_owned()), None)
        }
        Content::Template(_) => {
            return Err("the local stack has no templates: send simple content".to_owned());
        }
    };
    // A raw message names its recipients itself.
    let nobody = [&to, &cc, &bcc].iter().all(|addresses| addresses.is_empty());
    if nobody && subject != "(raw message)" {
        return Err("the message has no recipient".to_owned());
    }
    Ok(Mail {
        message_id: ids::uuid(),
        received_at: OffsetDateTime::now_utc().format(&Rfc3339).unwrap_or_default(),
        from: from_email_address,
        to,
        cc,
        bcc,
        reply_to: reply_to_addresses,
        subject,
        text,
        html,
    })
}

fn refused(status: StatusCode, kind: &str, reason: &str) -> Response {
    let mut response = http::json(status, &json!({ "message": reason }));
    if let Ok(kind) = HeaderValue::from_str(kind) {
        response.headers_mut().insert(HeaderName::from_static("x-amzn-errortype"), kind);
    }
    response
}

/// The mails, newest first: all of them, or `?limit=N`.
async fn list(State(outbox): State<Outbox>, target: Uri) -> Response {
    let mut query = form_urlencoded::parse(target.query().unwrap_or_default().as_bytes());
    let limit = match query.find(|(name, _)| name == "limit").map(|(_, value)| value.parse()) {
        None => usize::MAX,
        Some(Ok(limit)) => limit,
        Some(Err(_)) => {
            let message = "`limit` is a number of mails.";
            return http::json(StatusCode::BAD_REQUEST, &json!({ "message": message }));
        }
    };
    http::json(StatusCode::OK, &json!(outbox.newest_first(limit)))
}

async fn page(outbox: State<Outbox>, target: Uri, headers: HeaderMap) -> Response {
    let accept = headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if accept.contains("application/json") {
        return list(outbox, target).await;
    }
    let mut response =
        http::typed(StatusCode::OK, "text/html; charset=utf-8", render(&outbox.newest_first(usize::MAX)));
    // Mails are shown as they came, and may contain anything: nothing of them runs or loads.
    response.headers_mut().insert(
        CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'none'; style-src 'unsafe-inline'; img-src data:; form-action 'none'",
        ),
    );
    response
}

const STYLE: &str = "
:root { color-scheme: light dark; }
body { font: 1rem/1.5 system-ui, sans-serif; max-width: 48rem; margin: 0 auto; padding: 1rem; }
article { border: 1px solid #8888; border-radius: .5rem; padding: 1rem; margin: 1rem 0; }
h2 { font-size: 1.1rem; margin: 0 0 .5rem; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 0 1rem; margin: 0 0 1rem; }
dt { font-weight: 600; }
dd { margin: 0; overflow-wrap: anywhere; }
pre { font: inherit; white-space: pre-wrap; overflow-wrap: anywhere; margin: 0; }
iframe { width: 100%; height: 24rem; border: 1px solid #8888; background: #fff; }
";

/// The page. Writing to a `String` cannot fail, so the results say nothing.
fn render(mails: &[Mail]) -> String {
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <title>Mail - bucket-api</title>\n<style>{STYLE}</style>\n</head>\n<body>\n<main>\n<h1>Mail</h1>\n"
    );
    if mails.is_empty() {
        page.push_str(
            "<p>No mail yet. What the functions send through Amazon SES, such as invitations, appears here \
             instead of in anybody's inbox.</p>\n",
        );
    } else {
        page.push_str("<p>What the functions sent, newest first. None of it was delivered.</p>\n");
    }
    for mail in mails {
        let _ = writeln!(page, "<article>\n<h2>{}</h2>\n<dl>", escape(&mail.subject));
        let _ = writeln!(
            page,
            "<dt>Time</dt><dd><time datetime=\"{0}\">{0}</time></dd>",
            escape(&mail.received_at)
        );
        let lists = [("To", &mail.to), ("Cc", &mail.cc), ("Bcc", &mail.bcc), ("Reply to", &mail.reply_to)];
        let _ = writeln!(page, "<dt>From</dt><dd>{}</dd>", escape(&mail.from));
        for (label, addresses) in lists.iter().filter(|(_, addresses)| !addresses.is_empty()) {
            let _ = writeln!(page, "<dt>{label}</dt><dd>{}</dd>", escape(&addresses.join(", ")));
        }
        page.push_str("</dl>\n");
        if let Some(text) = &mail.text {
            let _ = writeln!(page, "<pre>{}</pre>", escape(text));
        }
        if let Some(html) = &mail.html {
            let _ = writeln!(
                page,
                "<details><summary>HTML part</summary>\n\
                 <iframe sandbox title=\"HTML part of this mail\" srcdoc=\"{}\"></iframe></details>",
                escape(html)
            );
        }
        page.push_str("</article>\n");
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// Makes text safe in an element and in a quoted attribute.
fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&#39;"),
            other => escaped.push(other),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use serde_json::Value;
    use tower_service::Service as _;

    use super::*;

    async fn call(outbox: &Outbox, request: Request<Body>) -> (StatusCode, HeaderMap, String) {
        let (parts, body) = outbox.router(&Arc::default()).call(request).await.unwrap().into_parts();
        let body = http::read_body(body, usize::MAX).await.unwrap();
        (parts.status, parts.headers, String::from_utf8(body.to_vec()).unwrap())
    }

    async fn send(outbox: &Outbox, mail: &Value) -> (StatusCode, Value) {
        let request =
            Request::post("/_local/ses/v2/email/outbound-emails").body(mail.to_string().into()).unwrap();
        let (status, _, body) = call(outbox, request).await;
        (status, serde_json::from_str(&body).unwrap())
    }

    async fn page(outbox: &Outbox) -> String {
        call(outbox, Request::get("/_local/mail").body(Body::empty()).unwrap()).await.2
    }

    async fn listed(outbox: &Outbox) -> Value {
        let request =
            Request::get("/_local/mail").header("accept", "application/json").body(Body::empty()).unwrap();
        let negotiated = call(outbox, request).await.2;
        let named = call(outbox, Request::get("/_local/mail.json").body(Body::empty()).unwrap()).await.2;
        assert_eq!(negotiated, named);
        serde_json::from_str(&named).unwrap()
    }

    /// As the AWS SDK sends it.
    fn invitation(subject: &str) -> Value {
        json!({
            "FromEmailAddress": "Buckets <no-reply@example.com>",
            "Destination": { "ToAddresses": ["you@example.com"], "CcAddresses": ["cc@example.com"] },
            "ReplyToAddresses": ["help@example.com"],
            "Content": { "Simple": {
                "Subject": { "Data": subject, "Charset": "UTF-8" },
                "Body": { "Text": { "Data": "Hello <you> & \"all\"" }, "Html": { "Data": "<p onclick='x()'>Hi</p>" } },
            } },
        })
    }

    #[tokio::test]
    async fn an_empty_outbox_says_what_will_be_in_it() {
        let outbox = Outbox::open(None).unwrap();
        assert!(page(&outbox).await.contains("No mail yet."));
        assert_eq!(listed(&outbox).await, json!([]));
    }

    #[tokio::test]
    async fn a_mail_is_listed_with_all_that_was_sent() {
        let outbox = Outbox::open(None).unwrap();

        let (status, answer) = send(&outbox, &invitation("Come in")).await;

        assert_eq!(status, StatusCode::OK);
        let mut listed = listed(&outbox).await;
        let mail = listed[0].as_object_mut().unwrap();
        assert_eq!(mail.remove("message_id").unwrap(), answer["MessageId"]);
        assert!(mail.remove("received_at").unwrap().as_str().unwrap().ends_with('Z'));
        assert_eq!(
            listed,
            json!([{
                "from": "Buckets <no-reply@example.com>",
                "to": ["you@example.com"],
                "cc": ["cc@example.com"],
                "bcc": [],
                "reply_to": ["help@example.com"],
                "subject": "Come in",
                "text": "Hello <you> & \"all\"",
                "html": "<p onclick='x()'>Hi</p>",
            }])
        );
    }

    #[tokio::test]
    async fn who_wants_the_newest_mails_alone_says_how_many() {
        let outbox = Outbox::open(None).unwrap();
        for subject in ["One", "Two", "Three"] {
            send(&outbox, &invitation(subject)).await;
        }
        let subjects = async |query| {
            let request = Request::get(format!("/_local/mail.json{query}")).body(Body::empty()).unwrap();
            let (status, _, body) = call(&outbox, request).await;
            let body: Value = serde_json::from_str(&body).unwrap();
            let mails = body.as_array().cloned().unwrap_or_default();
            let subjects: Vec<_> =
                mails.iter().map(|mail| mail["subject"].as_str().unwrap().to_owned()).collect();
            (status.as_u16(), subjects.join(" "))
        };

        assert_eq!(subjects("?limit=2").await, (200, "Three Two".to_owned()));
        assert_eq!(subjects("?limit=9").await, (200, "Three Two One".to_owned()));
        assert_eq!(subjects("").await, (200, "Three Two One".to_owned()));
        assert_eq!(subjects("?limit=-1").await, (400, String::new()));
    }

    #[tokio::test]
    async fn nothing_of_a_mail_is_markup_of_the_page() {
        let outbox = Outbox::open(None).unwrap();
        send(&outbox, &invitation("<script>alert(1)</script>")).await;

        let page = page(&outbox).await;

        assert!(page.contains("<h2>&lt;script&gt;alert(1)&lt;/script&gt;</h2>"));
        assert!(page.contains("Buckets &lt;no-reply@example.com&gt;"));
        assert!(page.contains("<pre>Hello &lt;you&gt; &amp; &quot;all&quot;</pre>"));
        assert!(page.contains("srcdoc=\"&lt;p onclick=&#39;x()&#39;&gt;Hi&lt;/p&gt;\""));
        assert!(page.contains("<iframe sandbox title="));
        assert!(!page.contains("<script") && !page.contains("onclick='"));
    }

    #[tokio::test]
    async fn the_page_lets_nothing_run_or_load() {
        let outbox = Outbox::open(None).unwrap();
        let (_, headers, _) = call(&outbox, Request::get("/_local/mail").body(Body::empty()).unwrap()).await;
        assert!(headers["content-security-policy"].to_str().unwrap().starts_with("default-src 'none';"));
    }

    #[tokio::test]
    async fn the_newest_mail_comes_first() {
        let outbox = Outbox::open(None).unwrap();
        send(&outbox, &invitation("older")).await;
        send(&outbox, &invitation("younger")).await;

        let listed = listed(&outbox).await;
        assert_eq!((&listed[0]["subject"], &listed[1]["subject"]), (&json!("younger"), &json!("older")));
        let page = page(&outbox).await;
        assert!(page.find("younger").unwrap() < page.find("older").unwrap());
    }

    #[tokio::test]
    async fn a_raw_message_is_shown_as_it_is() {
        let outbox = Outbox::open(None).unwrap();
        let data = BASE64_STANDARD.encode("Subject: x\r\n\r\nHello");
        let raw = json!({ "FromEmailAddress": "a@b", "Content": { "Raw": { "Data": data } } });
        assert_eq!(send(&outbox, &raw).await.0, StatusCode::OK);
        assert_eq!(listed(&outbox).await[0]["text"], "Subject: x\r\n\r\nHello");
    }

    #[tokio::test]
    async fn a_mail_that_ses_would_refuse_is_refused_and_not_kept() {
        let outbox = Outbox::open(None).unwrap();
        let mut nobody = invitation("x");
        nobody["Destination"] = json!({});
        let mut nothing = invitation("x");
        nothing["Content"] = json!({});
        let mut template = invitation("x");
        template["Content"] = json!({ "Template": { "TemplateName": "x" } });
        let mut no_sender = invitation("x");
        no_sender.as_object_mut().unwrap().remove("FromEmailAddress");
        for mail in [nobody, nothing, template, no_sender, json!([]), json!({})] {
            let (status, answer) = send(&outbox, &mail).await;
            assert_eq!(status, StatusCode::BAD_REQUEST, "{mail}");
            assert!(answer["message"].is_string());
        }
        assert_eq!(listed(&outbox).await, json!([]));
    }

    #[tokio::test]
    async fn mails_survive_a_restart_and_a_line_that_was_cut_off() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("mail.jsonl");
        send(&Outbox::open(Some(&file)).unwrap(), &invitation("first")).await;
        OpenOptions::new().append(true).open(&file).unwrap().write_all(b"{\"message_id\":\"cut").unwrap();
        send(&Outbox::open(Some(&file)).unwrap(), &invitation("second")).await;

        let listed = listed(&Outbox::open(Some(&file)).unwrap()).await;

        let subjects: Vec<_> =
            listed.as_array().unwrap().iter().map(|mail| mail["subject"].clone()).collect();
        assert_eq!(subjects, ["second", "first"]);
    }
}
