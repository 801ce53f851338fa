//! Access tokens: JWTs, verified as RFC 8725 and RFC 9068 ask.

use std::collections::HashSet;

use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, Validation, errors::ErrorKind};
use serde::{Deserialize, de::IgnoredAny};

use super::keys::Key;

/// Longer tokens are refused unread: no provider's access token comes near it, and API Gateway
/// takes 10 KiB of headers in all.
const MAX_BYTES: usize = 8 * 1024;

/// How far clocks may differ, in seconds.
const SKEW: u64 = 60;

/// Why a token does not prove who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// Longer than 8 KiB.
    #[error("the token is too long")]
    TooLong,
    /// Not three parts of base64url, or not JSON within.
    #[error("the token is not a JWT")]
    Malformed,
    /// The header asks for something that is not done here: another algorithm, another type, a key
    /// of the token's own choosing, a critical extension.
    #[error("the token's header is not acceptable")]
    Header,
    /// Signed with a key that the provider does not publish.
    #[error("the token's key is not known")]
    UnknownKey,
    /// The signature is not the key's.
    #[error("the token's signature is wrong")]
    Signature,
    /// `exp` has passed.
    #[error("the token has expired")]
    Expired,
    /// The provider does not know it (any more).
    #[error("the token is not known to its provider any more")]
    Revoked,
    /// `nbf` is still to come.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// `iss` is not the configured issuer.
    #[error("the token is of another issuer")]
    OtherIssuer,
    /// Neither `aud` nor `client_id` is the configured audience.
    #[error("the token is for another audience")]
    OtherAudience,
    /// A claim that is needed is missing or of the wrong type.
    #[error("the token's claims are not acceptable")]
    Claims,
}

/// The header's members that decide something. An unknown member is ignored (RFC 7515 4), a
/// repeated one is refused by the deserialiser.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    crit: Option<IgnoredAny>,
    jku: Option<IgnoredAny>,
    jwk: Option<IgnoredAny>,
    x5u: Option<IgnoredAny>,
    x5c: Option<IgnoredAny>,
}

/// What a token asks to be verified with.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct KeyHint {
    pub(super) kid: Option<String>,
    pub(super) algorithm: Algorithm,
}

/// The claims that are read. A repeated one is refused by the deserialiser.
#[derive(Clone, Deserialize)]
pub(super) struct Claims {
    /// One text: an array, which some libraries let pass, is refused.
    #[serde(rename = "iss")]
    _iss: String,
    pub(super) sub: String,
    aud: Option<Audience>,
    client_id: Option<String>,
    /// When it was issued, in seconds since 1970, where it says.
    #[serde(default, deserialize_with = "lenient_seconds")]
    pub(super) iat: Option<u32>,
    #[serde(flatten)]
    pub(super) person: PersonClaims,
}

#[derive(Clone, Deserialize)]
#[serde(untagged)]
enum Audience {
    One(String),
    Many(HashSet<String>),
}

/// What a token or the userinfo endpoint says of the person (OpenID Connect Core 5.1).
#[derive(Clone, Default, Deserialize)]
pub(super) struct PersonClaims {
    #[serde(default, deserialize_with = "lenient_text")]
    pub(super) email: Option<String>,
    #[serde(default, deserialize_with = "lenient_bool")]
    pub(super) email_verified: Option<bool>,
    #[serde(default, deserialize_with = "lenient_text")]
    preferred_username: Option<String>,
    #[serde(default, deserialize_with = "lenient_text")]
    nickname: Option<String>,
    #[serde(default, deserialize_with = "lenient_text")]
    name: Option<String>,
}

impl PersonClaims {
    /// The first name given of those that a person may have chosen to be called by.
    pub(super) fn shown_name(&self) -> Option<&str> {
        [&self.preferred_username, &self.nickname, &self.name].into_iter().find_map(Option::as_deref)
    }
}

