//! What the environment says.

use std::fmt;
use std::fs;

use limiter::config::ConfigFile;
use limiter::metrics::HostedPlan;
use secrecy::SecretString;

/// The users of the demo, whose keys everybody knows.
pub(crate) const DEMO_USERS: &str = include_str!("../users.json");

/// Settings of one run; every variable has a default for the demo.
pub(crate) struct Settings {
    /// `BIND`: where to listen.
    pub(crate) bind: String,
    /// `USERS_FILE`: who may call, as JSON.
    pub(crate) users: String,
    /// `LIMITS_FILE`: the policies; the demo's if unset.
    pub(crate) limits: Option<ConfigFile>,
    /// `SWITCH_FILE`: where limits are counted.
    pub(crate) switch: Option<ConfigFile>,
    /// `SWITCH_FOLLOW`: whether instances follow what an admin says of all of them.
    pub(crate) follow: bool,
    /// `INSTANCE`, or else `HOSTNAME`: a name that stays.
    pub(crate) instance: String,
    /// `AUDIT_FILE` and what goes with it.
    pub(crate) audit: AuditSettings,
    /// `WEBHOOK_SECRET`: under which webhooks are signed; the demo's if unset.
    pub(crate) webhook_secret: Option<SecretString>,
    /// `REDIS_QUOTA_COMMANDS_PER_DAY`, `REDIS_QUOTA_MEGABYTES`: what the plan of a hosted Redis has (B9).
    pub(crate) plan: HostedPlan,
    /// `MEMORY_KEYS`: how many limits this process has room for.
    pub(crate) memory_keys: Option<usize>,
    /// `AI_BASE_URL`, `AI_API_KEY`, `AI_MODEL`: the model, or none.
    pub(crate) model: Option<ModelSettings>,
}

/// The audit trail.
pub(crate) struct AuditSettings {
    /// `AUDIT_FILE`: where it goes; nowhere but to `/api/admin/audit` if unset.
    pub(crate) file: Option<String>,
    /// `AUDIT_FILE_MEGABYTES`: when a new file begins.
    pub(crate) file_bytes: u64,
    /// `AUDIT_FILES`: how many old ones are kept.
    pub(crate) files: usize,
    /// `AUDIT_SECRET`: under which keys are hashed.
    pub(crate) secret: Option<SecretString>,
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
        let config = |name: &str| {
            let file = get(name).map(|path| ConfigFile::new(path).map(|file| file.named_by(name)));
            file.transpose()
                .map_err(|error| format!("{name}: {}", error.message()))
        };
        let given = |name: &str| {
            let number = get(name).map(|text| {
                let number = text.parse().ok();
                let number = number.filter(|number| (1..=1_000_000_000_u64).contains(number));
                number.ok_or_else(|| format!("{name} is a whole number, 1 to 1000000000"))
            });
            number.transpose()
        };
        let number = |name: &str, default: u64| Ok::<_, String>(given(name)?.unwrap_or(default));
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
            limits: config("LIMITS_FILE")?,
            switch: config("SWITCH_FILE")?,
            follow: match get("SWITCH_FOLLOW").as_deref() {
                None | Some("true") => true,
                Some("false") => false,
                Some(_) => return Err("SWITCH_FOLLOW is true or false".to_owned()),
            },
            instance: get("INSTANCE")
                // The shell's or the container platform's.
                .or_else(|| std::env::var("HOSTNAME").ok().filter(|name| !name.is_empty()))
                .unwrap_or_else(|| format!("process-{}", std::process::id())),
            audit: AuditSettings {
                file: get("AUDIT_FILE"),
                file_bytes: number("AUDIT_FILE_MEGABYTES", 64)? << 20,
                files: usize::try_from(number("AUDIT_FILES", 10)?).unwrap_or(usize::MAX),
                secret: get("AUDIT_SECRET").map(SecretString::from),
            },
            webhook_secret: get("WEBHOOK_SECRET").map(SecretString::from),
            plan: HostedPlan {
                commands_per_day: given("REDIS_QUOTA_COMMANDS_PER_DAY")?,
                bytes: given("REDIS_QUOTA_MEGABYTES")?.map(|megabytes| megabytes << 20),
            },
            memory_keys: given("MEMORY_KEYS")?.and_then(|keys| usize::try_from(keys).ok()),
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
