//! What the functions are given that agents call: they show a bucket's keys, no token.

use lambda_http::aws_lambda_events::apigw::ApiGatewayWebsocketProxyRequest;

use std::{fmt, net::IpAddr};

use lambda_http::http::HeaderMap;

use crate::{Config, StartError, app::aws_config, domain::Timestamp, runtime::Context, store::Store};

/// What all routes of agents need, built once per process.
#[derive(Debug)]
pub struct Agents {
    /// The table.
    pub store: Store,
    /// The deployment's configuration.
    pub config: Config,
}

impl Context for Agents {
    async fn start() -> Result<Self, StartError> {
        let config = Config::from_environment()?;
        let store = Store::new(&aws_config().await?, &config.table_name, &config.plans);
        store.connect().await;
        Ok(Self { store, config })
    }
}

impl Agents {
    /// The clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }
}

/// What happens to a connection of a WebSocket API. Its `Debug` shows no header: they hold secrets.
pub struct SocketEvent {
    connection: String,
    headers: HeaderMap,
    address: Option<IpAddr>,
    route: String,
    close_code: Option<i64>,
}

impl fmt::Debug for SocketEvent {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("SocketEvent").field("route", &self.route).finish_non_exhaustive()
    }
}

impl From<ApiGatewayWebsocketProxyRequest> for SocketEvent {
    fn from(event: ApiGatewayWebsocketProxyRequest) -> Self {
        let context = event.request_context;
        Self {
            connection: context.connection_id.unwrap_or_default(),
            headers: event.headers,
            address: context.identity.source_ip.and_then(|address| address.parse().ok()),
            route: context.route_key.unwrap_or_default(),
            close_code: context.disconnect_status_code,
        }
    }
}

impl SocketEvent {
    /// The connection's id.
    #[must_use]
    pub fn connection(&self) -> &str {
        &self.connection
    }

    /// The value of the header `name` that the client connected with; none when a connection ends.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).and_then(|value| value.to_str().ok())
    }

    /// The address that the client connected from.
    #[must_use]
    pub fn address(&self) -> Option<IpAddr> {
        self.address
    }

    /// The close code (RFC 6455 7.4) with which the connection has ended, where API Gateway tells it.
    #[must_use]
    pub fn close_code(&self) -> Option<i64> {
        self.close_code
    }

    /// The route: `$connect` or `$disconnect`.
    #[must_use]
    pub fn route(&self) -> &str {
        &self.route
    }
}
