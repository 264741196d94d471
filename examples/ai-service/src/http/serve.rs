//! Connections: so many at once, time limits on slow senders and slow readers, and a stop that lets open requests end.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::extract::Request;
use axum::http::HeaderMap;
use axum::serve::Listener;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::{GracefulConnection, GracefulShutdown};
use hyper_util::service::TowerToHyperService;
use limiter::http::{Client, ClientAddress, Peer};
use limiter::limiter_core::LogLimit;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::Semaphore;
use tokio_io_timeout::TimeoutStream;
use tower::ServiceExt;

use crate::settings::Connections;

/// How long a connection may be without a whole request header, idle or slow: who sends a byte now and
/// then keeps no connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// How long a client may read nothing of its answer.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);

/// The longest header, and how much of a body is read ahead: what each connection may hold.
const BUFFER: usize = 8 * 1024;

/// Serves until `stop`, then until the open requests are answered. Who comes when all places are taken waits; who has as many as an
/// address may have is cut.
pub(crate) async fn serve(
    mut listener: TcpListener,
    router: Router,
    most: Connections,
    clients: ClientAddress,
    stop: impl Future<Output = ()>,
) {
    warn_of_few_files(most.all);
    let graceful = GracefulShutdown::new();
    let places = Arc::new(Semaphore::new(most.all));
    let (addresses, log) = (Addresses::default(), LogLimit::default());
    let mut stop = pin!(stop);
    loop {
        let next = async {
            // It is never closed.
            let place = places.clone().acquire_owned().await.ok();
            // axum's: waits out what a full table of files makes fail.
            (place, Listener::accept(&mut listener).await)
        };
        let (place, (stream, peer)) = tokio::select! {
            next = next => next,
            () = &mut stop => break,
        };
        // Without proxies, which is where it counts, that is the address of the connection.
        let client = clients.resolve(peer, &HeaderMap::new());
        let Some(of_address) = addresses.take(client, most.of_an_address) else {
            if let Some(more) = log.pass("cut") {
                tracing::warn!(
                    more,
                    "an address has more connections than MAX_CONNECTIONS_PER_ADDRESS; those beyond are cut. If a proxy stands in front, set TRUSTED_PROXIES or PROXY_HOPS"
                );
            }
            continue;
        };
        let connection = connection(stream, Peer::Tcp(peer), router.clone());
        let connection = graceful.watch(connection);
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
            drop((place, of_address));
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

/// How many connections each client has: of IPv6 a network, which has any number of addresses.
#[derive(Clone, Default)]
struct Addresses(Arc<Mutex<HashMap<Client, usize>>>);

/// One of them.
struct OfAddress {
    addresses: Addresses,
    client: Client,
}

impl Addresses {
    /// A place for one more, if there is one.
    fn take(&self, client: Client, most: Option<usize>) -> Option<OfAddress> {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = counts.entry(client).or_default();
        if most.is_some_and(|most| *count >= most) {
            return None;
        }
        *count += 1;
        let addresses = self.clone();
        Some(OfAddress { addresses, client })
    }
}

impl Drop for OfAddress {
    fn drop(&mut self) {
        let mut counts = self
            .addresses
            .0
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Entry::Occupied(mut count) = counts.entry(self.client) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

/// Each connection is an open file, of which Linux tells how many a process may have.
fn warn_of_few_files(connections: usize) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"));
    let files: Option<usize> = files.and_then(|line| line.split_whitespace().next()?.parse().ok());
    if let Some(files) = files.filter(|files| *files < connections + OTHER_FILES) {
        tracing::warn!(
            files,
            connections,
            "this process may open fewer files than it may have connections: raise it (ulimit -n), or lower MAX_CONNECTIONS"
        );
    }
}

/// Connections to Redis and to the model, logs and files.
const OTHER_FILES: usize = 100;

fn connection<I: AsyncRead + AsyncWrite + Send + 'static>(
    io: I,
    peer: Peer,
    router: Router,
) -> impl GracefulConnection<Error = hyper::Error> {
    let mut io = TimeoutStream::new(io);
    io.set_write_timeout(Some(WRITE_TIMEOUT));
    let io: Pin<Box<TimeoutStream<I>>> = Box::pin(io);
    let service = router.map_request(move |mut request: Request<Incoming>| {
        request.extensions_mut().insert(peer);
        request
    });
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .max_buf_size(BUFFER)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(service))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::http::body;
    use crate::http::room::Room;
    use axum::body::Body;
    use axum::routing::{get, post};
    use std::net::IpAddr;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Instant, sleep, timeout};

    fn router() -> Router {
        let read = async |body: Body| {
            let read = body::read(&Room::default(), "a", body, body::TIMEOUT).await;
            read.map(|_| "read")
        };
        let large = async || "x".repeat(1 << 20);
        Router::new()
            .route("/", post(read))
            .route("/large", get(large))
    }

    fn peer() -> Peer {
        Peer::Unix
    }

    /// What comes back for `sent`, to which nothing follows, and after how long.
    async fn reply_to(sent: &str) -> (String, Duration) {
        let (mut client, server) = tokio::io::duplex(4096);
        let task = tokio::spawn(connection(server, peer(), router()));
        let start = Instant::now();
        client.write_all(sent.as_bytes()).await.unwrap();
        let mut reply = String::new();
        let ended = client.read_to_string(&mut reply);
        timeout(Duration::from_secs(3_600), ended)
            .await
            .expect("the connection stays open")
            .unwrap();
        let _ = task.await.unwrap();
        (reply, start.elapsed())
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_header_does_not_keep_a_connection() {
        for sent in ["", "POST / HTTP/1.1\r\nHost: a\r\nX-"] {
            let (_, elapsed) = reply_to(sent).await;
            assert!(elapsed >= HEADER_TIMEOUT && elapsed < 2 * HEADER_TIMEOUT);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn half_a_body_is_a_problem() {
        let (reply, elapsed) =
            reply_to("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\n{").await;
        assert!(reply.starts_with("HTTP/1.1 408 "), "{reply}");
        assert!(reply.contains("application/problem+json"), "{reply}");
        assert!(elapsed >= body::TIMEOUT && elapsed < body::TIMEOUT + 2 * HEADER_TIMEOUT);
    }

    #[tokio::test(start_paused = true)]
    async fn a_whole_request_is_answered_at_once() {
        let (reply, _) = reply_to(
            "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nConnection: close\r\n\r\n{",
        )
        .await;
        assert!(reply.starts_with("HTTP/1.1 200 "), "{reply}");
    }

    /// Known fault: who reads nothing of an answer kept it, and its connection, for ever.
    #[tokio::test(start_paused = true)]
    async fn who_reads_nothing_is_cut() {
        let (mut client, server) = tokio::io::duplex(4096);
        let task = tokio::spawn(connection(server, peer(), router()));
        let start = Instant::now();
        client
            .write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n")
            .await
            .unwrap();
        let ended = timeout(Duration::from_secs(3_600), task).await.unwrap();
        assert!(ended.unwrap().is_err());
        assert!(start.elapsed() >= WRITE_TIMEOUT && start.elapsed() < 2 * WRITE_TIMEOUT);

        // Who reads slowly, but reads, has all of it.
        let (mut client, server) = tokio::io::duplex(64 * 1024);
        let task = tokio::spawn(connection(server, peer(), router()));
        let request = b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
        client.write_all(request).await.unwrap();
        let mut read = 0;
        let mut part = vec![0; 64 * 1024];
        loop {
            // Of paused time: the pace of a slow reader.
            sleep(WRITE_TIMEOUT / 2).await;
            match client.read(&mut part).await.unwrap() {
                0 => break,
                more => read += more,
            }
        }
        assert!(read > 1 << 20, "{read}");
        assert!(task.await.unwrap().is_ok());
    }

    /// Who comes when all places are taken waits for one.
    #[tokio::test]
    async fn connections_are_capped() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
        let most = Connections {
            all: 2,
            of_an_address: None,
        };
        let clients = ClientAddress::default();
        let serving = tokio::spawn(serve(listener, router(), most, clients, async {
            let _ = stopped.await;
        }));
        let connect = || tokio::net::TcpStream::connect(address);
        let mut held = [connect().await.unwrap(), connect().await.unwrap()];
        let request = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        let mut reply = [0; 12];
        for stream in &mut held {
            stream.write_all(request).await.unwrap();
            stream.read_exact(&mut reply).await.unwrap();
        }
        let mut third = connect().await.unwrap();
        third.write_all(request).await.unwrap();
        // Long for an answer that takes microseconds, and nothing else shows that none comes.
        let early = timeout(Duration::from_millis(200), third.read_exact(&mut reply)).await;
        assert!(early.is_err(), "it is not served");
        let [first, _second] = held;
        drop(first);
        third.read_exact(&mut reply).await.unwrap();
        assert_eq!(&reply, b"HTTP/1.1 200");
        drop(third);
        let _ = stop.send(());
        drop(_second);
        serving.await.unwrap();
    }

    /// Known fault: one address could take all places.
    #[tokio::test]
    async fn an_address_has_so_many_connections() {
        let addresses = Addresses::default();
        let address = |last: u8| Client::from(IpAddr::from([203, 0, 113, last]));
        let network = |text: &str| Client::from(text.parse::<IpAddr>().unwrap());
        let held = [(); 2].map(|()| addresses.take(address(1), Some(2)));
        assert!(held.iter().all(Option::is_some));
        assert!(addresses.take(address(1), Some(2)).is_none());
        assert!(
            addresses.take(address(2), Some(2)).is_some(),
            "another address"
        );
        assert!(addresses.take(address(1), None).is_some(), "no bound");
        let of_network = addresses.take(network("2001:db8::1"), Some(1)).unwrap();
        assert!(
            addresses.take(network("2001:db8::2"), Some(1)).is_none(),
            "of one network"
        );
        drop((held, of_network));
        assert!(
            addresses.0.lock().unwrap().is_empty(),
            "nothing is kept of who has left"
        );
        assert!(addresses.take(address(1), Some(2)).is_some());
    }
}
