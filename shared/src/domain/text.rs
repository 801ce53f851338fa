//! Texts that people and clients give, each with its bounds. Lengths are in characters (Unicode
//! scalar values) unless they say bytes.

use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::value::RawValue;
use url::Url;

/// Why a text is out of its bounds.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TextError {
    /// Nothing but white space.
    #[error("must not be blank")]
    Blank,
    /// A line break or another control character.
    #[error("must not contain line breaks or other control characters")]
    Control,
    /// Longer than the bound.
    #[error("must have at most {max} {unit}")]
    TooLong {
        /// The bound.
        max: usize,
        /// What it counts.
        unit: &'static str,
    },
    /// Not an absolute http or https URL.
    #[error("must be an http or https URL, such as https://example.com")]
    NotAnUrl,
    /// Not a JSON object.
    #[error("must be an object")]
    NotObject,
    /// Nested deeper than the bound.
    #[error("must be nested at most {max} levels deep")]
    TooDeep {
        /// The bound.
        max: usize,
    },
    /// Neither a JSON text nor an object.
    #[error("must be a text or an object")]
    NotTextOrObject,
}

fn at_most(text: &str, max: usize) -> Result<(), TextError> {
    // The byte count is an upper bound of the character count, and costs nothing.
    if text.len() > max && text.chars().count() > max {
        return Err(TextError::TooLong { max, unit: "characters" });
    }
    Ok(())
}

/// JSON Schema's form (ECMA-262) of: something visible.
const VISIBLE: &str = r"\S";

/// The same of: something visible, and no control character.
const VISIBLE_LINE: &str =
    r"^[^\u0000-\u001f\u007f-\u009f]*[^\s\u0000-\u001f\u007f-\u009f][^\u0000-\u001f\u007f-\u009f]*$";

/// The same of: an http or https URL with a host, or nothing.
const URL_OR_NOTHING: &str = r"^([Hh][Tt][Tt][Pp][Ss]?:\S+)?$";

