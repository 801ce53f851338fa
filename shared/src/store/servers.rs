//! Servers and their agents, who show the bucket's keys instead of a person's token.

use std::{collections::BTreeSet, fmt, net::IpAddr};

use aws_lc_rs::{constant_time::verify_slices_are_equal, digest};

use super::{
    Store, StoreError,
    audit::{self, Action},
    buckets::{CHANGE_ATTEMPTS, before_attempt, live},
    items::{AgentAttemptsRow, AgentConnectionRow, AgentKeyRow, Item, ServerRow, from_item},
    keys::{Key, SERVER_PREFIX},
    members::{PeopleError, check_right, without_right},
    plans::{is_on_same_plan, plan_as_read},
    transaction::{Refused, Write},
};
use crate::domain::{
    Bucket, BucketId, PublicId, Report, Right, SecretId, Server, ServerName, Timestamp, UserId,
};

/// How many different wrong keys one address may try in [`ATTEMPTS_SECONDS`].
const ATTEMPTS: usize = 20;

/// How long attempts count together.
const ATTEMPTS_SECONDS: u32 = 600;

/// How many connections of one name are remembered; more are left of connections that ended without a word.
const CONNECTIONS: usize = 16;

/// How long an agent whose connection was closed for the size of what it sends is kept from trying again: it
/// would every second.
const OVERSIZED_SECONDS: u32 = 600;

/// How long a connection is remembered: longer than API Gateway lets one live, which is two hours.
const CONNECTION_SECONDS: u32 = 3 * 3_600;

/// What an agent shows. Its `Debug` shows no secret.
#[derive(Clone, Copy)]
pub struct AgentKeys<'a> {
    /// The public half of a bucket's keys.
    pub public_id: &'a str,
    /// The secret half.
    pub secret_id: &'a str,
    /// The address that the agent calls from.
    pub address: Option<IpAddr>,
}

impl fmt::Debug for AgentKeys<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("AgentKeys").field("public_id", &self.public_id).finish_non_exhaustive()
    }
}

/// An agent that has shown the right keys.
#[derive(Debug)]
pub struct Agent {
    /// The live bucket that the keys are of.
    pub bucket: Bucket,
    /// The server of the name that the agent gives, if it is linked.
    pub server: Option<Server>,
}

/// Why an agent was turned away.
#[derive(Debug, thiserror::Error)]
pub enum AgentError {
    /// No live bucket has these keys.
    #[error("no bucket has these keys")]
    WrongKeys,
    /// The address has tried too many.
    #[error("too many wrong keys were tried from this address")]
    TooManyAttempts,
    /// All servers of the plan are linked.
    #[error("all {servers} servers are linked")]
    ServerLimit {
        /// The servers of the plan.
        servers: u32,
    },
    /// What the agent sends is too large for a connection.
    #[error("what the agent sends is too large for a connection")]
    Oversized,
    /// The server is not linked, or not any more.
    #[error("the server is not linked")]
    NotLinked,
    /// What the decision rested on kept changing.
    #[error("it kept changing meanwhile")]
    Changed,
    /// The table failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Why a server was not deleted.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// No server of the bucket has this name.
    #[error("no server has this name")]
    NotFound,
    /// Its agent is connected, and would link it again.
    #[error("the server is connected")]
    Connected,
    /// What is true of all changes of a bucket.
    #[error(transparent)]
    People(#[from] PeopleError),
}

impl From<StoreError> for ServerError {
    fn from(error: StoreError) -> Self {
        Self::People(error.into())
    }
}

/// The guard that `bucket` lives and has the secret that the agent showed.
fn check_secret(bucket: &Bucket) -> Write {
    with_secret(Write::check(Key::bucket(&bucket.id)).not_deleted(), bucket)
}

fn with_secret(write: Write, bucket: &Bucket) -> Write {
    write.when("#secret_id = :secret_id").value(":secret_id", bucket.secret_id.as_str())
}

/// Deletes `server` of `bucket`, if nothing was heard of it since it was read.
fn delete_as_read(bucket: &BucketId, server: &Server) -> Write {
    let write = Write::delete(Key::server(bucket, &server.name))
        .when("#last_seen = :last_seen")
        .value(":last_seen", server.last_seen);
    if server.connections.is_empty() {
        return write.when("attribute_not_exists(#connections)");
    }
    let connections = server.connections.iter().cloned().collect::<BTreeSet<_>>();
    write.when("#connections = :connections").value(":connections", &connections)
}

/// What a wrong pair of keys is remembered by: it tells nothing, and the same pair again is no new guess.
fn mark(keys: &AgentKeys<'_>) -> String {
    let text = format!("{} {}", keys.public_id, keys.secret_id);
    let digest = digest::digest(&digest::SHA256, text.as_bytes());
    digest.as_ref().iter().take(8).fold(String::new(), |mark, byte| mark + &format!("{byte:02x}"))
}

/// The part of an address that one machine or household has to itself: all of IPv4's, a /64 of IPv6's.
fn subnet(address: Option<IpAddr>) -> String {
    match address {
        None => "unknown".to_owned(),
        Some(IpAddr::V4(address)) => address.to_string(),
        Some(IpAddr::V6(address)) => {
            let [a, b, c, d, ..] = address.segments();
            format!("{a:x}:{b:x}:{c:x}:{d:x}::/64")
        }
    }
}

impl Store {
    /// The servers that are linked to `bucket`, by name.
    ///
    /// # Errors
    /// The table failed.
    pub async fn servers(&self, bucket: &BucketId) -> Result<Vec<Server>, StoreError> {
        let items = self.query(&Key::bucket(bucket).pk, Some(SERVER_PREFIX)).await?;
        items.into_iter().map(|item| Ok(from_item::<ServerRow>(item)?.into())).collect()
    }

