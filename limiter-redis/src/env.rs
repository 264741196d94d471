//! Settings from the environment.

use std::collections::HashMap;
use std::time::Duration;

use limiter_core::Error;
use url::Url;

use crate::config::{RedisConfig, config_error};
use crate::connect::{CredentialsProvider, PasswordFile, Resolver};

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
    /// `REDIS_PASSWORD_FILE`, `REDIS_ADDRESS_MAP`, `REDIS_TLS_CA_FILE` and `REDIS_TLS_SERVER_NAME`.
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
        config = config.with_resolver(AddressMap::parse(&map)?);
    }
    if let Some(name) = get("REDIS_TLS_SERVER_NAME").filter(|_| config.uses_tls()) {
        config = config.with_tls_server_name(&name)?;
    }
    if let Some(name) = get("REDIS_NAME") {
        config = config.with_issuer(&name);
    }
    if let Some(path) = get("REDIS_TLS_CA_FILE").filter(|_| config.uses_tls()) {
        let pem = std::fs::read(&path).map_err(|error| {
            config_error(format!(
                "REDIS_TLS_CA_FILE {path:?} cannot be read ({error})"
            ))
        })?;
        config = config.with_tls_ca(pem)?;
    }
    Ok(config)
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

/// `REDIS_ADDRESS_MAP`: where what is announced is reached.
struct AddressMap(HashMap<(String, u16), (String, u16)>);

impl AddressMap {
    fn parse(text: &str) -> Result<Self, Error> {
        let address = |text: &str| {
            let (host, port) = text.trim().rsplit_once(':')?;
            let host = host.trim_start_matches('[').trim_end_matches(']');
            let port = port.parse::<u16>().ok().filter(|port| *port > 0)?;
            (!host.is_empty()).then(|| (host.to_owned(), port))
        };
        let pair = |text: &str| {
            let (announced, reached) = text.split_once('=')?;
            Some((address(announced)?, address(reached)?))
        };
        let pairs: Option<HashMap<_, _>> = text.split(',').map(pair).collect();
        pairs.map(Self).ok_or_else(|| {
            config_error(format!(
                "REDIS_ADDRESS_MAP is {text:?}; write ANNOUNCED_HOST:PORT=HOST:PORT, with commas between several"
            ))
        })
    }
}

impl Resolver for AddressMap {
    fn resolve(&self, host: &str, port: u16) -> Option<(String, u16)> {
        self.0.get(&(host.to_owned(), port)).cloned()
    }
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
mod tests {
    use super::*;
    use limiter_core::ErrorKind;

    fn read(variables: &[(&str, &str)]) -> Result<Option<RedisEnv>, Error> {
        let map: HashMap<_, _> = variables.iter().copied().collect();
        RedisEnv::from_lookup(|name| map.get(name).map(|value| (*value).to_owned()))
    }

    fn limits(variables: &[(&str, &str)]) -> RedisConfig {
        read(variables).unwrap().unwrap().limits
    }

    /// C3.
    #[test]
    fn nothing_or_empty_is_memory() {
        assert!(read(&[]).unwrap().is_none());
        assert!(
            read(&[("REDIS_URL", ""), ("KV_URL", " ")])
                .unwrap()
                .is_none()
        );
    }

    #[test]
    fn precedence_is_stated_order() {
        let all = [
            ("KV_REST_API_URL", "https://e"),
            ("KV_REST_API_TOKEN", "t"),
            ("UPSTASH_REDIS_REST_URL", "https://d"),
            ("UPSTASH_REDIS_REST_TOKEN", "t"),
            ("UPSTASH_REDIS_URL", "rediss://c"),
            ("KV_URL", "redis://b"),
            ("REDIS_URL", "redis://a"),
        ];
        for (skip, host) in [
            (0, "a:6379"),
            (1, "b:6379"),
            (2, "c:6379"),
            (3, "d:6379"),
            (5, "e:6379"),
        ] {
            assert_eq!(limits(&all[..all.len() - skip]).host(), host);
        }
        let empty_first = [("REDIS_URL", ""), ("KV_URL", "redis://b")];
        assert_eq!(limits(&empty_first).host(), "b:6379");
    }

