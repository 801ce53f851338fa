//! The identity provider's key set: which key verifies a token, and when to fetch the set again.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, JwkSet, KeyAlgorithm, PublicKeyUse},
};
use tokio::sync::Mutex;

use super::{
    AuthError,
    token::{KeyHint, TokenError},
};
use crate::web::WebError;

/// A token with an unknown key may be the first after a rotation, or junk: asking the provider this
/// often finds the one in time, and keeps the other from becoming a flood of fetches.
const REFETCH_AFTER: Duration = Duration::from_mins(1);

/// Without any key nobody is let in, so the provider is asked again sooner.
const RETRY_AFTER: Duration = Duration::from_secs(2);

/// A fetched set is renewed at this age, so that a key that the provider withdrew stops counting.
const RENEW_AFTER: Duration = Duration::from_hours(1);

/// A key and the one algorithm that it is used with (RFC 8725 3.1).
#[derive(Debug)]
pub(super) struct Key {
    kid: Option<String>,
    pub(super) algorithm: Algorithm,
    pub(super) decoding: DecodingKey,
}

/// The keys of `set` that sign; one of another use, type, curve or algorithm is skipped.
fn usable(set: &JwkSet) -> Vec<Arc<Key>> {
    set.keys.iter().filter_map(usable_key).map(Arc::new).collect()
}

#[expect(clippy::wildcard_enum_match_arm, reason = "kinds of key to come are no more usable than these")]
fn usable_key(jwk: &Jwk) -> Option<Key> {
    if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return None;
    }
    let (algorithm, declared) = match &jwk.algorithm {
        AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
        AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
            (Algorithm::ES256, KeyAlgorithm::ES256)
        }
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
        }
        _ => return None,
    };
    if jwk.common.key_algorithm.is_some_and(|given| given != declared) {
        return None;
    }
    Some(Key { kid: jwk.common.key_id.clone(), algorithm, decoding: DecodingKey::from_jwk(jwk).ok()? })
}

#[derive(Debug, Default)]
struct State {
    keys: Vec<Arc<Key>>,
    /// When the set was fetched; `None` for a configured one, which does not age.
    fetched: Option<Instant>,
    /// When it was last tried.
    tried: Option<Instant>,
}

/// The cached key set. The lock is held while fetching: whoever else needs a key waits for that one
/// fetch.
#[derive(Debug)]
pub(super) struct KeySet {
    state: Mutex<State>,
}

impl KeySet {
    /// Starts with `configured`, or with nothing.
    pub(super) fn new(configured: Option<&JwkSet>) -> Self {
        let keys = configured.map(usable).unwrap_or_default();
        Self { state: Mutex::new(State { keys, ..State::default() }) }
    }

    /// The key for `hint` at `now`; `fetch` asks the provider where that is due.
    ///
    /// # Errors
    /// The key is not known, or no key is and the provider does not answer.
    pub(super) async fn find(
        &self,
        hint: &KeyHint,
        now: Instant,
        fetch: impl AsyncFnOnce() -> Result<JwkSet, WebError>,
    ) -> Result<Arc<Key>, AuthError> {
        let mut state = self.state.lock().await;
        let known = state.lookup(hint);
        let aged = |since: Option<Instant>, age| since.is_none_or(|then| now.duration_since(then) >= age);
        let due = match &known {
            Some(_) => {
                state.fetched.is_some()
                    && aged(state.fetched, RENEW_AFTER)
                    && aged(state.tried, REFETCH_AFTER)
            }
            None if state.keys.is_empty() => aged(state.tried, RETRY_AFTER),
            None => aged(state.tried, REFETCH_AFTER),
        };
        if !due {
            return known.ok_or(if state.keys.is_empty() {
                AuthError::Provider(WebError::Waiting)
            } else {
                AuthError::Token(TokenError::UnknownKey)
            });
        }
        let failure = state.renew(now, fetch).await.err();
        // The last good set survives an outage of the provider.
        state.lookup(hint).ok_or(match failure {
            Some(error) if state.keys.is_empty() => AuthError::Provider(error),
            Some(_) | None => AuthError::Token(TokenError::UnknownKey),
        })
    }

