//! Connections: time limits on slow senders, and a stop that lets open requests end.

use std::pin::pin;
use std::time::Duration;

use axum::Router;
use axum::serve::Listener;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;

/// How long a connection may be without a whole request header, idle or slow: who sends a byte now and
/// then keeps no connection.
const HEADER_TIMEOUT: Duration = Duration::from_secs(30);

/// Serves until `stop`, then until the open requests are answered.
pub(crate) async fn serve(
    mut listener: TcpListener,
    router: Router,
    stop: impl Future<Output = ()>,
) {
    let graceful = GracefulShutdown::new();
    let mut stop = pin!(stop);
    loop {
        let (stream, _peer) = tokio::select! {
            // axum's: waits out what a full table of files makes fail.
            accepted = Listener::accept(&mut listener) => accepted,
            () = &mut stop => break,
        };
        let connection = graceful.watch(connection(stream, router.clone()));
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection ended early");
            }
        });
    }
    drop(listener);
    graceful.shutdown().await;
}

type Connection<I> = http1::Connection<TokioIo<I>, TowerToHyperService<Router>>;

fn connection<I: AsyncRead + AsyncWrite + Unpin + 'static>(io: I, router: Router) -> Connection<I> {
    http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(HEADER_TIMEOUT)
        .serve_connection(TokioIo::new(io), TowerToHyperService::new(router))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::body;
    use axum::body::Body;
    use axum::routing::post;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::{Instant, timeout};

    /// What comes back for `sent`, to which nothing follows, and after how long.
    async fn reply_to(sent: &str) -> (String, Duration) {
        let read = async |body: Body| body::read(body).await.map(|_| "read");
        let router: Router = Router::new().route("/", post(read));
        let (mut client, server) = tokio::io::duplex(4096);
        let task = tokio::spawn(connection(server, router));
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
}
