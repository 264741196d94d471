//! `POST /webhooks/{provider}`: signed messages from other services, limited per provider (C1, C4).

use std::sync::Arc;

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use limiter::Key;
use secrecy::ExposeSecret;
use sha2::Sha256;

use crate::app::App;
use crate::body;
use crate::header::only;
use crate::path::Path;
use crate::problem::Problem;

/// Who sends webhooks. A closed list: each name is a counter, and a name that anybody may make up would
/// be a limit that anybody may start anew.
const PROVIDERS: [&str; 4] = ["github", "sendgrid", "slack", "stripe"];

const SIGNATURE: HeaderName = HeaderName::from_static("x-signature");

/// The tenant whose webhooks this demo receives.
const TENANT: &str = "demo";

pub(crate) async fn receive(
    State(app): State<Arc<App>>,
    Path(provider): Path<String>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, Problem> {
    let provider = PROVIDERS
        .into_iter()
        .find(|name| *name == provider)
        .ok_or_else(|| {
            let names = PROVIDERS.join(", ");
            Problem::not_found(format!("there is no such provider; there are {names}"))
        })?;
    let body = body::read(body).await?;
    // Before the limiter: a stranger must not use up the provider's limit.
    check_signature(app.webhook_secret.expose_secret(), &headers, &body)?;
    let key = Key::new(["ratelimit", TENANT, "webhook", "webhooks", "POST", provider]);
    let decision = app
        .limiter
        .check(&app.policies.webhook.of(&key), &key)
        .await;
    if let Some(refusal) = app.responder.refusal(&decision, "webhook") {
        return Ok(refusal);
    }
    let accepted = Json(serde_json::json!({ "accepted": true, "bytes": body.len() }));
    let mut response = (StatusCode::ACCEPTED, accepted).into_response();
    app.responder.write_headers(&decision, &mut response);
    Ok(response)
}

/// `X-Signature: sha256=<hex HMAC-SHA-256 of the body>`, compared in constant time.
fn check_signature(secret: &str, headers: &HeaderMap, body: &[u8]) -> Result<(), Problem> {
    let wrong = || {
        Problem::unauthorized(
            "sign the body: X-Signature: sha256=<hex HMAC-SHA-256 under the webhook secret>",
        )
    };
    let signature = only(headers, &SIGNATURE)?
        .and_then(|value| value.strip_prefix("sha256="))
        .and_then(unhex)
        .ok_or_else(wrong)?;
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).map_err(|_| wrong())?;
    mac.update(body);
    mac.verify_slice(&signature).map_err(|_| wrong())
}

/// 64 hex digits as 32 bytes.
fn unhex(text: &str) -> Option<[u8; 32]> {
    if text.len() != 64 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return None;
    }
    let mut bytes = [0; 32];
    for (byte, digits) in bytes.iter_mut().zip(text.as_bytes().chunks_exact(2)) {
        let digits = std::str::from_utf8(digits).ok()?;
        *byte = u8::from_str_radix(digits, 16).ok()?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test case 2.
    #[test]
    fn signatures_are_checked_to_the_last_digit() {
        let good = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        let check = |signature: &str| {
            let mut headers = HeaderMap::new();
            headers.insert("x-signature", signature.parse().unwrap());
            check_signature("Jefe", &headers, b"what do ya want for nothing?").is_ok()
        };
        assert!(check(&format!("sha256={good}")));
        assert!(check(&format!("sha256={}", good.to_uppercase())));
        let wrong_last = format!("sha256={}4", &good[..63]);
        for bad in [wrong_last.as_str(), good, "sha256=", "sha256=zz", "sha1=00"] {
            assert!(!check(bad), "{bad}");
        }
    }
}