    /// Whose `keys` are, and the server `name` of that bucket. Takes as long whichever half is wrong, and
    /// counts wrong ones by address.
    ///
    /// # Errors
    /// The keys are wrong, or too many wrong ones were tried from this address.
    pub async fn agent(
        &self,
        keys: &AgentKeys<'_>,
        name: &ServerName,
        now: Timestamp,
    ) -> Result<Agent, AgentError> {
        let public_id = PublicId::try_from(keys.public_id.to_owned()).ok();
        let attempts_key = Key::agent_attempts(&subnet(keys.address));
        let key = public_id.as_ref().map_or_else(Key::nothing, Key::agent_key);
        let mut found = self.batch_get(&[key.clone(), attempts_key.clone()]).await?;
        let attempts = found.remove(&attempts_key).map(from_item::<AgentAttemptsRow>).transpose()?;
        let attempts = attempts.filter(|attempts| attempts.until > now);
        let bucket = found.remove(&key).map(from_item::<AgentKeyRow>).transpose()?.map(|row| row.bucket_id);
        // Asked for also where there is none.
        let (bucket_key, server_key) = match &bucket {
            Some(bucket) => (Key::bucket(bucket), Key::server(bucket, name)),
            None => (Key::nothing(), Key::nowhere()),
        };
        let mut found = self.batch_get(&[bucket_key.clone(), server_key.clone()]).await?;
        let bucket = live(found.remove(&bucket_key))?;
        let secret = bucket.as_ref().map_or("", |bucket| bucket.secret_id.as_str());
        let is_right = verify_slices_are_equal(secret.as_bytes(), keys.secret_id.as_bytes()).is_ok();
        // Right keys are right from anywhere: an agent that is linked must not suffer from who shares its
        // address, and nobody guesses 77 bits.
        let Some(bucket) = bucket.filter(|_| is_right) else {
            if attempts.as_ref().is_some_and(|attempts| attempts.tried.len() >= ATTEMPTS) {
                return Err(AgentError::TooManyAttempts);
            }
            self.count_attempt(keys, attempts, now).await?;
            return Err(AgentError::WrongKeys);
        };
        let server = found.remove(&server_key).map(from_item::<ServerRow>).transpose()?;
        Ok(Agent { bucket, server: server.map(Into::into) })
    }

