//! CORS as an HTTP API does it: the gateway answers preflights and sets the headers, whatever a
//! function says.
//!
//! Source: "Configure CORS for HTTP APIs in API Gateway" in the API Gateway developer guide.

use axum::http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE,
    ACCESS_CONTROL_REQUEST_METHOD, HeaderName, ORIGIN, VARY,
};
use axum::http::{HeaderMap, HeaderValue, Method};

use crate::template::Cors;

/// Whether a request only asks what a page may do.
pub(super) fn is_preflight(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::OPTIONS
        && headers.contains_key(ORIGIN)
        && headers.contains_key(ACCESS_CONTROL_REQUEST_METHOD)
}

/// The headers of the answer to a preflight; none if the origin is not allowed.
pub(super) fn preflight_headers(cors: &Cors, request: &HeaderMap) -> HeaderMap {
    let mut headers = allow_origin(cors, request);
    if !headers.is_empty() {
        set(&mut headers, ACCESS_CONTROL_ALLOW_METHODS, &cors.allow_methods.join(","));
        set(&mut headers, ACCESS_CONTROL_ALLOW_HEADERS, &cors.allow_headers.join(","));
        if let Some(age) = cors.max_age {
            headers.insert(ACCESS_CONTROL_MAX_AGE, age.as_secs().into());
        }
    }
    headers
}

/// Sets the headers of an actual answer, in place of those that a function set.
pub(super) fn apply(cors: &Cors, request: &HeaderMap, response: &mut HeaderMap) {
    let own: Vec<_> =
        response.keys().filter(|name| name.as_str().starts_with("access-control-")).cloned().collect();
    for name in own {
        response.remove(name);
    }
    let mut headers = allow_origin(cors, request);
    if !headers.is_empty() {
        set(&mut headers, ACCESS_CONTROL_EXPOSE_HEADERS, &cors.expose_headers.join(","));
        // `Vary` of the function stays.
        for (name, value) in &headers {
            response.append(name, value.clone());
        }
    }
}

/// What every answer to an allowed origin carries; nothing for any other request.
fn allow_origin(cors: &Cors, request: &HeaderMap) -> HeaderMap {
    let mut headers = HeaderMap::new();
    let Some(origin) = request.get(ORIGIN) else { return headers };
    let Ok(text) = origin.to_str() else { return headers };
    let allowed = cors.allow_origins.iter().find(|allowed| match allowed.strip_suffix('*') {
        Some(prefix) => text.starts_with(prefix),
        None => text.eq_ignore_ascii_case(allowed),
    });
    match allowed.map(String::as_str) {
        Some("*") => {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        }
        Some(_) => {
            headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, origin.clone());
            headers.insert(VARY, HeaderValue::from_static("origin"));
        }
        None => return headers,
    }
    if cors.allow_credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    headers
}

/// Sets a header, unless the configuration leaves it empty.
fn set(headers: &mut HeaderMap, name: HeaderName, value: &str) {
    if !value.is_empty()
        && let Ok(value) = HeaderValue::from_str(value)
    {
        headers.insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cors(origins: &[&str]) -> Cors {
        Cors {
            allow_origins: origins.iter().map(|origin| (*origin).to_owned()).collect(),
            allow_methods: vec!["GET".to_owned(), "PUT".to_owned()],
            allow_headers: vec!["authorization".to_owned()],
            expose_headers: vec!["etag".to_owned(), "date".to_owned()],
            max_age: Some(std::time::Duration::from_mins(1)),
            allow_credentials: false,
        }
    }

    fn from(origin: &'static str) -> HeaderMap {
        HeaderMap::from_iter([
            (ORIGIN, HeaderValue::from_static(origin)),
            (ACCESS_CONTROL_REQUEST_METHOD, HeaderValue::from_static("PUT")),
        ])
    }

    #[test]
    fn a_preflight_names_what_is_configured() {
        let headers = preflight_headers(&cors(&["*"]), &from("https://a.example"));

        assert_eq!(headers["access-control-allow-origin"], "*");
        assert_eq!(headers["access-control-allow-methods"], "GET,PUT");
        assert_eq!(headers["access-control-allow-headers"], "authorization");
        assert_eq!(headers["access-control-max-age"], "60");
    }

    #[test]
    fn only_options_with_both_headers_is_a_preflight() {
        let headers = from("https://a.example");
        assert!(is_preflight(&Method::OPTIONS, &headers));
        assert!(!is_preflight(&Method::GET, &headers));
        assert!(!is_preflight(&Method::OPTIONS, &HeaderMap::new()));
    }

    #[test]
    fn one_origin_of_a_list_is_echoed_and_no_other_is() {
        let cors = cors(&["https://a.example", "https://*.b.example"]);

        assert_eq!(
            preflight_headers(&cors, &from("https://a.example"))["access-control-allow-origin"],
            "https://a.example"
        );
        assert_eq!(preflight_headers(&cors, &from("https://a.example"))["vary"], "origin");
        assert_eq!(preflight_headers(&cors, &from("https://evil.example")), HeaderMap::new());
        assert_eq!(preflight_headers(&cors, &from("https://a.example.evil")), HeaderMap::new());
    }

    #[test]
    fn a_prefix_stands_for_the_origins_that_begin_with_it() {
        let cors = cors(&["http://*"]);
        assert_eq!(preflight_headers(&cors, &from("http://a"))["access-control-allow-origin"], "http://a");
        assert_eq!(preflight_headers(&cors, &from("https://a")), HeaderMap::new());
    }

    #[test]
    fn the_headers_of_a_function_are_replaced() {
        let mut response = HeaderMap::from_iter([
            (ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("https://mine.example")),
            (ACCESS_CONTROL_MAX_AGE, HeaderValue::from_static("1")),
            (VARY, HeaderValue::from_static("accept")),
        ]);

        apply(&cors(&["https://a.example"]), &from("https://a.example"), &mut response);

        assert_eq!(response["access-control-allow-origin"], "https://a.example");
        assert_eq!(response["access-control-expose-headers"], "etag,date");
        assert!(!response.contains_key("access-control-max-age"));
        assert_eq!(response.get_all(VARY).iter().collect::<Vec<_>>(), ["accept", "origin"]);
    }

    #[test]
    fn a_request_without_origin_gets_no_cors_headers() {
        let mut response = HeaderMap::new();
        apply(&cors(&["*"]), &HeaderMap::new(), &mut response);
        assert_eq!(response, HeaderMap::new());
    }
}