    /// A6, B9: a URL and a token.
    #[test]
    fn an_endpoint_and_its_token_mean_tls_with_a_password() {
        for (url, token) in [
            ("UPSTASH_REDIS_URL", "UPSTASH_REDIS_TOKEN"),
            ("UPSTASH_REDIS_REST_URL", "UPSTASH_REDIS_REST_TOKEN"),
            ("KV_REST_API_URL", "KV_REST_API_TOKEN"),
        ] {
            let config = limits(&[(url, "https://eu1-x.upstash.io"), (token, "p/w:@#%")]);
            assert_eq!(config.host(), "eu1-x.upstash.io:6379");
            assert!(config.uses_tls());
            let redis = config.connection.redis_settings();
            assert_eq!(redis.username(), Some("default"));
            assert_eq!(redis.password(), Some("p/w:@#%"));
            let missing = read(&[(url, "https://eu1-x.upstash.io")]).unwrap_err();
            assert!(missing.message().contains(token), "{missing}");
        }
        let config = limits(&[
            ("UPSTASH_REDIS_URL", "rediss://default@h:1"),
            ("UPSTASH_REDIS_TOKEN", "tok"),
        ]);
        assert_eq!(config.connection.redis_settings().password(), Some("tok"));
        let own = [
            ("UPSTASH_REDIS_URL", "rediss://default:own@h:1"),
            ("UPSTASH_REDIS_TOKEN", "tok"),
        ];
        assert_eq!(
            limits(&own).connection.redis_settings().password(),
            Some("own")
        );
    }

    /// A6, B9: settings arrive as they were written, or not at all.
    #[test]
    fn nothing_of_a_setting_is_lost() {
        for token in ["tok", "a%41b", "%", "p/w:@#%? ", "Ünïcode\u{1f511}"] {
            let config = limits(&[
                ("UPSTASH_REDIS_REST_URL", "https://eu1-x.upstash.io/\n"),
                ("UPSTASH_REDIS_REST_TOKEN", &format!(" {token}\r\n")),
            ]);
            assert_eq!(config.host(), "eu1-x.upstash.io:6379");
            let redis = config.connection.redis_settings();
            assert_eq!(redis.password(), Some(token.trim()), "{token}");
        }
        for (variables, said) in [
            (
                [("UPSTASH_REDIS_TOKEN", "hunter2")],
                ["UPSTASH_REDIS_URL"; 2],
            ),
            (
                [("UPSTASH_REDIS_REST_TOKEN", "hunter2")],
                ["UPSTASH_REDIS_REST_URL"; 2],
            ),
            ([("KV_REST_API_TOKEN", "hunter2")], ["KV_REST_API_URL"; 2]),
            (
                [("REDIS_URL", "redis://user:hunter2@host?db=3")],
                ["path", "/3"],
            ),
            (
                [("REDIS_URL", "redis://host?protocol=resp3&hunter2=1")],
                ["?", "resp3"],
            ),
            ([("REDIS_URL", "redis://host/0#hunter2")], ["#", "nothing"]),
            (
                [("REDIS_URL", "redis://user:hunter2/x@host:7")],
                ["%2F", "percent"],
            ),
            (
                [("REDIS_URL", "redis://:hunter2#x@host")],
                ["%23", "percent"],
            ),
            (
                [("REDIS_URL", "rediss://:hunter2?x@host/1")],
                ["%3F", "percent"],
            ),
            (
                [("REDIS_URL", "redis+cluster://:hunter2/x@a,b")],
                ["%2F", "percent"],
            ),
        ] {
            let error = read(&variables).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            let text = format!("{error} {error:?}");
            assert!(said.iter().all(|said| text.contains(said)), "{text}");
            assert!(
                text.contains(variables[0].0) && !text.contains("hunter2"),
                "{text}"
            );
        }
        for url in [
            "https://h:8080",
            "https://user@h",
            "https://user:hunter2@h",
            "https://h/v1/hunter2",
            "https://h?x=hunter2",
            "https://h/#hunter2",
        ] {
            let variables = [("KV_REST_API_URL", url), ("KV_REST_API_TOKEN", "t")];
            let error = read(&variables).unwrap_err();
            assert!(error.message().contains("KV_REST_API_URL"), "{error}");
            assert!(!format!("{error:?}").contains("hunter2"), "{error:?}");
        }
        let unix = limits(&[(
            "REDIS_URL",
            "redis+unix:///run/redis@1.sock?db=2&user=u&pass=p",
        )]);
        assert_eq!(unix.connection.redis_settings().db(), 2);
        let resp3 = limits(&[("REDIS_URL", "redis://host/4?protocol=resp3")]);
        assert_eq!(resp3.connection.redis_settings().db(), 4);
    }

