//! Permissions: what the policies of a function let it do with the services that the stack plays, decided as
//! IAM decides it.
//!
//! Who is asking says the access key id in the signature (`Credential=`), of which each function has its own;
//! signatures are not verified. Whoever is no function may do everything.
//!
//! Played are `Allow` statements, with the wildcards of IAM in actions and resources, and the condition
//! `StringEquals` on `ses:FromAddress`. A template with another form is refused when it is read: see
//! [`crate::template`]. Not played are policies of resources, of organizations and of sessions, permissions
//! boundaries, and KMS.
//!
//! Source: "Policy evaluation logic", "IAM JSON policy elements" and "Troubleshoot access denied error
//! messages" in the IAM user guide.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};

use axum::http::HeaderMap;
use axum::http::header::AUTHORIZATION;

use crate::template::{ACCOUNT, Function, REGION};

/// The services whose permissions are played.
pub(crate) const SERVICES: [&str; 3] = ["dynamodb", "secretsmanager", "ses"];

/// The one key of the context that a condition may be about.
pub(crate) const FROM_ADDRESS: &str = "ses:FromAddress";

/// A statement of a policy that allows something.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Statement {
    /// Actions such as `dynamodb:GetItem`, or patterns such as `dynamodb:*`.
    pub actions: Vec<String>,
    /// ARNs, or patterns of them.
    pub resources: Vec<String>,
    /// What the condition, if there is one, lets `ses:FromAddress` be.
    pub from_addresses: Option<Vec<String>>,
}

impl Statement {
    fn allows(&self, asked: &Asked) -> bool {
        let Self { actions, resources, from_addresses } = self;
        // Actions are the same in either case; resources are not.
        let action = asked.action.to_ascii_lowercase();
        actions.iter().any(|pattern| matches(&pattern.to_ascii_lowercase(), &action))
            && resources.iter().any(|pattern| matches(pattern, &asked.resource))
            && from_addresses
                .as_ref()
                .is_none_or(|allowed| asked.from_address.as_ref().is_some_and(|from| allowed.contains(from)))
    }
}

/// Whether `text` is of the form `pattern`, in which `*` stands for any characters and `?` for one.
fn matches(pattern: &str, text: &str) -> bool {
    let (mut pattern, mut text) = (pattern.as_bytes(), text.as_bytes());
    // Where to go on when the rest does not match: after the latest `*`, with one more character under it.
    let mut latest: Option<(&[u8], &[u8])> = None;
    loop {
        match (pattern, text) {
            ([b'*', rest @ ..], _) => {
                latest = Some((rest, text));
                pattern = rest;
            }
            ([], []) => return true,
            ([one, rest @ ..], [other, following @ ..]) if one == other || *one == b'?' => {
                (pattern, text) = (rest, following);
            }
            _ => match latest {
                Some((rest, [_, following @ ..])) => {
                    latest = Some((rest, following));
                    (pattern, text) = (rest, following);
                }
                Some((_, [])) | None => return false,
            },
        }
    }
}

/// What somebody wants to do.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Asked {
    /// Such as `dynamodb:GetItem`.
    pub(crate) action: String,
    /// The ARN of what it is done to; `*` where it is done to nothing in particular.
    pub(crate) resource: String,
    /// The context's [`FROM_ADDRESS`], where there is one.
    pub(crate) from_address: Option<String>,
}

impl Asked {
    /// `action` of `service`, done to `resource`.
    pub(crate) fn new(service: &str, action: &str, resource: impl Into<String>) -> Self {
        Self { action: format!("{service}:{action}"), resource: resource.into(), from_address: None }
    }
}

/// The ARN of what is called `name` in `service`, such as `table/Table`.
pub(crate) fn arn(service: &str, name: &str) -> String {
    format!("arn:aws:{service}:{REGION}:{ACCOUNT}:{name}")
}

/// Nothing allows what was asked for. The message is that of AWS.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "User: {user} is not authorized to perform: {action} on resource: {resource} because no identity-based \
     policy allows the {action} action"
)]
pub(crate) struct Denied {
    user: String,
    action: String,
    resource: String,
}

/// The access key id of the function `logical_id`.
pub(crate) fn access_key(logical_id: &str) -> String {
    format!("local-{logical_id}")
}

/// What each function may do, and what it has asked for.
#[derive(Debug, Default)]
pub(crate) struct Permissions {
    /// By access key id.
    callers: BTreeMap<String, Caller>,
}

/// A function that asks for something.
#[derive(Debug)]
pub(crate) struct Caller {
    logical_id: String,
    /// The name of its binary.
    name: String,
    statements: Vec<Statement>,
    used: Mutex<BTreeSet<String>>,
}

impl Permissions {
    /// Those that the template gives to `functions`.
    pub(crate) fn of(functions: &[Function]) -> Self {
        let callers = functions.iter().map(|function| {
            let caller = Caller {
                logical_id: function.logical_id.clone(),
                name: function.name.clone(),
                statements: function.permissions.clone(),
                used: Mutex::default(),
            };
            (access_key(&function.logical_id), caller)
        });
        Self { callers: callers.collect() }
    }

    /// The function that has signed a request with these `headers`; `None` if it was somebody else.
    pub(crate) fn caller(&self, headers: &HeaderMap) -> Option<&Caller> {
        let authorization = headers.get(AUTHORIZATION)?.to_str().ok()?;
        let (_, credential) = authorization.split_once("Credential=")?;
        let (access_key, _) = credential.split_once('/')?;
        self.callers.get(access_key)
    }

