//! Policies from a JSON file.

use std::collections::BTreeMap;
use std::time::Duration;

use limiter_core::limit::{Calendar, Outage, Period, Policy, Quota, Unit};
use limiter_core::{Error, ErrorKind};
use serde::Deserialize;

/// Policies by name.
///
/// ```
/// use limiter::config::PolicySet;
///
/// let policies = PolicySet::from_json(r#"[
///     {"name": "ai-operation", "scope": "api", "algorithm": "fixed_window", "limit": 20, "per": "hour"},
///     {"name": "webhook", "algorithm": "token_bucket", "limit": 60, "refill": 1, "per_seconds": 1, "outage": "deny"}
/// ]"#)?;
/// assert_eq!(policies.get("webhook")?.quota().to_string(), "60 at once, 1 per second");
///
/// let error = PolicySet::from_json(r#"[{"name": "x", "algorithm": "fixed_window", "limit": 0, "per": "hour"}]"#);
/// assert!(error.unwrap_err().to_string().contains("policy x"));
/// # Ok::<(), limiter::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct PolicySet(BTreeMap<String, Policy>);

/// One policy as it stands in the file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Spec {
    name: String,
    algorithm: Algorithm,
    /// The window's limit, the bucket's size, or what may be held at once.
    limit: u64,
    /// Of a token bucket; the limit by default.
    refill: Option<u64>,
    per: Option<Per>,
    per_seconds: Option<u64>,
    scope: Option<String>,
    #[serde(default)]
    outage: OutageName,
    #[serde(default)]
    shadow: bool,
    version: Option<u32>,
    #[serde(default)]
    unit: UnitName,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "snake_case")]
enum Algorithm {
    FixedWindow,
    CalendarWindow,
    SlidingWindow,
    SlidingLog,
    TokenBucket,
    Concurrency,
}

#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Per {
    Second,
    Minute,
    Hour,
    Day,
    Month,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum OutageName {
    #[default]
    Deny,
    Allow,
    /// With the share, as "1/3".
    Local(String),
}

#[derive(Clone, Copy, Debug, Default, Deserialize)]
#[serde(rename_all = "snake_case")]
enum UnitName {
    #[default]
    Requests,
    Tokens,
}

impl PolicySet {
    /// Reads a JSON array of policies: `name`, `algorithm` (`fixed_window`, `calendar_window`,
    /// `sliding_window`, `sliding_log`, `token_bucket`, `concurrency`), `limit`, `per` (`second`, `minute`,
    /// `hour`, `day`, `month` of 30 days; for a `calendar_window` the calendar's own, without `second`) or
    /// `per_seconds` (neither for `concurrency`), and if wanted `refill` (of a token bucket, by default
    /// the limit), `scope`, `outage` (`deny`, the default, `allow`, or `{"local": "1/3"}` with this instance's share), `shadow`, `version`,
    /// `unit` (`requests`, the default, or `tokens`).
    ///
    /// # Errors
    /// `Config` if the text is no such array, a name stands twice, or a policy cannot be built; the
    /// message names the policy and what to change.
    pub fn from_json(text: &str) -> Result<Self, Error> {
        let specs: Vec<Spec> = serde_json::from_str(text)
            .map_err(|error| config_error(format!("the policies cannot be read: {error}")))?;
        let mut policies = BTreeMap::new();
        for spec in specs {
            let policy = spec.build().map_err(|error| {
                config_error(format!("policy {}: {}", spec.name, error.message()))
            })?;
            if policies.insert(spec.name.clone(), policy).is_some() {
                return Err(config_error(format!("policy {} stands twice", spec.name)));
            }
        }
        Ok(Self(policies))
    }

    /// The policy of a name.
    ///
    /// # Errors
    /// `Config` if there is none.
    pub fn get(&self, name: &str) -> Result<&Policy, Error> {
        self.0.get(name).ok_or_else(|| {
            config_error(format!("no policy is named {name}; add it to the policies"))
        })
    }

    /// The policies of `next` in the place of these, for a file that was changed while the service runs.
    ///
    /// # Errors
    /// `Config` if a policy changes its algorithm without a higher `version`; the message names it. Then these stay.
    pub fn replaced_by(&self, next: Self) -> Result<Self, Error> {
        for policy in next.iter() {
            if let Some(present) = self.0.get(policy.name()) {
                present
                    .replaced_by(policy.clone())
                    .map_err(|error| config_error(error.message().to_owned()))?;
            }
        }
        Ok(next)
    }

    /// Every policy, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.0.values()
    }
}

impl Spec {
    fn build(&self) -> Result<Policy, Error> {
        if self.refill.is_some() && self.algorithm != Algorithm::TokenBucket {
            return Err(config_error("only a token_bucket has a refill".to_owned()));
        }
        let limit = self.limit;
        let quota = match self.algorithm {
            Algorithm::FixedWindow => Quota::fixed_window(limit, self.period()?)?,
            Algorithm::CalendarWindow => Quota::calendar_window(limit, self.calendar()?)?,
            Algorithm::SlidingWindow => Quota::sliding_window(limit, self.period()?)?,
            Algorithm::SlidingLog => Quota::sliding_log(limit, self.period()?)?,
            Algorithm::TokenBucket => {
                Quota::token_bucket(limit, self.refill.unwrap_or(limit), self.period()?)?
            }
            Algorithm::Concurrency if self.per.is_none() && self.per_seconds.is_none() => {
                Quota::concurrency(limit)?
            }
            Algorithm::Concurrency => {
                return Err(config_error(
                    "concurrency has no period: drop per and per_seconds".to_owned(),
                ));
            }
        };
        let mut policy = Policy::new(&self.name, quota)?
            .with_outage(match &self.outage {
                OutageName::Deny => Outage::Deny,
                OutageName::Allow => Outage::Allow,
                OutageName::Local(share) => Outage::Local {
                    share: share.parse()?,
                },
            })
            .with_shadow(self.shadow)
            .with_unit(match self.unit {
                UnitName::Requests => Unit::Requests,
                UnitName::Tokens => Unit::Tokens,
            });
        if let Some(scope) = &self.scope {
            policy = policy.with_scope(scope)?;
        }
        if let Some(version) = self.version {
            policy = policy.with_version(version);
        }
        Ok(policy)
    }

