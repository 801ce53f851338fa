//! What a handler is given: who is asking, what they may see, and the store.

use std::time::Duration;

use aws_config::{BehaviorVersion, timeout::TimeoutConfig};
use aws_smithy_http_client::tls::{Provider, TlsContext, TrustStore, rustls_provider::CryptoMode};
use base64::{Engine, engine::general_purpose::STANDARD};

use crate::{
    Caller, Config, IdentityProvider, Profile, StartError,
    domain::{Bucket, BucketId, Email, Member, Right, Target, Timestamp, User},
    http::{BucketView, Problem, Request},
    runtime::Context,
    store::{RegisterError, Store, StoreError},
};

/// What all routes about buckets need, built once per process.
#[derive(Debug)]
pub struct App {
    /// The table.
    pub store: Store,
    /// The deployment's configuration.
    pub config: Config,
    identity: IdentityProvider,
}

/// A caller's way into one bucket.
#[derive(Debug)]
pub struct Access {
    /// Who is asking.
    pub caller: Caller,
    /// The live bucket that the path names.
    pub bucket: Bucket,
    /// The caller's membership in it.
    pub member: Member,
}

/// What is known of a caller.
#[derive(Debug)]
pub enum Sight {
    /// A person with a verified address, known from now on if not before.
    Known(User),
    /// Without a verified address: neither owns nor joins anything.
    Unverified(Profile),
    /// With an address that another subject has claimed.
    EmailTaken(Profile),
}

impl Context for App {
    async fn start() -> Result<Self, StartError> {
        let config = Config::from_environment()?;
        let identity = IdentityProvider::new(&config);
        let store = Store::new(&aws_config().await?, &config.table_name, &config.plans);
        // What opens during INIT is free of charge and of waiting.
        tokio::join!(store.connect(), identity.prepare());
        Ok(Self { store, config, identity })
    }
}

impl App {
    /// The clock.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        Timestamp::now()
    }

    /// Whose token `request` carries.
    ///
    /// # Errors
    /// 401 for a missing or bad token, 503 where no key is there to verify it with.
    pub async fn caller(&self, request: &Request) -> Result<Caller, Problem> {
        Ok(self.identity.authenticate(request).await?)
    }

    /// The caller's way into the bucket that the path's `{id}` names.
    ///
    /// # Errors
    /// As [`App::caller`]; 404 where there is no such live bucket or the caller is not in it.
    pub async fn access(&self, request: &Request) -> Result<Access, Problem> {
        let (caller, id) = self.asked(request).await?;
        let membership = self.store.membership(&id, &caller.user_id).await?;
        self.access_of(caller, &id, membership).await
    }

    /// As [`App::access`], together with what `read` gives of the bucket. Both are asked for at the same time, which
    /// saves who reads a round trip; nobody is given what they may not see.
    ///
    /// # Errors
    /// As [`App::access`], and those of `read`.
    pub async fn access_with<T>(
        &self,
        request: &Request,
        read: impl AsyncFn(&BucketId) -> Result<T, StoreError>,
    ) -> Result<(Access, T), Problem> {
        let (caller, id) = self.asked(request).await?;
        let (membership, rows) = tokio::join!(self.store.membership(&id, &caller.user_id), read(&id));
        let membership = membership?;
        let was_member = membership.is_some();
        let access = self.access_of(caller, &id, membership).await?;
        // Who has only now become a member was not among what was read before.
        let rows = if was_member { rows } else { read(&id).await };
        Ok((access, rows?))
    }

    /// Whose token `request` carries, and which bucket the path's `{id}` names.
    async fn asked(&self, request: &Request) -> Result<(Caller, BucketId), Problem> {
        let caller = self.caller(request).await?;
        let id = request.path_parameter("id").and_then(|id| BucketId::try_from(id.to_owned()).ok());
        Ok((caller, id.ok_or_else(Problem::bucket_not_found)?))
    }

    /// The way of `caller` into the bucket `id`, in which they have `membership` as far as the table knows.
    async fn access_of(
        &self,
        caller: Caller,
        id: &BucketId,
        membership: Option<(Bucket, Member)>,
    ) -> Result<Access, Problem> {
        if let Some((bucket, member)) = membership {
            return Ok(Access { caller, bucket, member });
        }
        // First sight: an invitation may be waiting for this person's address.
        let known = self.store.user(&caller.user_id).await?;
        if let (Sight::Known(_), true) = self.sight_of(&caller, known).await?
            && let Some((bucket, member)) = self.store.membership(id, &caller.user_id).await?
        {
            return Ok(Access { caller, bucket, member });
        }
        Err(Problem::bucket_not_found())
    }

    /// What is known of `caller`. A person with a verified address is recorded at first sight, and only
    /// then is the identity provider asked; invitations of the address become memberships.
    ///
    /// # Errors
    /// 503 where the table or, at first sight, the identity provider does not answer.
    pub async fn sight(&self, caller: &Caller) -> Result<Sight, Problem> {
        let known = self.store.user(&caller.user_id).await?;
        Ok(self.sight_of(caller, known).await?.0)
    }

    /// What is known of `caller`, and the live buckets that they are in, oldest first.
    ///
    /// # Errors
    /// As [`App::sight`].
    pub async fn memberships(&self, caller: &Caller) -> Result<(Sight, Vec<(Bucket, Member)>), Problem> {
        let (known, memberships) = self.store.user_with_memberships(&caller.user_id).await?;
        match self.sight_of(caller, known).await? {
            (sight, true) => Ok((sight, self.store.user_with_memberships(&caller.user_id).await?.1)),
            (sight, false) => Ok((sight, memberships)),
        }
    }

    /// What is known of `caller`, of whom `known` is in the table, and whether finding out may have
    /// changed their memberships.
    async fn sight_of(&self, caller: &Caller, known: Option<User>) -> Result<(Sight, bool), Problem> {
        let first = known.is_none();
        let user = if let Some(user) = known {
            self.at_present_address(caller, user).await?
        } else {
            let profile = self.identity.profile(caller).await?;
            let Some(email) = profile.verified_email() else {
                return Ok((Sight::Unverified(profile), false));
            };
            match self.store.register(&caller.user_id, email, caller.issued_at(), &profile.username).await {
                Ok(user) => user,
                Err(RegisterError::EmailTaken) => return Ok((Sight::EmailTaken(profile), false)),
                Err(RegisterError::Store(error)) => return Err(error.into()),
            }
        };
        let unfinished = user.unfinished;
        if unfinished {
            self.store.settle(&user, self.now()).await?;
        }
        Ok((Sight::Known(user), first || unfinished))
    }

    /// `user`, moved to the verified address that `caller`'s token names, if that is another one that
    /// nobody has.
    async fn at_present_address(&self, caller: &Caller, user: User) -> Result<User, Problem> {
        let profile = self.identity.claimed_profile(caller);
        let Some(email) = profile.as_ref().and_then(Profile::verified_email) else {
            return Ok(user);
        };
        match self.store.change_address(user.clone(), email, caller.issued_at()).await {
            Ok(moved) => Ok(moved),
            Err(RegisterError::EmailTaken) => Ok(user),
            Err(RegisterError::Store(error)) => Err(error.into()),
        }
    }

    /// The caller as a person who may own a bucket.
    ///
    /// # Errors
    /// As [`App::sight`]; 403 `email_unverified` or `email_taken`.
    pub async fn user(&self, caller: &Caller) -> Result<User, Problem> {
        match self.sight(caller).await? {
            Sight::Known(user) => Ok(user),
            Sight::Unverified(_) => Err(Problem::email_unverified()),
            Sight::EmailTaken(_) => Err(Problem::email_taken()),
        }
    }

    /// `bucket` as `member` sees it, reached by `request`.
    #[must_use]
    pub fn view<'a>(&self, bucket: &'a Bucket, member: &'a Member, request: &Request) -> BucketView<'a> {
        // The published clients send a bucket's requests to the origin that the bucket names.
        let origin = request.origin(self.config.public_origin.as_deref());
        BucketView::new(bucket, member, origin, self.now())
    }
}