    /// What one instance reserved, another one settles, in whatever order and case its URL names the nodes.
    #[test]
    fn one_cluster_is_one_issuer() {
        let issuer = |url| RedisConfig::new(url).unwrap().issuer();
        let one = issuer("redis+cluster://a:1,b:2");
        assert_eq!(one, issuer("redis+cluster://B:2,a:1"));
        assert_ne!(one, issuer("redis+cluster://a:1,c:2"));
        assert_eq!(issuer("redis://host:1"), issuer("redis://HOST:1"));
        assert_ne!(issuer("redis://host:1/0"), issuer("redis://host:1/1"));
        assert_ne!(issuer("redis+unix:///a"), issuer("redis+unix:///A"));
    }

    /// D2: no message and no Debug output holds a password.
    #[test]
    fn errors_name_the_variable_and_hide_the_value() {
        for bad in [
            "redis://user:hunter2@",
            "redis://user:hunter2@host:notaport",
            "redis://user:hunter2@host/notadb",
            "http://user:hunter2@host",
            "hunter2",
            "rediss://user:hunter2@host/#insecure",
            "redis://user:hunter2@0.0.0.0",
        ] {
            let error = read(&[("REDIS_URL", bad)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{bad}");
            let text = format!("{error} {error:?}");
            assert!(text.contains("REDIS_URL"), "{text}");
            assert!(!text.contains("hunter2"), "{text}");
        }
        let config = limits(&[("REDIS_URL", "redis://user:hunter2@host")]);
        assert!(!format!("{config:?}").contains("hunter2"));
    }

    #[test]
    fn other_settings() {
        let both = read(&[
            ("REDIS_URL", "redis://a"),
            ("CACHE_REDIS_URL", "redis://b"),
            ("KEY_PREFIX", "app:"),
            ("RATE_LIMIT_TTL_SECONDS", "60"),
            ("REDIS_DEADLINE_MILLIS", "250"),
            ("REDIS_NAME", "ours"),
        ]);
        let both = both.unwrap().unwrap();
        assert_eq!(
            (both.limits.host(), both.cache.host()),
            ("a:6379".into(), "b:6379".into())
        );
        assert_eq!(
            (both.limits.prefix.as_str(), both.cache.prefix.as_str()),
            ("app:", "app:")
        );
        assert_eq!(both.limits.state_ttl, Duration::from_secs(60));
        let deadlines = (both.limits.check_deadline, both.cache.cache_deadline);
        assert_eq!(
            deadlines,
            (Duration::from_millis(250), Duration::from_millis(250))
        );
        let by_another_address = RedisConfig::new("redis://c").unwrap().with_issuer("ours");
        assert_eq!(both.limits.issuer(), by_another_address.issuer());
        let alone = read(&[("CACHE_REDIS_URL", "redis://b")]).unwrap_err();
        assert!(alone.message().contains("REDIS_URL too"), "{alone}");
        for (name, value) in [
            ("KEY_PREFIX", "a{b}"),
            ("RATE_LIMIT_TTL_SECONDS", "0"),
            ("RATE_LIMIT_TTL_SECONDS", "soon"),
            ("REDIS_DEADLINE_MILLIS", "0"),
            ("REDIS_DEADLINE_MILLIS", "60001"),
            ("CACHE_REDIS_URL", "nope"),
        ] {
            let error = read(&[("REDIS_URL", "redis://a"), (name, value)]).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config, "{name}={value}: {error}");
            assert!(error.message().contains(name), "{error}");
        }
    }
}
