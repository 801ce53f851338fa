//! The description of the HTTP API in OpenAPI 3.1 (<https://spec.openapis.org/oas/v3.1.1.html>).
//!
//! Nothing in it is written twice: the routes are those of `template.yaml`, the texts, statuses and codes
//! those of the functions' pages, the schemas those of the types that the functions read and write, the
//! examples the recorded events and their answers. `cargo run -p openapi` writes `openapi.json`, and a test
//! holds it in step.

mod document;
mod events;
mod operations;
mod page;

use std::path::{Path, PathBuf};

pub use document::{document, template};
pub use events::filled;
pub use page::{Page, Refusal};

/// Why the description cannot be written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that it is made from cannot be read.
    #[error("{path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A recorded event is not JSON.
    #[error("{path}: {source}")]
    Json {
        /// The file.
        path: PathBuf,
        /// Why.
        source: serde_json::Error,
    },
    /// The template cannot be understood.
    #[error("template.yaml: {0}")]
    Template(#[from] local::template::TemplateError),
    /// A function has routes, and nothing says what it takes and gives.
    #[error("`{0}` has a route and is not in openapi/src/operations.rs")]
    UnknownOperation(String),
    /// `operations.rs` names a function that has no route.
    #[error("openapi/src/operations.rs names `{0}`, which has no route")]
    NoRoute(String),
    /// A function's page is not in the form that all have.
    #[error("the page of `{function}`: {reason}")]
    Page {
        /// The function.
        function: String,
        /// What is amiss.
        reason: String,
    },
    /// Two types go by one name and differ.
    #[error("two schemas are called `{0}`")]
    SameName(String),
}

/// The folder that holds `template.yaml` and `openapi.json`.
#[must_use]
pub fn workspace() -> PathBuf {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.parent().unwrap_or(here).to_owned()
}

fn read(path: &Path) -> Result<String, Error> {
    std::fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}
