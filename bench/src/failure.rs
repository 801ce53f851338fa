//! Why nothing could be measured.

use std::io;
use std::path::{Path, PathBuf};

use local::StartError;

/// Why nothing could be measured.
#[derive(Debug, thiserror::Error)]
pub enum Failure {
    /// A file is not there, or not as it should be.
    #[error("{}: {what}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// The stack does not start.
    #[error(transparent)]
    Stack(#[from] StartError),
    /// A function does not do what it should.
    #[error("`{name}` {what}")]
    Function {
        /// The function.
        name: String,
        /// What it does.
        what: String,
    },
    /// The table does not do what it should.
    #[error("the table: {0}")]
    Table(String),
    /// The system does not.
    #[error(transparent)]
    System(#[from] io::Error),
}

impl Failure {
    pub(crate) fn file(path: &Path, what: impl Into<String>) -> Self {
        Self::File { path: path.to_owned(), what: what.into() }
    }

    pub(crate) fn function(name: &str, what: impl Into<String>) -> Self {
        Self::Function { name: name.to_owned(), what: what.into() }
    }
}
