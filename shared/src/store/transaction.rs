//! Changes: one `TransactWriteItems` each, in which every write carries its guard and the refusal
//! that it means.
//!
//! DynamoDB reports which guards failed by position. The first failed guard decides, so the order
//! of the writes is the order of the refusals.

#[cfg(debug_assertions)]
mod guards;

use std::{
    collections::{BTreeSet, HashMap},
    time::Duration,
};

use aws_sdk_dynamodb::{
    operation::transact_write_items::TransactWriteItemsError,
    types::{
        AttributeValue, CancellationReason, ConditionCheck, Delete, Put, ReturnConsumedCapacity,
        ReturnValuesOnConditionCheckFailure, TransactWriteItem, Update,
    },
};

use tokio::time::Instant;

use super::{
    Store, StoreError,
    items::{Item, Row, to_item},
    keys::Key,
    store_error,
    usage::{self, Kind},
};
use crate::domain::UserId;

#[cfg(debug_assertions)]
pub use guards::{Guard, Guards};

/// How often a transaction that met another one, or was throttled in part, is sent in all. With the
/// waits of [`jitter`] that is about a second.
const ATTEMPTS: u32 = 6;

/// No further try after this: who waits gets a 503 well within a function's timeout.
const PATIENCE: Duration = Duration::from_secs(3);

/// The wait that the first retry stays below.
const FIRST_WAIT: Duration = Duration::from_millis(25);

/// The codes, of a call or of one part of a transaction, after which the same call may succeed.
pub(super) fn is_transient(code: &str) -> bool {
    matches!(
        code.trim_end_matches("Exception"),
        "TransactionConflict"
            | "TransactionInProgress"
            | "ThrottlingError"
            | "Throttling"
            | "ProvisionedThroughputExceeded"
            | "RequestLimitExceeded"
            | "LimitExceeded"
            | "InternalServerError"
            | "ServiceUnavailable"
    )
}

/// A random wait below `first * 2^(attempt - 1)`: racers that met once spread out ("full jitter").
pub(super) fn jitter(attempt: u32, first: Duration) -> Result<Duration, StoreError> {
    let mut random = [0_u8; 4];
    getrandom::fill(&mut random)?;
    let most = first.saturating_mul(1 << attempt.saturating_sub(1).min(5));
    Ok(most.mul_f64(f64::from(u32::from_le_bytes(random)) / f64::from(u32::MAX)))
}

/// One write and its guard. Attribute names in the expressions are written `#name`, since many are
/// reserved words; each stands for the attribute `name`.
#[derive(Debug)]
pub(super) struct Write {
    kind: WriteKind,
    conditions: Vec<String>,
    values: HashMap<String, AttributeValue>,
}

#[derive(Debug)]
enum WriteKind {
    Put(Result<Item, StoreError>),
    Update(Key, String),
    Delete(Key),
    Check(Key),
}

impl Write {
    fn new(kind: WriteKind) -> Self {
        Self { kind, conditions: Vec::new(), values: HashMap::new() }
    }

    /// Puts a row, whatever is there.
    pub(super) fn put<R: Row>(row: &R) -> Self {
        Self::new(WriteKind::Put(to_item(row)))
    }

    /// Puts a row that must not be there yet.
    pub(super) fn put_new<R: Row>(row: &R) -> Self {
        Self::put(row).when("attribute_not_exists(#pk)")
    }

    /// Changes the row of `key` by `expression`.
    pub(super) fn update(key: Key, expression: impl Into<String>) -> Self {
        Self::new(WriteKind::Update(key, expression.into()))
    }

