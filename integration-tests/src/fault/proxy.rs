//! A network between a client and a server on loopback, as it is elsewhere: slow, held up, frozen, cut, forgotten.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, sleep_until};

use super::{Aborts, accept, on_from};

/// Forwards what it is sent to a server, and the answers back. A packet is what was read at once; each connection keeps its
/// packets' order, and packets that are under way arrive even if their sender has left. Ends with the last clone's drop.
#[derive(Clone, Debug)]
pub struct Proxy {
    port: u16,
    network: Arc<Network>,
    _listener: Arc<Aborts>,
}

#[derive(Debug)]
struct Network {
    faults: Mutex<Faults>,
    frozen: watch::Sender<bool>,
    /// Counted up to end every connection that is older.
    cut: watch::Sender<u64>,
    /// Counted up to forget every connection that is older.
    forgotten: AtomicU64,
    /// How many connections there were.
    connected: AtomicU64,
    /// Cloned for each request that is under way.
    under_way: Arc<()>,
}

#[derive(Debug, Default)]
struct Faults {
    delay: Duration,
    /// The next request that holds these bytes is held back for so long.
    hold: Option<(Vec<u8>, Duration)>,
    /// One request of so many, at random, is held back for up to so long.
    random: Option<(u64, Duration)>,
    seed: u64,
    held: u64,
    /// Bytes arrive one by one, so long apart.
    drip: Option<Duration>,
    /// What arrives of a direction is lost.
    loses: Loses,
    /// A connection ends with so many bytes of a reply.
    cut_after: Option<usize>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Loses {
    requests: bool,
    replies: bool,
}

impl Proxy {
    /// In front of a server at a loopback port. Needs a tokio runtime.
    pub async fn start(server: u16) -> Self {
        let network = Arc::new(Network {
            faults: Mutex::default(),
            frozen: watch::Sender::new(false),
            cut: watch::Sender::new(0),
            forgotten: AtomicU64::new(0),
            connected: AtomicU64::new(0),
            under_way: Arc::default(),
        });
        let joining = network.clone();
        let (port, listener) = accept(move |client| joining.clone().join(client, server)).await;
        Self {
            port,
            network,
            _listener: Arc::new(listener),
        }
    }

    /// Where clients connect to.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Every packet takes so long, each way.
    pub fn delay(&self, by: Duration) {
        self.network.faults.lock().unwrap().delay = by;
    }

    /// Holds the next request back that holds these bytes; others overtake it on other connections.
    pub fn hold_next(&self, holding: &[u8], by: Duration) {
        self.network.faults.lock().unwrap().hold = Some((holding.to_vec(), by));
    }

    /// From now on holds back one request of so many, at random, for up to so long. 0 holds none.
    pub fn hold_at_random(&self, one_of: u64, longest: Duration, seed: u64) {
        let mut faults = self.network.faults.lock().unwrap();
        faults.random = (one_of > 0).then_some((one_of, longest));
        faults.seed = seed;
    }

    /// How many requests were held back.
    pub fn held(&self) -> u64 {
        self.network.faults.lock().unwrap().held
    }

    /// How many requests were read from clients, and have not reached the server yet.
    pub fn under_way(&self) -> usize {
        Arc::strong_count(&self.network.under_way) - 1
    }

    /// Nothing passes any more, in either direction, until it is thawed.
    pub fn freeze(&self) {
        self.network.frozen.send_replace(true);
    }

    /// What was frozen goes on.
    pub fn thaw(&self) {
        self.network.frozen.send_replace(false);
    }

    /// From now on nothing passes on the connections that there are, and nobody is told: as behind a NAT that has dropped its
    /// flows. New ones are as before.
    pub fn forget(&self) {
        self.network.forgotten.fetch_add(1, Ordering::Relaxed);
    }

    /// From now on bytes arrive one by one, so long apart.
    pub fn drip(&self, gap: Option<Duration>) {
        self.network.faults.lock().unwrap().drip = gap;
    }

    /// From now on requests are lost on the way, and nobody is told. What comes after on a connection is of no use: cut them.
    pub fn lose_requests(&self, lose: bool) {
        self.network.faults.lock().unwrap().loses.requests = lose;
    }

    /// From now on requests arrive, and replies are lost on the way.
    pub fn lose_replies(&self, lose: bool) {
        self.network.faults.lock().unwrap().loses.replies = lose;
    }

