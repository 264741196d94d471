//! A service behind a layer: what happens to a request.

use std::future::Future;
use std::mem;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::header::{CONTENT_LENGTH, HeaderMap};
use http::request::Parts;
use http::{Request, Response, StatusCode};
use http_body::Body;
use limiter_core::Key;
use limiter_core::limit::{Charge, GroupDecision, Policy, Reservation, Reserved};
use tower_service::Service;

use crate::decided::Decided;
use crate::layer::{Settings, Settle};
use crate::problem::{Asked, Problem};
use crate::refusal::Refusal;
use crate::settle::{RateLimitBody, Settling};
use crate::target::{Choice, Target};

/// A service behind a [`RateLimitLayer`](crate::RateLimitLayer).
#[derive(Debug)]
pub struct RateLimit<S, B> {
    inner: S,
    settings: Arc<Settings<B>>,
}

impl<S, B> RateLimit<S, B> {
    pub(crate) fn new(inner: S, settings: Arc<Settings<B>>) -> Self {
        Self { inner, settings }
    }
}

impl<S: Clone, B> Clone for RateLimit<S, B> {
    fn clone(&self) -> Self {
        Self::new(self.inner.clone(), Arc::clone(&self.settings))
    }
}

impl<S, B, ReqBody, ResBody> Service<Request<ReqBody>> for RateLimit<S, B>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    ReqBody: Send + 'static,
    ResBody: Body,
    B: 'static,
{
    type Response = Response<RateLimitBody<ResBody, B>>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, S::Error>> + Send>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request<ReqBody>) -> Self::Future {
        // The future takes the service that `poll_ready` made ready; a clone of it may not be.
        let clone = self.inner.clone();
        let mut inner = mem::replace(&mut self.inner, clone);
        let settings = Arc::clone(&self.settings);
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let passed = match settings.check(&parts).await {
                Ok(passed) => passed,
                Err(refused) => {
                    return Ok(settings
                        .refuse(&refused, &parts)
                        .map(RateLimitBody::of_refusal));
                }
            };
            // The inner service may take seconds, which are not the limit's.
            let at = settings.responder.now();
            let mut response = inner.call(Request::from_parts(parts, body)).await?;
            let Some(Passed { decision, held }) = passed else {
                return Ok(response.map(|body| RateLimitBody::of_service(body, None)));
            };
            let decided = Decided::from(&decision).at(at);
            settings.responder.write_headers(decided, &mut response);
            Ok(match held {
                Some(held) => held.settle_after(response),
                None => response.map(|body| RateLimitBody::of_service(body, None)),
            })
        })
    }
}

/// A request that may run.
struct Passed {
    decision: GroupDecision,
    held: Option<Held>,
}

/// Estimates that are settled when the response has been sent.
struct Held {
    reservation: Reservation,
    charges: Vec<(u64, Option<Settle>)>,
}

/// A request that may not.
enum Refused {
    /// It names nobody.
    Nobody(StatusCode),
    /// The server is misconfigured.
    Broken,
    Denied {
        decision: GroupDecision,
        /// What was asked of the policy that binds.
        cost: Option<u64>,
    },
}

/// What a request is charged.
struct Charged {
    policy: Policy,
    key: Key,
    cost: u64,
    settle: Option<Settle>,
}

impl<B> Settings<B> {
    /// `None` is a request that no policy limits.
    async fn check(&self, request: &Parts) -> Result<Option<Passed>, Refused> {
        if self.checks.exempt.contains(&request.method) {
            return Ok(None);
        }
        let charged = self.charged(request)?;
        if charged.is_empty() {
            return Ok(None);
        }
        let settles = charged.iter().any(|charged| charged.settle.is_some());
        let charges: Vec<_> = charged
            .iter()
            .map(|charged| {
                let least = u64::from(charged.settle.is_some());
                Charge::new(&charged.policy, &charged.key).with_cost(charged.cost.max(least))
            })
            .collect();
        if settles {
            return self.reserve(&charged, &charges).await.map(Some);
        }
        let decision = self.limiter.check_all(&charges).await;
        allowed(decision, &charged).map(|decision| {
            Some(Passed {
                decision,
                held: None,
            })
        })
    }

