//! What was logged: for tests, which assert on it. No test stands here.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Once;

use tracing_subscriber::filter::LevelFilter;

thread_local! {
    static TEXT: RefCell<Option<Vec<u8>>> = const { RefCell::new(None) };
}

/// Everything that this thread logs, of every crate and level, until it is dropped. A
/// `#[tokio::test]` runs its tasks on one thread unless told otherwise.
#[derive(Debug)]
pub struct Logs(());

impl Logs {
    /// Begins.
    pub fn capture() -> Self {
        static SUBSCRIBER: Once = Once::new();
        // One for the process: a subscriber a thread would miss events that another thread met
        // first, because tracing remembers who is interested.
        SUBSCRIBER.call_once(|| {
            tracing_subscriber::fmt()
                .with_max_level(LevelFilter::TRACE)
                .with_ansi(false)
                .with_writer(|| ThisThread)
                .init();
        });
        // What was met by a thread before that knew of no subscriber.
        tracing::callsite::rebuild_interest_cache();
        TEXT.set(Some(Vec::new()));
        Self(())
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        TEXT.with_borrow(|text| {
            let text = String::from_utf8_lossy(text.as_deref().unwrap_or_default());
            text.lines().map(str::to_owned).collect()
        })
    }

    /// The lines so far that hold `part`.
    pub fn with(&self, part: &str) -> Vec<String> {
        let mut lines = self.lines();
        lines.retain(|line| line.contains(part));
        lines
    }
}

impl Drop for Logs {
    fn drop(&mut self) {
        TEXT.set(None);
    }
}

struct ThisThread;

impl Write for ThisThread {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        TEXT.with_borrow_mut(|text| {
            text.as_mut()
                .map_or(Ok(bytes.len()), |text| text.write(bytes))
        })
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