    /// From now on a connection ends when so many bytes of a reply have passed.
    pub fn cut_replies_after(&self, bytes: Option<usize>) {
        self.network.faults.lock().unwrap().cut_after = bytes;
    }

    /// How many connections there were so far.
    pub fn connected(&self) -> u64 {
        self.network.connected.load(Ordering::Relaxed)
    }

    /// Ends every connection, with what is under way on it.
    pub fn cut(&self) {
        self.network.cut.send_modify(|cut| *cut += 1);
    }
}

impl Network {
    async fn join(self: Arc<Self>, client: TcpStream, server: u16) {
        self.connected.fetch_add(1, Ordering::Relaxed);
        let Some(server) = on_from(&client, server).await else {
            return;
        };
        let mut cut = self.cut.subscribe();
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        tokio::select! {
            _ = cut.changed() => {}
            _ = async {
                tokio::join!(
                    self.forward(from_client, to_server, true),
                    self.forward(from_server, to_client, false),
                )
            } => {}
        }
    }

    /// Forwards one direction until it ends. What was read is delivered, however long that takes.
    async fn forward(&self, mut from: OwnedReadHalf, mut to: OwnedWriteHalf, requests: bool) {
        let (packets, mut under_way) = mpsc::unbounded_channel();
        let since = self.forgotten.load(Ordering::Relaxed);
        let read = async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = from.read(&mut buffer).await {
                let packet = buffer[..length].to_vec();
                let counted = requests.then(|| self.under_way.clone());
                let arrives = Instant::now() + self.delay_of(&packet, requests);
                if packets.send((arrives, packet, counted)).is_err() {
                    break;
                }
            }
        };
        let write = async {
            while let Some((arrives, packet, _counted)) = under_way.recv().await {
                sleep_until(arrives).await;
                let mut frozen = self.frozen.subscribe();
                if self.forgotten.load(Ordering::Relaxed) != since {
                    continue;
                }
                if frozen.wait_for(|frozen| !frozen).await.is_err() {
                    break;
                }
                let Some(passing) = self.spoil(&packet, requests) else {
                    continue;
                };
                if !self.deliver(&mut to, passing).await || passing.len() < packet.len() {
                    break;
                }
            }
            if requests {
                // The server reads what arrived before it learns that the client has left.
                sleep(Duration::from_millis(1)).await;
            }
            let _ = to.shutdown().await;
        };
        tokio::join!(read, write);
    }

    /// What arrives of a packet; `None` if it is lost.
    fn spoil<'a>(&self, packet: &'a [u8], request: bool) -> Option<&'a [u8]> {
        let faults = self.faults.lock().unwrap();
        let is_lost = match request {
            true => faults.loses.requests,
            false => faults.loses.replies,
        };
        let most = faults.cut_after.filter(|_| !request).unwrap_or(usize::MAX);
        (!is_lost).then(|| &packet[..packet.len().min(most)])
    }

    /// Whether it could be delivered.
    async fn deliver(&self, to: &mut OwnedWriteHalf, packet: &[u8]) -> bool {
        let drip = self.faults.lock().unwrap().drip;
        let Some(gap) = drip else {
            return to.write_all(packet).await.is_ok();
        };
        for byte in packet {
            if to.write_all(&[*byte]).await.is_err() {
                return false;
            }
            sleep(gap).await;
        }
        true
    }

    fn delay_of(&self, packet: &[u8], request: bool) -> Duration {
        let mut faults = self.faults.lock().unwrap();
        if !request {
            return faults.delay;
        }
        let found = |bytes: &[u8]| packet.windows(bytes.len().max(1)).any(|part| part == bytes);
        if faults.hold.as_ref().is_some_and(|(bytes, _)| found(bytes)) {
            let held = faults.hold.take().map_or(Duration::ZERO, |(_, by)| by);
            faults.held += 1;
            return faults.delay + held;
        }
        if let Some((one_of, longest)) = faults.random {
            // Splitmix64 (Steele, Lea and Flood, 2014).
            let mut draw = || {
                faults.seed = faults.seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
                let mut z = faults.seed;
                z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
                z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
                z ^ (z >> 31)
            };
            if draw() % one_of == 0 {
                let micros = u64::try_from(longest.as_micros()).unwrap().max(1);
                let held = Duration::from_micros(draw() % micros);
                faults.held += 1;
                return faults.delay + held;
            }
        }
        faults.delay
    }
}
