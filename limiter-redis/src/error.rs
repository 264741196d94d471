//! What a Redis error means: its kind, and whether the call took effect.

use std::error::Error as _;

use limiter_core::{Effect, Error, ErrorKind};
use redis::{ErrorKind as RedisKind, RedisError, ServerErrorKind};

/// The error of a call whose bytes may have left.
pub(crate) fn from_redis(operation: &'static str, host: &str, error: RedisError) -> Error {
    let error = without_arguments(error);
    let (kind, effect, advice) = classify(&error);
    Error::new(kind, operation, format!("Redis at {host}: {error}{advice}"))
        .with_effect(effect)
        .with_source(error)
}

/// What a server that does not know a command says, without what it repeats of the command: passwords, users' ids.
pub(crate) fn without_arguments(error: RedisError) -> RedisError {
    const REPEATS: &str = ", with args beginning with";
    match error.detail().and_then(|text| text.split_once(REPEATS)) {
        Some((text, _)) => {
            let what = "An error was signalled by the server";
            RedisError::from((error.kind(), what, text.to_owned()))
        }
        None => error,
    }
}

/// The same error, for another of those whom it concerns.
pub(crate) fn copy(error: &Error) -> Error {
    let copy = Error::new(error.kind(), error.operation(), error.message().to_owned());
    let copy = copy.with_effect(error.effect());
    let source = error.source().and_then(|source| source.downcast_ref());
    match source {
        Some(source) => copy.with_source(RedisError::clone(source)),
        None => copy,
    }
}

/// The same error with something to do about it.
pub(crate) fn advise(error: Error, advice: &str) -> Error {
    let message = format!("{}; {advice}", error.message());
    Error::new(error.kind(), error.operation(), message)
        .with_effect(error.effect())
        .with_source(error)
}

/// What kind of error the server itself sent, if it was the server.
pub(crate) fn server_error(error: &RedisError) -> Option<ServerErrorKind> {
    match error.kind() {
        RedisKind::Server(kind) => Some(kind),
        _ => None,
    }
}

/// Whether the connection must not be used again.
pub(crate) fn breaks(error: &RedisError) -> bool {
    use ServerErrorKind::{BusyLoading, MasterDown, ReadOnly};
    match error.kind() {
        RedisKind::Io | RedisKind::Parse | RedisKind::AuthenticationFailed => true,
        // A demoted primary answers PING for ever.
        RedisKind::Server(kind) => matches!(kind, ReadOnly | MasterDown | BusyLoading),
        _ => error.is_unrecoverable_error() || error.code() == Some("NOAUTH"),
    }
}

/// Rights are checked per key, so a group may have written some of its keys.
const MISSING_RIGHT: (ErrorKind, Effect, &str) = (
    ErrorKind::Unauthorized,
    Effect::Unknown,
    "; grant the user the rights that docs/redis-setup.md lists",
);

/// How Redis 7 says so in a script, and Valkey 9.
const IN_A_SCRIPT: [&str; 2] = ["user executing the script", "ACL failure in script"];

/// Whether the server cannot read a script's first line, whose flags are Redis 7's.
fn is_too_new(error: &RedisError) -> bool {
    let said = ["compiling script", "shebang"];
    let detail = error.detail();
    detail.is_some_and(|text| said.iter().any(|said| text.contains(said)))
}

/// The same of a call's error: then nothing has run.
pub(crate) fn is_unreadable(error: &Error) -> bool {
    let source = error.source().and_then(|source| source.downcast_ref());
    source.is_some_and(is_too_new)
}

/// What to do about a server's certificate, by rustls's words for what is wrong.
fn tls_advice(error: &RedisError) -> &'static str {
    let text = error.to_string();
    let advice: [(&[&str], _); 4] = [
        (
            &["UnknownIssuer"],
            "; if its certificate is of a private authority, name that in REDIS_TLS_CA_FILE",
        ),
        (
            &["CaUsedAsEndEntity"],
            "; the server shows an authority's own certificate: give it one that the authority has signed",
        ),
        (
            &["not valid for name", "NotValidForName"],
            "; use a host in the URL that the certificate names, or say that name with REDIS_TLS_SERVER_NAME",
        ),
        (
            &["certificate expired", ": Expired"],
            "; renew the server's certificate, or set this machine's clock",
        ),
    ];
    let is_said = |words: &&str| text.contains(words);
    let known = advice.iter().find(|(words, _)| words.iter().any(is_said));
    known.map_or("", |(_, advice)| advice)
}

