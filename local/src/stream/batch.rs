//! Records on their way to a function: cut into batches, and cut again where a batch fails.
//!
//! Source: "Configuring partial batch response with DynamoDB and Lambda" in the AWS Lambda developer
//! guide; `BisectBatchOnFunctionError` and `MaximumRetryAttempts` in the Lambda API reference.

use std::collections::VecDeque;

use bytes::Bytes;
use serde::Deserialize;
use serde_json::Value;

use super::source::{Position, Sealed};
use crate::lambda::MAX_PAYLOAD;
use crate::template::StreamTrigger;

const HEAD: &str = r#"{"Records":["#;
const TAIL: &str = "]}";

/// Records that the function has not handled yet, in their order.
pub(super) struct Queue {
    records: VecDeque<Sealed>,
    /// What the first of the records have been cut into. What is not cut yet may wait for more.
    cuts: VecDeque<Cut>,
    /// The last record that left.
    left: Position,
    batch_size: usize,
    bisect: bool,
    maximum_retry_attempts: Option<u32>,
}

struct Cut {
    records: usize,
    /// How often the function failed at the first of them.
    failures: u32,
}

/// What becomes of a batch that failed.
pub(super) enum Step {
    /// It comes again, cut in two perhaps.
    Retry {
        /// How often its first record was tried.
        attempts: u32,
    },
    /// These have left.
    GiveUp { attempts: u32, records: Vec<Sealed> },
}

impl Queue {
    pub(super) fn new(trigger: &StreamTrigger) -> Self {
        Self {
            records: VecDeque::new(),
            cuts: VecDeque::new(),
            left: Position::BEGINNING,
            batch_size: trigger.batch_size,
            bisect: trigger.bisect,
            maximum_retry_attempts: trigger.maximum_retry_attempts,
        }
    }

    pub(super) fn extend(&mut self, records: impl Iterator<Item = Sealed>) {
        self.records.extend(records);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Everything up to here has left; [`Position::BEGINNING`] if nothing has.
    pub(super) fn left(&self) -> Position {
        self.left
    }

    /// Whether there is a batch: a full one, or any if `at_once`.
    pub(super) fn is_ready(&mut self, at_once: bool) -> bool {
        if !self.cuts.is_empty() {
            return true;
        }
        let mut room = MAX_PAYLOAD - HEAD.len() - TAIL.len();
        let fitting = self.records.iter().take(self.batch_size).take_while(|record| {
            // A comma each.
            let fits = room.checked_sub(record.json.len() + 1);
            room = fits.unwrap_or(room);
            fits.is_some()
        });
        // No record is larger than an event may be: an item has at most 400 KB.
        let records = fitting.count().max(1).min(self.records.len());
        let full = records == self.batch_size || records < self.records.len();
        let ready = records > 0 && (full || at_once);
        if ready {
            self.cuts.push_back(Cut { records, failures: 0 });
        }
        ready
    }

    /// The batch that comes next.
    pub(super) fn batch(&self) -> Batch {
        let records = || self.records.iter().take(self.cuts.front().map_or(0, |cut| cut.records));
        let texts: Vec<&str> = records().map(|record| &*record.json).collect();
        Batch {
            sequence_numbers: records().map(|record| record.sequence_number.clone()).collect(),
            event: format!("{HEAD}{}{TAIL}", texts.join(",")).into(),
        }
    }

    /// The batch was a success.
    pub(super) fn handled(&mut self) {
        if let Some(cut) = self.cuts.pop_front() {
            self.leave(cut.records);
        }
    }

    /// The batch failed at its record `from`; those before were a success.
    pub(super) fn failed(&mut self, from: usize) -> Step {
        self.leave(from);
        let Some(cut) = self.cuts.front_mut() else { return Step::Retry { attempts: 0 } };
        cut.records -= from;
        if from > 0 {
            // What comes first now has not failed before.
            cut.failures = 0;
        }
        let attempts = cut.failures + 1;
        // To cut a batch is not counted as an attempt.
        if self.bisect && from > 0 {
            return Step::Retry { attempts };
        }
        if self.bisect && cut.records > 1 {
            let second = Cut { records: cut.records / 2, failures: cut.failures };
            cut.records -= second.records;
            self.cuts.insert(1, second);
            return Step::Retry { attempts };
        }
        cut.failures = attempts;
        if self.maximum_retry_attempts.is_none_or(|maximum| attempts <= maximum) {
            return Step::Retry { attempts };
        }
        let records = cut.records;
        self.cuts.pop_front();
        Step::GiveUp { attempts, records: self.leave(records) }
    }

    fn leave(&mut self, records: usize) -> Vec<Sealed> {
        let leaving: Vec<_> = self.records.drain(..records).collect();
        if let Some(last) = leaving.last() {
            self.left = last.position;
        }
        leaving
    }
}

/// One event.
pub(super) struct Batch {
    sequence_numbers: Vec<String>,
    event: Bytes,
}

/// A batch failed.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Failure {
    /// At which of its records.
    pub(super) from: usize,
    /// How many records of it are left.
    left: usize,
    pub(super) reason: String,
}

