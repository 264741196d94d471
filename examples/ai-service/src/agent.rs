//! `POST /agent/{session}/turns/{turn}/tools/{tool}`: an agent's tool calls, limited per turn and per
//! session in one step (E1, E3).

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use limiter::http::Asked;
use limiter::{Charge, Decision, Key};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::app::App;
use crate::body;
use crate::path::Path;
use crate::problem::Problem;

/// What a tool call costs.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Call {
    cost: u64,
}

pub(crate) async fn use_tool(
    State(app): State<Arc<App>>,
    Path((session, turn, tool)): Path<(String, String, String)>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let user = app.users.authenticate(&headers)?;
    let body = body::read(body).await?;
    let call: Call = serde_json::from_slice(&body).map_err(|error| {
        Problem::bad_request(format!(
            "the body must be {{\"cost\": n}} with a whole number of at least 1: {error}"
        ))
    })?;
    if call.cost == 0 {
        return Err(Problem::bad_request("a tool call costs at least 1"));
    }

    // A session is its user's own: whoever guesses its name gets another one. User ids hold no '/'.
    let session = format!("{}/{session}", user.id);
    let of_session = Key::new(["rate", &session, &tool]);
    let of_turn = Key::new(["rate", &session, &turn, &tool]);
    let policies = &app.policies;
    let decision = app
        .limiter
        .check_all(&[
            Charge::new(&policies.agent_turn, &of_turn).with_cost(call.cost),
            Charge::new(&policies.agent_session, &of_session).with_cost(call.cost),
        ])
        .await;
    let asked = Asked::default().operation(&tool).cost(call.cost);
    if let Some(refusal) = app.responder.refusal(&decision, asked) {
        return Ok(refusal);
    }
    let levels = decision.decisions.iter().map(level);
    let answer = json!({ "tool": tool, "cost": call.cost, "limits": levels.collect::<Vec<_>>() });
    let mut response = Json(answer).into_response();
    app.responder
        .write_headers(&decision, response.headers_mut());
    Ok(response)
}

fn level(decision: &Decision) -> Value {
    json!({
        "policy": decision.policy.name(),
        "used": decision.used,
        "limit": decision.limit,
        "remaining": decision.remaining,
    })
}
