//! The model: an OpenAI-compatible endpoint, or a built-in one for a demo without a network.

use std::fmt;
use std::sync::LazyLock;
use std::time::{Duration, SystemTime};

use limiter::ai_cache::CanonicalJson;
use limiter::{CallFailure, Spent, TokenUsage};
use reqwest::StatusCode;
use reqwest::header::RETRY_AFTER;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;
use sha2::{Digest, Sha256};

use crate::http::room::{Refused, Room};
use crate::settings::ModelSettings;

/// How long a model may take.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(60);

/// How long the built-in one takes, so that a cache's worth shows.
const OFFLINE_DELAY: Duration = Duration::from_millis(300);

/// The largest answer that is read, with all that stands around it: 1 MiB.
const MAX_BYTES: usize = 1 << 20;

/// The longest answer that is kept: 64 KiB, many times what [`MAX_TOKENS`] come to.
const MAX_TEXT: usize = 64 << 10;

/// The most tokens that an answer may have.
const MAX_TOKENS: u64 = 1_024;

/// How long callers wait for a provider that says nothing of it.
const BUSY: u64 = 30;

/// What the model is told beside the parameters.
const PROMPT: &str = "You help a job seeker. The parameters are JSON. Task: ";

/// Another prompt asks another question: a part of cache keys.
pub(crate) static PROMPT_VERSION: LazyLock<String> = LazyLock::new(|| {
    let digest = Sha256::digest(PROMPT.as_bytes());
    digest
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect()
});

/// What a model answered.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Completion {
    pub(crate) text: String,
    pub(crate) model: String,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(crate) struct ModelError {
    what: String,
    /// The provider has limits of its own, and said for how long; in seconds.
    pub(crate) busy: Option<u64>,
    /// The provider refused the question: another one may be answered.
    pub(crate) is_refused: bool,
}

impl ModelError {
    fn new(what: impl Into<String>) -> Self {
        Self {
            what: what.into(),
            busy: None,
            is_refused: false,
        }
    }
}

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.what)
    }
}

impl std::error::Error for ModelError {}

impl From<reqwest::Error> for ModelError {
    fn from(error: reqwest::Error) -> Self {
        Self::new(error.without_url().to_string())
    }
}

/// An answer, and what the provider reports that it used.
pub(crate) type Asked = Result<(Completion, Option<TokenUsage>), CallFailure<ModelError>>;

pub(crate) enum Model {
    Offline,
    OpenAi(OpenAi),
}

pub(crate) struct OpenAi {
    client: reqwest::Client,
    url: String,
    api_key: SecretString,
    model: String,
    /// Of the answers that are being read.
    room: Room,
}

impl Model {
    /// The endpoint that the settings name, or the built-in one.
    pub(crate) fn new(settings: Option<&ModelSettings>) -> Result<Self, String> {
        let Some(settings) = settings else {
            tracing::info!("AI_BASE_URL is not set; answers come from the built-in offline model");
            return Ok(Self::Offline);
        };
        // Lost only to a provider that is there already.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let client = reqwest::Client::builder()
            .timeout(TIMEOUT)
            .build()
            .map_err(|error| format!("the HTTP client cannot be made: {error}"))?;
        let url = format!(
            "{}/chat/completions",
            settings.base_url.trim_end_matches('/')
        );
        reqwest::Url::parse(&url).map_err(|error| format!("AI_BASE_URL is no URL: {error}"))?;
        tracing::info!(model = settings.model, "answers come from AI_BASE_URL");
        Ok(Self::OpenAi(OpenAi {
            client,
            url,
            api_key: settings.api_key.clone(),
            model: settings.model.clone(),
            room: Room::default(),
        }))
    }

