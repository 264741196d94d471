//! Rate limits over HTTP: a tower layer, response headers and bodies, and the client's identity.
//!
//! - [`RateLimitLayer`] checks limits before a service runs: in axum, hyper, tonic, or any tower stack. A [`Target`] says whom a
//!   request is charged to, or that it is skipped or refused.
//! - [`Responder`] turns a `&Decision` or a `&GroupDecision` into headers and responses, for handlers
//!   that check limits themselves. The layer uses one too, so every 429 has the same headers.
//! - [`HeaderStyle`] selects the headers: `X-RateLimit-*`, the IETF draft's, OpenAI's, `Retry-After`.
//! - [`problem`] has the default bodies, `application/problem+json`; [`RateLimitLayer::refuse_with`] replaces them.
//! - [`ClientAddress`] finds the client behind trusted proxies.
//!
//! # A limited service
//!
//! ```
//! # use limiter_core::{Error, Health};
//! # use limiter_core::limit::{Capabilities, Group, Issuer, LimitStore, Observed, Source, Verdict};
//! # use std::sync::atomic::{AtomicU64, Ordering};
//! # #[derive(Debug, Default)]
//! # struct Store(AtomicU64);
//! # #[async_trait::async_trait]
//! # impl LimitStore for Store {
//! #     fn capabilities(&self) -> Capabilities {
//! #         Capabilities::default()
//! #     }
//! #     fn is_issuer(&self, _: Issuer) -> bool {
//! #         false
//! #     }
//! #     fn try_apply_now(&self, group: &Group<'_>, observed: &mut [Observed]) -> Option<Result<(), Error>> {
//! #         let wait = std::time::Duration::from_secs(2_520);
//! #         let (used, limit) = (self.0.load(Ordering::SeqCst), group.steps()[0].policy.quota().capacity());
//! #         observed[0] = if used < limit {
//! #             self.0.store(used + 1, Ordering::SeqCst);
//! #             Observed::new(Verdict::Admit, used + 1, wait, Source::Memory)
//! #         } else {
//! #             Observed::new(Verdict::Deny { retry_after: wait }, used, wait, Source::Memory)
//! #         };
//! #         Some(Ok(()))
//! #     }
//! #     async fn apply(&self, _: &Group<'_>, _: &mut [Observed]) -> Result<(), Error> {
//! #         unreachable!("it always answers at once")
//! #     }
//! #     async fn health(&self) -> Health {
//! #         Health::new("memory", true, None, "in this process")
//! #     }
//! # }
//! # let store = Store::default();
//! # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(async {
//! use bytes::Bytes;
//! use http::{Request, Response};
//! use limiter_core::limit::{Limiter, Period, Policy, Quota};
//! use limiter_http::{Peer, RateLimitLayer};
//! use std::convert::Infallible;
//! use http_body_util::{BodyExt, Full};
//! use std::net::SocketAddr;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! let policy = Policy::new("cover-letter", Quota::fixed_window(1, Period::HOUR)?)?;
//! let service = ServiceBuilder::new()
//!     .layer(RateLimitLayer::new(Limiter::new(store), policy))
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, Infallible>(Response::new(Full::<Bytes>::from("Dear Sir or Madam")))
//!     }));
//! // What a server does with each request of a connection.
//! let request = || {
//!     let peer: SocketAddr = ([203, 0, 113, 9], 50_000).into();
//!     Request::builder().extension(Peer::Tcp(peer)).body(()).unwrap()
//! };
//!
//! let first = service.clone().oneshot(request()).await.unwrap();
//! assert_eq!(first.status(), 200);
//! assert_eq!(first.headers()["x-ratelimit-remaining"], "0");
//!
//! let second = service.oneshot(request()).await.unwrap();
//! assert_eq!(second.status(), 429);
//! assert_eq!(second.headers()["retry-after"], "2520");
//! let body = second.into_body().collect().await.unwrap().to_bytes();
//! let body = std::str::from_utf8(&body).unwrap();
//! assert!(body.contains("cover-letter is limited to 1 per hour; try again in 42 minutes"));
//! # Ok::<(), Error>(())
//! # }).unwrap();
//! ```
//!
//! # Features
//!
//! | Feature | Default | What it adds |
//! |---|---|---|
//! | `axum` | | the peer is found in axum's `ConnectInfo` and `MockConnectInfo`; [`Peer`] is a connect info for TCP and Unix listeners |
//! | `grpc` | | the peer is found in what tonic's server inserts; `grpc::refusal` answers with a gRPC status |
//!
//! The layer itself works with axum and tonic without them.
//!
//! # External types
//!
//! Those of `http`, `http-body`, `tower-layer` and `tower-service` are in signatures, and `http_body_util::Full<bytes::Bytes>` as
//! the body of default refusals: they are what services are made of. With `grpc`, `http_body_util::Empty`.

mod client;
mod decided;
#[cfg(feature = "grpc")]
pub mod grpc;
mod headers;
mod layer;
pub mod problem;
mod refusal;
mod responder;
mod service;
mod settle;
mod target;

pub use client::{Client, ClientAddress, Peer};
pub use decided::Decided;
pub use headers::{HeaderStyle, IetfDraft, ResetFormat};
pub use layer::RateLimitLayer;
pub use problem::{Asked, Problem, ProblemType, UnavailableStatus};
pub use refusal::Refusal;
pub use responder::{ForeignHeaders, Responder};
pub use service::RateLimit;
pub use settle::{Finished, RateLimitBody};
pub use target::Target;