macro_rules! text {
    ($(#[$meta:meta])* $name:ident, $max:expr, $check:expr) => {
        #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
        #[serde(try_from = "String", into = "String")]
        $(#[$meta])*
        #[schemars(extend("maxLength" = Self::MAX_CHARACTERS))]
        pub struct $name(String);

        impl $name {
            /// The longest, in characters.
            pub const MAX_CHARACTERS: usize = $max;

            /// The text, to the letter as it was given.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = TextError;

            fn try_from(text: String) -> Result<Self, TextError> {
                let check: fn(&str) -> Result<(), TextError> = $check;
                check(&text)?;
                at_most(&text, Self::MAX_CHARACTERS)?;
                Ok(Self(text))
            }
        }

        impl From<$name> for String {
            fn from(text: $name) -> String {
                text.0
            }
        }
    };
}

text! {
    /// A bucket's name: 1 to 100 characters, not blank, without control characters, kept to the
    /// letter.
    #[schemars(extend("pattern" = VISIBLE_LINE))]
    BucketName, 100,
    |text| {
        if text.trim().is_empty() {
            return Err(TextError::Blank);
        }
        if text.contains(char::is_control) { Err(TextError::Control) } else { Ok(()) }
    }
}

text! {
    /// What a bucket says of itself: up to 1,000 characters, none by default.
    #[derive(Default)]
    Comment, 1_000,
    |_| Ok(())
}

text! {
    /// Where the watched application is: an http or https URL of up to 2,048 characters, or empty
    /// for none.
    #[derive(Default)]
    #[schemars(extend("pattern" = URL_OR_NOTHING))]
    AppUrl, 2_048,
    |text| {
        if text.is_empty() {
            return Ok(());
        }
        // The parser would take these out; the text is kept as it came.
        if text.contains(|c: char| c.is_control() || c.is_whitespace()) {
            return Err(TextError::NotAnUrl);
        }
        match Url::parse(text) {
            Ok(url) if matches!(url.scheme(), "http" | "https") && url.has_host() => Ok(()),
            Ok(_) | Err(_) => Err(TextError::NotAnUrl),
        }
    }
}

text! {
    /// What a person thinks of the product: 1 to 10,000 characters, not blank.
    #[schemars(extend("pattern" = VISIBLE))]
    Feedback, 10_000,
    |text| if text.trim().is_empty() { Err(TextError::Blank) } else { Ok(()) }
}

/// How a person is shown to others: never empty, at most 100 characters, no control characters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(transparent)]
pub struct Username(String);

impl Username {
    /// What `claimed` leaves after control characters, surrounding blanks and excess length are
    /// gone, or else the same of `fallback`. Identity providers give names, not bad input: a strange
    /// one is mended rather than refused.
    #[must_use]
    pub fn from_claim(claimed: Option<&str>, fallback: &str) -> Self {
        let mend = |text: &str| -> Option<String> {
            let kept: String = text.chars().filter(|c| !c.is_control()).collect();
            let kept: String = kept.trim().chars().take(100).collect();
            (!kept.is_empty()).then_some(kept)
        };
        Self(claimed.and_then(mend).or_else(|| mend(fallback)).unwrap_or_else(|| "unnamed".to_owned()))
    }

    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

macro_rules! json_text {
    ($(#[$meta:meta])* $name:ident, $bytes:expr, $levels:expr, $begins:expr, $otherwise:expr) => {
        #[derive(Clone, Debug, PartialEq, Eq, JsonSchema)]
        $(#[$meta])*
        pub struct $name(String);

        impl $name {
            /// The longest, in bytes of JSON.
            pub const MAX_BYTES: usize = $bytes;

            /// How deep it may be nested, itself counted.
            pub const MAX_LEVELS: usize = $levels;

            /// The JSON text.
            #[must_use]
            pub fn as_json(&self) -> &str {
                &self.0
            }

            /// Takes back what [`Self::as_json`] gave to the table.
            ///
            /// # Errors
            /// `json` is not JSON.
            pub fn from_stored(json: String) -> Result<Self, serde_json::Error> {
                serde_json::from_str::<&RawValue>(&json)?;
                Ok(Self(json))
            }
        }

        impl TryFrom<&RawValue> for $name {
            type Error = TextError;

            fn try_from(value: &RawValue) -> Result<Self, TextError> {
                let json = value.get().trim();
                if !json.starts_with($begins) {
                    return Err($otherwise);
                }
                if json.len() > Self::MAX_BYTES {
                    return Err(TextError::TooLong { max: Self::MAX_BYTES, unit: "bytes of JSON" });
                }
                if levels(json) > Self::MAX_LEVELS {
                    return Err(TextError::TooDeep { max: Self::MAX_LEVELS });
                }
                Ok(Self(json.to_owned()))
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let value = Box::<RawValue>::deserialize(deserializer)?;
                Self::try_from(&*value).map_err(serde::de::Error::custom)
            }
        }

        /// Serialises as the JSON that it holds.
        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serde_json::from_str::<&RawValue>(&self.0)
                    .map_err(serde::ser::Error::custom)?
                    .serialize(serializer)
            }
        }
    };
}

json_text! {
    /// The clients' own settings of a bucket: a JSON text or object of up to 16 KiB and 64 levels, kept
    /// as it came (order of keys and form of numbers included) and given back as it came.
    #[schemars(with = "serde_json::Value", extend("type" = ["string", "object"]))]
    Configuration, 16 * 1024, 64, ['"', '{'], TextError::NotTextOrObject
}

json_text! {
    /// A member's own settings for a bucket: a JSON object of up to 8 KiB and 16 levels that only
    /// clients understand, kept as it came.
    #[schemars(with = "serde_json::Map<String, serde_json::Value>")]
    UserOptions, 8 * 1024, 16, '{', TextError::NotObject
}

impl Default for UserOptions {
    fn default() -> Self {
        Self("{}".to_owned())
    }
}

/// How deep the well-formed `json` is nested.
fn levels(json: &str) -> usize {
    let (mut depth, mut deepest) = (0_usize, 0);
    let (mut in_text, mut escaped) = (false, false);
    for byte in json.bytes() {
        if in_text {
            in_text = escaped || byte != b'"';
            escaped = !escaped && byte == b'\\';
            continue;
        }
        match byte {
            b'"' => in_text = true,
            b'{' | b'[' => {
                depth += 1;
                deepest = deepest.max(depth);
            }
            b'}' | b']' => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> Result<String, TextError> {
        BucketName::try_from(text.to_owned()).map(String::from)
    }

    #[test]
    fn levels_are_counted_outside_of_texts_and_end_again() {
        for (json, expected) in [
            ("1", 0),
            (r#""[[""#, 0),
            ("{}", 1),
            (r#"{"a":1,"b":[]}"#, 2),
            ("[[],[],{}]", 2),
            ("[[[]],[[[]]]]", 4),
            (r#"{"[[[":"]{{"}"#, 1),
            (r#"["\"[[",[]]"#, 2),
            (r#"["\\",[[]]]"#, 3),
            (r#"["\\\"[[["]"#, 1),
        ] {
            assert_eq!(levels(json), expected, "{json}");
        }
    }

    #[test]
    fn a_name_is_kept_to_the_letter() {
        assert_eq!(name("  My \u{1f5a5} servers "), Ok("  My \u{1f5a5} servers ".to_owned()));
    }

    #[test]
    fn a_name_has_1_to_100_characters_that_are_not_all_blank() {
        let too_long = TextError::TooLong { max: 100, unit: "characters" };

        assert!(name(&"\u{e9}".repeat(100)).is_ok());
        assert_eq!(name(&"\u{e9}".repeat(101)), Err(too_long));
        assert_eq!(name(""), Err(TextError::Blank));
        assert_eq!(name(" \u{a0}\t"), Err(TextError::Blank));
        assert_eq!(name("a\nb"), Err(TextError::Control));
        assert_eq!(name("a\0"), Err(TextError::Control));
    }

    #[test]
    fn a_comment_may_be_empty_and_has_at_most_1000_characters() {
        assert!(Comment::try_from(String::new()).is_ok());
        assert!(Comment::try_from("c".repeat(1_000)).is_ok());
        assert!(Comment::try_from("c".repeat(1_001)).is_err());
    }

    #[test]
    fn an_app_url_is_http_or_https_with_a_host_or_empty() {
        let app_url = |text: &str| AppUrl::try_from(text.to_owned()).map(String::from);

        for good in ["", "https://example.com", "http://[::1]:3000/a?b#c", "HTTPS://EXAMPLE.COM/"] {
            assert_eq!(app_url(good), Ok(good.to_owned()));
        }
        for bad in [
            "example.com",
            "/path",
            "ftp://example.com",
            "javascript:alert(1)",
            "http://",
            " ",
            "https://a.b\n",
            "ht\ttps://a.b",
        ] {
            assert_eq!(app_url(bad), Err(TextError::NotAnUrl), "{bad:?}");
        }
        assert!(app_url(&format!("https://example.com/{}", "a".repeat(2_028))).is_ok());
        assert!(app_url(&format!("https://example.com/{}", "a".repeat(2_029))).is_err());
    }

    #[test]
    fn a_configuration_is_kept_and_given_back_as_it_came() {
        for json in [r#""text""#, r#"{"b": 1.0, "a": [1e400, 123456789012345678901234567890]}"#] {
            let configuration: Configuration = serde_json::from_str(json).unwrap();

            assert_eq!(serde_json::to_string(&configuration).unwrap(), json);
            assert_eq!(Configuration::from_stored(json.to_owned()).unwrap(), configuration);
        }
    }

    #[test]
    fn a_configuration_is_text_or_object_of_at_most_16_kib() {
        let refusal = |json: &str| serde_json::from_str::<Configuration>(json).unwrap_err().to_string();

        for json in ["1", "[]", "true", "null"] {
            assert!(refusal(json).contains("must be a text or an object"), "{json}");
        }
        assert!(serde_json::from_str::<Configuration>(&format!("{:?}", "c".repeat(16_382))).is_ok());
        assert!(refusal(&format!("{:?}", "c".repeat(16_383))).contains("16384 bytes"));
        let nested =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
        assert!(serde_json::from_str::<Configuration>(&nested(64)).is_ok());
        assert!(refusal(&nested(65)).contains("at most 64 levels"));
    }

    #[test]
    fn options_are_an_object_of_at_most_8_kib_and_16_levels() {
        let read = |json: &str| {
            serde_json::from_str::<UserOptions>(json).map(|options| options.as_json().to_owned())
        };
        let nested =
            |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));

        assert_eq!(read(r#"{"b": 1.0, "a": "]}[{\\\""}"#).unwrap(), r#"{"b": 1.0, "a": "]}[{\\\""}"#);
        assert!(read(&nested(16)).is_ok());
        assert!(read(&nested(17)).unwrap_err().to_string().contains("at most 16 levels"));
        assert!(read(&format!("{{\"a\":\"{}\"}}", "x".repeat(8 * 1024 - 8))).is_ok());
        assert!(read(&format!("{{\"a\":\"{}\"}}", "x".repeat(8 * 1024 - 7))).is_err());
        for json in ["[]", "1", "\"text\"", "null"] {
            assert!(read(json).unwrap_err().to_string().contains("must be an object"), "{json}");
        }
    }

    #[test]
    fn a_username_falls_back_when_the_claim_leaves_nothing() {
        for (claimed, shown) in [
            (Some("Alice"), "Alice"),
            (Some(" \u{7} Alice\n"), "Alice"),
            (Some("\u{7}\n"), "alice"),
            (None, "alice"),
        ] {
            assert_eq!(Username::from_claim(claimed, "alice").as_str(), shown);
        }
        assert_eq!(Username::from_claim(Some(&"a".repeat(101)), "").as_str().len(), 100);
        assert_eq!(Username::from_claim(None, "\n").as_str(), "unnamed");
    }
}