    /// The model's name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Offline => "offline",
            Self::OpenAi(openai) => &openai.model,
        }
    }

    /// Whose model it is, and which: a part of cache keys. Two providers have models of one name.
    pub(crate) fn identity(&self) -> String {
        match self {
            Self::Offline => "offline".to_owned(),
            Self::OpenAi(openai) => format!("{} at {}", openai.model, openai.url),
        }
    }

    /// The most tokens that a question takes, with its answer. A token is about four bytes of text.
    pub(crate) fn estimate(parameters: &CanonicalJson) -> u64 {
        tokens(PROMPT) + tokens(parameters.as_str()) + MAX_TOKENS
    }

    /// Asks for one operation with its parameters: the text that a cached answer's key is made of.
    pub(crate) async fn complete(&self, operation: &str, parameters: &CanonicalJson) -> Asked {
        let (text, usage) = match self {
            Self::Offline => {
                tokio::time::sleep(OFFLINE_DELAY).await;
                let text = format!(
                    "This is the built-in offline model; set AI_BASE_URL, AI_API_KEY and AI_MODEL for a real one. It was asked for {operation} with {parameters}."
                );
                let usage = TokenUsage {
                    prompt: tokens(PROMPT) + tokens(parameters.as_str()),
                    completion: tokens(&text),
                };
                (text, Some(usage))
            }
            Self::OpenAi(openai) => openai.complete(operation, parameters).await?,
        };
        let model = self.name().to_owned();
        Ok((Completion { text, model }, usage))
    }
}

fn tokens(text: &str) -> u64 {
    u64::try_from(text.len().div_ceil(4)).unwrap_or(u64::MAX)
}

#[derive(Deserialize)]
struct ChatCompletion {
    choices: Vec<Choice>,
    usage: Option<Usage>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<Content>,
}

/// A text, or parts of which some are text.
#[derive(Deserialize)]
#[serde(untagged)]
enum Content {
    Text(String),
    Parts(Vec<Part>),
}

#[derive(Deserialize)]
struct Part {
    text: Option<String>,
}

#[derive(Clone, Copy, Deserialize)]
struct Usage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    total_tokens: Option<u64>,
}

impl Usage {
    /// What it says, if it says something.
    fn told(self) -> Option<TokenUsage> {
        let (prompt, completion) = match (self.prompt_tokens, self.completion_tokens) {
            (Some(prompt), Some(completion)) => (prompt, completion),
            _ => (self.total_tokens?, 0),
        };
        Some(TokenUsage { prompt, completion })
    }
}

impl From<Content> for String {
    fn from(content: Content) -> Self {
        match content {
            Content::Text(text) => text,
            Content::Parts(parts) => parts.into_iter().filter_map(|part| part.text).collect(),
        }
    }
}

impl OpenAi {
    async fn complete(
        &self,
        operation: &str,
        parameters: &CanonicalJson,
    ) -> Result<(String, Option<TokenUsage>), CallFailure<ModelError>> {
        let request = json!({
            "model": self.model,
            "max_tokens": MAX_TOKENS,
            "messages": [
                { "role": "system", "content": format!("{PROMPT}{operation}") },
                { "role": "user", "content": parameters.as_str() },
            ],
        });
        let response = self.send(&request).await?;
        let body = read(&self.room, response).await?;
        let completion: ChatCompletion = serde_json::from_slice(&body)
            // Serde's own words repeat what stands there.
            .map_err(|_| ModelError::new("the model's answer is no chat completion"))?;
        let usage = completion.usage.and_then(Usage::told);
        let no_answer = |what: &str| CallFailure {
            error: ModelError::new(what),
            spent: usage.map_or(Spent::Unknown, Spent::Tokens),
        };
        let choice = completion.choices.into_iter().next();
        let choice = choice.ok_or_else(|| no_answer("the model gave no choice"))?;
        // Neither half an answer nor an empty one is an answer; above all it is not cached. Providers end whole ones with words
        // of their own.
        match choice.finish_reason.as_deref() {
            Some("length") => return Err(no_answer("the model's answer was cut off")),
            Some("content_filter") => return Err(no_answer("the model's answer was withheld")),
            _ => {}
        }
        let text = choice.message.content.map(String::from).unwrap_or_default();
        if text.trim().is_empty() {
            return Err(no_answer("the model's answer was empty"));
        }
        if text.len() > MAX_TEXT {
            return Err(no_answer("the model's answer is longer than was asked for"));
        }
        Ok((text, usage))
    }

