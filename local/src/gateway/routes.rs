//! Finds the route of a request, in the order of precedence of an HTTP API.
//!
//! Source: "Create routes for HTTP APIs in API Gateway" in the API Gateway developer guide.

use std::collections::BTreeMap;

use percent_encoding::percent_decode_str;

use crate::template::{Function, Route};

/// The path of a route, such as `/api/bucket/{id}` or `/files/{proxy+}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Segment>);

/// Ordered by precedence: a literal beats a variable, a variable beats a greedy one.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Segment {
    Literal(String),
    Variable(String),
    Greedy(String),
}

impl Pattern {
    /// Parses the path of a route. The error says what the path must be.
    pub(crate) fn parse(path: &str) -> Result<Self, &'static str> {
        let path = path.strip_prefix('/').ok_or("must begin with a slash")?;
        if path.is_empty() {
            return Ok(Self(vec![Segment::Literal(String::new())]));
        }
        let segments: Vec<_> = path.split('/').map(Segment::parse).collect::<Result<_, _>>()?;
        let before_last = segments.split_last().map_or(&[][..], |(_, before)| before);
        if before_last.iter().any(|segment| matches!(segment, Segment::Greedy(_))) {
            return Err("may have a greedy variable in last place only");
        }
        Ok(Self(segments))
    }

    /// The decoded path variables, if `path` (as it was sent) matches.
    fn matches(&self, path: &str) -> Option<BTreeMap<String, String>> {
        let mut variables = BTreeMap::new();
        let mut rest = Some(path.strip_prefix('/')?);
        for segment in &self.0 {
            let (value, after) = match (rest?, segment) {
                (remainder, Segment::Greedy(_)) => (remainder, None),
                (remainder, _) => match remainder.split_once('/') {
                    Some((value, after)) => (value, Some(after)),
                    None => (remainder, None),
                },
            };
            rest = after;
            match segment {
                Segment::Literal(literal) if decode(value) == *literal => {}
                Segment::Variable(name) if !value.is_empty() => {
                    variables.insert(name.clone(), decode(value));
                }
                Segment::Greedy(name) => {
                    variables.insert(name.clone(), decode(value));
                }
                Segment::Literal(_) | Segment::Variable(_) => return None,
            }
        }
        rest.is_none().then_some(variables)
    }
}

impl Segment {
    fn parse(segment: &str) -> Result<Self, &'static str> {
        if segment.is_empty() {
            return Err("must not have an empty segment, nor end in a slash");
        }
        let Some(variable) = segment.strip_prefix('{').and_then(|rest| rest.strip_suffix('}')) else {
            return if segment.contains(['{', '}']) {
                Err("may have a variable as a whole segment only")
            } else {
                Ok(Self::Literal(segment.to_owned()))
            };
        };
        match variable.strip_suffix('+') {
            Some("") | None if variable.trim_end_matches('+').is_empty() => {
                Err("has a variable without a name")
            }
            Some(name) => Ok(Self::Greedy(name.to_owned())),
            None => Ok(Self::Variable(variable.to_owned())),
        }
    }

    /// The rank in the order of precedence.
    fn rank(&self) -> u8 {
        match self {
            Self::Literal(_) => 0,
            Self::Variable(_) => 1,
            Self::Greedy(_) => 2,
        }
    }
}

/// Decodes `%41` to `A`. An escape that is not valid stays as it is.
pub(super) fn decode(text: &str) -> String {
    percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// The routes of an API.
#[derive(Debug)]
pub(super) struct Routes {
    /// By precedence, so that the first match is the right one.
    routes: Vec<(Pattern, String, Target)>,
    default: Option<Target>,
}

/// Where requests of a route go.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Target {
    function: String,
    route_key: String,
}

/// The route of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Match<'a> {
    /// The function's binary.
    pub(super) function: &'a str,
    /// `GET /api/bucket/{id}`, or `$default`.
    pub(super) route_key: &'a str,
    /// The decoded path variables.
    pub(super) parameters: BTreeMap<String, String>,
}

impl Routes {
    pub(super) fn new(functions: &[Function]) -> Self {
        let mut routes = Vec::new();
        let mut default = None;
        for function in functions {
            for route in &function.routes {
                let target = Target { function: function.name.clone(), route_key: route.to_string() };
                match route {
                    Route::Default => default = Some(target),
                    Route::Path { method, path } => {
                        // The template has refused paths that do not parse.
                        if let Ok(pattern) = Pattern::parse(path) {
                            routes.push((pattern, method.clone(), target));
                        }
                    }
                }
            }
        }
        // The more specific path goes first, then the route that names its method.
        routes.sort_by_key(|(pattern, method, _)| {
            let ranks: Vec<_> = pattern.0.iter().map(Segment::rank).collect();
            (ranks, method == "ANY")
        });
        Self { routes, default }
    }

