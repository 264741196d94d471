//! Request bodies: bounded in size and time, and JSON objects.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use http_body_util::{BodyExt, LengthLimitError, Limited};
use serde::de::DeserializeOwned;

use crate::problem::Problem;

/// The largest body: 64 KiB.
const MAX_BYTES: usize = 64 * 1024;

/// How long a body may take to arrive.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// The whole body.
pub(crate) async fn read(body: Body) -> Result<Bytes, Problem> {
    let collected = tokio::time::timeout(TIMEOUT, Limited::new(body, MAX_BYTES).collect());
    let Ok(collected) = collected.await else {
        return Err(Problem::new(
            StatusCode::REQUEST_TIMEOUT,
            format!("the body did not arrive within {} s", TIMEOUT.as_secs()),
        ));
    };
    match collected {
        Ok(collected) => Ok(collected.to_bytes()),
        Err(error) if error.is::<LengthLimitError>() => Err(Problem::new(
            StatusCode::PAYLOAD_TOO_LARGE,
            format!("the body is larger than {MAX_BYTES} bytes"),
        )),
        Err(_) => Err(Problem::bad_request("the body could not be read")),
    }
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