/// A boolean, or the text of one: Amazon Cognito's userinfo endpoint answers `"true"`.
fn lenient_bool<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<bool>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Bool(bool),
        Text(String),
        Other(IgnoredAny),
    }
    Ok(match Option::<Either>::deserialize(deserializer)? {
        Some(Either::Bool(value)) => Some(value),
        Some(Either::Text(text)) => Some(text == "true"),
        Some(Either::Other(_)) => Some(false),
        None => None,
    })
}

/// A text; anything else counts as absent, since a person is not refused for an odd name.
fn lenient_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<String>, D::Error> {
    Ok(serde_json::Value::deserialize(deserializer)?.as_str().map(ToOwned::to_owned))
}

/// A number of seconds, or the text of one; anything else counts as absent.
pub(super) fn lenient_seconds<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<Option<u32>, D::Error> {
    let value = serde_json::Value::deserialize(deserializer)?;
    let seconds = value.as_u64().or_else(|| value.as_str().and_then(|text| text.parse().ok()));
    Ok(seconds.and_then(|seconds| u32::try_from(seconds).ok()))
}

/// Reads the header of `token`, trusting nothing in it beyond the name of a key.
pub(super) fn key_hint(token: &str) -> Result<KeyHint, TokenError> {
    if token.len() > MAX_BYTES {
        return Err(TokenError::TooLong);
    }
    let mut parts = token.split('.');
    let (Some(header), Some(_), Some(_), None) = (parts.next(), parts.next(), parts.next(), parts.next())
    else {
        return Err(TokenError::Malformed);
    };
    let header = URL_SAFE_NO_PAD.decode(header).or(Err(TokenError::Malformed))?;
    let Header { alg, kid, typ, crit, jku, jwk, x5u, x5c } =
        serde_json::from_slice(&header).or(Err(TokenError::Malformed))?;
    // No extension is understood here, so each critical one is unknown (RFC 7515 4.1.11); and keys
    // come from the provider alone, never from where a token points (RFC 8725 3.10).
    if [crit, jku, jwk, x5u, x5c].iter().any(Option::is_some) {
        return Err(TokenError::Header);
    }
    // RFC 8725 3.11: other kinds of JWT of the same issuer (logout tokens, DPoP proofs) are no access
    // tokens. Many providers set plain `JWT`, or nothing.
    if let Some(typ) = typ {
        let typ = typ.to_ascii_lowercase();
        if !matches!(typ.trim_start_matches("application/"), "jwt" | "at+jwt") {
            return Err(TokenError::Header);
        }
    }
    let algorithm = match alg.as_str() {
        "RS256" => Algorithm::RS256,
        "ES256" => Algorithm::ES256,
        "EdDSA" => Algorithm::EdDSA,
        _ => return Err(TokenError::Header),
    };
    Ok(KeyHint { kid, algorithm })
}

/// Verifies `token` with `key`: signature, times, issuer and audience.
#[expect(
    clippy::wildcard_enum_match_arm,
    reason = "every other refusal says that the claims are not as needed"
)]
pub(super) fn verify(token: &str, key: &Key, issuer: &str, audience: &str) -> Result<Claims, TokenError> {
    let mut validation = Validation::new(key.algorithm);
    validation.leeway = SKEW;
    validation.validate_nbf = true;
    // The audience is checked below, since it may stand in `client_id`.
    validation.validate_aud = false;
    validation.set_issuer(&[issuer]);
    validation.set_required_spec_claims(&["exp", "iss", "sub"]);
    let claims: Claims = jsonwebtoken::decode(token, &key.decoding, &validation)
        .map_err(|error| match error.kind() {
            ErrorKind::ExpiredSignature => TokenError::Expired,
            ErrorKind::ImmatureSignature => TokenError::NotYetValid,
            ErrorKind::InvalidIssuer => TokenError::OtherIssuer,
            ErrorKind::InvalidSignature => TokenError::Signature,
            ErrorKind::Base64(_) | ErrorKind::InvalidToken => TokenError::Malformed,
            _ => TokenError::Claims,
        })?
        .claims;
    if claims.sub.is_empty() {
        return Err(TokenError::Claims);
    }
    let meant = match (&claims.aud, &claims.client_id) {
        (Some(Audience::One(aud)), _) => aud == audience,
        (Some(Audience::Many(auds)), _) => auds.contains(audience),
        // Amazon Cognito's access tokens carry no `aud`.
        (None, Some(client_id)) => client_id == audience,
        (None, None) => false,
    };
    if meant { Ok(claims) } else { Err(TokenError::OtherAudience) }
}

