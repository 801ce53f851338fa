//! What follows a commit: the function of the table's stream.
//!
//! Each change writes an audit row in its own transaction, and the stream brings that row here, at least
//! once. Invitations, direct additions and new owners are mailed; what hangs under a deleted bucket is
//! cleared. What is no longer so when it comes (an invitation that was removed, a member who left) is
//! not mailed any more.
//!
//! A mail that Amazon SES never takes (an address that it does not like, a receiver that it must not
//! write to) is noted as refused, with SES's code: those behind it do not wait for it.
//!
//! A mail is sent under a lease on its audit row, and noted there: a record that is delivered again
//! sends nothing again. A second mail goes out only where sending and noting fall apart: a crash or a
//! failure between them, or an answer of SES that is lost.

mod mail;

use aws_sdk_sesv2::{
    Client,
    error::ProvideErrorMetadata,
    types::{Body, Content, Destination, EmailContent, Message},
};
use shared::{
    Context, StartError, StreamError, aws_config,
    config::{Config, optional, required},
    domain::{Bucket, Email, Role, Timestamp},
    serve_stream,
    store::{Action, AuditEntry, Lease, Store},
};

use mail::{Facts, Kind, Mail, Mails, Subjects};

struct Notify {
    store: Store,
    ses: Client,
    mails: Mails,
    from: String,
    link_base: Option<String>,
}

impl Context for Notify {
    async fn start() -> Result<Self, StartError> {
        let config = Config::from_environment()?;
        let aws = aws_config().await?;
        let subjects = Subjects {
            invitation: required("MAIL_SUBJECT_INVITATION")?,
            added: required("MAIL_SUBJECT_ADDED")?,
            new_owner: required("MAIL_SUBJECT_NEW_OWNER")?,
        };
        Ok(Self {
            store: Store::new(&aws, &config.table_name, &config.plans),
            ses: Client::new(&aws),
            mails: Mails::new(subjects).map_err(|error| StartError::Other(error.to_string()))?,
            from: required("MAIL_FROM")?,
            link_base: optional("MAIL_LINK_BASE"),
        })
    }
}

/// A mail that is due.
struct Due {
    kind: Kind,
    to: Email,
    role: Role,
    until: Option<Timestamp>,
    bucket: Bucket,
}

/// Why a mail was not sent. Amazon SES names addresses in its messages, so only its code is kept.
#[derive(Debug, PartialEq, Eq)]
enum Unsent {
    /// SES does not take this mail, however often it is sent; by this code.
    Never(&'static str),
    /// It may go next time.
    Later(String),
}

impl Unsent {
    /// What SES's error `code` comes to; none where there was no answer.
    fn of(code: Option<&str>) -> Self {
        match code {
            Some("BadRequestException") => Self::Never("BadRequestException"),
            Some("MessageRejected") => Self::Never("MessageRejected"),
            Some(code) => Self::Later(code.to_owned()),
            None => Self::Later("Amazon SES does not answer".to_owned()),
        }
    }
}

impl Notify {
    /// The mail that `entry` asks for, as things are now.
    async fn due(&self, entry: &AuditEntry) -> Result<Option<Due>, StreamError> {
        let Some(bucket) = self.store.bucket(&entry.bucket_id).await? else {
            return Ok(None);
        };
        if let Some(email) = entry.target_email.as_ref().filter(|_| entry.action == Action::Invite) {
            let invitation = self.store.invitation(&bucket.id, email).await?;
            let live = invitation.filter(|invitation| invitation.is_live(Timestamp::now()));
            return Ok(live.map(|invitation| Due {
                kind: Kind::Invitation,
                to: invitation.email,
                role: invitation.role,
                until: Some(invitation.expires_at),
                bucket,
            }));
        }
        let kind = if entry.action == Action::TransferOwnership { Kind::NewOwner } else { Kind::Added };
        let Some(target) = &entry.target_id else { return Ok(None) };
        let member = self.store.member(&bucket.id, target).await?;
        let told = member.filter(|member| kind == Kind::Added || member.role == Role::Owner);
        Ok(told.map(|member| Due { kind, to: member.email, role: member.role, until: None, bucket }))
    }

