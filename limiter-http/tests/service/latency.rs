//! What the headers say when the inner service takes its time.

use std::convert::Infallible;
use std::time::Duration;

use http::{Request, Response};
use limiter_core::clock::{Clock, Timestamp};
use limiter_core::limit::Unit;
use limiter_http::{HeaderStyle, RateLimitLayer, ResetFormat, Responder};
use tokio::time::{Instant, sleep};
use tower::{Layer, ServiceExt, service_fn};

use crate::support::{NOW, World, assert_429, from_client, header, hourly, read};

/// Tokio's time, which is paused here and moves only while everything waits, counted from [`NOW`].
#[derive(Debug)]
struct PausedClock(Instant);

impl Clock for PausedClock {
    fn now(&self) -> Timestamp {
        NOW.saturating_add(self.0.elapsed())
    }
}

fn request() -> Request<()> {
    from_client("203.0.113.9:1")
}

#[tokio::test(start_paused = true)]
async fn a_slow_answer_shortens_spans_and_moves_no_moment() {
    let slow = service_fn(|_: Request<()>| async {
        sleep(Duration::from_secs(3)).await;
        Ok::<_, Infallible>(Response::new("Dear Sir or Madam".to_owned()))
    });
    for (format, reset) in [
        (ResetFormat::Epoch, "1700003600"),
        (ResetFormat::Delta, "3597"),
    ] {
        let world = World::new();
        let responder = Responder::default()
            .headers(HeaderStyle::default().reset(format).openai(true))
            .clock(PausedClock(Instant::now()));
        let tokens = hourly("tokens", 1).with_unit(Unit::Tokens);
        let layer = RateLimitLayer::new(world.limiter.clone(), tokens).responder(responder);
        let service = layer.layer(slow);

        // The window was opened at NOW; the headers are written three seconds later.
        let started = Instant::now();
        let response = service.clone().oneshot(request()).await.unwrap();
        assert_eq!(started.elapsed(), Duration::from_secs(3));
        assert_eq!(response.status(), 200);
        assert_eq!(header(&response, "x-ratelimit-reset"), Some(reset));
        assert_eq!(
            header(&response, "ratelimit"),
            Some(r#""tokens";r=0;t=3597"#)
        );
        assert_eq!(
            header(&response, "x-ratelimit-reset-tokens"),
            Some("59m57s")
        );

        world.clock.advance(Duration::from_secs(3));
        // A refusal waits for nobody.
        let started = Instant::now();
        let refused = read(service.oneshot(request()).await.unwrap()).await;
        assert_eq!(started.elapsed(), Duration::ZERO);
        let problem = assert_429(&refused);
        assert_eq!(problem["retry_after_seconds"], 3597);
        assert_eq!(header(&refused, "retry-after"), Some("3597"));
        assert_eq!(header(&refused, "x-ratelimit-reset"), Some(reset));
        assert_eq!(header(&refused, "retry-after-ms"), Some("3597000"));
        assert_eq!(header(&refused, "x-ratelimit-reset-tokens"), Some("59m57s"));
    }
}
