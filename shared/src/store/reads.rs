//! Reads. All are strongly consistent: nobody acts on a role that is gone.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::{
    error::{ProvideErrorMetadata, SdkError},
    types::{AttributeValue, KeysAndAttributes, ReturnConsumedCapacity},
};

use futures_util::stream::{self, StreamExt, TryStreamExt};

use super::{
    Store, StoreError,
    items::Item,
    keys::Key,
    store_error,
    transaction::jitter,
    usage::{self, Kind},
};

/// The most keys that one `BatchGetItem` takes.
const BATCH: usize = 100;

/// How many batches are under way at a time, each over a connection of its own: docs/performance.md has what that
/// gives.
const BATCHES_AT_ONCE: usize = 4;

/// How often a batch that came back incomplete is completed before giving up.
const BATCH_ATTEMPTS: u32 = 6;

impl Store {
    /// Opens the connection, so that the first request need not. Failing costs that request the time
    /// that this would have saved, and nothing else.
    pub async fn connect(&self) {
        if let Err(error) = self.get(&Key::nothing()).await {
            tracing::warn!(error = %error, "the table could not be reached at start");
        }
    }

    pub(super) async fn get(&self, key: &Key) -> Result<Option<Item>, StoreError> {
        let output = self
            .client
            .get_item()
            .table_name(&self.table)
            .set_key(Some(key.attributes()))
            .consistent_read(true)
            .return_consumed_capacity(ReturnConsumedCapacity::Total)
            .send()
            .await
            .map_err(|error| failed(&error))?;
        usage::record(Kind::Read, output.consumed_capacity());
        Ok(output.item)
    }

    /// The rows of `keys` that exist. A call takes up to 100 keys; a few calls are under way at a time.
    pub(super) async fn batch_get(&self, keys: &[Key]) -> Result<HashMap<Key, Item>, StoreError> {
        // Collected first: the compiler does not see that a stream that makes them can be sent between threads.
        let batches: Vec<_> = keys.chunks(BATCH).map(|chunk| self.batch(chunk)).collect();
        let mut batches = stream::iter(batches).buffer_unordered(BATCHES_AT_ONCE);
        let mut found = HashMap::with_capacity(keys.len());
        while let Some(batch) = batches.try_next().await? {
            found.extend(batch);
        }
        Ok(found)
    }

    /// The rows of up to 100 `keys` that exist.
    async fn batch(&self, keys: &[Key]) -> Result<Vec<(Key, Item)>, StoreError> {
        let mut found = Vec::with_capacity(keys.len());
        let mut wanted = keys.iter().map(Key::attributes).collect::<Vec<_>>();
        for attempt in 0..BATCH_ATTEMPTS {
            if attempt > 0 {
                tokio::time::sleep(jitter(attempt, Duration::from_millis(20))?).await;
            }
            let request = KeysAndAttributes::builder()
                .set_keys(Some(wanted))
                .consistent_read(true)
                .build()
                .map_err(|error| StoreError::Row(error.to_string()))?;
            let output = self
                .client
                .batch_get_item()
                .request_items(&self.table, request)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await
                .map_err(|error| failed(&error))?;
            usage::record(Kind::Read, output.consumed_capacity());
            for item in output.responses.into_iter().flatten().flat_map(|(_, items)| items) {
                found.push((key_of(&item)?, item));
            }
            // What does not fit into 16 MB, or was throttled, comes back to be asked for again.
            wanted = output.unprocessed_keys.into_iter().flatten().flat_map(|(_, rest)| rest.keys).collect();
            if wanted.is_empty() {
                return Ok(found);
            }
        }
        Err(StoreError::Unavailable("it left part of a batch undone".to_owned()))
    }

    /// All rows under `pk`, in order; with a `prefix`, those whose sort key begins with it.
    pub(super) async fn query(&self, pk: &str, prefix: Option<&str>) -> Result<Vec<Item>, StoreError> {
        let condition = if prefix.is_some() { "pk = :pk AND begins_with(sk, :prefix)" } else { "pk = :pk" };
        let values = [(":pk", Some(pk)), (":prefix", prefix)]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), AttributeValue::S(value?.to_owned()))))
            .collect::<HashMap<_, _>>();
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let output = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression(condition)
                .set_expression_attribute_values(Some(values.clone()))
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await
                .map_err(|error| failed(&error))?;
            usage::record(Kind::Read, output.consumed_capacity());
            items.extend(output.items.unwrap_or_default());
            start = output.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }
}

