//! Servers, and what their agents say of them.

use std::net::IpAddr;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::Timestamp;

/// How long after its agent was last heard of a server may still count as connected: agents report every
/// 60 seconds, and every other report is noted.
const SILENCE_SECONDS: u32 = 300;

/// How old the last note of a report may get before the next report is noted.
const NOTED_EVERY_SECONDS: u32 = 100;

/// A server's name, by which it is one server: 1 to 128 visible ASCII characters. Agents count the bytes
/// of a longer encoding wrongly, and cut their message off.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(extend("pattern" = "^ *[!-~][ -~]*$", "maxLength" = 128))]
pub struct ServerName(String);

/// A text that is no server's name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("must be 1 to 128 ASCII characters, none of them a line break or another control character")]
pub struct ServerNameError;

impl ServerName {
    /// The name.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl TryFrom<String> for ServerName {
    type Error = ServerNameError;

    fn try_from(name: String) -> Result<Self, ServerNameError> {
        let is_visible = name.bytes().all(|byte| byte == b' ' || byte.is_ascii_graphic());
        let is_blank = name.bytes().all(|byte| byte == b' ');
        if (1..=128).contains(&name.len()) && is_visible && !is_blank {
            Ok(Self(name))
        } else {
            Err(ServerNameError)
        }
    }
}

impl From<ServerName> for String {
    fn from(ServerName(name): ServerName) -> Self {
        name
    }
}

/// What an agent reports of its server. Nothing of it is needed, so nothing of it can be wrong: what
/// cannot be understood is left out, and what is too long is cut.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// The name that the machine has for itself.
    pub hostname: String,
    /// The version of its pm2.
    pub pm2_version: String,
    /// How many processors it has.
    pub cpus: Option<u32>,
    /// Its memory, in MB of a million bytes.
    pub memory: Option<u32>,
}

impl Report {
    /// The report in an agent's words: pm2's own agent sends a list of processors and MB, others how many
    /// processors there are and bytes, and some neither.
    #[must_use]
    pub fn of_agent(data: &Map<String, Value>) -> Self {
        let text = |name| {
            let text = data.get(name).and_then(Value::as_str).unwrap_or_default();
            text.chars().filter(|c| !c.is_control()).take(255).collect()
        };
        let cpus = data.get("CPUS").and_then(|cpus| match cpus.as_array() {
            Some(cpus) => u32::try_from(cpus.len()).ok(),
            None => cpus.as_u64().and_then(|cpus| u32::try_from(cpus).ok()),
        });
        // Nobody has ten million MB, and nobody less than ten million bytes.
        let megabytes = |memory: f64| if memory < 1e7 { memory } else { memory / 1e6 };
        let memory = data.get("MEMORY").and_then(Value::as_f64).map(megabytes);
        Self {
            hostname: text("HOSTNAME"),
            pm2_version: text("PM2_VERSION"),
            cpus: cpus.filter(|cpus| *cpus > 0),
            memory: memory
                .and_then(|memory| format!("{memory:.0}").parse().ok())
                .filter(|memory| *memory > 0),
        }
    }
}

/// A server that was linked to a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    /// Its name in the bucket.
    pub name: ServerName,
    /// What its agent reported last.
    pub report: Report,
    /// Where its agent called from.
    pub ip: Option<IpAddr>,
    /// The open connections of agents of this name; some may be gone without a word.
    pub connections: Vec<String>,
    /// When a connection of it was closed for the size of what its agent sends, if the last one was.
    pub oversized_at: Option<Timestamp>,
    /// When it was first linked.
    pub linked_at: Timestamp,
    /// When its agent was last heard of.
    pub last_seen: Timestamp,
}

impl Server {
    /// Whether an agent is connected at `now`. An end of a connection that was never told is noticed by the
    /// silence that follows it.
    #[must_use]
    pub fn is_active(&self, now: Timestamp) -> bool {
        !self.connections.is_empty() && now < self.last_seen.plus_seconds(SILENCE_SECONDS)
    }

