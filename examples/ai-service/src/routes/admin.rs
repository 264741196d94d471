//! `GET /api/admin/{endpoint}`: what an operator asks for, 5 a minute for each token and endpoint (B2).

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use limiter::{Decision, GroupDecision};
use serde_json::{Value, json};

use crate::app::{App, Limit};
use crate::http::path::Path;
use crate::http::problem::Problem;
use crate::routes::me::standing;
use crate::routes::operations::Operation;

const ENDPOINTS: [&str; 6] = ["users", "usage", "caches", "limits", "audit", "offenders"];

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    app.admin(&headers).map_err(IntoResponse::into_response)?;
    let endpoint = ENDPOINTS.into_iter().find(|name| *name == endpoint);
    let endpoint = endpoint.ok_or_else(|| {
        let names = ENDPOINTS.join(", ");
        let what = format!("there is no such endpoint; there are {names} and switch");
        Problem::not_found(what).into_response()
    })?;
    let decision = admit(&app, &headers, endpoint).await?;
    let answer = match endpoint {
        "users" => users(&app),
        "usage" => usage(&app).await,
        "caches" => caches(&app),
        "limits" => limits(&app),
        "offenders" => offenders(&app).await,
        _ => audit(&app).await,
    };
    Ok(finish(&app, &decision, Json(answer).into_response()))
}

/// Charges an admin's call of an endpoint; the refusal, if it is none or one too many.
pub(crate) async fn admit(
    app: &App,
    headers: &HeaderMap,
    endpoint: &str,
) -> Result<Decision, Response> {
    let admin = app.admin(headers).map_err(IntoResponse::into_response)?;
    let key = admin.admin_key.join(endpoint);
    let decision = app.limiter.check(&app.policies.admin.of(&key), &key).await;
    let operation = format!("admin {endpoint}");
    if decision.is_allowed() {
        return Ok(decision);
    }
    let decision = GroupDecision::new(vec![decision]);
    Err(app.refused(&decision, &operation))
}

/// The answer with the limit's headers.
pub(crate) fn finish(app: &App, decision: &Decision, mut response: Response) -> Response {
    app.responder.write_headers(decision, &mut response);
    response
}

/// `DELETE /api/admin/usage/{user}/{operation}`: forgets what a user has used of an operation, or of the limits of calls of the
/// model (`model-calls`, and the tenant's `model-tokens`), on all instances.
pub(crate) async fn reset(
    State(app): State<Arc<App>>,
    Path((user, operation)): Path<(String, String)>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    app.admin(&headers).map_err(IntoResponse::into_response)?;
    let user = app.users.by_id(&user);
    let user = user.ok_or_else(|| Problem::not_found("there is no such user").into_response())?;
    let limit = app
        .limits_of(user)
        .into_iter()
        .find(|limit| limit.name == operation);
    let Some(Limit {
        name, policy, key, ..
    }) = limit
    else {
        let unknown = Operation::parse(&operation).err();
        let unknown = unknown.unwrap_or_else(|| Problem::not_found("there is no such limit"));
        return Err(unknown.into_response());
    };
    let decision = admit(&app, &headers, "reset").await?;
    if let Err(error) = app.limiter.reset(&policy, &key).await {
        tracing::warn!(%error, "not reset");
        let problem = Problem::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "the limits cannot be reached; try again",
        );
        return Err(problem.retry_after(1).into_response());
    }
    let done = json!({ "user": user.id, "operation": name, "used": 0 });
    Ok(finish(&app, &decision, Json(done).into_response()))
}

/// Who was denied most today and in the seven days before, on all instances.
async fn offenders(app: &App) -> Value {
    let mut found = Vec::new();
    // So that what this instance has counted is among it.
    if let Err(error) = app.offenders.flush().await {
        return json!({ "offenders": found, "error": error.to_string() });
    }
    for policy in app.policies.all.current() {
        for day in 0..8 {
            let top = match app.offenders.top(policy.name(), day, 10).await {
                Ok(top) => top,
                // The first failure says it all; the others would only wait for their deadlines.
                Err(error) => return json!({ "offenders": found, "error": error.to_string() }),
            };
            found.extend(top.into_iter().map(|it| {
                // An admin's key has the digest of a token, which it could be guessed by.
                let is_secret = policy.name() == app.policies.admin.current().name();
                json!({
                    "policy": policy.name(),
                    "days_ago": day,
                    "key": (!is_secret).then_some(&it.name),
                    "audit_key": app.audit.hash(&it.name),
                    "denied": it.count,
                })
            }));
        }
    }
    json!({ "offenders": found })
}

/// The last decisions of this instance, and what became of all of them.
async fn audit(app: &App) -> Value {
    let trail = app.audit.clone();
    // What was decided before this request stands there.
    let flush = tokio::task::spawn_blocking(move || trail.flush(FLUSH));
    let _ = flush.await;
    let stats = app.audit.stats();
    json!({
        "decisions": app.recent.latest(),
        "written": stats.written,
        "lost": stats.lost,
        "waiting": stats.waiting,
    })
}

/// How long the trail is waited for.
const FLUSH: Duration = Duration::from_secs(1);

fn users(app: &App) -> Value {
    let users = app.users.all();
    let users: Vec<_> = users
        .iter()
        .map(|user| {
            // As the log names the caller.
            let caller = app.audit.hash(&user.id);
            json!({ "user": user.id, "tenant": user.tenant, "admin": user.admin, "caller": caller })
        })
        .collect();
    json!({ "users": users })
}

/// What each user has used of each limit, across all instances.
async fn usage(app: &App) -> Value {
    let mut usage = Vec::new();
    for user in app.users.all().into_iter().filter(|user| !user.admin) {
        for limit in app.limits_of(user) {
            let peek = app.limiter.peek(&limit.policy, &limit.key).await;
            usage.push(match peek {
                Ok(decision) => {
                    let mut told = standing(&decision);
                    told["user"] = user.id.as_str().into();
                    // As the audit trail names the counter.
                    told["audit_key"] = app.audit.hash(limit.key.as_str()).into();
                    told["operation"] = limit.name.into();
                    told
                }
                // The first failure says it all; the others would only wait for their deadlines.
                Err(error) => return json!({ "usage": usage, "error": error.to_string() }),
            });
        }
    }
    json!({ "usage": usage })
}

fn caches(app: &App) -> Value {
    let caches: Vec<_> = app
        .caches
        .stats()
        .into_iter()
        .map(|(operation, stats)| json!({ "operation": operation, "stats": stats }))
        .collect();
    json!({ "since": "this instance started", "caches": caches })
}

fn limits(app: &App) -> Value {
    let limits: Vec<_> = app
        .policies
        .all
        .current()
        .iter()
        .map(|policy| {
            json!({
                "policy": policy.name(),
                "scope": policy.scope(),
                "algorithm": policy.quota().algorithm(),
                "quota": policy.quota().to_string(),
                "shadow": policy.is_shadow(),
                "version": policy.version(),
                "revision": policy.revision(),
            })
        })
        .collect();
    json!({ "limits": limits, "error": app.policies.all.status() })
}
