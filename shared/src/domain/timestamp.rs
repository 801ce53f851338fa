//! Points in time.

use std::borrow::Cow;
use std::time::{SystemTime, UNIX_EPOCH};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize, Serializer};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// A point in time, in whole milliseconds since 1970 (UTC). The table holds that number; the wire
/// shows RFC 3339, see [`Timestamp::rfc3339`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Timestamp(i64);

/// The form on the wire.
impl JsonSchema for Timestamp {
    fn schema_name() -> Cow<'static, str> {
        "Timestamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "format": "date-time" })
    }
}

impl Timestamp {
    /// The clock of this machine.
    #[must_use]
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// The point `milliseconds` after 1970.
    #[must_use]
    pub const fn from_millis(milliseconds: i64) -> Self {
        Self(milliseconds)
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub const fn as_millis(self) -> i64 {
        self.0
    }

    /// The point `seconds` later.
    #[must_use]
    pub fn plus_seconds(self, seconds: u32) -> Self {
        Self(self.0.saturating_add(i64::from(seconds) * 1_000))
    }

    /// The point `days` later.
    #[must_use]
    pub fn plus_days(self, days: u32) -> Self {
        Self(self.0.saturating_add(i64::from(days) * 86_400_000))
    }

    /// Whole seconds since 1970, as Stripe counts.
    #[must_use]
    pub const fn as_seconds(self) -> i64 {
        self.0.div_euclid(1_000)
    }

    /// The point `seconds` after 1970.
    #[must_use]
    pub const fn from_seconds(seconds: i64) -> Self {
        Self(seconds.saturating_mul(1_000))
    }

    /// The day in UTC, such as `24 November 2026`, for people to read.
    #[must_use]
    pub fn day(self) -> String {
        OffsetDateTime::from_unix_timestamp(self.as_seconds())
            .map(|time| format!("{} {} {}", time.day(), time.month(), time.year()))
            .unwrap_or_default()
    }

    /// Serialises as RFC 3339 in UTC, for `#[serde(serialize_with)]`.
    ///
    /// # Errors
    /// The year has more than four digits, which RFC 3339 cannot say.
    pub fn rfc3339<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let text = OffsetDateTime::from_unix_timestamp_nanos(i128::from(self.0) * 1_000_000)
            .map_err(serde::ser::Error::custom)?
            .format(&Rfc3339)
            .map_err(serde::ser::Error::custom)?;
        serializer.serialize_str(&text)
    }

    /// As [`Timestamp::rfc3339`], or null.
    ///
    /// # Errors
    /// As [`Timestamp::rfc3339`].
    pub fn rfc3339_option<S: Serializer>(time: &Option<Self>, serializer: S) -> Result<S::Ok, S::Error> {
        match time {
            Some(time) => time.rfc3339(serializer),
            None => serializer.serialize_none(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_is_counted_in_milliseconds_seconds_and_days() {
        let time = Timestamp::from_millis(-1_500);

        assert_eq!((time.as_millis(), time.as_seconds()), (-1_500, -2));
        assert_eq!(time.plus_seconds(3), Timestamp::from_millis(1_500));
        assert_eq!(time.plus_days(2), Timestamp::from_millis(172_798_500));
        assert_eq!(Timestamp::from_seconds(2), Timestamp::from_millis(2_000));
        assert_eq!(Timestamp::from_millis(i64::MAX).plus_days(1).as_millis(), i64::MAX);
    }

    #[test]
    fn people_read_the_day() {
        assert_eq!(Timestamp::from_millis(1_795_507_200_123).day(), "24 November 2026");
    }

    #[test]
    fn the_wire_shows_rfc_3339_in_utc() {
        let shown =
            |millis| Timestamp::from_millis(millis).rfc3339(serde_json::value::Serializer).map_err(drop);

        assert_eq!(shown(1_795_507_200_123), Ok("2026-11-24T08:00:00.123Z".into()));
        assert_eq!(shown(0), Ok("1970-01-01T00:00:00Z".into()));
        assert_eq!(shown(i64::MAX), Err(()));
    }
}
