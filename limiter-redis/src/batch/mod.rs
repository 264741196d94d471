//! Group commit: what waits while a batch is under way goes in the next one.
//!
//! - `member`: a group that waits. `lanes`: the order in which they go. `pace`: how fast they do. `window`: how many batches are
//!   under way at once.
//! - `eval`: a batch as calls of scripts. `flight`: a batch sent, and its replies told.
//!
//! Data flows one way: a caller puts its group into the lane of its policy and waits, at most until its deadline. A flight, which
//! is a task of its own, takes a connection, then what waits, and tells each member its reply. A caller that leaves takes its
//! group out, if it still waits; if not, the reply is counted as unheard.

mod eval;
mod flight;
mod lanes;
mod member;
mod pace;
mod window;

use std::fmt;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use limiter_core::{Effect, Error, ErrorKind};
use parking_lot::Mutex;
use redis::Value;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use self::lanes::Lanes;
use self::member::{Member, Told};
use self::pace::Pace;
use self::window::Window;
use crate::call::{Call, OPERATION};
use crate::pool::Pool;
use crate::reply;
use crate::script::Scripts;

pub(crate) use self::member::Undone;

/// How many groups and keys a batch has at most; the script takes no more in one call.
const GROUPS: usize = 128;
const KEYS: usize = 256;

/// How many may wait: beyond it, memory is what runs out next.
const WAITING: usize = 65_536;

/// The batches to one server. Clones share them.
#[derive(Clone)]
pub(crate) struct Batches {
    shared: Arc<Shared>,
}

struct Shared {
    pool: Pool,
    scripts: Arc<Scripts>,
    floor: [u8; 7],
    window: Window,
    state: Mutex<State>,
    hasher: RandomState,
    unheard: Arc<AtomicU64>,
}

struct State {
    lanes: Lanes<Member>,
    pace: Pace,
    under_way: u32,
}

impl fmt::Debug for Batches {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batches")
            .field("pool", &self.shared.pool)
            .finish_non_exhaustive()
    }
}

impl Batches {
    pub(crate) fn new(
        pool: Pool,
        scripts: Arc<Scripts>,
        floor: [u8; 7],
        most: u32,
        unheard: Arc<AtomicU64>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                pool,
                scripts,
                floor,
                window: Window::new(most),
                state: Mutex::new(State {
                    lanes: Lanes::new(),
                    pace: Pace::default(),
                    under_way: 0,
                }),
                hasher: RandomState::new(),
                unheard,
            }),
        }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    /// Sends a group with the next batch and returns what the script replies to it, until `end`.
    ///
    /// # Errors
    /// With the call, if it did not run.
    pub(crate) async fn apply(
        &self,
        policy: &str,
        call: Call,
        place: Place,
        end: Instant,
    ) -> Result<Value, Undone> {
        let start = Instant::now();
        let lane = self.shared.hasher.hash_one(policy);
        let mut waiting = self.enter(lane, call, place, start, end)?;
        let told = match timeout_at(end, &mut waiting.reply).await {
            Ok(Ok(told)) => {
                waiting.is_told = true;
                told
            }
            // The runtime of the flight has ended.
            Ok(Err(_)) => Err(undone(self.shared.lost(), None)),
            Err(_) => waiting.leave(end - start),
        };
        self.shared.pool.note_time(OPERATION, start);
        told
    }

    fn enter(
        &self,
        lane: u64,
        call: Call,
        place: Place,
        now: Instant,
        end: Instant,
    ) -> Result<Waiting, Undone> {
        let pool = &self.shared.pool;
        let answers = pool.answers();
        let (sender, reply) = oneshot::channel();
        let mut state = self.shared.state.lock();
        if self.is_overloaded(&state, lane, now, end) {
            return Err(undone(pool.saturated(OPERATION), Some(call)));
        }
        let member = Member {
            call,
            slot: place.slot,
            is_asking: place.is_asking,
            since: now,
            end,
            answers,
            reply: sender,
        };
        let number = state.lanes.push(lane, member);
        self.shared.begin(&mut state);
        Ok(Waiting {
            shared: self.shared.clone(),
            lane,
            number,
            reply,
            is_told: false,
        })
    }

    /// Whether who enters now would have no answer in time, by the pace of those before. A server that answered nobody since the
    /// first of them came is frozen: that is no overload.
    fn is_overloaded(&self, state: &State, lane: u64, now: Instant, end: Instant) -> bool {
        let lanes = &state.lanes;
        if lanes.len() >= WAITING {
            return true;
        }
        let Some(wait) = state.pace.time_for(lanes.ahead_of(lane)) else {
            return false;
        };
        let left = end.saturating_duration_since(now);
        let is_moving = |first: &Member| self.shared.pool.answers() != first.answers;
        wait + self.shared.window.reply_time() > left && lanes.head(lane).is_some_and(is_moving)
    }
}

