//! A budget of AI tokens for each tenant and day: reserved before a call, settled to what a stream used, given back on failure.
//!
//! `cargo run -p programs --bin token-budget`

use std::time::Duration;

use futures_util::stream::{self, BoxStream, StreamExt as _};
use limiter::{Calendar, Key, Limiter, ModelCallReserved, Policy, Quota, TokenUsage, Unit};

type Failure = Box<dyn std::error::Error>;
type Pieces = BoxStream<'static, Result<&'static str, &'static str>>;

/// What a provider streams: pieces of text, until it fails. This one is made up.
async fn ask(prompt: &str) -> Result<Pieces, Failure> {
    match prompt {
        "down" => Err("the provider is down".into()),
        "breaks" => Ok(stream::iter([Ok("Dear "), Err("the stream broke")]).boxed()),
        _ => Ok(stream::iter([Ok("Dear "), Ok("Sir "), Ok("or Madam")]).boxed()),
    }
}

async fn letter(by: &Limiter, budget: (&Policy, &Key), prompt: &str) -> Result<String, Failure> {
    // The prompt and the longest answer are 4,000 tokens, and no call takes longer than two minutes.
    let two_minutes = Duration::from_secs(120);
    let reserved = by.reserve_model_call(&[budget], 4_000, two_minutes).await?;
    let ModelCallReserved::Held(mut call) = reserved else {
        return Err("no tokens are left today".into());
    };
    call.started(); // from here on a dropped call stays charged: the provider counts it, too
    let mut pieces = match ask(prompt).await {
        Ok(pieces) => pieces,
        Err(error) => {
            call.cancel().await?; // nothing was used
            return Err(error);
        }
    };
    let (mut completion, mut text) = (0, Ok(String::new()));
    while let Some(piece) = pieces.next().await {
        completion += if piece.is_ok() { 500 } else { 0 };
        text = text.and_then(|text| Ok(text + piece?));
    }
    let prompt = 1_000; // whole or broken: what was streamed is paid for
    call.settle(TokenUsage { prompt, completion }).await?;
    text
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let limiter = limiter::from_env().await?.limiter; // Redis if REDIS_URL is set, else memory
    let quota = Quota::calendar_window(10_000, Calendar::Day)?;
    let budget = Policy::new("tokens", quota)?.with_unit(Unit::Tokens);
    let key = budget.key(["acme"]);
    for prompt in ["good", "down", "breaks", "good", "good"] {
        let letter = letter(&limiter, (&budget, &key), prompt).await;
        let used = limiter.peek(&budget, &key).await?.used;
        eprintln!("{prompt}: {letter:?}, {used} used");
    }
    Ok(())
}