    fn write(&self, due: &Due, actor: &str) -> Result<Mail, minijinja::Error> {
        let link = self
            .link_base
            .as_deref()
            .map(|base| format!("{}/#/bucket/{}", base.trim_end_matches('/'), due.bucket.id.as_str()));
        let until = due.until.map(Timestamp::day);
        let facts = Facts { actor, bucket: due.bucket.name.as_str(), role: due.role.as_str(), link, until };
        self.mails.write(due.kind, &facts)
    }

    async fn send(&self, to: &Email, mail: Mail) -> Result<(), Unsent> {
        let content = |text: String| Content::builder().data(text).charset("UTF-8").build();
        let unbuilt =
            |_: aws_sdk_sesv2::error::BuildError| Unsent::Later("the mail cannot be built".to_owned());
        let Mail { subject, text, html } = mail;
        let message = Message::builder()
            .subject(content(subject).map_err(unbuilt)?)
            .body(
                Body::builder()
                    .text(content(text).map_err(unbuilt)?)
                    .html(content(html).map_err(unbuilt)?)
                    .build(),
            )
            .build();
        let sent = self
            .ses
            .send_email()
            .from_email_address(&self.from)
            .destination(Destination::builder().to_addresses(to.as_str()).build())
            .content(EmailContent::builder().simple(message).build())
            .send()
            .await;
        sent.map(drop)
            .map_err(|error| Unsent::of(error.as_service_error().and_then(ProvideErrorMetadata::code)))
    }

    async fn mail(&self, entry: &AuditEntry) -> Result<(), StreamError> {
        let Some(due) = self.due(entry).await? else { return Ok(()) };
        let actor = match &entry.actor_id {
            Some(actor) => self.store.member(&entry.bucket_id, actor).await?,
            None => None,
        };
        let actor = actor.as_ref().map_or("Somebody", |actor| actor.username.as_str());
        let mail =
            self.write(&due, actor).map_err(|error| StreamError::of("no mail could be written", &error))?;
        // Last before sending: whatever fails earlier leaves no lease that the next delivery must wait for.
        match self.store.lease_mail(entry, Timestamp::now()).await? {
            Lease::Granted => {}
            Lease::Sent => return Ok(()),
            Lease::Held => {
                return Err(StreamError::new("another delivery of this record is sending the mail"));
            }
        }
        match self.send(&due.to, mail).await {
            Ok(()) => Ok(self.store.note_mail(entry, None, Timestamp::now()).await?),
            Err(Unsent::Never(code)) => Ok(self.store.note_mail(entry, Some(code), Timestamp::now()).await?),
            Err(Unsent::Later(reason)) => {
                // The next delivery need not wait for the lease to end.
                self.store.return_mail(entry).await?;
                Err(StreamError::new(&format!("the mail could not be sent: {reason}")))
            }
        }
    }
}

async fn handle(notify: &Notify, entry: AuditEntry) -> Result<(), StreamError> {
    match entry.action {
        Action::Delete => Ok(notify.store.clear_deleted_bucket(&entry.bucket_id).await?),
        Action::Invite | Action::AddUser | Action::TransferOwnership => notify.mail(&entry).await,
        Action::Create
        | Action::Update
        | Action::RemoveInvitation
        | Action::ClearInvitation
        | Action::AcceptInvitation
        | Action::RemoveUser
        | Action::Leave
        | Action::ChangeAddress
        | Action::SetRole
        | Action::SetNotificationState
        | Action::UpdateUserOptions
        | Action::LinkServer
        | Action::DeleteServer
        | Action::RotateSecret
        | Action::Upgrade
        | Action::SyncSubscription
        | Action::ClaimTrial
        | Action::SendFeedback => Ok(()),
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    serve_stream(handle).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_may_pass_is_sent_again_and_no_address_is_kept() {
        assert_eq!(Unsent::of(Some("MessageRejected")), Unsent::Never("MessageRejected"));
        assert_eq!(Unsent::of(Some("BadRequestException")), Unsent::Never("BadRequestException"));
        for code in ["TooManyRequestsException", "LimitExceededException", "SendingPausedException"] {
            assert_eq!(Unsent::of(Some(code)), Unsent::Later(code.to_owned()));
        }
        assert!(matches!(Unsent::of(None), Unsent::Later(_)));
    }
}
