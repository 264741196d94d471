//! A batch sent, and its replies told.

use std::sync::Arc;

use limiter_core::{Effect, Error};
use redis::aio::MultiplexedConnection;
use redis::{Pipeline, RedisError, Script, ServerErrorKind, Value};
use tokio::time::Instant;

use super::eval::{self, Eval, Members};
use super::member::Member;
use super::{Room, Shared};
use crate::error::{copy, server_error};
use crate::pool::Lent;
use crate::pool::connection::Life;
use crate::pool::counts::note_batch;
use crate::pool::request::is_unknown_script;
use crate::script::call::OPERATION;
use crate::script::hot::{self, Outcome};
use crate::script::reply::{self, Reply};

/// How often a call is sent that has not run: without the hot script, handed over, without the other one, to a server that cannot
/// read it, and for each group alone.
const TRIES: u32 = 6;

/// One of the batches that may be under way, one after the other.
pub(super) struct Flight {
    shared: Arc<Shared>,
    room: Arc<Room>,
    /// Whether it counts among those.
    is_counted: bool,
}

impl Flight {
    pub(super) fn new(shared: Arc<Shared>, room: Arc<Room>) -> Self {
        Self {
            shared,
            room,
            is_counted: true,
        }
    }

    pub(super) async fn run(mut self) {
        while self.is_counted {
            // First a connection: until there is one, who waits may leave without having asked anything.
            let lent = match self.shared.pool.lend(OPERATION).await {
                Ok(lent) => lent,
                Err(error) => return self.end(&error),
            };
            let (members, begins) = {
                let mut state = self.room.state.lock();
                let members = self.shared.take(&self.room, &mut state);
                if members.is_empty() {
                    self.is_counted = false;
                    state.under_way -= 1;
                    return;
                }
                (members, self.room.begins(&mut state))
            };
            if begins {
                self.shared.spawn(&self.room);
            }
            self.send(lent, members).await;
        }
    }

    /// Nothing can be sent: that is the answer for all who wait.
    fn end(mut self, error: &Error) {
        let waiting = {
            let mut state = self.room.state.lock();
            self.is_counted = false;
            state.under_way -= 1;
            std::iter::from_fn(|| state.lanes.pop_if(|_| true)).collect::<Vec<_>>()
        };
        for member in waiting {
            member.fail(copy(error));
        }
    }

    async fn send(&mut self, lent: Lent, members: Vec<Member>) {
        let (shared, room) = (self.shared.clone(), self.room.clone());
        let Lent { mut io, life } = lent;
        note_batch(members.len());
        let mut left = eval::evals(members, &shared.scripts);
        for tried in 1..=TRIES {
            let pipeline = pipeline(&left, shared.floor);
            shared.pool.counts().note_sent(pipeline.len());
            let start = Instant::now();
            let (answers, beginning) = (room.origin.answers(), room.origin.beginnings());
            let replies = io.send_packed_commands(&pipeline, 0, pipeline.len());
            let stalled = || self.stall(answers);
            let replies = shared.pool.exchange(&life, replies, stalled).await;
            let replies = match replies {
                Ok(replies) => replies,
                Err(error) => return fail_all(&shared, left, life.generation(), &error),
            };
            if beginning == room.origin.beginnings() {
                room.window.note(beginning, start.elapsed());
            }
            left = tell_all(&shared, left, replies, &life, tried == TRIES);
            left = load(&shared, left, &mut io, &life).await;
            // It has not run: so nobody who has left needs to be asked about.
            left.retain_mut(|eval| {
                eval.members.retain(|member| !member.reply.is_closed());
                !eval.members.is_empty()
            });
            if left.is_empty() {
                return;
            }
        }
    }

    /// While others have answers, this one holds up nobody. While nobody has, no more is sent.
    fn stall(&mut self, answers: u64) {
        if !self.is_counted || self.room.origin.answers() == answers {
            return;
        }
        self.is_counted = false;
        let begins = {
            let mut state = self.room.state.lock();
            state.under_way -= 1;
            self.room.begins(&mut state)
        };
        if begins {
            self.shared.spawn(&self.room);
        }
    }
}

/// Its runtime has ended.
impl Drop for Flight {
    fn drop(&mut self) {
        if self.is_counted {
            self.room.state.lock().under_way -= 1;
        }
    }
}

/// All calls, to be sent in one write.
fn pipeline(evals: &[Eval], floor: u64) -> Pipeline {
    let mut pipeline = Pipeline::with_capacity(evals.len());
    for eval in evals {
        if eval.is_asking {
            // In one write on one connection: the server forgets it at the next command.
            pipeline.cmd("ASKING");
        }
        pipeline.add_command(eval.command(floor));
    }
    pipeline
}

