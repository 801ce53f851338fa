//! The local page, `/_local/`: signs in, shows buckets, mails and audit trails, and calls the API from its
//! reference. Plain files, which are part of this program.
//!
//! What stands on it was written by users: it may run nothing and load nothing but these files.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    CACHE_CONTROL, CONTENT_ENCODING, CONTENT_SECURITY_POLICY, CONTENT_TYPE, HeaderName, LOCATION,
    REFERRER_POLICY, X_CONTENT_TYPE_OPTIONS,
};
use axum::http::{HeaderValue, StatusCode};
use axum::response::Response;
use axum::routing::get;
use axum::{Extension, Router};
use serde_json::{Value, json};

use crate::http::{self, AskedFor};

/// Where the page is, below the stack's origin.
pub(crate) const PATH: &str = "/_local/";

/// The name of the API's description, which stands beside the template.
const DESCRIPTION: &str = "openapi.json";

/// What the page may do: run and show what comes from here, and ask this origin. Swagger UI draws with
/// pictures in URLs.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; \
                      connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// A file of the page.
#[derive(Debug, Clone, Copy)]
struct File {
    name: &'static str,
    media_type: &'static str,
    content: &'static [u8],
    /// As it was vendored, compressed. Every browser takes that.
    gzip: bool,
}

const HTML: &str = "text/html; charset=utf-8";
const CSS: &str = "text/css; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

const FILES: [File; 6] = [
    File::plain("", HTML, include_bytes!("../page/index.html")),
    File::plain("page.css", CSS, include_bytes!("../page/page.css")),
    File::plain("page.js", SCRIPT, include_bytes!("../page/page.js")),
    File::plain("icon.svg", "image/svg+xml", include_bytes!("../page/icon.svg")),
    File::compressed(
        "swagger-ui.js",
        SCRIPT,
        include_bytes!("../page/vendor/swagger-ui/swagger-ui-bundle.js.gz"),
    ),
    File::compressed("swagger-ui.css", CSS, include_bytes!("../page/vendor/swagger-ui/swagger-ui.css.gz")),
];

/// The page and its files, with the description of the API that stands in the file `description`.
pub(crate) fn router(description: PathBuf) -> Router {
    let mut router = Router::new()
        .route(PATH.trim_end_matches('/'), get(async || to_the_page()))
        .route(&format!("{PATH}{DESCRIPTION}"), get(describe).with_state(Arc::new(description)));
    for file in FILES {
        router = router.route(&format!("{PATH}{}", file.name), get(async move || file.answer()));
    }
    router
}

/// The file with the description of the API whose template is `template`.
pub(crate) fn description_beside(template: &std::path::Path) -> PathBuf {
    template.with_file_name(DESCRIPTION)
}

impl File {
    const fn plain(name: &'static str, media_type: &'static str, content: &'static [u8]) -> Self {
        Self { name, media_type, content, gzip: false }
    }

    const fn compressed(name: &'static str, media_type: &'static str, content: &'static [u8]) -> Self {
        Self { gzip: true, ..Self::plain(name, media_type, content) }
    }

    fn answer(self) -> Response {
        let mut response = Response::new(Body::from(self.content));
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(self.media_type));
        if self.gzip {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        // The next build may have another.
        headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache"));
        headers.insert(CONTENT_SECURITY_POLICY, HeaderValue::from_static(POLICY));
        headers.insert(REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
        headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.insert(
            HeaderName::from_static("cross-origin-resource-policy"),
            HeaderValue::from_static("same-origin"),
        );
        response
    }
}

fn to_the_page() -> Response {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::TEMPORARY_REDIRECT;
    response.headers_mut().insert(LOCATION, HeaderValue::from_static(PATH));
    response
}

/// The description, with the host that the request came to for the API's only server.
async fn describe(
    State(file): State<Arc<PathBuf>>,
    Extension(AskedFor(host)): Extension<AskedFor>,
) -> Response {
    // Read anew each time: who changes it sees that at once.
    let read = tokio::task::spawn_blocking(move || std::fs::read(&*file)).await;
    let described = match read.unwrap_or_else(|error| Err(io::Error::other(error))) {
        Ok(text) => serde_json::from_slice::<Value>(&text).map_err(|error| error.to_string()),
        Err(error) => Err(error.to_string()),
    };
    match described {
        Ok(mut description) => {
            if let Some(description) = description.as_object_mut() {
                description.insert("servers".to_owned(), json!([{ "url": format!("http://{host}") }]));
            }
            http::json(StatusCode::OK, &description)
        }
        Err(reason) => {
            let message = format!("There is no usable {DESCRIPTION} beside the template: {reason}");
            http::json(StatusCode::NOT_FOUND, &json!({ "message": message }))
        }
    }
}

#[cfg(test)]
mod tests {
    use axum::http::Request;
    use tower_service::Service as _;

    use super::*;

    async fn send(request: axum::http::request::Builder) -> Response {
        router(PathBuf::from("nowhere/openapi.json"))
            .call(request.body(Body::empty()).unwrap())
            .await
            .unwrap()
    }

    #[tokio::test]
    async fn the_page_may_run_and_load_nothing_but_its_own_files() {
        for file in FILES {
            let response = send(Request::get(format!("/_local/{}", file.name))).await;

            assert_eq!(response.status(), StatusCode::OK, "{}", file.name);
            let headers = response.headers();
            assert_eq!(headers["content-type"], file.media_type);
            assert_eq!(headers["x-content-type-options"], "nosniff");
            assert_eq!(headers["cross-origin-resource-policy"], "same-origin");
            let policy = headers["content-security-policy"].to_str().unwrap();
            let directives: Vec<&str> = policy.split("; ").collect();
            for directive in [
                "default-src 'none'",
                "script-src 'self'",
                "style-src 'self'",
                "connect-src 'self'",
                "base-uri 'none'",
                "form-action 'none'",
                "frame-ancestors 'none'",
            ] {
                assert!(directives.contains(&directive), "{policy}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_vendored_compressed_says_so() {
        for (name, encoding) in
            [("swagger-ui.js", Some("gzip")), ("swagger-ui.css", Some("gzip")), ("page.js", None)]
        {
            let response = send(Request::get(format!("/_local/{name}"))).await;
            let sent =
                response.headers().get("content-encoding").map(|value| value.to_str().unwrap().to_owned());
            assert_eq!(sent.as_deref(), encoding, "{name}");
            let body = http::read_body(response.into_body(), usize::MAX).await.unwrap();
            assert_eq!(body.starts_with(&[0x1f, 0x8b]), encoding.is_some(), "{name}");
        }
    }

    #[tokio::test]
    async fn files_are_read_only_and_the_bare_path_leads_to_the_page() {
        assert_eq!(send(Request::post("/_local/")).await.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(send(Request::delete("/_local/page.js")).await.status(), StatusCode::METHOD_NOT_ALLOWED);
        assert_eq!(send(Request::get("/_local/page.rs")).await.status(), StatusCode::NOT_FOUND);
        let response = send(Request::get("/_local")).await;
        assert_eq!(response.status(), StatusCode::TEMPORARY_REDIRECT);
        assert_eq!(response.headers()["location"], "/_local/");
    }
}