    fn period(&self) -> Result<Period, Error> {
        match (self.per, self.per_seconds) {
            (Some(Per::Second), None) => Ok(Period::SECOND),
            (Some(Per::Minute), None) => Ok(Period::MINUTE),
            (Some(Per::Hour), None) => Ok(Period::HOUR),
            (Some(Per::Day), None) => Ok(Period::DAY),
            (Some(Per::Month), None) => Ok(Period::MONTH),
            (None, Some(seconds)) => Period::new(Duration::from_secs(seconds)),
            _ => Err(config_error("give either per or per_seconds".to_owned())),
        }
    }

    fn calendar(&self) -> Result<Calendar, Error> {
        match (self.per, self.per_seconds) {
            (Some(Per::Minute), None) => Ok(Calendar::Minute),
            (Some(Per::Hour), None) => Ok(Calendar::Hour),
            (Some(Per::Day), None) => Ok(Calendar::Day),
            (Some(Per::Month), None) => Ok(Calendar::Month),
            _ => Err(config_error(
                "a calendar_window is per minute, hour, day or month".to_owned(),
            )),
        }
    }
}

fn config_error(message: String) -> Error {
    Error::new(ErrorKind::Config, "limiter.config", message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use limiter_core::limit::Share;

    #[test]
    fn every_algorithm_has_its_name() {
        let set = PolicySet::from_json(
            r#"[
                {"name": "a", "algorithm": "fixed_window", "limit": 5, "per": "day"},
                {"name": "b", "algorithm": "calendar_window", "limit": 5, "per": "month"},
                {"name": "c", "algorithm": "sliding_window", "limit": 5, "per_seconds": 90},
                {"name": "d", "algorithm": "sliding_log", "limit": 5, "per": "minute"},
                {"name": "e", "algorithm": "token_bucket", "limit": 5, "refill": 7, "per": "minute"},
                {"name": "f", "algorithm": "concurrency", "limit": 5}
            ]"#,
        );
        let quotas: Vec<_> = set
            .unwrap()
            .iter()
            .map(|policy| policy.quota().to_string())
            .collect();
        let expected = [
            "5 per day",
            "5 per calendar month",
            "5 per 90 seconds",
            "5 per minute",
            "5 at once, 7 per minute",
            "5 at once",
        ];
        assert_eq!(quotas, expected);
    }

    #[test]
    fn every_fault_names_its_policy() {
        let spec = |change: &str| {
            format!(
                r#"[{{"name": "x", "algorithm": "fixed_window", "limit": 5, "per": "day"{change}}}]"#
            )
        };
        assert!(PolicySet::from_json(&spec("")).is_ok());
        let local = PolicySet::from_json(&spec(r#", "outage": {"local": "1/3"}"#)).unwrap();
        let share = Share::new(1, 3).unwrap();
        assert_eq!(local.get("x").unwrap().outage(), Outage::Local { share });
        for (text, hint) in [
            (spec(r#", "refill": 3"#), "policy x"),
            (spec(r#", "scope": "a b""#), "policy x"),
            (spec(r#", "typo": 1"#), "typo"),
            (spec(r#", "outage": "maybe""#), "maybe"),
            (spec(r#", "outage": "local""#), "newtype variant"),
            (spec(r#", "outage": {"local": "4/3"}"#), "policy x"),
            (spec(r#", "outage": {"local": "half"}"#), "write it as 1/3"),
            (spec(r#", "per_seconds": 5"#), "policy x"),
            ("{}".to_owned(), "cannot be read"),
            (
                r#"[{"name": "a", "algorithm": "concurrency", "limit": 1, "per": "day"}]"#
                    .to_owned(),
                "policy a: concurrency has no period",
            ),
            (
                r#"[{"name": "a", "algorithm": "calendar_window", "limit": 1, "per": "second"}]"#
                    .to_owned(),
                "policy a: a calendar_window is per",
            ),
            (
                r#"[{"name": "a", "algorithm": "fixed_window", "limit": 1, "per_seconds": 0}]"#
                    .to_owned(),
                "policy a",
            ),
            (
                format!("[{0},{0}]", spec("").trim_matches(['[', ']'])),
                "stands twice",
            ),
        ] {
            let error = PolicySet::from_json(&text).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(error.to_string().contains(hint), "{error}");
        }
        let set = PolicySet::from_json(&spec("")).unwrap();
        let bucket = |version: &str| {
            let text = spec(version).replace("fixed_window", "token_bucket");
            PolicySet::from_json(&text).unwrap()
        };
        let refused = set.replaced_by(bucket("")).unwrap_err();
        assert!(
            refused
                .message()
                .contains("policy x changes from fixed_window"),
            "{refused}"
        );
        assert!(set.replaced_by(bucket(r#", "version": 2"#)).is_ok());
        assert!(
            set.get("y")
                .unwrap_err()
                .to_string()
                .contains("no policy is named y")
        );
    }
}