impl Access {
    /// Who has the address `email` now. That they still have it, and are a member of this bucket, the
    /// change itself makes sure of.
    ///
    /// # Errors
    /// 404 `user_not_found` where nobody has the address.
    pub async fn user_at(&self, app: &App, email: Email) -> Result<Target, Problem> {
        let id = app.store.user_of_address(&email).await?.ok_or_else(Problem::user_not_found)?;
        Ok(Target { id, email })
    }

    /// Refuses a member whose role has not `right`. The transaction that follows repeats this, since
    /// roles change.
    ///
    /// # Errors
    /// 403 `role_too_low`.
    pub fn require(&self, right: Right) -> Result<(), Problem> {
        if self.member.role.may(right) { Ok(()) } else { Err(Problem::role_too_low(right)) }
    }
}

impl Context for IdentityProvider {
    async fn start() -> Result<Self, StartError> {
        Ok(Self::new(&Config::from_environment()?))
    }
}

impl Context for () {
    async fn start() -> Result<Self, StartError> {
        Ok(())
    }
}

/// What AWS clients are configured with. Endpoints, region and credentials come from the environment,
/// as for any AWS SDK.
///
/// # Errors
/// No TLS client can be made.
pub async fn aws_config() -> Result<aws_config::SdkConfig, StartError> {
    let tls = TlsContext::builder()
        .with_trust_store(amazon_roots())
        .build()
        .map_err(|error| StartError::Other(format!("no TLS client can be made: {error}")))?;
    let http = aws_smithy_http_client::Builder::new()
        .tls_provider(Provider::Rustls(CryptoMode::AwsLc))
        .tls_context(tls)
        .build_https();
    // Together well below the functions' timeout of 10 seconds: who waits gets a 503, not a cut line.
    let timeouts = TimeoutConfig::builder()
        .connect_timeout(Duration::from_secs(1))
        .operation_attempt_timeout(Duration::from_secs(2))
        .operation_timeout(Duration::from_secs(6))
        .build();
    Ok(aws_config::defaults(BehaviorVersion::latest())
        .http_client(http)
        .timeout_config(timeouts)
        .load()
        .await)
}

/// The root certificates that AWS's endpoints chain to (Amazon Trust Services and its Starfield
/// root). Loading the system's whole store would be the largest part of a function's start.
fn amazon_roots() -> TrustStore {
    let is_amazon = |certificate: &[u8]| {
        [b"Amazon Root CA".as_slice(), b"Starfield Services Root"]
            .iter()
            .any(|name| certificate.windows(name.len()).any(|window| window == *name))
    };
    webpki_root_certs::TLS_SERVER_ROOT_CERTS
        .iter()
        .filter(|certificate| is_amazon(certificate))
        .map(|certificate| {
            format!(
                "-----BEGIN CERTIFICATE-----\n{}\n-----END CERTIFICATE-----\n",
                STANDARD.encode(certificate)
            )
        })
        .fold(TrustStore::empty(), TrustStore::with_pem_certificate)
}
