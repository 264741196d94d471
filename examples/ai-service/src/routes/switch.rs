//! `/api/admin/switch`: where limits are counted (C6). GET tells, PUT changes it for a time, DELETE takes that back.

use std::sync::Arc;
use std::time::Duration;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::HeaderMap;
use axum::response::{IntoResponse, Response};
use limiter::config::{Format, parse_routing, write_routing};
use limiter::switch::{REACHES_WITHIN, Reach};
use serde_json::{Map, Value, json};

use crate::app::App;
use crate::http::body;
use crate::http::problem::Problem;
use crate::routes::admin::{admit, finish};

const ENDPOINT: &str = "switch";

/// How long an override holds, unless the request says otherwise.
const MINUTES: u64 = 60;

pub(crate) async fn show(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let decision = admit(&app, &headers, ENDPOINT).await?;
    app.switch.read().await;
    Ok(finish(&app, &decision, Json(status(&app)).into_response()))
}

pub(crate) async fn throw(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Response> {
    // Whatever is wrong with a request is said before it is charged.
    let admin = app.admin(&headers).map_err(IntoResponse::into_response)?;
    let body = body::read(&app.room, &admin.id, body, body::TIMEOUT)
        .await
        .map_err(IntoResponse::into_response)?;
    let mut asked: Map<String, Value> = body::object(&body).map_err(IntoResponse::into_response)?;
    let refused = |what: &str| Problem::bad_request(what).into_response();
    let minutes = match asked.remove("minutes") {
        None => MINUTES,
        Some(minutes) => minutes
            .as_u64()
            .filter(|minutes| (1..=43_200).contains(minutes))
            .ok_or_else(|| refused("minutes is a whole number, 1 to 43200 (30 days)"))?,
    };
    let is_own = match asked.remove("instance") {
        None => false,
        Some(Value::String(which)) if which == "this" => true,
        Some(_) => return Err(refused("instance is \"this\", or left out for all of them")),
    };
    let text = Value::Object(asked).to_string();
    let routing = parse_routing(Format::Json, &text);
    let routing = routing.map_err(|error| refused(&without_places(error.message())))?;
    let decision = admit(&app, &headers, ENDPOINT).await?;
    let within = Duration::from_secs(minutes * 60);
    let reach = if is_own {
        app.switch.override_here(routing, within);
        Reach::ThisInstance {
            why: "the request asked for no other one".to_owned(),
        }
    } else {
        app.switch.override_all(routing, within).await
    };
    Ok(finish(
        &app,
        &decision,
        Json(reached(&app, &reach)).into_response(),
    ))
}

pub(crate) async fn release(
    State(app): State<Arc<App>>,
    headers: HeaderMap,
) -> Result<Response, Response> {
    let decision = admit(&app, &headers, ENDPOINT).await?;
    let reach = app.switch.clear().await;
    Ok(finish(
        &app,
        &decision,
        Json(reached(&app, &reach)).into_response(),
    ))
}

/// Lines and columns are those of this service's own text, and not of the request's.
fn without_places(told: &str) -> String {
    let parts = told
        .split("; line ")
        .map(|part| match part.split_once(": ") {
            Some((_, what)) => what,
            None => part,
        });
    parts.collect::<Vec<_>>().join("; ")
}

fn reached(app: &App, reach: &Reach) -> Value {
    let mut told = status(app);
    told["reaches"] = match reach {
        Reach::EveryInstance => json!({
            "instances": "all",
            "within_seconds": REACHES_WITHIN.as_secs(),
        }),
        Reach::ThisInstance { why } => json!({ "instances": "this one only", "why": why }),
        _ => Value::Null,
    };
    told
}

/// What holds on this instance, for `/health` too.
pub(crate) fn status(app: &App) -> Value {
    let status = app.switch.status();
    let routing: Value = serde_json::from_str(&write_routing(&status.routing)).unwrap_or_default();
    json!({
        "routing": routing,
        "words": status.routing.to_string(),
        "set_by": status.set_by,
        "seconds_left": status.left.map(|left| left.as_secs()),
        "error": status.error,
    })
}
