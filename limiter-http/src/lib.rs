//! What a rate limit says over HTTP: headers and bodies, a tower layer, and whose request it is.
//!
//! - [`RateLimitLayer`] checks limits before a service runs: in axum, plain hyper, or any tower stack.
//! - [`Responder`] turns a `&Decision` or a `&GroupDecision` into headers and responses, for handlers
//!   that check limits themselves. The layer answers through one too, so every 429 looks the same.
//! - [`HeaderStyle`] says which headers: `X-RateLimit-*`, the IETF draft's, OpenAI's, `Retry-After`.
//! - [`problem`] has the bodies: `application/problem+json`.
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
//! use http::{Request, Response};
//! use limiter_core::limit::{Limiter, Period, Policy, Quota};
//! use limiter_http::{PeerAddr, RateLimitLayer};
//! use std::convert::Infallible;
//! use std::net::SocketAddr;
//! use tower::{ServiceBuilder, ServiceExt, service_fn};
//!
//! let policy = Policy::new("cover-letter", Quota::fixed_window(1, Period::HOUR)?)?;
//! let service = ServiceBuilder::new()
//!     .layer(RateLimitLayer::new(Limiter::new(store), policy))
//!     .service(service_fn(|_: Request<()>| async {
//!         Ok::<_, Infallible>(Response::new("Dear Sir or Madam".to_owned()))
//!     }));
//! // What a server does with each request of a connection.
//! let request = || {
//!     let peer: SocketAddr = ([203, 0, 113, 9], 50_000).into();
//!     Request::builder().extension(PeerAddr(peer)).body(()).unwrap()
//! };
//!
//! let first = service.clone().oneshot(request()).await.unwrap();
//! assert_eq!(first.status(), 200);
//! assert_eq!(first.headers()["x-ratelimit-remaining"], "0");
//!
//! let second = service.oneshot(request()).await.unwrap();
//! assert_eq!(second.status(), 429);
//! assert_eq!(second.headers()["retry-after"], "2520");
//! assert!(second.body().contains("cover-letter is limited to 1 per hour; try again in 42 minutes"));
//! # Ok::<(), Error>(())
//! # }).unwrap();
//! ```
//!
//! # Features
//!
//! - `axum`: the peer's address is also found in axum's `ConnectInfo<SocketAddr>`. Off by default. The
//!   layer itself works with axum without it.
//!
//! # External types
//!
//! Those of `http`, `tower-layer` and `tower-service` are in signatures: they are what services are
//! made of.

mod answer;
mod client;
mod headers;
mod layer;
pub mod problem;
mod responder;
mod service;

pub use answer::Answer;
pub use client::{Client, ClientAddress, PeerAddr};
pub use headers::{HeaderStyle, IetfDraft, ResetFormat};
pub use layer::{RateLimitLayer, Target};
pub use problem::{Asked, Problem, ProblemType, UnavailableStatus};
pub use responder::Responder;
pub use service::RateLimit;
