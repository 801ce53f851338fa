//! Templates: what is read, and evaluated with the values of parameters that the first line gives
//! (`# Name=Value Name=Value`).

#![no_main]

use std::collections::BTreeMap;

use libfuzzer_sys::fuzz_target;
use local::{
    fuzzing,
    template::{Route, Source},
};

fuzz_target!(|text: &str| {
    let Ok(source) = Source::parse(text) else { return };
    let given = text.lines().next().and_then(|line| line.strip_prefix('#')).unwrap_or_default();
    let overrides: BTreeMap<String, String> = given
        .split_whitespace()
        .filter_map(|pair| pair.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let evaluated = source.evaluate(&overrides);
    let again = source.evaluate(&overrides);
    assert_eq!(format!("{evaluated:?}"), format!("{again:?}"), "it depends on more than the template");
    let Ok(template) = evaluated else { return };

    // Whatever is given is declared, and has the value that was given.
    for (name, value) in &overrides {
        assert!(source.declares(name), "{name}");
        assert_eq!(template.parameters.get(name), Some(value));
    }
    // A route that has no variable is found, in the function that has it or in a more exact one.
    for function in &template.functions {
        for route in &function.routes {
            let Route::Path { method, path } = route else { continue };
            let request =
                http::Request::builder().method(method.as_str()).uri(format!("http://localhost{path}"));
            let Ok(request) = request.header("host", "localhost").body(Vec::new()) else { continue };
            if method != "ANY"
                && request.uri().path() == path
                && !path.contains(['{', '%'])
                && path.len() < 1_000
            {
                assert!(fuzzing::event(&template, request).is_some(), "{method} {path}");
            }
        }
    }
});