/// Where a group is to run.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    pub(crate) slot: u16,
    pub(crate) is_asking: bool,
}

impl Shared {
    /// Sends another batch, if one may be under way.
    fn begin(self: &Arc<Self>, state: &mut State) {
        if state.lanes.len() > 0 && self.window.allows(state.under_way) {
            state.under_way += 1;
            let flight = flight::Flight::new(self.clone());
            tokio::spawn(flight.run());
        }
    }

    /// The next batch. Who would have no answer in time any more is told so.
    fn take(&self, state: &mut State) -> Vec<Member> {
        let now = Instant::now();
        let reply_time = self.window.reply_time();
        let mut batch = Vec::with_capacity(state.lanes.len().min(GROUPS));
        let mut keys = 0;
        while batch.len() < GROUPS {
            let fits = |member: &Member| keys + member.call.key_count() <= KEYS;
            let Some(member) = state.lanes.pop_if(fits) else {
                break;
            };
            // Who did not have to wait is sent, however far the server is.
            if now + reply_time > member.end && now - member.since > reply_time {
                let error = self.not_sent(&member, member.end - member.since);
                member.fail(error);
                continue;
            }
            keys += member.call.key_count();
            batch.push(member);
        }
        state.pace.note(now, batch.len(), state.lanes.len() > 0);
        batch
    }

    /// What a member is told whose time is over before it was sent.
    fn not_sent(&self, member: &Member, within: Duration) -> Error {
        if self.pool.answers() == member.answers {
            let is_connected = self.pool.round_trip() > Duration::ZERO;
            let what = if is_connected {
                "it could not be sent"
            } else {
                "no connection"
            };
            return self.pool.late(OPERATION, Effect::No, what, within);
        }
        self.pool.saturated(OPERATION)
    }

    fn tell(&self, member: Member, reply: Value) {
        if let Err(told) = member.reply.send(Ok(reply)) {
            self.note_unheard(&told);
        }
    }

    /// Counts a charge that nobody was told of.
    fn note_unheard(&self, told: &Told) {
        if told.as_ref().is_ok_and(reply::has_charged) {
            self.unheard.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn lost(&self) -> Error {
        let host = self.pool.host();
        let message = format!("Redis at {host}: the runtime of the call has ended");
        Error::new(ErrorKind::Connection, OPERATION, message).with_effect(Effect::Unknown)
    }
}

fn undone(error: Error, call: Option<Call>) -> Undone {
    Undone { error, call }
}

/// A caller that waits. Dropped, its group is taken out, or its reply is counted as unheard.
struct Waiting {
    shared: Arc<Shared>,
    lane: u64,
    number: u64,
    reply: oneshot::Receiver<Told>,
    is_told: bool,
}

impl Waiting {
    /// What the caller is told when its time is over.
    fn leave(&mut self, within: Duration) -> Told {
        let pool = &self.shared.pool;
        let waited = self
            .shared
            .state
            .lock()
            .lanes
            .remove(self.lane, self.number);
        if let Some(member) = waited {
            self.is_told = true;
            let error = self.shared.not_sent(&member, within);
            return Err(undone(error, Some(member.call)));
        }
        if let Ok(told) = self.reply.try_recv() {
            self.is_told = true;
            return told;
        }
        let error = pool.late(OPERATION, Effect::Unknown, "no answer", within);
        Err(undone(error, None))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        let waited = self
            .shared
            .state
            .lock()
            .lanes
            .remove(self.lane, self.number);
        if waited.is_some() {
            return;
        }
        // From now on it cannot be told; it may have been a moment ago.
        self.reply.close();
        if let Ok(told) = self.reply.try_recv() {
            self.shared.note_unheard(&told);
        }
    }
}
