//! An audit trail: one line of JSON for each decision, for compliance (C6).
//!
//! ```
//! use limiter::audit::{Audit, AuditConfig, AuditFile};
//! use limiter::{IdentitySecret, Period, Policy, Quota};
//! use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let directory = tempfile::tempdir().unwrap();
//! let path = directory.path().join("audit.jsonl");
//! // A new file after 64 MB, ten old ones kept.
//! let file = AuditFile::open(&path, 64 << 20, 10)?;
//! let audit = Audit::start(AuditConfig::new(IdentitySecret::new("32 random bytes")), file)?;
//! let backends = limiter::Builder::new().observe(audit.clone()).connect("memory:").await?;
//!
//! let letters = Policy::new("cover-letter", Quota::fixed_window(20, Period::HOUR)?)?;
//! backends.limiter.check(&letters, &letters.key(["42"])).await;
//!
//! // At the end of the process, and whenever somebody wants to read all of it.
//! assert!(audit.flush(Duration::from_secs(5)));
//! let line = std::fs::read_to_string(&path).unwrap();
//! assert!(line.starts_with(r#"{"sequence":1,"#) && line.contains(r#""outcome":"allowed""#));
//! // Whose it was is told to who has the secret, and to nobody else.
//! assert!(line.contains(&audit.hash(letters.key(["42"]).as_str())) && !line.contains(":42"));
//! # Ok::<(), limiter::Error>(())
//! # }).unwrap();
//! ```
//!
//! # What is in it
//!
//! Every call that takes, gives back or resets something is one line: what was allowed and what was denied, what no store
//! answered, what made no group and was refused before, and what the caller dropped under way. What only looks is not in it, nor the
//! renewals of leases.
//!
//! | Member | Meaning |
//! |---|---|
//! | `sequence` | 1 for the first line of this process, and then one more each; a gap is what was lost |
//! | `time` | when the decision was known, RFC 3339 in UTC |
//! | `instance` | the process |
//! | `outcome` | `allowed`, `denied`, `never`, `unseen`; `done` for what gives back or resets; `unavailable`, `refused` or `cancelled` where there was no answer |
//! | `operation` | the id under which a repetition is recognised, hashed |
//! | `error`, `effect` | where there was no answer: the [kind](crate::ErrorKind), and whether something was charged all the same: `no`, `yes`, `unknown` |
//! | `elapsed_us` | how long the store took, in microseconds |
//! | `sample` | where not all is written: which share of what was allowed |
//! | `limits` | for each limit `policy`, `scope`, `action`, `key` (hashed), `cost`, `outcome`; what was seen: `source`, `used`, `limit`, `retry_after_ms`; where they hold, `degraded`, `shadow` and `replayed` |
//!
//! Keys and ids are HMAC-SHA-256 under a secret, of which the first 128 bits are written: the same key has the same hash as long as
//! the secret is the same. [`Audit::hash`] finds somebody's lines.
//!
//! # What can be lost
//!
//! Lines wait in a bounded buffer for the one thread that writes them; nothing waits for it. What finds no room there, and what
//! cannot be written, is lost, and is counted, logged, and told in the trail: `{"lost":3,...}`. A process that is killed loses
//! what is in its buffer: [`AuditConfig::with_buffer`] decisions at most.

mod file;
mod line;

use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use limiter_core::limit::wrap::{Event, Observer};
use limiter_core::limit::{Action, Share};
use limiter_core::{Error, ErrorKind, IdentitySecret, LogLimit};

use self::line::Record;

pub use self::file::AuditFile;

/// Where lines go.
pub trait AuditSink: Send {
    /// Writes whole lines, each with its end. After an error all of them count as lost.
    ///
    /// # Errors
    /// What keeps them from being written; the next lines are tried again.
    fn write(&mut self, lines: &[u8]) -> io::Result<()>;
}

/// How an audit trail is written.
#[derive(Clone, Debug)]
pub struct AuditConfig {
    secret: IdentitySecret,
    instance: String,
    buffer: usize,
    sample: Share,
}

impl AuditConfig {
    /// Everything is written, keys and ids under this secret; the instance is named after its process.
    pub fn new(secret: IdentitySecret) -> Self {
        Self {
            secret,
            instance: format!("process-{}", std::process::id()),
            buffer: 16_384,
            sample: Share::WHOLE,
        }
    }

    /// Another name of this instance, the same after a restart.
    #[must_use]
    pub fn with_instance(self, instance: impl Into<String>) -> Self {
        Self {
            instance: instance.into(),
            ..self
        }
    }

    /// How many decisions may wait to be written, and are lost if the process is killed: 16,384 unless this says otherwise, at
    /// least 1.
    #[must_use]
    pub fn with_buffer(self, decisions: usize) -> Self {
        Self {
            buffer: decisions.max(1),
            ..self
        }
    }

    /// Writes only a share of what was allowed. What was denied, degraded, given back, reset or not answered is always written. Not
    /// for compliance.
    #[must_use]
    pub fn with_sample(self, sample: Share) -> Self {
        Self { sample, ..self }
    }
}

/// What became of the decisions of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct AuditStats {
    /// How many were written.
    pub written: u64,
    /// How many were lost: there was no room for them, or they could not be written.
    pub lost: u64,
    /// How many wait to be written.
    pub waiting: u64,
    /// How many were allowed and left out, because not all of those are wanted.
    pub left_out: u64,
}

/// Writes each decision to a sink. An observer: give it to [`Builder::observe`](crate::Builder::observe). Clones are one.
#[derive(Clone)]
pub struct Audit(Arc<Shared>);

struct Shared {
    config: AuditConfig,
    queue: SyncSender<Box<Record>>,
    allowed: AtomicU64,
    left_out: AtomicU64,
    /// The next line's number, taken together with its place in the queue.
    next: Mutex<u64>,
    progress: Arc<Progress>,
}