    /// Whether what an agent says at `now` from `ip` is worth noting.
    #[must_use]
    pub fn is_news(&self, report: &Report, ip: Option<IpAddr>, now: Timestamp) -> bool {
        self.report != *report || self.ip != ip || now >= self.last_seen.plus_seconds(NOTED_EVERY_SECONDS)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_name_is_a_line_of_ascii() {
        for name in ["web-1", "a", "My server (old)", &"x".repeat(128)] {
            let parsed = ServerName::try_from(name.to_owned()).unwrap();
            assert_eq!((parsed.as_str(), serde_json::to_value(&parsed).unwrap()), (name, json!(name)));
        }
        for name in ["", " ", "\n", "a\tb", "größe", "a\u{7f}", &"x".repeat(129)] {
            assert_eq!(ServerName::try_from(name.to_owned()), Err(ServerNameError), "{name:?}");
        }
    }

    #[test]
    fn a_report_is_what_can_be_understood_of_it() {
        let report = |data: Value| Report::of_agent(data.as_object().unwrap());
        let of = |hostname: &str, pm2_version: &str, cpus, memory| Report {
            hostname: hostname.to_owned(),
            pm2_version: pm2_version.to_owned(),
            cpus,
            memory,
        };

        let pm2 = json!({ "HOSTNAME": "vm", "PM2_VERSION": "7.0.4", "CPUS": [{}, {}], "MEMORY": 25276.45 });
        assert_eq!(report(pm2), of("vm", "7.0.4", Some(2), Some(25_276)));
        let go = json!({ "HOSTNAME": "vm", "PM2_VERSION": "1", "CPUS": 8, "MEMORY": 16_000_000_000_u64 });
        assert_eq!(report(go), of("vm", "1", Some(8), Some(16_000)));
        assert_eq!(report(json!({})), Report::default());
        let junk = json!({ "HOSTNAME": 1, "PM2_VERSION": null, "CPUS": "two", "MEMORY": [] });
        assert_eq!(report(junk), Report::default());
        let wild = json!({ "HOSTNAME": "a\nb", "CPUS": [], "MEMORY": -5, "PM2_VERSION": "x".repeat(300) });
        assert_eq!(report(wild), of("ab", &"x".repeat(255), None, None));
        // Ten million bytes are ten MB, and less than half a MB is none.
        assert_eq!(report(json!({ "MEMORY": 1e7 })), of("", "", None, Some(10)));
        assert_eq!(report(json!({ "CPUS": 0, "MEMORY": 0.4 })), Report::default());
        let huge = json!({ "CPUS": 1e300, "MEMORY": 1e300 });
        assert_eq!(report(huge), Report::default());
    }

    fn server(connections: &[&str], last_seen: i64) -> Server {
        Server {
            name: ServerName("web-1".to_owned()),
            report: Report::default(),
            ip: None,
            connections: connections.iter().map(ToString::to_string).collect(),
            oversized_at: None,
            linked_at: Timestamp::from_seconds(0),
            last_seen: Timestamp::from_seconds(last_seen),
        }
    }

    #[test]
    fn a_server_is_active_while_a_connection_is_open_and_something_is_heard() {
        let at = Timestamp::from_seconds;

        assert!(server(&["a"], 1_000).is_active(at(1_299)));
        assert!(!server(&["a"], 1_000).is_active(at(1_300)));
        assert!(!server(&[], 1_000).is_active(at(1_000)));
    }

    #[test]
    fn the_same_report_is_noted_now_and_then_and_another_one_at_once() {
        let at = Timestamp::from_seconds;
        let known = server(&[], 1_000);
        let other = Report { cpus: Some(2), ..Report::default() };

        assert!(!known.is_news(&Report::default(), None, at(1_099)));
        assert!(known.is_news(&Report::default(), None, at(1_100)));
        assert!(known.is_news(&other, None, at(1_001)));
        assert!(known.is_news(&Report::default(), Some(IpAddr::from([192, 0, 2, 1])), at(1_001)));
    }
}
