//! `POST /webhooks/{provider}`: signed messages from other services, each taken once, limited per provider (C1, C4).
//!
//! A message is signed with its provider's secret over its time, its provider, its id and its body. So nobody can send an old one
//! again, or one provider's as another's.
//!
//! A message is taken at most once: if the answer to its charge is lost, the next try is a duplicate. A service that must lose none
//! reserves the id (`Limiter::reserve_as`), does the work, and settles: `Reserved::Settled` is then the duplicate.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use limiter::{Charge, GroupDecision, Key, OperationId};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sha2::Sha256;

use crate::app::App;
use crate::http::body;
use crate::http::header::only;
use crate::http::path::Path;
use crate::http::problem::Problem;
use crate::users::is_plain;

/// Who sends webhooks. A closed list: each name is a counter, and a name that anybody may make up would
/// be a limit that anybody may start anew.
pub(crate) const PROVIDERS: [&str; 4] = ["github", "sendgrid", "slack", "stripe"];

/// What all of them sign with in the demo, and only there.
pub(crate) const DEMO_SECRET: &str = "demo-webhook-secret";

const ID: HeaderName = HeaderName::from_static("x-webhook-id");
const TIMESTAMP: HeaderName = HeaderName::from_static("x-webhook-timestamp");
const SIGNATURE: HeaderName = HeaderName::from_static("x-signature");

/// How long the body of somebody who is not known yet may take.
const PATIENCE: Duration = Duration::from_secs(5);

/// How far a message's time may be from now.
const AGE: Duration = Duration::from_secs(300);

/// How long ids are remembered: from the first moment at which a message counts to the last, and the second that a time is
/// rounded by.
const REMEMBERED: Duration = Duration::from_secs(601);

/// The longest id.
const MAX_ID: usize = 200;

/// The tenant whose webhooks this demo receives.
const TENANT: &str = "demo";

pub(crate) async fn receive(
    State(app): State<Arc<App>>,
    Path(provider): Path<String>,
    request: Request,
) -> Result<Response, Problem> {
    let (parts, body) = request.into_parts();
    let headers = &parts.headers;
    let provider = PROVIDERS
        .into_iter()
        .find(|name| *name == provider)
        .ok_or_else(|| {
            let names = PROVIDERS.join(", ");
            Problem::not_found(format!("there is no such provider; there are {names}"))
        })?;
    let secret = app.webhook_secrets.get(provider).ok_or_else(|| {
        Problem::not_found("this provider is not set up; the service needs its secret")
    })?;
    let message = Message::of(headers, provider)?;
    message.is_recent(SystemTime::now())?;
    // From anybody, so it is read in a room of its own and not for long.
    let stranger = app.clients.of(&parts).map(|client| client.to_string());
    let stranger = stranger.unwrap_or_default();
    let body = body::read(&app.strangers, &stranger, body, PATIENCE).await?;
    // Before the limiter: a stranger must not use up the provider's limit.
    message.check(secret, &body)?;
    Ok(take(&app, &message, &body).await)
}

/// Charges a message and takes it, once however often it comes: that is one step in the limits' store, where nothing is evicted.
async fn take(app: &App, message: &Message<'_>, body: &Bytes) -> Response {
    let (provider, id) = (message.provider, message.id);
    let key = Key::new(["ratelimit", TENANT, "webhook", "webhooks", "POST", provider]);
    let policy = app.policies.webhook.of(&key);
    let operation = OperationId::new(format!("{provider}:{id}"));
    let charges = [Charge::new(&policy, &key)];
    let charged = app
        .limiter
        .charge_once_within(&operation, REMEMBERED, &charges)
        .await;
    let decision = match charged {
        Ok((decision, _)) => decision,
        Err(error) => {
            if !error.kind().is_outage() {
                tracing::error!(%error, "a webhook is not charged");
            }
            GroupDecision::unavailable([&policy], &error)
        }
    };
    if !decision.is_allowed() {
        return app.refused(&decision, "webhook");
    }
    // The sender stops sending a message that was taken, also one that was taken before.
    let taken = json!({ "accepted": true, "duplicate": decision.is_replay(), "bytes": body.len() });
    let mut response = (StatusCode::ACCEPTED, Json(taken)).into_response();
    app.responder.write_headers(&decision, &mut response);
    response
}

/// What stands in the headers of a message.
struct Message<'a> {
    provider: &'a str,
    id: &'a str,
    timestamp: &'a str,
    signature: [u8; 32],
}

fn wrong(what: &str) -> Problem {
    Problem::unauthorized(format!(
        "{what}; send X-Webhook-Id, X-Webhook-Timestamp (Unix seconds) and X-Signature: sha256=<hex HMAC-SHA-256 of TIMESTAMP.PROVIDER.ID.BODY under the provider's secret>"
    ))
}

