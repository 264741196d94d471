//! What waits, in order: first in, first out within a lane, and one lane after the other.

use std::collections::VecDeque;

use hashbrown::HashMap;

/// How many empty lanes are kept for those that come again.
const KEPT: usize = 64;

pub(super) struct Lanes<T> {
    lanes: HashMap<u64, VecDeque<(u64, T)>>,
    /// The lanes in which something waits, in the order of their turns.
    turns: VecDeque<u64>,
    waiting: usize,
    next: u64,
}

impl<T> Lanes<T> {
    pub(super) fn new() -> Self {
        Self {
            lanes: HashMap::new(),
            turns: VecDeque::new(),
            waiting: 0,
            next: 0,
        }
    }

    /// How many wait.
    pub(super) fn len(&self) -> usize {
        self.waiting
    }

    /// Who has waited longest in a lane.
    pub(super) fn head(&self, lane: u64) -> Option<&T> {
        self.lanes.get(&lane)?.front().map(|(_, first)| first)
    }

    /// How many go before who enters a lane now.
    pub(super) fn ahead_of(&self, lane: u64) -> usize {
        let own = self.lanes.get(&lane).map_or(0, VecDeque::len);
        let is_new = usize::from(own == 0);
        self.waiting
            .min(own * self.turns.len() + is_new * self.turns.len())
    }

    /// Its number, by which it can be taken out.
    pub(super) fn push(&mut self, lane: u64, item: T) -> u64 {
        let number = self.next;
        self.next += 1;
        let queue = self.lanes.entry(lane).or_default();
        if queue.is_empty() {
            self.turns.push_back(lane);
        }
        queue.push_back((number, item));
        self.waiting += 1;
        number
    }

    /// The next one, if it fits.
    pub(super) fn pop_if(&mut self, fits: impl FnOnce(&T) -> bool) -> Option<T> {
        let lane = *self.turns.front()?;
        let queue = self.lanes.get_mut(&lane)?;
        let (_, first) = queue.front()?;
        if !fits(first) {
            return None;
        }
        let (_, first) = queue.pop_front()?;
        self.turns.pop_front();
        self.waiting -= 1;
        if queue.is_empty() {
            self.forget(lane);
        } else {
            self.turns.push_back(lane);
        }
        Some(first)
    }

    /// Takes one out, if it still waits.
    pub(super) fn remove(&mut self, lane: u64, number: u64) -> Option<T> {
        let queue = self.lanes.get_mut(&lane)?;
        let place = queue.binary_search_by_key(&number, |(number, _)| *number);
        let (_, item) = queue.remove(place.ok()?)?;
        self.waiting -= 1;
        if queue.is_empty() {
            self.turns.retain(|turn| *turn != lane);
            self.forget(lane);
        }
        Some(item)
    }

    fn forget(&mut self, lane: u64) {
        if self.lanes.len() > KEPT {
            self.lanes.remove(&lane);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Lanes;

    fn drain(lanes: &mut Lanes<&'static str>) -> Vec<&'static str> {
        std::iter::from_fn(|| lanes.pop_if(|_| true)).collect()
    }

    #[test]
    fn lanes_take_turns_and_each_keeps_its_order() {
        let mut lanes = Lanes::new();
        for (lane, item) in [
            (1, "a1"),
            (1, "a2"),
            (1, "a3"),
            (2, "b1"),
            (3, "c1"),
            (2, "b2"),
        ] {
            lanes.push(lane, item);
        }
        assert_eq!((lanes.len(), lanes.head(2)), (6, Some(&"b1")));
        let ahead = [1, 3, 4].map(|lane| lanes.ahead_of(lane));
        assert_eq!(ahead, [6, 3, 3], "at most all, and each lane's turn");
        assert_eq!(drain(&mut lanes), ["a1", "b1", "c1", "a2", "b2", "a3"]);
        assert_eq!((lanes.len(), lanes.head(2)), (0, None));
    }

    #[test]
    fn what_is_taken_out_leaves_no_turn_behind() {
        let mut lanes = Lanes::new();
        let first = lanes.push(1, "a1");
        let only = lanes.push(2, "b1");
        lanes.push(1, "a2");
        assert_eq!(lanes.remove(2, only), Some("b1"));
        assert_eq!(lanes.remove(2, only), None);
        assert_eq!(lanes.remove(1, first), Some("a1"));
        assert_eq!(drain(&mut lanes), ["a2"]);
        lanes.push(2, "b2");
        assert_eq!(lanes.pop_if(|_| false), None);
        assert_eq!(drain(&mut lanes), ["b2"]);
    }

    #[test]
    fn lanes_without_anything_are_not_kept_for_ever() {
        let mut lanes = Lanes::new();
        for lane in 0..10_000 {
            let number = lanes.push(lane, "a");
            assert!(lane % 2 == 0 || lanes.remove(lane, number).is_some());
            while lanes.len() > 8 {
                assert!(lanes.pop_if(|_| true).is_some());
            }
        }
        drain(&mut lanes);
        assert!(lanes.lanes.len() <= super::KEPT, "{}", lanes.lanes.len());
        assert!(lanes.turns.is_empty());
    }
}