    async fn reserve(
        &self,
        charged: &[Charged],
        charges: &[Charge<'_>],
    ) -> Result<Passed, Refused> {
        let within = self.checks.settle_within;
        let mut reservation = match self.limiter.reserve(charges, within).await {
            Ok(Reserved::Held(reservation)) => reservation,
            Ok(Reserved::Denied(decision)) => {
                let decision = allowed(decision, charged)?;
                return Ok(Passed {
                    decision,
                    held: None,
                });
            }
            // Under a random id nothing was settled before.
            Ok(Reserved::Settled(_)) => return Err(Refused::Broken),
            Err(error) => {
                if !error.kind().is_outage() {
                    tracing::error!(%error, "limit refused");
                }
                let policies = charged.iter().map(|charged| &charged.policy);
                let decision = GroupDecision::unavailable(policies, &error);
                let decision = allowed(decision, charged)?;
                return Ok(Passed {
                    decision,
                    held: None,
                });
            }
        };
        // A client that leaves gets nothing back of what the service does for it.
        reservation.started();
        Ok(Passed {
            decision: reservation.decision().clone(),
            held: Some(Held {
                reservation,
                charges: charges
                    .iter()
                    .zip(charged)
                    .map(|(charge, charged)| (charge.cost(), charged.settle.clone()))
                    .collect(),
            }),
        })
    }

    fn charged(&self, request: &Parts) -> Result<Vec<Charged>, Refused> {
        let mut charged = Vec::with_capacity(self.checks.rules.len());
        for rule in &self.checks.rules {
            let chosen = rule.chosen.as_ref().and_then(|chosen| chosen(request));
            let policy = chosen.as_ref().unwrap_or(&rule.policy);
            let target = match &rule.target {
                Some(target) => Ok(target(request)),
                None => self.default_target(request),
            };
            let refused = match target.map(|target| target.0) {
                Ok(Choice::Charge { counter, cost }) => Ok((counter, cost)),
                Ok(Choice::Skip) => continue,
                Ok(Choice::Refuse(status)) => Err(Refused::Nobody(status)),
                Err(refused) => Err(refused),
            };
            let (counter, cost) = match refused {
                Ok(charge) => charge,
                // It only watches, and here it would only have refused.
                Err(_) if policy.current().is_shadow() => {
                    let policy = policy.current();
                    tracing::debug!(
                        policy = policy.name(),
                        "a shadow policy finds nobody to charge"
                    );
                    continue;
                }
                Err(refused) => return Err(refused),
            };
            // The name, of which the key is made, is the same for everybody.
            let key = counter.key(&policy.current());
            let policy = policy.of(&key);
            charged.push(Charged {
                policy,
                key,
                cost,
                settle: rule.settle.clone(),
            });
        }
        Ok(charged)
    }

    fn default_target(&self, request: &Parts) -> Result<Target, Refused> {
        let Some(client) = self.checks.client.of(request) else {
            tracing::error!(
                "the peer of a connection is unknown, so there is no key to limit its requests by; \
                 serve axum with into_make_service_with_connect_info::<limiter_http::Peer>() and enable \
                 limiter-http's feature `axum`, or insert a limiter_http::Peer into the \
                 request's extensions, or give the layer a key"
            );
            return Err(Refused::Broken);
        };
        Ok(Target::new([client.to_string()]))
    }

    fn refuse(&self, refused: &Refused, request: &Parts) -> Response<B> {
        let (decision, cost) = match refused {
            Refused::Nobody(status) => {
                tracing::debug!(
                    status = status.as_u16(),
                    "a request that names nobody is refused"
                );
                return self.respond(&Problem::unknown_client(*status), None, request);
            }
            Refused::Broken => return self.respond(&Problem::error(), None, request),
            Refused::Denied { decision, cost } => (decision, *cost),
        };
        let operation = self.checks.operation.as_ref();
        let operation = operation.and_then(|name| name(request));
        let asked = Asked {
            operation: operation.as_deref(),
            cost,
        };
        // One that was not allowed always has a problem.
        let problem = self.responder.problem(decision, asked);
        let problem = problem.unwrap_or_else(Problem::error);
        let mut response = self.respond(&problem, Some(decision), request);
        // Whatever the function has written of itself.
        self.responder.overwrite_headers(decision, &mut response);
        response
    }

    fn respond(
        &self,
        problem: &Problem<'_>,
        decision: Option<&GroupDecision>,
        request: &Parts,
    ) -> Response<B> {
        (self.refuse)(&Refusal {
            problem,
            decision,
            request,
        })
    }
}

impl Held {
    /// The response, with a body that settles at its end.
    fn settle_after<S: Body, B>(self, response: Response<S>) -> Response<RateLimitBody<S, B>> {
        let (parts, body) = response.into_parts();
        let settling = Settling {
            reservation: Some(self.reservation),
            charges: self.charges,
            response: parts.clone(),
            body_bytes: 0,
            expected: announced(&parts.headers).or_else(|| body.size_hint().exact()),
            // A server never asks for an empty body.
            is_complete: body.is_end_stream(),
        };
        Response::from_parts(parts, RateLimitBody::of_service(body, Some(settling)))
    }
}

/// The length that the response says it has, of which a server sends no more.
fn announced(headers: &HeaderMap) -> Option<u64> {
    let length = headers.get(CONTENT_LENGTH)?;
    length.to_str().ok()?.parse().ok()
}

fn allowed(decision: GroupDecision, charged: &[Charged]) -> Result<GroupDecision, Refused> {
    if decision.is_allowed() {
        return Ok(decision);
    }
    let cost = binding_cost(&decision, charged);
    Err(Refused::Denied { decision, cost })
}

/// What was asked of the policy that binds. A key that is charged twice is asked for the sum.
fn binding_cost(group: &GroupDecision, charged: &[Charged]) -> Option<u64> {
    let binding = group.binding()?;
    let (_, target) = group
        .decisions
        .iter()
        .zip(charged)
        .find(|(decision, _)| ptr::eq(*decision, binding))?;
    let of_key = charged.iter().filter(|other| other.key == target.key);
    Some(of_key.fold(0, |sum: u64, other| sum.saturating_add(other.cost)))
}
