//! What the hot script can do at most: asked in calls as large as those of the direct run, from one connection a server that always
//! has calls under way, for callers who wait for their answers as others do. No lanes, deadlines, breaker or counts: only a queue.

use std::collections::HashMap;
use std::sync::Arc;

use limiter_core::Key;
use limiter_redis::{hot_script, slot_of};
use redis::aio::MultiplexedConnection;
use redis::{Cmd, Pipeline, Script, Value};
use tokio::sync::{Semaphore, mpsc, oneshot};

/// How many pipelines are under way at once.
const DEPTH: usize = 4;

/// A bucket of these crates' own numbers: capacity, gain, token and unit (us).
const BUCKET: [u64; 4] = [1_000_000_000, 1, 1, 1];

struct Waiting {
    key: usize,
    answer: oneshot::Sender<bool>,
}

pub(crate) struct Ceiling {
    keys: Arc<Vec<Key>>,
    slots: Arc<Vec<u16>>,
    /// By slot, which server.
    home: Vec<usize>,
    servers: Vec<mpsc::UnboundedSender<Waiting>>,
}

impl Ceiling {
    /// Over connections to servers; `home` says which one has a slot, and `most` how many checks a pipeline has.
    pub(crate) async fn new(
        mut connections: Vec<MultiplexedConnection>,
        keys: Vec<Key>,
        home: impl Fn(u16) -> usize,
        most: usize,
    ) -> Self {
        let is_cluster = connections.len() > 1;
        let script = Script::new(&hot_script());
        for connection in &mut connections {
            let loaded = script.load_async(connection).await;
            loaded.expect("a server that takes scripts");
        }
        // One server alone runs any keys in one call.
        let slot = |key: &Key| if is_cluster { slot_of(key.as_str()) } else { 0 };
        let slots: Arc<Vec<u16>> = Arc::new(keys.iter().map(slot).collect());
        let keys = Arc::new(keys);
        let servers = connections.into_iter().map(|connection| {
            let (sender, queue) = mpsc::unbounded_channel();
            let driver = Driver {
                connection,
                hash: script.get_hash().to_owned(),
                keys: keys.clone(),
                slots: slots.clone(),
            };
            tokio::spawn(driver.run(queue, most));
            sender
        });
        let servers = servers.collect();
        let home = (0..16_384).map(home).collect();
        Self {
            keys,
            slots,
            home,
            servers,
        }
    }

    pub(crate) async fn ask(&self, key: usize) -> bool {
        let (answer, told) = oneshot::channel();
        let key = key % self.keys.len();
        let server = &self.servers[self.home[usize::from(self.slots[key])]];
        server.send(Waiting { key, answer }).is_ok() && told.await.unwrap_or(false)
    }
}

#[derive(Clone)]
struct Driver {
    connection: MultiplexedConnection,
    hash: String,
    keys: Arc<Vec<Key>>,
    slots: Arc<Vec<u16>>,
}

impl Driver {
    async fn run(self, mut queue: mpsc::UnboundedReceiver<Waiting>, most: usize) {
        let under_way = Arc::new(Semaphore::new(DEPTH));
        loop {
            let Ok(permit) = under_way.clone().acquire_owned().await else {
                return;
            };
            let mut batch = Vec::with_capacity(most);
            if queue.recv_many(&mut batch, most).await == 0 {
                return;
            }
            let driver = self.clone();
            tokio::spawn(async move {
                driver.send(batch).await;
                drop(permit);
            });
        }
    }

    async fn send(mut self, batch: Vec<Waiting>) {
        let mut calls: Vec<Vec<Waiting>> = Vec::new();
        let mut of_slot: HashMap<u16, usize> = HashMap::new();
        for waiting in batch {
            let call = *of_slot
                .entry(self.slots[waiting.key])
                .or_insert_with(|| calls.len());
            if call == calls.len() {
                calls.push(Vec::new());
            }
            calls[call].push(waiting);
        }
        let mut pipeline = Pipeline::with_capacity(calls.len());
        for call in &calls {
            pipeline.add_command(self.command(call));
        }
        let told = self
            .connection
            .send_packed_commands(&pipeline, 0, calls.len());
        let told = told.await.unwrap_or_default();
        for (call, told) in calls.into_iter().zip(told) {
            // The time, and a group at least.
            let is_decided = matches!(&told, Value::BulkString(told) if told.len() > 7);
            for waiting in call {
                let _ = waiting.answer.send(is_decided);
            }
        }
    }

    /// See `lua/hot/begin.lua` in `limiter-redis`. The same key twice is two keys here.
    fn command(&self, call: &[Waiting]) -> Cmd {
        let number = |value: u64| value.to_be_bytes()[1..].to_vec();
        let place = u16::try_from(1 + 13 * call.len()).expect("a call that is not too long");
        let mut command = redis::cmd("EVALSHA");
        command.arg(&self.hash).arg(call.len());
        let mut text = Vec::with_capacity(usize::from(place) + 28);
        for (index, waiting) in (1_u16..).zip(call) {
            command.arg(self.keys[waiting.key].as_str());
            text.extend_from_slice(&[0, 0]);
            text.extend_from_slice(&index.to_be_bytes());
            text.extend_from_slice(&place.to_be_bytes());
            text.extend_from_slice(&number(1));
        }
        text.push(3);
        text.extend(BUCKET.into_iter().flat_map(number));
        command.arg(3_600_000).arg(text);
        command
    }
}
