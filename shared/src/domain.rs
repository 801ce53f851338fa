//! The rules that need no I/O, over plain types that cannot hold a bad value.

mod bucket;
mod email;
mod ids;
mod invitation;
mod plan;
mod role;
mod server;
mod subscription;
mod text;
mod timestamp;
mod user;

pub use bucket::{Bucket, BucketChanges, Member, NewBucket, NotificationState};
pub use email::{Email, EmailError};
pub use ids::{BucketId, IdError, PublicId, SecretId, UserId};
pub use invitation::Invitation;
pub use plan::{Limits, Plan, PlanName, Plans, PlansError, Trial};
pub use role::{GrantableRole, Right, Role};
pub use server::{Report, Server, ServerName, ServerNameError};
pub use subscription::{Subscription, SubscriptionStatus};
pub use text::{AppUrl, BucketName, Comment, Configuration, Feedback, TextError, UserOptions, Username};
pub use timestamp::Timestamp;
pub use user::{Target, User};
