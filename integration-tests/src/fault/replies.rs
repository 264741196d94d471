//! A server that answers what the test says: a proxy that reads RESP, commands one way and replies the other.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

use tokio::io::{self, AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::mpsc;

use super::{Aborts, accept, on_from};

/// Answers some commands in a server's place. Takes no connections any more after its last clone's drop.
#[derive(Clone, Debug)]
pub struct ReplyProxy {
    port: u16,
    shared: Arc<Shared>,
    _listener: Arc<Aborts>,
}

#[derive(Debug, Default)]
struct Shared {
    rule: Mutex<Option<Rule>>,
    answered: AtomicU64,
    /// What the server answered last to a command.
    last: Mutex<HashMap<String, Vec<u8>>>,
}

#[derive(Clone, Debug)]
struct Rule {
    /// In upper case; none means all.
    commands: Vec<String>,
    answer: Answer,
    /// Whether the server does what it was asked all the same.
    is_done: bool,
}

#[derive(Clone, Debug)]
enum Answer {
    /// Without the `-`.
    Error(String),
    /// What the server answered last.
    Last,
}

/// Where the next reply on a connection comes from.
#[derive(Debug)]
enum Reply {
    /// From the server, to a command of that name.
    Server(String),
    /// This instead of the server's.
    Replaced(Vec<u8>),
    /// The server was not asked.
    Own(Vec<u8>),
}

impl ReplyProxy {
    /// In front of a server at a loopback port. Needs a tokio runtime.
    pub async fn start(server: u16) -> Self {
        let shared = Arc::<Shared>::default();
        let joining = shared.clone();
        let (port, listener) = accept(move |client| joining.clone().join(client, server)).await;
        Self {
            port,
            shared,
            _listener: Arc::new(listener),
        }
    }

    /// Where clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on those commands (all, if none is named) are answered with an error, as `LOADING Redis is loading`, and the
    /// server does not hear of them.
    pub fn refuse(&self, commands: &[&str], error: &str) {
        self.set(commands, Answer::Error(error.to_owned()), false);
    }

    /// From now on the server does what those commands say, and its replies are replaced with an error.
    pub fn spoil(&self, commands: &[&str], error: &str) {
        self.set(commands, Answer::Error(error.to_owned()), true);
    }

    /// From now on those commands are answered as the server has answered them last, and it does not hear of them.
    pub fn repeat(&self, commands: &[&str]) {
        self.set(commands, Answer::Last, false);
    }

    /// From now on the server's own replies arrive.
    pub fn heal(&self) {
        *self.shared.rule.lock().unwrap() = None;
    }

    /// How many commands were not answered by the server.
    pub fn answered(&self) -> u64 {
        self.shared.answered.load(Ordering::Relaxed)
    }

    fn set(&self, commands: &[&str], answer: Answer, is_done: bool) {
        *self.shared.rule.lock().unwrap() = Some(Rule {
            commands: commands.iter().map(|name| name.to_uppercase()).collect(),
            answer,
            is_done,
        });
    }
}

impl Shared {
    async fn join(self: Arc<Self>, client: TcpStream, server: u16) {
        let Some(server) = on_from(&client, server).await else {
            return;
        };
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let (send, expected) = mpsc::unbounded_channel();
        // A side that leaves ends both.
        tokio::select! {
            _ = self.requests(from_client, to_server, send) => {}
            _ = self.replies(from_server, to_client, expected) => {}
        }
    }

    async fn requests(
        &self,
        from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        expected: mpsc::UnboundedSender<Reply>,
    ) -> io::Result<()> {
        let mut from = BufReader::new(from);
        loop {
            let mut frame = Vec::new();
            read_frame(&mut from, &mut frame).await?;
            let reply = self.reply(&frame);
            let is_done = !matches!(reply, Reply::Own(_));
            // The other direction has ended.
            if expected.send(reply).is_err() {
                return Ok(());
            }
            if is_done {
                to.write_all(&frame).await?;
            }
        }
    }

    fn reply(&self, frame: &[u8]) -> Reply {
        let name = command(frame);
        let rule = self.rule.lock().unwrap();
        let is_meant = |rule: &&Rule| rule.commands.is_empty() || rule.commands.contains(&name);
        let Some(rule) = rule.as_ref().filter(is_meant) else {
            return Reply::Server(name);
        };
        let answer = match &rule.answer {
            Answer::Error(error) => format!("-{error}\r\n").into_bytes(),
            Answer::Last => match self.last.lock().unwrap().get(&name) {
                Some(last) => last.clone(),
                None => return Reply::Server(name),
            },
        };
        self.answered.fetch_add(1, Ordering::Relaxed);
        match rule.is_done {
            true => Reply::Replaced(answer),
            false => Reply::Own(answer),
        }
    }

    async fn replies(
        &self,
        from: OwnedReadHalf,
        mut to: OwnedWriteHalf,
        mut expected: mpsc::UnboundedReceiver<Reply>,
    ) -> io::Result<()> {
        let mut from = BufReader::new(from);
        while let Some(reply) = expected.recv().await {
            let mut frame = Vec::new();
            if !matches!(reply, Reply::Own(_)) {
                read_frame(&mut from, &mut frame).await?;
                // A push is no reply: it is sent on, and the reply comes after it.
                while frame.first() == Some(&b'>') {
                    to.write_all(&frame).await?;
                    frame.clear();
                    read_frame(&mut from, &mut frame).await?;
                }
            }
            let frame = match reply {
                Reply::Replaced(answer) | Reply::Own(answer) => answer,
                Reply::Server(name) => {
                    self.last.lock().unwrap().insert(name, frame.clone());
                    frame
                }
            };
            to.write_all(&frame).await?;
        }
        Ok(())
    }
}

/// The name of a command, in upper case.
fn command(frame: &[u8]) -> String {
    let mut lines = frame.split(|byte| *byte == b'\n');
    // `*3`, `$7`, and the name.
    let name = lines.nth(2).unwrap_or_default();
    String::from_utf8_lossy(name.trim_ascii()).to_uppercase()
}

/// Appends one value of RESP2 or RESP3, whole, with all that is in it.
async fn read_frame(
    from: &mut (impl AsyncBufReadExt + Unpin),
    frame: &mut Vec<u8>,
) -> io::Result<()> {
    let mut values = 1_usize;
    while values > 0 {
        values -= 1;
        let start = frame.len();
        if from.read_until(b'\n', frame).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        let (kind, rest) = (frame[start], frame[start + 1..].trim_ascii_end());
        // -1 is null: nothing follows.
        let length = std::str::from_utf8(rest).ok();
        let length = length.and_then(|length| length.parse::<usize>().ok());
        match kind {
            b'$' | b'=' | b'!' => {
                if let Some(length) = length {
                    let end = frame.len();
                    frame.resize(end + length + 2, 0);
                    from.read_exact(&mut frame[end..]).await?;
                }
            }
            b'*' | b'~' | b'>' => values += length.unwrap_or_default(),
            b'%' => values += 2 * length.unwrap_or_default(),
            // Attributes stand before a value.
            b'|' => values += 2 * length.unwrap_or_default() + 1,
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_value_is_read_whole_and_no_further() {
        for value in [
            "+OK\r\n",
            "-ERR unknown\r\n",
            "$5\r\na\r\nbc\r\n",
            "$-1\r\n",
            "*-1\r\n",
            "*2\r\n*1\r\n:1\r\n$0\r\n\r\n",
            "%1\r\n+a\r\n*2\r\n_\r\n#t\r\n",
            "|1\r\n+ttl\r\n:3\r\n,1.5\r\n",
            ">2\r\n+message\r\n=7\r\ntxt:a\r\n\r\n",
        ] {
            let text = format!("{value}+NEXT\r\n");
            let mut from = text.as_bytes();
            let mut frame = Vec::new();
            read_frame(&mut from, &mut frame).await.unwrap();
            assert_eq!(String::from_utf8(frame).unwrap(), value);
        }
        assert_eq!(command(b"*2\r\n$4\r\nPing\r\n$1\r\na\r\n"), "PING");
    }
}
