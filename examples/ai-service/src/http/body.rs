//! Request bodies: bounded in size, in time and all together, and JSON objects.

use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::http::StatusCode;
use http_body_util::BodyExt;
use serde::de::DeserializeOwned;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::http::problem::Problem;

/// The largest body: 64 KiB.
const MAX_BYTES: usize = 64 * 1024;

/// How long a body may take to arrive.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(30);

/// How much of a body takes no room from the others: small ones are read however many large ones arrive slowly.
const SMALL: usize = 2 * 1024;

/// How much all bodies together hold above [`SMALL`].
const ROOM: usize = 16 * 1024 * 1024;

/// The room of the bodies that are being read. Clones share it.
#[derive(Clone)]
pub(crate) struct Bodies(Arc<Semaphore>);

impl Default for Bodies {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(ROOM)))
    }
}

impl Bodies {
    /// The whole body.
    pub(crate) async fn read(&self, body: Body) -> Result<Bytes, Problem> {
        let Ok(read) = tokio::time::timeout(TIMEOUT, self.collect(body)).await else {
            return Err(Problem::new(
                StatusCode::REQUEST_TIMEOUT,
                format!("the body did not arrive within {} s", TIMEOUT.as_secs()),
            ));
        };
        read
    }

    async fn collect(&self, mut body: Body) -> Result<Bytes, Problem> {
        let mut whole = Vec::new();
        let mut room: Option<OwnedSemaphorePermit> = None;
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|_| Problem::bad_request("the body could not be read"))?;
            let Ok(data) = frame.into_data() else {
                continue;
            };
            let length = whole.len() + data.len();
            if length > MAX_BYTES {
                return Err(Problem::new(
                    StatusCode::PAYLOAD_TOO_LARGE,
                    format!("the body is larger than {MAX_BYTES} bytes"),
                ));
            }
            let held = room.as_ref().map_or(0, OwnedSemaphorePermit::num_permits);
            let more = length.saturating_sub(SMALL + held);
            // At most MAX_BYTES.
            let more = u32::try_from(more).unwrap_or(u32::MAX);
            let Ok(more) = self.0.clone().try_acquire_many_owned(more) else {
                return Err(Problem::new(
                    StatusCode::SERVICE_UNAVAILABLE,
                    "too many large bodies arrive at once; try again, or send a smaller one",
                ));
            };
            match &mut room {
                Some(room) => room.merge(more),
                None => room = Some(more),
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.into())
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

#[cfg(test)]
mod tests {
    use super::*;

    /// Slow large bodies use up the room of large ones, and small ones are read all the same.
    #[tokio::test]
    async fn all_bodies_together_are_bounded() {
        let bodies = Bodies::default();
        let large = || Body::from(vec![b'x'; MAX_BYTES]);
        assert_eq!(bodies.read(large()).await.unwrap().len(), MAX_BYTES);
        assert_eq!(bodies.0.available_permits(), ROOM, "its room is free again");
        let others = bodies
            .0
            .clone()
            .acquire_many_owned(u32::try_from(ROOM).unwrap())
            .await
            .unwrap();
        let refused = bodies.read(large()).await.unwrap_err();
        assert_eq!(refused.status(), 503);
        let small = bodies.read(Body::from(vec![b'x'; SMALL])).await.unwrap();
        assert_eq!(small.len(), SMALL);
        drop(others);
        assert!(bodies.read(large()).await.is_ok());
        let larger = Body::from(vec![b'x'; MAX_BYTES + 1]);
        assert_eq!(bodies.read(larger).await.unwrap_err().status(), 413);
    }
}
