//! What a command does when nothing speaks against it.

use std::collections::BTreeSet;

use shared::domain::{PlanName, Role};

use super::{
    Address, Answer, Audit, Bucket, BucketNo, CHANGE_LEASE, Change, Command, DAY, INVITATION_DAYS,
    Invitation, MAIL_LEASE, Mail, Member, Person, Server, State, Subscription, Time,
};

impl Audit {
    /// `actor` did `action`.
    pub(crate) fn new(action: &str, actor: impl Into<Option<Person>>) -> Self {
        let (action, actor) = (action.to_owned(), actor.into());
        Self { action, actor, target: None, address: None, server: None, role: None }
    }
}

impl Member {
    fn new(role: Role, address: Address) -> Self {
        Self { role, address, muted: false, options: 0 }
    }
}

impl Bucket {
    pub(super) fn note(&mut self, entry: Audit) {
        *self.audit.entry(entry).or_default() += 1;
    }

    /// As [`shared::domain::Bucket::on_plan`] has it: a trial of another plan is over with a plan that is
    /// neither the default one nor over itself.
    fn put_on(&mut self, plan: &PlanName, ends: Option<Time>, trial: Option<&PlanName>, now: Time) {
        let is_over = ends.is_some_and(|ends| ends <= now);
        if !is_over && trial != Some(plan) && *plan != PlanName::default() {
            self.trial_ends = self.trial_ends.map(|ends| ends.min(now));
        }
        self.plan = plan.clone();
        self.plan_ends = ends;
    }

    fn answer(&self) -> Answer {
        let Self { name, comment, plan, owner, .. } = self;
        Answer::Bucket { name: *name, comment: *comment, plan: plan.clone(), owner: *owner }
    }

    /// `address` is no longer invited, and that is noted.
    pub(super) fn clear_invitation(&mut self, address: Address, actor: Person) {
        self.invitations.remove(&address);
        self.note(Audit { address: Some(address), ..Audit::new("clear_invitation", actor) });
    }

    /// `who` invites `address`, again if it is invited.
    pub(super) fn invite(&mut self, who: Person, address: Address, role: Role, now: Time) {
        let expires = now + INVITATION_DAYS * DAY;
        self.invitations.insert(address, Invitation { role, by: who, expires });
        self.note(Audit { address: Some(address), role: Some(role), ..Audit::new("invite", who) });
    }

    /// `person` is a member from now on, by an invitation that is gone then.
    pub(super) fn accept(&mut self, person: Person, address: Address, role: Role) {
        self.invitations.remove(&address);
        self.members.insert(person, Member::new(role, address));
        self.note(Audit { role: Some(role), ..Audit::new("accept_invitation", person) });
    }
}

