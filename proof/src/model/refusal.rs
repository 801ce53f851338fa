//! What must be so for a command to be carried out.

use shared::domain::{PlanName, Right, Role};

use super::{
    Address, BUCKETS_PER_OWNER, BucketNo, ChangeNo, Command, No, OVERSIZED, Person, SILENCE, SecretNo, State,
    count,
};

/// The refusals of a command, in the order in which they are told.
struct Refusals<'s> {
    state: &'s State,
    refusals: Vec<No>,
}

impl Refusals<'_> {
    fn unless(&mut self, holds: bool, refusal: No) {
        if !holds && !self.refusals.contains(&refusal) {
            self.refusals.push(refusal);
        }
    }

    /// `who` is in the live `bucket`.
    fn access(&mut self, who: Person, bucket: BucketNo) -> Option<Role> {
        let role = self.state.role(bucket, who);
        self.unless(role.is_some(), No::BucketNotFound);
        role
    }

    /// `who` is in the live `bucket` with `right`.
    fn right(&mut self, who: Person, bucket: BucketNo, right: Right) {
        let role = self.access(who, bucket);
        self.unless(role.is_none_or(|role| role.may(right)), No::RoleTooLow);
    }

    /// Somebody has `address`.
    fn user_of(&mut self, address: Address) -> Option<Person> {
        let user = self.state.user_of(address);
        self.unless(user.is_some(), No::UserNotFound);
        user
    }

    /// Who has `address` is in `bucket`; of a deleted one that was cleared, nobody is.
    fn member_of(&mut self, address: Address, bucket: BucketNo) -> Option<Person> {
        let user = self.user_of(address)?;
        let bucket = self.state.buckets.get(&bucket);
        let is_in = bucket.is_none_or(|bucket| bucket.members.contains_key(&user));
        self.unless(is_in, No::UserNotFound);
        Some(user)
    }

    /// The live `bucket` has `secret`.
    fn keys(&mut self, bucket: BucketNo, secret: SecretNo) {
        let are_right = self.state.live(bucket).is_some_and(|bucket| bucket.secret == secret);
        self.unless(are_right, No::WrongKeys);
    }
}

impl State {
    /// Why `command` cannot be carried out now, in the order in which it is told; nothing where it can.
    #[must_use]
    pub fn refusals(&self, command: &Command) -> Vec<No> {
        let mut no = Refusals { state: self, refusals: Vec::new() };
        self.refuse(command, &mut no);
        no.refusals
    }

