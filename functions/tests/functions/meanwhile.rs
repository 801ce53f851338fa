//! Every guard of every change about people: between what a change reads and what it writes, somebody
//! else changes the table. The store runs for real; only the moment is chosen.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use aws_smithy_runtime_api::client::{
    http::{HttpConnector, HttpConnectorFuture, SharedHttpClient, SharedHttpConnector, http_client_fn},
    orchestrator::HttpRequest,
};
use serde_json::{Value, json};
use shared::{
    domain::{
        Bucket, BucketId, Email, Feedback, GrantableRole, NotificationState, Right, Role, Target, Timestamp,
        User, UserId, UserOptions,
    },
    store::{Invite, PeopleError, RegisterError, Store, StoreError},
};

use super::{
    api::{Api, Table},
    invariants,
};

/// What somebody else does to the table.
#[derive(Clone, Debug)]
pub(crate) enum Edit {
    Put(Value),
    Delete(Value),
}

impl Edit {
    fn row(&self) -> &Value {
        let (Self::Put(row) | Self::Delete(row)) = self;
        row
    }

    async fn make(&self, table: &Table) {
        match self {
            Self::Put(row) => table.put(row).await,
            Self::Delete(row) => table.delete(row).await,
        }
    }
}

/// Makes edits right before the `nth` transaction is sent.
#[derive(Clone)]
struct Meanwhile {
    inner: SharedHttpConnector,
    edits: Arc<Vec<Edit>>,
    table: Table,
    left: Arc<AtomicUsize>,
}

impl fmt::Debug for Meanwhile {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("Meanwhile")
    }
}

impl HttpConnector for Meanwhile {
    fn call(&self, request: HttpRequest) -> HttpConnectorFuture {
        let writes = request
            .headers()
            .get("x-amz-target")
            .is_some_and(|target| target.ends_with("TransactWriteItems"));
        let now = writes && self.left.fetch_sub(1, Ordering::SeqCst) == 1;
        if !now {
            return self.inner.call(request);
        }
        let meanwhile = self.clone();
        HttpConnectorFuture::new(async move {
            for edit in meanwhile.edits.iter() {
                edit.make(&meanwhile.table).await;
            }
            meanwhile.inner.call(request).await
        })
    }
}

/// The store over the table of `api`, before whose `nth` transaction the edits are made.
pub(crate) fn store(api: &Api, nth: usize, edits: &[Edit]) -> Store {
    let (edits, table) = (Arc::new(edits.to_vec()), api.table());
    let left = Arc::new(AtomicUsize::new(nth));
    let http: SharedHttpClient = aws_smithy_http_client::Builder::new().build_http();
    let client = http_client_fn(move |settings, components| {
        use aws_smithy_runtime_api::client::http::HttpClient;
        SharedHttpConnector::new(Meanwhile {
            inner: http.http_connector(settings, components),
            edits: Arc::clone(&edits),
            table: table.clone(),
            left: Arc::clone(&left),
        })
    });
    let aws = api.aws().into_builder().http_client(client).build();
    api.store_by(&aws)
}

/// A bucket with an owner, an admin and a member with the role `user`; the admin has invited
/// pending@example.com as admin, and known@example.com has signed in and is not in it.
struct Scene {
    api: Api,
    bucket: Bucket,
    owner: UserId,
    admin: UserId,
    member: UserId,
    rows: Vec<Value>,
}

fn email(text: &str) -> Email {
    Email::parse(text).unwrap()
}

fn role(text: &str) -> GrantableRole {
    serde_json::from_value(json!(text)).unwrap()
}

impl Scene {
    async fn set() -> Self {
        let api = Api::start().await;
        let id = |view: &Value| UserId::try_from(view["_id"].as_str().unwrap().to_owned()).unwrap();
        let (owner, admin) = (api.user("owner@example.com").await, api.user("admin@example.com").await);
        let (member, known) = (api.user("member@example.com").await, api.user("known@example.com").await);
        let bucket = owner.creates_bucket("Servers").await;
        owner.adds(&bucket, &admin, "admin").await;
        owner.adds(&bucket, &member, "user").await;
        admin.invites(&bucket, "pending@example.com", "admin").await.ok();
        known.get("/api/bucket").await.ok();
        let (owner, admin) = (id(&owner.self_view().await), id(&admin.self_view().await));
        let member = id(&member.self_view().await);
        let bucket_id = BucketId::try_from(bucket["_id"].as_str().unwrap().to_owned()).unwrap();
        let (bucket, _) = api.store().membership(&bucket_id, &owner).await.unwrap().unwrap();
        let rows = api.rows().await;
        Self { api, bucket, owner, admin, member, rows }
    }

