//! Faults between function and table: an answer that is lost, a transaction that meets others, a table that is
//! busy or silent, a function that is killed. Whatever happens, a change is made once or not at all, and the
//! answer is honest: a 200 for what was done, a 503 for what may be tried again.
//!
//! What a request does is not written down here, but seen: it is sent twice without a fault, and each case is held
//! to that, rows and answers alike.

mod proxy;
mod scenes;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::{
        Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use futures_util::{FutureExt, StreamExt, future::BoxFuture, stream};
use local::template::Route;
use serde_json::{Value, json};

use self::{
    proxy::{Fault, How, Parted, Proxy},
    scenes::{Call, Cast, Scene},
};
use super::{
    api::{Answer, Api, Table},
    invariants,
};

/// Cases at a time: most of them wait.
const AT_ONCE: usize = 16;

const WRITE: &str = "TransactWriteItems";

const BUSY: &str = "com.amazonaws.dynamodb.v20120810#ProvisionedThroughputExceededException";
const THROTTLED: &str = "com.amazon.coral.availability#ThrottlingException";
const IN_PROGRESS: &str = "com.amazonaws.dynamodb.v20120810#TransactionInProgressException";
const BROKEN: &str = "com.amazonaws.dynamodb.v20120810#InternalServerError";
/// Of something before the table, which does not speak its language.
const NO_JSON: &str = "";

const CONFLICT: How = How::Cancelled("TransactionConflict", Parted::Last);
const CONFLICTS: How = How::Cancelled("TransactionConflict", Parted::All);

/// What a transaction outlives, one after another; but a function that is killed does not.
const ONCE: [&[How]; 9] = [
    &[How::AnswerLate],
    &[How::AnsweredAfter(500, BROKEN), How::AnsweredAfter(503, NO_JSON)],
    &[How::AnswerLost, CONFLICT],
    &[How::Killed],
    &[How::Late],
    &[How::Refused(500, BROKEN), CONFLICT, How::Cancelled("ThrottlingError", Parted::All)],
    &[How::Refused(400, BUSY), How::Cancelled("ProvisionedThroughputExceeded", Parted::Last)],
    &[How::Lost, CONFLICTS, How::Cancelled("ThrottlingError", Parted::Last)],
    &[How::Refused(400, THROTTLED), How::Refused(400, IN_PROGRESS)],
];

/// What no transaction outlives, though it is made.
const MADE_FOR_EVER: [&[How]; 3] =
    [&[How::AnswerLost], &[How::AnswerLate], &[How::AnsweredAfter(500, BROKEN)]];

/// What no transaction outlives, nor is made.
const UNMADE_FOR_EVER: [&[How]; 9] = [
    &[How::Lost],
    &[How::Refused(500, BROKEN)],
    &[How::Refused(503, NO_JSON)],
    &[How::Refused(400, BUSY)],
    &[How::Refused(400, THROTTLED)],
    &[CONFLICT],
    &[CONFLICTS],
    &[How::Cancelled("ProvisionedThroughputExceeded", Parted::Last)],
    &[How::Cancelled("ThrottlingError", Parted::All)],
];

/// What befalls those behind the first transaction of a request, and whether for ever; the others differ in
/// nothing there.
const LATER: [(&[How], bool); 5] = [
    (&[How::AnswerLost], false),
    (&[How::Killed], false),
    (&[CONFLICT], false),
    (&[How::AnswerLost], true),
    (&[CONFLICT], true),
];

/// What befalls reads: outlived once, and for ever not.
const READS: [(&str, &[How]); 3] = [
    ("BatchGetItem", &[How::Refused(400, BUSY), How::LeftUndone]),
    ("GetItem", &[How::Lost, How::Refused(500, BROKEN)]),
    ("Query", &[How::Refused(503, NO_JSON), How::Refused(400, THROTTLED)]),
];

/// The API behind the proxy.
struct Stage {
    api: Api,
    proxy: Proxy,
    table: Table,
    cases: AtomicUsize,
    /// Of the cases of which everything is mailed: what sets their addresses apart, and how many mails.
    mailed: Mutex<BTreeMap<String, usize>>,
}

/// What a request does without a fault.
struct Usual {
    before: Value,
    once: Value,
    twice: Value,
    first: (u16, Value),
    second: (u16, Value),
    /// How many transactions it takes.
    transactions: usize,
    /// The operations by which it reads.
    reads: Vec<(&'static str, &'static [How])>,
}

/// A situation with its people.
struct Case<'a> {
    cast: Cast<'a>,
    call: Call,
}

impl Stage {
    async fn set() -> Self {
        let proxy = Proxy::start().await;
        let api = Api::behind(proxy.endpoint.clone(), &[]).await;
        proxy.leads_to(api.stack.dynamodb_endpoint());
        let table = api.table();
        Self { api, proxy, table, cases: AtomicUsize::new(0), mailed: Mutex::default() }
    }

