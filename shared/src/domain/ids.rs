//! Identifiers. All are made from the operating system's random source, or derived from the
//! identity provider's subject; none carries meaning.

use std::fmt;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A text that is not an identifier of its kind.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    /// Not 24 lower-case hexadecimal digits.
    #[error("expected 24 hexadecimal digits")]
    NotHex24,
    /// Not 15 characters of `0-9a-z`.
    #[error("expected 15 characters of 0-9 and a-z")]
    NotKey15,
}

fn is_hex24(text: &str) -> bool {
    text.len() == 24 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_key15(text: &str) -> bool {
    text.len() == 15 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'z'))
}

fn hex(bytes: &[u8]) -> String {
    const DIGITS: [char; 16] =
        ['0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f'];
    bytes
        .iter()
        .flat_map(|byte| [byte >> 4, byte & 15])
        .filter_map(|nibble| DIGITS.get(usize::from(nibble)))
        .collect()
}

/// 15 characters of `0-9a-z`, each equally likely.
///
/// # Errors
/// The operating system's random source failed.
fn random_key15() -> Result<String, getrandom::Error> {
    const ALPHABET: &[u8; 36] = b"0123456789abcdefghijklmnopqrstuvwxyz";
    let mut key = String::with_capacity(15);
    while key.len() < 15 {
        let mut bytes = [0_u8; 32];
        getrandom::fill(&mut bytes)?;
        key.extend(
            bytes
                .iter()
                // 252 is the largest multiple of 36 in a byte: taking more would favour some letters.
                .filter(|byte| **byte < 252)
                .filter_map(|byte| ALPHABET.get(usize::from(byte % 36)))
                .take(15 - key.len())
                .map(|byte| char::from(*byte)),
        );
    }
    Ok(key)
}

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident, $valid:ident, $error:ident, $pattern:literal) => {
        $(#[$doc])*
        #[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        #[schemars(extend("pattern" = $pattern))]
        pub struct $name(String);

        impl $name {
            /// The identifier as it appears on the wire and in the table.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;

            fn try_from(text: String) -> Result<Self, IdError> {
                if $valid(&text) { Ok(Self(text)) } else { Err(IdError::$error) }
            }
        }

        impl From<$name> for String {
            fn from(id: $name) -> String {
                id.0
            }
        }
    };
}

text_id! {
    /// A bucket's `_id`: 24 lower-case hexadecimal digits, the form by which the published clients
    /// recognise a bucket in a path.
    BucketId, is_hex24, NotHex24, "^[0-9a-f]{24}$"
}

text_id! {
    /// A person's `_id`: 24 lower-case hexadecimal digits, derived from issuer and subject.
    UserId, is_hex24, NotHex24, "^[0-9a-f]{24}$"
}

text_id! {
    /// The half of a bucket's agent credentials that may be shown: 15 characters of `0-9a-z`.
    PublicId, is_key15, NotKey15, "^[0-9a-z]{15}$"
}

text_id! {
    /// The secret half of a bucket's agent credentials: 15 characters of `0-9a-z`.
    SecretId, is_key15, NotKey15, "^[0-9a-z]{15}$"
}

impl BucketId {
    /// A new identifier.
    ///
    /// # Errors
    /// The operating system's random source failed.
    pub fn random() -> Result<Self, getrandom::Error> {
        let mut bytes = [0_u8; 12];
        getrandom::fill(&mut bytes)?;
        Ok(Self(hex(&bytes)))
    }
}

impl UserId {
    /// The first 24 hexadecimal digits of SHA-256(`iss|sub`): stable for the person at that
    /// provider, whatever becomes of the e-mail address (OpenID Connect Core 5.7: only `iss` and
    /// `sub` together identify an end-user).
    #[must_use]
    pub fn of_subject(issuer: &str, subject: &str) -> Self {
        let digest =
            aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, format!("{issuer}|{subject}").as_bytes());
        Self(hex(digest.as_ref().get(..12).unwrap_or_default()))
    }
}

impl PublicId {
    /// A new identifier.
    ///
    /// # Errors
    /// The operating system's random source failed.
    pub fn random() -> Result<Self, getrandom::Error> {
        random_key15().map(Self)
    }
}

impl SecretId {
    /// A new secret.
    ///
    /// # Errors
    /// The operating system's random source failed.
    pub fn random() -> Result<Self, getrandom::Error> {
        random_key15().map(Self)
    }
}

macro_rules! debug_as_text {
    ($($name:ident),*) => {$(
        impl fmt::Debug for $name {
            fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str(&self.0)
            }
        }
    )*};
}

debug_as_text!(BucketId, UserId, PublicId);

impl fmt::Debug for SecretId {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("SecretId(redacted)")
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn a_user_id_depends_on_issuer_and_subject_and_on_nothing_else() {
        let id = UserId::of_subject("https://id.example.com", "alice");

        // printf 'https://id.example.com|alice' | sha256sum | cut -c1-24
        assert_eq!(id.as_str(), "3032f2a0d44b099014d810d4");
        assert_ne!(id, UserId::of_subject("https://id.example.org", "alice"));
        assert_ne!(id, UserId::of_subject("https://id.example.com", "bob"));
    }

    #[test]
    fn only_24_lower_case_hexadecimal_digits_are_a_bucket_id() {
        assert!(BucketId::try_from("0123456789abcdef01234567".to_owned()).is_ok());
        for bad in ["", "0123456789abcdef0123456", "0123456789ABCDEF01234567", "0123456789abcdef0123456g"] {
            assert_eq!(BucketId::try_from(bad.to_owned()), Err(IdError::NotHex24), "{bad}");
        }
    }

    #[test]
    fn only_15_digits_and_small_letters_are_a_key() {
        assert!(SecretId::try_from("0a1b2c3d4e5f6g7".to_owned()).is_ok());
        for bad in
            ["", "0a1b2c3d4e5f6g", "0a1b2c3d4e5f6g7h", "0A1B2C3D4E5F6G7", "0a1b2c3d4e5f6g#", "0a1b2c3d4e5f6é"]
        {
            assert_eq!(SecretId::try_from(bad.to_owned()), Err(IdError::NotKey15), "{bad}");
            assert_eq!(PublicId::try_from(bad.to_owned()), Err(IdError::NotKey15), "{bad}");
        }
    }

    #[test]
    fn random_keys_are_15_of_the_36_characters_and_use_all_of_them() {
        let keys: Vec<String> = (0..200).map(|_| random_key15().unwrap()).collect();

        assert!(keys.iter().all(|key| is_key15(key)));
        assert_eq!(keys.iter().collect::<HashSet<_>>().len(), keys.len());
        assert_eq!(keys.concat().chars().collect::<HashSet<_>>().len(), 36);
    }

    #[test]
    fn random_bucket_ids_are_valid() {
        assert!(is_hex24(BucketId::random().unwrap().as_str()));
    }

    #[test]
    fn a_secret_is_not_in_its_debug_form() {
        assert_eq!(format!("{:?}", SecretId::random().unwrap()), "SecretId(redacted)");
    }
}
