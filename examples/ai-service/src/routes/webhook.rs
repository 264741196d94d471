//! `POST /webhooks/{provider}`: signed messages from other services, each taken once, limited per provider (C1, C4).
//!
//! A message is signed with its provider's secret over its time, its provider, its id and its body. So nobody can send an old one
//! again, or one provider's as another's.

use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, StatusCode};
use axum::response::{IntoResponse, Response};
use hmac::{Hmac, KeyInit, Mac};
use limiter::{CacheKey, Charge, ErrorKind, GroupDecision, Key, OperationId};
use secrecy::{ExposeSecret, SecretString};
use serde_json::json;
use sha2::Sha256;

use crate::app::App;
use crate::http::body;
use crate::http::header::only;
use crate::http::log;
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

/// How far a message's time may be from now.
const AGE: Duration = Duration::from_secs(300);

/// How long ids are remembered: from the first moment at which a message counts to the last.
const REMEMBERED: Duration = Duration::from_secs(600);

/// The longest id.
const MAX_ID: usize = 200;

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
    let secret = app.webhook_secrets.get(provider).ok_or_else(|| {
        Problem::not_found("this provider is not set up; the service needs its secret")
    })?;
    let message = Message::of(&headers, provider)?;
    let body = body::read(&app.room, body).await?;
    // Before the limiter: a stranger must not use up the provider's limit.
    message.check(secret, &body, SystemTime::now())?;
    take(&app, &message, &body).await
}

/// Charges a message, once however often it comes, and takes it.
async fn take(app: &App, message: &Message<'_>, body: &Bytes) -> Result<Response, Problem> {
    let (provider, id) = (message.provider, message.id);
    let key = Key::new(["ratelimit", TENANT, "webhook", "webhooks", "POST", provider]);
    let policy = app.policies.webhook.of(&key);
    // The same message at the same time is one charge.
    let digest = Key::builder().token(id).build();
    let operation = OperationId::new(format!("{provider}:{digest}"));
    let charges = [Charge::new(&policy, &key)];
    let (decision, charged) = match app.limiter.charge_once(&operation, &charges).await {
        Ok(charged) => charged,
        // It came again, and its charge was given back.
        Err(error) if error.kind() == ErrorKind::Conflict => return Ok(answer(true, body)),
        Err(error) => (GroupDecision::unavailable([&policy], &error), None),
    };
    if let Some(refusal) = app.responder.refusal(&decision, "webhook") {
        log::denied_by(policy.name());
        return Ok(refusal);
    }
    let seen = CacheKey::new(&Key::new(["cache", "webhook", provider]), digest.as_str());
    let times = app.cache.increment(&seen, 1, REMEMBERED).await;
    let is_again = times.map_err(|_| failed())? > 1;
    if let Some(charged) = charged.filter(|charged| is_again && !charged.is_replay()) {
        // Later than a charge is remembered.
        charged.refund_detached();
    }
    let mut response = answer(is_again, body);
    app.responder.write_headers(&decision, &mut response);
    Ok(response)
}

/// The sender stops sending a message that was taken, also one that was taken before.
fn answer(is_again: bool, body: &Bytes) -> Response {
    let taken = json!({ "accepted": true, "duplicate": is_again, "bytes": body.len() });
    (StatusCode::ACCEPTED, Json(taken)).into_response()
}

fn failed() -> Problem {
    Problem::new(
        StatusCode::SERVICE_UNAVAILABLE,
        "it could not be checked whether this message came before; send it again",
    )
    .retry_after(1)
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
            .ok_or_else(|| wrong("the message is not signed"))?;
        // Plain, so that what is signed can be read in one way only: a full stop in it could be one between id and body.
        let id = only(headers, &ID)?
            .filter(|id| id.len() <= MAX_ID && is_plain(id))
            .ok_or_else(|| wrong("the message has no id of 1 to 200 letters, digits, - and _"))?;
        let timestamp =
            only(headers, &TIMESTAMP)?.ok_or_else(|| wrong("the message has no time"))?;
        Ok(Self {
            provider,
            id,
            timestamp,
            signature,
        })
    }

    /// Compared in constant time.
    fn check(&self, secret: &SecretString, body: &[u8], now: SystemTime) -> Result<(), Problem> {
        let secret = secret.expose_secret().as_bytes();
        let mac = Hmac::<Sha256>::new_from_slice(secret);
        let mut mac = mac.map_err(|_| wrong("the signature cannot be checked"))?;
        for part in [self.timestamp, self.provider, self.id] {
            mac.update(part.as_bytes());
            mac.update(b".");
        }
        mac.update(body);
        mac.verify_slice(&self.signature)
            .map_err(|_| wrong("the signature is another one"))?;
        let sent: u64 = self
            .timestamp
            .parse()
            .map_err(|_| wrong("the time is no number of seconds"))?;
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default();
        if now.as_secs().abs_diff(sent) > AGE.as_secs() {
            return Err(wrong("the message is more than five minutes old, or ahead"));
        }
        Ok(())
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
            message.is_ok_and(|message| message.check(&"hunter2".into(), BODY, now).is_ok())
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
