//! The moments that a command takes.

use std::collections::BTreeSet;

use shared::domain::Role;

use super::{
    Address, Answer, Audit, BucketNo, CHANGE_LEASE, Command, GUESSES, GUESSES_COUNT, No, Outcome, Person,
    State, User,
};

/// A command, or what is left of one.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Op {
    /// All of it.
    Do(Command),
    /// What hangs on an address is brought in line with it: what waits in these buckets is taken up in any
    /// order; then memberships follow, and the mark goes. Then comes `then`.
    Settle {
        /// Whose address it is.
        who: Person,
        /// The address.
        address: Address,
        /// When the token was issued that it is from.
        since: u32,
        /// The buckets to which it is invited.
        invited: BTreeSet<BucketNo>,
        /// What follows.
        then: Box<Next>,
    },
    /// The bucket was full: these invitations, which have expired, are cleared, and it is tried once more.
    ClearExpired {
        /// What is tried.
        command: Command,
        /// The addresses.
        expired: Vec<Address>,
    },
    /// It is tried once more.
    Again(Command),
    /// What hangs under a deleted bucket goes, kind by kind.
    Clear {
        /// The bucket.
        bucket: BucketNo,
        /// How many kinds are gone.
        kinds: u8,
    },
}

/// What comes after a moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Next {
    /// Nothing: the command has ended so.
    Done(Outcome),
    /// This.
    Then(Op),
}

impl State {
    /// What may happen at the next moment of `op`, and what comes after it. Alone, it is the first of them;
    /// with others about, a refusal may be told for whichever fact does not hold at some moment.
    #[must_use]
    pub fn steps(&self, op: &Op) -> Vec<(Self, Next)> {
        match op {
            Op::Do(
                command @ (Command::SignIn { who, address, at } | Command::SignInCutOff { who, address, at }),
            ) => {
                let cut_off = matches!(command, Command::SignInCutOff { .. });
                vec![self.identified(*who, *address, *at, cut_off)]
            }
            Op::Do(Command::Clear { bucket }) if self.live(*bucket).is_none() => {
                vec![(self.clone(), Next::Then(Op::Clear { bucket: *bucket, kinds: 0 }))]
            }
            Op::Do(command @ Command::Invite { who, bucket, address, .. }) => {
                if let Some(waiting) = self.unfinished_invitee(*who, *bucket, *address, op) {
                    let mut steps = vec![(self.clone(), Next::Then(waiting))];
                    steps.extend(self.renewed(command));
                    return steps;
                }
                let expired = self.expired(*bucket);
                let mut steps = self.done(command);
                for (_, next) in &mut steps {
                    if *next == Next::Done(Err(No::SeatLimit)) && !expired.is_empty() {
                        let (command, expired) = (command.clone(), expired.clone());
                        *next = Next::Then(Op::ClearExpired { command, expired });
                    }
                }
                steps
            }
            Op::Do(command @ Command::BeginChange { who, bucket, .. }) => {
                // Who is in the bucket and meets one that was left unfinished takes it over; while they look
                // at it, somebody else may end it or take it over.
                let mut state = self.clone();
                let present = state.buckets.get_mut(bucket).and_then(|bucket| bucket.change.as_mut());
                if let Some(change) = present.filter(|change| change.lease <= self.now)
                    && self.role(*bucket, *who).is_some()
                {
                    change.lease = self.now + CHANGE_LEASE;
                    let took_over = Next::Done(Ok(Answer::TookOver(change.no)));
                    return vec![(state, took_over), (self.clone(), Next::Done(Err(No::Busy)))];
                }
                self.done(command)
            }
            Op::Do(
                command @ (Command::RemoveUser { who, address, .. } | Command::SetMuted { who, address, .. }),
            ) => {
                let mut steps = self.done(command);
                // That the address is one's own is looked at first; what the bucket shows may follow later.
                if self.user_of(*address) == Some(*who) && self.refusals(command) == [No::RoleTooLow] {
                    let mut state = self.clone();
                    let answer = state.carry_out(command);
                    steps.push((state, Next::Done(Ok(answer))));
                }
                steps
            }
            Op::Do(Command::Guess { from, .. }) => self.guessed(*from),
            Op::Again(command @ Command::Invite { who, bucket, address, .. }) => {
                let mut steps = match self.unfinished_invitee(*who, *bucket, *address, op) {
                    Some(waiting) => vec![(self.clone(), Next::Then(waiting))],
                    None => return self.done(command),
                };
                steps.extend(self.renewed(command));
                steps
            }
            Op::Do(command) | Op::Again(command) => self.done(command),
            Op::ClearExpired { command, expired } => vec![self.cleared(command, expired)],
            Op::Settle { who, address, since, invited, then } => {
                self.settled(*who, *address, *since, invited, then)
            }
            Op::Clear { bucket, kinds } => vec![self.clear(*bucket, *kinds)],
        }
    }

