//! A bound on what many bodies hold in memory together, however slowly they arrive.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::sync::{Arc, Mutex, PoisonError};

/// How much of a body takes no room from the others: small ones are read however many large ones arrive.
pub(crate) const SMALL: usize = 2 * 1024;

/// How much all bodies together hold above [`SMALL`].
const BYTES: usize = 16 * 1024 * 1024;

/// How much of that those of one owner hold.
const SHARE: usize = BYTES / 8;

/// The room of the bodies that are being read. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Room(Arc<Mutex<Held>>);

#[derive(Default)]
struct Held {
    all: usize,
    /// By owner; those that hold nothing are not in it.
    owners: HashMap<Arc<str>, usize>,
}

/// Why a body is not read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Refused {
    /// It is larger than a body may be.
    TooLarge,
    /// There is no room beside the others.
    NoRoom,
}

/// A body that is being read, and the room that it takes.
pub(crate) struct Growing {
    room: Room,
    /// Whose it is, if its owner has a share.
    owner: Option<Arc<str>>,
    most: usize,
    held: usize,
    bytes: Vec<u8>,
}

impl Room {
    /// A body of at most so many bytes. One with an owner takes no more than a share of the room together with the owner's
    /// others, so that nobody keeps everybody else out.
    pub(crate) fn body(&self, owner: Option<&str>, most: usize) -> Growing {
        Growing {
            room: self.clone(),
            owner: owner.map(Arc::from),
            most,
            held: 0,
            bytes: Vec::new(),
        }
    }

    fn take(&self, owner: Option<&Arc<str>>, more: usize) -> Result<(), Refused> {
        let mut held = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let of_owner = owner.map_or(0, |owner| held.owners.get(owner).copied().unwrap_or(0));
        let fits = held.all + more <= BYTES && (owner.is_none() || of_owner + more <= SHARE);
        if !fits {
            return Err(Refused::NoRoom);
        }
        held.all += more;
        if let Some(owner) = owner {
            held.owners.insert(owner.clone(), of_owner + more);
        }
        Ok(())
    }
}

impl Growing {
    pub(crate) fn add(&mut self, data: &[u8]) -> Result<(), Refused> {
        let length = self.bytes.len() + data.len();
        if length > self.most {
            return Err(Refused::TooLarge);
        }
        let more = length.saturating_sub(SMALL + self.held);
        if more > 0 {
            self.room.take(self.owner.as_ref(), more)?;
            self.held += more;
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// All of it. From here on it is the request's own.
    pub(crate) fn whole(mut self) -> Vec<u8> {
        std::mem::take(&mut self.bytes)
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        let mut held = self.room.0.lock().unwrap_or_else(PoisonError::into_inner);
        held.all -= self.held;
        if let Some(owner) = &self.owner
            && let Entry::Occupied(mut of_owner) = held.owners.entry(owner.clone())
        {
            *of_owner.get_mut() -= self.held;
            if *of_owner.get() == 0 {
                of_owner.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1 << 20;

    /// Slow large bodies use up the room of large ones, and small ones are read all the same.
    #[test]
    fn all_bodies_together_are_bounded() {
        let room = Room::default();
        let large = vec![b'x'; MIB];
        let mut others: Vec<_> = (0..16).map(|_| room.body(None, MIB)).collect();
        for other in &mut others {
            other.add(&large).unwrap();
        }
        let mut late = room.body(None, MIB);
        late.add(&large[..SMALL]).unwrap();
        assert_eq!(late.add(&large[..100_000]), Err(Refused::NoRoom));
        others.truncate(15);
        late.add(&large[..100_000]).unwrap();
        assert_eq!(late.add(&large), Err(Refused::TooLarge));
        assert_eq!(late.whole().len(), SMALL + 100_000);
        drop(others);
        assert_eq!(room.0.lock().unwrap().all, 0, "all of it is free again");
    }

    /// Known fault: one user's slow bodies kept everybody else's out.
    #[test]
    fn an_owner_has_a_share() {
        let room = Room::default();
        let part = vec![b'x'; 64 * 1024];
        let mut bobs = Vec::new();
        loop {
            let mut body = room.body(Some("bob"), part.len());
            if body.add(&part).is_err() {
                break;
            }
            bobs.push(body);
        }
        assert_eq!(bobs.len(), SHARE / (part.len() - SMALL));
        let mut alices = room.body(Some("alice"), part.len());
        alices.add(&part).unwrap();
        bobs.pop();
        assert!(room.body(Some("bob"), part.len()).add(&part).is_ok());
        drop((bobs, alices));
        assert!(
            room.0.lock().unwrap().owners.is_empty(),
            "nothing is kept of who holds nothing"
        );
    }
}
