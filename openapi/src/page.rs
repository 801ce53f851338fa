//! A function's page: the module documentation of its binary.

use std::path::Path;

use crate::{Error, read};

/// What the page of a function says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// The routes, such as `GET /api/bucket/{id}`, or `$connect` of the WebSocket API.
    pub routes: Vec<String>,
    /// Its first sentence, behind the routes.
    pub summary: String,
    /// What follows, in Markdown: who calls, what is taken and what is answered.
    pub description: String,
    /// Whether the reference has the route as deprecated.
    pub is_deprecated: bool,
    /// The table of statuses.
    pub refusals: Vec<Refusal>,
}

/// A row of a page's table.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The status.
    pub status: u16,
    /// The codes that it comes with, for this reason.
    pub codes: Vec<String>,
    /// The reason.
    pub when: String,
}

impl Page {
    /// The page of `function`, from its source below `workspace`.
    ///
    /// # Errors
    /// There is no such source, or it does not begin with a page of this form.
    pub fn read(workspace: &Path, function: &str) -> Result<Self, Error> {
        let folder = workspace.join("functions/src/bin");
        let file = folder.join(format!("{function}.rs"));
        let file = if file.exists() { file } else { folder.join(function).join("main.rs") };
        Self::parse(&read(&file)?)
            .map_err(|reason| Error::Page { function: function.to_owned(), reason: reason.to_owned() })
    }

    fn parse(source: &str) -> Result<Self, &'static str> {
        let lines: Vec<&str> =
            source.lines().map_while(|line| line.strip_prefix("//!")).map(str::trim).collect();
        let mut paragraphs = lines.split(|line| line.is_empty()).map(|lines| lines.join(" "));
        let first = paragraphs.next().unwrap_or_default();
        let (head, about) = first.split_once(": ").unwrap_or(("", &first));
        let routes = head.split('`').skip(1).step_by(2).map(ToOwned::to_owned).collect();
        let (about, is_deprecated) = match about.split_once(" Deprecated in the reference") {
            Some((about, _)) => (about, true),
            None => (about, false),
        };
        let about = about.trim_end_matches('.');
        let mut letters = about.chars();
        let summary: String =
            letters.next().ok_or("it is empty")?.to_uppercase().chain(letters.by_ref()).collect();
        let description: Vec<_> =
            paragraphs.filter(|text| !text.starts_with('|')).map(|text| without_links(&text)).collect();
        let refusals = lines.iter().filter_map(|line| Refusal::parse(line)).collect();
        Ok(Self { routes, summary, description: description.join("\n\n"), is_deprecated, refusals })
    }
}

impl Refusal {
    /// The row `| status | codes | when |`; none of another line.
    fn parse(line: &str) -> Option<Self> {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, status, codes, when, _] = cells.as_slice() else { return None };
        Some(Self {
            status: status.parse().ok()?,
            codes: codes.split(',').map(|code| code.trim().trim_matches('`').to_owned()).collect(),
            when: (*when).to_owned(),
        })
    }
}

/// `text` without rustdoc's links to types.
fn without_links(text: &str) -> String {
    text.replace("[`", "`").replace("`]", "`")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_taken_apart() {
        let source = "\
//! `GET /a` and
//! `GET /b`: look at
//! it. Deprecated in the reference, and working.
//!
//! Caller: [`Anybody`].
//!
//! | status | code | when |
//! |---|---|---|
//! | 400 | `one`, `two` | it is bad |

//! not a part of it
";

        assert_eq!(
            Page::parse(source).unwrap(),
            Page {
                routes: vec!["GET /a".to_owned(), "GET /b".to_owned()],
                summary: "Look at it".to_owned(),
                description: "Caller: `Anybody`.".to_owned(),
                is_deprecated: true,
                refusals: vec![Refusal {
                    status: 400,
                    codes: vec!["one".to_owned(), "two".to_owned()],
                    when: "it is bad".to_owned(),
                }],
            }
        );
        assert!(Page::parse("fn main() {}").is_err());
    }
}
