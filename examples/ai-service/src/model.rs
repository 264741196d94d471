//! The model: an OpenAI-compatible endpoint, or a built-in one for a demo without a network.

use std::fmt;
use std::time::Duration;

use limiter::ai_cache::CanonicalJson;
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::settings::ModelSettings;

/// How long a model may take.
const TIMEOUT: Duration = Duration::from_secs(60);

/// How long the built-in one takes, so that a cache's worth shows.
const OFFLINE_DELAY: Duration = Duration::from_millis(300);

/// What a model answered.
#[derive(Clone, Deserialize, Serialize)]
pub(crate) struct Completion {
    pub(crate) text: String,
    pub(crate) model: String,
}

/// Why there is no answer.
#[derive(Clone, Debug)]
pub(crate) struct ModelError(String);

impl fmt::Display for ModelError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for ModelError {}

pub(crate) enum Model {
    Offline,
    OpenAi(OpenAi),
}

pub(crate) struct OpenAi {
    client: reqwest::Client,
    url: String,
    api_key: SecretString,
    model: String,
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
        }))
    }

    /// The model's name: a part of cache keys.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Offline => "offline",
            Self::OpenAi(openai) => &openai.model,
        }
    }

    /// Asks for one operation with its parameters: the text that a cached answer's key is made of.
    pub(crate) async fn complete(
        &self,
        operation: &str,
        parameters: &CanonicalJson,
    ) -> Result<Completion, ModelError> {
        let text = match self {
            Self::Offline => {
                tokio::time::sleep(OFFLINE_DELAY).await;
                format!(
                    "This is the built-in offline model; set AI_BASE_URL, AI_API_KEY and AI_MODEL for a real one. It was asked for {operation} with {parameters}."
                )
            }
            Self::OpenAi(openai) => openai.complete(operation, parameters).await?,
        };
        Ok(Completion {
            text,
            model: self.name().to_owned(),
        })
    }
}

#[derive(Deserialize)]
struct ChatCompletion {
    choices: Vec<Choice>,
}

#[derive(Deserialize)]
struct Choice {
    message: Message,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Message {
    content: Option<String>,
}

impl OpenAi {
    async fn complete(
        &self,
        operation: &str,
        parameters: &CanonicalJson,
    ) -> Result<String, ModelError> {
        let request = json!({
            "model": self.model,
            "messages": [
                { "role": "system", "content": format!("You help a job seeker. Task: {operation}. The parameters are JSON.") },
                { "role": "user", "content": parameters.as_str() },
            ],
        });
        let failed = |error: reqwest::Error| ModelError(error.without_url().to_string());
        let response = self
            .client
            .post(&self.url)
            .bearer_auth(self.api_key.expose_secret())
            .json(&request)
            .send()
            .await
            .and_then(reqwest::Response::error_for_status)
            .map_err(failed)?;
        let completion: ChatCompletion = response.json().await.map_err(failed)?;
        let choice = completion.choices.into_iter().next();
        // Neither an empty answer nor half of one is an answer; above all it is not cached.
        let whole =
            |choice: &Choice| matches!(choice.finish_reason.as_deref(), None | Some("stop"));
        choice
            .filter(whole)
            .and_then(|choice| choice.message.content)
            .filter(|text| !text.trim().is_empty())
            .ok_or_else(|| ModelError("the model's answer was empty or cut off".to_owned()))
    }
}
