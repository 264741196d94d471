//! A file of settings: which one, what is in it, and when that changes.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use limiter_core::Error;
use limiter_core::limit::wrap::Routing;

use super::document::{Format, Place, Problem};
use super::{PolicySet, config_error, listed, routing};

/// A file of settings, and the variable that names it.
///
/// Errors say both: `LIMITS_FILE names /etc/limits.toml, which cannot be used: line 3, column 9: ...`.
#[derive(Clone, Debug)]
pub struct ConfigFile {
    path: PathBuf,
    variable: Option<String>,
    format: Format,
}

/// The largest file that is read.
const MOST: u64 = 1 << 18;

impl ConfigFile {
    /// A file whose name ends in `.toml`, `.yaml`, `.yml` or `.json`.
    ///
    /// # Errors
    /// `Config` for another end.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let path = path.into();
        let extension = path.extension().and_then(|it| it.to_str());
        let format = match extension.map(str::to_ascii_lowercase).as_deref() {
            Some("toml") => Format::Toml,
            Some("yaml" | "yml") => Format::Yaml,
            Some("json") => Format::Json,
            _ => {
                return Err(config_error(format!(
                    "{} has none of the ends .toml, .yaml, .yml and .json, by which it is known how to read it",
                    path.display()
                )));
            }
        };
        Ok(Self {
            path,
            variable: None,
            format,
        })
    }

    /// The same file, named by an environment variable, which errors tell.
    #[must_use]
    pub fn named_by(self, variable: &str) -> Self {
        Self {
            variable: Some(variable.to_owned()),
            ..self
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The policies in it.
    ///
    /// # Errors
    /// `Config` if it cannot be read, or as [`PolicySet::parse`].
    pub fn load(&self) -> Result<PolicySet, Error> {
        self.parse(&self.text()?, PolicySet::read)
    }

    /// Where limits are counted, as it says.
    ///
    /// # Errors
    /// As [`parse_routing`](super::parse_routing).
    pub(crate) fn routing(&self, text: &[u8]) -> Result<Routing, Error> {
        self.parse(text, routing::read)
    }

    /// What a text of this file says, by whoever understands it.
    pub(super) fn parse<T>(
        &self,
        text: &[u8],
        read: impl FnOnce(Format, &str) -> Result<T, Vec<Problem>>,
    ) -> Result<T, Error> {
        let problems = match std::str::from_utf8(text) {
            Ok(text) => match read(self.format, text) {
                Ok(it) => return Ok(it),
                Err(problems) => problems,
            },
            Err(error) => {
                let before = &text[..error.valid_up_to()];
                let line = before.rsplit(|byte| *byte == b'\n').next();
                let at = Place {
                    line: before.split(|byte| *byte == b'\n').count(),
                    column: line.map_or(0, <[u8]>::len) + 1,
                };
                vec![Problem::new(at, "the text is no UTF-8; save it as UTF-8")]
            }
        };
        Err(self.unusable(&listed(&problems)))
    }

    /// What is in it.
    pub(crate) fn text(&self) -> Result<Vec<u8>, Error> {
        let failed = |error: std::io::Error| {
            config_error(format!("{}, which cannot be read ({error})", self.name()))
        };
        // Before it is opened: a pipe would wait for somebody to write.
        if !std::fs::metadata(&self.path).map_err(failed)?.is_file() {
            return Err(self.unusable("it is no file"));
        }
        let file = std::fs::File::open(&self.path).map_err(failed)?;
        let mut text = Vec::new();
        file.take(MOST + 1).read_to_end(&mut text).map_err(failed)?;
        if text.len() as u64 > MOST {
            return Err(self.unusable(&format!("it has more than {MOST} bytes")));
        }
        Ok(text)
    }

    pub(super) fn unusable(&self, why: &str) -> Error {
        config_error(format!("{}, which cannot be used: {why}", self.name()))
    }

    fn name(&self) -> String {
        let path = self.path.display();
        match &self.variable {
            Some(variable) => format!("{variable} names {path}"),
            None => format!("the settings are in {path}"),
        }
    }
}

/// What is known of a file that may change: it is used when it is the same twice, and what cannot be used is told until it can.
#[derive(Debug, Default)]
pub(crate) struct Looked {
    /// What was in the file when it was judged last, and what is wrong with it.
    judged: Vec<u8>,
    wrong: Option<String>,
    /// What was in it when it was looked at last: it may be written just now.
    seen: Vec<u8>,
    /// Why it cannot be read.
    unread: Option<String>,
}

impl Looked {
    /// Of a text that is used.
    pub(crate) fn at(text: Vec<u8>) -> Self {
        Self {
            seen: text.clone(),
            judged: text,
            ..Self::default()
        }
    }

    /// What is wrong with the file as it is; `None` if it is what holds.
    pub(crate) fn error(&self) -> Option<String> {
        self.unread.clone().or_else(|| self.wrong.clone())
    }

    /// Uses the file if it has changed and stays as it is.
    pub(crate) fn look<T>(
        &mut self,
        read: Result<Vec<u8>, Error>,
        take: impl FnOnce(&[u8]) -> Result<T, Error>,
    ) {
        // What goes wrong is logged, and told by `error`.
        let Ok(text) = self.note(read) else { return };
        if text == self.seen && text != self.judged {
            let _ = self.judge(text, take);
        } else {
            self.seen = text;
        }
    }

    /// Uses the file as it is now.
    pub(crate) fn reload<T>(
        &mut self,
        read: Result<Vec<u8>, Error>,
        take: impl FnOnce(&[u8]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let text = self.note(read)?;
        self.judge(text, take)
    }

    fn judge<T>(
        &mut self,
        text: Vec<u8>,
        take: impl FnOnce(&[u8]) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let taken = take(&text);
        self.judged = text;
        self.wrong = taken.as_ref().err().map(said);
        taken
    }

    fn note(&mut self, read: Result<Vec<u8>, Error>) -> Result<Vec<u8>, Error> {
        self.unread = match &read {
            Ok(_) => None,
            // Said once.
            Err(error) if self.unread.as_deref() == Some(error.message()) => return read,
            Err(error) => Some(said(error)),
        };
        read
    }
}

/// Tells of a file that changes nothing.
fn said(error: &Error) -> String {
    tracing::error!("{}; what held before still holds", error.message());
    error.message().to_owned()
}

/// Looks at a file again and again, in a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct FileWatch {
    /// Its end is the thread's.
    _stop: Sender<()>,
}

impl FileWatch {
    /// Calls `look` every so often, at most a thousand times a second.
    ///
    /// # Errors
    /// `Config` if the thread cannot be started.
    pub fn start(every: Duration, mut look: impl FnMut() + Send + 'static) -> Result<Self, Error> {
        let every = every.max(Duration::from_millis(1));
        let (stop, stopped) = channel();
        std::thread::Builder::new()
            .name("limiter-watch".to_owned())
            .spawn(move || {
                while stopped.recv_timeout(every) == Err(RecvTimeoutError::Timeout) {
                    look();
                }
            })
            .map_err(|error| {
                config_error(format!(
                    "the thread that watches files cannot be started: {error}"
                ))
            })?;
        Ok(Self { _stop: stop })
    }
}
