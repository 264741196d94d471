//! What is asked whenever a connection is made: where to, and as whom.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::Arc;

use limiter_core::Error;
use rustls::pki_types::ServerName;
use secrecy::{ExposeSecret, SecretString};

use crate::config::config_error;

/// Whom a connection is made as. `Debug` shows no password.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Credentials {
    /// The user; `None` for the one of the URL.
    pub user: Option<String>,
    /// Its password.
    pub password: SecretString,
}

impl Credentials {
    /// For the user of the URL.
    pub fn of_password(password: impl Into<SecretString>) -> Self {
        Self {
            user: None,
            password: password.into(),
        }
    }
}

/// Says whom a connection is made as, whenever one is made. Closures do; so does [`PasswordFile`].
pub trait CredentialsProvider: Send + Sync {
    /// What holds now. Called in a task that other tasks wait for, so it must not take long.
    ///
    /// # Errors
    /// Why there are none, without a secret; no connection is made then.
    fn credentials(&self) -> Result<Credentials, Error>;
}

impl<F: Fn() -> Result<Credentials, Error> + Send + Sync> CredentialsProvider for F {
    fn credentials(&self) -> Result<Credentials, Error> {
        self()
    }
}

/// A file that holds a password, and white space around it perhaps; read whenever a connection is made.
#[derive(Clone, Debug)]
pub struct PasswordFile(pub PathBuf);

impl CredentialsProvider for PasswordFile {
    fn credentials(&self) -> Result<Credentials, Error> {
        let path = &self.0;
        let unusable = |what: &str| {
            let path = path.display();
            config_error(format!("the password file {path} {what}"))
        };
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|error| unusable(&format!("cannot be read ({error})")))?;
        let password = SecretString::from(text.trim());
        if password.expose_secret().is_empty() {
            return Err(unusable("is empty"));
        }
        Ok(Credentials::of_password(password))
    }
}

/// Says where a host and port are reached, whenever a connection is made. Closures do.
pub trait Resolver: Send + Sync {
    /// The host and port to connect to; `None` for those that were asked about.
    fn resolve(&self, host: &str, port: u16) -> Option<(String, u16)>;
}

impl<F: Fn(&str, u16) -> Option<(String, u16)> + Send + Sync> Resolver for F {
    fn resolve(&self, host: &str, port: u16) -> Option<(String, u16)> {
        self(host, port)
    }
}

/// Where announced addresses are reached, as `REDIS_ADDRESS_MAP` says.
pub(crate) struct AddressMap(HashMap<(String, u16), (String, u16)>);

impl AddressMap {
    /// Reads `ANNOUNCED_HOST:PORT=HOST:PORT`, with commas between several.
    pub(crate) fn parse(text: &str) -> Option<Self> {
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
        text.split(',').map(pair).collect::<Option<_>>().map(Self)
    }
}

impl Resolver for AddressMap {
    fn resolve(&self, host: &str, port: u16) -> Option<(String, u16)> {
        self.0.get(&(host.to_owned(), port)).cloned()
    }
}

/// Everything that is asked.
#[derive(Clone, Default)]
pub(crate) struct Reach {
    pub(crate) credentials: Option<Arc<dyn CredentialsProvider>>,
    pub(crate) resolver: Option<Arc<dyn Resolver>>,
    /// The name that certificates are checked for, in place of the host's.
    pub(crate) tls_name: Option<ServerName<'static>>,
}

/// # Errors
/// `Config` if no certificate can have that name.
pub(crate) fn tls_name(name: &str) -> Result<ServerName<'static>, Error> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| config_error(format!("{name:?} is no name that a certificate can have")))
}

#[cfg(test)]
mod tests {
    use super::{AddressMap, Resolver};

    #[test]
    fn addresses_are_mapped_as_they_are_written() {
        let map =
            AddressMap::parse("10.0.0.1:6379=localhost:7001, [fd00::2]:6379=[::1]:7002").unwrap();
        let reached = |host, port| map.resolve(host, port);
        assert_eq!(
            reached("10.0.0.1", 6379),
            Some(("localhost".to_owned(), 7001))
        );
        assert_eq!(reached("fd00::2", 6379), Some(("::1".to_owned(), 7002)));
        assert_eq!(reached("10.0.0.1", 6380), None);
        for bad in [
            "",
            "a:1",
            "a:1=b",
            "a:0=b:1",
            ":1=b:1",
            "a:1=b:65536",
            "a:1=b:1,",
        ] {
            assert!(AddressMap::parse(bad).is_none(), "{bad}");
        }
    }
}