impl State {
    /// Carries out `command`, against which nothing speaks: [`State::refusals`] is empty.
    pub(super) fn carry_out(&mut self, command: &Command) -> Answer {
        let now = self.now;
        match command {
            Command::Wait { seconds } => self.now += seconds,
            Command::Create { who, bucket, secret } => self.create(*who, *bucket, *secret),
            Command::Disconnect { connection, oversized } => {
                if let Some((bucket, server)) = self.connections.remove(connection)
                    && let Some(server) =
                        self.buckets.get_mut(&bucket).and_then(|bucket| bucket.servers.get_mut(&server))
                {
                    server.last_seen = now;
                    if *oversized {
                        server.oversized = Some(now);
                    } else {
                        server.connections.remove(connection);
                    }
                }
            }
            Command::NoteEvent { event } => drop(self.events.insert(*event)),
            Command::SetCustomer { who, customer, before } => {
                let Some(user) = self.users.get_mut(who) else { return Answer::Done };
                if user.customer == *before {
                    user.customer = Some(*customer);
                }
                return user.customer.map_or(Answer::Done, Answer::Customer);
            }
            Command::ClaimTrial { who, bucket } => {
                let days = self.plans.trial().map_or(0, |(_, days)| days);
                if let Some(user) = self.users.get_mut(who) {
                    user.trial_used = true;
                }
                if let Some(bucket) = self.buckets.get_mut(bucket) {
                    bucket.trial_ends = Some(now + days * DAY);
                    bucket.note(Audit::new("claim_trial", *who));
                }
            }
            Command::Connect { bucket, server, connection, .. } => {
                self.connections.insert(*connection, (*bucket, *server));
                let server = self.buckets.get_mut(bucket).and_then(|bucket| bucket.servers.get_mut(server));
                if let Some(server) = server {
                    if server.oversized.take().is_some() {
                        server.connections.clear();
                    }
                    server.connections.insert(*connection);
                    server.last_seen = now;
                }
            }
            Command::Told { bucket, event: Some(event), .. } => {
                self.events.insert(*event);
                return self.carry_out_in(*bucket, command);
            }
            Command::Update { bucket, .. }
            | Command::Delete { bucket, .. }
            | Command::Invite { bucket, .. }
            | Command::RemoveInvitation { bucket, .. }
            | Command::RemoveUser { bucket, .. }
            | Command::SetRole { bucket, .. }
            | Command::Transfer { bucket, .. }
            | Command::SetMuted { bucket, .. }
            | Command::SetOptions { bucket, .. }
            | Command::SendFeedback { bucket, .. }
            | Command::SwitchPlan { bucket, .. }
            | Command::RotateSecret { bucket, .. }
            | Command::Link { bucket, .. }
            | Command::DeleteServer { bucket, .. }
            | Command::Told { bucket, .. }
            | Command::BeginChange { bucket, .. }
            | Command::NoteCall { bucket, .. }
            | Command::EndChange { bucket, .. }
            | Command::DropChange { bucket, .. }
            | Command::LeaveChange { bucket, .. }
            | Command::TransferPaid { bucket, .. }
            | Command::LeaseMail { bucket }
            | Command::NoteMail { bucket }
            | Command::ReturnMail { bucket } => return self.carry_out_in(*bucket, command),
            // These take several moments: see `steps`.
            Command::SignIn { .. }
            | Command::SignInCutOff { .. }
            | Command::Clear { .. }
            | Command::Guess { .. } => {}
        }
        Answer::Done
    }

    fn create(&mut self, who: Person, bucket: BucketNo, secret: super::SecretNo) {
        let Some(user) = self.users.get(&who) else { return };
        let mut created = Bucket::new(who, secret);
        created.members.insert(who, Member::new(Role::Owner, user.address));
        created.note(Audit::new("create", who));
        self.buckets.insert(bucket, created);
    }

