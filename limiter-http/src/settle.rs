//! Charges whose amount is known only when the response has been sent.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf;
use http::response::Parts;
use http_body::{Body, Frame, SizeHint};
use http_body_util::Either;
use limiter_core::limit::Reservation;
use pin_project_lite::pin_project;

use crate::layer::Settle;

/// The most that can be settled: amounts are below 2^51.
const MOST: u64 = (1 << 51) - 1;

/// A response whose body has been sent, or whose client has left: what a
/// [`settle`](crate::RateLimitLayer::settle) function tells the cost from.
///
/// A handler that learns the cost while it writes the body puts a shared cell into the response's extensions
/// (`Arc<AtomicU64>`), and the function reads it.
#[derive(Clone, Copy, Debug)]
#[non_exhaustive]
pub struct Finished<'a> {
    /// The response without its body: status, headers, extensions.
    pub response: &'a Parts,
    /// How many bytes of the body were handed to the connection.
    pub body_bytes: u64,
    /// Whether that was all of it: the body has ended, or has given as many bytes as it had said. Never for an answer to HEAD,
    /// whose body is not sent.
    pub is_complete: bool,
}

/// A reservation that is settled when this is dropped.
pub(crate) struct Settling {
    pub(crate) reservation: Option<Reservation>,
    /// For each charge of the reservation its estimate, and what tells the cost, if anything does.
    pub(crate) charges: Vec<(u64, Option<Settle>)>,
    pub(crate) response: Parts,
    pub(crate) body_bytes: u64,
    /// How many bytes the body says that it has.
    pub(crate) expected: Option<u64>,
    pub(crate) is_complete: bool,
}

impl Drop for Settling {
    fn drop(&mut self) {
        let Some(reservation) = self.reservation.take() else {
            return;
        };
        let finished = Finished {
            response: &self.response,
            body_bytes: self.body_bytes,
            is_complete: self.is_complete,
        };
        let charges = self.charges.iter();
        let costs: Vec<u64> = charges
            .map(|(estimate, settle)| {
                let cost = settle.as_ref().and_then(|settle| {
                    // This may run while the body panics: a second panic would end the process.
                    let told = catch_unwind(AssertUnwindSafe(|| settle(&finished)));
                    told.unwrap_or_else(|_| {
                        tracing::error!(
                            "the function that tells a cost panicked; the estimate stands"
                        );
                        None
                    })
                });
                cost.unwrap_or(*estimate).min(MOST)
            })
            .collect();
        if let Err(error) = reservation.settle_detached(&costs) {
            tracing::error!(%error, "the cost of a request is not settled; its estimate stands");
        }
    }
}

pin_project! {
    /// The body of a response behind a [`RateLimitLayer`](crate::RateLimitLayer): the service's `S`, or a refusal's `B`.
    pub struct RateLimitBody<S, B> {
        #[pin]
        body: Either<S, B>,
        settling: Option<Settling>,
    }
}

impl<S, B> RateLimitBody<S, B> {
    pub(crate) fn of_service(body: S, settling: Option<Settling>) -> Self {
        let body = Either::Left(body);
        Self { body, settling }
    }

    pub(crate) fn of_refusal(body: B) -> Self {
        let (body, settling) = (Either::Right(body), None);
        Self { body, settling }
    }
}

/// An empty body, which layers outside make (tower-http's `TimeoutLayer`): a refusal's, because that of a service inside
/// other layers cannot be made.
impl<S, B: Default> Default for RateLimitBody<S, B> {
    fn default() -> Self {
        Self::of_refusal(B::default())
    }
}

impl<S, B> std::fmt::Debug for RateLimitBody<S, B> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let whose = match self.body {
            Either::Left(_) => "service",
            Either::Right(_) => "refusal",
        };
        write!(f, "RateLimitBody({whose})")
    }
}

impl<S, B> Body for RateLimitBody<S, B>
where
    S: Body,
    B: Body<Data = S::Data>,
    S::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
    B::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    type Data = S::Data;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Self::Data>, Self::Error>>> {
        let mut this = self.project();
        let polled = this.body.as_mut().poll_frame(cx);
        let Some(settling) = this.settling else {
            return polled;
        };
        match &polled {
            Poll::Ready(Some(Ok(frame))) => {
                let bytes = frame.data_ref().map_or(0, Buf::remaining);
                let bytes = u64::try_from(bytes).unwrap_or(u64::MAX);
                settling.body_bytes = settling.body_bytes.saturating_add(bytes);
                // A server that has sent the length that was announced asks for no end.
                settling.is_complete =
                    this.body.is_end_stream() || settling.expected == Some(settling.body_bytes);
            }
            Poll::Ready(Some(Err(_))) | Poll::Pending => return polled,
            Poll::Ready(None) => settling.is_complete = true,
        }
        if settling.is_complete {
            *this.settling = None;
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}
