//! The members of a batch as calls of scripts: one for each script and slot.

use std::sync::Arc;

use hashbrown::HashMap;
use limiter_core::Error;
use redis::{Cmd, Script};
use smallvec::{SmallVec, smallvec};

use super::member::Member;
use crate::error::is_unreadable;
use crate::script::call::{Call, number};
use crate::script::{Scripts, hot};

/// One call, and whose groups it has, in that order.
pub(super) struct Eval {
    pub(super) script: Arc<Script>,
    /// Whether that is the hot one.
    pub(super) is_hot: bool,
    slot: u16,
    /// Sent behind ASKING, to a node that is getting the slot.
    pub(super) is_asking: bool,
    /// Whether the server does not know the script.
    pub(super) is_unknown: bool,
    pub(super) members: Members,
}

/// Where slots are many, most calls have one.
pub(super) type Members = SmallVec<[Member; 1]>;

/// Puts together what may run in one call.
pub(super) fn evals(members: Vec<Member>, scripts: &Scripts) -> Vec<Eval> {
    let mut evals: Vec<Eval> = Vec::with_capacity(members.len().min(8));
    let (hot, giving) = (scripts.hot(), scripts.giving());
    for member in members {
        let hot = hot.filter(|_| member.call.is_hot() && !member.is_handed_over);
        let giving = giving.filter(|_| member.call.gives_back());
        let script = hot.or(giving).unwrap_or(scripts.plain());
        // A node that is getting a slot takes a call if it has all of its keys: so each member is a call.
        let known = evals.iter_mut().find(|eval| {
            eval.slot == member.slot
                && !member.is_asking
                && !eval.is_asking
                && Arc::ptr_eq(&eval.script, script)
        });
        match known {
            Some(eval) => eval.members.push(member),
            None => evals.push(Eval {
                script: script.clone(),
                is_hot: hot.is_some(),
                slot: member.slot,
                is_asking: member.is_asking,
                is_unknown: false,
                members: smallvec![member],
            }),
        }
    }
    evals
}

impl Eval {
    /// A call for each group.
    pub(super) fn split(self) -> impl Iterator<Item = Self> {
        self.members.into_iter().map(move |member| Self {
            script: self.script.clone(),
            is_hot: self.is_hot,
            slot: self.slot,
            is_asking: self.is_asking,
            is_unknown: false,
            members: smallvec![member],
        })
    }

    /// Whether the plain script is to be tried in place of this one, which the server cannot read.
    pub(super) fn use_plain(&mut self, error: &Error, scripts: &Scripts) -> bool {
        let is_tried = Arc::ptr_eq(&self.script, scripts.plain());
        if self.is_hot || is_tried || !is_unreadable(error) {
            return false;
        }
        scripts.refuse_giving();
        self.script = scripts.plain().clone();
        true
    }

    /// Keys that several groups name are sent once.
    pub(super) fn command(&self, floor: u64) -> Cmd {
        let members = || self.members.iter().map(|member| &member.call);
        let most: usize = members().map(Call::key_count).sum();
        let mut names: SmallVec<[&[u8]; 4]> = SmallVec::with_capacity(most);
        let mut numbers: SmallVec<[u16; 4]> = SmallVec::with_capacity(most);
        // A group names each of its keys once.
        let is_alone = self.members.len() == 1;
        let mut known: HashMap<&[u8], u16> = HashMap::new();
        for key in members().flat_map(Call::keys) {
            // A batch has at most 256 keys.
            let next = u16::try_from(names.len() + 1).unwrap_or(u16::MAX);
            let number = match is_alone {
                true => next,
                false => *known.entry(key).or_insert(next),
            };
            if number == next {
                names.push(key);
            }
            numbers.push(number);
        }
        let bytes = members().map(Call::size).sum::<usize>() + 96;
        let mut command = Cmd::with_capacity(4 + names.len() + self.members.len(), bytes);
        command.arg("EVALSHA").arg(self.script.get_hash());
        command.arg(names.len());
        for name in &names {
            command.arg(name);
        }
        if self.is_hot {
            command.arg(floor).arg(hot::text(members(), &numbers));
            return command;
        }
        command.arg(&number(floor));
        let mut group = Vec::new();
        let mut numbers = numbers.as_slice();
        for call in members() {
            let (own, others) = numbers.split_at(call.key_count());
            numbers = others;
            group.clear();
            call.write_group(own, &mut group);
            command.arg(&group);
        }
        command
    }
}