    /// Carries out `command` alone, from its first moment to its last.
    pub fn run(&mut self, command: &Command) -> Outcome {
        let mut op = Op::Do(command.clone());
        loop {
            let mut steps = self.steps(&op);
            if steps.is_empty() {
                return Err(No::Changed);
            }
            let (state, next) = steps.swap_remove(0);
            *self = state;
            match next {
                Next::Done(outcome) => return outcome,
                Next::Then(next) => op = next,
            }
        }
    }

    /// `command` as far as it takes one moment: it is carried out, or refused.
    fn done(&self, command: &Command) -> Vec<(Self, Next)> {
        let refusals = self.refusals(command);
        if refusals.is_empty() {
            let mut state = self.clone();
            let answer = state.carry_out(command);
            return vec![(state, Next::Done(Ok(answer)))];
        }
        refusals.into_iter().map(|no| (self.clone(), Next::Done(Err(no)))).collect()
    }

    /// Machine `from` has guessed wrong, which is counted, unless another guess came between.
    fn guessed(&self, from: u8) -> Vec<(Self, Next)> {
        let (count, until) = self.guesses.get(&from).copied().unwrap_or_default();
        let (count, until) = if until > self.now { (count, until) } else { (0, self.now + GUESSES_COUNT) };
        if count >= GUESSES {
            return vec![(self.clone(), Next::Done(Err(No::TooManyGuesses)))];
        }
        let mut state = self.clone();
        state.guesses.insert(from, (count + 1, until));
        [state, self.clone()].map(|state| (state, Next::Done(Err(No::WrongKeys)))).to_vec()
    }

    /// `who` comes with `address` by a token issued `at`.
    fn identified(&self, who: Person, address: Address, at: u32, cut_off: bool) -> (Self, Next) {
        let mut state = self.clone();
        let is_taken = self.user_of(address).is_some_and(|user| user != who);
        let Some(user) = state.users.get_mut(&who) else {
            if is_taken {
                return (state, Next::Done(Err(No::EmailTaken)));
            }
            let user = User { address, since: at, trial_used: false, customer: None, unfinished: true };
            state.users.insert(who, user);
            let next = state.settle_unless(cut_off, who);
            return (state, next);
        };
        // The address is that of the latest token, unless it is somebody else's.
        if user.address != address && at > user.since && !is_taken {
            (user.address, user.since, user.unfinished) = (address, at, true);
        }
        let next = state.settle_unless(cut_off, who);
        (state, next)
    }

    fn settle_unless(&self, cut_off: bool, who: Person) -> Next {
        let Some(user) = self.users.get(&who) else { return Next::Done(Err(No::NotSignedIn)) };
        let done = Next::Done(Ok(Answer::Known(user.address)));
        if cut_off || !user.unfinished { done } else { Next::Then(self.settle(who, user, done)) }
    }

    fn settle(&self, who: Person, user: &User, then: Next) -> Op {
        let (address, since) = (user.address, user.since);
        let invited = self.buckets.iter().filter(|(_, bucket)| bucket.invitations.contains_key(&address));
        let invited = invited.map(|(no, _)| *no).collect();
        Op::Settle { who, address, since, invited, then: Box::new(then) }
    }

    /// Whoever is invited may have something waiting, which comes first.
    fn unfinished_invitee(&self, who: Person, bucket: BucketNo, address: Address, op: &Op) -> Option<Op> {
        let may = self.role(bucket, who).is_some_and(|role| role.may(shared::domain::Right::Invite));
        let invitee = self.user_of(address).filter(|invitee| may && *invitee != who)?;
        let user = self.users.get(&invitee).filter(|user| user.unfinished)?;
        Some(self.settle(invitee, user, Next::Then(op.clone())))
    }

    /// Who has seen that the address is invited renews that, even if it has become somebody's meanwhile who
    /// is yet to take it up.
    fn renewed(&self, command: &Command) -> Option<(Self, Next)> {
        let Command::Invite { who, bucket, address, role } = command else { return None };
        let mut state = self.clone();
        let bucket = state.buckets.get_mut(bucket)?;
        bucket.invitations.get(address)?;
        bucket.invite(*who, *address, *role, self.now);
        Some((state, Next::Done(Ok(Answer::Done))))
    }

