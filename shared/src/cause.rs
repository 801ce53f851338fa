//! What an error says for the log.

use std::error::Error;

/// `error` and what caused it, in one line.
pub(crate) fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(error) = source {
        let part = error.to_string();
        // Some errors say what their source says.
        if !text.ends_with(&part) {
            text.push_str(": ");
            text.push_str(&part);
        }
        source = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("{text}")]
    struct Layer {
        text: &'static str,
        source: Option<Box<Layer>>,
    }

    #[test]
    fn a_chain_says_everything_once() {
        let inner = Layer { text: "refused", source: None };
        let middle = Layer { text: "no connection: refused", source: Some(Box::new(inner)) };
        let outer = Layer { text: "failed", source: Some(Box::new(middle)) };

        assert_eq!(chain(&outer), "failed: no connection: refused");
    }
}
