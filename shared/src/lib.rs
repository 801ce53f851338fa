//! What the functions share: authentication, HTTP answers, domain rules and the single-table store.
//!
//! A request flows `runtime` -> the function's own `handle` -> [`App`] (who is it, what may they) ->
//! `store` (one read, or one conditional transaction) -> `http` (the answer). `domain` holds the
//! rules that need no I/O. Nothing here knows a route.

mod agents;
mod app;
mod auth;
mod cause;
pub mod config;
pub mod domain;
pub mod http;
mod metrics;
mod runtime;
pub mod store;
mod stream;
mod web;

pub use agents::{Agents, SocketEvent};
pub use app::{Access, App, Sight, aws_config};
pub use auth::{AuthError, Caller, IdentityProvider, Profile, TokenError, Tokens};
pub use config::{Config, ConfigError};
pub use runtime::{Context, StartError, serve, serve_deprecated, serve_sockets};
pub use stream::{StreamError, serve_stream};
pub use web::{Web, WebAnswer, WebError};
