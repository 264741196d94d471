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
//! | `limits` | for each limit `policy`, `scope`, `action`, `key` (hashed), `cost`, `outcome`; what was seen: `source`, `used`, `limit`, `retry_after_ms`; where they hold, `version` (above 1), `degraded`, `shadow` and `replayed` |
//!
//! Keys and ids are HMAC-SHA-256 under a secret, of which the first 128 bits are written: the same key has the same hash as long as
//! the secret is the same. [`Audit::hash`] finds somebody's lines.
//!
//! # What can be lost
//!
//! Decisions wait in a bounded buffer for the one thread that writes them. Where they come faster than they are written, the calls
//! that find no room wait for it, in their threads, so that all are written. Where nothing was written for
//! [`AuditConfig::with_patience`], what finds no room is lost, until something is written again; and so is what cannot be written. It is
//! counted, logged, and told in the trail by a line `{"lost":3,...}`. A process that is killed loses what is in its buffer:
//! [`AuditConfig::with_buffer`] decisions at most.

mod file;
mod line;

use std::collections::VecDeque;
use std::fmt;
use std::io;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
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
    patience: Duration,
    sample: Share,
}

impl AuditConfig {
    /// Everything is written, keys and ids under this secret; the instance is named after its process.
    pub fn new(secret: IdentitySecret) -> Self {
        Self {
            secret,
            instance: format!("process-{}", std::process::id()),
            buffer: 16_384,
            patience: Duration::from_secs(1),
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

    /// How long a call waits, in its thread, for room in the buffer while nothing at all is written: 1 s unless this says otherwise.
    /// Zero loses at once what finds none.
    #[must_use]
    pub fn with_patience(self, patience: Duration) -> Self {
        Self { patience, ..self }
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
pub struct Audit(Arc<Handle>);

/// The last one to be dropped ends the thread that writes.
struct Handle(Arc<Shared>);

struct Shared {
    config: AuditConfig,
    state: Mutex<State>,
    /// There is something to write, or there will be nothing more.
    filled: Condvar,
    /// Something was written, or could not be.
    emptied: Condvar,
    log: LogLimit,
}

#[derive(Default)]
struct State {
    queue: VecDeque<Record>,
    /// The last line's number.
    sequence: u64,
    /// How many are in the queue or being written.
    waiting: usize,
    /// Nobody waits for room any more, until something was written.
    is_stalled: bool,
    is_closed: bool,
    /// Of what was allowed, to take a share of it.
    allowed: u64,
    written: u64,
    lost: u64,
    left_out: u64,
}

impl Audit {
    /// Starts the thread that writes. It ends when the last clone is dropped and all is written.
    ///
    /// # Errors
    /// `Config` if the thread cannot be started.
    pub fn start(config: AuditConfig, sink: impl AuditSink + 'static) -> Result<Self, Error> {
        let shared = Arc::new(Shared {
            config,
            state: Mutex::default(),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            log: LogLimit::default(),
        });
        let writer = shared.clone();
        std::thread::Builder::new()
            .name("limiter-audit".to_owned())
            .spawn(move || writer.write_all(sink))
            .map_err(|error| {
                let message = format!("the audit trail's thread cannot be started: {error}");
                Error::new(ErrorKind::Config, "audit.start", message)
            })?;
        Ok(Self(Arc::new(Handle(shared))))
    }

    /// What became of the decisions so far.
    pub fn stats(&self) -> AuditStats {
        let state = self.shared().lock();
        AuditStats {
            written: state.written,
            lost: state.lost,
            waiting: state.waiting as u64,
            left_out: state.left_out,
        }
    }

    /// Waits, in this thread, until what was decided before is written; whether it was, in time and without a loss since the
    /// start.
    pub fn flush(&self, within: Duration) -> bool {
        let shared = self.shared();
        let deadline = Instant::now() + within.min(FOR_EVER);
        let mut state = shared.lock();
        let last = state.sequence;
        // Those that wait are the last ones.
        while state.waiting as u64 > state.sequence - last {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            state = wait(&shared.emptied, state, left);
        }
        state.lost == 0
    }

    /// How a key or an id is written: give [`Key::as_str`](crate::Key::as_str).
    pub fn hash(&self, text: &str) -> String {
        line::hash(&self.shared().config.secret, text)
    }

    fn shared(&self) -> &Shared {
        &self.0.0
    }
}

impl Observer for Audit {
    fn observe(&self, event: &Event<'_>) {
        let is_told = |action: &Action<'_>| {
            action.takes()
                || *action == Action::Reset
                || action.follows_up() && !matches!(action, Action::Renew { .. })
        };
        if event.steps.iter().any(|step| is_told(&step.action)) {
            self.shared().take(Record::of(event));
        }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a decision into the buffer, as soon as there is room.
    fn take(&self, mut record: Record) {
        let mut state = self.lock();
        if record.is_plain() && !state.is_in_sample(self.config.sample) {
            return;
        }
        let mut hope = None;
        while state.waiting >= self.config.buffer && !state.is_stalled {
            let now = Instant::now();
            // As long as something is written, it is its turn some time.
            let (seen, deadline) =
                hope.unwrap_or((state.written, now + self.config.patience.min(FOR_EVER)));
            if state.written != seen {
                hope = None;
            } else if now >= deadline {
                state.is_stalled = true;
            } else {
                hope = Some((seen, deadline));
                state = wait(&self.emptied, state, deadline - now);
            }
        }
        // A lost one has a number too: a gap tells of it.
        state.sequence += 1;
        if state.waiting >= self.config.buffer {
            state.lost += 1;
            drop(state);
            self.warn("the buffer is full, and is not emptied fast enough");
            return;
        }
        record.sequence = state.sequence;
        state.waiting += 1;
        state.queue.push_back(record);
        let is_first = state.queue.len() == 1;
        drop(state);
        if is_first {
            self.filled.notify_one();
        }
    }

    /// Writes until nothing more comes.
    fn write_all(&self, mut sink: impl AuditSink) {
        let mut lines = Vec::new();
        let mut told = 0;
        loop {
            let (batch, lost, is_over) = {
                let mut state = self.lock();
                while state.queue.is_empty() && !state.is_closed && state.lost == told {
                    let waited = self.filled.wait(state);
                    state = waited.unwrap_or_else(PoisonError::into_inner);
                }
                let is_over = state.queue.is_empty() && state.is_closed;
                if is_over && state.lost == told {
                    return;
                }
                if state.queue.is_empty() && !is_over {
                    // Losses after which nothing comes are told, too; a sink that fails is left alone for a while.
                    state = wait(&self.filled, state, RETRY);
                }
                let count = state.queue.len().min(BATCH);
                let batch = state.queue.drain(..count).collect::<Vec<_>>();
                (batch, state.lost, is_over)
            };
            lines.clear();
            if lost > told {
                line::write_lost(&mut lines, &self.config.instance, lost - told);
            }
            for record in &batch {
                record.write(&self.config, &mut lines);
            }
            let written = sink.write(&lines);
            {
                let mut state = self.lock();
                state.waiting -= batch.len();
                match &written {
                    Ok(()) => {
                        state.written += batch.len() as u64;
                        state.is_stalled = false;
                    }
                    Err(_) => state.lost += batch.len() as u64,
                }
            }
            self.emptied.notify_all();
            match written {
                Ok(()) => told = lost,
                Err(error) => self.warn(&format!("it cannot be written ({error})")),
            }
            if is_over {
                return;
            }
        }
    }

    fn warn(&self, why: &str) {
        if let Some(more) = self.log.pass("lost") {
            let lost = self.lock().lost;
            tracing::error!(why, lost, more, "decisions are lost to the audit trail");
        }
    }
}

impl State {
    /// Whether an allowed call is written: evenly, and the first one of all.
    fn is_in_sample(&mut self, sample: Share) -> bool {
        let count = self.allowed;
        self.allowed += 1;
        let is_in = sample.of(count + 1) > sample.of(count) || count == 0;
        self.left_out += u64::from(!is_in);
        is_in
    }
}

fn wait<'a>(on: &Condvar, state: MutexGuard<'a, State>, time: Duration) -> MutexGuard<'a, State> {
    let waited = on.wait_timeout(state, time);
    waited.unwrap_or_else(PoisonError::into_inner).0
}

impl Drop for Handle {
    fn drop(&mut self) {
        self.0.lock().is_closed = true;
        self.0.filled.notify_one();
    }
}

impl fmt::Debug for Audit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Audit")
            .field("config", &self.shared().config)
            .field("stats", &self.stats())
            .finish_non_exhaustive()
    }
}

/// Between two tries to tell of losses, while nothing else is to be written.
const RETRY: Duration = Duration::from_secs(10);

/// As long as can be told.
const FOR_EVER: Duration = Duration::from_secs(30 * 365 * 86_400);

/// How many decisions are written at once.
const BATCH: usize = 256;

#[cfg(test)]
#[cfg(feature = "memory")]
mod tests;
