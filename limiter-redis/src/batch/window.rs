//! How many batches are under way at once.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// On a server next door: one runs while the other is on its way.
const FEWEST: u32 = 2;

/// One more for each of these in a round trip (us): so a batch leaves at least that often, however far the server is.
const STEP: u64 = 1_000;

/// The bound, by the shortest round trip that was seen. It only shrinks while there are connections: by the time
/// that a busy server takes, more batches would make the next ones take longer, and so on.
#[derive(Debug)]
pub(super) struct Window {
    most: u32,
    beginning: AtomicU64,
    micros: AtomicU64,
    /// What a reply takes, evened out.
    usual: AtomicU64,
}

impl Window {
    pub(super) fn new(most: u32) -> Self {
        Self {
            most,
            beginning: AtomicU64::new(0),
            micros: AtomicU64::new(0),
            usual: AtomicU64::new(0),
        }
    }

    /// A reply came after so long, on connections of which there were none before that beginning.
    pub(super) fn note(&self, beginning: u64, took: Duration) {
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX).max(1);
        let is_new = self.beginning.swap(beginning, Ordering::Relaxed) != beginning;
        if is_new || self.micros.load(Ordering::Relaxed) == 0 {
            self.micros.store(micros, Ordering::Relaxed);
            self.usual.store(micros, Ordering::Relaxed);
        } else {
            self.micros.fetch_min(micros, Ordering::Relaxed);
            // Of two at once one may be lost: it is an average.
            let usual = self.usual.load(Ordering::Relaxed);
            self.usual
                .store(usual - usual / 8 + micros / 8, Ordering::Relaxed);
        }
    }

    /// How long a reply is to be expected to take: the usual time and a quarter; zero if none is known.
    pub(super) fn reply_time(&self) -> Duration {
        Duration::from_micros(self.usual.load(Ordering::Relaxed)) * 5 / 4
    }

    pub(super) fn allows(&self, under_way: u32) -> bool {
        // The shortest round trip; zero if none is known.
        let steps = self.micros.load(Ordering::Relaxed) / STEP;
        let wanted = FEWEST.saturating_add(u32::try_from(steps).unwrap_or(u32::MAX));
        under_way < wanted.min(self.most)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::Window;

    fn bound(window: &Window) -> u32 {
        (0..1_000)
            .find(|under_way| !window.allows(*under_way))
            .unwrap()
    }

    #[test]
    fn grows_with_the_distance_and_not_with_the_load() {
        let window = Window::new(64);
        assert_eq!(bound(&window), 2, "nothing is known yet");
        window.note(0, Duration::from_millis(30));
        assert_eq!(bound(&window), 32);
        window.note(0, Duration::from_millis(200));
        assert_eq!(bound(&window), 32, "a server that is busy");
        assert_eq!(window.reply_time(), Duration::from_nanos(64_062_500));
        window.note(0, Duration::from_micros(300));
        assert_eq!(bound(&window), 2);
        window.note(1, Duration::from_millis(10));
        assert_eq!(bound(&window), 12, "another server perhaps");
        window.note(2, Duration::from_secs(1));
        assert_eq!(bound(&window), 64, "the setting");
        assert_eq!(bound(&Window::new(1)), 1);
    }
}
