//! A quota with a name and with what surrounds it.

use std::fmt;
use std::sync::Arc;

use super::quota::Quota;
use crate::error::{Error, ErrorKind};

/// What is enforced, under which name, and what happens when it cannot be.
///
/// The name goes into headers, logs, metrics and problem bodies. Clones share everything.
///
/// ```
/// use limiter_core::limit::{Outage, Period, Policy, Quota};
///
/// let policy = Policy::new("cover-letter", Quota::fixed_window(20, Period::HOUR)?)?
///     .with_scope("api")?
///     .with_outage(Outage::Allow);
/// assert_eq!(policy.name(), "cover-letter");
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Policy(Arc<Inner>);

#[derive(Clone, PartialEq, Eq)]
struct Inner {
    name: Box<str>,
    scope: Box<str>,
    quota: Quota,
    outage: Outage,
    shadow: bool,
    version: u32,
    unit: Unit,
}

/// What a quota counts, for headers and for [`ModelCall`](super::ModelCall).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Unit {
    /// Requests, or whatever else a caller counts. The default.
    #[default]
    Requests,
    /// Tokens of an AI model.
    Tokens,
}

impl Unit {
    /// Lower case, plural: "requests", "tokens".
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requests => "requests",
            Self::Tokens => "tokens",
        }
    }
}

/// What a check answers when the store cannot.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Outage {
    /// Refuse: nothing is admitted that the store did not acknowledge. The default.
    #[default]
    Deny,
    /// Admit, marked as degraded, logged and counted.
    Allow,
}

impl Policy {
    /// An enforced policy of scope `default` that denies in an outage.
    ///
    /// # Errors
    /// `InvalidInput` unless the name is 1 to 64 of `A-Z a-z 0-9 _ - .`.
    pub fn new(name: &str, quota: Quota) -> Result<Self, Error> {
        check_name("policy name", name)?;
        Ok(Self(Arc::new(Inner {
            name: name.into(),
            scope: "default".into(),
            quota,
            outage: Outage::default(),
            shadow: false,
            version: 1,
            unit: Unit::default(),
        })))
    }

    /// The same policy in another scope (`api`, `admin`, `webhook`): what metrics group by.
    ///
    /// # Errors
    /// `InvalidInput` unless the scope is 1 to 64 of `A-Z a-z 0-9 _ - .`.
    pub fn with_scope(self, scope: &str) -> Result<Self, Error> {
        check_name("policy scope", scope)?;
        Ok(self.with(|inner| inner.scope = scope.into()))
    }

    /// The same policy with another rule for outages.
    #[must_use]
    pub fn with_outage(self, outage: Outage) -> Self {
        self.with(|inner| inner.outage = outage)
    }

    /// The same policy, counting and reporting but never blocking, if `shadow`.
    #[must_use]
    pub fn with_shadow(self, shadow: bool) -> Self {
        self.with(|inner| inner.shadow = shadow)
    }

    /// The same policy with another quota.
    #[must_use]
    pub fn with_quota(self, quota: Quota) -> Self {
        self.with(|inner| inner.quota = quota)
    }

    /// The same policy with another version. A changed quota needs a higher one, so that what
    /// instances remember of the old one is dropped.
    #[must_use]
    pub fn with_version(self, version: u32) -> Self {
        self.with(|inner| inner.version = version)
    }

    /// The same policy, counting in another unit.
    #[must_use]
    pub fn with_unit(self, unit: Unit) -> Self {
        self.with(|inner| inner.unit = unit)
    }

    /// The name.
    pub fn name(&self) -> &str {
        &self.0.name
    }

    /// The scope.
    pub fn scope(&self) -> &str {
        &self.0.scope
    }

    /// The quota.
    pub fn quota(&self) -> &Quota {
        &self.0.quota
    }

    /// The rule for outages.
    pub fn outage(&self) -> Outage {
        self.0.outage
    }

    /// Whether the policy only watches.
    pub fn is_shadow(&self) -> bool {
        self.0.shadow
    }

    /// The version.
    pub fn version(&self) -> u32 {
        self.0.version
    }

    /// What the quota counts.
    pub fn unit(&self) -> Unit {
        self.0.unit
    }

    fn with(mut self, change: impl FnOnce(&mut Inner)) -> Self {
        change(Arc::make_mut(&mut self.0));
        self
    }
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy")
            .field("name", &self.0.name)
            .field("scope", &self.0.scope)
            .field("quota", &self.0.quota)
            .field("outage", &self.0.outage)
            .field("shadow", &self.0.shadow)
            .field("version", &self.0.version)
            .field("unit", &self.0.unit)
            .finish()
    }
}

/// Names stand unescaped in headers and metric labels.
fn check_name(what: &'static str, name: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.');
    if name.is_empty() || name.len() > 64 || !name.chars().all(allowed) {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            "policy",
            format!("{what} {name:?} must be 1 to 64 of A-Z a-z 0-9 _ - ."),
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Period;

    #[test]
    fn names_that_would_break_a_header_are_refused() {
        let quota = Quota::fixed_window(1, Period::HOUR).unwrap();
        for name in ["", "a b", "a\"b", "ü", "a\r\nb", &"x".repeat(65)] {
            let error = Policy::new(name, quota).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name:?}");
        }
        let policy = Policy::new("ok", quota).unwrap();
        assert!(policy.with_scope("no good").is_err());
    }
}
