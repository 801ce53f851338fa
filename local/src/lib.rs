//! The one-machine stack: plays API Gateway, Lambda, `DynamoDB` and its streams, SES and an OpenID
//! provider for the functions of a `template.yaml`, on loopback, with nothing else installed.
//!
//! API Gateway is an HTTP API at the stack's origin and, if the template declares one, a WebSocket API at the
//! path that is the name of its stage. Messages of clients go nowhere, and nothing can be sent to them.
//!
//! Each function may do what its policies in the template allow, and is refused the rest as on AWS: see the
//! module `iam`. Whoever comes with other credentials than a function's may do everything.
//!
//! It knows no rule of the product and no route: what there is to play stands in the template. The
//! functions run as they are: only endpoints and credentials in their environment differ.

mod audit;
pub mod client;
mod database;
pub mod functions;
#[doc(hidden)]
pub mod fuzzing;
mod gateway;
mod http;
mod iam;
pub mod identity;
mod ids;
mod lambda;
mod mail;
mod page;
mod secrets;
mod stack;
mod stream;
pub mod template;

pub use database::DatabaseError;
pub use gateway::WebSocketLimits;
pub use identity::Identity;
pub use lambda::{InvokeError, runtime_api};
pub use mail::MailError;
pub use stack::{Data, LogSink, Options, Stack, StartError};
pub use stream::{Filter, StreamError};
pub use template::Template;
