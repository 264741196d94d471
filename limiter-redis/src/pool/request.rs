//! What is sent in a call of its own, beside the batches.

use std::io;
use std::sync::Arc;

use redis::aio::MultiplexedConnection;
use redis::{Arg, Cmd, RedisError, Script, ServerErrorKind, ToRedisArgs, Value};

use crate::connect::send_all;
use crate::error::server_error;

pub(crate) enum Request {
    Command(Cmd),
    /// All at once, for a reply with an entry for each.
    Transaction(Vec<Cmd>),
    /// By its hash; loaded and sent again if the server does not know it, which is safe because it
    /// did not run.
    Script(Arc<Script>, Cmd),
    /// Only loads it.
    Load(Arc<Script>),
}

impl Request {
    pub(crate) fn script(script: &Arc<Script>, keys: &[String], arguments: &[&[u8]]) -> Self {
        Self::Script(script.clone(), evalsha(script, keys, arguments))
    }

    /// How many commands it is.
    pub(crate) fn commands(&self) -> usize {
        match self {
            // MULTI and EXEC are two.
            Self::Transaction(commands) => commands.len() + 2,
            Self::Command(_) | Self::Script(..) | Self::Load(_) => 1,
        }
    }

    /// About how many bytes it takes.
    pub(crate) fn size(&self) -> usize {
        let of = |command: &Cmd| -> usize {
            let arguments = command.args_iter();
            arguments
                .map(|argument| match argument {
                    Arg::Simple(bytes) => bytes.len(),
                    _ => 0,
                })
                .sum()
        };
        match self {
            Self::Command(command) | Self::Script(_, command) => of(command),
            Self::Transaction(commands) => commands.iter().map(of).sum(),
            Self::Load(_) => 0,
        }
    }

    pub(crate) async fn send(self, io: &mut MultiplexedConnection) -> Result<Value, RedisError> {
        match self {
            Self::Command(command) => command.query_async(io).await,
            Self::Transaction(commands) => transaction(commands, io).await,
            Self::Script(script, command) => match command.query_async(io).await {
                Err(error) if is_unknown_script(&error) => {
                    script.load_async(io).await?;
                    command.query_async(io).await
                }
                sent => sent,
            },
            Self::Load(script) => script.load_async(io).await.map(|_| Value::Okay),
        }
    }
}

/// The library's own takes MULTI for granted: where a server refuses that, it loses count of the replies.
async fn transaction(
    commands: Vec<Cmd>,
    connection: &mut MultiplexedConnection,
) -> Result<Value, RedisError> {
    let commands = [redis::cmd("MULTI")].into_iter().chain(commands);
    let commands = commands.chain([redis::cmd("EXEC")]);
    let mut replies = send_all(connection, commands).await?;
    let executed = replies.pop().unwrap_or(Value::Nil);
    // Why it was not, if so; EXEC only says that it was not.
    for reply in replies {
        reply.extract_error()?;
    }
    match executed {
        // Redis itself says EXECABORT. Where EXEC was not let through, what others send is queued behind it for ever.
        Value::ServerError(error) if error.code() != "EXECABORT" => {
            let what = format!("EXEC was refused: {error}");
            Err(io::Error::new(io::ErrorKind::ConnectionAborted, what).into())
        }
        executed => executed.extract_error(),
    }
}

/// The call of a script by its hash.
pub(crate) fn evalsha(
    script: &Script,
    keys: &[impl ToRedisArgs],
    arguments: &[impl ToRedisArgs],
) -> Cmd {
    let mut command = redis::cmd("EVALSHA");
    command.arg(script.get_hash()).arg(keys.len());
    command.arg(keys).arg(arguments);
    command
}

pub(crate) fn is_unknown_script(error: &RedisError) -> bool {
    matches!(server_error(error), Some(ServerErrorKind::NoScript))
}
