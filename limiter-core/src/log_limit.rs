//! Logs that an outage does not flood.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// Lets one line of a kind through a second, and counts the others. For implementors of stores.
///
/// ```
/// use limiter_core::LogLimit;
///
/// let limit = LogLimit::default();
/// assert_eq!(limit.pass("slow"), Some(0));
/// assert_eq!(limit.pass("slow"), None);
/// assert_eq!(limit.pass("lost"), Some(0));
/// ```
#[derive(Debug, Default)]
pub struct LogLimit(Mutex<Vec<Line>>);

#[derive(Debug)]
struct Line {
    kind: &'static str,
    last: Instant,
    held_back: u64,
}

const EVERY: Duration = Duration::from_secs(1);

impl LogLimit {
    /// How many lines were held back since the last one, if this one may be written; `None` if it is held back too.
    pub fn pass(&self, kind: &'static str) -> Option<u64> {
        let now = Instant::now();
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let Some(line) = lines.iter_mut().find(|line| line.kind == kind) else {
            lines.push(Line {
                kind,
                last: now,
                held_back: 0,
            });
            return Some(0);
        };
        if now - line.last < EVERY {
            line.held_back += 1;
            return None;
        }
        line.last = now;
        Some(std::mem::take(&mut line.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn one_line_a_second_and_the_number_of_the_others() {
        let limit = LogLimit::default();
        let pass = || limit.pass("slow");
        assert_eq!([pass(), pass(), pass()], [Some(0), None, None]);
        assert_eq!(limit.pass("lost"), Some(0), "another kind");
        tokio::time::advance(EVERY).await;
        assert_eq!([pass(), pass()], [Some(2), None]);
    }
}
