//! YAML as `CloudFormation` reads it: every scalar is text, the short form of an intrinsic function
//! (`!Sub x`) is its long form (`Fn::Sub: x`), and each node knows its line.
//!
//! Built on the parser's events instead of a ready-made tree, because a template may come from
//! anywhere: nesting is bounded, and aliases (which `CloudFormation` refuses, and by which a few
//! lines can stand for gigabytes) are refused.

use std::borrow::Cow;

use saphyr_parser::{Event, Parser, ScalarStyle, Tag};

use super::TemplateError;

/// Deeper nesting is refused. The recursion of everything that walks a template is bounded by it.
const MAX_DEPTH: usize = 64;

/// A value of the document.
#[derive(Clone, Debug)]
pub(super) struct Node {
    /// Where it starts, counted from 1.
    pub(super) line: usize,
    pub(super) content: Content,
}

#[derive(Clone, Debug)]
pub(super) enum Content {
    Null,
    /// A scalar, to the letter: `CloudFormation` turns numbers and booleans into text as well.
    Text(String),
    List(Vec<Node>),
    /// The entries in the order of the document, no key twice.
    Map(Vec<(String, Node)>),
}

impl Node {
    /// The value under `key`, if this is a map that has it.
    pub(super) fn get(&self, key: &str) -> Option<&Node> {
        self.entries().iter().find(|(name, _)| name == key).map(|(_, node)| node)
    }

    /// The entries of a map; none of anything else.
    pub(super) fn entries(&self) -> &[(String, Node)] {
        match &self.content {
            Content::Map(entries) => entries,
            Content::Null | Content::Text(_) | Content::List(_) => &[],
        }
    }

    /// The scalar, if this is one.
    pub(super) fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            Content::Null | Content::List(_) | Content::Map(_) => None,
        }
    }

    /// This node as JSON, scalars as texts.
    pub(super) fn to_json(&self) -> serde_json::Value {
        match &self.content {
            Content::Null => serde_json::Value::Null,
            Content::Text(text) => text.as_str().into(),
            Content::List(items) => items.iter().map(Node::to_json).collect(),
            Content::Map(entries) => serde_json::Value::Object(
                entries.iter().map(|(key, node)| (key.clone(), node.to_json())).collect(),
            ),
        }
    }

    /// What is wrong with this node, which stands at `path`.
    pub(super) fn error(&self, path: &str, reason: impl Into<String>) -> TemplateError {
        TemplateError::Property { path: path.to_owned(), line: self.line, reason: reason.into() }
    }
}

/// Parses one document.
pub(super) fn parse(text: &str) -> Result<Node, TemplateError> {
    let mut builder = Builder::default();
    for event in Parser::new_from_str(text.trim_start_matches('\u{feff}')) {
        let (event, span) = event.map_err(|error| TemplateError::Yaml {
            line: error.marker().line(),
            reason: error.info().to_owned(),
        })?;
        let line = span.start.line();
        builder.take(event, line).map_err(|reason| TemplateError::Yaml { line, reason })?;
    }
    builder.root.ok_or_else(|| TemplateError::Yaml { line: 1, reason: "the document is empty".to_owned() })
}

/// The tree under construction: the collections that are still open, outermost first.
#[derive(Default)]
struct Builder<'input> {
    open: Vec<Open<'input>>,
    root: Option<Node>,
}

struct Open<'input> {
    node: Node,
    tag: Option<Cow<'input, Tag>>,
    /// The key whose value comes next, in a map.
    key: Option<String>,
}

impl<'input> Builder<'input> {
    fn take(&mut self, event: Event<'input>, line: usize) -> Result<(), String> {
        match event {
            Event::Scalar(text, style, _, tag) => {
                let plain_null =
                    style == ScalarStyle::Plain && matches!(&*text, "" | "~" | "null" | "Null" | "NULL");
                let content = if plain_null { Content::Null } else { Content::Text(text.into_owned()) };
                self.place(long_form(tag.as_deref(), Node { line, content }))
            }
            Event::SequenceStart(_, tag) => self.open(line, tag, Content::List(Vec::new())),
            Event::MappingStart(_, tag) => self.open(line, tag, Content::Map(Vec::new())),
            Event::SequenceEnd | Event::MappingEnd => match self.open.pop() {
                Some(Open { node, tag, .. }) => self.place(long_form(tag.as_deref(), node)),
                None => Ok(()),
            },
            Event::Alias(_) => Err("aliases are not supported: write the value out".to_owned()),
            Event::DocumentStart(_) if self.root.is_some() => {
                Err("only one document is supported".to_owned())
            }
            Event::Nothing
            | Event::StreamStart
            | Event::StreamEnd
            | Event::DocumentStart(_)
            | Event::DocumentEnd => Ok(()),
        }
    }

    fn open(&mut self, line: usize, tag: Option<Cow<'input, Tag>>, content: Content) -> Result<(), String> {
        if self.open.len() == MAX_DEPTH {
            return Err(format!("nested deeper than {MAX_DEPTH} levels"));
        }
        self.open.push(Open { node: Node { line, content }, tag, key: None });
        Ok(())
    }

    /// Puts a finished node where it belongs.
    fn place(&mut self, node: Node) -> Result<(), String> {
        let Some(Open { node: parent, key, .. }) = self.open.last_mut() else {
            self.root = Some(node);
            return Ok(());
        };
        match &mut parent.content {
            Content::List(items) => items.push(node),
            Content::Map(entries) => match key.take() {
                Some(key) => entries.push((key, node)),
                None => match node.content {
                    Content::Text(name) if entries.iter().any(|(known, _)| *known == name) => {
                        return Err(format!("the key `{name}` stands here twice"));
                    }
                    Content::Text(name) => *key = Some(name),
                    Content::Null | Content::List(_) | Content::Map(_) => {
                        return Err("a key must be text".to_owned());
                    }
                },
            },
            // Scalars are never opened.
            Content::Null | Content::Text(_) => {}
        }
        Ok(())
    }
}

/// `node` under its tag: `!Ref x` is `Ref: x`, `!Sub x` is `Fn::Sub: x`. The types of YAML itself
/// (`!!str`) say nothing here, where every scalar is text.
fn long_form(tag: Option<&Tag>, node: Node) -> Node {
    let Some(tag) = tag.filter(|tag| !tag.is_yaml_core_schema()) else { return node };
    let function = match tag.suffix.as_str() {
        name @ ("Ref" | "Condition") => name.to_owned(),
        name => format!("Fn::{name}"),
    };
    Node { line: node.line, content: Content::Map(vec![(function, node)]) }
}