    /// Counts an attempt with wrong keys, unless the same ones were counted already.
    async fn count_attempt(
        &self,
        keys: &AgentKeys<'_>,
        attempts: Option<AgentAttemptsRow>,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        let (mark, until) = (mark(keys), now.plus_seconds(ATTEMPTS_SECONDS));
        let write = match attempts {
            Some(attempts) if attempts.tried.contains(&mark) => return Ok(()),
            Some(attempts) => Write::update(Key::agent_attempts(&subnet(keys.address)), "ADD #tried :mark")
                .when("#until = :until")
                .value(":mark", &BTreeSet::from([mark]))
                .value(":until", attempts.until),
            None => Write::put(&AgentAttemptsRow {
                subnet: subnet(keys.address),
                tried: BTreeSet::from([mark]),
                until,
                ttl: until.as_seconds(),
            })
            .when("(attribute_not_exists(#pk) OR #until <= :now)")
            .value(":now", now),
        };
        // Where another attempt came between, this one goes uncounted.
        self.write_if("count_attempt", write).await.map(drop)
    }

    /// Links the server `name` to the bucket of `agent`, or notes what its agent reports. Tells whether it
    /// is new.
    ///
    /// # Errors
    /// The bucket or its secret has changed, or it has no place for one more server.
    pub async fn link_server(
        &self,
        keys: &AgentKeys<'_>,
        mut agent: Agent,
        name: &ServerName,
        report: &Report,
        now: Timestamp,
    ) -> Result<bool, AgentError> {
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            let outcome = match &agent.server {
                Some(server) if !server.is_news(report, keys.address, now) => return Ok(false),
                Some(server) => self.note_report(&agent.bucket, server, report, keys.address, now).await,
                None => self.link_new_server(&agent.bucket, name, report, keys.address, now).await,
            };
            match outcome {
                Ok(()) => return Ok(agent.server.is_none()),
                Err(AgentError::Changed) => {}
                Err(error) => return Err(error),
            }
            agent = self.agent(keys, name, now).await?;
        }
        Err(AgentError::Changed)
    }

    async fn link_new_server(
        &self,
        bucket: &Bucket,
        name: &ServerName,
        report: &Report,
        ip: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), AgentError> {
        let servers = self.plans.limits(&bucket.plan_at(now)).servers;
        let server = Server {
            name: name.clone(),
            report: report.clone(),
            ip,
            connections: Vec::new(),
            oversized_at: None,
            linked_at: now,
            last_seen: now,
        };
        let place = Write::update(Key::bucket(&bucket.id), "ADD #servers_used :one")
            .not_deleted()
            .when("#servers_used < :servers")
            .value(":one", 1)
            .value(":servers", servers);
        let place = with_secret(plan_as_read(place, bucket), bucket);
        let read = bucket.clone();
        self.transaction("link_server")
            .guarded(Write::put_new(&ServerRow::new(&bucket.id, &server)), AgentError::Changed)
            .guarded_by(place, move |old| match live(old) {
                Err(error) => error.into(),
                Ok(Some(bucket)) if bucket.secret_id == read.secret_id && is_on_same_plan(&bucket, &read) => {
                    AgentError::ServerLimit { servers }
                }
                Ok(_) => AgentError::Changed,
            })
            .with(audit::entry_of_nobody(&bucket.id, Action::LinkServer, now).about(name).write()?)
            .commit()
            .await
    }

    async fn note_report(
        &self,
        bucket: &Bucket,
        server: &Server,
        report: &Report,
        ip: Option<IpAddr>,
        now: Timestamp,
    ) -> Result<(), AgentError> {
        let Report { hostname, pm2_version, cpus, memory } = report;
        let fields = [
            ("hostname", Some(hostname.as_str().into())),
            ("pm2_version", Some(pm2_version.as_str().into())),
            ("cpus", cpus.map(Into::into)),
            ("memory", memory.map(Into::into)),
            ("ip", ip.map(|ip| ip.to_string().as_str().into())),
            ("last_seen", Some(now.into())),
        ];
        let write = Write::set(Key::server(&bucket.id, &server.name), fields);
        self.transaction("note_report")
            .guarded(check_secret(bucket), AgentError::Changed)
            .guarded(write.when("attribute_exists(#pk)"), AgentError::Changed)
            .commit()
            .await
    }

