//! A file of settings: which one, what is in it, and when that changes.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use limiter_core::Error;

use super::document::Format;
use super::{PolicySet, config_error, listed};

/// A file of policies, and the variable that names it.
///
/// Errors say both: `LIMITS_FILE names /etc/limits.toml, which cannot be used: line 3, column 9: ...`.
#[derive(Clone, Debug)]
pub struct PolicyFile {
    path: PathBuf,
    variable: Option<String>,
    format: Format,
}

/// The largest file that is read.
const MOST: u64 = 1 << 20;

impl PolicyFile {
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
        self.parse(&self.text()?)
    }

    pub(super) fn parse(&self, text: &[u8]) -> Result<PolicySet, Error> {
        let policies = std::str::from_utf8(text).map_err(|error| {
            let line = text[..error.valid_up_to()]
                .split(|byte| *byte == b'\n')
                .count();
            let begin = text[..error.valid_up_to()]
                .iter()
                .rposition(|byte| *byte == b'\n');
            let column = error.valid_up_to() - begin.map_or(0, |at| at + 1) + 1;
            self.unusable(&format!(
                "line {line}, column {column}: the text is no UTF-8; save it as UTF-8"
            ))
        })?;
        PolicySet::read(self.format, policies).map_err(|problems| self.unusable(&listed(&problems)))
    }

    /// What is in it.
    pub(super) fn text(&self) -> Result<Vec<u8>, Error> {
        let failed = |error: std::io::Error| {
            config_error(format!("{}, which cannot be read ({error})", self.name()))
        };
        let length = std::fs::metadata(&self.path).map_err(failed)?.len();
        if length > MOST {
            return Err(self.unusable(&format!("it has {length} bytes; {MOST} are the most")));
        }
        std::fs::read(&self.path).map_err(failed)
    }

    pub(super) fn unusable(&self, why: &str) -> Error {
        config_error(format!("{}, which cannot be used: {why}", self.name()))
    }

    fn name(&self) -> String {
        let path = self.path.display();
        match &self.variable {
            Some(variable) => format!("{variable} names {path}"),
            None => format!("the policies are in {path}"),
        }
    }
}

/// Looks at a file again and again, in a thread of its own, until it is dropped.
#[derive(Debug)]
pub struct FileWatch {
    /// Its end is the thread's.
    _stop: Sender<()>,
}

impl FileWatch {
    /// Calls `look` every so often.
    ///
    /// # Errors
    /// `Config` if the thread cannot be started.
    pub fn start(every: Duration, mut look: impl FnMut() + Send + 'static) -> Result<Self, Error> {
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
