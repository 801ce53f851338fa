//! HTTP as the functions see it: requests taken from API Gateway events, answers, problems.

mod answer;
mod problem;
mod request;
mod views;

pub use answer::{Answer, json};
pub use problem::{FieldError, Problem};
pub use request::Request;
pub use views::{BucketView, InvitationsView, MemberView, NotificationView, ServerView, SubscriptionView};
