//! The configuration: environment variables, read once, checked at start.

use jsonwebtoken::jwk::JwkSet;
use url::Url;

use crate::domain::{Plans, PlansError};

/// What a deployment may set. `template.yaml` sets each variable from the parameter of its name.
#[derive(Debug)]
pub struct Config {
    /// `TABLE_NAME`: the DynamoDB table.
    pub table_name: String,
    /// `OIDC_ISSUER`: the identity provider, exactly as its tokens carry it in `iss`.
    pub issuer: String,
    /// `OIDC_AUDIENCE`: what access tokens must carry in `aud` or `client_id`.
    pub audience: String,
    /// `OIDC_CLIENT_ID`: the client in whose name refresh tokens are exchanged.
    pub client_id: String,
    /// `OIDC_JWKS`: the provider's key set, to save its fetch at cold start.
    pub key_set: Option<JwkSet>,
    /// `OIDC_TRUST_EMAIL`: take every address of the provider as verified.
    pub trust_email: bool,
    /// `PUBLIC_ORIGIN`: where clients reach the API; without it, the domain of each request.
    pub public_origin: Option<String>,
    /// `BUCKETS_PER_OWNER`: how many live buckets one person may own.
    pub buckets_per_owner: u32,
    /// `INVITATION_DAYS`: how many days an invitation can be taken up.
    pub invitation_days: u32,
    /// `PLANS`: the plans, as JSON; without it, those of `plans.json`.
    pub plans: Plans,
}