    /// The route for `method` and `path`, which is the path as it was sent.
    pub(super) fn find(&self, method: &str, path: &str) -> Option<Match<'_>> {
        let routed = self.routes.iter().find_map(|(pattern, allowed, target)| {
            if allowed != "ANY" && allowed != method {
                return None;
            }
            pattern.matches(path).map(|parameters| (target, parameters))
        });
        let (target, parameters) = match routed {
            Some(routed) => routed,
            None => (self.default.as_ref()?, BTreeMap::new()),
        };
        Some(Match { function: &target.function, route_key: &target.route_key, parameters })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An API with these routes (`METHOD /path` or `$default`), each with a function of its own.
    fn api(routes: &[&str]) -> Routes {
        let functions: Vec<_> = routes
            .iter()
            .map(|route| Function {
                logical_id: (*route).to_owned(),
                name: (*route).to_owned(),
                timeout: std::time::Duration::from_secs(1),
                memory_size: 128,
                environment: BTreeMap::new(),
                routes: vec![match route.split_once(' ') {
                    Some((method, path)) => Route::Path { method: method.to_owned(), path: path.to_owned() },
                    None => Route::Default,
                }],
                streams: Vec::new(),
                permissions: Vec::new(),
            })
            .collect();
        Routes::new(&functions)
    }

    #[test]
    fn the_most_specific_route_takes_a_request() {
        // The worst order on purpose: precedence must not depend on the template's.
        let api = api(&[
            "$default",
            "ANY /{proxy+}",
            "ANY /pets/{proxy+}",
            "GET /pets/{proxy+}",
            "ANY /pets/{kind}",
            "GET /pets/{kind}",
            "GET /pets/{kind}/{id}",
            "GET /pets/dog/{id}",
            "ANY /pets/dog",
            "GET /pets/dog/1",
            "GET /",
        ]);
        for (method, path, route) in [
            ("GET", "/pets/dog/1", "GET /pets/dog/1"),
            ("GET", "/pets/dog/2", "GET /pets/dog/{id}"),
            ("GET", "/pets/cat/1", "GET /pets/{kind}/{id}"),
            ("GET", "/pets/dog", "ANY /pets/dog"),
            ("GET", "/pets/cat", "GET /pets/{kind}"),
            ("POST", "/pets/cat", "ANY /pets/{kind}"),
            ("GET", "/pets/cat/1/2", "GET /pets/{proxy+}"),
            ("POST", "/pets/cat/1", "ANY /pets/{proxy+}"),
            ("GET", "/pets/", "GET /pets/{proxy+}"),
            ("GET", "/pets", "ANY /{proxy+}"),
            ("GET", "/", "GET /"),
            ("POST", "/", "ANY /{proxy+}"),
            ("OPTIONS", "*", "$default"),
        ] {
            assert_eq!(api.find(method, path).unwrap().route_key, route, "{method} {path}");
        }
    }

    #[test]
    fn a_trailing_slash_is_another_path() {
        let api = api(&["GET /api/bucket", "GET /api/bucket/{id}", "GET /api/bucket/{proxy+}"]);

        let found = api.find("GET", "/api/bucket/").unwrap();

        assert_eq!(found.route_key, "GET /api/bucket/{proxy+}");
        assert_eq!(found.parameters, BTreeMap::from([("proxy".to_owned(), String::new())]));
        assert_eq!(api.find("GET", "/api/bucket").unwrap().route_key, "GET /api/bucket");
        assert_eq!(api.find("GET", "/api/bucket/1/").unwrap().route_key, "GET /api/bucket/{proxy+}");
    }

    #[test]
    fn a_path_without_a_route_has_none() {
        let api = api(&["GET /api/bucket", "GET /api/bucket/{id}"]);
        for (method, path) in
            [("POST", "/api/bucket"), ("GET", "/api/bucket/"), ("GET", "/api"), ("GET", "//api/bucket")]
        {
            assert_eq!(api.find(method, path), None, "{method} {path}");
        }
    }

    #[test]
    fn path_variables_are_decoded_once() {
        let api = api(&["GET /a/{id}", "GET /b/{proxy+}"]);
        for (path, value) in [
            ("/a/caf%C3%A9", "café"),
            ("/a/a%2Fb", "a/b"),
            ("/a/%2541", "%41"),
            ("/a/100%", "100%"),
            ("/a/%zz", "%zz"),
            ("/b/x%20y/z", "x y/z"),
        ] {
            let found = api.find("GET", path).unwrap();
            assert_eq!(found.parameters.values().next().unwrap(), value, "{path}");
        }
        // A literal may be sent encoded.
        assert!(api.find("GET", "/%61/1").is_some());
    }

    #[test]
    fn a_path_that_an_http_api_refuses_is_refused() {
        for path in ["", "a", "/a/", "//a", "/{proxy+}/a", "/a{id}", "/{}", "/{+}", "/{id"] {
            assert!(Pattern::parse(path).is_err(), "{path}");
        }
    }
}
