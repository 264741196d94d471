//! A service behind a layer: what happens to a request.

use std::future::Future;
use std::mem;
use std::ops::ControlFlow;
use std::pin::Pin;
use std::ptr;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::request::Parts;
use http::{Request, Response};
use limiter_core::Key;
use limiter_core::limit::{Charge, GroupDecision, Policy};
use tower_service::Service;

use crate::answer::Answer;
use crate::layer::{Settings, Target};
use crate::problem::{Asked, Problem};
use crate::responder::respond;

/// A service behind a [`RateLimitLayer`](crate::RateLimitLayer).
#[derive(Clone, Debug)]
pub struct RateLimit<S> {
    inner: S,
    settings: Arc<Settings>,
}

impl<S> RateLimit<S> {
    pub(crate) fn new(inner: S, settings: Arc<Settings>) -> Self {
        Self { inner, settings }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for RateLimit<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone + Send + 'static,
    S::Future: Send,
    ReqBody: Send + 'static,
    ResBody: From<String>,
{
    type Response = Response<ResBody>;
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
            let group = match settings.check(&parts).await {
                ControlFlow::Break(refusal) => return Ok(refusal.map(ResBody::from)),
                ControlFlow::Continue(group) => group,
            };
            let responder = &settings.responder;
            // The inner service may take seconds, which are not the limit's.
            let decided = responder.now();
            let mut response = inner.call(Request::from_parts(parts, body)).await?;
            if let Some(group) = &group {
                let answer = Answer::from(group).decided_at(decided);
                responder.write_headers(answer, response.headers_mut());
            }
            Ok(response)
        })
    }
}

/// What a request is charged.
struct Charged<'a> {
    policy: &'a Policy,
    key: Key,
    cost: u64,
}

impl Settings {
    /// The refusal, or what was decided; `None` for a request that no policy limits.
    async fn check(&self, request: &Parts) -> ControlFlow<Response<String>, Option<GroupDecision>> {
        let mut charged = Vec::with_capacity(self.rules.len());
        for rule in &self.rules {
            let target = match &rule.target {
                Some(target) => target(request),
                None => match self.default_target(&rule.policy, request) {
                    Some(target) => Some(target),
                    None => return ControlFlow::Break(respond(&Problem::error())),
                },
            };
            charged.extend(target.map(|target| Charged {
                key: target.key(&rule.policy),
                policy: &rule.policy,
                cost: target.cost,
            }));
        }
        if charged.is_empty() {
            return ControlFlow::Continue(None);
        }
        let charges: Vec<_> = charged
            .iter()
            .map(|charged| Charge::new(charged.policy, &charged.key).with_cost(charged.cost))
            .collect();
        let group = self.limiter.check_all(&charges).await;
        let operation = match &self.operation {
            Some(name) if !group.is_allowed() => name(request),
            _ => None,
        };
        let asked = Asked {
            operation: operation.as_deref(),
            cost: binding_cost(&group, &charged),
        };
        match self.responder.refusal(&group, asked) {
            Some(refusal) => ControlFlow::Break(refusal),
            None => ControlFlow::Continue(Some(group)),
        }
    }

    fn default_target(&self, policy: &Policy, request: &Parts) -> Option<Target> {
        let Some(client) = self.client.of(request) else {
            tracing::error!(
                policy = policy.name(),
                "request refused: its peer address is unknown, so there is no key to limit it by; \
                 serve axum with into_make_service_with_connect_info::<SocketAddr>() and enable \
                 limiter-http's feature `axum`, or insert a limiter_http::PeerAddr into the \
                 request's extensions, or give the layer a key"
            );
            return None;
        };
        Some(Target::new([client.to_string()]))
    }
}

/// What was asked of the policy that binds. A key that is charged twice is asked for the sum.
fn binding_cost(group: &GroupDecision, charged: &[Charged<'_>]) -> Option<u64> {
    let binding = Answer::from(group).binding()?;
    let (_, target) = group
        .decisions
        .iter()
        .zip(charged)
        .find(|(decision, _)| ptr::eq(*decision, binding))?;
    let of_key = charged.iter().filter(|other| other.key == target.key);
    Some(of_key.fold(0, |sum: u64, other| sum.saturating_add(other.cost)))
}
