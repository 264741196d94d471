//! A store's time that follows tokio's, so that a test which pauses it moves both.

use limiter_core::clock::{Clock, Timestamp};
use tokio::time::Instant;

/// Tokio's time since the clock was made, from a fixed date on. Under `start_paused` it moves when every
/// task waits, so nothing in a test really sleeps.
#[derive(Clone, Copy, Debug)]
pub struct TokioClock {
    start: Instant,
}

impl TokioClock {
    /// Must be called in a tokio runtime.
    pub fn new() -> Self {
        Self {
            start: Instant::now(),
        }
    }
}

impl Default for TokioClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Timestamp {
        Timestamp::from_micros(1_800_000_000_000_000).saturating_add(self.start.elapsed())
    }
}
