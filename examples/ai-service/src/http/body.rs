//! Request bodies: bounded in size, in time and all together, and JSON objects.

use std::time::Duration;

use axum::body::{Body, Bytes, HttpBody as _};
use axum::http::StatusCode;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;

use crate::http::problem::Problem;
use crate::http::room::{Refused, Room};

/// The largest body: 64 KiB.
const MAX_BYTES: usize = 64 * 1024;

/// How long the body of somebody who is known may take to arrive.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// The whole body of a user or another owner, if it arrives in time.
pub(crate) async fn read(
    room: &Room,
    owner: &str,
    body: Body,
    within: Duration,
) -> Result<Bytes, Problem> {
    if body.size_hint().lower() > MAX_BYTES as u64 {
        return Err(too_large());
    }
    let Ok(read) = tokio::time::timeout(within, collect(room, owner, body)).await else {
        return Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", within.as_secs()),
        ));
    };
    read
}

fn too_large() -> Problem {
    let what = format!("the body is larger than {MAX_BYTES} bytes");
    Problem::new(StatusCode::PAYLOAD_TOO_LARGE, what)
}

async fn collect(room: &Room, owner: &str, mut body: Body) -> Result<Bytes, Problem> {
    let mut whole = room.body(Some(owner), MAX_BYTES);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| Problem::bad_request("the body could not be read"))?;
        let Ok(data) = frame.into_data() else {
            continue;
        };
        whole.add(&data).map_err(|refused| match refused {
            Refused::TooLarge => too_large(),
            Refused::NoRoom => Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "too many large bodies arrive at once; try again, or send a smaller one",
            )
            .retry_after(1),
        })?;
    }
    Ok(whole.whole().into())
}

/// The body as a JSON object. An array is refused, of which serde would make a struct as well.
pub(crate) fn object<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    if !bytes.trim_ascii_start().starts_with(b"{") {
        return Err(Problem::bad_request("the body must be a JSON object"));
    }
    // Serde's own words repeat what was sent.
    serde_json::from_slice(bytes).map_err(|error| {
        let (line, column) = (error.line(), error.column());
        Problem::bad_request(format!(
            "the body cannot be used: it is no JSON, or has a field that is missing, unknown or of the wrong type (line {line}, column {column})"
        ))
    })
}
