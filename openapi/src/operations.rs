//! What each function takes and gives: the one thing about a route that its page says in words only.
//! A test validates every recorded answer and every body of an accepted event against it.

use std::collections::BTreeMap;

use billing::{Event, Invoice};
use schemars::{JsonSchema, Schema, SchemaGenerator};
use shared::{
    domain::{Email, Plans},
    http::{
        BucketAnswer, BucketView, Claimed, Create, CurrentRole, DeleteServer, Deleted, InvitationsView,
        InviteUser, Linked, LoggedIn, MemberView, NotificationView, Received, RemoveUser, SendFeedback,
        ServerView, SetNotificationState, SetUserRole, SubscriptionView, TokenAnswer, TokenRequest,
        TransferOwnership, Update, UpdateUserOptions, Upgrade, Upgraded, VerifyPm2,
    },
};

/// Names a type's schema and gives the reference to it.
type SchemaOf = fn(&mut SchemaGenerator) -> Schema;

/// What the function of a route takes and gives.
#[derive(Debug)]
pub(crate) struct Operation {
    /// The group that it is shown in.
    pub(crate) tag: &'static str,
    /// Its JSON body.
    pub(crate) body: Option<SchemaOf>,
    /// What it must be given in the query.
    pub(crate) query: Option<(&'static str, SchemaOf)>,
    /// What it answers with 200.
    pub(crate) answer: SchemaOf,
}

impl Operation {
    fn new<A: JsonSchema>(tag: &'static str) -> Self {
        Self { tag, body: None, query: None, answer: of::<A> }
    }

    fn taking<B: JsonSchema>(self) -> Self {
        Self { body: Some(of::<B>), ..self }
    }
}

fn of<T: JsonSchema>(generator: &mut SchemaGenerator) -> Schema {
    generator.subschema_for::<T>()
}

/// The groups, in the order in which they are shown, and what is in them.
pub(crate) const TAGS: [(&str, &str); 5] = [
    (BUCKETS, "Workspaces that group a team's servers and the people who watch them."),
    (PEOPLE, "Who is in a bucket, as what, and who is invited."),
    (PLANS, "What a bucket may hold, and what pays for it."),
    (SERVERS, "The servers that agents of pm2 have linked."),
    (ACCOUNT, "Who the caller is, and tokens."),
];
const BUCKETS: &str = "Buckets";
const PEOPLE: &str = "People";
const PLANS: &str = "Plans";
const SERVERS: &str = "Servers";
const ACCOUNT: &str = "Account";

/// The operations by function: all that HTTP reaches, but the one that answers what no route does.
pub(crate) fn operations() -> BTreeMap<&'static str, Operation> {
    BTreeMap::from([
        ("create", Operation::new::<BucketAnswer<'_>>(BUCKETS).taking::<Create>()),
        ("retrieve", Operation::new::<BucketView<'_>>(BUCKETS)),
        ("retrieve_all", Operation::new::<Vec<BucketView<'_>>>(BUCKETS)),
        ("update", Operation::new::<BucketView<'_>>(BUCKETS).taking::<Update>()),
        ("destroy", Operation::new::<BucketView<'_>>(BUCKETS)),
        ("rotate_secret", Operation::new::<BucketAnswer<'_>>(BUCKETS)),
        ("send_feedback", Operation::new::<SendFeedback>(BUCKETS).taking::<SendFeedback>()),
        ("update_user_options", Operation::new::<BucketAnswer<'_>>(BUCKETS).taking::<UpdateUserOptions>()),
        ("current_role", Operation::new::<CurrentRole>(PEOPLE)),
        ("invite_user", Operation::new::<InvitationsView<'_>>(PEOPLE).taking::<InviteUser>()),
        ("retrieve_invitations", Operation::new::<InvitationsView<'_>>(PEOPLE)),
        (
            "remove_invitation",
            Operation {
                query: Some(("email", of::<Email>)),
                ..Operation::new::<InvitationsView<'_>>(PEOPLE)
            },
        ),
        ("retrieve_users", Operation::new::<Vec<MemberView<'_>>>(PEOPLE)),
        ("remove_user", Operation::new::<Vec<MemberView<'_>>>(PEOPLE).taking::<RemoveUser>()),
        ("set_user_role", Operation::new::<Vec<MemberView<'_>>>(PEOPLE).taking::<SetUserRole>()),
        ("transfer_ownership", Operation::new::<BucketView<'_>>(PEOPLE).taking::<TransferOwnership>()),
        (
            "set_notification_state",
            Operation::new::<Vec<NotificationView<'_>>>(PEOPLE).taking::<SetNotificationState>(),
        ),
        ("upgrade", Operation::new::<Upgraded<'_>>(PLANS).taking::<Upgrade>()),
        ("claim_trial", Operation::new::<Claimed<'_>>(PLANS)),
        ("get_subscription", Operation::new::<SubscriptionView<'_>>(PLANS)),
        ("retrieve_charges", Operation::new::<Vec<Invoice>>(PLANS)),
        ("misc_plans", Operation::new::<Plans>(PLANS)),
        ("stripe_webhook", Operation::new::<Received>(PLANS).taking::<Event>()),
        ("retrieve_servers", Operation::new::<Vec<ServerView<'_>>>(SERVERS)),
        ("server_delete_server", Operation::new::<Deleted>(SERVERS).taking::<DeleteServer>()),
        ("node_verify", Operation::new::<Linked<'_>>(SERVERS).taking::<VerifyPm2>()),
        ("is_logged", Operation::new::<LoggedIn>(ACCOUNT)),
        ("oauth_token", Operation::new::<TokenAnswer>(ACCOUNT).taking::<TokenRequest>()),
    ])
}
