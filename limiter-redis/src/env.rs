//! Settings from the environment.

use std::time::Duration;

use limiter_core::Error;
use secrecy::ExposeSecret;
use url::Url;

use crate::config::{RedisConfig, config_error};
use crate::connect::{AddressMap, Credentials, CredentialsProvider, PasswordFile};

/// URLs, in order of precedence, with the variable that holds the token of each.
const SOURCES: [(&str, Option<&str>); 5] = [
    ("REDIS_URL", None),
    ("KV_URL", None),
    ("UPSTASH_REDIS_URL", Some("UPSTASH_REDIS_TOKEN")),
    ("UPSTASH_REDIS_REST_URL", Some("UPSTASH_REDIS_REST_TOKEN")),
    ("KV_REST_API_URL", Some("KV_REST_API_TOKEN")),
];

/// The Redis that the environment names, one for limits and one for caches.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct RedisEnv {
    /// For limits.
    pub limits: RedisConfig,
    /// For caches: `CACHE_REDIS_URL` if set, else the same Redis.
    pub cache: RedisConfig,
}

impl RedisEnv {
    /// Reads the process environment; `None` if it names no Redis. An empty variable counts as unset.
    ///
    /// The first of `REDIS_URL`, `KV_URL`, `UPSTASH_REDIS_URL` (token: `UPSTASH_REDIS_TOKEN`),
    /// `UPSTASH_REDIS_REST_URL` (`UPSTASH_REDIS_REST_TOKEN`) and `KV_REST_API_URL`
    /// (`KV_REST_API_TOKEN`). An `https://host` endpoint means `rediss://default:TOKEN@host:6379`.
    /// Also `CACHE_REDIS_URL`, `KEY_PREFIX`, `RATE_LIMIT_TTL_SECONDS`, `REDIS_DEADLINE_MILLIS`,
    /// `CACHE_REDIS_DEADLINE_MILLIS`, `REDIS_CONNECT_TIMEOUT_MILLIS`, `REDIS_POOL_SIZE`, `REDIS_BATCHES`, `REDIS_NAME`,
    /// `REDIS_PASSWORD_FILE`, `REDIS_SENTINEL_USER`, `REDIS_SENTINEL_PASSWORD`, `REDIS_ADDRESS_MAP`, `REDIS_TLS_CA_FILE` and
    /// `REDIS_TLS_CERT_FILE`, `REDIS_TLS_KEY_FILE` and `REDIS_TLS_SERVER_NAME`.
    ///
    /// # Errors
    /// `Config` if a variable cannot be used; the message names it, and never shows a URL or a token.
    pub fn read() -> Result<Option<Self>, Error> {
        Self::from_lookup(|name| std::env::var(name).ok())
    }

    /// As [`read`](Self::read), from another source of variables.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn from_lookup(lookup: impl Fn(&str) -> Option<String>) -> Result<Option<Self>, Error> {
        // A value that was read from a file ends with its line.
        let get = |name: &str| {
            let value = lookup(name)?.trim().to_owned();
            (!value.is_empty()).then_some(value)
        };
        let found = SOURCES
            .into_iter()
            .find_map(|(name, token)| get(name).map(|url| (name, url, token)));
        let Some((name, url, token)) = found else {
            let mut sources = SOURCES.into_iter();
            let alone = |(_, token): &(_, Option<&str>)| token.and_then(&get).is_some();
            if let Some((url, Some(token))) = sources.find(alone) {
                return Err(config_error(format!(
                    "{token} is set without {url}; set both"
                )));
            }
            if get("CACHE_REDIS_URL").is_some() {
                return Err(config_error(
                    "CACHE_REDIS_URL is set but no Redis for limits is; set REDIS_URL too"
                        .to_owned(),
                ));
            }
            return Ok(None);
        };
        let limits = configure(from_url(name, &url, token, &get)?, &get)?;
        let cache = match get("CACHE_REDIS_URL") {
            Some(url) => configure(RedisConfig::named("CACHE_REDIS_URL", &url)?, &get)?,
            None => limits.clone(),
        };
        Ok(Some(Self { limits, cache }))
    }
}

/// A hosted Redis speaks TLS on 6379 under the user `default`, with the token as its password.
fn from_url(
    name: &str,
    url: &str,
    token_name: Option<&str>,
    get: &impl Fn(&str) -> Option<String>,
) -> Result<RedisConfig, Error> {
    let Some(token_name) = token_name else {
        return RedisConfig::named(name, url);
    };
    let token = get(token_name);
    let parsed = Url::parse(url).ok();
    let with_token = match &parsed {
        Some(parsed) if parsed.scheme() == "https" => {
            let token = token.ok_or_else(|| {
                config_error(format!("{name} is set without {token_name}; set both"))
            })?;
            let host = parsed
                .host_str()
                .ok_or_else(|| config_error(format!("{name} names no host")))?;
            let is_more = parsed.port().is_some()
                || !parsed.username().is_empty()
                || parsed.password().is_some()
                || !matches!(parsed.path(), "" | "/")
                || parsed.query().is_some()
                || parsed.fragment().is_some();
            if is_more {
                return Err(config_error(format!(
                    "{name} says more than https://HOST, which would be lost: Redis is spoken to at port 6379 of it; write rediss://[user:password@]host[:port] for another one"
                )));
            }
            Url::parse(&format!("rediss://default@{host}:6379"))
                .ok()
                .map(|url| (url, token))
        }
        Some(parsed) if parsed.password().is_none() => token.map(|token| (parsed.clone(), token)),
        _ => None,
    };
    let Some((mut url_with_token, token)) = with_token else {
        return RedisConfig::named(name, url);
    };
    // Fails only for URLs without a host, which `named` refuses with a message of its own. Of what needs an escape, it leaves
    // percent signs as they are.
    let _ = url_with_token.set_password(Some(&token.replace('%', "%25")));
    RedisConfig::named(name, url_with_token.as_str())
}