/// Counts a call that failed: it took its time all the same.
fn failed<E>(error: &SdkError<E>) -> StoreError
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    usage::record(Kind::Read, []);
    store_error(error)
}

pub(super) fn key_of(item: &Item) -> Result<Key, StoreError> {
    match (item.get("pk"), item.get("sk")) {
        (Some(AttributeValue::S(pk)), Some(AttributeValue::S(sk))) => {
            Ok(Key { pk: pk.clone(), sk: sk.clone() })
        }
        _ => Err(StoreError::Row("a row without key".to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::store::{measured, scripted::Table};

    fn key(number: usize) -> Key {
        Key { pk: number.to_string(), sk: "x".to_owned() }
    }

    fn row(number: usize) -> Value {
        json!({ "pk": { "S": number.to_string() }, "sk": { "S": "x" } })
    }

    fn rows(numbers: impl Iterator<Item = usize>) -> Value {
        numbers.map(row).collect()
    }

    fn answer(found: &Value, left: &Value) -> (u16, Value) {
        let unprocessed = match left.as_array() {
            Some(keys) if !keys.is_empty() => json!({ "Table": { "Keys": keys } }),
            _ => json!({}),
        };
        let capacity = json!([{ "TableName": "Table", "CapacityUnits": 2.0 }]);
        let body = json!({
            "Responses": { "Table": found }, "UnprocessedKeys": unprocessed, "ConsumedCapacity": capacity,
        });
        (200, body)
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_batch_leaves_undone_is_asked_for_again() {
        let table = Table::answering([
            answer(&rows(0..1), &rows(1..3)),
            answer(&json!([]), &rows(1..3)),
            // In any order, and without a row that does not exist.
            answer(&rows(2..3), &json!([])),
        ]);

        let (found, usage) = measured(table.store().batch_get(&[key(0), key(1), key(2)])).await;

        let mut found: Vec<_> = found.unwrap().into_keys().collect();
        found.sort();
        assert_eq!(found, [key(0), key(2)]);
        assert_eq!((usage.calls, usage.read_units), (3, 6.0));
        let asked: Vec<_> = table.calls().iter().map(|call| call["RequestItems"]["Table"].clone()).collect();
        assert!(asked.iter().all(|request| request["ConsistentRead"] == true));
        assert_eq!(asked[2]["Keys"], rows(1..3));
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_is_never_done_is_given_up_as_unavailable() {
        let table = Table::answering((0..6).map(|_| answer(&json!([]), &rows(0..1))));

        let outcome = table.store().batch_get(&[key(0)]).await;

        assert!(matches!(outcome, Err(StoreError::Unavailable(_))), "{outcome:?}");
        assert_eq!(table.calls().len(), 6);
    }

    #[tokio::test]
    async fn many_keys_are_asked_for_a_hundred_at_a_time() {
        let table =
            Table::answering([answer(&rows(0..100), &json!([])), answer(&rows(100..150), &json!([]))]);
        let keys: Vec<_> = (0..150).map(key).collect();

        assert_eq!(table.store().batch_get(&keys).await.unwrap().len(), 150);
        assert_eq!(table.calls()[1]["RequestItems"]["Table"]["Keys"], rows(100..150));
    }

    #[tokio::test]
    async fn a_batch_that_fails_fails_the_whole() {
        let refused = (400, json!({ "__type": "ValidationException", "message": "no" }));
        let table = Table::answering([answer(&rows(0..100), &json!([])), refused]);
        let keys: Vec<_> = (0..150).map(key).collect();

        let outcome = table.store().batch_get(&keys).await;

        assert!(matches!(outcome, Err(StoreError::Refused(_))), "{outcome:?}");
    }

    #[tokio::test]
    async fn a_query_reads_to_its_last_page() {
        let table = Table::answering([
            (200, json!({ "Items": rows(0..2), "LastEvaluatedKey": row(1) })),
            (200, json!({ "Items": rows(2..3) })),
        ]);

        assert_eq!(table.store().query("pk", Some("x")).await.unwrap().len(), 3);
        assert_eq!(table.calls()[1]["ExclusiveStartKey"], row(1));
        assert!(table.calls().iter().all(|call| call["ConsistentRead"] == true));
    }
}
