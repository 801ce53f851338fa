//! A bucket and its members.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    AppUrl, BucketId, BucketName, Comment, Configuration, Email, PlanName, PublicId, Role, SecretId,
    Timestamp, Trial, UserId, UserOptions, Username,
};

/// A workspace that groups servers and the people who watch them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bucket {
    /// Its identifier.
    pub id: BucketId,
    /// Its name; need not be unique.
    pub name: BucketName,
    /// What it says of itself.
    pub comment: Comment,
    /// Where the watched application is.
    pub app_url: AppUrl,
    /// The clients' own settings.
    pub configuration: Option<Configuration>,
    /// The public half of its agents' credentials.
    pub public_id: PublicId,
    /// The secret half of its agents' credentials.
    pub secret_id: SecretId,
    /// The member whose role is [`Role::Owner`].
    pub owner_id: UserId,
    /// That member's name, kept here so that a bucket is shown with one read.
    pub owner_username: Username,
    /// The plan that it was put on; which one counts, [`Bucket::plan_at`] tells.
    pub plan: PlanName,
    /// When that plan ends, where it does: what was paid for is over then.
    pub plan_ends_at: Option<Timestamp>,
    /// Its trial, if it ever had one.
    pub trial: Option<Trial>,
    /// Members and pending invitations.
    pub seats_used: u32,
    /// Servers known.
    pub servers_used: u32,
    /// Counts the changes of what a bucket shows, so that a change can rest on what was read.
    pub version: u32,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was last changed.
    pub updated_at: Timestamp,
    /// When it was deleted; a deleted bucket stays deleted.
    pub deleted_at: Option<Timestamp>,
}

/// What a person gives to make a bucket.
#[derive(Clone, Debug)]
pub struct NewBucket {
    /// Its name.
    pub name: BucketName,
    /// What it says of itself.
    pub comment: Comment,
    /// Where the watched application is.
    pub app_url: AppUrl,
}

/// What to change of a bucket; what is `None` stays.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BucketChanges {
    /// The new name.
    pub name: Option<BucketName>,
    /// The new comment; an empty one clears it.
    pub comment: Option<Comment>,
    /// The new URL; an empty one clears it.
    pub app_url: Option<AppUrl>,
    /// The new settings.
    pub configuration: Option<Configuration>,
}

impl Bucket {
    /// Whether it has not been deleted.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.deleted_at.is_none()
    }

    /// The plan that sets its limits at `now`: that of an active trial, else the one that it was put on,
    /// else, when that has ended, the default one. By comparison at the time of use, so that nothing has
    /// to happen for a plan to end.
    #[must_use]
    pub fn plan_at(&self, now: Timestamp) -> PlanName {
        match &self.trial {
            Some(trial) if trial.is_active(now) => trial.plan.clone(),
            _ if self.plan_ends_at.is_some_and(|end| end <= now) => PlanName::default(),
            _ => self.plan.clone(),
        }
    }

    /// The bucket on `plan`, which ends at `ends_at` if at all, from `now` on. A trial of another plan is
    /// over then, unless the plan is the default one or has ended, which takes nothing from a trial.
    #[must_use]
    pub fn on_plan(self, plan: PlanName, ends_at: Option<Timestamp>, now: Timestamp) -> Self {
        let is_over = ends_at.is_some_and(|end| end <= now);
        let is_kept = |trial: &Trial| is_over || plan == trial.plan || plan == PlanName::default();
        let trial = self.trial.map(|trial| {
            let ends_at = if is_kept(&trial) { trial.ends_at } else { trial.ends_at.min(now) };
            Trial { ends_at, ..trial }
        });
        Self { plan, plan_ends_at: ends_at, trial, version: self.version + 1, updated_at: now, ..self }
    }

    /// The bucket with another secret, given at `now`.
    #[must_use]
    pub fn with_secret(self, secret_id: SecretId, now: Timestamp) -> Self {
        Self { secret_id, version: self.version + 1, updated_at: now, ..self }
    }

    /// The bucket in the hands of `new_owner` at `now`.
    #[must_use]
    pub fn handed_over(self, new_owner: &Member, now: Timestamp) -> Self {
        Self {
            owner_id: new_owner.user_id.clone(),
            owner_username: new_owner.username.clone(),
            version: self.version + 1,
            updated_at: now,
            ..self
        }
    }

    /// The bucket after `changes` at `now`.
    #[must_use]
    pub fn changed(self, changes: BucketChanges, now: Timestamp) -> Self {
        let BucketChanges { name, comment, app_url, configuration } = changes;
        Self {
            name: name.unwrap_or(self.name),
            comment: comment.unwrap_or(self.comment),
            app_url: app_url.unwrap_or(self.app_url),
            configuration: configuration.or(self.configuration),
            version: self.version + 1,
            updated_at: now,
            ..self
        }
    }
}

/// A person in a bucket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    /// Who it is.
    pub user_id: UserId,
    /// What they may do.
    pub role: Role,
    /// Their verified address, by which others name them.
    pub email: Email,
    /// The name to show.
    pub username: Username,
    /// How they are notified of what happens in the bucket.
    pub notification: NotificationState,
    /// Their own settings for this bucket.
    pub options: UserOptions,
    /// Since when.
    pub joined_at: Timestamp,
}

/// How a member is notified.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NotificationState {
    /// By e-mail; how everybody begins.
    #[default]
    Email,
    /// Not at all. The published reference spells it `nonde`, which is taken too.
    #[serde(alias = "nonde")]
    None,
}

