//! Stripe's keys, from AWS Secrets Manager: they are never in a function's environment.

use std::fmt;

use serde::Deserialize;
use shared::{StartError, aws_config};

/// Stripe's keys. The `Debug` shows neither.
#[derive(Clone, Deserialize)]
pub(crate) struct Keys {
    /// The secret key, or better a restricted one (`sk_…`, `rk_…`).
    pub(crate) secret_key: String,
    /// The signing secret of the webhook endpoint (`whsec_…`).
    pub(crate) webhook_secret: String,
}

impl fmt::Debug for Keys {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("Keys").finish_non_exhaustive()
    }
}

impl Keys {
    /// The keys in the secret `name`: JSON with `secret_key` and `webhook_secret`.
    ///
    /// # Errors
    /// The secret cannot be had, or is not of this form; the message says what to change, and shows
    /// nothing of it.
    pub(crate) async fn fetch(name: &str) -> Result<Self, StartError> {
        let client = aws_sdk_secretsmanager::Client::new(&aws_config().await?);
        let answer = client.get_secret_value().secret_id(name).send().await.map_err(|error| {
            StartError::Other(format!("the secret {name} cannot be had: {}", error.into_service_error()))
        })?;
        Self::parse(answer.secret_string().unwrap_or_default())
            .map_err(|reason| StartError::Other(format!("the secret {name} is not usable: {reason}")))
    }

    fn parse(json: &str) -> Result<Self, &'static str> {
        let keys: Self = serde_json::from_str(json).map_err(
            |_shows_the_secret| "it must be JSON with the texts `secret_key` and `webhook_secret`",
        )?;
        if !["sk_", "rk_"].iter().any(|prefix| keys.secret_key.starts_with(prefix)) {
            return Err("`secret_key` must begin with `sk_` or `rk_`");
        }
        if !keys.webhook_secret.starts_with("whsec_") {
            return Err("`webhook_secret` must begin with `whsec_`");
        }
        // A header cannot hold anything else, and a key with a line end is a copying mistake.
        if !keys.secret_key.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("`secret_key` holds a blank or another character that no key has");
        }
        Ok(keys)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_cannot_be_used_is_refused_without_being_shown() {
        for (json, reason) in [
            ("sk_test_123", "must be JSON"),
            (r#"{"secret_key":"sk_test_123"}"#, "must be JSON"),
            (r#"{"secret_key":"pk_test_123","webhook_secret":"whsec_1"}"#, "must begin with `sk_`"),
            (r#"{"secret_key":"sk_test_123","webhook_secret":"1"}"#, "must begin with `whsec_`"),
            (r#"{"secret_key":"sk_test_123\n","webhook_secret":"whsec_1"}"#, "holds a blank"),
        ] {
            let error = Keys::parse(json).unwrap_err();
            assert!(error.contains(reason) && !error.contains("123"), "{error}");
        }
        let keys = Keys::parse(r#"{"secret_key":"rk_live_123","webhook_secret":"whsec_456"}"#).unwrap();
        assert_eq!(format!("{keys:?}"), "Keys { .. }");
    }
}
