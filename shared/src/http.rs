//! HTTP as the functions see it: requests taken from API Gateway events, answers, problems.

mod answer;
mod bodies;
mod problem;
mod request;
mod views;

pub use answer::{Answer, json};
pub use bodies::{
    Create, DeleteServer, InviteUser, RemoveInvitation, RemoveUser, SendFeedback, SetNotificationState,
    SetUserRole, TokenRequest, TransferOwnership, Update, UpdateUserOptions, Upgrade, VerifyPm2,
};
pub use problem::{FieldError, Problem};
pub use request::Request;
pub use views::{
    BucketAnswer, BucketView, Claimed, CurrentRole, Deleted, InvitationsView, Linked, LoggedIn, MemberView,
    NotificationView, Received, ServerView, SubscriptionView, TokenAnswer, Upgraded,
};
