//! What the environment says.

use std::fmt;
use std::fs;

use secrecy::SecretString;

/// The users of the demo, whose keys everybody knows.
pub(crate) const DEMO_USERS: &str = include_str!("../users.json");

/// Settings of one run; every variable has a default for the demo.
pub(crate) struct Settings {
    /// `BIND`: where to listen.
    pub(crate) bind: String,
    /// `USERS_FILE`: who may call, as JSON.
    pub(crate) users: String,
    /// `LIMITS_FILE`: the policies, as JSON.
    pub(crate) limits: String,
    /// `WEBHOOK_SECRET`: under which webhooks are signed; the demo's if unset.
    pub(crate) webhook_secret: Option<SecretString>,
    /// `AI_BASE_URL`, `AI_API_KEY`, `AI_MODEL`: the model, or none.
    pub(crate) model: Option<ModelSettings>,
}

/// An OpenAI-compatible endpoint.
pub(crate) struct ModelSettings {
    pub(crate) base_url: String,
    pub(crate) api_key: SecretString,
    pub(crate) model: String,
}

impl Settings {
    /// Reads the environment; an empty variable counts as unset.
    pub(crate) fn from_env() -> Result<Self, String> {
        let get = |name: &str| {
            std::env::var(name)
                .ok()
                .filter(|value| !value.trim().is_empty())
        };
        let file = |name: &str, default: &str| match get(name) {
            Some(path) => fs::read_to_string(&path)
                .map_err(|error| format!("{name} names {path}, which cannot be read ({error})")),
            None => Ok(default.to_owned()),
        };
        let model = match (get("AI_BASE_URL"), get("AI_API_KEY"), get("AI_MODEL")) {
            (Some(base_url), Some(api_key), Some(model)) => Some(ModelSettings {
                base_url,
                api_key: api_key.into(),
                model,
            }),
            (None, None, None) => None,
            _ => {
                return Err(
                    "AI_BASE_URL, AI_API_KEY and AI_MODEL go together; set all three or none"
                        .into(),
                );
            }
        };
        Ok(Self {
            bind: get("BIND").unwrap_or_else(|| "127.0.0.1:8080".to_owned()),
            users: file("USERS_FILE", DEMO_USERS)?,
            limits: file("LIMITS_FILE", include_str!("../limits.json"))?,
            webhook_secret: get("WEBHOOK_SECRET").map(SecretString::from),
            model,
        })
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("bind", &self.bind)
            .finish_non_exhaustive()
    }
}
