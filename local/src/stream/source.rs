//! The stream of a table, as the embedded database gives it.

use dynoxide::actions::describe_stream::DescribeStreamRequest;
use dynoxide::actions::get_records::{self, GetRecordsRequest};
use dynoxide::actions::get_shard_iterator::GetShardIteratorRequest;
use dynoxide::errors::DynoxideError;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::StreamError;
use crate::database::Handle;
use crate::template::{REGION, StartingPosition, StreamTrigger};

/// Records of one read.
const LIMIT: usize = 1000;

/// How far a stream has been read: before its first record, or after the one with a sequence number.
///
/// In JSON null, or the sequence number as text.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Position(Option<u128>);

impl Position {
    pub(super) const BEGINNING: Self = Self(None);

    /// After the record with this sequence number.
    pub(super) fn after(sequence_number: &str) -> Option<Self> {
        sequence_number.parse().ok().map(Some).map(Self)
    }
}

impl Serialize for Position {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.0.map(|number| number.to_string()).serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Position {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let Some(text) = Option::<String>::deserialize(deserializer)? else { return Ok(Self::BEGINNING) };
        Self::after(&text).ok_or_else(|| serde::de::Error::custom(format!("`{text}` is no sequence number")))
    }
}

/// The one shard of a stream.
#[derive(Clone)]
pub(super) struct Shard {
    database: Handle,
    table: String,
    /// ARN of the stream, as functions see it. The engine finds the table in it.
    stream: String,
    id: String,
}

impl Shard {
    pub(super) async fn open(database: Handle, trigger: &StreamTrigger) -> Result<Self, StreamError> {
        let mut shard =
            Self { database, table: trigger.table.clone(), stream: trigger.arn.clone(), id: String::new() };
        (shard.id, _) = shard.describe().await?;
        Ok(shard)
    }

    pub(super) fn table(&self) -> &str {
        &self.table
    }

    /// The position after the last record there is.
    pub(super) async fn end(&self) -> Result<Position, StreamError> {
        let (_, end) = self.describe().await?;
        Ok(end)
    }

    /// Where a new trigger begins.
    pub(super) async fn start(&self, starting_position: StartingPosition) -> Result<Position, StreamError> {
        match starting_position {
            StartingPosition::TrimHorizon => Ok(Position::BEGINNING),
            StartingPosition::Latest => self.end().await,
        }
    }

    /// The records after `position`.
    pub(super) async fn source(&self, position: Position) -> Result<Source, StreamError> {
        let request = GetShardIteratorRequest {
            stream_arn: self.stream.clone(),
            shard_id: self.id.clone(),
            shard_iterator_type: match position.0 {
                Some(_) => "AFTER_SEQUENCE_NUMBER",
                None => "TRIM_HORIZON",
            }
            .to_owned(),
            sequence_number: position.0.map(|number| number.to_string()),
        };
        let iterator = self.ask(move |engine| engine.get_shard_iterator(request)).await?;
        Ok(Source { shard: self.clone(), position, iterator: iterator.shard_iterator.unwrap_or_default() })
    }

    /// The shard's id, and the position after its last record.
    async fn describe(&self) -> Result<(String, Position), StreamError> {
        let request = DescribeStreamRequest { stream_arn: self.stream.clone(), ..Default::default() };
        let described = self.ask(move |engine| engine.describe_stream(request)).await?;
        let shard = described.stream_description.shards.into_iter().next().unwrap_or_default();
        let end = shard.sequence_number_range.ending_sequence_number;
        Ok((shard.shard_id, end.as_deref().and_then(Position::after).unwrap_or(Position::BEGINNING)))
    }

    async fn ask<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dynoxide::Database) -> Result<T, DynoxideError> + Send + 'static,
    ) -> Result<T, StreamError> {
        let table = || self.table.clone();
        let answer =
            self.database.call(question).await.ok_or_else(|| StreamError::Gone { table: table() })?;
        answer.map_err(|source| StreamError::Read { table: table(), source })
    }
}

/// Reads a shard from a position on.
pub(super) struct Source {
    shard: Shard,
    position: Position,
    iterator: String,
}

impl Source {
    /// Everything up to here has been read.
    pub(super) fn position(&self) -> Position {
        self.position
    }

    pub(super) fn shard_id(&self) -> &str {
        &self.shard.id
    }

    /// The next records, none if there are none yet. A read that is broken off has read nothing.
    pub(super) async fn read(&mut self) -> Result<Vec<Record>, StreamError> {
        let request = GetRecordsRequest { shard_iterator: self.iterator.clone(), limit: Some(LIMIT) };
        let read = self.shard.ask(move |engine| engine.get_records(request)).await?;
        let records: Vec<_> =
            read.records.into_iter().filter_map(|record| Record::of(record, &self.shard.stream)).collect();
        if let Some(last) = records.last() {
            self.position = last.position;
        }
        if let Some(next) = read.next_shard_iterator {
            self.iterator = next;
        }
        Ok(records)
    }
}

/// A record of the stream.
pub(super) struct Record {
    position: Position,
    sequence_number: String,
    /// When the change was made, in seconds since 1970.
    created: i64,
    /// As functions get it.
    value: Value,
}

impl Record {
    /// The engine's record in AWS's form. The engine's numbers and images always convert.
    fn of(mut record: get_records::Record, stream: &str) -> Option<Self> {
        REGION.clone_into(&mut record.aws_region);
        let sequence_number = record.dynamodb.sequence_number.clone();
        let mut value = serde_json::to_value(record).ok()?;
        // Whole seconds.
        let created = value.pointer_mut("/dynamodb/ApproximateCreationDateTime")?;
        let seconds =
            OffsetDateTime::UNIX_EPOCH.checked_add(time::Duration::seconds_f64(created.as_f64()?))?;
        let seconds = seconds.unix_timestamp();
        *created = seconds.into();
        value.as_object_mut()?.insert("eventSourceARN".to_owned(), stream.into());
        Some(Self { position: Position::after(&sequence_number)?, sequence_number, created: seconds, value })
    }

    /// As functions get it.
    pub(super) fn value(&self) -> &Value {
        &self.value
    }

    /// Whether the item is another one after the change: `DynamoDB` does not tell of writes that change
    /// nothing.
    pub(super) fn is_change(&self) -> bool {
        let image = |name: &str| self.value.get("dynamodb").and_then(|record| record.get(name));
        let (old, new) = (image("OldImage"), image("NewImage"));
        old.is_none() || old != new
    }

    pub(super) fn seal(self) -> Sealed {
        let Self { position, sequence_number, created, value } = self;
        Sealed { position, sequence_number, created, json: value.to_string() }
    }
}

/// A record, ready to be sent.
pub(super) struct Sealed {
    pub(super) position: Position,
    pub(super) sequence_number: String,
    pub(super) created: i64,
    pub(super) json: String,
}

impl Sealed {
    /// When the change was made.
    pub(super) fn arrival(&self) -> String {
        OffsetDateTime::from_unix_timestamp(self.created).map(rfc3339).unwrap_or_default()
    }
}

pub(super) fn rfc3339(time: OffsetDateTime) -> String {
    time.format(&Rfc3339).unwrap_or_default()
}
