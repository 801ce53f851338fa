//! Puts the parts together: one origin for the API and the local pages, one process per instance of a
//! function, one database.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{DirBuilder, File, TryLockError};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::http::StatusCode;
use axum::middleware::from_fn_with_state;
use axum::routing::get;
use bytes::Bytes;
use serde_json::json;

use crate::audit::Trails;
use crate::database::{self, Database, DatabaseError, front};
use crate::gateway::{self, Gateway, Sockets, WebSocketLimits};
use crate::http::{self, Server};
use crate::iam::Permissions;
use crate::identity::{self, Identity, IdentityError};
use crate::lambda::{InvokeError, Lambda, Limits};
use crate::mail::{self, MailError, Outbox};
use crate::page;
use crate::secrets::Secrets;
use crate::stream::{StreamError, Triggers};
use crate::template::{Source, Template, TemplateError};

/// The parameter that says where agents reach the WebSocket API.
const AGENT_ORIGIN: &str = "AgentOrigin";

/// Is given each line that a function writes and each failure of one: the name of its binary, and
/// the line without its end.
pub type LogSink = Arc<dyn Fn(&str, &str) + Send + Sync>;

/// What to start.
#[derive(Clone)]
pub struct Options {
    /// The template, `template.yaml`.
    pub template: PathBuf,
    /// The folder that holds the functions' binaries.
    pub binaries: PathBuf,
    /// Where data are kept.
    pub data: Data,
    /// Where the API listens; with port 0 on any that is free. Whoever can reach it can sign in as anybody: it is an
    /// address of loopback, or one that only this machine's containers reach.
    pub address: SocketAddr,
    /// The port of `DynamoDB` on the same address; 0 for any that is free.
    pub dynamodb_port: u16,
    /// Values of template parameters by name.
    pub parameters: BTreeMap<String, String>,
    /// What Secrets Manager knows, by name.
    pub secrets: BTreeMap<String, String>,
    /// Takes the functions' logs.
    pub logs: LogSink,
    /// For tests: where the functions are told that `DynamoDB` is, such as `http://127.0.0.1:PORT`, instead of
    /// [`Stack::dynamodb_endpoint`]. What stands there may fail them as a network and a busy table would; the
    /// stack itself, its streams included, goes past it.
    pub functions_dynamodb: Option<String>,
}

impl Options {
    /// Reads and evaluates the template for a stack on the port that `listener` has taken: parameters
    /// that stand for the stack's own provider, outbox and origin have them for their defaults.
    pub fn read_template(&self, listener: &TcpListener) -> Result<Template, StartError> {
        let origin = origin(listener)?;
        let issuer = issuer(&origin);
        let source = Source::read(&self.template)?;
        let mut parameters = self.parameters.clone();
        for (name, value) in [
            ("OidcIssuer", &*issuer),
            ("OidcAudience", identity::DEFAULT_CLIENT),
            ("OidcClientId", identity::DEFAULT_CLIENT),
            ("PublicOrigin", &origin),
            ("MailFrom", mail::DEFAULT_SENDER),
            ("MailLinkBase", &page_of(&origin)),
        ] {
            if source.declares(name) {
                parameters.entry(name.to_owned()).or_insert_with(|| value.to_owned());
            }
        }
        if source.declares(AGENT_ORIGIN) && !parameters.contains_key(AGENT_ORIGIN) {
            // Where the WebSocket API is, only the evaluated template says.
            let origin = websocket_origin(&origin);
            let mut provisional = parameters.clone();
            provisional.insert(AGENT_ORIGIN.to_owned(), format!("{origin}/"));
            if let Some(api) = source.evaluate(&provisional)?.websocket {
                parameters.insert(AGENT_ORIGIN.to_owned(), format!("{origin}{}", api.path()));
            }
        }
        Ok(source.evaluate(&parameters)?)
    }
}

impl std::fmt::Debug for Options {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            template,
            binaries,
            data,
            address,
            dynamodb_port,
            parameters: _,
            secrets: _,
            logs: _,
            functions_dynamodb,
        } = self;
        // Parameters may be secrets too.
        formatter
            .debug_struct("Options")
            .field("template", template)
            .field("binaries", binaries)
            .field("data", data)
            .field("address", address)
            .field("dynamodb_port", dynamodb_port)
            .field("functions_dynamodb", functions_dynamodb)
            .finish_non_exhaustive()
    }
}