#[cfg(test)]
mod tests {
    use aws_lc_rs::{
        rand::SystemRandom,
        rsa::KeySize,
        signature::{
            ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RSA_PKCS1_SHA256,
            RsaKeyPair,
        },
    };
    use jsonwebtoken::{EncodingKey, get_current_timestamp, jwk::Jwk};
    use serde_json::{Value, json};

    use super::{super::keys::KeySet, *};

    const ISSUER: &str = "https://id.example.com";
    const AUDIENCE: &str = "bucket-api";

    type Sign = Box<dyn Fn(&[u8]) -> Vec<u8>>;

    /// A signer of tokens and the key that it publishes.
    struct Issuer {
        sign: Sign,
        algorithm: &'static str,
        published: Jwk,
    }

    impl Issuer {
        fn ed25519() -> Self {
            let pair = Ed25519KeyPair::from_seed_unchecked(&[7; 32]).unwrap();
            let key = EncodingKey::from_ed_der(pair.to_pkcs8v1().unwrap().as_ref());
            Self {
                published: Self::publish(&key, Algorithm::EdDSA),
                sign: Box::new(move |message| pair.sign(message).as_ref().to_vec()),
                algorithm: "EdDSA",
            }
        }

        fn es256() -> Self {
            let document =
                EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
            let pair = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap();
            let key = EncodingKey::from_ec_der(document.as_ref());
            Self {
                published: Self::publish(&key, Algorithm::ES256),
                sign: Box::new(move |message| {
                    pair.sign(&SystemRandom::new(), message).unwrap().as_ref().to_vec()
                }),
                algorithm: "ES256",
            }
        }