    /// Notes that an agent of the server of `agent` has opened the connection `id`.
    ///
    /// # Errors
    /// The server is not linked, or the bucket or its secret has changed; or its last connection was closed a
    /// while ago, or just now, for what the agent sends first, which it would send again.
    pub async fn connect_server(&self, agent: &Agent, id: &str, now: Timestamp) -> Result<(), AgentError> {
        let Agent { bucket, server: Some(server) } = agent else { return Err(AgentError::NotLinked) };
        if server.oversized_at.is_some_and(|at| now < at.plus_seconds(OVERSIZED_SECONDS)) {
            return Err(AgentError::Oversized);
        }
        let key = Key::server(&bucket.id, &server.name);
        let ids = BTreeSet::from([id.to_owned()]);
        // More than that are not alive: the others have ended without a word. Nor is one that was oversized.
        let write = if server.connections.len() < CONNECTIONS && server.oversized_at.is_none() {
            Write::update(key, "SET #last_seen = :now ADD #connections :ids")
        } else {
            Write::update(key, "SET #last_seen = :now, #connections = :ids REMOVE #oversized_at")
        };
        let until = now.plus_seconds(CONNECTION_SECONDS);
        let connection = AgentConnectionRow {
            id: id.to_owned(),
            bucket_id: bucket.id.clone(),
            server: server.name.clone(),
            ttl: until.as_seconds(),
        };
        let write = match server.oversized_at {
            Some(at) => write.when("#oversized_at = :oversized_at").value(":oversized_at", at),
            None => write.when("attribute_exists(#pk)").when("attribute_not_exists(#oversized_at)"),
        };
        self.transaction("connect_server")
            .guarded(check_secret(bucket), AgentError::WrongKeys)
            .guarded_by(write.value(":now", now).value(":ids", &ids), |old| match old {
                Some(_) => AgentError::Changed,
                None => AgentError::NotLinked,
            })
            .with(Write::put(&connection))
            .commit()
            .await
    }

    /// Notes that the connection `id` has ended. One that is not known is fine: its server was deleted, or
    /// the end was told before. One that was `oversized`, closed for the size of what the agent sent, leaves
    /// its server as it is: the agent is there, and reports in its other way.
    ///
    /// # Errors
    /// The table failed.
    pub async fn disconnect_server(
        &self,
        id: &str,
        oversized: bool,
        now: Timestamp,
    ) -> Result<(), StoreError> {
        enum Guard {
            Connection,
            Server,
        }
        let key = Key::agent_connection(id);
        let Some(connection) = self.get(&key).await?.map(from_item::<AgentConnectionRow>).transpose()? else {
            return Ok(());
        };
        let gone = || Write::delete(Key::agent_connection(id));
        let key = Key::server(&connection.bucket_id, &connection.server);
        let server = if oversized {
            Write::update(key, "SET #last_seen = :now, #oversized_at = :now")
        } else {
            let ids = BTreeSet::from([id.to_owned()]);
            Write::update(key, "SET #last_seen = :now DELETE #connections :ids").value(":ids", &ids)
        };
        let server = server.when("attribute_exists(#pk)").value(":now", now);
        let committed = self
            .transaction("disconnect_server")
            .guarded(gone().when("attribute_exists(#pk)"), Refused::By(Guard::Connection))
            .guarded(server, Refused::By(Guard::Server))
            .commit()
            .await;
        match committed {
            Ok(()) | Err(Refused::By(Guard::Connection)) => return Ok(()),
            Err(Refused::By(Guard::Server)) => {}
            Err(Refused::Store(error)) => return Err(error),
        }
        self.transaction("forget_connection").with(gone()).commit().await
    }

