//! What was logged.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

use tracing::subscriber::DefaultGuard;
use tracing_subscriber::filter::LevelFilter;

/// Everything that this thread logs, of every crate and level, until it is dropped. A
/// `#[tokio::test]` runs its tasks on one thread unless told otherwise.
#[derive(Debug)]
pub struct Logs {
    text: Text,
    _guard: DefaultGuard,
}

impl Logs {
    /// Begins.
    pub fn capture() -> Self {
        let text = Text::default();
        let writer = text.clone();
        let subscriber = tracing_subscriber::fmt()
            .with_max_level(LevelFilter::TRACE)
            .with_ansi(false)
            .with_writer(move || writer.clone())
            .finish();
        Self {
            text,
            _guard: tracing::subscriber::set_default(subscriber),
        }
    }

    /// The lines so far.
    pub fn lines(&self) -> Vec<String> {
        let text = self.text.0.lock().unwrap();
        let text = String::from_utf8_lossy(&text);
        text.lines().map(str::to_owned).collect()
    }

    /// The lines so far that hold `part`.
    pub fn with(&self, part: &str) -> Vec<String> {
        let mut lines = self.lines();
        lines.retain(|line| line.contains(part));
        lines
    }
}

#[derive(Clone, Debug, Default)]
struct Text(Arc<Mutex<Vec<u8>>>);

impl Write for Text {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