fn classify(error: &RedisError) -> (ErrorKind, Effect, &'static str) {
    use ServerErrorKind as Server;
    let text = error.detail().unwrap_or_default();
    match error.kind() {
        RedisKind::Io if error.is_timeout() => (ErrorKind::Timeout, Effect::Unknown, ""),
        RedisKind::Io => (ErrorKind::Connection, Effect::Unknown, tls_advice(error)),
        RedisKind::AuthenticationFailed => (
            ErrorKind::Unauthorized,
            Effect::No,
            "; check the user and the password in the URL",
        ),
        // Before it ran.
        RedisKind::Server(Server::NoPerm) if text.contains("'evalsha'") => {
            let (kind, _, advice) = MISSING_RIGHT;
            (kind, Effect::No, advice)
        }
        RedisKind::Server(Server::NoPerm) => MISSING_RIGHT,
        _ if is_too_new(error) => (
            ErrorKind::Unsupported,
            Effect::No,
            "; the server is older than Redis 7",
        ),
        _ if text.contains("max number of clients") => (
            ErrorKind::Server,
            Effect::No,
            "; raise its maxclients, or give each instance fewer connections with REDIS_POOL_SIZE",
        ),
        // What a script may not do has no code of its own from Redis 7.0 on.
        _ if IN_A_SCRIPT.iter().any(|said| text.contains(said)) => MISSING_RIGHT,
        // Not of a command in a script, which is told as an unknown Redis command.
        _ if text.starts_with("unknown command") => (
            ErrorKind::Unsupported,
            Effect::No,
            "; the server, or a proxy before it, lacks a command that docs/redis-setup.md lists",
        ),
        // Of a hosted plan; in the middle of a script, perhaps.
        _ if text.starts_with("max ") && text.contains(" limit exceeded") => (
            ErrorKind::Server,
            Effect::Unknown,
            "; the plan's commands are used up: wait, or choose another plan",
        ),
        RedisKind::Server(Server::ReadOnly) => (
            ErrorKind::Server,
            Effect::No,
            "; it is a replica: connect to the primary",
        ),
        RedisKind::Server(Server::CrossSlot) => (
            ErrorKind::Unsupported,
            Effect::No,
            "; give the keys of a group one hash tag",
        ),
        RedisKind::Server(
            Server::BusyLoading
            | Server::MasterDown
            | Server::ClusterDown
            | Server::TryAgain
            | Server::NoScript,
        ) => (ErrorKind::Server, Effect::No, ""),
        RedisKind::Server(Server::Moved | Server::Ask) => (
            ErrorKind::Unsupported,
            Effect::No,
            "; it is a node of a Redis Cluster: use a redis+cluster:// URL",
        ),
        _ => match error.code() {
            Some("WRONGTYPE") => (
                ErrorKind::Foreign,
                Effect::No,
                "; the key is of another type and was left alone",
            ),
            // Protected mode: the server hangs up on whoever is not on its own machine.
            Some("DENIED") => (
                ErrorKind::Unauthorized,
                Effect::No,
                "; set a password at the server and name it in the URL",
            ),
            Some("NOAUTH" | "WRONGPASS") => (
                ErrorKind::Unauthorized,
                Effect::No,
                "; check the user and the password in the URL",
            ),
            // Refused before the first write; a script that has written goes on.
            Some("OOM" | "MISCONF" | "NOREPLICAS" | "BUSY" | "EXECABORT") => {
                (ErrorKind::Server, Effect::No, "")
            }
            _ => (ErrorKind::Protocol, Effect::Unknown, ""),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(line: &str) -> Error {
        let reply = redis::parse_redis_value(format!("-{line}\r\n").as_bytes()).unwrap();
        let error = reply.extract_error().unwrap_err();
        from_redis("limit.apply", "host:1", error)
    }

    /// D2: as the servers word it.
    #[test]
    fn a_missing_right_is_told_by_every_server() {
        for line in [
            "NOPERM this user has no permissions to run the 'get' command",
            "NOPERM User limiter has no permissions to run the 'get' command",
            "ERR The user executing the script can't run this command or subcommand script: 1, on @user_script:9.",
            "ERR ACL failure in script: User limiter has no permissions to run the 'get' command",
        ] {
            let error = said(line);
            let kind = (error.kind(), error.effect());
            assert_eq!(kind, (ErrorKind::Unauthorized, Effect::Unknown), "{error}");
            assert!(error.message().contains("docs/redis-setup.md"), "{error}");
        }
        assert_eq!(said("ERR unknown").kind(), ErrorKind::Protocol);
    }

    /// D2: Redis repeats the first arguments of a command that it does not know, and AUTH may be one.
    #[test]
    fn a_command_s_arguments_are_not_repeated() {
        let error = said(
            "ERR unknown command 'AUTH', with args beginning with: 'limiter' 'hunter2' 'ratelimit:user:alice' ",
        );
        assert_eq!(error.kind(), ErrorKind::Unsupported, "{error}");
        assert!(
            error.message().contains("unknown command 'AUTH'"),
            "{error}"
        );
        let all = format!("{error:?} {:?}", error.source());
        assert!(!all.contains("hunter2") && !all.contains("alice"), "{all}");
    }

    #[test]
    fn a_certificate_that_is_refused_comes_with_advice() {
        use rustls::{CertificateError, Error as Tls};
        for (what, advice) in [
            (CertificateError::UnknownIssuer, "REDIS_TLS_CA_FILE"),
            (CertificateError::NotValidForName, "host in the URL"),
            (CertificateError::Expired, "renew"),
        ] {
            let error = std::io::Error::new(
                std::io::ErrorKind::InvalidData,
                Tls::InvalidCertificate(what),
            );
            let error = from_redis("limit.apply", "host:1", error.into());
            assert_eq!(error.kind(), ErrorKind::Connection);
            assert!(error.message().contains(advice), "{error}");
        }
    }
}