impl Failure {
    /// How many records are left, in words.
    pub(super) fn records(&self) -> String {
        match self.left {
            1 => "1 record".to_owned(),
            number => format!("{number} records"),
        }
    }
}

/// `StreamsEventResponse`.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    batch_item_failures: Option<Vec<ItemFailure>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ItemFailure {
    item_identifier: String,
}

impl Batch {
    pub(super) fn event(&self) -> Bytes {
        self.event.clone()
    }

    /// The whole batch failed.
    pub(super) fn failed(&self, reason: String) -> Failure {
        Failure { from: 0, left: self.sequence_numbers.len(), reason }
    }

    /// What the function reports of the batch.
    pub(super) fn outcome(&self, answer: &[u8]) -> Result<(), Failure> {
        let malformed = || self.failed("the response is not one of `batchItemFailures`".to_owned());
        if answer.is_empty() {
            return Ok(());
        }
        let failures = match serde_json::from_slice(answer) {
            Ok(Value::Null) => return Ok(()),
            Ok(answer @ Value::Object(_)) => serde_json::from_value::<Answer>(answer),
            Ok(_) | Err(_) => return Err(malformed()),
        };
        let failures = failures.map_err(|_unexpected| malformed())?.batch_item_failures.unwrap_or_default();
        let places: Option<Vec<_>> = failures
            .iter()
            .map(|failure| self.sequence_numbers.iter().position(|known| *known == failure.item_identifier))
            .collect();
        let places = places.ok_or_else(|| {
            self.failed("the response reports a sequence number that the batch does not have".to_owned())
        })?;
        let Some(from) = places.iter().min().copied() else { return Ok(()) };
        let reason = "the function reports it".to_owned();
        Err(Failure { from, left: self.sequence_numbers.len() - from, reason })
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::template::StartingPosition;

    fn number(index: usize) -> String {
        format!("1000000000000000000{index:02}")
    }

    fn record(index: usize) -> Sealed {
        let sequence_number = number(index);
        Sealed {
            position: Position::after(&sequence_number).unwrap(),
            sequence_number,
            created: 0,
            json: index.to_string(),
        }
    }

    fn queue(records: usize, batch_size: usize, bisect: bool, retries: Option<u32>) -> Queue {
        let mut queue = Queue::new(&StreamTrigger {
            id: String::new(),
            arn: String::new(),
            table: String::new(),
            starting_position: StartingPosition::TrimHorizon,
            batch_size,
            batching_window: Duration::ZERO,
            maximum_retry_attempts: retries,
            bisect,
            reports_item_failures: true,
            filters: Vec::new(),
            on_failure: None,
        });
        queue.extend((0..records).map(record));
        queue
    }

    /// The records of the next batch.
    fn next(queue: &mut Queue) -> String {
        assert!(queue.is_ready(true));
        String::from_utf8(queue.batch().event().to_vec()).unwrap()
    }

    #[test]
    fn a_batch_has_no_more_records_than_its_size_and_than_an_event_may() {
        let mut queue = queue(5, 2, false, None);
        assert_eq!(next(&mut queue), r#"{"Records":[0,1]}"#);
        queue.handled();
        assert_eq!(next(&mut queue), r#"{"Records":[2,3]}"#);
        queue.handled();
        assert_eq!(queue.left(), Position::after(&number(3)).unwrap());
        assert!(!queue.is_ready(false), "it waits to be full");
        assert_eq!(next(&mut queue), r#"{"Records":[4]}"#);
        queue.handled();
        assert!(!queue.is_ready(true));

        let large = |index| Sealed { json: "x".repeat(800_000), ..record(index) };
        queue.batch_size = 100;
        queue.extend((0..10).map(large));
        assert!(queue.is_ready(false), "no more would fit");
        let batch = queue.batch();
        assert_eq!(batch.sequence_numbers.len(), 7);
        assert!(batch.event().len() <= MAX_PAYLOAD);
    }

    fn outcome(answer: &str) -> Result<(), usize> {
        let mut queue = queue(3, 3, false, None);
        assert!(queue.is_ready(false));
        queue.batch().outcome(answer.as_bytes()).map_err(|failure| failure.from)
    }

    #[test]
    fn an_answer_says_from_where_on_the_batch_failed() {
        for answer in ["", "null", "{}", r#"{"batchItemFailures":[]}"#, r#"{"batchItemFailures":null}"#] {
            assert_eq!(outcome(answer), Ok(()), "{answer}");
        }
        let failures = |indexes: &[usize]| {
            let failures =
                indexes.iter().map(|index| serde_json::json!({ "itemIdentifier": number(*index) }));
            serde_json::json!({ "batchItemFailures": failures.collect::<Vec<_>>() }).to_string()
        };
        assert_eq!(outcome(&failures(&[1])), Err(1));
        assert_eq!(outcome(&failures(&[2, 1])), Err(1));
        assert_eq!(outcome(&failures(&[0, 1, 2])), Err(0));
        for malformed in [
            "no JSON",
            "[]",
            "\"text\"",
            "0",
            r#"{"batchItemFailures":"all"}"#,
            r#"{"batchItemFailures":[{}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":null}]}"#,
            r#"{"batchItemFailures":[{"itemIdentifier":""}]}"#,
            &failures(&[1, 7]),
        ] {
            assert_eq!(outcome(malformed), Err(0), "{malformed}");
        }
    }

    #[test]
    fn what_failed_comes_again_until_its_retries_are_used_up() {
        let mut queue = queue(3, 2, false, Some(1));
        assert_eq!(next(&mut queue), r#"{"Records":[0,1]}"#);
        assert!(matches!(queue.failed(0), Step::Retry { attempts: 1 }));
        assert_eq!(next(&mut queue), r#"{"Records":[0,1]}"#);
        // The second record has its own retries.
        assert!(matches!(queue.failed(1), Step::Retry { attempts: 1 }));
        assert_eq!(queue.left(), Position::after(&number(0)).unwrap());
        assert_eq!(next(&mut queue), r#"{"Records":[1]}"#);
        let Step::GiveUp { attempts: 2, records } = queue.failed(0) else { panic!("it comes again") };
        assert_eq!(records.len(), 1);
        assert_eq!(records[0].sequence_number, number(1));
        assert_eq!(next(&mut queue), r#"{"Records":[2]}"#);
    }

    #[test]
    fn a_bisected_batch_ends_with_the_one_record_that_fails() {
        let mut queue = queue(5, 5, true, Some(0));
        let mut events = Vec::new();
        let mut dead = Vec::new();
        while queue.is_ready(true) {
            let event = next(&mut queue);
            if event.contains('3') {
                if let Step::GiveUp { records, .. } = queue.failed(0) {
                    dead.extend(records.into_iter().map(|record| record.json));
                }
            } else {
                queue.handled();
            }
            events.push(event.replace(HEAD, "").replace(TAIL, ""));
        }
        assert_eq!(events, ["0,1,2,3,4", "0,1,2", "3,4", "3", "4"]);
        assert_eq!(dead, ["3"]);
        assert!(queue.is_empty());
    }

    proptest! {
        #[test]
        fn every_record_leaves_once_and_in_order_whatever_fails(
            records in 0..20_usize, batch_size in 1..8_usize, bisect: bool, retries in 0..3_u32,
            failures in prop::collection::vec(prop::option::of(0..8_usize), 0..60),
        ) {
            let mut queue = queue(records, batch_size, bisect, Some(retries));
            let mut failures = failures.into_iter();
            let mut left = Position::BEGINNING;
            let mut handled = 0;
            while queue.is_ready(true) {
                let batch = queue.batch();
                let size = batch.sequence_numbers.len();
                prop_assert!((1..=batch_size).contains(&size));
                prop_assert_eq!(&batch.sequence_numbers[0], &number(handled));
                match failures.next().flatten() {
                    Some(from) if from < size => {
                        handled += from;
                        if let Step::GiveUp { records, .. } = queue.failed(from) {
                            handled += records.len();
                        }
                    }
                    _ => {
                        handled += size;
                        queue.handled();
                    }
                }
                prop_assert!(queue.left() >= left);
                left = queue.left();
            }
            prop_assert_eq!(handled, records);
        }
    }
}
