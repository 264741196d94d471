//! `GET /api/admin/{endpoint}`: what an operator asks for, 5 a minute for each token and endpoint (B2).

use std::sync::Arc;

use axum::Json;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

use crate::app::App;
use crate::operations::Operation;
use crate::path::Path;
use crate::problem::Problem;

const ENDPOINTS: [&str; 5] = ["users", "usage", "caches", "limits", "audit"];

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    Path(endpoint): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let admin = app.users.authenticate_admin(&headers)?;
    let endpoint = ENDPOINTS
        .into_iter()
        .find(|name| *name == endpoint)
        .ok_or_else(|| {
            let names = ENDPOINTS.join(", ");
            Problem::not_found(format!("there is no such endpoint; there are {names}"))
        })?;
    let key = admin.admin_key.join(endpoint);
    let decision = app.limiter.check(&app.policies.admin, &key).await;
    let operation = format!("admin {endpoint}");
    if let Some(refusal) = app.responder.refusal(&decision, operation.as_str()) {
        return Ok(refusal);
    }
    let answer = match endpoint {
        "users" => users(&app),
        "usage" => usage(&app).await,
        "caches" => caches(&app),
        "limits" => limits(&app),
        _ => json!({ "decisions": app.audit.latest() }),
    };
    let mut response = Json(answer).into_response();
    app.responder
        .write_headers(&decision, response.headers_mut());
    Ok(response)
}

fn users(app: &App) -> Value {
    let users = app.users.all();
    let users: Vec<_> = users
        .iter()
        .map(|user| json!({ "user": user.id, "tenant": user.tenant, "admin": user.admin }))
        .collect();
    json!({ "users": users })
}

/// What each user has used of each operation, across all instances.
async fn usage(app: &App) -> Value {
    let mut usage = Vec::new();
    for user in app.users.all().into_iter().filter(|user| !user.admin) {
        for operation in Operation::ALL {
            let Ok(policy) = operation.policy(app) else {
                continue;
            };
            usage.push(match app.limiter.peek(policy, &operation.key(user)).await {
                Ok(decision) => json!({
                    "user": user.id,
                    "operation": operation.name(),
                    "used": decision.used,
                    "limit": decision.limit,
                    "remaining": decision.remaining,
                    "reset_after_seconds": decision.reset_after.as_secs(),
                }),
                // The first failure says it all; the others would only wait for their deadlines.
                Err(error) => return json!({ "usage": usage, "error": error.to_string() }),
            });
        }
    }
    json!({ "usage": usage })
}

fn caches(app: &App) -> Value {
    let caches = &app.caches;
    let named = [
        (
            caches.company_research.operation(),
            caches.company_research.stats(),
        ),
        (
            caches.job_extraction.operation(),
            caches.job_extraction.stats(),
        ),
        (
            caches.resume_analysis.operation(),
            caches.resume_analysis.stats(),
        ),
        (
            caches.interview_prep.operation(),
            caches.interview_prep.stats(),
        ),
    ];
    let caches: Vec<_> = named
        .into_iter()
        .map(|(operation, stats)| json!({ "operation": operation, "stats": stats }))
        .collect();
    json!({ "since": "this instance started", "caches": caches })
}

fn limits(app: &App) -> Value {
    let limits: Vec<_> = app
        .policies
        .all
        .iter()
        .map(|policy| {
            json!({
                "policy": policy.name(),
                "scope": policy.scope(),
                "algorithm": policy.quota().algorithm(),
                "quota": policy.quota().to_string(),
                "shadow": policy.is_shadow(),
                "version": policy.version(),
            })
        })
        .collect();
    json!({ "limits": limits })
}