        fn rs256() -> Self {
            let pair = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
            let part = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
            let public = pair.public_key();
            Self {
                published: serde_json::from_value(json!({
                    "kty": "RSA",
                    "kid": "key-1",
                    "n": part(public.modulus().big_endian_without_leading_zero()),
                    "e": part(public.exponent().big_endian_without_leading_zero()),
                }))
                .unwrap(),
                sign: Box::new(move |message| {
                    let mut signature = vec![0; pair.public_modulus_len()];
                    pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), message, &mut signature).unwrap();
                    signature
                }),
                algorithm: "RS256",
            }
        }

        fn publish(key: &EncodingKey, algorithm: Algorithm) -> Jwk {
            let mut jwk = Jwk::from_encoding_key(key, algorithm).unwrap();
            jwk.common.key_id = Some("key-1".to_owned());
            jwk
        }

        /// A token of these texts, which need not be JSON.
        fn token_of(&self, header: &str, claims: &str) -> String {
            let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
            format!("{message}.{}", URL_SAFE_NO_PAD.encode((self.sign)(message.as_bytes())))
        }

        fn header(&self) -> Value {
            json!({ "alg": self.algorithm, "kid": "key-1", "typ": "at+jwt" })
        }

        fn token(&self, claims: &Value) -> String {
            self.token_of(&self.header().to_string(), &claims.to_string())
        }

        async fn check(&self, token: &str) -> Result<Claims, TokenError> {
            let hint = key_hint(token)?;
            let set = KeySet::new(Some(&jsonwebtoken::jwk::JwkSet { keys: vec![self.published.clone()] }));
            let unreachable = async || Err(crate::web::WebError::Waiting);
            let now = std::time::Instant::now();
            let key = set.find(&hint, now, unreachable).await.map_err(|error| {
                let super::super::AuthError::Token(error) = error else { panic!("{error}") };
                error
            })?;
            verify(token, &key, ISSUER, AUDIENCE)
        }
    }

    fn now() -> i64 {
        i64::try_from(get_current_timestamp()).unwrap()
    }

    fn claims() -> Value {
        json!({ "iss": ISSUER, "sub": "alice", "aud": AUDIENCE, "exp": now() + 600 })
    }

    fn with(changes: Value) -> Value {
        let (Value::Object(mut claims), Value::Object(changes)) = (claims(), changes) else { panic!() };
        for (name, value) in changes {
            if value.is_null() {
                claims.remove(&name);
            } else {
                claims.insert(name, value);
            }
        }
        claims.into()
    }

    #[tokio::test]
    async fn tokens_of_the_three_algorithms_are_accepted() {
        for issuer in [Issuer::rs256(), Issuer::es256(), Issuer::ed25519()] {
            let claims = issuer.check(&issuer.token(&claims())).await.map(|claims| claims.sub);

            assert_eq!(claims.as_deref(), Ok("alice"), "{}", issuer.algorithm);
        }
    }

    #[tokio::test]
    async fn the_claims_that_matter_are_checked() {
        let issuer = Issuer::ed25519();
        for (changes, expected) in [
            (json!({}), Ok(())),
            (json!({ "exp": now() - 50 }), Ok(())),
            (json!({ "exp": now() - 70 }), Err(TokenError::Expired)),
            (json!({ "exp": 0 }), Err(TokenError::Expired)),
            (json!({ "exp": null }), Err(TokenError::Claims)),
            (json!({ "exp": (now() + 600).to_string() }), Err(TokenError::Claims)),
            (json!({ "exp": -1 }), Err(TokenError::Claims)),
            (json!({ "nbf": now() + 50 }), Ok(())),
            (json!({ "nbf": now() + 70 }), Err(TokenError::NotYetValid)),
            (json!({ "nbf": "soon" }), Err(TokenError::Claims)),
            (json!({ "iss": "https://id.example.com/" }), Err(TokenError::OtherIssuer)),
            (json!({ "iss": [ISSUER] }), Err(TokenError::Claims)),
            (json!({ "iss": null }), Err(TokenError::Claims)),
            (json!({ "sub": null }), Err(TokenError::Claims)),
            (json!({ "sub": "" }), Err(TokenError::Claims)),
            (json!({ "sub": 1 }), Err(TokenError::Claims)),
            (json!({ "aud": ["other", AUDIENCE] }), Ok(())),
            (json!({ "aud": "other" }), Err(TokenError::OtherAudience)),
            (json!({ "aud": [] }), Err(TokenError::OtherAudience)),
            (json!({ "aud": null }), Err(TokenError::OtherAudience)),
            (json!({ "aud": 1 }), Err(TokenError::Claims)),
            (json!({ "aud": null, "client_id": AUDIENCE }), Ok(())),
            (json!({ "aud": null, "client_id": "other" }), Err(TokenError::OtherAudience)),
            (json!({ "aud": "other", "client_id": AUDIENCE }), Err(TokenError::OtherAudience)),
        ] {
            let outcome = issuer.check(&issuer.token(&with(changes.clone()))).await.map(drop);

            assert_eq!(outcome, expected, "{changes}");
        }
    }

    #[tokio::test]
    async fn headers_that_ask_for_something_else_are_refused() {
        let issuer = Issuer::ed25519();
        for (name, value, expected) in [
            ("typ", json!("JWT"), Ok(())),
            ("typ", json!("application/at+jwt"), Ok(())),
            ("typ", Value::Null, Ok(())),
            ("typ", json!("logout+jwt"), Err(TokenError::Header)),
            ("typ", json!("dpop+jwt"), Err(TokenError::Header)),
            ("alg", json!("none"), Err(TokenError::Header)),
            ("alg", json!("HS256"), Err(TokenError::Header)),
            ("alg", json!("RS512"), Err(TokenError::Header)),
            ("alg", json!("RS256"), Err(TokenError::UnknownKey)),
            ("alg", json!(1), Err(TokenError::Malformed)),
            ("kid", json!("key-2"), Err(TokenError::UnknownKey)),
            ("kid", json!("../key-1"), Err(TokenError::UnknownKey)),
            ("kid", Value::Null, Ok(())),
            ("crit", json!(["exp"]), Err(TokenError::Header)),
            ("jku", json!("https://evil.example/jwks"), Err(TokenError::Header)),
            ("x5u", json!("https://evil.example/cert"), Err(TokenError::Header)),
            ("x5c", json!([]), Err(TokenError::Header)),
            ("jwk", serde_json::to_value(&issuer.published).unwrap(), Err(TokenError::Header)),
        ] {
            let mut header = issuer.header();
            header[name] = value.clone();
            let token = issuer.token_of(&header.to_string(), &claims().to_string());

            assert_eq!(issuer.check(&token).await.map(drop), expected, "{name}: {value}");
        }
    }

    #[tokio::test]
    async fn repeated_members_are_refused() {
        let issuer = Issuer::ed25519();
        let claims = claims().to_string();
        let header = issuer.header().to_string();
        let twice = |json: &str, member: &str| format!("{{{member},{}", json.strip_prefix('{').unwrap());

        for member in [r#""sub":"mallory""#, r#""iss":"x""#, r#""exp":9999999999"#, r#""aud":"x""#] {
            let token = issuer.token_of(&header, &twice(&claims, member));
            assert_eq!(issuer.check(&token).await.map(drop), Err(TokenError::Claims), "{member}");
        }
        let emails = r#""email":"a@example.com","email":"b@example.com""#;
        let token = issuer.token_of(&header, &twice(&claims, emails));
        assert_eq!(issuer.check(&token).await.map(drop), Err(TokenError::Claims));
        for member in [r#""alg":"none""#, r#""kid":"key-2""#] {
            let token = issuer.token_of(&twice(&header, member), &claims);
            assert_eq!(issuer.check(&token).await.map(drop), Err(TokenError::Malformed), "{member}");
        }
    }

    #[tokio::test]
    async fn a_token_that_was_tampered_with_is_refused() {
        let issuer = Issuer::ed25519();
        let token = issuer.token(&claims());
        let parts: Vec<&str> = token.split('.').collect();
        let forged = URL_SAFE_NO_PAD.encode(with(json!({ "sub": "mallory" })).to_string());

        for (token, expected) in [
            (format!("{}.{forged}.{}", parts[0], parts[2]), TokenError::Signature),
            (format!("{}.{}.", parts[0], parts[1]), TokenError::Signature),
            (format!("{}.{}", parts[0], parts[1]), TokenError::Malformed),
            (format!("{token}.x"), TokenError::Malformed),
            (String::new(), TokenError::Malformed),
            ("a.b.c".to_owned(), TokenError::Malformed),
            (format!("{}.{}.{}=", parts[0], parts[1], parts[2]), TokenError::Malformed),
            (issuer.token_of(&issuer.header().to_string(), "not json"), TokenError::Claims),
            ("a".repeat(8 * 1024), TokenError::Malformed),
            ("a".repeat(8 * 1024 + 1), TokenError::TooLong),
        ] {
            assert_eq!(issuer.check(&token).await.map(drop), Err(expected), "{token}");
        }
    }

    #[tokio::test]
    async fn a_key_of_another_issuer_does_not_verify() {
        let theirs = Issuer::es256();
        let ours = Issuer::es256();

        assert_eq!(ours.check(&theirs.token(&claims())).await.map(drop), Err(TokenError::Signature));
    }

    #[tokio::test]
    async fn the_persons_claims_are_read_leniently() {
        let issuer = Issuer::ed25519();
        for (given, verified) in [
            (json!(true), Some(true)),
            (json!("true"), Some(true)),
            (json!("yes"), Some(false)),
            (json!(1), Some(false)),
            (Value::Null, None),
        ] {
            let token = issuer.token(&with(json!({ "email": "a@example.com", "email_verified": given })));
            let person = issuer.check(&token).await.map(|claims| claims.person).map_err(drop);

            assert_eq!(person.unwrap().email_verified, verified, "{given}");
        }
        let named = with(json!({ "name": ["Alice"], "preferred_username": "alice", "email": 5 }));
        let person = issuer.check(&issuer.token(&named)).await.map(|claims| claims.person).map_err(drop);
        assert_eq!(person.unwrap().shown_name(), Some("alice"));
    }
}