    /// Gives fields of the row of `key` these values, or takes away those without; in conditions and
    /// further values, `:field` is the new value of `field`.
    pub(super) fn set<'f>(key: Key, fields: impl IntoIterator<Item = (&'f str, Option<Value>)>) -> Self {
        let (mut sets, mut removes, mut values) = (Vec::new(), Vec::new(), Vec::new());
        for (name, value) in fields {
            match value {
                Some(value) => {
                    sets.push(format!("#{name} = :{name}"));
                    values.push((format!(":{name}"), value));
                }
                None => removes.push(format!("#{name}")),
            }
        }
        let clause = |verb: &str, parts: &[String]| match parts {
            [] => String::new(),
            parts => format!("{verb} {} ", parts.join(", ")),
        };
        let write = Self::update(key, clause("SET", &sets) + &clause("REMOVE", &removes));
        values.into_iter().fold(write, |write, (name, value)| write.value(&name, value))
    }

    /// Deletes the row of `key`.
    pub(super) fn delete(key: Key) -> Self {
        Self::new(WriteKind::Delete(key))
    }

    /// Changes nothing: the row of `key` only has to be as [`Write::when`] says.
    pub(super) fn check(key: Key) -> Self {
        Self::new(WriteKind::Check(key))
    }

    /// Only when `condition` holds, beside those that were given before: each call is one guard. One that
    /// says `OR` is in parentheses.
    pub(super) fn when(mut self, condition: impl Into<String>) -> Self {
        self.conditions.push(condition.into());
        self
    }

    /// Only when the row, a bucket's, is there and the bucket was not deleted.
    pub(super) fn live(self) -> Self {
        self.when("attribute_exists(#pk)").not_deleted()
    }

    /// Only when the bucket of the row was not deleted, where another condition needs the row.
    pub(super) fn not_deleted(self) -> Self {
        self.when("attribute_not_exists(#deleted_at)")
    }

    /// Only when the bucket of the row is `me`'s.
    pub(super) fn owned_by(self, me: &UserId) -> Self {
        self.when("#owner_id = :me").value(":me", me.as_str())
    }

    /// Only when the row still has the `version` that was read. Every change of what a bucket's row says
    /// but its counts makes another one, its deletion included.
    pub(super) fn at_version(self, version: u32) -> Self {
        self.when("#version = :version_as_read").value(":version_as_read", version)
    }

    /// What `name` (with its colon) stands for.
    pub(super) fn value(mut self, name: &str, value: impl Into<Value>) -> Self {
        let Value(value) = value.into();
        self.values.insert(name.to_owned(), value);
        self
    }

    fn into_item(self, table: &str) -> Result<TransactWriteItem, StoreError> {
        let Self { kind, conditions, values } = self;
        let condition = (!conditions.is_empty()).then(|| conditions.join(" AND "));
        let update = match &kind {
            WriteKind::Update(_, expression) => expression.as_str(),
            WriteKind::Put(_) | WriteKind::Delete(_) | WriteKind::Check(_) => "",
        };
        let names = names_in(&[update, condition.as_deref().unwrap_or_default()]);
        let names = (!names.is_empty()).then_some(names);
        let values = (!values.is_empty()).then_some(values);
        let old = ReturnValuesOnConditionCheckFailure::AllOld;
        let builder = TransactWriteItem::builder();
        let built = match kind {
            WriteKind::Put(item) => Put::builder()
                .table_name(table)
                .set_item(Some(item?))
                .set_condition_expression(condition)
                .set_expression_attribute_names(names)
                .set_expression_attribute_values(values)
                .return_values_on_condition_check_failure(old)
                .build()
                .map(|put| builder.put(put)),
            WriteKind::Update(key, expression) => Update::builder()
                .table_name(table)
                .set_key(Some(key.attributes()))
                .update_expression(expression)
                .set_condition_expression(condition)
                .set_expression_attribute_names(names)
                .set_expression_attribute_values(values)
                .return_values_on_condition_check_failure(old)
                .build()
                .map(|update| builder.update(update)),
            WriteKind::Delete(key) => Delete::builder()
                .table_name(table)
                .set_key(Some(key.attributes()))
                .set_condition_expression(condition)
                .set_expression_attribute_names(names)
                .set_expression_attribute_values(values)
                .return_values_on_condition_check_failure(old)
                .build()
                .map(|delete| builder.delete(delete)),
            WriteKind::Check(key) => ConditionCheck::builder()
                .table_name(table)
                .set_key(Some(key.attributes()))
                .set_condition_expression(condition)
                .set_expression_attribute_names(names)
                .set_expression_attribute_values(values)
                .return_values_on_condition_check_failure(old)
                .build()
                .map(|check| builder.condition_check(check)),
        };
        Ok(built.map_err(|error| StoreError::Row(error.to_string()))?.build())
    }
}

/// A value in an expression.
#[derive(Debug)]
pub(super) struct Value(AttributeValue);

impl From<&str> for Value {
    fn from(text: &str) -> Self {
        Self(AttributeValue::S(text.to_owned()))
    }
}

impl From<u32> for Value {
    fn from(number: u32) -> Self {
        Self(AttributeValue::N(number.to_string()))
    }
}

impl From<bool> for Value {
    fn from(flag: bool) -> Self {
        Self(AttributeValue::Bool(flag))
    }
}

