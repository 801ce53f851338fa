//! Reads. All are strongly consistent: nobody acts on a role that is gone.

use std::{collections::HashMap, time::Duration};

use aws_sdk_dynamodb::types::{AttributeValue, KeysAndAttributes, ReturnConsumedCapacity};

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
            .map_err(|error| store_error(&error))?;
        usage::record(Kind::Read, output.consumed_capacity());
        Ok(output.item)
    }

    /// The rows of `keys` that exist. Calls of up to 100 keys run one after another.
    pub(super) async fn batch_get(&self, keys: &[Key]) -> Result<HashMap<Key, Item>, StoreError> {
        let mut found = HashMap::with_capacity(keys.len());
        for chunk in keys.chunks(BATCH) {
            let mut wanted = chunk.iter().map(Key::attributes).collect::<Vec<_>>();
            for attempt in 0.. {
                if attempt == BATCH_ATTEMPTS {
                    return Err(StoreError::Unavailable("it left part of a batch undone".to_owned()));
                }
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
                    .map_err(|error| store_error(&error))?;
                usage::record(Kind::Read, output.consumed_capacity());
                for item in output.responses.into_iter().flatten().flat_map(|(_, items)| items) {
                    found.insert(key_of(&item)?, item);
                }
                // What does not fit into 16 MB, or was throttled, comes back to be asked for again.
                wanted =
                    output.unprocessed_keys.into_iter().flatten().flat_map(|(_, rest)| rest.keys).collect();
                if wanted.is_empty() {
                    break;
                }
            }
        }
        Ok(found)
    }

    /// All rows under `pk` whose sort key begins with `prefix`, in order.
    pub(super) async fn query(&self, pk: &str, prefix: &str) -> Result<Vec<Item>, StoreError> {
        let mut items = Vec::new();
        let mut start = None;
        loop {
            let output = self
                .client
                .query()
                .table_name(&self.table)
                .key_condition_expression("pk = :pk AND begins_with(sk, :prefix)")
                .expression_attribute_values(":pk", AttributeValue::S(pk.to_owned()))
                .expression_attribute_values(":prefix", AttributeValue::S(prefix.to_owned()))
                .consistent_read(true)
                .set_exclusive_start_key(start)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await
                .map_err(|error| store_error(&error))?;
            usage::record(Kind::Read, output.consumed_capacity());
            items.extend(output.items.unwrap_or_default());
            start = output.last_evaluated_key;
            if start.is_none() {
                return Ok(items);
            }
        }
    }
}

fn key_of(item: &Item) -> Result<Key, StoreError> {
    match (item.get("pk"), item.get("sk")) {
        (Some(AttributeValue::S(pk)), Some(AttributeValue::S(sk))) => {
            Ok(Key { pk: pk.clone(), sk: sk.clone() })
        }
        _ => Err(StoreError::Row("a row without key".to_owned())),
    }
}