fn configure(
    mut config: RedisConfig,
    get: &impl Fn(&str) -> Option<String>,
) -> Result<RedisConfig, Error> {
    if let Some(prefix) = get("KEY_PREFIX") {
        config = config.with_key_prefix(&prefix).map_err(|error| {
            config_error(format!("KEY_PREFIX is not usable: {}", error.message()))
        })?;
    }
    if let Some(seconds) = whole(get, "RATE_LIMIT_TTL_SECONDS", "seconds", 31_622_400)? {
        config = config.with_state_ttl(Duration::from_secs(seconds));
    }
    if let Some(millis) = whole(get, "REDIS_DEADLINE_MILLIS", "milliseconds", 60_000)? {
        let deadline = Duration::from_millis(millis);
        config = config
            .with_check_deadline(deadline)
            .with_cache_deadline(deadline);
    }
    if let Some(millis) = whole(get, "CACHE_REDIS_DEADLINE_MILLIS", "milliseconds", 60_000)? {
        config = config.with_cache_deadline(Duration::from_millis(millis));
    }
    if let Some(millis) = whole(get, "REDIS_CONNECT_TIMEOUT_MILLIS", "milliseconds", 60_000)? {
        config = config.with_connect_timeout(Duration::from_millis(millis));
    }
    if let Some(connections) = small(get, "REDIS_POOL_SIZE", "connections", 1_000)? {
        config = config.with_pool_size(connections);
    }
    if let Some(batches) = small(get, "REDIS_BATCHES", "batches", 10_000)? {
        config = config.with_batches(batches);
    }
    if let Some(path) = get("REDIS_PASSWORD_FILE") {
        let file = PasswordFile(path.into());
        file.credentials()?;
        config = config.with_credentials(file);
    }
    if let Some(map) = get("REDIS_ADDRESS_MAP") {
        let map = AddressMap::parse(&map).ok_or_else(|| {
            config_error(format!(
                "REDIS_ADDRESS_MAP is {map:?}; write ANNOUNCED_HOST:PORT=HOST:PORT, with commas between several"
            ))
        })?;
        config = config.with_resolver(map);
    }
    match (get("REDIS_SENTINEL_PASSWORD"), get("REDIS_SENTINEL_USER")) {
        (Some(password), user) if config.is_watched() => {
            let credentials = Credentials {
                user,
                ..Credentials::of_password(password)
            };
            config = config.with_sentinel_credentials(credentials)?;
        }
        (None, Some(_)) => {
            return Err(config_error(
                "REDIS_SENTINEL_USER is set without REDIS_SENTINEL_PASSWORD; set both".to_owned(),
            ));
        }
        _ => {}
    }
    if let Some(name) = get("REDIS_TLS_SERVER_NAME").filter(|_| config.uses_tls()) {
        config = config.with_tls_server_name(&name)?;
    }
    if let Some(name) = get("REDIS_NAME") {
        config = config.with_issuer(&name);
    }
    if config.uses_tls() {
        config = configure_tls(config, get)?;
    }
    Ok(config)
}

/// Certificates, from files.
fn configure_tls(
    mut config: RedisConfig,
    get: &impl Fn(&str) -> Option<String>,
) -> Result<RedisConfig, Error> {
    let read = |name: &str, path: &str| {
        std::fs::read(path)
            .map_err(|error| config_error(format!("{name} {path:?} cannot be read ({error})")))
    };
    if let Some(path) = get("REDIS_TLS_CA_FILE") {
        config = config.with_tls_ca(read("REDIS_TLS_CA_FILE", &path)?)?;
    }
    let identity = (get("REDIS_TLS_CERT_FILE"), get("REDIS_TLS_KEY_FILE"));
    match identity {
        (Some(certificate), Some(key)) => {
            let certificate = read("REDIS_TLS_CERT_FILE", &certificate)?;
            // Wiped when it is dropped.
            let key = secrecy::SecretSlice::from(read("REDIS_TLS_KEY_FILE", &key)?);
            config.with_tls_identity(&certificate, key.expose_secret())
        }
        (None, None) => Ok(config),
        _ => Err(config_error(
            "REDIS_TLS_CERT_FILE and REDIS_TLS_KEY_FILE go together; set both".to_owned(),
        )),
    }
}

/// As [`whole`], for a count.
fn small(
    get: &impl Fn(&str) -> Option<String>,
    name: &str,
    unit: &str,
    most: u32,
) -> Result<Option<u32>, Error> {
    let number = whole(get, name, unit, most.into())?;
    Ok(number.and_then(|number| u32::try_from(number).ok()))
}

/// A variable that is a whole number of `unit`, from 1.
fn whole(
    get: &impl Fn(&str) -> Option<String>,
    name: &str,
    unit: &str,
    most: u64,
) -> Result<Option<u64>, Error> {
    let Some(text) = get(name) else {
        return Ok(None);
    };
    match text.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(Some(number)),
        _ => Err(config_error(format!(
            "{name} is {text:?}; give whole {unit} from 1 to {most}"
        ))),
    }
}

#[cfg(test)]
mod tests;