    /// Fetches the set once, at start, where none is configured.
    pub(super) async fn prepare(&self, now: Instant, fetch: impl AsyncFnOnce() -> Result<JwkSet, WebError>) {
        let mut state = self.state.lock().await;
        if state.keys.is_empty() {
            // Whoever comes first has it tried again; the failure is in the log.
            let _tried_again_later = state.renew(now, fetch).await;
        }
    }
}

impl State {
    async fn renew(
        &mut self,
        now: Instant,
        fetch: impl AsyncFnOnce() -> Result<JwkSet, WebError>,
    ) -> Result<(), WebError> {
        self.tried = Some(now);
        let fetched = fetch().await.and_then(|set| {
            let keys = usable(&set);
            // Nobody could sign in: rather a mishap of the provider than its will.
            if keys.is_empty() { Err(WebError::NoKeys) } else { Ok(keys) }
        });
        self.keys = fetched.inspect_err(|error| {
            tracing::warn!(error = %error, "the key set could not be fetched");
        })?;
        self.fetched = Some(now);
        Ok(())
    }

    fn lookup(&self, hint: &KeyHint) -> Option<Arc<Key>> {
        let mut fitting = self.keys.iter().filter(|key| key.algorithm == hint.algorithm);
        match &hint.kid {
            Some(_) => fitting.find(|key| key.kid == hint.kid).cloned(),
            // RFC 7517 4.5 leaves `kid` out where there is no choice.
            None => match (fitting.next(), fitting.next()) {
                (Some(only), None) => Some(only.clone()),
                _ => None,
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};

    use serde_json::{Value, json};

    use super::*;

    fn ec(kid: &str) -> Value {
        json!({
            "kty": "EC", "crv": "P-256", "kid": kid, "alg": "ES256", "use": "sig",
            "x": "f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU",
            "y": "x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0",
        })
    }

    fn set(keys: &[Value]) -> JwkSet {
        serde_json::from_value(json!({ "keys": keys })).unwrap()
    }

    fn hint(kid: &str) -> KeyHint {
        KeyHint { kid: Some(kid.to_owned()), algorithm: Algorithm::ES256 }
    }

    fn unknown<T>(outcome: &Result<T, AuthError>) -> bool {
        matches!(outcome, Err(AuthError::Token(TokenError::UnknownKey)))
    }

    /// A provider that counts how often it is asked.
    #[derive(Default)]
    struct Provider {
        asked: AtomicU32,
    }

    impl Provider {
        async fn answer(&self, keys: &[Value]) -> Result<JwkSet, WebError> {
            self.asked.fetch_add(1, Ordering::Relaxed);
            // Lets whoever waits for this fetch run.
            tokio::task::yield_now().await;
            Ok(set(keys))
        }

        fn asked(&self) -> u32 {
            self.asked.load(Ordering::Relaxed)
        }
    }

    async fn down() -> Result<JwkSet, WebError> {
        Err(WebError::Timeout("https://id.example.com".to_owned()))
    }

    #[tokio::test]
    async fn many_who_need_a_new_set_share_one_fetch() {
        let (keys, provider, now) = (KeySet::new(None), Provider::default(), Instant::now());
        let find =
            async || keys.find(&hint("a"), now, async || provider.answer(&[ec("a")]).await).await.is_ok();

        let (a, b, c) = tokio::join!(find(), find(), find());

        assert!(a && b && c);
        assert_eq!(provider.asked(), 1);
    }

    #[tokio::test]
    async fn a_flood_of_unknown_keys_asks_once_a_minute() {
        let (keys, provider, start) =
            (KeySet::new(Some(&set(&[ec("a")]))), Provider::default(), Instant::now());
        for second in 0..180 {
            let now = start + Duration::from_secs(second);
            let found = keys
                .find(&hint(&format!("junk-{second}")), now, async || provider.answer(&[ec("a")]).await)
                .await;
            assert!(unknown(&found));
        }

        assert_eq!(provider.asked(), 3);
    }

    #[tokio::test]
    async fn a_rotated_key_is_found_and_the_withdrawn_one_stops_counting() {
        let (keys, provider, now) =
            (KeySet::new(Some(&set(&[ec("a")]))), Provider::default(), Instant::now());

        assert!(keys.find(&hint("b"), now, async || provider.answer(&[ec("b")]).await).await.is_ok());
        assert!(unknown(&keys.find(&hint("a"), now, down).await));
        assert_eq!(provider.asked(), 1);
    }

    #[tokio::test]
    async fn the_last_good_set_survives_an_outage() {
        let (keys, provider, start) = (KeySet::new(None), Provider::default(), Instant::now());
        keys.prepare(start, async || provider.answer(&[ec("a")]).await).await;

        let later = start + Duration::from_hours(48);
        assert!(keys.find(&hint("a"), later, down).await.is_ok());
        assert!(unknown(&keys.find(&hint("b"), later + Duration::from_hours(1), down).await));
    }

    #[tokio::test]
    async fn a_fetched_set_is_renewed_after_an_hour_and_a_configured_one_is_not() {
        let (provider, start) = (Provider::default(), Instant::now());
        let (fetched, configured) = (KeySet::new(None), KeySet::new(Some(&set(&[ec("a")]))));
        fetched.prepare(start, async || provider.answer(&[ec("a")]).await).await;

        for (keys, minutes, asked) in
            [(&fetched, 59, 1), (&fetched, 61, 2), (&fetched, 62, 2), (&configured, 100_000, 2)]
        {
            let now = start + Duration::from_mins(minutes);
            assert!(keys.find(&hint("a"), now, async || provider.answer(&[ec("a")]).await).await.is_ok());
            assert_eq!(provider.asked(), asked, "after {minutes} minutes");
        }
    }

    #[tokio::test]
    async fn without_any_key_the_provider_is_asked_again_soon() {
        let (keys, provider, start) = (KeySet::new(None), Provider::default(), Instant::now());

        assert!(matches!(
            keys.find(&hint("a"), start, down).await,
            Err(AuthError::Provider(WebError::Timeout(_)))
        ));
        let soon = start + Duration::from_secs(1);
        assert!(matches!(
            keys.find(&hint("a"), soon, down).await,
            Err(AuthError::Provider(WebError::Waiting))
        ));
        let later = start + Duration::from_secs(3);
        assert!(keys.find(&hint("a"), later, async || provider.answer(&[ec("a")]).await).await.is_ok());
    }

    #[tokio::test]
    async fn an_empty_set_does_not_replace_a_good_one() {
        let (keys, provider, now) =
            (KeySet::new(Some(&set(&[ec("a")]))), Provider::default(), Instant::now());

        assert!(unknown(&keys.find(&hint("b"), now, async || provider.answer(&[]).await).await));
        assert!(keys.find(&hint("a"), now, down).await.is_ok());
    }

    #[test]
    fn keys_of_another_use_type_or_algorithm_are_skipped() {
        let with = |name: &str, value: Value| {
            let mut key = ec("a");
            key[name] = value;
            key
        };
        for (key, usable_keys) in [
            (ec("a"), 1),
            (with("use", Value::Null), 1),
            (with("alg", Value::Null), 1),
            (with("use", json!("enc")), 0),
            (with("alg", json!("ES384")), 0),
            (with("alg", json!("RS256")), 0),
            (with("crv", json!("P-384")), 0),
            (
                json!({ "kty": "OKP", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }),
                1,
            ),
            (json!({ "kty": "OKP", "crv": "P-256", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo" }), 0),
            (json!({ "kty": "oct", "k": "c2VjcmV0", "kid": "a" }), 0),
            (json!({ "kty": "RSA", "n": "AQAB", "e": "AQAB", "alg": "RS512", "kid": "a" }), 0),
        ] {
            assert_eq!(usable(&set(std::slice::from_ref(&key))).len(), usable_keys, "{key}");
        }
    }

    #[tokio::test]
    async fn a_token_without_kid_needs_the_only_key_of_its_algorithm() {
        let any = KeyHint { kid: None, algorithm: Algorithm::ES256 };
        let find =
            async |keys: &[Value]| KeySet::new(Some(&set(keys))).find(&any, Instant::now(), down).await;

        assert!(find(&[ec("a")]).await.is_ok());
        assert!(unknown(&find(&[ec("a"), ec("b")]).await));
    }
}
