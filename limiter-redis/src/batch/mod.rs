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
use std::hash::BuildHasher;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use hashbrown::DefaultHashBuilder;
use limiter_core::{Effect, Error, ErrorKind, Figure};
use parking_lot::Mutex;
use tokio::sync::oneshot;
use tokio::time::{Instant, timeout_at};

use self::lanes::Lanes;
use self::member::{Member, Told};
use self::pace::Pace;
use self::window::Window;
use crate::guard::{Guard, Passing, Span};
use crate::pool::Pool;
use crate::pool::connection::Origin;
use crate::runtime::PerRuntime;
use crate::script::Scripts;
use crate::script::call::{Call, OPERATION};
use crate::script::reply::Reply;

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
    guard: Guard,
    scripts: Arc<Scripts>,
    /// How long states are kept at least (ms).
    floor: u64,
    /// How many batches may be under way at most.
    most: u32,
    rooms: PerRuntime<Arc<Room>>,
    hasher: DefaultHashBuilder,
    unheard: Arc<AtomicU64>,
}

/// What waits in one runtime. Flights run there too: one that stops, or is not driven, keeps nobody else waiting. Not in one cache
/// line with the count of those who wait, which changes with each call.
#[repr(align(64))]
struct Room {
    /// Of the connections that its flights are sent on.
    origin: Arc<Origin>,
    window: Window,
    state: Mutex<State>,
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
        guard: Guard,
        scripts: Arc<Scripts>,
        floor: u64,
        most: u32,
        unheard: Arc<AtomicU64>,
    ) -> Self {
        Self {
            shared: Arc::new(Shared {
                pool,
                guard,
                scripts,
                floor,
                most,
                rooms: PerRuntime::new(),
                hasher: DefaultHashBuilder::default(),
                unheard,
            }),
        }
    }

    pub(crate) fn pool(&self) -> &Pool {
        &self.shared.pool
    }

    /// What they tell of themselves for metrics, without I/O.
    pub(crate) fn figures(&self) -> Vec<Figure> {
        let shared = &self.shared;
        let (mut waiting, mut under_way) = (0, 0);
        shared.rooms.each(|room| {
            let state = room.state.lock();
            waiting += state.lanes.len();
            under_way += u64::from(state.under_way);
        });
        let waiting = u64::try_from(waiting).unwrap_or(u64::MAX);
        let of_batches = [
            ("limiter_redis_waiting", waiting),
            ("limiter_redis_batches_under_way", under_way),
        ];
        let host = shared.pool.host();
        let of_batches =
            of_batches.map(|(name, value)| Figure::new(name, value).with("server", host));
        let mut figures = shared.pool.figures();
        figures.extend(of_batches);
        figures.extend(shared.guard.figure(&shared.pool, "limits"));
        figures
    }

    pub(crate) fn guard(&self) -> &Guard {
        &self.shared.guard
    }

    /// Sends a group with the next batch and returns what the script replies to it. The group waits from now on, and not only once
    /// it is asked for the reply: so what a call needs while it waits is all that is kept for it.
    ///
    /// # Errors
    /// With the call, if it did not run.
    pub(crate) fn apply(
        &self,
        policy: &str,
        call: Call,
        place: Place,
        span: Span,
    ) -> impl Future<Output = Result<Reply, Undone>> {
        let entered = self.enter(policy, call, place, span);
        async move {
            let (passing, mut waiting) = match entered {
                Ok(entered) => entered,
                Err(refused) => {
                    self.shared.pool.counts().note_error(&refused.error);
                    // Who asks again and again still lets others run, those among them who carry the answers.
                    tokio::task::yield_now().await;
                    return Err(refused);
                }
            };
            let told = match timeout_at(span.end, &mut waiting.reply).await {
                Ok(Ok(told)) => {
                    waiting.is_told = true;
                    told
                }
                // The runtime of the flight has ended.
                Ok(Err(_)) => Err(undone(self.shared.lost(), None)),
                Err(_) => waiting.leave(span.end - span.begun),
            };
            let now = Instant::now();
            let result = told.as_ref().map(drop).map_err(|undone| &undone.error);
            let error = result.err();
            self.shared
                .pool
                .note_end(OPERATION, now - span.begun, error);
            passing.end(now, result);
            told
        }
    }

    fn enter(
        &self,
        policy: &str,
        call: Call,
        place: Place,
        span: Span,
    ) -> Result<(Passing<'_>, Waiting<'_>), Undone> {
        let shared = &self.shared;
        let passing = match shared.guard.enter(&shared.pool, span) {
            Ok(passing) => passing,
            Err(error) => return Err(undone(error, Some(call))),
        };
        let lane = shared.hasher.hash_one(policy);
        let room = shared.room();
        let answers = room.origin.answers();
        let takes = call.takes();
        let (sender, reply) = oneshot::channel();
        let mut state = room.state.lock();
        if let Some(error) = self.refusal(&room, &state, lane, span) {
            drop(state);
            passing.end(span.begun, Err(&error));
            return Err(undone(error, Some(call)));
        }
        let member = Member {
            call,
            slot: place.slot,
            is_asking: place.is_asking,
            is_handed_over: false,
            since: span.begun,
            end: span.end,
            answers,
            reply: sender,
        };
        let number = state.lanes.push(lane, member);
        let begins = room.begins(&mut state);
        drop(state);
        if begins {
            shared.spawn(&room);
        }
        let waiting = Waiting {
            shared,
            room,
            lane,
            number,
            reply,
            takes,
            is_told: false,
        };
        Ok((passing, waiting))
    }

    /// Why who enters now is refused: it would have no answer in time, by the pace of those before, or there is no room. A server
    /// that answered nobody since the first of them came is frozen: that is no overload.
    fn refusal(&self, room: &Room, state: &State, lane: u64, span: Span) -> Option<Error> {
        let (lanes, pool) = (&state.lanes, &self.shared.pool);
        let left = span.end.saturating_duration_since(span.begun);
        let is_moving = || {
            let first = lanes.head(lane);
            first.is_none_or(|first| room.origin.answers() != first.answers)
        };
        if lanes.len() >= WAITING {
            let what = "no answer to those before";
            return Some(match is_moving() {
                true => pool.saturated(OPERATION),
                false => pool.late(OPERATION, Effect::No, what, left),
            });
        }
        let wait = state.pace.time_for(lanes.ahead_of(lane))?;
        let is_late = wait + room.window.reply_time() > left && lanes.head(lane).is_some();
        (is_late && is_moving()).then(|| pool.saturated(OPERATION))
    }
}

