//! Whether a server answers, for health checks: one PING a second at most, on a connection of its own, so that whoever may ask for
//! health takes nothing from the checks.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use redis::RedisError;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout_at};

use crate::pool::connection::{Connection, Origin};

/// How long an answer is everybody's who asks for health.
pub(super) const AGE: Duration = Duration::from_secs(1);

#[derive(Default)]
pub(crate) struct Pulse(Mutex<State>);

#[derive(Default)]
struct State {
    connection: Option<Connection>,
    /// A connection that is being made; it may take longer than one PING waits.
    connecting: Option<JoinHandle<Result<Connection, RedisError>>>,
    /// The last answer, and when it came.
    last: Option<(Instant, Result<Duration, RedisError>)>,
}

impl Pulse {
    /// How long the server took to answer, so long ago at most; `within` bounds the question.
    pub(crate) async fn ask(
        &self,
        origin: &Arc<Origin>,
        within: Duration,
        age: Duration,
    ) -> Result<Duration, RedisError> {
        // Whoever comes second waits for the first one's answer.
        let mut state = self.0.lock().await;
        if let Some(answer) = state.known(age) {
            return answer;
        }
        let answer = state.ping(origin, Instant::now() + within).await;
        if answer.is_err() {
            state.connection = None;
        }
        state.last = Some((Instant::now(), answer.clone()));
        answer
    }
}

impl State {
    /// The last answer, while it holds: that the server answers, only while it has not hung up since.
    fn known(&self, age: Duration) -> Option<Result<Duration, RedisError>> {
        let (at, answer) = self.last.as_ref()?;
        let is_connected = self.connection.as_ref().is_some_and(Connection::is_usable);
        let holds = at.elapsed() < age && (answer.is_err() || is_connected);
        holds.then(|| answer.clone())
    }

    async fn ping(&mut self, origin: &Arc<Origin>, end: Instant) -> Result<Duration, RedisError> {
        let connection = self.connection.take().filter(Connection::is_usable);
        let connection = match connection {
            Some(connection) => connection,
            None => self.connect(origin, end).await?,
        };
        let mut io = self.connection.insert(connection).io.clone();
        let start = Instant::now();
        match timeout_at(end, redis::cmd("PING").exec_async(&mut io)).await {
            Ok(answer) => answer.map(|()| start.elapsed()),
            Err(_) => Err(late("no answer to PING in time")),
        }
    }

    async fn connect(
        &mut self,
        origin: &Arc<Origin>,
        end: Instant,
    ) -> Result<Connection, RedisError> {
        let connecting = self.connecting.get_or_insert_with(|| {
            let origin = origin.clone();
            tokio::spawn(async move { origin.open().await })
        });
        let connected = timeout_at(end, connecting).await;
        let connected = connected.map_err(|_| late("no connection in time"))?;
        self.connecting = None;
        connected.map_err(|_| late("the runtime has ended"))?
    }
}

fn late(what: &'static str) -> RedisError {
    io::Error::new(io::ErrorKind::TimedOut, what).into()
}
