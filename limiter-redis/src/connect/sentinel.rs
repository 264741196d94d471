//! Where the primary is now: what the sentinels say that watch over it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use futures_util::stream::{FuturesUnordered, StreamExt};
use redis::aio::MultiplexedConnection;
use redis::{RedisError, Value};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::{Connector, Credentials, over};
use crate::cluster::Address;

/// How long the slower ones are waited for when one has answered: a sentinel that was cut off from the others may not know of the
/// last failover.
const PATIENCE: Duration = Duration::from_millis(50);

/// For one of them to be reached and to answer.
const LIMIT: Duration = Duration::from_secs(1);

/// The sentinels of one primary.
pub(super) struct Sentinels {
    watched: Watched,
    tls: Option<TlsConnector>,
    /// Kept between two questions, one for each of them.
    links: Vec<tokio::sync::Mutex<Option<MultiplexedConnection>>>,
    /// The latest failover that was heard of.
    epoch: AtomicU64,
}

/// A primary under sentinels.
#[derive(Clone)]
pub(crate) struct Watched {
    /// Its name.
    pub(crate) name: String,
    pub(crate) sentinels: Vec<Address>,
    /// As whom the sentinels are asked.
    pub(crate) credentials: Option<Credentials>,
}

/// What one of them says, and as of which failover.
struct Said {
    primary: Address,
    epoch: u64,
}

impl Sentinels {
    pub(super) fn new(watched: &Watched, tls: Option<TlsConnector>) -> Self {
        Self {
            watched: watched.clone(),
            tls,
            links: watched
                .sentinels
                .iter()
                .map(|_| Default::default())
                .collect(),
            epoch: AtomicU64::new(0),
        }
    }

    /// Where the primary is now. All are asked; of those that answer about as soon as the first, the one that knows of the latest
    /// failover is believed. One that knows less than was known before is believed if nobody knows more.
    pub(super) async fn find(&self, connector: &Connector) -> Result<Address, RedisError> {
        let nodes = self.watched.sentinels.iter().zip(&self.links);
        let asked = nodes.map(|(node, link)| async {
            let answer = timeout(LIMIT, self.ask_one(connector, node, link)).await;
            answer.unwrap_or_else(|_| {
                let late = std::io::ErrorKind::TimedOut;
                Err(std::io::Error::new(late, "no answer of a sentinel in time").into())
            })
        });
        let mut asked: FuturesUnordered<_> = asked.collect();
        let known = self.epoch.load(Ordering::Relaxed);
        let mut best: Option<Said> = None;
        let mut failure = None;
        let mut end = Instant::now() + 2 * LIMIT;
        while let Ok(Some(answer)) = timeout_at(end, asked.next()).await {
            match answer {
                Ok(said) => {
                    if said.epoch >= known {
                        end = end.min(Instant::now() + PATIENCE);
                    }
                    if best.as_ref().is_none_or(|best| said.epoch > best.epoch) {
                        best = Some(said);
                    }
                }
                Err(error) => failure = Some(error),
            }
        }
        let none = || {
            let kind = redis::ErrorKind::Io;
            RedisError::from((kind, "no sentinel tells where the primary is"))
        };
        let said = best.ok_or_else(|| failure.unwrap_or_else(none))?;
        self.epoch.store(said.epoch, Ordering::Relaxed);
        Ok(said.primary)
    }

    async fn link(
        &self,
        connector: &Connector,
        node: &Address,
    ) -> Result<MultiplexedConnection, RedisError> {
        let credentials = self.watched.credentials.as_ref();
        let stream = connector.tcp(&node.host, node.port).await?;
        let (io, driver) = match &self.tls {
            None => over(stream, credentials).await?,
            Some(tls) => {
                let name = connector.name_of(&node.host)?;
                over(tls.connect(name, stream).await?, credentials).await?
            }
        };
        // Ends with the last clone of the connection.
        tokio::spawn(driver);
        Ok(io)
    }

