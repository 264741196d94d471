//! D2: `rediss://` against a real server whose certificate only a private authority vouches for.
//!
//! Two rustls providers are compiled in, and nothing here installs one: every test shows that none has to be (known fault: "TLS that
//! panics because no rustls provider is installed").
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use std::time::Duration;

use integration_tests::{RedisServer, needs, policy, redis_limiter};
use limiter_core::cache::{CacheKey, CacheStore, NewEntry};
use limiter_core::limit::{Period, Policy, Quota};
use limiter_core::{Effect, ErrorKind, Key};
use limiter_redis::{RedisCache, RedisConfig, RedisEnv};

fn hourly() -> Policy {
    policy(Quota::fixed_window(5, Period::HOUR))
}

fn key() -> Key {
    Key::new(["ratelimit", "user", "42"])
}

fn trusting(server: &RedisServer) -> RedisConfig {
    server.config().with_tls_ca(server.ca_pem()).unwrap()
}

#[tokio::test]
async fn limits_and_cache_work_with_the_authority_s_certificate() {
    needs!(TLS);
    let server = RedisServer::start_tls();
    let config = trusting(&server);
    assert!(config.uses_tls());
    let limiter = redis_limiter(&config);
    for used in 1..=5 {
        assert_eq!(
            limiter.try_check(&hourly(), &key()).await.unwrap().used,
            used
        );
    }
    assert!(
        !limiter
            .try_check(&hourly(), &key())
            .await
            .unwrap()
            .is_allowed()
    );
    let health = limiter.health().await;
    assert!(
        health.connected && health.message.contains("localhost:"),
        "{health:?}"
    );

    let cache = RedisCache::new(&config).unwrap();
    let cached = CacheKey::new(&Key::new(["cache", "op"]), "a");
    // More than one TLS record.
    let value = vec![7; 100_000];
    let entry = NewEntry::new(value.clone(), Duration::from_secs(60));
    cache.set(&cached, entry).await.unwrap();
    assert_eq!(cache.get(&cached).await.unwrap().unwrap().value, value);
}

/// What the others show is worth something: whoever asks rustls for the provider of this process panics.
#[test]
fn this_process_has_two_providers_and_has_chosen_none() {
    use rustls::crypto::{CryptoProvider, aws_lc_rs, ring};
    assert!(CryptoProvider::get_default().is_none());
    let suites = [ring::default_provider(), aws_lc_rs::default_provider()];
    assert!(suites.iter().all(|suite| !suite.cipher_suites.is_empty()));
    assert!(std::panic::catch_unwind(rustls::ClientConfig::builder).is_err());
}

/// `REDIS_TLS_CA_FILE`.
#[tokio::test]
async fn the_environment_names_the_authority_s_certificate() {
    needs!(TLS);
    let server = RedisServer::start_tls();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("ca.pem");
    std::fs::write(&file, server.ca_pem()).unwrap();
    let env = RedisEnv::from_lookup(|name| match name {
        "REDIS_URL" => Some(server.url()),
        "REDIS_TLS_CA_FILE" => Some(file.display().to_string()),
        _ => None,
    });
    let config = env
        .unwrap()
        .unwrap()
        .limits
        .with_check_deadline(Duration::from_secs(5));
    assert_eq!(
        redis_limiter(&config)
            .try_check(&hourly(), &key())
            .await
            .unwrap()
            .used,
        1
    );
}

/// The certificate is checked, and the reason for a refusal is told.
#[tokio::test]
async fn an_unknown_authority_is_refused() {
    needs!(TLS);
    let server = RedisServer::start_tls();
    refused(&server.config(), "UnknownIssuer").await;
    let other = RedisServer::start_tls();
    let wrong = server.config().with_tls_ca(other.ca_pem()).unwrap();
    refused(&wrong, "certificate").await;
}

#[tokio::test]
async fn another_host_s_certificate_is_refused() {
    needs!(TLS);
    let server = RedisServer::start_tls();
    let url = server.url().replace("localhost", "127.0.0.1");
    let config = RedisConfig::new(&url)
        .unwrap()
        .with_check_deadline(Duration::from_secs(5))
        .with_tls_ca(server.ca_pem())
        .unwrap();
    refused(&config, "not valid for name").await;
}