/// A variable that the functions cannot start with.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// Not set, or empty.
    #[error("the environment variable {0} is not set")]
    Missing(&'static str),
    /// Set to something else than is expected.
    #[error("the environment variable {name} must be {expected}, but is `{value}`")]
    Invalid {
        /// The variable.
        name: &'static str,
        /// What it must be.
        expected: &'static str,
        /// What it is.
        value: String,
    },
    /// `PLANS` cannot be used, or `plans.json` cannot.
    #[error("the plans in the environment variable PLANS, or else the built-in ones, cannot be used: {0}")]
    Plans(#[from] PlansError),
}

/// What is empty counts as not set: a template's parameter cannot be absent.
fn given(value: Option<String>) -> Option<String> {
    value.filter(|value| !value.trim().is_empty())
}

/// A variable of one function alone that may be missing.
#[must_use]
pub fn optional(name: &str) -> Option<String> {
    given(std::env::var(name).ok())
}

/// A variable of one function alone.
///
/// # Errors
/// It is not set.
pub fn required(name: &'static str) -> Result<String, ConfigError> {
    optional(name).ok_or(ConfigError::Missing(name))
}

impl Config {
    /// Reads the process's environment.
    ///
    /// # Errors
    /// A variable is missing or invalid.
    pub fn from_environment() -> Result<Self, ConfigError> {
        Self::read(|name| std::env::var(name).ok())
    }

    fn read(lookup: impl Fn(&str) -> Option<String>) -> Result<Self, ConfigError> {
        let optional = |name| given(lookup(name));
        let required = |name: &'static str| optional(name).ok_or(ConfigError::Missing(name));
        Ok(Self {
            table_name: required("TABLE_NAME")?,
            issuer: checked("OIDC_ISSUER", required("OIDC_ISSUER")?, "an http or https URL", |value| {
                http_url(value).map(|_| value.to_owned())
            })?,
            audience: required("OIDC_AUDIENCE")?,
            client_id: required("OIDC_CLIENT_ID")?,
            key_set: optional("OIDC_JWKS")
                .map(|value| {
                    checked("OIDC_JWKS", value, "a JWK Set as JSON", |value| serde_json::from_str(value).ok())
                })
                .transpose()?,
            trust_email: optional("OIDC_TRUST_EMAIL").map_or(Ok(false), |value| {
                checked("OIDC_TRUST_EMAIL", value, "true or false", |value| value.parse().ok())
            })?,
            public_origin: optional("PUBLIC_ORIGIN")
                .map(|value| {
                    checked("PUBLIC_ORIGIN", value, "an origin such as https://api.example.com", |value| {
                        let url = http_url(value).filter(|url| url.path() == "/" && url.query().is_none())?;
                        Some(url.origin().ascii_serialization())
                    })
                })
                .transpose()?,
            buckets_per_owner: count("BUCKETS_PER_OWNER", required("BUCKETS_PER_OWNER")?)?,
            invitation_days: count("INVITATION_DAYS", required("INVITATION_DAYS")?)?,
            plans: optional("PLANS").map_or_else(Plans::built_in, |json| Plans::from_json(&json))?,
        })
    }
}

fn checked<T>(
    name: &'static str,
    value: String,
    expected: &'static str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, ConfigError> {
    match parse(value.trim()) {
        Some(parsed) => Ok(parsed),
        None => Err(ConfigError::Invalid { name, expected, value }),
    }
}

fn count(name: &'static str, value: String) -> Result<u32, ConfigError> {
    checked(name, value, "a whole number from 1", |value| value.parse().ok().filter(|count| *count > 0))
}

fn http_url(value: &str) -> Option<Url> {
    Url::parse(value).ok().filter(|url| matches!(url.scheme(), "http" | "https") && url.has_host())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(changes: &[(&str, &str)]) -> Result<Config, String> {
        let mut variables = std::collections::HashMap::from([
            ("TABLE_NAME", "Table"),
            ("OIDC_ISSUER", "https://id.example.com/"),
            ("OIDC_AUDIENCE", "bucket-api"),
            ("OIDC_CLIENT_ID", "bucket-api"),
            ("BUCKETS_PER_OWNER", "5"),
            ("INVITATION_DAYS", "7"),
        ]);
        variables.extend(changes.iter().copied());
        Config::read(|name| variables.get(name).map(ToString::to_string)).map_err(|error| error.to_string())
    }

    #[test]
    fn the_issuer_is_kept_to_the_letter_and_an_origin_is_normalised() {
        let config = read(&[("PUBLIC_ORIGIN", "https://API.example.com:443/")]).unwrap();

        assert_eq!(config.issuer, "https://id.example.com/");
        assert_eq!(config.public_origin.as_deref(), Some("https://api.example.com"));
    }

    #[test]
    fn what_is_empty_counts_as_not_set() {
        let config = read(&[("OIDC_JWKS", ""), ("PUBLIC_ORIGIN", ""), ("OIDC_TRUST_EMAIL", "")]).unwrap();

        assert!(config.key_set.is_none() && config.public_origin.is_none() && !config.trust_email);
    }

    #[test]
    fn a_missing_or_bad_variable_is_named() {
        for (name, value, message) in [
            ("TABLE_NAME", "", "TABLE_NAME is not set"),
            (
                "OIDC_ISSUER",
                "id.example.com",
                "OIDC_ISSUER must be an http or https URL, but is `id.example.com`",
            ),
            ("OIDC_AUDIENCE", " ", "OIDC_AUDIENCE is not set"),
            ("OIDC_CLIENT_ID", "", "OIDC_CLIENT_ID is not set"),
            ("OIDC_JWKS", "{}", "OIDC_JWKS must be a JWK Set as JSON, but is `{}`"),
            ("OIDC_TRUST_EMAIL", "yes", "OIDC_TRUST_EMAIL must be true or false, but is `yes`"),
            ("PUBLIC_ORIGIN", "https://a.example/b", "PUBLIC_ORIGIN must be an origin such as"),
            ("BUCKETS_PER_OWNER", "0", "BUCKETS_PER_OWNER must be a whole number from 1, but is `0`"),
            ("BUCKETS_PER_OWNER", "", "BUCKETS_PER_OWNER is not set"),
            ("INVITATION_DAYS", "a week", "INVITATION_DAYS must be a whole number from 1, but is `a week`"),
            ("PLANS", "{}", "PLANS, or else the built-in ones, cannot be used: the plan `free` is missing"),
        ] {
            let error = read(&[(name, value)]).unwrap_err();
            assert!(error.contains(message), "{error}");
        }
    }
}