    /// The head of an answer. Who could not be reached, is too busy or fails by itself charges nothing; whoever takes too long may
    /// have done the work.
    async fn send(
        &self,
        request: &serde_json::Value,
    ) -> Result<reqwest::Response, CallFailure<ModelError>> {
        let sent = self
            .client
            .post(&self.url)
            .bearer_auth(self.api_key.expose_secret())
            .json(request)
            .send()
            .await;
        let response = sent.map_err(|error| {
            let was_sent = !(error.is_connect() || error.is_builder());
            let error = ModelError::from(error);
            match was_sent {
                true => CallFailure::from(error),
                false => CallFailure::unspent(error),
            }
        })?;
        match response.status() {
            StatusCode::TOO_MANY_REQUESTS => {
                let wait = response.headers().get(RETRY_AFTER);
                let wait = wait.and_then(|value| seconds(value.to_str().ok()?));
                Err(CallFailure::unspent(ModelError {
                    busy: Some(wait.unwrap_or(BUSY)),
                    ..ModelError::new("the provider's own limit is used up")
                }))
            }
            StatusCode::BAD_REQUEST
            | StatusCode::PAYLOAD_TOO_LARGE
            | StatusCode::UNPROCESSABLE_ENTITY => Err(CallFailure::unspent(ModelError {
                is_refused: true,
                ..ModelError::new(format!(
                    "the provider refused the question: {}",
                    response.status()
                ))
            })),
            _ => response
                .error_for_status()
                .map_err(|error| CallFailure::unspent(ModelError::from(error))),
        }
    }
}

/// The body, of at most [`MAX_BYTES`], and no more than there is room for beside the others.
async fn read(room: &Room, mut response: reqwest::Response) -> Result<Vec<u8>, ModelError> {
    let mut body = room.body(None, MAX_BYTES);
    while let Some(chunk) = response.chunk().await? {
        body.add(&chunk).map_err(|refused| match refused {
            Refused::TooLarge => ModelError::new(format!(
                "the model's answer is larger than {MAX_BYTES} bytes"
            )),
            Refused::NoRoom => ModelError::new("too many large answers of the model at once"),
        })?;
    }
    Ok(body.whole())
}

/// A `Retry-After` in whole seconds, from 1 to a day: a number, or a date (RFC 9110, section 10.2.3).
fn seconds(text: &str) -> Option<u64> {
    let seconds = match text.trim().parse::<u64>() {
        Ok(seconds) => seconds,
        Err(_) => {
            let date = httpdate::parse_http_date(text.trim()).ok()?;
            let wait = date.duration_since(SystemTime::now()).unwrap_or_default();
            wait.as_secs() + 1
        }
    };
    Some(seconds.clamp(1, 86_400))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_providers_time_to_wait_is_read_in_both_forms() {
        for (text, expected) in [
            ("20", Some(20)),
            (" 0 ", Some(1)),
            ("99999999", Some(86_400)),
            ("soon", None),
            ("Wed, 21 Oct 2015 07:28:00 GMT", Some(1)),
        ] {
            assert_eq!(seconds(text), expected, "{text}");
        }
        let later = SystemTime::now() + Duration::from_secs(90);
        let wait = seconds(&httpdate::fmt_http_date(later)).unwrap();
        assert!((88..=91).contains(&wait), "{wait}");
    }

    #[test]
    fn content_is_a_text_or_parts() {
        for (json, expected) in [
            (r#"{"content": "a"}"#, Some("a")),
            (
                r#"{"content": [{"type": "text", "text": "a"}, {"type": "image"}, {"text": "b"}]}"#,
                Some("ab"),
            ),
            (r#"{"content": null}"#, None),
            ("{}", None),
        ] {
            let message: Message = serde_json::from_str(json).unwrap();
            assert_eq!(
                message.content.map(String::from).as_deref(),
                expected,
                "{json}"
            );
        }
    }

    #[test]
    fn usage_that_says_nothing_is_none() {
        for (json, expected) in [
            (
                r#"{"prompt_tokens": 40, "completion_tokens": 60, "total_tokens": 100}"#,
                Some(100),
            ),
            (r#"{"total_tokens": 100}"#, Some(100)),
            (r#"{"prompt_tokens": 40}"#, None),
            ("{}", None),
        ] {
            let usage: Usage = serde_json::from_str(json).unwrap();
            assert_eq!(usage.told().map(TokenUsage::total), expected, "{json}");
        }
    }
}