    /// Deletes the server `name` of `bucket` for `actor`, and frees its place. One whose agent is connected
    /// stays: the agent would link it again.
    ///
    /// # Errors
    /// The bucket is gone, `actor` has not the right, there is no such server, or it is connected.
    pub async fn delete_server(
        &self,
        bucket: &BucketId,
        actor: &UserId,
        name: &ServerName,
        now: Timestamp,
    ) -> Result<(), ServerError> {
        let right = Right::DeleteServer;
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            let server =
                self.get(&Key::server(bucket, name)).await?.map(from_item::<ServerRow>).transpose()?;
            let server = Server::from(server.ok_or(ServerError::NotFound)?);
            if server.is_active(now) {
                return Err(ServerError::Connected);
            }
            let committed = self
                .transaction("delete_server")
                .guarded(
                    Write::update(Key::bucket(bucket), "ADD #servers_used :less").live().value(":less", -1),
                    ServerError::from(PeopleError::BucketNotFound),
                )
                .guarded_by(check_right(bucket, actor, right), move |old: Option<Item>| {
                    ServerError::People(without_right(right)(old))
                })
                // Whoever connects or reports meanwhile is heard of, even within one millisecond.
                .guarded(delete_as_read(bucket, &server), ServerError::People(PeopleError::Changed))
                .with(audit::entry(bucket, actor, Action::DeleteServer, now).about(name).write()?)
                .commit()
                .await;
            match committed {
                Err(ServerError::People(PeopleError::Changed)) => {}
                outcome => return outcome,
            }
        }
        Err(ServerError::People(PeopleError::Changed))
    }

    /// Gives `bucket` another secret, for its owner `actor`: agents that show the old one are turned away
    /// from then on. Gives the bucket as it is then.
    ///
    /// # Errors
    /// The bucket is gone, or `actor` is not its owner.
    pub async fn rotate_secret(
        &self,
        mut bucket: Bucket,
        actor: &UserId,
        now: Timestamp,
    ) -> Result<Bucket, PeopleError> {
        let secret_id = SecretId::random().map_err(StoreError::from)?;
        for attempt in 0..CHANGE_ATTEMPTS {
            before_attempt(attempt).await?;
            let (id, version) = (bucket.id.clone(), bucket.version);
            let rotated = bucket.with_secret(secret_id.clone(), now);
            let me = actor.clone();
            let fields = [
                ("secret_id", Some(rotated.secret_id.as_str().into())),
                ("updated_at", Some(now.into())),
                ("version", Some(rotated.version.into())),
            ];
            let committed = self
                .transaction("rotate_secret")
                .guarded_by(
                    Write::set(Key::bucket(&id), fields).at_version(version).owned_by(actor),
                    move |old| match live(old) {
                        Err(error) => error.into(),
                        Ok(None) => PeopleError::BucketNotFound,
                        Ok(Some(bucket)) if bucket.owner_id != me => {
                            PeopleError::RoleTooLow(Right::RotateSecret)
                        }
                        Ok(Some(_)) => PeopleError::Changed,
                    },
                )
                .with(audit::entry(&id, actor, Action::RotateSecret, now).write()?)
                .commit()
                .await;
            match committed {
                Ok(()) => return Ok(rotated),
                Err(PeopleError::Changed) => {}
                Err(error) => return Err(error),
            }
            let Some((read, _)) = self.membership(&id, actor).await? else {
                return Err(PeopleError::BucketNotFound);
            };
            bucket = read;
        }
        Err(PeopleError::Changed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_counts_as_far_as_one_has_it_to_oneself() {
        assert_eq!(subnet("192.0.2.7".parse().ok()), "192.0.2.7");
        assert_eq!(subnet("2001:db8:1:2:3:4:5:6".parse().ok()), "2001:db8:1:2::/64");
        assert_eq!(subnet("2001:db8:1:2:ffff::1".parse().ok()), "2001:db8:1:2::/64");
        assert_eq!(subnet(None), "unknown");
    }

    #[test]
    fn the_mark_of_a_wrong_pair_tells_nothing_and_no_two_pairs_share_one() {
        let of = |public_id, secret_id| mark(&AgentKeys { public_id, secret_id, address: None });

        assert_eq!(of("a", "b"), of("a", "b"));
        assert_ne!(of("a", "b"), of("a", "c"));
        assert_ne!(of("a", "b"), of("b", "a"));
        assert_eq!(of("secret", "secret").len(), 16);
    }
}
