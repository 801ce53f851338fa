//! Who an event is from (<https://docs.stripe.com/webhooks#verify-manually>).

use aws_lc_rs::hmac;
use shared::domain::Timestamp;

/// How far the time of a signature may be from now, in seconds: as Stripe's own libraries have it.
const TOLERANCE: i64 = 300;

/// Why an event is not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SignatureError {
    /// No header, or not of the form `t=…,v1=…`.
    #[error("the header `Stripe-Signature` is missing or malformed")]
    Malformed,
    /// Not signed with the endpoint's secret, or changed on the way.
    #[error("the signature does not match; is the webhook's signing secret that of this endpoint?")]
    Mismatch,
    /// Signed too long ago, or in the future: a replay, or a wrong clock.
    #[error("the signature is of another time than now")]
    Stale,
}

/// Verifies that `payload`, to the byte as it came, was signed with `secret` around `now`.
///
/// # Errors
/// It was not.
pub(crate) fn verify(
    header: Option<&str>,
    payload: &[u8],
    secret: &str,
    now: Timestamp,
) -> Result<(), SignatureError> {
    let header = header.ok_or(SignatureError::Malformed)?;
    let parts = || header.split(',').filter_map(|part| part.trim().split_once('='));
    let time =
        parts().find(|(name, _)| *name == "t").map(|(_, time)| time).ok_or(SignatureError::Malformed)?;
    let seconds: i64 = time.parse().map_err(|_not_a_number| SignatureError::Malformed)?;
    let signed = [time.as_bytes(), b".", payload].concat();
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    // While a secret is replaced Stripe signs with both: any may match. `hmac::verify` takes constant time.
    let matches = parts()
        .filter(|(scheme, _)| *scheme == "v1")
        .filter_map(|(_, hex)| from_hex(hex))
        .any(|signature| hmac::verify(&key, &signed, &signature).is_ok());
    if !matches {
        return Err(SignatureError::Mismatch);
    }
    if (now.as_seconds() - seconds).abs() > TOLERANCE {
        return Err(SignatureError::Stale);
    }
    Ok(())
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    if !text.len().is_multiple_of(2) || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    text.as_bytes()
        .chunks(2)
        .map(|pair| std::str::from_utf8(pair).ok().and_then(|pair| u8::from_str_radix(pair, 16).ok()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "whsec_test";
    const PAYLOAD: &[u8] = b"{\"id\":\"evt_1\"}";

    fn sign(secret: &str, time: i64, payload: &[u8]) -> String {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
        let tag = hmac::sign(&key, &[time.to_string().as_bytes(), b".", payload].concat());
        tag.as_ref().iter().fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
    }

    fn check(header: &str, at: i64) -> Result<(), SignatureError> {
        verify(Some(header), PAYLOAD, SECRET, Timestamp::from_seconds(at))
    }

    #[test]
    fn a_signature_of_the_endpoints_secret_is_believed_for_five_minutes_either_way() {
        let signature = sign(SECRET, 10_000, PAYLOAD);
        let header = format!("t=10000,v1={signature}");

        for (at, expected) in [
            (10_000, Ok(())),
            (10_300, Ok(())),
            (9_700, Ok(())),
            (10_301, Err(SignatureError::Stale)),
            (9_699, Err(SignatureError::Stale)),
        ] {
            assert_eq!(check(&header, at), expected, "at {at}");
        }
    }

    #[test]
    fn one_of_several_signatures_is_enough() {
        let (good, other) = (sign(SECRET, 10, PAYLOAD), sign("whsec_other", 10, PAYLOAD));

        assert_eq!(check(&format!("t=10, v1={other}, v1={good}, v0=abc"), 10), Ok(()));
        assert_eq!(check(&format!("t=10,v1={other}"), 10), Err(SignatureError::Mismatch));
    }

    #[test]
    fn what_was_not_signed_like_this_is_not_believed() {
        let good = sign(SECRET, 10, PAYLOAD);
        for (header, expected) in [
            (String::new(), SignatureError::Malformed),
            (format!("v1={good}"), SignatureError::Malformed),
            (format!("t=ten,v1={good}"), SignatureError::Malformed),
            (format!("t=11,v1={good}"), SignatureError::Mismatch),
            (format!("t=10,v0={good}"), SignatureError::Mismatch),
            ("t=10,v1=zz".to_owned(), SignatureError::Mismatch),
            ("t=10,v1=".to_owned(), SignatureError::Mismatch),
            (format!("t=10,v1={}", good.get(..62).unwrap()), SignatureError::Mismatch),
        ] {
            assert_eq!(check(&header, 10), Err(expected), "{header}");
        }
        assert_eq!(
            verify(Some(&format!("t=10,v1={good}")), b"{}", SECRET, Timestamp::from_seconds(10)),
            Err(SignatureError::Mismatch)
        );
        assert_eq!(
            verify(None, PAYLOAD, SECRET, Timestamp::from_seconds(10)),
            Err(SignatureError::Malformed)
        );
    }
}