#[tokio::test]
async fn an_expired_certificate_is_refused() {
    needs!(TLS);
    let server = RedisServer::start_tls_expired();
    refused(&trusting(&server), "renew the server's certificate").await;
}

/// mTLS, with the settings of the environment.
#[tokio::test]
async fn a_server_may_ask_for_our_certificate() {
    needs!(TLS);
    let server = RedisServer::start_tls_with(&["--tls-auth-clients", "yes"]);
    let without = redis_limiter(&trusting(&server));
    let error = without.try_check(&hourly(), &key()).await.unwrap_err();
    let found = (error.kind(), error.effect());
    assert_eq!(found, (ErrorKind::Connection, Effect::No), "{error}");

    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, pem: &[u8]| {
        let path = directory.path().join(name);
        std::fs::write(&path, pem).unwrap();
        path.display().to_string()
    };
    let other = RedisServer::start_tls();
    let certificate = file("cert.pem", &server.ca_pem());
    let env = |key_pem: &[u8], cert: Option<&str>| {
        let key = file("key.pem", key_pem);
        RedisEnv::from_lookup(|name| match name {
            "REDIS_URL" => Some(server.url()),
            "REDIS_TLS_CA_FILE" => Some(certificate.clone()),
            "REDIS_TLS_CERT_FILE" => cert.map(str::to_owned),
            "REDIS_TLS_KEY_FILE" => Some(key.clone()),
            _ => None,
        })
    };
    let right = env(&server.key_pem(), Some(&certificate)).unwrap().unwrap();
    let config = right.limits.with_check_deadline(Duration::from_secs(5));
    let decision = redis_limiter(&config).try_check(&hourly(), &key()).await;
    assert_eq!(decision.unwrap().used, 1);
    // Another's key, none of both, no key at all.
    for wrong in [
        env(&other.key_pem(), Some(&certificate)),
        env(&server.key_pem(), None),
        env(b"no pem", Some(&certificate)),
    ] {
        let error = wrong.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
        assert!(!format!("{error:?}").contains("PRIVATE"), "{error:?}");
    }
}

/// Neither side talks to the other in the clear.
#[tokio::test]
async fn a_plain_url_does_not_reach_a_tls_server() {
    needs!(TLS);
    let server = RedisServer::start_tls();
    let url = server.url().replace("rediss://", "redis://");
    let config = RedisConfig::new(&url)
        .unwrap()
        .with_check_deadline(Duration::from_secs(5));
    let error = redis_limiter(&config)
        .try_check(&hourly(), &key())
        .await
        .unwrap_err();
    assert_eq!(error.effect(), Effect::No, "{error}");

    let plain = RedisServer::start_tcp();
    let url = plain.url().replace("redis://", "rediss://");
    let config = RedisConfig::new(&url)
        .unwrap()
        .with_check_deadline(Duration::from_secs(5));
    let error = redis_limiter(&config)
        .try_check(&hourly(), &key())
        .await
        .unwrap_err();
    // A plain server looks for a line in what it gets: it may find one, or wait for its end.
    let kinds = [ErrorKind::Connection, ErrorKind::Timeout];
    assert!(kinds.contains(&error.kind()), "{error}");
    assert_eq!(error.effect(), Effect::No, "{error}");
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_at_once() {
    let broken = b"-----BEGIN CERTIFICATE-----\nno!\n-----END CERTIFICATE-----\n".to_vec();
    for pem in [b"".to_vec(), b"no pem".to_vec(), broken] {
        let config = RedisConfig::new("rediss://localhost:1").unwrap();
        let error = config.with_tls_ca(pem).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error}");
    }
    let plain = RedisConfig::new("redis://localhost:1").unwrap();
    let error = plain.with_tls_ca(b"no pem".to_vec()).unwrap_err();
    assert!(error.message().contains("rediss://"), "{error}");
}

async fn refused(config: &RedisConfig, why: &str) {
    let error = redis_limiter(config)
        .try_check(&hourly(), &key())
        .await
        .unwrap_err();
    assert_eq!(
        (error.kind(), error.effect()),
        (ErrorKind::Connection, Effect::No),
        "{error}"
    );
    assert!(error.message().contains(why), "{error}");
    let health = RedisCache::new(config).unwrap().health().await;
    assert!(
        !health.connected && health.message.contains(why),
        "{health:?}"
    );
}