impl From<i32> for Value {
    fn from(number: i32) -> Self {
        Self(AttributeValue::N(number.to_string()))
    }
}

/// A set of texts, of which there is at least one.
impl From<&BTreeSet<String>> for Value {
    fn from(texts: &BTreeSet<String>) -> Self {
        Self(AttributeValue::Ss(texts.iter().cloned().collect()))
    }
}

impl From<crate::domain::Timestamp> for Value {
    fn from(time: crate::domain::Timestamp) -> Self {
        Self(AttributeValue::N(time.as_millis().to_string()))
    }
}

/// The `#names` in `expressions`, each standing for itself.
fn names_in(expressions: &[&str]) -> HashMap<String, String> {
    expressions
        .iter()
        .flat_map(|expression| expression.split('#').skip(1))
        .map(|rest| rest.split(|c: char| !c.is_ascii_alphanumeric() && c != '_').next().unwrap_or_default())
        .map(|name| (format!("#{name}"), name.to_owned()))
        .collect()
}

/// What a failed guard means: always the same, or told by the row as it was.
enum Refusal<E> {
    Is(E),
    ToldBy(Box<dyn FnOnce(Option<Item>) -> E + Send>),
    Impossible,
}

/// Why a change did not happen whose refusals never leave the store.
pub(super) enum Refused<R> {
    /// A guard failed that means `R`.
    By(R),
    /// The table failed.
    Store(StoreError),
}

impl<R> From<StoreError> for Refused<R> {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

/// A change that is being put together.
pub(super) struct Transaction<'s, E> {
    store: &'s Store,
    change: &'static str,
    writes: Vec<(Write, Refusal<E>)>,
}

impl Store {
    /// Begins the change that is called `change` in logs and in `docs/guards.md`.
    pub(super) fn transaction<E: From<StoreError>>(&self, change: &'static str) -> Transaction<'_, E> {
        Transaction { store: self, change, writes: Vec::new() }
    }

    /// Commits `write` alone, as [`Store::transaction`]. Tells whether it was done: false where its guard
    /// failed.
    pub(super) async fn write_if(&self, change: &'static str, write: Write) -> Result<bool, StoreError> {
        struct Guard;
        match self.transaction(change).guarded(write, Refused::By(Guard)).commit().await {
            Ok(()) => Ok(true),
            Err(Refused::By(Guard)) => Ok(false),
            Err(Refused::Store(error)) => Err(error),
        }
    }
}

impl<E: From<StoreError>> Transaction<'_, E> {
    /// Adds `write`, whose guard failing means `refusal`.
    pub(super) fn guarded(mut self, write: Write, refusal: E) -> Self {
        self.writes.push((write, Refusal::Is(refusal)));
        self
    }

    /// Adds `write`, whose guard failing means what `refusal` reads in the row as it was (`None`
    /// where there was none). For a guard with several reasons to fail.
    pub(super) fn guarded_by(
        mut self,
        write: Write,
        refusal: impl FnOnce(Option<Item>) -> E + Send + 'static,
    ) -> Self {
        self.writes.push((write, Refusal::ToldBy(Box::new(refusal))));
        self
    }

    /// Adds `write`, which has no guard of its own: it happens if all the others may.
    pub(super) fn with(mut self, write: Write) -> Self {
        self.writes.push((write, Refusal::Impossible));
        self
    }

