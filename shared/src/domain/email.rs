//! E-mail addresses, normalised once, at the edge.

use std::fmt;

use idna::uts46::{AsciiDenyList, DnsLength, Hyphens, Uts46};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use unicode_normalization::UnicodeNormalization;

/// A normalised e-mail address. Two spellings of one address are equal: it is trimmed, in lower case
/// and in Unicode form NFC, and its domain is in the ASCII form of IDNA (UTS 46).
/// Dots and `+suffixes` stay, since only the receiving server knows whether they matter.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("format" = "email", "maxLength" = Self::MAX_BYTES))]
pub struct Email(String);

/// Why a text is not an e-mail address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EmailError {
    /// More than [`Email::MAX_BYTES`] after normalisation.
    #[error("an e-mail address has at most {} bytes", Email::MAX_BYTES)]
    TooLong,
    /// Not exactly one `@` with something on either side.
    #[error("an e-mail address has one `@`, with a name before it and a domain after it")]
    NotOneAt,
    /// A blank, a control character, or a character of display names and lists.
    #[error("expected one bare e-mail address, without blanks, display name or list")]
    NotBare,
    /// The part behind the `@` is not a domain name.
    #[error("the part behind the `@` is not a domain name")]
    BadDomain,
}

impl Email {
    /// The longest address that can be delivered to, in bytes (RFC 5321 4.5.3.1.3: a path of 256
    /// octets, less its two angle brackets).
    pub const MAX_BYTES: usize = 254;

    /// Normalises `text`.
    ///
    /// # Errors
    /// `text` is not one bare e-mail address.
    pub fn parse(text: &str) -> Result<Self, EmailError> {
        let text = text.trim();
        // Normalising can shorten, but nothing that is meant as an address to a tenth.
        if text.len() > 10 * Self::MAX_BYTES {
            return Err(EmailError::TooLong);
        }
        let bad = |c: char| c.is_whitespace() || c.is_control() || matches!(c, '<' | '>' | ',' | ';' | '"');
        if text.contains(bad) {
            return Err(EmailError::NotBare);
        }
        let Some((local, domain)) = text.split_once('@') else {
            return Err(EmailError::NotOneAt);
        };
        if local.is_empty() || domain.is_empty() || domain.contains('@') {
            return Err(EmailError::NotOneAt);
        }
        // Taken apart before the case folding: a letter that is composed in one case only would
        // otherwise keep it.
        let local: String = local.nfd().flat_map(char::to_lowercase).nfc().collect();
        if local.contains('@') || local.contains(bad) {
            return Err(EmailError::NotBare);
        }
        let domain = Uts46::new()
            .to_ascii(domain.as_bytes(), AsciiDenyList::STD3, Hyphens::Allow, DnsLength::Verify)
            .or(Err(EmailError::BadDomain))?;
        let address = format!("{local}@{domain}");
        if address.len() > Self::MAX_BYTES {
            return Err(EmailError::TooLong);
        }
        Ok(Self(address))
    }

    /// The normalised address.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The part before the `@`.
    #[must_use]
    pub fn local_part(&self) -> &str {
        self.0.split_once('@').map_or(self.as_str(), |(local, _)| local)
    }
}

impl TryFrom<String> for Email {
    type Error = EmailError;

    fn try_from(text: String) -> Result<Self, EmailError> {
        Self::parse(&text)
    }
}

impl From<Email> for String {
    fn from(email: Email) -> String {
        email.0
    }
}