    /// Carries out a `command` that changes the bucket `no` alone.
    fn carry_out_in(&mut self, no: BucketNo, command: &Command) -> Answer {
        let now = self.now;
        let trial = self.plans.trial().map(|(plan, _)| plan.clone());
        let user_of = |address: &Address| self.user_of(*address);
        let target = match command {
            Command::Invite { address, .. }
            | Command::RemoveUser { address, .. }
            | Command::SetRole { address, .. }
            | Command::Transfer { address, .. }
            | Command::TransferPaid { address, .. }
            | Command::SetMuted { address, .. } => user_of(address),
            _ => None,
        };
        let Some(bucket) = self.buckets.get_mut(&no) else { return Answer::Done };
        match command {
            Command::Update { who, name, comment, .. } => {
                bucket.name = name.unwrap_or(bucket.name);
                bucket.comment = comment.unwrap_or(bucket.comment);
                bucket.note(Audit::new("update", *who));
                return bucket.answer();
            }
            Command::Delete { who, .. } => {
                bucket.deleted = true;
                bucket.subscription = None;
                bucket.change = None;
                bucket.note(Audit::new("delete", *who));
            }
            Command::Invite { who, address, role, .. } => {
                if let Some(target) = target {
                    bucket.members.insert(target, Member::new(*role, *address));
                    let entry = Audit::new("add_user", *who);
                    bucket.note(Audit { target: Some(target), role: Some(*role), ..entry });
                } else {
                    bucket.invite(*who, *address, *role, now);
                }
            }
            Command::RemoveInvitation { who, address, .. } => {
                bucket.invitations.remove(address);
                bucket.note(Audit { address: Some(*address), ..Audit::new("remove_invitation", *who) });
            }
            Command::RemoveUser { who, .. } => {
                bucket.members.retain(|member, _| Some(*member) != target);
                bucket.note(if target == Some(*who) {
                    Audit::new("leave", *who)
                } else {
                    Audit { target, ..Audit::new("remove_user", *who) }
                });
            }
            Command::SetRole { who, role, .. } => {
                if let Some(member) = target.and_then(|target| bucket.members.get_mut(&target)) {
                    member.role = *role;
                }
                bucket.note(Audit { target, role: Some(*role), ..Audit::new("set_role", *who) });
            }
            Command::Transfer { who, .. } => return bucket.hand_over(*who, target),
            Command::TransferPaid { who, plan, .. } => {
                bucket.plan = plan.clone();
                bucket.plan_ends = None;
                bucket.pay(plan, None, false);
                bucket.change = None;
                return bucket.hand_over(*who, target);
            }
            Command::SetMuted { who, muted, .. } => {
                if let Some(member) = target.and_then(|target| bucket.members.get_mut(&target)) {
                    member.muted = *muted;
                }
                bucket.note(Audit { target, ..Audit::new("set_notification_state", *who) });
            }
            Command::SetOptions { who, options, .. } => {
                if let Some(member) = bucket.members.get_mut(who) {
                    member.options = *options;
                }
                bucket.note(Audit::new("update_user_options", *who));
            }
            Command::SendFeedback { who, .. } => {
                bucket.feedback += 1;
                bucket.note(Audit::new("send_feedback", *who));
            }
            Command::SwitchPlan { who, plan, .. } => {
                if bucket.plan != *plan || bucket.plan_ends.is_some() {
                    bucket.put_on(plan, None, trial.as_ref(), now);
                    bucket.note(Audit::new("upgrade", *who));
                }
                return bucket.answer();
            }
            Command::RotateSecret { who, secret, .. } => {
                bucket.secret = *secret;
                bucket.note(Audit::new("rotate_secret", *who));
                return bucket.answer();
            }
            Command::Link { server, .. } => {
                let new = !bucket.servers.contains_key(server);
                let fresh = Server { connections: BTreeSet::new(), last_seen: now, oversized: None };
                bucket.servers.entry(*server).or_insert(fresh).last_seen = now;
                if new {
                    bucket.note(Audit { server: Some(*server), ..Audit::new("link_server", None) });
                }
                return Answer::Linked { new };
            }
            Command::DeleteServer { who, server, .. } => {
                bucket.servers.remove(server);
                bucket.note(Audit { server: Some(*server), ..Audit::new("delete_server", *who) });
            }
            Command::Told { plan, ends_in, .. } => {
                let ends = ends_in.map(|seconds| now + seconds);
                bucket.put_on(plan, ends, trial.as_ref(), now);
                bucket.pay(plan, ends, *ends_in == Some(0));
                bucket.note(Audit::new("sync_subscription", None));
            }
            Command::BeginChange { change, .. } => {
                let lease = now + CHANGE_LEASE;
                bucket.change = Some(Change { no: *change, lease, call: false, replaced: false });
            }
            Command::EndChange { who, plan, replaced, .. } => {
                bucket.put_on(plan, None, trial.as_ref(), now);
                bucket.pay(plan, None, false);
                bucket.note(Audit::new("upgrade", *who));
                if *replaced {
                    if let Some(change) = &mut bucket.change {
                        (change.replaced, change.call) = (true, false);
                    }
                } else {
                    bucket.change = None;
                }
            }
            Command::NoteCall { .. } => {
                if let Some(change) = &mut bucket.change {
                    change.call = true;
                }
            }
            Command::DropChange { change, .. } => {
                bucket.change.take_if(|present| present.no == *change);
            }
            Command::LeaveChange { change, .. } => {
                if let Some(present) = &mut bucket.change
                    && present.no == *change
                {
                    present.lease = now;
                }
            }
            Command::LeaseMail { .. } => bucket.mail.lease = Some(now + MAIL_LEASE),
            Command::NoteMail { .. } => bucket.mail = Mail { lease: None, sent: true },
            Command::ReturnMail { .. } => bucket.mail.lease = None,
            _ => {}
        }
        Answer::Done
    }
}

impl Bucket {
    fn hand_over(&mut self, who: Person, target: Option<Person>) -> Answer {
        let Some(target) = target else { return self.answer() };
        for (person, role) in [(who, Role::Admin), (target, Role::Owner)] {
            if let Some(member) = self.members.get_mut(&person) {
                member.role = role;
            }
        }
        self.owner = target;
        self.note(Audit { target: Some(target), ..Audit::new("transfer_ownership", who) });
        self.answer()
    }

    fn pay(&mut self, plan: &PlanName, ends: Option<Time>, over: bool) {
        let version = self.subscription.as_ref().map_or(0, |told| told.version) + 1;
        self.subscription = Some(Subscription { plan: plan.clone(), ends, over, version });
    }
}