    async fn case(&self, scene: Scene) -> Case<'_> {
        let cast = Cast::new(&self.api, &self.table, self.cases.fetch_add(1, Ordering::Relaxed));
        let call = scene.set(&cast).await;
        Case { cast, call }
    }

    async fn usual(&self, scene: Scene) -> Usual {
        let case = self.case(scene).await;
        let (before, _) = case.rows(true).await;
        let passes = |operation| Fault { operation, hows: &[], nth: 1, for_ever: false };
        let operations = READS.map(|(operation, _)| operation);
        let (answer, calls) = self
            .sent(&case, &[&[WRITE], &operations[..]].concat().into_iter().map(passes).collect::<Vec<_>>())
            .await;
        let (once, rows) = case.rows(true).await;
        let first = case.answered(&rows, &answer);
        assert_eq!(first.0, 200, "{scene:?}: {answer:?}");
        assert_ne!(before, once, "{scene:?} changes nothing");
        let answer = case.call.sent(&case.cast).await;
        let (twice, rows) = case.rows(true).await;
        let second = case.answered(&rows, &answer);
        let reads = READS.into_iter().zip(&calls[1..]).filter(|(_, calls)| **calls > 0);
        let reads = reads.map(|(read, _)| read).collect();
        Usual { before, once, twice, first, second, transactions: calls[0], reads }
    }

    /// Sends the request of `case` into `faults`. Gives the answer, and how many calls there were that each
    /// might befall, all of which have come to the table.
    async fn sent(&self, case: &Case<'_>, faults: &[Fault]) -> (Answer, Vec<usize>) {
        let marks = case.cast.marks(&case.call);
        let rules: Vec<_> = faults.iter().map(|fault| self.proxy.arms(*fault, marks.clone())).collect();
        let answer = case.call.sent(&case.cast).await;
        for rule in &rules {
            rule.at_rest().await;
            self.proxy.disarms(rule);
        }
        (answer, rules.iter().map(|rule| rule.seen()).collect())
    }

    /// The request of `scene` outlives `faults`, and is done.
    async fn outlives(&self, scene: Scene, usual: &Usual, faults: &[Fault]) {
        let what = format!("{scene:?}, {faults:?}");
        let case = self.case(scene).await;

        let (answer, calls) = self.sent(&case, faults).await;

        assert!(calls.iter().zip(faults).all(|(calls, fault)| *calls > fault.nth), "{what}: {calls:?}");
        let (after, rows) = case.rows(true).await;
        assert_eq!((case.answered(&rows, &answer), &after), (usual.first.clone(), &usual.once), "{what}");
        self.goes_on(scene, &case, usual, &after, &what).await;
    }

    /// The request of `scene` does not outlive `fault`, and says so.
    async fn succumbs(&self, scene: Scene, usual: &Usual, fault: Fault) {
        let what = format!("{scene:?}, {fault:?}");
        let case = self.case(scene).await;

        let (answer, _) = self.sent(&case, &[fault]).await;

        if fault.hows.contains(&How::Killed) {
            // The gateway has nothing better to say.
            assert_eq!((answer.status, answer.body.get("code")), (500, None), "{what}: {answer:?}");
        } else {
            assert_eq!(answer.status, 503, "{what}: {answer:?}");
            answer.is_problem(503, "unavailable");
        }
        let (after, _) = case.rows(false).await;
        if fault.operation == WRITE && fault.nth == usual.transactions {
            let is_made = fault.hows.iter().any(|how| how.is_made());
            assert_eq!(after == usual.once, is_made, "{what}: {after:#}");
        }
        if usual.transactions == 1 {
            assert!(after == usual.once || after == usual.before, "{what}: {after:#}");
        }
        self.goes_on(scene, &case, usual, &after, &what).await;
    }

    /// The request of `scene` does nothing while one fault after another prevents it, and is done once none does.
    async fn waits(&self, scene: Scene, usual: &Usual) {
        let case = self.case(scene).await;
        for hows in UNMADE_FOR_EVER {
            let fault = Fault { operation: WRITE, hows, nth: 1, for_ever: true };

            let (answer, _) = self.sent(&case, &[fault]).await;

            assert_eq!(answer.status, 503, "{scene:?}, {fault:?}: {answer:?}");
            answer.is_problem(503, "unavailable");
            assert_eq!(case.rows(false).await.0, usual.before, "{scene:?}, {fault:?}");
        }
        self.goes_on(scene, &case, usual, &usual.before, &format!("{scene:?}")).await;
    }

    /// Sent again without a fault, now that the table is as in `after`, the request of `case` does what is left to
    /// do.
    async fn goes_on(&self, scene: Scene, case: &Case<'_>, usual: &Usual, after: &Value, what: &str) {
        let (told, left) =
            if *after == usual.once { (&usual.second, &usual.twice) } else { (&usual.first, &usual.once) };

        let answer = case.call.sent(&case.cast).await;

        let (after, rows) = case.rows(true).await;
        assert_eq!((&case.answered(&rows, &answer), &after), (told, left), "again: {what}");
        if scene.is_mailed() {
            let is_mailed = |row: &&Value| {
                matches!(row["action"].as_str(), Some("invite" | "add_user" | "transfer_ownership"))
            };
            let mails = rows.iter().filter(is_mailed).count();
            self.mailed.lock().unwrap().insert(case.cast.suffix(), mails);
        }
    }

    /// Asserts that what was done was mailed, each once.
    async fn mails_are_sent(&self) {
        assert!(self.api.stack.settled(Duration::from_mins(1)).await, "the stream is not followed up");
        let mails = self.api.send("GET", "/_local/mail.json", None, None).await.ok();
        let to = |mail: &Value| mail["to"][0].as_str().unwrap().to_owned();
        let receivers: Vec<_> = mails.as_array().unwrap().iter().map(to).collect();
        for (suffix, expected) in &*self.mailed.lock().unwrap() {
            let own = receivers.iter().filter(|address| address.contains(suffix));
            assert_eq!(own.count(), *expected, "mails of {suffix}");
        }
    }
}

