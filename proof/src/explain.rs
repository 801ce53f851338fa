//! Whether what came of concurrent commands is what the model says, in the order in which they committed.

use std::collections::HashSet;

use crate::{
    model::{Command, Next, No, Op, Outcome, State},
    schedule::Commit,
};

/// What one actor did, and what came of it.
pub type Deeds = Vec<(Command, Outcome)>;

/// Where an actor is: how many deeds are done, and what is left of the present one.
type Place = (usize, Option<Op>);

/// Whether the model, taking each step that changes something when the actor has committed a transaction,
/// gives the same outcomes and ends in `after`. What changes nothing may have been at any time, in the
/// actor's own order.
#[must_use]
pub fn is_explained(before: &State, actors: &[Deeds], commits: &[Commit], after: &State) -> bool {
    let places = vec![(0, None); actors.len()];
    let commits: Vec<_> = commits.iter().filter(|commit| commit.counts).map(|commit| commit.actor).collect();
    Search { actors, commits, after, seen: HashSet::new() }.from(before.clone(), &places, 0)
}

struct Search<'h> {
    actors: &'h [Deeds],
    commits: Vec<usize>,
    after: &'h State,
    seen: HashSet<(Vec<Place>, usize, State)>,
}

impl Search<'_> {
    fn from(&mut self, state: State, places: &[Place], committed: usize) -> bool {
        let is_done = places
            .iter()
            .zip(self.actors)
            .all(|((done, left), deeds)| *done == deeds.len() && left.is_none());
        if is_done && committed == self.commits.len() && state == *self.after {
            return true;
        }
        if is_done || !self.seen.insert((places.to_vec(), committed, state.clone())) {
            return false;
        }
        let mut ways = Vec::new();
        for (actor, ((done, left), deeds)) in places.iter().zip(self.actors).enumerate() {
            let Some((command, outcome)) = deeds.get(*done) else { continue };
            let at = |place: Place| {
                let mut places = places.to_vec();
                places.splice(actor..=actor, [place]);
                places
            };
            if *outcome == Err(No::Changed) {
                // It met others too often, which may be at any time and does nothing more.
                return self.from(state, &at((done + 1, None)), committed);
            }
            let commits_next = self.commits.get(committed) == Some(&actor);
            let steps = state.steps(left.as_ref().unwrap_or(&Op::Do(command.clone())));
            let changes_nothing = steps.iter().all(|(next, _)| *next == state);
            for (next_state, next) in steps {
                let place = match next {
                    Next::Then(op) => (*done, Some(op)),
                    Next::Done(told) if *outcome == told => {
                        if told.is_err() && changes_nothing {
                            // Which changes nothing, and can as well come first.
                            return self.from(next_state, &at((done + 1, None)), committed);
                        }
                        (done + 1, None)
                    }
                    Next::Done(_) => continue,
                };
                // What was committed may say what was so already, if it could say nothing else.
                if commits_next && (changes_nothing || next_state != state) {
                    ways.push((next_state.clone(), at(place.clone()), committed + 1));
                }
                if next_state == state {
                    ways.push((next_state, at(place), committed));
                }
            }
        }
        ways.into_iter().any(|(state, places, committed)| self.from(state, &places, committed))
    }
}
