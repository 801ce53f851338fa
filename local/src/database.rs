//! `DynamoDB`, embedded: the `dynoxide` engine on a thread of its own, served on loopback.
//!
//! A thread of its own, because the engine runs `SQLite` where it is polled: it would hold up the
//! functions' events. One process per database file: see [`crate::StartError::DataInUse`].

pub(crate) mod front;

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::thread::{self, JoinHandle};
use std::time::Duration;

use dynoxide::Database as Engine;
use dynoxide::actions::create_table::{CreateTableRequest, StreamSpecification};
use dynoxide::actions::describe_time_to_live::DescribeTimeToLiveRequest;
use dynoxide::actions::update_table::UpdateTableRequest;
use dynoxide::actions::update_time_to_live::{TimeToLiveSpecification, UpdateTimeToLiveRequest};
use dynoxide::errors::DynoxideError;
use tokio::net::TcpListener;
use tokio::sync::{mpsc, oneshot};
use tokio::time::MissedTickBehavior;

use crate::template::Table;

/// How long a request that is under way may take once the database is to stop.
const GRACE: Duration = Duration::from_secs(2);

/// How often expired items are deleted. `DynamoDB` promises no more than "within a few days".
pub(crate) const SWEEP: Duration = Duration::from_mins(1);

/// Why the database cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum DatabaseError {
    /// The file cannot be opened or is not a database.
    #[error("cannot open the database: {0}")]
    Open(DynoxideError),
    /// `CreateTable` refuses the table of the template.
    #[error("cannot create the table `{table}` of the template: {source}")]
    Table {
        /// The table.
        table: String,
        /// What the engine said.
        source: DynoxideError,
    },
    /// There is no thread or no port to be had.
    #[error("cannot serve the database: {0}")]
    Serve(#[from] io::Error),
}

/// A running database.
#[derive(Debug)]
pub(crate) struct Database {
    endpoint: String,
    handle: Handle,
    /// Dropped to stop the server.
    running: oneshot::Sender<()>,
    thread: JoinHandle<()>,
}

impl Database {
    /// Opens the database in `file` (in memory if there is none), creates those of `tables` that it
    /// lacks, serves it, and deletes expired items at once and then every `sweep`.
    ///
    /// `guard` is dropped when the file has been closed.
    pub(crate) async fn start(
        file: Option<PathBuf>,
        tables: Vec<Table>,
        sweep: Duration,
        guard: impl Send + 'static,
    ) -> Result<Self, DatabaseError> {
        let (running, stopped) = oneshot::channel();
        let (ready, started) = oneshot::channel();
        let (calls, called) = mpsc::unbounded_channel();
        let thread = thread::Builder::new().name("dynamodb".to_owned()).spawn(move || {
            let _guard = guard;
            match open(file, &tables) {
                Ok((engine, runtime, listener)) => {
                    // Whoever started this has gone if it cannot be told; then `stopped` says so.
                    let _ = ready.send(listener.local_addr().map_err(DatabaseError::from));
                    runtime.spawn(delete_expired(engine.clone(), sweep));
                    runtime.spawn(answer(engine.clone(), called));
                    runtime.block_on(serve(listener, engine, stopped));
                    // Ends the connections and the rest, and with the last of them closes the file.
                    drop(runtime);
                }
                Err(error) => drop(ready.send(Err(error))),
            }
        })?;
        // The thread always answers, unless the engine panics.
        let address: SocketAddr =
            started.await.map_err(|_closed| io::Error::other("the engine has ended"))??;
        Ok(Self { endpoint: format!("http://{address}"), handle: Handle { calls }, running, thread })
    }

    /// Where the engine answers, whoever asks: `http://127.0.0.1:PORT`. For everybody else there is [`front`].
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    /// A way to ask the engine itself.
    pub(crate) fn handle(&self) -> Handle {
        self.handle.clone()
    }