/// Loads the scripts that the server did not know. Those that have a script then, or need none, are returned.
async fn load(
    shared: &Shared,
    evals: Vec<Eval>,
    io: &mut MultiplexedConnection,
    life: &Life,
) -> Vec<Eval> {
    let mut loaded: Vec<Arc<Script>> = Vec::new();
    let mut ready = Vec::with_capacity(evals.len());
    for mut eval in evals {
        let is_known = |script: &Arc<Script>| Arc::ptr_eq(script, &eval.script);
        if !eval.is_unknown || loaded.iter().any(is_known) {
            ready.push(eval);
            continue;
        }
        shared.pool.counts().note_sent(1);
        let loading = eval.script.load_async(io);
        let Err(error) = shared.pool.exchange(life, loading, || {}).await else {
            loaded.push(eval.script.clone());
            ready.push(eval);
            continue;
        };
        let error = shared.pool.not_sent(OPERATION, error);
        if eval.use_plain(&error, &shared.scripts) {
            ready.push(eval);
            continue;
        }
        for member in eval.members {
            member.fail(copy(&error));
        }
    }
    ready
}

/// Tells each member what its group came to. What did not run, and may in another try, is returned.
fn tell_all(
    shared: &Shared,
    evals: Vec<Eval>,
    replies: Vec<Value>,
    life: &Life,
    is_last: bool,
) -> Vec<Eval> {
    let generation = life.generation();
    let mut again = Vec::new();
    let mut handed_over = Vec::new();
    let mut replies = replies.into_iter();
    for mut eval in evals {
        if eval.is_asking {
            replies.next();
        }
        let error = match replies.next() {
            Some(Value::BulkString(told)) if eval.is_hot => {
                handed_over.extend(tell_hot(shared, eval.members, &told, is_last));
                continue;
            }
            Some(Value::Array(told)) if told.len() == eval.members.len() => {
                let is_alone = eval.members.len() == 1;
                let mut full = Members::new();
                for (member, reply) in eval.members.into_iter().zip(told) {
                    match reply::error_of(&reply) {
                        None => shared.tell(member, Reply::Whole(reply)),
                        // It has done nothing; alone, it may only have to look.
                        Some(error) if !is_last && !is_alone && error.code() == Some("OOM") => {
                            full.push(member);
                        }
                        Some(error) => {
                            member.fail(shared.pool.failed(OPERATION, generation, error));
                        }
                    }
                }
                eval.members = full;
                again.extend(eval.split());
                continue;
            }
            Some(Value::ServerError(error)) => RedisError::from(error),
            _ => (
                redis::ErrorKind::UnexpectedReturnType,
                "not a batch's reply",
            )
                .into(),
        };
        eval.is_unknown = is_unknown_script(&error);
        if !is_last && eval.is_unknown {
            again.push(eval);
            continue;
        }
        if !is_last && is_for_one(&error) && eval.members.len() > 1 {
            again.extend(eval.split());
            continue;
        }
        let error = shared.pool.failed(OPERATION, generation, error);
        if !is_last && eval.use_plain(&error, &shared.scripts) {
            again.push(eval);
            continue;
        }
        for member in eval.members {
            member.fail(copy(&error));
        }
    }
    again.extend(eval::evals(handed_over, &shared.scripts));
    again
}

/// Tells each member what the hot script decided for its group. Those that it handed over are returned.
fn tell_hot(shared: &Shared, members: Members, told: &[u8], is_last: bool) -> Vec<Member> {
    let mut reader = hot::Reader::new(told);
    let mut handed_over = Vec::new();
    for mut member in members {
        let outcome = reader.as_mut().and_then(|reader| reader.next(&member.call));
        match outcome {
            Some(Outcome::Decided(decided)) => shared.tell(member, Reply::Hot(decided)),
            Some(Outcome::HandedOver) if !is_last => {
                member.is_handed_over = true;
                handed_over.push(member);
            }
            // Never the last word of a server that keeps its scripts.
            Some(Outcome::HandedOver) => {
                member.fail(reply::not_understood().with_effect(Effect::No));
            }
            None => {
                // Nor is what follows.
                reader = None;
                member.fail(reply::not_understood());
            }
        }
    }
    handed_over
}

/// Whether a call was refused, before it ran, for what may be the keys of one of its groups: the user may not use one of them, or
/// they stand on two nodes while their slot moves, or in two slots of a server that has some.
fn is_for_one(error: &RedisError) -> bool {
    use ServerErrorKind::{Ask, CrossSlot, NoPerm, TryAgain};
    matches!(
        server_error(error),
        Some(Ask | CrossSlot | NoPerm | TryAgain)
    )
}

fn fail_all(shared: &Shared, evals: Vec<Eval>, generation: u64, error: &RedisError) {
    let error = shared.pool.failed(OPERATION, generation, error.clone());
    for member in evals.into_iter().flat_map(|eval| eval.members) {
        member.fail(copy(&error));
    }
}