/// Where a group is to run.
#[derive(Clone, Copy, Default)]
pub(crate) struct Place {
    pub(crate) slot: u16,
    pub(crate) is_asking: bool,
}

impl Place {
    /// A slot, at its owner.
    pub(crate) fn of(slot: u16) -> Self {
        Self {
            slot,
            is_asking: false,
        }
    }
}

impl Shared {
    fn room(&self) -> Arc<Room> {
        self.rooms.here(|| {
            Arc::new(Room {
                origin: self.pool.origin(),
                window: Window::new(self.most),
                state: Mutex::new(State {
                    lanes: Lanes::new(),
                    pace: Pace::default(),
                    under_way: 0,
                }),
            })
        })
    }

    /// Never while the state is locked: a runtime that ends drops the flight at once, which locks it.
    fn spawn(self: &Arc<Self>, room: &Arc<Room>) {
        tokio::spawn(flight::Flight::new(self.clone(), room.clone()).run());
    }

    /// The next batch. Who would have no answer in time any more is told so.
    fn take(&self, room: &Room, state: &mut State) -> Vec<Member> {
        let now = Instant::now();
        let reply_time = room.window.reply_time();
        let mut batch = Vec::with_capacity(state.lanes.len().min(GROUPS));
        let mut keys = 0;
        while batch.len() < GROUPS {
            let fits = |member: &Member| keys + member.call.key_count() <= KEYS;
            let Some(member) = state.lanes.pop_if(fits) else {
                break;
            };
            // Who did not have to wait is sent, however far the server is.
            if now + reply_time > member.end && now - member.since > reply_time {
                let error = self.not_sent(room, &member, member.end - member.since);
                member.fail(error);
                continue;
            }
            keys += member.call.key_count();
            batch.push(member);
        }
        let is_more = state.lanes.len() > 0;
        state.pace.note(now, batch.len(), is_more, state.under_way);
        batch
    }

    /// What a member is told whose time is over before it was sent.
    fn not_sent(&self, room: &Room, member: &Member, within: Duration) -> Error {
        let is_connected = self.pool.is_connected();
        if !is_connected || room.origin.answers() == member.answers {
            let what = if is_connected {
                "it could not be sent"
            } else {
                "no connection"
            };
            return self.pool.late(OPERATION, Effect::No, what, within);
        }
        self.pool.saturated(OPERATION)
    }

    fn tell(&self, member: Member, reply: Reply) {
        let takes = member.call.takes();
        if let Err(told) = member.reply.send(Ok(reply)) {
            self.note_unheard(&told, takes);
        }
    }

    /// Counts a charge that nobody was told of.
    fn note_unheard(&self, told: &Told, takes: bool) {
        if takes && told.as_ref().is_ok_and(Reply::has_charged) {
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
struct Waiting<'a> {
    shared: &'a Shared,
    room: Arc<Room>,
    lane: u64,
    number: u64,
    reply: oneshot::Receiver<Told>,
    /// Whether its group takes anything.
    takes: bool,
    is_told: bool,
}

impl Room {
    /// Whether another batch may be under way, and is from now on.
    fn begins(&self, state: &mut State) -> bool {
        let begins = state.lanes.len() > 0 && self.window.allows(state.under_way);
        state.under_way += u32::from(begins);
        begins
    }
}

impl Waiting<'_> {
    /// Its group, if it still waits.
    fn take_out(&self) -> Option<Member> {
        let mut state = self.room.state.lock();
        state.lanes.remove(self.lane, self.number)
    }

    /// What the caller is told when its time is over.
    fn leave(&mut self, within: Duration) -> Told {
        let pool = &self.shared.pool;
        let waited = self.take_out();
        if let Some(member) = waited {
            self.is_told = true;
            let error = self.shared.not_sent(&self.room, &member, within);
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

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if self.is_told {
            return;
        }
        let waited = self.take_out();
        if waited.is_some() {
            return;
        }
        // From now on it cannot be told; it may have been a moment ago.
        self.reply.close();
        if let Ok(told) = self.reply.try_recv() {
            self.shared.note_unheard(&told, self.takes);
        }
    }
}
