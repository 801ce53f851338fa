//! What must agree: the template, the binaries, their documentation and the events.

use std::{collections::BTreeSet, fs};

use local::template::Route;
use openapi::Page;

use super::api::{Api, workspace};

/// The names in a folder, without their extension.
fn names_in(folder: &str, extension: Option<&str>) -> BTreeSet<String> {
    fs::read_dir(workspace().join(folder))
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| match extension {
            Some(extension) => path.extension().is_some_and(|found| found == extension),
            None => path.is_dir(),
        })
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect()
}

/// The names of the binaries: each is a file or a folder.
fn binaries() -> BTreeSet<String> {
    names_in("functions/src/bin", Some("rs")).union(&names_in("functions/src/bin", None)).cloned().collect()
}

#[tokio::test]
async fn template_binaries_and_events_name_the_same_functions() {
    let api = Api::start().await;
    let template: BTreeSet<_> =
        api.stack.template().functions.iter().map(|function| function.name.clone()).collect();

    assert_eq!(template, binaries());
    assert_eq!(template, names_in("events", None));
}

#[tokio::test]
async fn a_logical_id_is_the_functions_name_in_another_case() {
    let api = Api::start().await;
    for function in &api.stack.template().functions {
        let expected: String = function
            .name
            .split('_')
            .map(|word| format!("{}{}", word[..1].to_uppercase(), &word[1..]))
            .chain(["Function".to_owned()])
            .collect();

        assert_eq!(function.logical_id, expected);
    }
}

#[tokio::test]
async fn a_function_documents_the_routes_that_the_template_gives_it() {
    let api = Api::start().await;
    for function in &api.stack.template().functions {
        let page = Page::read(&workspace(), &function.name).unwrap();
        let documented: BTreeSet<_> = page.routes.into_iter().filter(|route| route.contains(" /")).collect();
        let routes: BTreeSet<_> = function
            .routes
            .iter()
            .filter_map(|route| match route {
                Route::Path { method, path } => Some(format!("{method} {}", path.replace("{proxy+}", ""))),
                Route::Default => None,
            })
            .collect();

        assert_eq!(documented, routes, "{}", function.name);
    }
}

#[tokio::test]
async fn the_readme_lists_every_route_with_its_function() {
    let api = Api::start().await;
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    let rows: Vec<&str> = readme.lines().filter(|line| line.starts_with('|')).collect();
    for function in &api.stack.template().functions {
        let page = Page::read(&workspace(), &function.name).unwrap();
        for route in page.routes {
            let is_listed = |row: &&str| {
                row.contains(&format!("`{route}`")) && row.contains(&format!("[`{}`]", function.name))
            };
            assert!(rows.iter().any(is_listed), "{route} of {}", function.name);
        }
    }
}
