//! What the environment says.

use std::fmt;
use std::fs;

use limiter::config::ConfigFile;
use limiter::http::ClientAddress;
use limiter::metrics::HostedPlan;
use secrecy::SecretString;

/// The users of the demo, whose keys everybody knows.
pub(crate) const DEMO_USERS: &str = include_str!("../users.json");

/// Settings of one run; every variable has a default for the demo.
pub(crate) struct Settings {
    /// `BIND`: where to listen.
    pub(crate) bind: String,
    /// `USERS_FILE`: who may call, as JSON; the demo's if unset.
    pub(crate) users: UsersFile,
    /// `MAX_CONNECTIONS`, `MAX_CONNECTIONS_PER_ADDRESS`: how many connections are served at once.
    pub(crate) connections: Connections,
    /// Whether proxies stand in front: then a connection's address is theirs.
    pub(crate) has_proxies: bool,
    /// `TRUSTED_PROXIES`, `PROXY_HOPS`, `CLIENT_ADDRESS_HEADER`, `CLIENT_IPV6_PREFIX`: how a client's address is found.
    pub(crate) client: ClientAddress,
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
    /// `WEBHOOK_SECRET_STRIPE` and others: under which each provider signs, by its name.
    pub(crate) webhook_secrets: Vec<(&'static str, SecretString)>,
    /// `REDIS_QUOTA_COMMANDS_PER_DAY`, `REDIS_QUOTA_MEGABYTES`: what the plan of a hosted Redis has (B9).
    pub(crate) plan: HostedPlan,
    /// `MEMORY_KEYS`: how many limits this process has room for.
    pub(crate) memory_keys: Option<usize>,
    /// `AI_BASE_URL`, `AI_API_KEY`, `AI_MODEL`: the model, or none.
    pub(crate) model: Option<ModelSettings>,
}

/// How many connections are served at once.
#[derive(Clone, Copy)]
pub(crate) struct Connections {
    pub(crate) all: usize,
    /// From one address; `None` for no bound of its own.
    pub(crate) of_an_address: Option<usize>,
}

/// Who may call.
pub(crate) struct UsersFile {
    pub(crate) text: String,
    /// Which file it is, for errors; `None` for the demo's users.
    pub(crate) path: Option<String>,
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
        let file = |name: &str| match get(name) {
            Some(path) => text(name, &path).map(|text| (text, Some(path))),
            None => Ok((DEMO_USERS.to_owned(), None)),
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
        let whole = |number: u64| usize::try_from(number).unwrap_or(usize::MAX);
        let has_proxies = get("TRUSTED_PROXIES").is_some() || get("PROXY_HOPS").is_some();
        if std::env::var_os("WEBHOOK_SECRET").is_some() {
            return Err(
                "WEBHOOK_SECRET is not used: each provider has a secret of its own, such as WEBHOOK_SECRET_STRIPE"
                    .to_owned(),
            );
        }
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
            users: {
                let (text, path) = file("USERS_FILE")?;
                UsersFile { text, path }
            },
            connections: Connections {
                all: whole(number("MAX_CONNECTIONS", 10_000)?),
                // All of a proxy's clients come from its address.
                of_an_address: (!has_proxies)
                    .then_some(whole(number("MAX_CONNECTIONS_PER_ADDRESS", 200)?)),
            },
            has_proxies,
            client: client(
                get("TRUSTED_PROXIES"),
                given("PROXY_HOPS")?,
                get("CLIENT_ADDRESS_HEADER"),
                given("CLIENT_IPV6_PREFIX")?,
            )?,
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
                files: whole(number("AUDIT_FILES", 10)?),
                secret: get("AUDIT_SECRET").map(SecretString::from),
            },
            webhook_secrets: [
                ("github", get("WEBHOOK_SECRET_GITHUB")),
                ("sendgrid", get("WEBHOOK_SECRET_SENDGRID")),
                ("slack", get("WEBHOOK_SECRET_SLACK")),
                ("stripe", get("WEBHOOK_SECRET_STRIPE")),
            ]
            .into_iter()
            .filter_map(|(provider, secret)| Some((provider, SecretString::from(secret?))))
            .collect(),
            plan: HostedPlan {
                commands_per_day: given("REDIS_QUOTA_COMMANDS_PER_DAY")?,
                bytes: given("REDIS_QUOTA_MEGABYTES")?.map(|megabytes| megabytes << 20),
            },
            memory_keys: given("MEMORY_KEYS")?.and_then(|keys| usize::try_from(keys).ok()),
            model,
        })
    }
}

/// The text of a file, without the mark that some editors put in front of UTF-8.
fn text(name: &str, path: &str) -> Result<String, String> {
    let bytes = fs::read(path)
        .map_err(|error| format!("{name} names {path}, which cannot be read ({error})"))?;
    let text = String::from_utf8(bytes).map_err(|error| {
        let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
        let line = 1 + good.iter().filter(|byte| **byte == b'\n').count();
        format!("{name} names {path}, which cannot be used: line {line}: it is no UTF-8; save it as UTF-8")
    })?;
    Ok(text
        .strip_prefix('\u{feff}')
        .map(str::to_owned)
        .unwrap_or(text))
}

/// How a client's address is found.
fn client(
    trusted: Option<String>,
    hops: Option<u64>,
    header: Option<String>,
    prefix: Option<u64>,
) -> Result<ClientAddress, String> {
    let said =
        |name: &'static str| move |error: limiter::Error| format!("{name}: {}", error.message());
    let mut client = ClientAddress::default();
    match (trusted, hops) {
        (Some(_), Some(_)) => {
            return Err("TRUSTED_PROXIES and PROXY_HOPS say the same; set one of them".to_owned());
        }
        (Some(networks), None) => {
            let networks = networks
                .split(',')
                .map(str::trim)
                .filter(|it| !it.is_empty());
            client = client
                .trusted_proxies(networks)
                .map_err(said("TRUSTED_PROXIES"))?;
        }
        (None, Some(hops)) => {
            let hops = usize::try_from(hops).unwrap_or(usize::MAX);
            client = client.hops(hops).map_err(said("PROXY_HOPS"))?;
        }
        (None, None) if header.is_some() => {
            return Err(
                "CLIENT_ADDRESS_HEADER is believed of proxies; set TRUSTED_PROXIES or PROXY_HOPS too".to_owned(),
            );
        }
        (None, None) => {}
    }
    if let Some(header) = header {
        client =
            match header.to_ascii_lowercase().as_str() {
                "x-forwarded-for" => client,
                "forwarded" => client.forwarded(),
                name => client.header(name.parse().map_err(|_| {
                    format!("CLIENT_ADDRESS_HEADER: {name:?} is no name of a header")
                })?),
            };
    }
    match prefix {
        None => Ok(client),
        Some(prefix) => client
            .ipv6_prefix(u8::try_from(prefix).unwrap_or(u8::MAX))
            .map_err(said("CLIENT_IPV6_PREFIX")),
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Settings")
            .field("bind", &self.bind)
            .finish_non_exhaustive()
    }
}