    /// The addresses whose invitations to the live `bucket` have expired.
    fn expired(&self, bucket: BucketNo) -> Vec<Address> {
        let Some(bucket) = self.live(bucket) else { return Vec::new() };
        let expired = bucket.invitations.iter().filter(|(_, invitation)| invitation.expires <= self.now);
        expired.map(|(address, _)| *address).collect()
    }

    /// The first of `expired` is cleared, if it still has expired.
    fn cleared(&self, command: &Command, expired: &[Address]) -> (Self, Next) {
        let mut state = self.clone();
        let (Command::Invite { who, bucket, .. }, Some((address, rest))) = (command, expired.split_first())
        else {
            return (state, Next::Then(Op::Again(command.clone())));
        };
        if let Some(bucket) = state.buckets.get_mut(bucket)
            && !bucket.deleted
            && bucket.invitations.get(address).is_some_and(|invitation| invitation.expires <= self.now)
        {
            bucket.clear_invitation(*address, *who);
        }
        let command = command.clone();
        let next = match rest {
            [] => Op::Again(command),
            rest => Op::ClearExpired { command, expired: rest.to_vec() },
        };
        (state, Next::Then(next))
    }

    fn settled(
        &self,
        who: Person,
        address: Address,
        since: u32,
        invited: &BTreeSet<BucketNo>,
        then: &Next,
    ) -> Vec<(Self, Next)> {
        let on = |invited: BTreeSet<BucketNo>| {
            Next::Then(Op::Settle { who, address, since, invited, then: Box::new(then.clone()) })
        };
        if !invited.is_empty() {
            let taken_up = |bucket: &BucketNo| {
                let mut state = self.clone();
                state.take_up(who, address, *bucket);
                let rest = invited.iter().filter(|other| *other != bucket).copied().collect();
                (state, on(rest))
            };
            return invited.iter().map(taken_up).collect();
        }
        // Memberships that show another address follow, in any order.
        let is_present = self.users.get(&who).is_some_and(|user| user.address == address);
        let stale: Vec<_> = self
            .buckets
            .iter()
            .filter(|(_, bucket)| is_present && !bucket.deleted)
            .filter(|(_, bucket)| bucket.members.get(&who).is_some_and(|member| member.address != address))
            .map(|(no, _)| *no)
            .collect();
        if !stale.is_empty() {
            let followed = |no: BucketNo| {
                let mut after = self.clone();
                if let Some(bucket) = after.buckets.get_mut(&no) {
                    if let Some(member) = bucket.members.get_mut(&who) {
                        member.address = address;
                    }
                    bucket.note(Audit::new("change_address", who));
                }
                (after, on(BTreeSet::new()))
            };
            return stale.into_iter().map(followed).collect();
        }
        let mut after = self.clone();
        if let Some(user) = after.users.get_mut(&who)
            && (user.address, user.since) == (address, since)
        {
            user.unfinished = false;
        }
        vec![(after, then.clone())]
    }

    /// `who`, whose address is `address`, takes up what waits for it in `no`.
    fn take_up(&mut self, who: Person, address: Address, no: BucketNo) {
        let now = self.now;
        let is_present = self.user_of(address) == Some(who);
        // What hangs under a deleted one goes with it.
        let Some(bucket) = self.buckets.get_mut(&no).filter(|bucket| !bucket.deleted) else { return };
        let Some(invitation) = bucket.invitations.get(&address).filter(|_| is_present) else { return };
        if now >= invitation.expires || bucket.members.contains_key(&who) {
            bucket.clear_invitation(address, who);
        } else {
            // What the inviter may still grant; nobody grants themselves anything.
            let inviter = bucket.members.get(&invitation.by).filter(|_| invitation.by != who);
            let granted = inviter.is_some_and(|inviter| inviter.role.may_grant(invitation.role));
            let role = if granted { invitation.role } else { Role::User };
            bucket.accept(who, address, role);
        }
    }

    fn clear(&self, no: BucketNo, kinds: u8) -> (Self, Next) {
        let mut state = self.clone();
        let Some(bucket) = state.buckets.get_mut(&no) else {
            return (state, Next::Done(Ok(Answer::Done)));
        };
        match kinds {
            0 => bucket.members.clear(),
            1 => bucket.invitations.clear(),
            2 => bucket.feedback = 0,
            _ => {
                bucket.servers.clear();
                return (state, Next::Done(Ok(Answer::Done)));
            }
        }
        (state, Next::Then(Op::Clear { bucket: no, kinds: kinds + 1 }))
    }
}