    fn refuse(&self, command: &Command, no: &mut Refusals<'_>) {
        match command {
            Command::SignIn { .. }
            | Command::SignInCutOff { .. }
            | Command::Wait { .. }
            | Command::NoteEvent { .. }
            | Command::Disconnect { .. }
            | Command::Guess { .. }
            | Command::NoteMail { .. }
            | Command::ReturnMail { .. }
            | Command::DropChange { .. }
            | Command::LeaveChange { .. } => {}
            Command::Create { who, .. } => {
                no.unless(self.users.contains_key(who), No::NotSignedIn);
                no.unless(self.owned(*who) < BUCKETS_PER_OWNER, No::BucketLimit);
            }
            Command::Update { who, bucket, .. } => no.right(*who, *bucket, Right::Update),
            Command::RotateSecret { who, bucket, .. } => no.right(*who, *bucket, Right::RotateSecret),
            Command::Clear { bucket } => no.unless(self.live(*bucket).is_none(), No::Lives),
            Command::Delete { who, bucket } => {
                no.right(*who, *bucket, Right::Delete);
                no.unless(!self.is_paid(*bucket), No::Paid);
            }
            Command::Invite { who, bucket, address, .. } => self.refuse_invite(*who, *bucket, *address, no),
            Command::RemoveInvitation { who, bucket, address } => {
                no.right(*who, *bucket, Right::Invite);
                let is_invited =
                    self.live(*bucket).is_none_or(|bucket| bucket.invitations.contains_key(address));
                no.unless(is_invited, No::InvitationNotFound);
            }
            Command::RemoveUser { who, bucket, address } => self.refuse_removal(*who, *bucket, *address, no),
            Command::SetRole { who, bucket, address, .. } => {
                no.right(*who, *bucket, Right::SetRole);
                let target = no.member_of(*address, *bucket);
                let is_owner = target.and_then(|target| self.role(*bucket, target)) == Some(Role::Owner);
                no.unless(!is_owner, No::OwnerRoleFixed);
            }
            Command::Transfer { who, bucket, address } => {
                no.right(*who, *bucket, Right::Transfer);
                no.user_of(*address);
                no.unless(!self.goes_on(*bucket), No::Paid);
                self.refuse_new_owner(*who, *bucket, *address, no);
            }
            Command::TransferPaid { who, bucket, address, change, .. } => {
                no.right(*who, *bucket, Right::Transfer);
                no.user_of(*address);
                self.refuse_new_owner(*who, *bucket, *address, no);
                no.unless(self.is_change(*bucket, *change), No::Changed);
            }
            Command::SetMuted { who, bucket, address, .. } => {
                let role = no.access(*who, *bucket);
                let may = |role: Role| role.may(Right::ManageNotifications);
                let own = self.is_own_address(*who, *bucket, *address);
                no.unless(own || role.is_none_or(may), No::RoleTooLow);
                no.member_of(*address, *bucket);
            }
            Command::SetOptions { who, bucket, .. } | Command::SendFeedback { who, bucket } => {
                no.access(*who, *bucket);
            }
            Command::SwitchPlan { who, bucket, .. } => {
                no.right(*who, *bucket, Right::ChangePlan);
                no.unless(!self.is_paid(*bucket), No::Paid);
            }
            Command::ClaimTrial { who, bucket } => self.refuse_trial(*who, *bucket, no),
            Command::Link { bucket, secret, server } => {
                no.keys(*bucket, *secret);
                let has_place = self.live(*bucket).is_none_or(|bucket| {
                    bucket.servers.contains_key(server)
                        || count(bucket.servers.keys()) < self.limits(bucket).servers
                });
                no.unless(has_place, No::ServerLimit);
            }
            Command::Connect { bucket, secret, server, .. } => {
                no.keys(*bucket, *secret);
                let server = self.live(*bucket).and_then(|bucket| bucket.servers.get(server));
                no.unless(server.is_some(), No::NotLinked);
                let oversized = server.and_then(|server| server.oversized);
                no.unless(oversized.is_none_or(|at| self.now >= at + OVERSIZED), No::Oversized);
            }
            Command::DeleteServer { who, bucket, server } => {
                no.right(*who, *bucket, Right::DeleteServer);
                let server = self.live(*bucket).and_then(|bucket| bucket.servers.get(server));
                no.unless(server.is_some(), No::ServerNotFound);
                let is_active = server.is_some_and(|server| {
                    !server.connections.is_empty() && self.now < server.last_seen + SILENCE
                });
                no.unless(!is_active, No::ServerConnected);
            }
            Command::Told { bucket, event, .. } => {
                no.unless(self.live(*bucket).is_some(), No::BucketNotFound);
                no.unless(event.is_none_or(|event| !self.events.contains(&event)), No::EventSeen);
            }
            Command::BeginChange { who, bucket, .. } => {
                no.access(*who, *bucket);
                let present = self.live(*bucket).and_then(|bucket| bucket.change.as_ref());
                no.unless(present.is_none_or(|present| present.lease <= self.now), No::Busy);
                no.right(*who, *bucket, Right::ChangePlan);
            }
            Command::NoteCall { bucket, change } => {
                no.unless(self.is_change(*bucket, *change), No::Changed);
            }
            Command::EndChange { bucket, change, .. } => {
                no.unless(self.live(*bucket).is_some(), No::BucketNotFound);
                no.unless(self.is_change(*bucket, *change), No::Changed);
            }
            Command::SetCustomer { who, .. } => {
                no.unless(self.users.contains_key(who), No::NotSignedIn);
            }
            Command::LeaseMail { bucket } => {
                let mail = self.buckets.get(bucket).map(|bucket| &bucket.mail);
                no.unless(mail.is_some_and(|mail| !mail.sent), No::Sent);
                let is_held = mail.and_then(|mail| mail.lease).is_some_and(|lease| lease >= self.now);
                no.unless(!is_held, No::Held);
            }
        }
    }