impl<'a> Message<'a> {
    fn of(headers: &'a HeaderMap, provider: &'a str) -> Result<Self, Problem> {
        let signature = only(headers, &SIGNATURE)?
            .and_then(|value| value.strip_prefix("sha256="))
            .and_then(unhex)
            .ok_or_else(|| wrong("X-Signature is missing or has another form"))?;
        // Plain, so that what is signed can be read in one way only: a full stop in it could be one between id and body.
        let id = only(headers, &ID)?
            .filter(|id| id.len() <= MAX_ID && is_plain(id))
            .ok_or_else(|| {
                wrong("X-Webhook-Id is missing, or not 1 to 200 letters, digits, - and _")
            })?;
        let timestamp =
            only(headers, &TIMESTAMP)?.ok_or_else(|| wrong("X-Webhook-Timestamp is missing"))?;
        Ok(Self {
            provider,
            id,
            timestamp,
            signature,
        })
    }

    /// Whether its time is near enough.
    fn is_recent(&self, now: SystemTime) -> Result<(), Problem> {
        let sent: u64 = Some(self.timestamp)
            .filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()))
            .and_then(|text| text.parse().ok())
            .ok_or_else(|| wrong("X-Webhook-Timestamp is no number of seconds"))?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if now.as_secs().abs_diff(sent) > AGE.as_secs() {
            return Err(wrong(
                "X-Webhook-Timestamp is more than five minutes from now",
            ));
        }
        Ok(())
    }

    /// Compared in constant time.
    fn check(&self, secret: &SecretString, body: &[u8]) -> Result<(), Problem> {
        let secret = secret.expose_secret().as_bytes();
        let mac = Hmac::<Sha256>::new_from_slice(secret);
        let mut mac = mac.map_err(|_| wrong("the signature cannot be checked"))?;
        for part in [self.timestamp, self.provider, self.id] {
            mac.update(part.as_bytes());
            mac.update(b".");
        }
        mac.update(body);
        mac.verify_slice(&self.signature)
            .map_err(|_| wrong("X-Signature does not match"))
    }
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

    fn headers(signature: &str, timestamp: &str, id: &str) -> HeaderMap {
        let header = |name: HeaderName, value: &str| (name, value.parse().unwrap());
        HeaderMap::from_iter([
            header(SIGNATURE, signature),
            header(TIMESTAMP, timestamp),
            header(ID, id),
        ])
    }

    /// The signature is that of
    /// `printf '1700000000.stripe.evt_1.{"event": "paid"}' | openssl dgst -sha256 -hmac hunter2`.
    #[test]
    fn signatures_are_checked_to_the_last_digit() {
        const BODY: &[u8] = br#"{"event": "paid"}"#;
        let good = "41a46d3310cbe4cc100b2db4626c68c637ff12d1cb6b67b4eb35a29418d8bc8a";
        let check = |signature: &str, timestamp: &str, provider: &str, id: &str, now: u64| {
            let headers = headers(signature, timestamp, id);
            let message = Message::of(&headers, provider);
            let now = UNIX_EPOCH + Duration::from_secs(now);
            message.is_ok_and(|message| {
                message.is_recent(now).is_ok() && message.check(&"hunter2".into(), BODY).is_ok()
            })
        };
        let sent = 1_700_000_000;
        let signed = format!("sha256={good}");
        for now in [sent, sent - 300, sent + 300] {
            assert!(check(&signed, "1700000000", "stripe", "evt_1", now));
        }
        let upper = format!("sha256={}", good.to_uppercase());
        assert!(check(&upper, "1700000000", "stripe", "evt_1", sent));
        for now in [sent - 301, sent + 301, 0] {
            assert!(
                !check(&signed, "1700000000", "stripe", "evt_1", now),
                "{now}"
            );
        }
        for (timestamp, provider, id) in [
            ("1700000001", "stripe", "evt_1"),
            ("1700000000", "github", "evt_1"),
            ("1700000000", "stripe", "evt_2"),
            ("+1700000000", "stripe", "evt_1"),
            ("1700000000", "stripe", ""),
        ] {
            assert!(!check(&signed, timestamp, provider, id, sent));
        }
        // The same text, cut elsewhere: another id, and the rest of the body.
        let headers = headers(&signed, "1700000000", "evt_1.{\"event\": \"paid\"}");
        assert!(Message::of(&headers, "stripe").is_err());
        let wrong_last = format!("sha256={}0", &good[..63]);
        for bad in [wrong_last.as_str(), good, "sha256=", "sha256=zz", "sha1=00"] {
            assert!(!check(bad, "1700000000", "stripe", "evt_1", sent), "{bad}");
        }
    }
}
