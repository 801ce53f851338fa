//! Identifiers in the forms that AWS gives them.

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use time::OffsetDateTime;
use uuid::Uuid;

/// The id of an invocation or a mail.
pub(crate) fn uuid() -> String {
    Uuid::new_v4().to_string()
}

/// The id that an HTTP API gives a request: 16 characters such as `YaXcYgMQvHcESyA=`.
pub(crate) fn request() -> String {
    let bytes = Uuid::new_v4().into_bytes();
    BASE64_STANDARD.encode(bytes.first_chunk::<11>().unwrap_or(&[0; 11]))
}

/// The id of a trace that began at `time`.
pub(crate) fn trace(time: OffsetDateTime) -> String {
    let random = Uuid::new_v4().simple().to_string();
    format!("Root=1-{:08x}-{}", time.unix_timestamp(), random.get(..24).unwrap_or(&random))
}