    /// The row of `kind` in which `name` is `value`.
    fn row(&self, kind: &str, name: &str, value: &str) -> Value {
        let found = self.rows.iter().find(|row| row["type"] == kind && row[name] == value);
        found.unwrap_or_else(|| panic!("no {kind} with {name} {value}")).clone()
    }

    fn changed(row: &Value, changes: &Value) -> Edit {
        let mut row = row.clone();
        row.as_object_mut().unwrap().extend(changes.as_object().unwrap().clone());
        Edit::Put(row)
    }

    fn bucket_is(&self, changes: &Value) -> Vec<Edit> {
        vec![Self::changed(&self.row("bucket", "id", self.bucket.id.as_str()), changes)]
    }

    fn deleted(&self) -> Vec<Edit> {
        self.bucket_is(&json!({ "deleted_at": 1, "version": self.bucket.version + 1 }))
    }

    /// The member, as others name them.
    fn target(&self) -> Target {
        Target { id: self.member.clone(), email: email("member@example.com") }
    }

    /// The member's address is somebody else's.
    fn readdressed(&self) -> Vec<Edit> {
        let claim = self.row("email_claim", "email", "member@example.com");
        vec![Self::changed(&claim, &json!({ "user_id": self.admin.as_str() }))]
    }

    fn member_is(&self, user: &UserId, changes: &Value) -> Vec<Edit> {
        vec![Self::changed(&self.row("member", "user_id", user.as_str()), changes)]
    }

    /// `user` has left: row, pointer and seat.
    fn gone(&self, user: &UserId) -> Vec<Edit> {
        let seats = self.bucket.seats_used - 1;
        let mut edits = self.bucket_is(&json!({ "seats_used": seats }));
        edits.push(Edit::Delete(self.row("member", "user_id", user.as_str())));
        edits.push(Edit::Delete(self.row("bucket_pointer", "user_id", user.as_str())));
        edits
    }

    /// The invitation is no more: row, pointer and seat.
    fn uninvited(&self) -> Vec<Edit> {
        let seats = self.bucket.seats_used - 1;
        let mut edits = self.bucket_is(&json!({ "seats_used": seats }));
        edits.push(Edit::Delete(self.row("invitation", "email", "pending@example.com")));
        edits.push(Edit::Delete(self.row("invitation_pointer", "email", "pending@example.com")));
        edits
    }

    fn invitation_is(&self, changes: &Value) -> Vec<Edit> {
        vec![Self::changed(&self.row("invitation", "email", "pending@example.com"), changes)]
    }

    /// The store, before whose `nth` transaction the edits are made.
    fn store(&self, nth: usize, edits: &[Edit]) -> Store {
        store(&self.api, nth, edits)
    }

    /// Asserts that nothing has happened but the edits.
    async fn nothing_but(&self, edits: &[Edit], what: &str) {
        let key = |row: &Value| (row["pk"].clone(), row["sk"].clone());
        let mut expected: Vec<Value> = self
            .rows
            .iter()
            .filter(|row| edits.iter().all(|edit| key(edit.row()) != key(row)))
            .cloned()
            .collect();
        expected.extend(edits.iter().filter_map(|edit| match edit {
            Edit::Put(row) => Some(row.clone()),
            Edit::Delete(_) => None,
        }));
        expected.sort_by_key(|row| (row["pk"].to_string(), row["sk"].to_string()));
        assert_eq!(self.api.rows().await, expected, "{what}");
    }

    async fn user(&self, email: &str) -> User {
        let id = self.row("email_claim", "email", email);
        let id = UserId::try_from(id["user_id"].as_str().unwrap().to_owned()).unwrap();
        self.api.store().user(&id).await.unwrap().unwrap()
    }

    async fn roles(&self) -> Vec<(String, Role)> {
        let members = self.api.store().members(&self.bucket.id).await.unwrap();
        members.into_iter().map(|member| (String::from(member.email), member.role)).collect()
    }
}

