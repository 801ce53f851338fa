//! The rules that need no I/O, over plain types that cannot hold a bad value.

mod bucket;
mod email;
mod ids;
mod role;
mod text;
mod timestamp;
mod user;

pub use bucket::{Bucket, BucketChanges, Member, NewBucket, PlanName};
pub use email::{Email, EmailError};
pub use ids::{BucketId, IdError, PublicId, SecretId, UserId};
pub use role::{Right, Role};
pub use text::{AppUrl, BucketName, Comment, Configuration, TextError, UserOptions, Username};
pub use timestamp::Timestamp;
pub use user::User;