/// Where the database, what of its stream was handled, the signing key and the mails are kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Data {
    /// Nowhere: they are gone with the stack.
    Memory,
    /// In this folder, which is made if it is not there. One stack at a time can have it.
    Directory(PathBuf),
}

impl Data {
    /// The path of a file in the folder, if there is one.
    fn file(&self, name: &str) -> Option<PathBuf> {
        match self {
            Self::Memory => None,
            Self::Directory(folder) => Some(folder.join(name)),
        }
    }

    /// The folder, if there is one.
    fn folder(&self) -> Option<PathBuf> {
        match self {
            Self::Memory => None,
            Self::Directory(folder) => Some(folder.clone()),
        }
    }
}

/// Why a stack cannot be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// Somebody listens there already.
    #[error("port {port} is in use: stop what listens there or choose another with --port")]
    PortInUse {
        /// The port.
        port: u16,
    },
    /// The port cannot be had for another reason.
    #[error("cannot listen on {address}: {source}")]
    Listen {
        /// The address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The address that was taken cannot be served.
    #[error("cannot serve the API: {0}")]
    Serve(io::Error),
    /// The template is not usable.
    #[error(transparent)]
    Template(#[from] TemplateError),
    /// A function of the template has no binary.
    #[error("the function `{function}` of the template has no binary {}: build it, or correct its CodeUri", path.display())]
    MissingBinary {
        /// Logical id of the function.
        function: String,
        /// Where the binary should be.
        path: PathBuf,
    },
    /// Another stack uses the folder.
    #[error("another stack uses the data in {}: stop it or choose another folder with --data", path.display())]
    DataInUse {
        /// The folder.
        path: PathBuf,
    },
    /// The folder for the data cannot be used.
    #[error("cannot keep data in {}: {source}", path.display())]
    Data {
        /// The folder.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no database.
    #[error(transparent)]
    Database(#[from] DatabaseError),
    /// There is no identity provider.
    #[error(transparent)]
    Identity(#[from] IdentityError),
    /// There is no outbox.
    #[error(transparent)]
    Mail(#[from] MailError),
    /// The streams cannot be followed.
    #[error(transparent)]
    Stream(#[from] StreamError),
}

/// A running stack. Dropping it ends every process that it started; [`Stack::stop`] also waits.
pub struct Stack {
    origin: String,
    template: Template,
    identity: Identity,
    lambda: Arc<Lambda>,
    /// Taken when the stack is stopped.
    running: Option<Running>,
    dynamodb_endpoint: String,
    endpoints: BTreeMap<String, String>,
    permissions: Arc<Permissions>,
}

/// What of a stack is to be stopped in order.
struct Running {
    sockets: Option<Arc<Sockets>>,
    triggers: Triggers,
    server: Server,
    /// What stands before the database.
    front: Server,
    database: Database,
}

impl Stack {
    /// Starts a stack in the current tokio runtime.
    pub async fn start(options: Options) -> Result<Self, StartError> {
        Self::start_limited(options, WebSocketLimits::default()).await
    }

    /// Starts a stack whose WebSocket API has other limits than that of AWS.
    pub async fn start_limited(options: Options, limits: WebSocketLimits) -> Result<Self, StartError> {
        let listener = Self::listen(options.address)?;
        Self::start_with(listener, options, limits).await
    }

    /// Takes an address (with port 0: any port of it that is free) for [`Stack::start_on`].
    ///
    /// Who has something lengthy to do before the start, such as a build, finds out first that the
    /// port is not to be had.
    pub fn listen(address: SocketAddr) -> Result<TcpListener, StartError> {
        TcpListener::bind(address).map_err(|source| {
            if source.kind() == io::ErrorKind::AddrInUse {
                StartError::PortInUse { port: address.port() }
            } else {
                StartError::Listen { address, source }
            }
        })
    }

    /// Starts a stack on what [`Stack::listen`] has taken. [`Options::address`] is not used.
    pub async fn start_on(listener: TcpListener, options: Options) -> Result<Self, StartError> {
        Self::start_with(listener, options, WebSocketLimits::default()).await
    }

    async fn start_with(
        listener: TcpListener,
        options: Options,
        limits: WebSocketLimits,
    ) -> Result<Self, StartError> {
        let template = options.read_template(&listener)?;
        let origin = origin(&listener)?;
        let address = listener.local_addr().map_err(StartError::Serve)?;
        listener.set_nonblocking(true).map_err(StartError::Serve)?;
        let listener = tokio::net::TcpListener::from_std(listener).map_err(StartError::Serve)?;

        let Options {
            template: template_file,
            binaries,
            data,
            address: _,
            dynamodb_port,
            parameters: _,
            secrets,
            logs,
            functions_dynamodb,
        } = options;
        let binaries = std::path::absolute(&binaries).unwrap_or(binaries);
        for function in &template.functions {
            let path = binaries.join(&function.name);
            if !path.is_file() {
                return Err(StartError::MissingBinary { function: function.logical_id.clone(), path });
            }
        }

        let lock = lock(&data)?;
        let parameter = |name: &str| {
            let value = template.parameters.get(name).cloned();
            value.unwrap_or_else(|| identity::DEFAULT_CLIENT.to_owned())
        };
        let key = data.file("identity.key");
        let (audience, client_id) = (parameter("OidcAudience"), parameter("OidcClientId"));
        let identity = Identity::open(key.as_deref(), issuer(&origin), audience, client_id)?;
        let outbox = Outbox::open(data.file("mail.jsonl").as_deref())?;
        let permissions = Arc::new(Permissions::of(&template.functions));
        let tables = template.tables.clone();
        let front = Self::listen(SocketAddr::new(address.ip(), dynamodb_port))?;
        front.set_nonblocking(true).map_err(DatabaseError::from)?;
        let front = tokio::net::TcpListener::from_std(front).map_err(DatabaseError::from)?;
        let dynamodb_endpoint = format!("http://{}", front.local_addr().map_err(DatabaseError::from)?);
        let database =
            Database::start(data.file("dynamodb.sqlite"), tables, database::SWEEP, lock.clone()).await?;
        let front = front::spawn(front, database.endpoint(), Arc::clone(&permissions))
            .map_err(DatabaseError::from)?;

        let secrets = Secrets::new(secrets);
        let endpoints = BTreeMap::from([
            (
                "AWS_ENDPOINT_URL_DYNAMODB".to_owned(),
                functions_dynamodb.unwrap_or_else(|| dynamodb_endpoint.clone()),
            ),
            ("AWS_ENDPOINT_URL_SESV2".to_owned(), format!("{origin}{}", mail::ENDPOINT)),
            ("AWS_ENDPOINT_URL_SECRETS_MANAGER".to_owned(), format!("{origin}{}", secrets.endpoint())),
        ]);
        let lambda = Lambda::new(&template.functions, &binaries, &endpoints, &logs, Limits::default());
        let lambda = Arc::new(lambda);
        let (functions, handle) = (&template.functions, database.handle());
        let triggers = Triggers::start(functions, &handle, &lambda, &logs, data.folder(), lock).await;
        let triggers = match triggers {
            Ok(triggers) => triggers,
            Err(error) => {
                database.stop().await;
                return Err(error.into());
            }
        };
        let sockets = template
            .websocket
            .clone()
            .map(|api| Sockets::new(api, limits, Arc::clone(&lambda), Arc::clone(&logs), address));
        let gateway =
            Gateway::new(&template, Arc::clone(&lambda), logs, address, gateway::INTEGRATION_TIMEOUT);
        let table = template.tables.first().map(|table| table.name.clone()).unwrap_or_default();
        let own = Router::new()
            .route("/_local/health", get(health))
            .nest(identity::PATH, identity.router())
            .merge(outbox.router(&permissions))
            .merge(secrets.router(&permissions))
            .merge(Trails::new(handle, table).router())
            .merge(page::router(page::description_beside(&template_file)))
            .route_layer(from_fn_with_state(address, http::for_this_machine));
        let mut router = gateway.router().merge(own);
        if let Some(sockets) = &sockets {
            router = router.merge(sockets.router());
        }
        let server = Server::spawn(listener, router);

        Ok(Self {
            origin,
            template,
            identity,
            lambda,
            dynamodb_endpoint,
            endpoints,
            permissions,
            running: Some(Running { sockets, triggers, server, front, database }),
        })
    }

    /// Where the API is, such as `http://127.0.0.1:3000`.
    #[must_use]
    pub fn origin(&self) -> &str {
        &self.origin
    }

    /// Where the page for people is: `http://127.0.0.1:PORT/_local/`.
    #[must_use]
    pub fn page(&self) -> String {
        page_of(&self.origin)
    }

    /// Where the WebSocket API is, if there is one: `ws://127.0.0.1:PORT/STAGE`.
    #[must_use]
    pub fn websocket_url(&self) -> Option<String> {
        let api = self.template.websocket.as_ref()?;
        Some(format!("{}{}", websocket_origin(&self.origin), api.path()))
    }

    /// Where `DynamoDB` is: `http://127.0.0.1:PORT`. Any credentials will do; only the functions' own are held
    /// to the functions' policies.
    #[must_use]
    pub fn dynamodb_endpoint(&self) -> &str {
        &self.dynamodb_endpoint
    }

    /// The variables that tell a function where the services of AWS are, as each function of this stack has them.
    #[must_use]
    pub fn endpoints(&self) -> &BTreeMap<String, String> {
        &self.endpoints
    }

    /// The name of the template's first table; empty if it has none.
    #[must_use]
    pub fn table_name(&self) -> &str {
        self.template.tables.first().map_or("", |table| &table.name)
    }

    /// The template, evaluated.
    #[must_use]
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The identity provider.
    #[must_use]
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// Has `function` (the name of its binary) handle `event`, which is JSON, as Lambda would, without
    /// the gateway.
    pub async fn invoke(&self, function: &str, event: Vec<u8>) -> Result<Bytes, InvokeError> {
        self.lambda.invoke(function, event.into()).await
    }

    /// The environment that instances of `function` (the name of its binary) are started with, but for
    /// `AWS_LAMBDA_RUNTIME_API` and what else is of one instance; none if there is no such function.
    #[must_use]
    pub fn environment(&self, function: &str) -> Option<&BTreeMap<String, String>> {
        self.lambda.environment(function)
    }

    /// How many instances of `function` (the name of its binary) have been started so far.
    #[must_use]
    pub fn instances_started(&self, function: &str) -> usize {
        self.lambda.instances_started(function)
    }

    /// The actions that `function` (the name of its binary) has asked `DynamoDB`, SES and Secrets Manager for so
    /// far, such as `dynamodb:PutItem`; those that it was refused included.
    #[must_use]
    pub fn actions_used(&self, function: &str) -> BTreeSet<String> {
        self.permissions.actions_used(function)
    }

    /// Waits until the functions have been told of every WebSocket connection that has ended by now, and those
    /// that the streams trigger have handled every change that has been made by then, at most `limit`. Whether
    /// they have.
    ///
    /// What they change themselves comes after "then"; a batch that was given up counts as handled.
    pub async fn settled(&self, limit: Duration) -> bool {
        let Some(Running { sockets, triggers, .. }) = &self.running else { return true };
        let all = async {
            if let Some(sockets) = sockets {
                sockets.settled().await;
            }
            triggers.settled().await
        };
        tokio::time::timeout(limit, all).await.is_ok_and(|settled| settled.is_ok())
    }

    /// Ends the stack, and returns when every process is gone and everything is on disk. The functions are told
    /// of the WebSocket connections that end with it, for as long as that takes no more than a few seconds.
    pub async fn stop(mut self) {
        if let Some(Running { sockets, triggers, server, front, database }) = self.running.take() {
            if let Some(sockets) = sockets {
                sockets.stop().await;
            }
            triggers.stop().await;
            server.stop().await;
            self.lambda.stop().await;
            front.stop().await;
            database.stop().await;
        }
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        self.lambda.kill();
    }
}

impl std::fmt::Debug for Stack {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Stack").field("origin", &self.origin).finish_non_exhaustive()
    }
}

fn origin(listener: &TcpListener) -> Result<String, StartError> {
    let address = listener.local_addr().map_err(StartError::Serve)?;
    Ok(format!("http://{address}"))
}

/// The same origin with the scheme of a WebSocket.
fn websocket_origin(origin: &str) -> String {
    origin.replacen("http", "ws", 1)
}

fn page_of(origin: &str) -> String {
    format!("{origin}{}", page::PATH)
}

fn issuer(origin: &str) -> String {
    format!("{origin}{}", identity::PATH)
}

async fn health() -> axum::response::Response {
    http::json(StatusCode::OK, &json!({ "status": "ready" }))
}

/// Makes the folder and takes it for this stack, for as long as the file is open: two engines on one
/// database file would spoil it.
fn lock(data: &Data) -> Result<Option<Arc<File>>, StartError> {
    let Data::Directory(path) = data else { return Ok(None) };
    let error = |source| StartError::Data { path: path.clone(), source };
    // What is in it, secrets of buckets included, is for nobody else on this machine.
    DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(error)?;
    let file = File::create(path.join("lock")).map_err(error)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(Arc::new(file))),
        Err(TryLockError::WouldBlock) => Err(StartError::DataInUse { path: path.clone() }),
        Err(TryLockError::Error(source)) => Err(error(source)),
    }
}