/// Asserts of each case that `call` is refused as expected when the edits come before its `nth`
/// transaction, and that nothing else happens.
async fn refused<T: fmt::Debug>(
    nth: usize,
    cases: impl AsyncFn(&Scene) -> Vec<(&'static str, Vec<Edit>, fn(&PeopleError) -> bool)>,
    call: impl AsyncFn(&Scene, &Store) -> Result<T, PeopleError>,
) {
    let count = cases(&Scene::set().await).await.len();
    for number in 0..count {
        let scene = Scene::set().await;
        let (what, edits, expected) = cases(&scene).await.remove(number);

        let outcome = call(&scene, &scene.store(nth, &edits)).await;

        assert!(outcome.as_ref().is_err_and(expected), "{what}: {outcome:?}");
        scene.nothing_but(&edits, what).await;
    }
}

/// A token issued after those of the scene, in the year 2100.
const LATER: u32 = 4_102_444_800;

type Expected = fn(&PeopleError) -> bool;

const NOT_FOUND: Expected = |error| matches!(error, PeopleError::BucketNotFound);
const MAY_NOT_INVITE: Expected = |error| matches!(error, PeopleError::RoleTooLow(Right::Invite));
const USER_NOT_FOUND: Expected = |error| matches!(error, PeopleError::UserNotFound);

/// What stops an admin who invites or removes an invitation.
async fn stops_an_admin(scene: &Scene) -> Vec<(&'static str, Vec<Edit>, Expected)> {
    vec![
        ("the bucket is deleted", scene.deleted(), NOT_FOUND),
        (
            "the admin is demoted",
            scene.member_is(&scene.admin, &json!({ "role": "developer" })),
            MAY_NOT_INVITE,
        ),
        ("the admin is gone", scene.gone(&scene.admin), NOT_FOUND),
    ]
}

async fn invites(scene: &Scene, store: &Store, address: &str) -> Result<(), PeopleError> {
    let (email, role, now) = (email(address), role("developer"), Timestamp::now());
    let invite = Invite { actor: &scene.admin, email: &email, role, lifetime: 7, now };
    store.invite(scene.bucket.clone(), &invite).await
}

#[tokio::test]
async fn an_invitation_rests_on_the_bucket_and_the_inviters_role() {
    refused(1, stops_an_admin, async |scene, store| invites(scene, store, "new@example.com").await).await;
}

#[tokio::test]
async fn a_renewal_rests_on_the_bucket_and_the_inviters_role() {
    refused(2, stops_an_admin, async |scene, store| invites(scene, store, "pending@example.com").await).await;
}

#[tokio::test]
async fn an_addition_rests_on_the_bucket_and_the_inviters_role() {
    refused(2, stops_an_admin, async |scene, store| invites(scene, store, "known@example.com").await).await;
}

#[tokio::test]
async fn a_removal_of_an_invitation_rests_on_the_bucket_and_the_role_and_the_invitation() {
    let cases = async |scene: &Scene| {
        let mut cases = stops_an_admin(scene).await;
        let not_invited: Expected = |error| matches!(error, PeopleError::InvitationNotFound);
        cases.push(("the invitation is gone", scene.uninvited(), not_invited));
        cases
    };
    refused(1, cases, async |scene, store| {
        let pending = email("pending@example.com");
        store.remove_invitation(&scene.bucket.id, &scene.admin, &pending, Timestamp::now()).await
    })
    .await;
}

#[tokio::test]
async fn an_invitation_that_goes_while_it_is_renewed_is_made_anew() {
    let scene = Scene::set().await;

    invites(&scene, &scene.store(2, &scene.uninvited()), "pending@example.com").await.unwrap();

    assert_eq!(scene.api.rows_of("invitation").await[0]["role"], "developer");
    invariants::hold(&scene.api).await;
}

#[tokio::test]
async fn a_person_who_moves_away_while_being_added_is_not_added() {
    let scene = Scene::set().await;
    let user = scene.row("user", "email", "known@example.com");
    let claim = scene.row("email_claim", "email", "known@example.com");
    let mut moved_claim = claim.clone();
    moved_claim["pk"] = json!("EMAIL#moved@example.com");
    moved_claim["email"] = json!("moved@example.com");
    let edits = [
        Scene::changed(&user, &json!({ "email": "moved@example.com" })),
        Edit::Delete(claim),
        Edit::Put(moved_claim),
    ];

    invites(&scene, &scene.store(2, &edits), "known@example.com").await.unwrap();

    // The address is nobody's now, so it is invited.
    assert!(scene.roles().await.iter().all(|(email, _)| email != "known@example.com"));
    let invited: Vec<_> =
        scene.api.rows_of("invitation").await.iter().map(|row| row["email"].clone()).collect();
    assert_eq!(invited, ["known@example.com", "pending@example.com"]);
    invariants::hold(&scene.api).await;
}

#[tokio::test]
async fn an_invitation_that_turns_up_while_a_person_is_added_keeps_the_one_seat() {
    let scene = Scene::set().await;
    let (mut invitation, mut pointer) = (
        scene.row("invitation", "email", "pending@example.com"),
        scene.row("invitation_pointer", "email", "pending@example.com"),
    );
    for row in [&mut invitation, &mut pointer] {
        row["email"] = json!("known@example.com");
    }
    invitation["sk"] = json!("INVITATION#known@example.com");
    pointer["pk"] = json!("EMAIL#known@example.com");
    let user = scene.row("user", "email", "known@example.com");
    let mut edits = scene.bucket_is(&json!({ "seats_used": scene.bucket.seats_used + 1 }));
    edits.extend([
        Edit::Put(invitation),
        Edit::Put(pointer),
        Scene::changed(&user, &json!({ "unfinished": true })),
    ]);

    let outcome = invites(&scene, &scene.store(2, &edits), "known@example.com").await;

    assert!(matches!(outcome, Err(PeopleError::AlreadyMember)), "{outcome:?}");
    assert!(scene.roles().await.contains(&("known@example.com".to_owned(), Role::Admin)));
    invariants::hold(&scene.api).await;
}

#[tokio::test]
async fn seats_are_those_of_the_plan_in_force_when_one_is_taken() {
    // One more than fits into the plan that the bucket is put on meanwhile.
    for (nth, address) in [(1, "new@example.com"), (2, "known@example.com")] {
        let scene = Scene::set().await;
        let mut bucket = scene.row("bucket", "id", scene.bucket.id.as_str());
        bucket["plan"] = json!("plus");
        bucket["seats_used"] = json!(10);
        scene.api.table().put(&bucket).await;
        let large = scene.api.store().bucket(&scene.bucket.id).await.unwrap().unwrap();
        let edits = [Scene::changed(&bucket, &json!({ "plan": "free" }))];
        let (email, now) = (email(address), Timestamp::now());
        let invite = Invite { actor: &scene.admin, email: &email, role: role("user"), lifetime: 7, now };

        let outcome = scene.store(nth, &edits).invite(large, &invite).await;

        assert!(matches!(outcome, Err(PeopleError::SeatLimit { seats: 5 })), "{outcome:?}");
        scene.nothing_but(&edits, address).await;
    }
}

#[tokio::test]
async fn an_expired_invitation_that_is_renewed_meanwhile_is_not_cleared() {
    for renewed in [true, false] {
        let scene = Scene::set().await;
        let edits = if renewed { vec![] } else { scene.uninvited() };
        let owner = scene.api.store();
        let fifth = email("fifth@example.com");
        let invite = Invite {
            actor: &scene.owner,
            email: &fifth,
            role: role("user"),
            lifetime: 7,
            now: Timestamp::now(),
        };
        owner.invite(scene.bucket.clone(), &invite).await.unwrap();
        let current = scene.row("invitation", "email", "pending@example.com");
        let Edit::Put(expired) = scene.invitation_is(&json!({ "expires_at": 1 })).remove(0) else { panic!() };
        scene.api.table().put(&expired).await;
        let bucket = scene.api.store().bucket(&scene.bucket.id).await.unwrap().unwrap();
        let edits: Vec<Edit> = if renewed {
            vec![Edit::Put(current)]
        } else {
            edits
                .into_iter()
                .map(|edit| match edit {
                    Edit::Put(row) => Scene::changed(&row, &json!({ "seats_used": bucket.seats_used - 1 })),
                    Edit::Delete(row) => Edit::Delete(row),
                })
                .collect()
        };
        let new = email("new@example.com");
        let invite = Invite { email: &new, ..invite };

        let outcome = scene.store(2, &edits).invite(bucket, &invite).await;

        // Renewed, it keeps its seat; cleared by somebody else, its seat is free, and not freed twice.
        if renewed {
            assert!(matches!(outcome, Err(PeopleError::SeatLimit { seats: 5 })), "{outcome:?}");
        } else {
            assert!(outcome.is_ok(), "{outcome:?}");
        }
        invariants::hold(&scene.api).await;
    }
}

#[tokio::test]
async fn a_removal_rests_on_the_owner_and_the_member() {
    let cases = async |scene: &Scene| -> Vec<(&'static str, Vec<Edit>, Expected)> {
        let other = scene.bucket_is(&json!({ "owner_id": scene.admin.as_str() }));
        vec![
            ("the bucket is deleted", scene.deleted(), NOT_FOUND),
            ("it has another owner", other, |error| {
                matches!(error, PeopleError::RoleTooLow(Right::RemoveUser))
            }),
            ("the address is another's", scene.readdressed(), USER_NOT_FOUND),
            ("the member is gone", scene.gone(&scene.member), USER_NOT_FOUND),
        ]
    };
    refused(1, cases, async |scene, store| {
        store.remove_user(&scene.bucket.id, &scene.owner, &scene.target(), Timestamp::now()).await
    })
    .await;
}

#[tokio::test]
async fn leaving_rests_on_not_being_the_owner_and_on_being_in() {
    let cases = async |scene: &Scene| -> Vec<(&'static str, Vec<Edit>, Expected)> {
        let owner = scene.bucket_is(&json!({ "owner_id": scene.member.as_str() }));
        vec![
            ("the bucket is deleted", scene.deleted(), NOT_FOUND),
            ("the member becomes the owner", owner, |error| matches!(error, PeopleError::OwnerStays)),
            ("the address is another's", scene.readdressed(), USER_NOT_FOUND),
            ("the member is gone", scene.gone(&scene.member), NOT_FOUND),
        ]
    };
    refused(1, cases, async |scene, store| {
        store.remove_user(&scene.bucket.id, &scene.member, &scene.target(), Timestamp::now()).await
    })
    .await;
}

#[tokio::test]
async fn setting_a_role_rests_on_the_owner_and_on_whose_role_it_is() {
    let cases = async |scene: &Scene| -> Vec<(&'static str, Vec<Edit>, Expected)> {
        let other = scene.bucket_is(&json!({ "owner_id": scene.admin.as_str() }));
        let now_owner = scene.member_is(&scene.member, &json!({ "role": "owner" }));
        vec![
            ("the bucket is deleted", scene.deleted(), NOT_FOUND),
            ("it has another owner", other, |error| matches!(error, PeopleError::RoleTooLow(Right::SetRole))),
            ("the address is another's", scene.readdressed(), USER_NOT_FOUND),
            ("the member is gone", scene.gone(&scene.member), USER_NOT_FOUND),
            ("the member is the owner", now_owner, |error| matches!(error, PeopleError::OwnerRoleFixed)),
        ]
    };
    refused(1, cases, async |scene, store| {
        store.set_role(&scene.bucket.id, &scene.owner, &scene.target(), role("admin"), Timestamp::now()).await
    })
    .await;
}

#[tokio::test]
async fn a_transfer_rests_on_both_people() {
    let cases = async |scene: &Scene| -> Vec<(&'static str, Vec<Edit>, Expected)> {
        let may_not: Expected = |error| matches!(error, PeopleError::RoleTooLow(Right::Transfer));
        let full = scene.row("user", "id", scene.member.as_str());
        vec![
            ("the bucket is deleted", scene.deleted(), NOT_FOUND),
            ("it has another owner", scene.bucket_is(&json!({ "owner_id": scene.admin.as_str() })), may_not),
            ("the address is another's", scene.readdressed(), USER_NOT_FOUND),
            ("the new owner is gone", scene.gone(&scene.member), USER_NOT_FOUND),
            (
                "the new owner has all they may",
                vec![Scene::changed(&full, &json!({ "buckets_owned": 5 }))],
                |error| matches!(error, PeopleError::NewOwnerLimit { limit: 5 }),
            ),
        ]
    };
    refused(1, cases, async |scene, store| {
        store.transfer(&scene.bucket.id, &scene.owner, &scene.target(), 5, Timestamp::now()).await
    })
    .await;
}

#[tokio::test]
async fn a_transfer_is_decided_anew_when_what_it_shows_changes() {
    let scene = Scene::set().await;
    let edits = scene.bucket_is(&json!({ "name": "Renamed", "version": 7 }));
    let store = scene.store(1, &edits);
    let bucket =
        store.transfer(&scene.bucket.id, &scene.owner, &scene.target(), 5, Timestamp::now()).await.unwrap();
    assert_eq!((bucket.name.as_str(), bucket.version), ("Renamed", 8));
    assert_eq!(scene.api.store().bucket(&bucket.id).await.unwrap().unwrap(), bucket);
    invariants::hold(&scene.api).await;

    // The new owner's name, which the bucket shows as well.
    let scene = Scene::set().await;
    let edits = scene.member_is(&scene.member, &json!({ "username": "renamed" }));
    let store = scene.store(1, &edits);
    let bucket =
        store.transfer(&scene.bucket.id, &scene.owner, &scene.target(), 5, Timestamp::now()).await.unwrap();
    assert_eq!(bucket.owner_username.as_str(), "renamed");
}

#[tokio::test]
async fn a_notification_state_rests_on_the_right_and_on_the_member() {
    let cases = async |scene: &Scene| -> Vec<(&'static str, Vec<Edit>, Expected)> {
        let demoted = scene.member_is(&scene.admin, &json!({ "role": "user" }));
        vec![
            ("the bucket is deleted", scene.deleted(), NOT_FOUND),
            ("the admin is demoted", demoted, |error| {
                matches!(error, PeopleError::RoleTooLow(Right::ManageNotifications))
            }),
            ("the address is another's", scene.readdressed(), USER_NOT_FOUND),
            ("the member is gone", scene.gone(&scene.member), USER_NOT_FOUND),
        ]
    };
    let none = NotificationState::None;
    refused(1, cases, async |scene, store| {
        store
            .set_notification_state(&scene.bucket.id, &scene.admin, &scene.target(), none, Timestamp::now())
            .await
    })
    .await;
}

/// What stops a member who changes something of their own.
async fn stops_a_member(scene: &Scene) -> Vec<(&'static str, Vec<Edit>, Expected)> {
    vec![
        ("the bucket is deleted", scene.deleted(), NOT_FOUND),
        ("the member is gone", scene.gone(&scene.member), NOT_FOUND),
    ]
}

#[tokio::test]
async fn what_is_ones_own_rests_on_being_in() {
    let none = NotificationState::None;
    refused(1, stops_a_member, async |scene, store| {
        let me = &scene.member;
        store.set_notification_state(&scene.bucket.id, me, &scene.target(), none, Timestamp::now()).await
    })
    .await;
    let options: UserOptions = serde_json::from_str(r#"{"a":1}"#).unwrap();
    refused(1, stops_a_member, async |scene, store| {
        store.set_options(&scene.bucket.id, &scene.member, &options, Timestamp::now()).await
    })
    .await;
    let feedback = Feedback::try_from("Good".to_owned()).unwrap();
    refused(1, stops_a_member, async |scene, store| {
        store.send_feedback(&scene.bucket.id, &scene.member, &feedback, Timestamp::now()).await
    })
    .await;
}

/// Records pending@example.com as a user, whose invitation is still to be taken up.
async fn claimed(scene: &mut Scene) -> User {
    let id = UserId::of_subject("issuer", "pending");
    let username = shared::domain::Username::from_claim(None, "pending");
    let user = scene.api.store().register(&id, &email("pending@example.com"), 1, &username).await.unwrap();
    scene.rows = scene.api.rows().await;
    user
}

#[tokio::test]
async fn taking_up_an_invitation_follows_what_happens_to_it() {
    let pending = || "pending@example.com".to_owned();
    for (what, edits, expected) in [
        ("nothing", (|_: &Scene| vec![]) as fn(&Scene) -> Vec<Edit>, Some(Role::Admin)),
        (
            "its role changes",
            |scene| scene.invitation_is(&json!({ "role": "developer" })),
            Some(Role::Developer),
        ),
        (
            "another inviter, who may not grant it, takes it over",
            |scene| scene.invitation_is(&json!({ "invited_by": scene.member.as_str() })),
            Some(Role::User),
        ),
        ("it is removed", Scene::uninvited, None),
        (
            "the inviter is demoted",
            |scene| scene.member_is(&scene.admin, &json!({ "role": "user" })),
            Some(Role::User),
        ),
        ("the inviter is gone", |scene| scene.gone(&scene.admin), Some(Role::User)),
    ] {
        let mut scene = Scene::set().await;
        let user = claimed(&mut scene).await;
        let edits = edits(&scene);

        scene.store(1, &edits).settle(&user, Timestamp::now()).await.unwrap();

        let joined =
            scene.roles().await.into_iter().find(|(email, _)| *email == pending()).map(|(_, role)| role);
        assert_eq!(joined, expected, "{what}");
        invariants::hold(&scene.api).await;
    }
}

#[tokio::test]
async fn an_inviter_who_may_grant_it_again_does() {
    let mut scene = Scene::set().await;
    let user = claimed(&mut scene).await;
    let admin = scene.row("member", "user_id", scene.admin.as_str());
    let Edit::Put(demoted) = Scene::changed(&admin, &json!({ "role": "user" })) else { panic!() };
    scene.api.table().put(&demoted).await;

    scene.store(1, &[Edit::Put(admin)]).settle(&user, Timestamp::now()).await.unwrap();

    assert!(scene.roles().await.contains(&("pending@example.com".to_owned(), Role::Admin)));
    invariants::hold(&scene.api).await;
}

#[tokio::test]
async fn the_seat_of_an_invitation_that_nobody_needs_is_freed_once() {
    let mut scene = Scene::set().await;
    let user = claimed(&mut scene).await;
    // In already, as under a former address; so the invitation is cleared, which another request does first.
    let mut member = scene.row("member", "user_id", scene.member.as_str());
    let mut pointer = scene.row("bucket_pointer", "user_id", scene.member.as_str());
    let id = user.id.as_str();
    for (row, name) in [(&mut member, "sk"), (&mut pointer, "pk")] {
        let key = row[name].as_str().unwrap().replace(scene.member.as_str(), id);
        row[name] = json!(key);
        row["user_id"] = json!(id);
    }
    member["email"] = json!("pending@example.com");
    let Edit::Put(bucket) = scene.bucket_is(&json!({ "seats_used": scene.bucket.seats_used + 1 })).remove(0)
    else {
        panic!()
    };
    for row in [&member, &pointer, &bucket] {
        scene.api.table().put(row).await;
    }
    let mut edits = scene.uninvited();
    edits[0] = Scene::changed(&bucket, &json!({ "seats_used": scene.bucket.seats_used }));

    scene.store(2, &edits).settle(&user, Timestamp::now()).await.unwrap();

    invariants::hold(&scene.api).await;

    // Removed meanwhile, the person takes it up after all.
    for row in [&member, &pointer, &bucket] {
        scene.api.table().put(row).await;
    }
    for kind in ["invitation", "invitation_pointer"] {
        scene.api.table().put(&scene.row(kind, "email", "pending@example.com")).await;
    }
    let edits = [
        Scene::changed(&bucket, &json!({ "seats_used": scene.bucket.seats_used })),
        Edit::Delete(member),
        Edit::Delete(pointer),
    ];
    scene.store(2, &edits).settle(&user, Timestamp::now()).await.unwrap();
    assert!(scene.roles().await.contains(&("pending@example.com".to_owned(), Role::Admin)));
    invariants::hold(&scene.api).await;
}

#[tokio::test]
async fn nobody_joins_a_bucket_that_is_deleted_while_they_sign_in() {
    let mut scene = Scene::set().await;
    let user = claimed(&mut scene).await;

    scene.store(1, &scene.deleted()).settle(&user, Timestamp::now()).await.unwrap();

    assert!(scene.roles().await.iter().all(|(email, _)| email != "pending@example.com"));
}

#[tokio::test]
async fn nobody_joins_under_an_address_that_moves_away_while_they_sign_in() {
    let mut scene = Scene::set().await;
    let user = claimed(&mut scene).await;
    let claim = scene.row("email_claim", "email", "pending@example.com");
    let edits = [Scene::changed(&claim, &json!({ "user_id": scene.member.as_str() }))];

    let outcome = scene.store(1, &edits).settle(&user, Timestamp::now()).await;

    assert!(outcome.is_ok(), "{outcome:?}");
    assert_eq!(scene.api.rows_of("invitation").await.len(), 1);
    assert!(scene.roles().await.iter().all(|(email, _)| email != "pending@example.com"));
}

#[tokio::test]
async fn an_address_moves_once_and_only_where_it_is_free() {
    let new = email("new@example.com");
    let scene = Scene::set().await;
    let user = scene.user("known@example.com").await;

    // A later token of the same person was first.
    let row = scene.row("user", "email", "known@example.com");
    let edits = [Scene::changed(&row, &json!({ "email": "first@example.com", "email_from": LATER + 1 }))];
    let moved = scene.store(1, &edits).change_address(user.clone(), &new, LATER).await.unwrap();
    assert_eq!(moved.email.as_str(), "first@example.com");
    scene.nothing_but(&edits, "moved by another request").await;

    // An earlier token of the same person was first: the address is that of the latest all the same.
    let scene = Scene::set().await;
    let user = scene.user("known@example.com").await;
    let (row, claim) = (
        scene.row("user", "email", "known@example.com"),
        scene.row("email_claim", "email", "known@example.com"),
    );
    let mut first = claim.clone();
    first["pk"] = json!("EMAIL#first@example.com");
    first["email"] = json!("first@example.com");
    let edits = [
        Scene::changed(&row, &json!({ "email": "first@example.com", "email_from": LATER - 1 })),
        Edit::Delete(claim),
        Edit::Put(first),
    ];
    let moved = scene.store(1, &edits).change_address(user, &new, LATER).await.unwrap();
    assert_eq!(moved.email, new);
    let claims = scene.api.rows_of("email_claim").await;
    let of_moved: Vec<_> = claims.iter().filter(|claim| claim["user_id"] == moved.id.as_str()).collect();
    assert_eq!(of_moved.len(), 1);
    assert_eq!(of_moved[0]["email"], "new@example.com");

    // A later token of the same person was first, and is of the same address as before.
    let scene = Scene::set().await;
    let user = scene.user("known@example.com").await;
    let row = scene.row("user", "email", "known@example.com");
    let edits = [Scene::changed(&row, &json!({ "email_from": LATER + 1 }))];
    scene.store(1, &edits).change_address(user.clone(), &new, LATER).await.unwrap();
    scene.nothing_but(&edits, "a later token was first").await;

    // Somebody else verifies the new address first.
    let scene = Scene::set().await;
    let user = scene.user("known@example.com").await;
    let claim = json!({
        "pk": "EMAIL#new@example.com", "sk": "USER", "type": "email_claim", "email": "new@example.com",
        "user_id": scene.member.as_str(),
    });
    let edits = [Edit::Put(claim)];
    let outcome = scene.store(1, &edits).change_address(user.clone(), &new, LATER).await;
    assert!(matches!(outcome, Err(RegisterError::EmailTaken)), "{outcome:?}");
    scene.nothing_but(&edits, "taken by somebody else").await;

    // The former address has become somebody else's: their claim stays.
    let scene = Scene::set().await;
    let user = scene.user("known@example.com").await;
    let claim = scene.row("email_claim", "email", "known@example.com");
    let edits = [Scene::changed(&claim, &json!({ "user_id": scene.member.as_str() }))];
    let outcome = scene.store(1, &edits).change_address(user, &new, LATER).await;
    assert!(matches!(outcome, Err(RegisterError::Store(StoreError::Unavailable(_)))), "{outcome:?}");
    scene.nothing_but(&edits, "the former address is another's").await;
}

#[tokio::test]
async fn a_mark_is_cleared_only_by_who_settled_that_very_claim() {
    let mut scene = Scene::set().await;
    let user = claimed(&mut scene).await;
    // Left and come back to meanwhile: the address is the same, the claim another.
    let row = scene.row("user", "id", user.id.as_str());
    let edits = [Scene::changed(&row, &json!({ "email_from": 2 }))];

    scene.store(2, &edits).settle(&user, Timestamp::now()).await.unwrap();

    let row = scene.api.rows_of("user").await.into_iter().find(|row| row["id"] == user.id.as_str()).unwrap();
    assert_eq!(row["unfinished"], true);
}

#[tokio::test]
async fn memberships_follow_an_address_only_as_far_as_it_goes() {
    // Moved to a new address; the memberships are still to follow.
    let scene = Scene::set().await;
    let member = scene.user("member@example.com").await;
    let moved =
        scene.api.store().change_address(member.clone(), &email("moved@example.com"), LATER).await.unwrap();
    let moved_row =
        scene.api.rows_of("user").await.into_iter().find(|row| row["id"] == member.id.as_str()).unwrap();

    // Moved on once more meanwhile: what comes later is not overwritten, and the mark stays.
    let edits =
        [Scene::changed(&moved_row, &json!({ "email": "later@example.com", "email_from": LATER + 1 }))];
    scene.store(1, &edits).settle(&moved, Timestamp::now()).await.unwrap();
    assert!(scene.roles().await.iter().all(|(email, _)| email != "moved@example.com"));
    let row =
        scene.api.rows_of("user").await.into_iter().find(|row| row["id"] == member.id.as_str()).unwrap();
    assert_eq!(row["unfinished"], true);

    // Gone meanwhile: no half of a member comes back.
    let scene = Scene::set().await;
    let member = scene.user("member@example.com").await;
    let moved =
        scene.api.store().change_address(member.clone(), &email("moved@example.com"), LATER).await.unwrap();
    scene.store(1, &scene.gone(&scene.member)).settle(&moved, Timestamp::now()).await.unwrap();
    assert_eq!(scene.api.rows_of("member").await.len(), 2);
    invariants::hold(&scene.api).await;
}

/// What comes of an invitation to a bucket whose row is as `before` says, if `change` comes between its
/// read and its write.
pub(crate) async fn invited_while(before: &Value, change: &Value) -> Result<(), PeopleError> {
    let scene = Scene::set().await;
    let mut row = scene.row("bucket", "id", scene.bucket.id.as_str());
    row.as_object_mut().unwrap().extend(before.as_object().unwrap().clone());
    scene.api.put_row(&row).await;
    let bucket = scene.api.store().bucket(&scene.bucket.id).await.unwrap().unwrap();
    let edits = [Scene::changed(&row, change)];
    let (address, now) = (email("new@example.com"), Timestamp::now());
    let invite = Invite { actor: &scene.owner, email: &address, role: role("user"), lifetime: 7, now };
    scene.store(1, &edits).invite(bucket, &invite).await
}