    async fn ask_one(
        &self,
        connector: &Connector,
        node: &Address,
        link: &tokio::sync::Mutex<Option<MultiplexedConnection>>,
    ) -> Result<Said, RedisError> {
        // One that ends before its answer, with its caller or for want of one, is not used again.
        let mut link = link.lock().await;
        let mut io = match link.take() {
            Some(io) => io,
            None => self.link(connector, node).await?,
        };
        let mut ask = redis::cmd("SENTINEL");
        ask.arg("MASTER").arg(&self.watched.name);
        let reply: Value = ask.query_async(&mut io).await?;
        *link = Some(io);
        drop(link);
        let fields: Vec<(String, String)> = redis::from_redis_value(reply)?;
        let field = |name: &str| {
            let found = fields.iter().find(|(field, _)| field == name);
            found.map(|(_, value)| value.as_str())
        };
        let said = (|| {
            Some(Said {
                primary: Address {
                    host: field("ip")?.to_owned(),
                    port: field("port")?.parse().ok()?,
                },
                epoch: field("config-epoch")?.parse().ok()?,
            })
        })();
        said.ok_or_else(|| {
            let kind = redis::ErrorKind::UnexpectedReturnType;
            (kind, "a sentinel names no primary").into()
        })
    }
}

/// The URL of a primary under sentinels, taken apart:
/// `redis+sentinel://[user:password@]host[:port][,host[:port]...]/name[/db]`.
pub(crate) struct SentinelUrl {
    /// A single server's URL for each sentinel, with the primary's user and database.
    pub(crate) nodes: Vec<String>,
    pub(crate) name: String,
}

const PORT: u16 = 26_379;

impl SentinelUrl {
    /// `None` if it is no such URL; else the reason why it cannot be used, which never repeats it.
    pub(crate) fn parse(url: &str) -> Option<Result<Self, &'static str>> {
        let (scheme, rest) = url.split_once("+sentinel://")?;
        if !matches!(scheme, "redis" | "rediss") {
            return Some(Err("its scheme is unknown"));
        }
        Some(Self::parts(scheme, rest))
    }

    fn parts(scheme: &str, rest: &str) -> Result<Self, &'static str> {
        if rest.contains(['?', '#']) {
            return Err("it takes nothing after ? or #");
        }
        let (authority, path) = rest
            .split_once('/')
            .ok_or("it names no primary: end it with /NAME")?;
        let (name, db) = path.split_once('/').unwrap_or((path, "0"));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
        if name.is_empty() || !name.chars().all(is_plain) {
            return Err("the primary's name, after the hosts, is of letters, digits, - _ and .");
        }
        let (user, hosts) = authority.rsplit_once('@').unwrap_or(("", authority));
        let user = match user {
            "" => String::new(),
            user => format!("{user}@"),
        };
        let url = |host: &str| {
            let behind = host.rsplit_once(']').map_or(host, |(_, behind)| behind);
            let port = match behind.contains(':') {
                true => String::new(),
                false => format!(":{PORT}"),
            };
            format!("{scheme}://{user}{host}{port}/{db}")
        };
        if hosts.split(',').any(str::is_empty) {
            return Err("a host in it is empty");
        }
        Ok(Self {
            nodes: hosts.split(',').map(url).collect(),
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::RedisConfig;

    #[test]
    fn names_sentinels_and_a_primary() {
        let url = "rediss+sentinel://app:p%40ss%2Fw@one:26380,two,[::1]/my-primary/3";
        let config = RedisConfig::new(url).unwrap();
        let host = "my-primary (sentinels: one:26380,two:26379,[::1]:26379)";
        assert_eq!(config.host(), host);
        assert!(config.uses_tls() && !config.is_cluster());
        let redis = config.connection.redis_settings();
        assert_eq!((redis.username(), redis.db()), (Some("app"), 3));
        assert!(!format!("{config:?}").contains("p@ss"), "{config:?}");
        // However its sentinels are named.
        let issuer = |url: &str| RedisConfig::new(url).unwrap().issuer();
        let [one, two] = ["one,two", "two"].map(|hosts| format!("redis+sentinel://{hosts}/p"));
        assert_eq!(issuer(&one), issuer(&two));
        assert_ne!(issuer(&one), issuer("redis+sentinel://one/q"));
    }

    #[test]
    fn refuses_what_it_cannot_use_without_repeating_it() {
        for url in [
            "http+sentinel://user:hunter2@one/p",
            "redis+sentinel://user:hunter2@one",
            "redis+sentinel://user:hunter2@one/",
            "redis+sentinel://user:hunter2@one/a b",
            "redis+sentinel://user:hunter2@one,,two/p",
            "redis+sentinel://user:hunter2@one/p/x",
            "redis+sentinel://user:hunter2@one/p?db=hunter2",
            "rediss+sentinel://user:hunter2@one/p#insecure",
            "redis+sentinel://user:hunt/er2@one/p",
        ] {
            let error = RedisConfig::new(url).unwrap_err();
            assert_eq!(error.kind(), limiter_core::ErrorKind::Config, "{url}");
            assert!(!format!("{error:?}").contains("hunt"), "{error:?}");
        }
    }
}