    /// Returns when everything is on disk and the file is closed.
    pub(crate) async fn stop(self) {
        drop(self.running);
        let thread = self.thread;
        // Not even a panic of the engine keeps the stack from stopping.
        let _ = tokio::task::spawn_blocking(move || thread.join()).await;
    }
}

type Call = Box<dyn FnOnce(&Engine) + Send>;

/// A way to ask the engine itself, on its thread: a clone of the engine would keep the file open after
/// the database has been stopped.
#[derive(Debug, Clone)]
pub(crate) struct Handle {
    calls: mpsc::UnboundedSender<Call>,
}

impl Handle {
    /// What `call` returns; `None` if the database has been stopped.
    pub(crate) async fn call<T: Send + 'static>(
        &self,
        call: impl FnOnce(&Engine) -> T + Send + 'static,
    ) -> Option<T> {
        let (reply, result) = oneshot::channel();
        // Both fail only when the thread has ended.
        self.calls.send(Box::new(move |engine| drop(reply.send(call(engine))))).ok()?;
        result.await.ok()
    }
}

async fn answer(engine: Engine, mut calls: mpsc::UnboundedReceiver<Call>) {
    while let Some(call) = calls.recv().await {
        call(&engine);
    }
}

/// Deletes the items whose time to live is over, every `period`.
async fn delete_expired(engine: Engine, period: Duration) {
    let mut ticks = tokio::time::interval(period);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let engine = engine.clone();
        // On a thread of its own: between pages it waits until requests have had their turn. What it
        // fails to delete is deleted the next time.
        let _ = tokio::task::spawn_blocking(move || engine.sweep_ttl()).await;
    }
}

type Opened = (Engine, tokio::runtime::Runtime, TcpListener);

