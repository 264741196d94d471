//! `POST /agent/{session}/turns/{turn}/tools/{tool}`: an agent's tool calls, limited per turn, per
//! session and per user in one step (E1, E3).
//!
//! The names in the path are the caller's to choose, and each one is a counter. The user's own limit
//! bounds how many a user can make: a call that it denies charges nothing.

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
use crate::http::path::Path;
use crate::http::problem::Problem;
use crate::http::{body, log};
use crate::users::is_plain;

/// What a tool call costs: `{"cost": n}`, a whole number of at least 1.
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
    let user = app.authenticate(&headers)?;
    let body = body::read(&app.room, &user.id, body, body::TIMEOUT).await?;
    let call: Call = body::object(&body)?;
    if call.cost == 0 {
        return Err(Problem::bad_request("a tool call costs at least 1"));
    }

    for (what, name) in [("session", &session), ("turn", &turn), ("tool", &tool)] {
        check_name(what, name)?;
    }

    // In one slot of a cluster with the session's keys, so that all is one step.
    let of_user = Key::builder().segment("ratelimit").segment("agent");
    let of_user = of_user.hash_tag(&user.id).build();
    let of_users = app.policies.agent_user.of(&of_user);
    let user_limit = Charge::new(&of_users, &of_user).with_cost(call.cost);
    // A session is its user's own: whoever guesses its name gets another one.
    let turn = app.agents.turn_of(&user.id, &session, &turn);
    let decision = turn.call_with(&tool, call.cost, &[user_limit]).await;
    let asked = Asked::default().operation(&tool).cost(call.cost);
    if let Some(refusal) = app.responder.refusal(&decision, asked) {
        if let Some(binding) = decision.binding() {
            log::denied_by(binding.policy.name());
        }
        return Ok(refusal);
    }
    let levels = decision.decisions.iter().map(level);
    let answer = json!({ "tool": tool, "cost": call.cost, "limits": levels.collect::<Vec<_>>() });
    let mut response = Json(answer).into_response();
    app.responder.write_headers(&decision, &mut response);
    Ok(response)
}

/// The longest name of a session, a turn or a tool.
const MAX_NAME: usize = 64;

/// Names are short and plain, because counters are made of them.
fn check_name(what: &str, name: &str) -> Result<(), Problem> {
    if name.len() <= MAX_NAME && is_plain(name) {
        return Ok(());
    }
    Err(Problem::bad_request(format!(
        "the {what} must be 1 to {MAX_NAME} letters, digits, - and _"
    )))
}

fn level(decision: &Decision) -> Value {
    json!({
        "policy": decision.policy.name(),
        "used": decision.used,
        "limit": decision.limit,
        "remaining": decision.remaining,
    })
}
