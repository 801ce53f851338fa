//! Calls to services that are not AWS's (the identity provider, Stripe), over the same HTTPS stack as the
//! AWS SDK.

use std::{fmt, sync::OnceLock, time::Duration};

use aws_smithy_http_client::{
    Connector,
    tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode},
};
use aws_smithy_runtime_api::client::{http::HttpConnector, orchestrator::HttpRequest};
use aws_smithy_types::body::SdkBody;
use http_body_util::{BodyExt, Limited};
use serde::de::DeserializeOwned;

use crate::cause::chain;

/// The longest answer that is read: a page of a hundred of Stripe's invoices has less.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Why a service could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum WebError {
    /// An address that is not a URL.
    #[error("`{0}` is not a URL that can be called")]
    Address(String),
    /// No HTTPS client could be made.
    #[error("the HTTPS client could not be made: {0}")]
    Client(String),
    /// No connection, or it broke.
    #[error("{url} does not answer: {reason}")]
    Connection {
        /// What was called.
        url: String,
        /// What went wrong.
        reason: String,
    },
    /// No answer in time.
    #[error("{0} does not answer in time")]
    Timeout(String),
    /// An answer with another status than expected.
    #[error("{url} answers with status {status}")]
    Status {
        /// What was called.
        url: String,
        /// What it answered with.
        status: u16,
    },
    /// An answer that is not what was asked for.
    #[error("{url} answers with something unexpected: {reason}")]
    Content {
        /// What was called.
        url: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A key set without a key that can be used.
    #[error("the identity provider publishes no key that can be used")]
    NoKeys,
    /// It was asked a moment ago, in vain.
    #[error("the identity provider did not answer a moment ago")]
    Waiting,
}

/// An answer of a service. Its `Debug` shows no body: it may hold tokens.
pub struct WebAnswer {
    url: String,
    /// Its status.
    pub status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl fmt::Debug for WebAnswer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter
            .debug_struct("WebAnswer")
            .field("url", &self.url)
            .field("status", &self.status)
            .finish_non_exhaustive()
    }
}

impl WebAnswer {
    /// Whether the status is a success.
    #[must_use]
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The value of the header `name`, in lower case.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// The body as JSON, whatever the status.
    #[must_use]
    pub fn any_json<T: DeserializeOwned>(&self) -> Option<T> {
        serde_json::from_slice(&self.body).ok()
    }

    /// The body as JSON, if the status is a success.
    ///
    /// # Errors
    /// It is none, or the body is not a `T`.
    pub fn json<T: DeserializeOwned>(&self) -> Result<T, WebError> {
        if !self.is_success() {
            return Err(WebError::Status { url: self.url.clone(), status: self.status });
        }
        serde_json::from_slice(&self.body).map_err(|error| WebError::Content {
            url: self.url.clone(),
            // The reason says what is wrong and where, not what stands there.
            reason: format!(
                "{:?} error at line {} column {}",
                error.classify(),
                error.line(),
                error.column()
            ),
        })
    }
}

/// The HTTPS client, made at the first call: loading the system's root certificates takes longer than all
/// else at start, and a deployment with a configured key set may never need them.
#[derive(Debug, Default)]
pub struct Web {
    connector: OnceLock<Connector>,
}

impl Web {
    fn connector(&self) -> Result<&Connector, WebError> {
        if let Some(connector) = self.connector.get() {
            return Ok(connector);
        }
        let tls = TlsContext::builder()
            .with_trust_store(TrustStore::empty().with_native_roots(true))
            .build()
            .map_err(|error| WebError::Client(error.to_string()))?;
        let made =
            Connector::builder().tls_provider(Provider::Rustls(CryptoMode::AwsLc)).tls_context(tls).build();
        Ok(self.connector.get_or_init(|| made))
    }

    /// Sends one request, and waits at most `timeout` from the first byte sent to the last received.
    /// Redirects are not followed: a provider's documents and endpoints are where they say.
    ///
    /// # Errors
    /// There is no answer, or too long a one.
    pub async fn send(
        &self,
        method: &str,
        url: &str,
        headers: &[(&'static str, &str)],
        body: String,
        timeout: Duration,
    ) -> Result<WebAnswer, WebError> {
        let address = || WebError::Address(url.to_owned());
        let mut request = HttpRequest::new(SdkBody::from(body));
        request.set_method(method).map_err(|_unusable| address())?;
        request.set_uri(url).map_err(|_unusable| address())?;
        for (name, value) in headers {
            request.headers_mut().try_insert(*name, (*value).to_owned()).map_err(|_unusable| address())?;
        }
        let connection = |reason: String| WebError::Connection { url: url.to_owned(), reason };
        let call = async {
            let response =
                self.connector()?.call(request).await.map_err(|error| connection(chain(&error)))?;
            let status = response.status().as_u16();
            let owned = |(name, value): (&str, &str)| (name.to_ascii_lowercase(), value.to_owned());
            let headers = response.headers().iter().map(owned).collect();
            let body = Limited::new(response.into_body(), MAX_BYTES)
                .collect()
                .await
                .map_err(|error| connection(error.to_string()))?
                .to_bytes()
                .to_vec();
            Ok(WebAnswer { url: url.to_owned(), status, headers, body })
        };
        tokio::time::timeout(timeout, call).await.unwrap_or_else(|_| Err(WebError::Timeout(url.to_owned())))
    }
}