fn open(file: Option<PathBuf>, tables: &[Table]) -> Result<Opened, DatabaseError> {
    let engine = match file {
        Some(file) => Engine::new(&file.to_string_lossy()),
        None => Engine::memory(),
    };
    let engine = engine.map_err(DatabaseError::Open)?;
    for table in tables {
        let created = create(&engine, table);
        created.map_err(|source| DatabaseError::Table { table: table.name.clone(), source })?;
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let listener = runtime.block_on(TcpListener::bind((Ipv4Addr::LOCALHOST, 0)))?;
    Ok((engine, runtime, listener))
}

/// Creates `table` unless it is there, and has it expire items and tell its changes as the template says.
fn create(engine: &Engine, table: &Table) -> Result<(), DynoxideError> {
    if let Some(known) = engine.get_table_metadata(&table.name)? {
        if let Some(specification) = table.stream_specification()
            && !known.stream_enabled
        {
            let view = specification.get("StreamViewType").and_then(serde_json::Value::as_str);
            let specification =
                StreamSpecification { stream_enabled: true, stream_view_type: view.map(str::to_owned) };
            engine.update_table(UpdateTableRequest {
                table_name: table.name.clone(),
                stream_specification: Some(specification),
                ..UpdateTableRequest::default()
            })?;
        }
    } else {
        let request = serde_json::from_value::<CreateTableRequest>(table.create_table.clone());
        // The engine marks its own messages; `CreateTable` over HTTP does not show the mark either.
        let request = request.map_err(|error| {
            DynoxideError::ValidationException(error.to_string().trim_start_matches("VALIDATION:").to_owned())
        })?;
        engine.create_table(request)?;
    }
    let Some(attribute_name) = table.time_to_live.clone() else { return Ok(()) };
    let request = DescribeTimeToLiveRequest { table_name: table.name.clone() };
    if engine.describe_time_to_live(request)?.time_to_live_description.attribute_name.is_none() {
        engine.update_time_to_live(UpdateTimeToLiveRequest {
            table_name: table.name.clone(),
            time_to_live_specification: TimeToLiveSpecification { attribute_name, enabled: true },
        })?;
    }
    Ok(())
}

/// Serves until `stopped` resolves, which it does when its sender is dropped.
async fn serve(listener: TcpListener, engine: Engine, stopped: oneshot::Receiver<()>) {
    let (stop, stopping) = oneshot::channel::<()>();
    let shutdown = async {
        let _ = stopping.await;
    };
    let mut server = std::pin::pin!(dynoxide::server::serve_with_shutdown(listener, engine, shutdown));
    tokio::select! {
        _ = &mut server => return,
        _ = stopped => drop(stop),
    }
    // A client that has sent half a request would hold it for ever.
    let _ = tokio::time::timeout(GRACE, server).await;
}

#[cfg(test)]
mod tests {
    use axum::http::{Request, StatusCode};
    use serde_json::{Value, json};

    use super::*;
    use crate::client;

    fn tables() -> Vec<Table> {
        vec![Table {
            name: "Table".to_owned(),
            create_table: json!({
                "TableName": "Table",
                "BillingMode": "PAY_PER_REQUEST",
                "AttributeDefinitions": [{ "AttributeName": "pk", "AttributeType": "S" }],
                "KeySchema": [{ "AttributeName": "pk", "KeyType": "HASH" }],
                "StreamSpecification": { "StreamEnabled": true, "StreamViewType": "NEW_IMAGE" },
            }),
            time_to_live: Some("ttl".to_owned()),
        }]
    }

    async fn call(database: &Database, operation: &str, request: Value) -> Value {
        let request = Request::post(database.endpoint())
            .header("x-amz-target", format!("DynamoDB_20120810.{operation}"))
            .header("content-type", "application/x-amz-json-1.0")
            .header(
                "authorization",
                "AWS4-HMAC-SHA256 Credential=a/20260101/us-east-1/dynamodb/aws4_request, SignedHeaders=host, \
                 Signature=0",
            )
            .header("x-amz-date", "20260101T000000Z")
            .body(request.to_string())
            .unwrap();
        let response = client::send(request).await.unwrap();
        assert_eq!(response.status(), StatusCode::OK, "{operation}: {response:?}");
        serde_json::from_slice(response.body()).unwrap()
    }

    async fn keys(database: &Database) -> Vec<String> {
        let scan = call(database, "Scan", json!({ "TableName": "Table" })).await;
        let items = scan["Items"].as_array().unwrap();
        items.iter().map(|item| item["pk"]["S"].as_str().unwrap().to_owned()).collect()
    }

    async fn put(database: &Database, key: &str) {
        call(database, "PutItem", json!({ "TableName": "Table", "Item": { "pk": { "S": key } } })).await;
    }

    #[tokio::test]
    async fn the_tables_of_the_template_are_there_as_it_says() {
        let database = Database::start(None, tables(), SWEEP, ()).await.unwrap();

        let described = call(&database, "DescribeTable", json!({ "TableName": "Table" })).await;
        assert_eq!(described["Table"]["TableStatus"], "ACTIVE");
        assert_eq!(described["Table"]["StreamSpecification"]["StreamViewType"], "NEW_IMAGE");
        let described = call(&database, "DescribeTimeToLive", json!({ "TableName": "Table" })).await;
        assert_eq!(described["TimeToLiveDescription"]["AttributeName"], "ttl");
        assert_eq!(described["TimeToLiveDescription"]["TimeToLiveStatus"], "ENABLED");
    }

    #[tokio::test]
    async fn data_survive_a_restart() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dynamodb.sqlite");
        let database = Database::start(Some(file.clone()), tables(), SWEEP, ()).await.unwrap();
        put(&database, "a").await;
        database.stop().await;

        let database = Database::start(Some(file), tables(), SWEEP, ()).await.unwrap();
        assert_eq!(keys(&database).await, ["a"]);
        database.stop().await;
    }

    #[tokio::test]
    async fn a_table_of_before_tells_its_changes_as_soon_as_the_template_says_so() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dynamodb.sqlite");
        let mut silent = tables();
        silent[0].create_table.as_object_mut().unwrap().remove("StreamSpecification");
        let database = Database::start(Some(file.clone()), silent, SWEEP, ()).await.unwrap();
        database.stop().await;

        let database = Database::start(Some(file), tables(), SWEEP, ()).await.unwrap();

        let described = call(&database, "DescribeTable", json!({ "TableName": "Table" })).await;
        assert_eq!(described["Table"]["StreamSpecification"]["StreamViewType"], "NEW_IMAGE");
        database.stop().await;
    }

    #[tokio::test]
    async fn items_whose_time_is_over_are_deleted_and_no_others() {
        let database = Database::start(None, tables(), Duration::from_millis(20), ()).await.unwrap();
        for (key, ttl) in [
            ("over", json!({ "N": "1000" })),
            ("to come", json!({ "N": "99999999999" })),
            ("no number", json!({ "S": "1000" })),
        ] {
            let item = json!({ "pk": { "S": key }, "ttl": ttl });
            call(&database, "PutItem", json!({ "TableName": "Table", "Item": item })).await;
        }
        let start = std::time::Instant::now();
        while keys(&database).await.contains(&"over".to_owned()) {
            assert!(start.elapsed() < Duration::from_secs(10), "it was never deleted");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let mut left = keys(&database).await;
        left.sort_unstable();
        assert_eq!(left, ["no number", "to come"]);
    }

    #[tokio::test]
    async fn the_engine_answers_until_the_database_is_stopped() {
        let database = Database::start(None, tables(), SWEEP, ()).await.unwrap();
        let handle = database.handle();
        assert_eq!(handle.call(|engine| engine.table_count().unwrap()).await, Some(1));
        database.stop().await;
        assert_eq!(handle.call(|_| ()).await, None);
    }

    #[tokio::test]
    async fn databases_in_memory_have_nothing_in_common() {
        let one = Database::start(None, tables(), SWEEP, ()).await.unwrap();
        let two = Database::start(None, tables(), SWEEP, ()).await.unwrap();
        put(&one, "a").await;
        assert_eq!(keys(&two).await, [""; 0]);
    }

    #[tokio::test]
    async fn the_guard_is_held_until_the_file_is_closed() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dynamodb.sqlite");
        let guard = std::sync::Arc::new(());
        let database = Database::start(Some(file.clone()), tables(), SWEEP, std::sync::Arc::clone(&guard))
            .await
            .unwrap();
        put(&database, "a").await;
        assert_eq!(std::sync::Arc::strong_count(&guard), 2);

        // Though a client has sent half a request.
        let address = database.endpoint().trim_start_matches("http://").to_owned();
        let mut client = tokio::net::TcpStream::connect(address).await.unwrap();
        tokio::io::AsyncWriteExt::write_all(&mut client, b"POST / HTTP/1.1\r\n").await.unwrap();
        database.stop().await;

        assert_eq!(std::sync::Arc::strong_count(&guard), 1);
        assert!(!file.with_extension("sqlite-wal").exists(), "the last to close the file clears the log");
    }

    #[tokio::test]
    async fn a_table_that_cannot_be_created_is_named() {
        let mut tables = tables();
        tables[0].create_table["KeySchema"] = json!([]);
        let error = Database::start(None, tables, SWEEP, ()).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot create the table `Table` of the template: "), "{error}");
        assert!(!error.contains("VALIDATION:"), "{error}");
    }

    #[tokio::test]
    async fn a_file_that_is_no_database_is_an_error() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("dynamodb.sqlite");
        std::fs::write(&file, "this is not a database, and long enough to be told from an empty one")
            .unwrap();
        let error = Database::start(Some(file), tables(), SWEEP, ()).await.unwrap_err().to_string();
        assert!(error.starts_with("cannot open the database"), "{error}");
    }
}