    /// Commits all writes, or none.
    ///
    /// # Errors
    /// The refusal of the first write whose guard failed, or a [`StoreError`]. After
    /// [`StoreError::Unavailable`] for a lost answer the change may have happened.
    pub(super) async fn commit(self) -> Result<(), E> {
        let Self { store, change, writes } = self;
        let (writes, refusals): (Vec<_>, Vec<_>) = writes.into_iter().unzip();
        #[cfg(debug_assertions)]
        let writes = match &store.guards {
            Some(guards) => guards.left_in(change, writes),
            None => writes,
        };
        let items =
            writes.into_iter().map(|write| write.into_item(&store.table)).collect::<Result<Vec<_>, _>>()?;
        // The same token on every try, the SDK's included: one whose answer was lost does not act
        // twice (DynamoDB keeps tokens for 10 minutes).
        let mut token = [0_u8; 16];
        getrandom::fill(&mut token).map_err(StoreError::from)?;
        let token = format!("{:032x}", u128::from_le_bytes(token));
        let start = Instant::now();
        for attempt in 1.. {
            let error = match store
                .client
                .transact_write_items()
                .set_transact_items(Some(items.clone()))
                .client_request_token(&token)
                .return_consumed_capacity(ReturnConsumedCapacity::Total)
                .send()
                .await
            {
                Ok(output) => {
                    usage::record(Kind::Write, output.consumed_capacity());
                    return Ok(());
                }
                Err(error) => error,
            };
            usage::record(Kind::Write, []);
            // Every other failure has been retried by the SDK, as far as that helps.
            let Some(TransactWriteItemsError::TransactionCanceledException(cancelled)) =
                error.as_service_error()
            else {
                return Err(store_error(&error).into());
            };
            let reasons = cancelled.cancellation_reasons();
            if let Some(position) = reasons.iter().position(is_failed_guard) {
                return Err(refusal(change, refusals, reasons, position));
            }
            let codes: Vec<_> = reasons.iter().filter_map(CancellationReason::code).collect();
            let described = format!("`{change}` was cancelled: {}", codes.join(", "));
            if !codes.into_iter().any(is_transient) {
                return Err(StoreError::Refused(described).into());
            }
            if attempt == ATTEMPTS || start.elapsed() > PATIENCE {
                return Err(StoreError::Unavailable(described).into());
            }
            tokio::time::sleep(jitter(attempt, FIRST_WAIT)?).await;
        }
        Ok(())
    }
}

fn is_failed_guard(reason: &CancellationReason) -> bool {
    reason.code() == Some("ConditionalCheckFailed")
}

