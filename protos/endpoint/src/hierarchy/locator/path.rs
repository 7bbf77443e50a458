//! Who may still be asked: the steps from the roots down, the members of each in drawn order.

use std::collections::HashSet;
use std::net::SocketAddr;

use super::{ASKS_MAX, PATH_STEPS_MAX};
use crate::hierarchy::lot::Lot;
use crate::hierarchy::member::{MEMBERS_MAX, Member};

/// The way so far. The first step is always there: the databases of the cache, then the roots as they are looked up.
#[derive(Debug)]
pub(super) struct Path {
    steps: Vec<PathStep>,
    /// Who was asked and not called back: what was asked once is never asked again.
    asked: HashSet<SocketAddr>,
    asks: usize,
    next_origin: u32,
}

#[derive(Debug, Default)]
struct PathStep {
    /// Members not asked yet; the last is next.
    left: Vec<Candidate>,
    all: Vec<Candidate>,
}

/// A member and which list it comes from: the first step holds several.
#[derive(Debug, Clone)]
pub(super) struct Candidate {
    pub(super) member: Member,
    origin: u32,
}

/// Whom the last step has next.
#[derive(Debug)]
pub(super) enum Next {
    Ask(Candidate),
    /// Everybody of it was asked.
    Nobody,
    /// As many were asked as may be, on whatever way.
    Enough,
}

impl Path {
    pub(super) fn new() -> Self {
        Self { steps: vec![PathStep::default()], asked: HashSet::new(), asks: 0, next_origin: 0 }
    }

    /// How deep below the roots the last step is; 0: it is the first one.
    pub(super) fn depth(&self) -> usize {
        self.steps.len() - 1
    }

    /// Whether it is as long as it may be.
    pub(super) fn is_full(&self) -> bool {
        self.steps.len() >= PATH_STEPS_MAX
    }

    pub(super) fn was_asked(&self, member: &Member) -> bool {
        self.asked.contains(&member.address)
    }

    /// One step deeper. The loop guard sits in [`next`](Self::next): what was asked once is never asked again.
    pub(super) fn descend(&mut self) {
        self.steps.push(PathStep::default());
    }

    /// Back to the step above; `false`: there is none.
    pub(super) fn ascend(&mut self) -> bool {
        let is_below = self.steps.len() > 1;
        if is_below {
            self.steps.pop();
        }
        is_below
    }

    /// Adds a list to the step that is asked now; its members are the next, in drawn order.
    pub(super) fn add(&mut self, mut members: Vec<Member>, lot: &mut Lot) {
        lot.shuffle(&mut members);
        members.truncate(MEMBERS_MAX);
        let origin = self.next_origin;
        self.next_origin += 1;
        let candidates = members.into_iter().map(|member| Candidate { member, origin });
        let step = self.last();
        step.left.extend(candidates.clone());
        step.all.extend(candidates);
    }

    /// Takes the next member of the last step.
    pub(super) fn next(&mut self) -> Next {
        while let Some(candidate) = self.last().left.pop() {
            if self.asks >= ASKS_MAX {
                return Next::Enough;
            }
            if self.asked.insert(candidate.member.address) {
                self.asks += 1;
                return Next::Ask(candidate);
            }
        }
        Next::Nobody
    }

    /// Somebody who was asked in vain, because another one was faster, is the next of the last step.
    pub(super) fn give_back(&mut self, candidate: Candidate) {
        self.asked.remove(&candidate.member.address);
        self.last().left.push(candidate);
    }

    /// The list of the last step that this one comes from.
    pub(super) fn list_of(&self, candidate: &Candidate) -> Vec<Member> {
        let all = self.steps.last().map(|step| step.all.as_slice()).unwrap_or_default();
        let same_list = all.iter().filter(|other| other.origin == candidate.origin);
        same_list.map(|other| other.member.clone()).collect()
    }

    fn last(&mut self) -> &mut PathStep {
        self.steps.last_mut().expect("the first step is always there")
    }
}
