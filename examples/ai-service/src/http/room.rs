//! A bound on what many bodies hold in memory together, however slowly they arrive.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// How much of a body takes no room from the others: small ones are read however many large ones arrive.
pub(crate) const SMALL: usize = 2 * 1024;

/// How much all bodies together hold above [`SMALL`].
const BYTES: usize = 16 * 1024 * 1024;

/// The room of the bodies that are being read. Clones share it.
#[derive(Clone)]
pub(crate) struct Room(Arc<Semaphore>);

impl Default for Room {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BYTES)))
    }
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
    most: usize,
    held: Option<OwnedSemaphorePermit>,
    bytes: Vec<u8>,
}

impl Room {
    /// A body of at most so many bytes.
    pub(crate) fn body(&self, most: usize) -> Growing {
        Growing {
            room: self.clone(),
            most,
            held: None,
            bytes: Vec::new(),
        }
    }
}

impl Growing {
    pub(crate) fn add(&mut self, data: &[u8]) -> Result<(), Refused> {
        let length = self.bytes.len() + data.len();
        if length > self.most {
            return Err(Refused::TooLarge);
        }
        let held = self
            .held
            .as_ref()
            .map_or(0, OwnedSemaphorePermit::num_permits);
        let more = u32::try_from(length.saturating_sub(SMALL + held)).unwrap_or(u32::MAX);
        if more > 0 {
            let more = self.room.0.clone().try_acquire_many_owned(more);
            let more = more.map_err(|_| Refused::NoRoom)?;
            match &mut self.held {
                Some(held) => held.merge(more),
                None => self.held = Some(more),
            }
        }
        self.bytes.extend_from_slice(data);
        Ok(())
    }

    /// All of it. From here on it is the request's own.
    pub(crate) fn whole(self) -> Vec<u8> {
        self.bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Slow large bodies use up the room of large ones, and small ones are read all the same.
    #[test]
    fn all_bodies_together_are_bounded() {
        let room = Room::default();
        let large = vec![b'x'; 1 << 20];
        let mut others: Vec<_> = (0..16).map(|_| room.body(1 << 20)).collect();
        for other in &mut others {
            other.add(&large).unwrap();
        }
        let mut late = room.body(1 << 20);
        late.add(&large[..SMALL]).unwrap();
        assert_eq!(late.add(&large[..100_000]), Err(Refused::NoRoom));
        others.truncate(15);
        late.add(&large[..100_000]).unwrap();
        assert_eq!(late.add(&large), Err(Refused::TooLarge));
        assert_eq!(late.whole().len(), SMALL + 100_000);
        drop(others);
        assert_eq!(room.0.available_permits(), BYTES, "all of it is free again");
    }
}
