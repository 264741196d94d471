//! A store whose time a test moves, one that is away, and an HTTP client.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use bytes::Bytes;
use http::request::Parts;
use http::{HeaderMap, Request, Response};
use http_body::Body;
use http_body_util::{BodyExt, Empty, Full};
use hyper_util::rt::TokioIo;
use limiter_core::clock::{Clock, ManualClock, Timestamp};
use limiter_core::limit::algorithm::State;
use limiter_core::limit::{
    Capabilities, Group, Issuer, LimitStore, Limiter, MapStates, Observed, Period, Policy, Quota,
    apply_group,
};
use limiter_core::{Error, ErrorKind, Health};
use limiter_http::{RateLimitLayer, Responder, Target};
use serde_json::Value;
use tokio::net::TcpStream;
use tower::{Layer, ServiceExt, service_fn};

/// 2023-11-14T22:13:20Z.
pub(crate) const NOW: Timestamp = Timestamp::from_micros(1_700_000_000_000_000);

pub(crate) fn hourly(name: &str, limit: u64) -> Policy {
    Policy::new(name, Quota::fixed_window(limit, Period::HOUR).unwrap()).unwrap()
}

/// A limiter and a responder that read one clock.
pub(crate) struct World {
    pub(crate) clock: ManualClock,
    pub(crate) limiter: Limiter,
    pub(crate) responder: Responder,
    states: Arc<Mutex<HashMap<String, State>>>,
}

impl World {
    pub(crate) fn new() -> Self {
        let clock = ManualClock::at(NOW);
        let store = MapStore {
            clock: clock.clone(),
            states: Arc::default(),
        };
        Self {
            states: Arc::clone(&store.states),
            limiter: Limiter::new(store),
            responder: Responder::default().clock(clock.clone()),
            clock,
        }
    }

    /// The keys that were charged, in order.
    pub(crate) fn keys(&self) -> Vec<String> {
        let states = self.states.lock().unwrap();
        let mut keys: Vec<_> = states.keys().cloned().collect();
        keys.sort();
        keys
    }
}

#[derive(Debug)]
struct MapStore {
    clock: ManualClock,
    states: Arc<Mutex<HashMap<String, State>>>,
}

#[async_trait]
impl LimitStore for MapStore {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        issuer == Issuer::named("test")
    }

    fn try_apply_now(&self, _: &Group<'_>, _: &mut [Observed]) -> Option<Result<(), Error>> {
        // As a remote store: the layer has to await the answer.
        None
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        tokio::task::yield_now().await;
        let mut states = self.states.lock().unwrap();
        apply_group(
            group,
            &mut MapStates::new(group, &mut states, Issuer::named("test")),
            self.clock.now(),
            observed,
        )
    }

    async fn health(&self) -> Health {
        Health::new("map", true, None, "in this test")
    }
}

/// A store that only fails.
#[derive(Debug)]
pub(crate) struct Away(pub(crate) ErrorKind);

#[async_trait]
impl LimitStore for Away {
    fn capabilities(&self) -> Capabilities {
        Capabilities::ALL
    }

    fn is_issuer(&self, issuer: Issuer) -> bool {
        issuer == Issuer::named("test")
    }

    fn try_apply_now(&self, _: &Group<'_>, _: &mut [Observed]) -> Option<Result<(), Error>> {
        None
    }

    async fn apply(&self, _: &Group<'_>, _: &mut [Observed]) -> Result<(), Error> {
        Err(Error::new(
            self.0,
            "limit.apply",
            "redis://10.0.0.5 said no",
        ))
    }

    async fn health(&self) -> Health {
        Health::new("away", false, None, "not there")
    }
}

/// A GET over a connection of its own.
pub(crate) async fn get(server: SocketAddr, path: &str, headers: HeaderMap) -> Response<String> {
    let stream = TcpStream::connect(server).await.unwrap();
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .unwrap();
    let driver = tokio::spawn(connection);
    let mut request = Request::get(path).body(Empty::<Bytes>::new()).unwrap();
    *request.headers_mut() = headers;
    request
        .headers_mut()
        .insert("host", server.to_string().parse().unwrap());
    let (parts, body) = sender.send_request(request).await.unwrap().into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    drop(sender);
    driver.await.unwrap().unwrap();
    Response::from_parts(parts, String::from_utf8(body.to_vec()).unwrap())
}

/// A response with its whole body.
pub(crate) async fn read<B>(response: Response<B>) -> Response<String>
where
    B: Body<Data = Bytes>,
    B::Error: std::fmt::Debug,
{
    let (parts, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Response::from_parts(parts, String::from_utf8(body.to_vec()).unwrap())
}

/// A request from an address.
pub(crate) fn from_client(peer: &str) -> Request<()> {
    let peer: SocketAddr = peer.parse().unwrap();
    let peer = limiter_http::Peer::Tcp(peer);
    Request::builder().extension(peer).body(()).unwrap()
}

/// A request of a user, and the key function that finds it.
pub(crate) fn from_user(user: &str) -> Request<()> {
    Request::builder().header("x-user", user).body(()).unwrap()
}

/// Nobody without the header.
pub(crate) fn user(request: &Parts) -> Option<Target> {
    let user = request.headers.get("x-user")?.to_str().ok()?;
    Some(Target::new([user]))
}

/// Sends a request through a layer around a service that greets.
pub(crate) async fn through<B>(layer: &RateLimitLayer<B>, request: Request<()>) -> Response<String>
where
    B: Body<Data = Bytes> + 'static,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let greet = service_fn(|_: Request<()>| async {
        Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("hello")))
    });
    read(layer.layer(greet).oneshot(request).await.unwrap()).await
}

pub(crate) fn header<'a, B>(response: &'a Response<B>, name: &str) -> Option<&'a str> {
    response
        .headers()
        .get(name)
        .map(|value| value.to_str().unwrap())
}

/// A3: what every 429 carries. Gives the body.
pub(crate) fn assert_429(response: &Response<String>) -> Value {
    assert_eq!(response.status(), 429, "{response:?}");
    for name in [
        "retry-after",
        "x-ratelimit-limit",
        "x-ratelimit-remaining",
        "x-ratelimit-reset",
    ] {
        let text = header(response, name).unwrap_or_else(|| panic!("{name} is missing"));
        assert!(text.parse::<u64>().is_ok(), "{name}: {text}");
    }
    assert_eq!(
        header(response, "content-type"),
        Some("application/problem+json")
    );
    assert_eq!(header(response, "cache-control"), Some("no-store"));
    serde_json::from_str(response.body()).unwrap()
}