/// How far the writer is.
#[derive(Default)]
struct Progress {
    state: Mutex<Done>,
    changed: Condvar,
    log: LogLimit,
}

#[derive(Clone, Copy, Default)]
struct Done {
    accepted: u64,
    written: u64,
    /// Found no room.
    dropped: u64,
    /// Could not be written.
    failed: u64,
}

impl Audit {
    /// Starts the thread that writes. It ends when the last clone is dropped and all is written.
    ///
    /// # Errors
    /// `Config` if the thread cannot be started.
    pub fn start(config: AuditConfig, sink: impl AuditSink + 'static) -> Result<Self, Error> {
        let (queue, records) = sync_channel(config.buffer);
        let progress = Arc::new(Progress::default());
        let writer = Writer {
            sink,
            config: config.clone(),
            progress: progress.clone(),
            told: 0,
        };
        std::thread::Builder::new()
            .name("limiter-audit".to_owned())
            .spawn(move || writer.run(&records))
            .map_err(|error| {
                let message = format!("the audit trail's thread cannot be started: {error}");
                Error::new(ErrorKind::Config, "audit.start", message)
            })?;
        Ok(Self(Arc::new(Shared {
            config,
            queue,
            allowed: AtomicU64::new(0),
            left_out: AtomicU64::new(0),
            next: Mutex::new(1),
            progress,
        })))
    }

    /// What became of the decisions so far.
    pub fn stats(&self) -> AuditStats {
        let done = *self.0.progress.lock();
        AuditStats {
            written: done.written,
            lost: done.dropped + done.failed,
            waiting: done.accepted - done.written - done.failed,
            left_out: self.0.left_out.load(Ordering::Relaxed),
        }
    }

    /// Waits, in this thread, until what was decided before is written; whether it was, in time and without a loss since the
    /// start.
    pub fn flush(&self, within: Duration) -> bool {
        let deadline = Instant::now() + within;
        let progress = &self.0.progress;
        let mut state = progress.lock();
        let accepted = state.accepted;
        while state.written + state.failed < accepted {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let waited = progress.changed.wait_timeout(state, left);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        state.dropped + state.failed == 0
    }

    /// How a key or an id is written: give [`Key::as_str`](crate::Key::as_str).
    pub fn hash(&self, text: &str) -> String {
        line::hash(&self.0.config.secret, text)
    }

    /// Whether an allowed call is written: evenly, and the first one of all.
    fn is_in_sample(&self) -> bool {
        let sample = self.0.config.sample;
        if sample == Share::WHOLE {
            return true;
        }
        let count = self.0.allowed.fetch_add(1, Ordering::Relaxed);
        let is_in = sample.of(count + 1) > sample.of(count) || count == 0;
        if !is_in {
            self.0.left_out.fetch_add(1, Ordering::Relaxed);
        }
        is_in
    }
}

impl Observer for Audit {
    fn observe(&self, event: &Event<'_>) {
        let is_told = |action: &Action<'_>| {
            action.takes()
                || *action == Action::Reset
                || action.follows_up() && !matches!(action, Action::Renew { .. })
        };
        if !event.steps.iter().any(|step| is_told(&step.action)) {
            return;
        }
        let mut record = Record::of(event);
        if record.is_plain() && !self.is_in_sample() {
            return;
        }
        let shared = &self.0;
        // In one step, so that lines stand in the order of their numbers.
        let mut next = shared.next.lock().unwrap_or_else(PoisonError::into_inner);
        record.sequence = *next;
        *next += 1;
        // Before the writer can be done with it.
        shared.progress.lock().accepted += 1;
        let is_lost = shared.queue.try_send(Box::new(record)).is_err();
        drop(next);
        if is_lost {
            let mut done = shared.progress.lock();
            done.accepted -= 1;
            done.dropped += 1;
            drop(done);
            shared.progress.warn(
                "the buffer is full; raise AuditConfig::with_buffer, or write to a faster disk",
            );
        }
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit")
            .field("config", &self.0.config)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

impl Progress {
    fn lock(&self) -> std::sync::MutexGuard<'_, Done> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn warn(&self, why: &str) {
        if let Some(more) = self.log.pass("lost") {
            let lost = {
                let done = self.lock();
                done.dropped + done.failed
            };
            tracing::error!(why, lost, more, "decisions are lost to the audit trail");
        }
    }
}

/// How many decisions are written at once.
const BATCH: usize = 1_024;

struct Writer<S> {
    sink: S,
    config: AuditConfig,
    progress: Arc<Progress>,
    /// How many losses the trail tells of.
    told: u64,
}

impl<S: AuditSink> Writer<S> {
    fn run(mut self, records: &Receiver<Box<Record>>) {
        let mut lines = Vec::new();
        while let Ok(first) = records.recv() {
            lines.clear();
            let lost = {
                let done = self.progress.lock();
                done.dropped + done.failed
            };
            if lost > self.told {
                line::write_lost(&mut lines, &self.config.instance, lost - self.told);
            }
            let mut count = 0;
            let rest = records.try_iter().take(BATCH - 1);
            for record in std::iter::once(first).chain(rest) {
                record.write(&self.config, &mut lines);
                count += 1;
            }
            match self.sink.write(&lines) {
                Ok(()) => {
                    self.told = lost;
                    self.progress.lock().written += count;
                }
                Err(error) => {
                    self.progress.lock().failed += count;
                    self.progress
                        .warn(&format!("they cannot be written ({error})"));
                }
            }
            self.progress.changed.notify_all();
        }
    }
}

#[cfg(test)]
#[cfg(feature = "memory")]
mod tests;