/// Addresses are personal data: they must not get into a log by way of `Debug`.
impl fmt::Debug for Email {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Email(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> Result<String, EmailError> {
        Email::parse(text).map(String::from)
    }

    #[test]
    fn spellings_of_one_address_are_one_address() {
        for (given, normalised) in [
            ("alice@example.com", "alice@example.com"),
            ("  Alice@EXAMPLE.com\n", "alice@example.com"),
            ("ren\u{65}\u{301}@example.com", "ren\u{e9}@example.com"),
            ("REN\u{c9}@example.com", "ren\u{e9}@example.com"),
            ("K\u{301}@example.com", "\u{1e31}@example.com"),
            ("H\u{331}@example.com", "\u{1e96}@example.com"),
            ("\u{212a}elvin@example.com", "kelvin@example.com"),
            ("a@B\u{dc}CHER.example", "a@xn--bcher-kva.example"),
            ("a@b\u{fc}cher.example", "a@xn--bcher-kva.example"),
            ("a@ex\u{e4}mple\u{3002}com", "a@xn--exmple-cua.com"),
        ] {
            assert_eq!(parse(given).as_deref(), Ok(normalised), "{given}");
        }
    }

    #[test]
    fn dots_and_plus_suffixes_are_kept() {
        assert_eq!(parse("a.b+c@gmail.com").as_deref(), Ok("a.b+c@gmail.com"));
    }

    #[test]
    fn what_is_not_one_bare_address_is_refused() {
        for (given, error) in [
            ("", EmailError::NotOneAt),
            ("alice", EmailError::NotOneAt),
            ("@example.com", EmailError::NotOneAt),
            ("alice@", EmailError::NotOneAt),
            ("a@b@example.com", EmailError::NotOneAt),
            ("Alice <alice@example.com>", EmailError::NotBare),
            ("<alice@example.com>", EmailError::NotBare),
            ("a@example.com,b@example.com", EmailError::NotBare),
            ("a@example.com;", EmailError::NotBare),
            ("al ice@example.com", EmailError::NotBare),
            ("alice@exam\u{a0}ple.com", EmailError::NotBare),
            ("alice\0@example.com", EmailError::NotBare),
            // A semicolon once it is normalised.
            ("a\u{37e}b@example.com", EmailError::NotBare),
            ("alice@example..com", EmailError::BadDomain),
            ("alice@.example.com", EmailError::BadDomain),
            ("alice@example.com.", EmailError::BadDomain),
            ("alice@exa/mple.com", EmailError::BadDomain),
            ("alice@[127.0.0.1]", EmailError::BadDomain),
        ] {
            assert_eq!(parse(given), Err(error), "{given:?}");
        }
    }

    #[test]
    fn an_address_of_254_bytes_is_the_longest() {
        let domain = "example.com";
        let local = "a".repeat(254 - 1 - domain.len());

        assert!(parse(&format!("{local}@{domain}")).is_ok());
        assert_eq!(parse(&format!("{local}a@{domain}")), Err(EmailError::TooLong));
        assert_eq!(parse(&"a".repeat(100_000)), Err(EmailError::TooLong));
    }

    #[test]
    fn what_normalising_shortens_may_be_ten_times_as_long() {
        let hyphenated = |hyphens: usize| format!("ab@{}example.com", "\u{ad}".repeat(hyphens));
        assert_eq!(hyphenated(1_263).len(), 2_540);

        assert_eq!(parse(&hyphenated(1_263)).as_deref(), Ok("ab@example.com"));
        assert_eq!(parse(&hyphenated(1_264)), Err(EmailError::TooLong));
    }

    #[test]
    fn an_address_is_not_in_its_debug_form() {
        assert_eq!(format!("{:?}", Email::parse("alice@example.com").unwrap()), "Email(redacted)");
    }

    proptest! {
        #[test]
        fn normalising_twice_changes_nothing(text in "\\PC{1,20}@\\PC{1,20}") {
            if let Ok(once) = parse(&text) {
                prop_assert_eq!(parse(&once), Ok(once));
            }
        }

        #[test]
        fn no_text_is_too_strange_to_parse(text in any::<String>()) {
            let _ = parse(&text);
        }

        #[test]
        fn case_of_letters_never_matters(text in "[a-zA-Z\\u{e0}-\\u{f6}\\u{300}-\\u{340}]{1,8}@[a-zA-Z]{1,8}\\.com") {
            prop_assert_eq!(parse(&text), parse(&text.to_uppercase()));
        }
    }
}