    fn refuse_invite(&self, who: Person, bucket: BucketNo, address: Address, no: &mut Refusals<'_>) {
        no.right(who, bucket, Right::Invite);
        let Some(bucket) = self.live(bucket) else { return };
        let user = self.user_of(address);
        no.unless(user.is_none_or(|user| !bucket.members.contains_key(&user)), No::AlreadyMember);
        let has_seat = bucket.invitations.contains_key(&address) && user.is_none();
        no.unless(has_seat || bucket.seats() < self.limits(bucket).seats, No::SeatLimit);
    }

    fn refuse_removal(&self, who: Person, bucket: BucketNo, address: Address, no: &mut Refusals<'_>) {
        let role = no.access(who, bucket);
        let may = |role: Role| role.may(Right::RemoveUser);
        no.unless(self.is_own_address(who, bucket, address) || role.is_none_or(may), No::RoleTooLow);
        let Some(target) = no.user_of(address) else { return };
        if target == who {
            no.unless(role != Some(Role::Owner), No::OwnerStays);
        } else {
            no.unless(role.is_none_or(may), No::RoleTooLow);
            no.member_of(address, bucket);
        }
    }

    fn refuse_new_owner(&self, who: Person, bucket: BucketNo, address: Address, no: &mut Refusals<'_>) {
        let Some(target) = self.user_of(address) else { return };
        no.unless(target != who, No::AlreadyOwner);
        no.member_of(address, bucket);
        no.unless(self.owned(target) < BUCKETS_PER_OWNER, No::BucketLimit);
    }

    fn refuse_trial(&self, who: Person, bucket: BucketNo, no: &mut Refusals<'_>) {
        no.right(who, bucket, Right::ChangePlan);
        let Some(bucket) = self.live(bucket) else { return };
        no.unless(bucket.trial_ends.is_none(), No::BucketHadTrial);
        let is_over = bucket.plan_ends.is_some_and(|ends| ends <= self.now);
        no.unless(bucket.plan == PlanName::default() || is_over, No::OnPlan);
        no.unless(self.users.get(&who).is_none_or(|user| !user.trial_used), No::OwnerHadTrial);
    }

    /// Whether `address` is what the bucket shows as that of `who`.
    fn is_own_address(&self, who: Person, bucket: BucketNo, address: Address) -> bool {
        let member = self.live(bucket).and_then(|bucket| bucket.members.get(&who));
        member.is_some_and(|member| member.address == address)
    }

    /// Whether a subscription pays for the bucket, or a change of that is under way.
    fn is_paid(&self, bucket: BucketNo) -> bool {
        self.live(bucket).is_some_and(|bucket| {
            bucket.change.is_some() || bucket.subscription.as_ref().is_some_and(|told| !told.over)
        })
    }

    /// Whether a subscription pays for the bucket and goes on by itself, or a change is under way.
    fn goes_on(&self, bucket: BucketNo) -> bool {
        self.live(bucket).is_some_and(|bucket| {
            bucket.change.is_some()
                || bucket.subscription.as_ref().is_some_and(|told| !told.over && told.ends.is_none())
        })
    }

    /// Whether `change` is the one of the live bucket.
    fn is_change(&self, bucket: BucketNo, change: ChangeNo) -> bool {
        let present = self.live(bucket).and_then(|bucket| bucket.change.as_ref());
        present.is_some_and(|present| present.no == change)
    }
}
