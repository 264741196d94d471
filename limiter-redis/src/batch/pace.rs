//! How fast what waits gets its turn.

use std::collections::VecDeque;
use std::time::Duration;

use tokio::time::Instant;

/// Over so many batches it is measured at least, so that a pause of a few is not taken for the pace, and over twice as many as are
/// under way, whose replies may come all at once; no fewer than so many say anything.
const MOST: usize = 16;
const FEWEST: usize = 4;

/// When the last batches left, and with how many, since there were last none who waited.
#[derive(Debug, Default)]
pub(super) struct Pace {
    batches: VecDeque<(Instant, usize)>,
    /// What each took (s), once that says something.
    each: Option<f64>,
}

impl Pace {
    /// So many left; whether others still wait, and how many batches are under way.
    pub(super) fn note(&mut self, now: Instant, left: usize, is_more: bool, under_way: u32) {
        if !is_more {
            self.batches.clear();
            self.each = None;
            return;
        }
        let under_way = usize::try_from(under_way).unwrap_or(MOST);
        while self.batches.len() >= MOST.max(2 * under_way) {
            self.batches.pop_front();
        }
        self.batches.push_back((now, left));
        let says_something = self.batches.len() >= FEWEST.max(under_way + 1);
        self.each = says_something.then(|| self.each()).flatten();
    }

    fn each(&self) -> Option<f64> {
        let ((first, _), (last, _)) = (self.batches.front()?, self.batches.back()?);
        let left: usize = self.batches.iter().skip(1).map(|(_, left)| left).sum();
        let took = last.duration_since(*first).as_secs_f64();
        Some(took / f64::from(u32::try_from(left).ok()?))
    }

    /// How long it takes until so many have left; `None` if nobody had to wait lately.
    pub(super) fn time_for(&self, ahead: usize) -> Option<Duration> {
        let ahead = f64::from(u32::try_from(ahead).ok()?);
        Duration::try_from_secs_f64(self.each? * ahead).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_batches_tell() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let mut pace = Pace::default();
        for batch in 0..4 {
            assert_eq!(pace.time_for(1), None);
            pace.note(at(10 * batch), 100, true, 2);
        }
        // 300 in 30 ms.
        assert_eq!(pace.time_for(1_000), Some(Duration::from_millis(100)));
        for batch in 4..40 {
            pace.note(at(20 * batch), 100, true, 2);
        }
        assert_eq!(pace.time_for(1_000), Some(Duration::from_millis(200)));
        pace.note(at(900), 10, false, 2);
        assert_eq!(pace.time_for(1_000), None, "nobody waits");
    }
}