impl NotificationState {
    /// The name on the wire and in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Email => "email",
            Self::None => "none",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(name: &str) -> PlanName {
        serde_json::from_value(serde_json::json!(name)).unwrap()
    }

    fn bucket() -> Bucket {
        let of = |value: &str| serde_json::json!(value);
        Bucket {
            id: serde_json::from_value(of("0123456789abcdef01234567")).unwrap(),
            name: serde_json::from_value(of("Servers")).unwrap(),
            comment: Comment::default(),
            app_url: AppUrl::default(),
            configuration: None,
            public_id: serde_json::from_value(of("abcdefghijklmno")).unwrap(),
            secret_id: serde_json::from_value(of("abcdefghijklmno")).unwrap(),
            owner_id: serde_json::from_value(of("0123456789abcdef01234567")).unwrap(),
            owner_username: serde_json::from_value(of("owner")).unwrap(),
            plan: PlanName::default(),
            plan_ends_at: None,
            trial: None,
            seats_used: 1,
            servers_used: 0,
            version: 1,
            created_at: Timestamp::from_seconds(0),
            updated_at: Timestamp::from_seconds(0),
            deleted_at: None,
        }
    }

    #[test]
    fn the_plan_that_counts_is_found_by_the_clock() {
        let at = Timestamp::from_seconds;
        let trial = Some(Trial { plan: name("plus"), ends_at: at(20) });
        for (plan, ends, trial, now, counts) in [
            ("free", None, None, 10, "free"),
            ("pro", None, None, 10, "pro"),
            ("pro", Some(11), None, 10, "pro"),
            ("pro", Some(10), None, 10, "free"),
            ("free", None, trial.clone(), 19, "plus"),
            ("free", None, trial.clone(), 20, "free"),
            ("pro", Some(10), trial.clone(), 15, "plus"),
            ("pro", None, trial.clone(), 20, "pro"),
        ] {
            let bucket = Bucket { plan: name(plan), plan_ends_at: ends.map(at), trial, ..bucket() };
            assert_eq!(bucket.plan_at(at(now)).as_str(), counts, "{plan} {ends:?} at {now}");
        }
    }

    #[test]
    fn a_trial_ends_with_another_plan_that_counts() {
        let at = Timestamp::from_seconds;
        for (plan, ends_at, trial_ends_at) in [
            ("pro", None, 10),
            ("pro", Some(11), 10),
            ("pro", Some(10), 20),
            ("plus", None, 20),
            ("free", None, 20),
        ] {
            let trial = Some(Trial { plan: name("plus"), ends_at: at(20) });
            let bucket = Bucket { trial, ..bucket() }.on_plan(name(plan), ends_at.map(at), at(10));
            assert_eq!(bucket.trial.unwrap().ends_at, at(trial_ends_at), "{plan} {ends_at:?}");
        }
    }

    #[test]
    fn each_change_is_what_it_says_and_one_more_version() {
        let (now, end) = (Timestamp::from_seconds(10), Timestamp::from_seconds(20));
        let text = |text: &str| serde_json::to_value(text).unwrap();
        let before = Bucket { version: 3, ..bucket() };
        let next = || Bucket { version: 4, updated_at: now, ..before.clone() };

        let plan = name("pro");
        assert_eq!(
            before.clone().on_plan(plan.clone(), Some(end), now),
            Bucket { plan, plan_ends_at: Some(end), ..next() }
        );

        let secret_id: SecretId = serde_json::from_value(text("zyxwvutsrqponml")).unwrap();
        assert_eq!(before.clone().with_secret(secret_id.clone(), now), Bucket { secret_id, ..next() });

        let new_owner = Member {
            user_id: serde_json::from_value(text("fedcba987654321001234567")).unwrap(),
            role: Role::User,
            email: Email::parse("new@example.com").unwrap(),
            username: serde_json::from_value(text("new")).unwrap(),
            notification: NotificationState::default(),
            options: UserOptions::default(),
            joined_at: now,
        };
        assert_eq!(
            before.clone().handed_over(&new_owner, now),
            Bucket { owner_id: new_owner.user_id, owner_username: new_owner.username, ..next() }
        );

        assert_eq!(before.clone().changed(BucketChanges::default(), now), next());
        let changes = BucketChanges {
            name: Some(serde_json::from_value(text("Other")).unwrap()),
            comment: Some(serde_json::from_value(text("A comment")).unwrap()),
            app_url: Some(serde_json::from_value(text("https://example.com")).unwrap()),
            configuration: Some(serde_json::from_str(r#"{"a":1}"#).unwrap()),
        };
        let told = before.clone().changed(changes.clone(), now);
        let BucketChanges { name, comment, app_url, configuration } = changes;
        let (name, comment, app_url) = (name.unwrap(), comment.unwrap(), app_url.unwrap());
        assert_eq!(told, Bucket { name, comment, app_url, configuration, ..next() });
        let again = told.clone().changed(BucketChanges::default(), now);
        assert_eq!(again, Bucket { version: 5, ..told });
    }

    #[test]
    fn a_bucket_lives_until_it_is_deleted() {
        assert!(bucket().is_live());
        assert!(!Bucket { deleted_at: Some(Timestamp::from_seconds(1)), ..bucket() }.is_live());
    }

    #[test]
    fn a_notification_state_is_written_as_it_is_read() {
        for state in [NotificationState::Email, NotificationState::None] {
            assert_eq!(serde_json::to_value(state).unwrap(), state.as_str());
        }
        assert_eq!(serde_json::from_str::<NotificationState>("\"nonde\"").unwrap(), NotificationState::None);
    }
}