impl Case<'_> {
    /// The rows of this case, compared with those of others and as they are. Invariants hold; somebody's first
    /// sight is `settled`, or may go on.
    async fn rows(&self, settled: bool) -> (Value, Vec<Value>) {
        let rows = self.cast.rows(&self.call).await;
        let mut checked = rows.clone();
        for row in checked.iter_mut().filter_map(Value::as_object_mut) {
            if !settled {
                row.remove("unfinished");
            }
        }
        invariants::hold_in(&checked);
        (self.cast.plain(&self.call, &rows, &json!(rows)), rows)
    }

    /// Status and body of `answer`, compared with those of others.
    fn answered(&self, rows: &[Value], answer: &Answer) -> (u16, Value) {
        (answer.status, self.cast.plain(&self.call, rows, &answer.body))
    }
}

#[tokio::test]
async fn no_fault_doubles_or_loses_anything_and_the_answer_is_honest() {
    let stage = &Stage::set().await;
    let usual = stream::iter(Scene::ALL).map(async |scene| (scene, stage.usual(scene).await));
    let usual: Vec<_> = usual.buffer_unordered(AT_ONCE).collect().await;
    // The longest first.
    let waits = usual.iter().map(|(scene, usual)| stage.waits(*scene, usual).boxed());
    let mut cases: Vec<BoxFuture<'_, ()>> = waits.collect();
    for (scene, usual) in &usual {
        let scene = *scene;
        let once = |operation, hows, nth| Fault { operation, hows, nth, for_ever: false };
        let for_ever = |operation, hows, nth| Fault { for_ever: true, ..once(operation, hows, nth) };
        let first = ONCE.map(|hows| once(WRITE, hows, 1)).into_iter();
        let first = first.chain(MADE_FOR_EVER.map(|hows| for_ever(WRITE, hows, 1)));
        let later = (2..=usual.transactions).flat_map(|nth| {
            LATER.map(|(hows, ever)| if ever { for_ever(WRITE, hows, nth) } else { once(WRITE, hows, nth) })
        });
        let reads = usual.reads.iter().map(|(operation, hows)| for_ever(operation, hows, 1));
        for fault in first.chain(later).chain(reads) {
            if fault.for_ever || fault.hows.contains(&How::Killed) {
                cases.push(stage.succumbs(scene, usual, fault).boxed());
            } else {
                cases.push(async move { stage.outlives(scene, usual, &[fault]).await }.boxed());
            }
        }
        let reads: Vec<_> = usual.reads.iter().map(|(operation, hows)| once(operation, hows, 1)).collect();
        cases.push(async move { stage.outlives(scene, usual, &reads).await }.boxed());
    }
    stream::iter(cases).buffer_unordered(AT_ONCE).collect::<()>().await;
    stage.mails_are_sent().await;
}

/// Whether what is sent to the route may change the table.
fn may_change(route: &Route) -> bool {
    matches!(route, Route::Path { method, .. } if method != "GET")
}

#[tokio::test]
async fn every_route_that_changes_something_has_a_scene() {
    let api = Api::start().await;
    let functions = &api.stack.template().functions;
    let mut changing: BTreeSet<_> = functions
        .iter()
        .filter(|function| function.routes.iter().any(may_change))
        .map(|function| function.name.as_str())
        .collect();
    // It has no access to the table; and its caller, Stripe, has tests of its own.
    for other in ["oauth_token", "stripe_webhook"] {
        assert!(changing.remove(other), "{other}");
    }
    let scenes: BTreeSet<_> = Scene::ALL.into_iter().map(Scene::function).collect();

    assert_eq!(changing.difference(&scenes).copied().collect::<Vec<_>>(), [""; 0]);
}
