//! The mails: one template each, with a text and an HTML part.

use minijinja::{AutoEscape, Environment, UndefinedBehavior, Value};
/// The kinds of mail.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// To an address that is invited.
    Invitation,
    /// To a person who was added.
    Added,
    /// To a new owner.
    NewOwner,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Invitation => "invitation",
            Self::Added => "added",
            Self::NewOwner => "new_owner",
        }
    }
}

/// What the templates and subjects may name.
#[derive(Debug)]
pub(crate) struct Facts<'a> {
    /// The name of who did it.
    pub(crate) actor: &'a str,
    /// The name of the bucket.
    pub(crate) bucket: &'a str,
    /// The role that the receiver has, or will have.
    pub(crate) role: &'a str,
    /// Where to open the bucket, if the deployment says.
    pub(crate) link: Option<String>,
    /// The day until which an invitation can be taken up.
    pub(crate) until: Option<String>,
}

/// The subject templates of the deployment.
#[derive(Debug)]
pub(crate) struct Subjects {
    /// Of [`Kind::Invitation`].
    pub(crate) invitation: String,
    /// Of [`Kind::Added`].
    pub(crate) added: String,
    /// Of [`Kind::NewOwner`].
    pub(crate) new_owner: String,
}

/// A mail, ready to send.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Mail {
    /// One line.
    pub(crate) subject: String,
    /// The plain text part.
    pub(crate) text: String,
    /// The HTML part; whatever people wrote is escaped.
    pub(crate) html: String,
}

/// The templates, parsed.
#[derive(Debug)]
pub(crate) struct Mails {
    environment: Environment<'static>,
}

impl Mails {
    /// Parses the templates and `subjects`.
    ///
    /// # Errors
    /// A subject of the deployment is not a template, or names something that there is not.
    pub(crate) fn new(subjects: Subjects) -> Result<Self, minijinja::Error> {
        let mut environment = Environment::new();
        environment.set_undefined_behavior(UndefinedBehavior::Strict);
        // Each block says for itself how it escapes.
        environment.set_auto_escape_callback(|_| AutoEscape::None);
        environment.add_template("invitation", include_str!("mail/invitation.jinja"))?;
        environment.add_template("added", include_str!("mail/added.jinja"))?;
        environment.add_template("new_owner", include_str!("mail/new_owner.jinja"))?;
        let Subjects { invitation, added, new_owner } = subjects;
        environment.add_template_owned("invitation subject", invitation)?;
        environment.add_template_owned("added subject", added)?;
        environment.add_template_owned("new_owner subject", new_owner)?;
        let mails = Self { environment };
        // A subject that names what there is not is found out now, not with the first mail.
        let facts = Facts { actor: "", bucket: "", role: "", link: None, until: None };
        for kind in [Kind::Invitation, Kind::Added, Kind::NewOwner] {
            mails.write(kind, &facts)?;
        }
        Ok(mails)
    }

    /// Writes the mail of `kind` that tells `facts`.
    ///
    /// # Errors
    /// A subject of the deployment names something that there is not.
    pub(crate) fn write(&self, kind: Kind, facts: &Facts<'_>) -> Result<Mail, minijinja::Error> {
        let name = kind.name();
        let Facts { actor, bucket, role, link, until } = facts;
        let facts = Value::from_pairs([
            ("actor", Value::from(*actor)),
            ("bucket", Value::from(*bucket)),
            ("role", Value::from(*role)),
            ("link", Value::from(link.clone())),
            ("until", Value::from(until.clone())),
        ]);
        let subject = self.environment.get_template(&format!("{name} subject"))?.render(facts.clone())?;
        let mut rendered = self.environment.get_template(name)?.render_captured(facts)?;
        let mut block = |name| rendered.with_state_mut(|state| state.render_block(name));
        Ok(Mail {
            // A line break would end the header.
            subject: subject.split_whitespace().collect::<Vec<_>>().join(" "),
            text: block("text")?.trim().to_owned(),
            html: block("html")?.trim().to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mails() -> Mails {
        Mails::new(Subjects {
            invitation: "{{ actor }} invites you to {{ bucket }}".to_owned(),
            added: "{{ bucket }}".to_owned(),
            new_owner: "{{ bucket }} is yours now".to_owned(),
        })
        .unwrap()
    }

    fn facts(bucket: &str) -> Facts<'_> {
        let link = Some("https://example.com/#/bucket/1".to_owned());
        Facts { actor: "Al & Co", bucket, role: "admin", link, until: Some("1 January 2027".to_owned()) }
    }

    #[test]
    fn what_people_wrote_is_escaped_in_html_and_plain_elsewhere() {
        let name = "<script>alert('x')</script>";
        for kind in [Kind::Invitation, Kind::Added, Kind::NewOwner] {
            let mail = mails().write(kind, &facts(name)).unwrap();

            assert!(mail.text.contains(name) && mail.subject.contains(name), "{mail:?}");
            assert!(mail.html.contains("&lt;script&gt;") && !mail.html.contains("<script>"), "{}", mail.html);
            assert!(mail.html.contains("Al &amp; Co") && mail.text.contains("Al & Co"), "{mail:?}");
            assert!(
                mail.html.contains("https:&#x2f;&#x2f;example.com")
                    || mail.html.contains("https://example.com")
            );
            assert!(mail.text.contains("https://example.com/#/bucket/1"), "{}", mail.text);
        }
    }

    #[test]
    fn a_subject_is_one_line_whatever_a_name_holds() {
        let mail = mails().write(Kind::NewOwner, &facts("Servers\r\nBcc: everybody@example.com")).unwrap();

        assert_eq!(mail.subject, "Servers Bcc: everybody@example.com is yours now");
    }

    #[test]
    fn an_invitation_says_as_what_and_until_when() {
        let mail = mails().write(Kind::Invitation, &facts("Servers")).unwrap();

        for part in [&mail.text, &mail.html] {
            assert!(part.contains("as admin") && part.contains("until 1 January 2027"), "{part}");
        }
    }

    #[test]
    fn without_a_link_base_there_is_no_link() {
        let facts = Facts { link: None, ..facts("Servers") };
        for kind in [Kind::Invitation, Kind::Added, Kind::NewOwner] {
            let mail = mails().write(kind, &facts).unwrap();

            assert!(!mail.html.contains("href") && !mail.text.contains("http"), "{mail:?}");
        }
    }

    #[test]
    fn a_subject_that_is_no_template_or_misspelt_is_an_error() {
        let subjects = |added: &str| Subjects {
            invitation: String::new(),
            added: added.to_owned(),
            new_owner: String::new(),
        };

        assert!(Mails::new(subjects("{{ actor")).is_err());
        assert!(Mails::new(subjects("{{ actr }}")).is_err());
        assert!(Mails::new(subjects("{{ actor }}")).is_ok());
    }
}
