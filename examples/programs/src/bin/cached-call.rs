//! A model's answers, cached: the second call of a question costs nothing, on every instance that shares the Redis.
//!
//! `cargo run -p programs --bin cached-call`

use std::error::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use limiter::ai_cache::{AiCache, CacheConfig, CanonicalJson};
use serde_json::json;

/// The client of a provider; this one is made up, and counts what it is asked.
#[derive(Default)]
struct Provider {
    asked: AtomicU32,
}

impl Provider {
    async fn ask(&self, question: &str) -> Result<String, std::io::Error> {
        self.asked.fetch_add(1, Ordering::Relaxed);
        if question.contains("nobody") {
            return Err(std::io::Error::other("the provider is down"));
        }
        Ok(format!("what the model says to {question}"))
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let backends = limiter::from_env().await?; // Redis if REDIS_URL is set, else memory
    // Another model or another version of the prompt has other answers. Make one cache for an operation, and keep it.
    let config = CacheConfig::company_research("1").with_model("some-model");
    let cache: AiCache<String> = AiCache::new(backends.cache, config);
    let provider = Arc::new(Provider::default());

    for company in ["Acme", "Acme", "Globex", "nobody", "nobody"] {
        // The call is made by a task of its own, which a caller that leaves does not end: so it owns what it uses.
        let ask = {
            let provider = provider.clone();
            move |question: CanonicalJson| async move { provider.ask(question.as_str()).await }
        };
        match cache
            .get_or_compute(&json!({ "company": company }), ask)
            .await
        {
            Ok(answer) => eprintln!("{company}: {} ({})", answer.value, answer.origin.x_cache()),
            Err(error) => eprintln!("{company}: {error}"), // never stored
        }
    }
    eprintln!("asked {} times", provider.asked.load(Ordering::Relaxed));
    Ok(())
}