    /// The actions that `function` (the name of its binary) has asked for, allowed or not.
    pub(crate) fn actions_used(&self, function: &str) -> BTreeSet<String> {
        let caller = self.callers.values().find(|caller| caller.name == function);
        caller.map(|caller| caller.used().clone()).unwrap_or_default()
    }
}

impl Caller {
    /// Refuses the first of `asked` that no statement allows.
    pub(crate) fn may(&self, asked: &[Asked]) -> Result<(), Denied> {
        self.used().extend(asked.iter().map(|asked| asked.action.clone()));
        let allowed = |asked: &Asked| self.statements.iter().any(|statement| statement.allows(asked));
        match asked.iter().find(|asked| !allowed(asked)) {
            None => Ok(()),
            Some(Asked { action, resource, .. }) => Err(Denied {
                user: format!("arn:aws:sts::{ACCOUNT}:assumed-role/{0}Role/{0}", self.logical_id),
                action: action.clone(),
                resource: resource.clone(),
            }),
        }
    }

    fn used(&self) -> std::sync::MutexGuard<'_, BTreeSet<String>> {
        // Nothing that could panic runs under the lock.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn statement(action: &str, resource: &str) -> Statement {
        Statement {
            actions: vec![action.to_owned()],
            resources: vec![resource.to_owned()],
            from_addresses: None,
        }
    }

    fn permissions(statements: Vec<Statement>) -> Permissions {
        Permissions::of(&[Function {
            logical_id: "CreateFunction".to_owned(),
            name: "create".to_owned(),
            timeout: Duration::from_secs(3),
            memory_size: 128,
            environment: BTreeMap::new(),
            routes: Vec::new(),
            streams: Vec::new(),
            permissions: statements,
        }])
    }

    fn signed_by(access_key: &str) -> HeaderMap {
        let value = format!(
            "AWS4-HMAC-SHA256 Credential={access_key}/20260101/us-east-1/dynamodb/aws4_request, \
             SignedHeaders=host, Signature=0"
        );
        HeaderMap::from_iter([(AUTHORIZATION, value.parse().unwrap())])
    }

    #[test]
    fn a_star_is_any_text_and_a_question_mark_one_character() {
        for (pattern, text) in [
            ("", ""),
            ("*", ""),
            ("*", "any:thing/at all"),
            ("a?c", "abc"),
            ("a*c", "ac"),
            ("a*c", "abcbc"),
            ("*a*b*", "xxaxxbxx"),
            ("secret:stripe-??????", "secret:stripe-AbCdEf"),
            ("a**", "a"),
        ] {
            assert!(matches(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("", "a"),
            ("?", ""),
            ("a", "A"),
            ("a*c", "abcb"),
            ("*ab", "b"),
            ("a?c", "ac"),
            ("secret:stripe-??????", "secret:stripe-other-AbCdEf"),
        ] {
            assert!(!matches(pattern, text), "{pattern} {text}");
        }
        // In no time, whatever the pattern.
        assert!(!matches(&"*a".repeat(1_000), &"a".repeat(999)));
    }

    #[test]
    fn what_one_statement_allows_is_allowed_and_the_rest_is_refused_in_the_words_of_aws() {
        let table = arn("dynamodb", "table/Table");
        let permissions =
            permissions(vec![statement("dynamodb:getitem", &table), statement("dynamodb:*", "*/Other")]);
        let caller = permissions.caller(&signed_by("local-CreateFunction")).unwrap();

        let get = |name: &str| Asked::new("dynamodb", "GetItem", arn("dynamodb", &format!("table/{name}")));
        assert_eq!(caller.may(&[get("Table"), get("Other")]), Ok(()));
        assert_eq!(caller.may(&[]), Ok(()));
        let denied = caller.may(&[get("Other"), Asked::new("dynamodb", "PutItem", table)]).unwrap_err();
        assert_eq!(
            denied.to_string(),
            "User: arn:aws:sts::000000000000:assumed-role/CreateFunctionRole/CreateFunction is not authorized \
             to perform: dynamodb:PutItem on resource: arn:aws:dynamodb:us-east-1:000000000000:table/Table \
             because no identity-based policy allows the dynamodb:PutItem action"
        );
        assert!(caller.may(&[get("Third")]).is_err());
        assert_eq!(
            permissions.actions_used("create"),
            BTreeSet::from(["dynamodb:GetItem", "dynamodb:PutItem"].map(str::to_owned))
        );
        assert!(permissions.actions_used("other").is_empty());
    }

    #[test]
    fn a_condition_has_to_hold_of_what_the_request_says() {
        let allowed = Some(vec!["a@example.com".to_owned()]);
        let permissions =
            permissions(vec![Statement { from_addresses: allowed, ..statement("ses:SendEmail", "*") }]);
        let caller = permissions.caller(&signed_by("local-CreateFunction")).unwrap();
        for (from, holds) in [
            (Some("a@example.com"), true),
            (Some("A@example.com"), false),
            (Some("b@example.com"), false),
            (None, false),
        ] {
            let from_address = from.map(str::to_owned);
            let asked = Asked { from_address, ..Asked::new("ses", "SendEmail", "*") };
            assert_eq!(caller.may(&[asked]).is_ok(), holds, "{from:?}");
        }
    }

    #[test]
    fn only_the_credentials_of_a_function_are_a_functions() {
        let permissions = permissions(Vec::new());
        assert!(permissions.caller(&signed_by("local-CreateFunction")).is_some());
        for access_key in ["local-OtherFunction", "CreateFunction", "local", "", "key"] {
            assert!(permissions.caller(&signed_by(access_key)).is_none(), "{access_key}");
        }
        assert!(permissions.caller(&HeaderMap::new()).is_none());
    }
}
