//! The states that a group works on, and where they are kept.

use std::collections::HashMap;
use std::fmt;

use super::group::{Group, Step};
use super::id::{Issuer, OperationId};
use super::record::RecordKind;
use crate::limit::algorithm::State;

/// Where a group keeps something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Place {
    /// The limit's state of the key of a step, by its index. Steps of one key share it.
    Limit(usize),
    /// The record of a step's reservation, refund or released lease; or of the refund of an operation's charge.
    Record(usize),
    /// The record of the group's operation.
    Operation,
}

impl Place {
    /// The name of the place in a store that keeps all states in one table: the key's text, or
    /// [`RecordKind::name`](super::RecordKind::name). `None` if the group keeps nothing there.
    pub fn name(self, group: &Group<'_>) -> Option<String> {
        let (counter, kind, id) = match self {
            Self::Limit(index) => return Some(group.steps().get(index)?.counter.to_string()),
            Self::Record(index) => {
                let step = group.steps().get(index)?;
                let Some((kind, id)) = step.record() else {
                    let id = group.refund_id(index)?;
                    return Some(RecordKind::Refund.name("", step.counter, &id));
                };
                (step.counter, kind, id)
            }
            Self::Operation => {
                let (id, _) = group.operation()?;
                (group.home(), RecordKind::Operation, id)
            }
        };
        Some(kind.name("", counter, id))
    }
}

/// The states that a group works on. They must not be visible to others meanwhile.
pub trait States {
    /// What is kept at `place`.
    fn get(&self, place: Place) -> Option<&State>;
    /// Replaces what is kept at `place` by what `change` makes of it; `None` removes it.
    fn update(&mut self, place: Place, change: &mut dyn FnMut(Option<State>) -> Option<State>);
    /// Who keeps the limit's state of the step.
    fn issuer(&self, step: usize) -> Issuer;
    /// Whether two steps share a state though their keys differ. They do not, unless the store says
    /// so; then their costs add up.
    fn shares(&self, _one: usize, _other: usize) -> bool {
        false
    }
    /// The name of a lease in the limit's state of the step. Where keys [share](Self::shares) a state, each key's is another.
    fn lease(&self, _step: &Step<'_>, _index: usize, id: &OperationId) -> u128 {
        id.digest()
    }
}

/// States in a map, by [`Place::name`]: enough for tests and for small stores.
pub struct MapStates<'a> {
    group: &'a Group<'a>,
    map: &'a mut HashMap<String, State>,
    issuer: Issuer,
}

/// Without the keys of others.
impl fmt::Debug for MapStates<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MapStates")
            .field("group", self.group)
            .field("states", &self.map.len())
            .finish_non_exhaustive()
    }
}

impl<'a> MapStates<'a> {
    /// The states of `group` in `map`, which `issuer` keeps.
    pub fn new(group: &'a Group<'a>, map: &'a mut HashMap<String, State>, issuer: Issuer) -> Self {
        Self { group, map, issuer }
    }
}

impl States for MapStates<'_> {
    fn get(&self, place: Place) -> Option<&State> {
        self.map.get(&place.name(self.group)?)
    }

    fn update(&mut self, place: Place, change: &mut dyn FnMut(Option<State>) -> Option<State>) {
        let Some(name) = place.name(self.group) else {
            return;
        };
        if let Some(state) = change(self.map.remove(&name)) {
            self.map.insert(name, state);
        }
    }

    fn issuer(&self, _step: usize) -> Issuer {
        self.issuer
    }
}