/// What the guard at `position` of `change` means.
fn refusal<E: From<StoreError>>(
    change: &'static str,
    refusals: Vec<Refusal<E>>,
    reasons: &[CancellationReason],
    position: usize,
) -> E {
    let old = reasons.get(position).and_then(|reason| reason.item.clone());
    match refusals.into_iter().nth(position) {
        Some(Refusal::Is(refusal)) => refusal,
        Some(Refusal::ToldBy(tell)) => tell(old),
        Some(Refusal::Impossible) | None => {
            StoreError::Refused(format!("write {position} of `{change}` failed a guard that it has not"))
                .into()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;
    use crate::store::{measured, scripted::Table};

    fn cancelled(reasons: &[Value]) -> (u16, Value) {
        let kind = "com.amazonaws.dynamodb.v20120810#TransactionCanceledException";
        (400, json!({ "__type": kind, "CancellationReasons": reasons }))
    }

    fn failing(kind: &str) -> (u16, Value) {
        (400, json!({ "__type": format!("com.amazonaws.dynamodb.v20120810#{kind}"), "message": "no" }))
    }

    fn passed() -> Value {
        json!({ "Code": "None" })
    }

    fn code(code: &str) -> Value {
        json!({ "Code": code })
    }

    #[derive(Debug, PartialEq)]
    enum Refused {
        First,
        Second,
        Told(Option<String>),
        Unavailable,
        Failed,
    }

    impl From<StoreError> for Refused {
        fn from(error: StoreError) -> Self {
            if matches!(error, StoreError::Unavailable(_)) { Self::Unavailable } else { Self::Failed }
        }
    }

    fn key(name: &str) -> Key {
        Key { pk: name.to_owned(), sk: name.to_owned() }
    }

    /// Three guarded writes and one without guard.
    async fn change(table: &Table) -> Result<(), Refused> {
        table
            .store()
            .transaction("change")
            .guarded(Write::delete(key("a")).when("#role = :role").value(":role", "owner"), Refused::First)
            .guarded(Write::delete(key("b")).when("attribute_exists(#pk)"), Refused::Second)
            .guarded_by(
                Write::update(key("c"), "SET #name = :name").when("#name <> :name").value(":name", "n"),
                |old| {
                    Refused::Told(old.and_then(|mut old| match old.remove("name") {
                        Some(AttributeValue::S(name)) => Some(name),
                        _ => None,
                    }))
                },
            )
            .with(Write::delete(key("d")))
            .commit()
            .await
    }

    #[tokio::test]
    async fn a_transaction_is_sent_as_it_was_put_together() {
        let table = Table::answering([(200, json!({}))]);

        assert_eq!(change(&table).await, Ok(()));

        let call = &table.calls()[0];
        let items = call["TransactItems"].as_array().unwrap();
        assert_eq!(items.len(), 4);
        assert_eq!(
            items[0]["Delete"],
            json!({
                "TableName": "Table",
                "Key": { "pk": { "S": "a" }, "sk": { "S": "a" } },
                "ConditionExpression": "#role = :role",
                "ExpressionAttributeNames": { "#role": "role" },
                "ExpressionAttributeValues": { ":role": { "S": "owner" } },
                "ReturnValuesOnConditionCheckFailure": "ALL_OLD",
            })
        );
        assert_eq!(items[2]["Update"]["ExpressionAttributeNames"], json!({ "#name": "name" }));
        assert_eq!(items[3]["Delete"]["ConditionExpression"], Value::Null);
        assert_eq!(call["ClientRequestToken"].as_str().unwrap().len(), 32);
    }

    #[tokio::test]
    async fn the_first_guard_that_failed_decides_by_its_position() {
        let failed = code("ConditionalCheckFailed");
        for (reasons, refused) in [
            ([failed.clone(), failed.clone(), passed(), passed()], Refused::First),
            ([passed(), failed.clone(), failed.clone(), passed()], Refused::Second),
            ([passed(), passed(), failed.clone(), passed()], Refused::Told(None)),
            ([code("TransactionConflict"), failed.clone(), passed(), passed()], Refused::Second),
            ([passed(), passed(), passed(), failed.clone()], Refused::Failed),
        ] {
            let table = Table::answering([cancelled(&reasons)]);

            assert_eq!(change(&table).await, Err(refused), "{reasons:?}");
        }
    }

    #[tokio::test]
    async fn a_guard_may_be_judged_by_the_row_as_it_was() {
        let failed = json!({ "Code": "ConditionalCheckFailed", "Item": { "name": { "S": "before" } } });
        let table = Table::answering([cancelled(&[passed(), passed(), failed, passed()])]);

        assert_eq!(change(&table).await, Err(Refused::Told(Some("before".to_owned()))));
    }

    #[tokio::test(start_paused = true)]
    async fn conflicts_and_throttling_are_retried_with_the_same_token() {
        let table = Table::answering([
            cancelled(&[passed(), code("TransactionConflict"), passed(), passed()]),
            cancelled(&[code("ThrottlingError"), passed(), passed(), passed()]),
            cancelled(&[code("ProvisionedThroughputExceeded"), passed(), passed(), passed()]),
            (200, json!({})),
        ]);

        let (outcome, usage) = measured(change(&table)).await;

        assert_eq!(outcome, Ok(()));
        assert_eq!(usage.calls, 4);
        let calls = table.calls();
        assert!(calls.iter().all(|call| call == &calls[0]), "{calls:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_conflict_that_does_not_end_is_given_up_as_unavailable_within_a_second() {
        let conflict = cancelled(&[code("TransactionConflict"), passed(), passed(), passed()]);
        let table = Table::answering(vec![conflict; 6]);
        let start = tokio::time::Instant::now();

        assert_eq!(change(&table).await, Err(Refused::Unavailable));
        assert_eq!(table.calls().len(), 6);
        assert!(start.elapsed() < Duration::from_secs(1), "{:?}", start.elapsed());
    }

    #[tokio::test]
    async fn what_will_not_pass_by_itself_is_not_retried() {
        for answer in [
            failing("ValidationException"),
            failing("ResourceNotFoundException"),
            failing("AccessDeniedException"),
            cancelled(&[code("ValidationError"), passed(), passed(), passed()]),
        ] {
            let table = Table::answering([answer.clone()]);

            assert_eq!(change(&table).await, Err(Refused::Failed), "{answer:?}");
        }
    }

    #[tokio::test]
    async fn what_the_sdk_has_retried_in_vain_is_unavailable() {
        for answer in [
            (500, json!({ "__type": "InternalServerError" })),
            failing("TransactionInProgressException"),
            failing("ProvisionedThroughputExceededException"),
        ] {
            let table = Table::answering([answer.clone()]);

            assert_eq!(change(&table).await, Err(Refused::Unavailable), "{answer:?}");
        }
    }

    #[test]
    fn waits_grow_and_stay_below_their_bound() {
        for attempt in 1..40 {
            let bound = FIRST_WAIT * (1 << (attempt - 1).min(5));
            assert!((0..50).all(|_| jitter(attempt, FIRST_WAIT).unwrap() <= bound), "attempt {attempt}");
        }
        let waits: Vec<_> = (0..50).map(|_| jitter(5, FIRST_WAIT).unwrap()).collect();
        assert!(waits.iter().any(|wait| *wait > FIRST_WAIT) && waits.iter().any(|wait| *wait != waits[0]));
    }
}
