//! `GET /api/me`: who asks, and what is left of each limit. Charges nothing.

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use futures_util::future::try_join_all;
use limiter::Decision;
use serde_json::{Value, json};

use crate::app::App;
use crate::http::problem::Problem;

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Json<Value>, Problem> {
    let user = app.authenticate(&headers)?;
    // At once, so that they share a round trip.
    let limits = app.limits_of(user).into_iter().map(async |limit| {
        let peek = app.limiter.peek(&limit.policy, &limit.key).await?;
        let mut told = standing(&peek);
        told["operation"] = limit.name.into();
        told["unit"] = limit.policy.unit().as_str().into();
        Ok::<_, limiter::Error>(told)
    });
    let limits = try_join_all(limits).await.map_err(|_| {
        let what = "the limits cannot be reached; try again";
        Problem::new(StatusCode::SERVICE_UNAVAILABLE, what).retry_after(1)
    })?;
    Ok(Json(json!({
        "user": user.id,
        "tenant": user.tenant,
        "admin": user.admin,
        "limits": limits,
    })))
}

/// What is used and what is left, with times rounded up to whole seconds.
pub(crate) fn standing(decision: &Decision) -> Value {
    let reset = decision.reset_after;
    let reset = reset.as_secs() + u64::from(reset.subsec_nanos() > 0);
    json!({
        "used": decision.used,
        "limit": decision.limit,
        "remaining": decision.remaining,
        "reset_after_seconds": reset,
        "retry_after_seconds": decision.retry_after_secs(),
    })
}
