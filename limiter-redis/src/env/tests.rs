use super::*;
use limiter_core::ErrorKind;
use std::collections::HashMap;

fn read(variables: &[(&str, &str)]) -> Result<Option<RedisEnv>, Error> {
    let map: HashMap<_, _> = variables.iter().copied().collect();
    RedisEnv::from_lookup(|name| map.get(name).map(|value| (*value).to_owned()))
}

fn limits(variables: &[(&str, &str)]) -> RedisConfig {
    read(variables).unwrap().unwrap().limits
}

#[test]
fn deadlines_pool_and_batches_are_settings() {
    let url = ("REDIS_URL", "redis://host");
    let millis = Duration::from_millis;
    let found = |variables: &[(&str, &str)]| {
        let config = limits(&[&[url], variables].concat());
        let deadlines = (config.check_deadline, config.cache_deadline);
        (
            deadlines,
            config.connect_timeout,
            config.pool_size,
            config.batches,
        )
    };
    let defaults = ((millis(100), millis(500)), millis(2_000), 4, 64);
    assert_eq!(found(&[]), defaults);
    let set = [
        ("REDIS_DEADLINE_MILLIS", "250"),
        ("CACHE_REDIS_DEADLINE_MILLIS", "700"),
        ("REDIS_CONNECT_TIMEOUT_MILLIS", "900"),
        ("REDIS_POOL_SIZE", "7"),
        ("REDIS_BATCHES", "9"),
    ];
    assert_eq!(found(&set), ((millis(250), millis(700)), millis(900), 7, 9));
    for (name, bad) in [
        ("CACHE_REDIS_DEADLINE_MILLIS", "0"),
        ("REDIS_CONNECT_TIMEOUT_MILLIS", "60001"),
        ("REDIS_POOL_SIZE", "1001"),
        ("REDIS_BATCHES", "many"),
        ("REDIS_ADDRESS_MAP", "host"),
        ("REDIS_PASSWORD_FILE", "/nonexistent/password"),
    ] {
        let error = read(&[url, (name, bad)]).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(
            error.message().contains(name) || error.message().contains(bad),
            "{error}"
        );
    }
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
