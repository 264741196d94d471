//! Policies from a file: TOML, YAML or JSON, read whole, and read again when the file changes.
//!
//! ```toml
//! [policies.cover-letter]
//! quota = "20/hour"
//! scope = "api"
//! outage = "allow"
//!
//! [policies.webhook]
//! algorithm = "token_bucket"
//! quota = "60/minute"
//! burst = 100
//! ```
//!
//! - [`PolicySet`]: the policies of a text. All that is wrong with it is told at once, each with its line and column.
//! - [`ConfigFile`]: where the text is, and which variable names it.
//! - [`LivePolicies`]: policies that change when the file does; one that cannot be used changes nothing.
//!
//! docs/policies.schema.json is the JSON Schema of such a file, for editors; [`schema`] is what it is made of.

mod document;
mod fields;
mod file;
mod live;
mod policy;
mod quota;
mod routing;

use std::collections::BTreeMap;

use limiter_core::limit::{LivePolicy, Policy};
use limiter_core::{Error, ErrorKind};

use self::document::{Name, Node, Place, Problem, Value};
use self::fields::Members;

pub use self::document::Format;
pub(crate) use self::file::Looked;
pub use self::file::{ConfigFile, FileWatch};
pub use self::live::{LivePolicies, Reload};
pub use self::routing::{parse_routing, write_routing};

/// Policies by name.
///
/// ```
/// use limiter::config::{Format, PolicySet};
///
/// let policies = PolicySet::parse(Format::Yaml, "
/// policies:
///   ai-operation: { quota: 20/hour, scope: api }
///   webhook: { algorithm: token_bucket, limit: 60, refill: 1, per_seconds: 1, outage: deny }
/// ")?;
/// assert_eq!(policies.get("webhook")?.quota().to_string(), "60 at once, 1 per second");
///
/// let error = PolicySet::parse(Format::Json, r#"{"policies": {
///     "x": {"quota": "0/hour"},
///     "y": {"limit": 5}
/// }}"#).unwrap_err().to_string();
/// assert!(error.contains("line 2, column 20: policy x: \"0/hour\" is no quota"), "{error}");
/// assert!(error.contains("line 3, column 20: policy y: a period is missing"), "{error}");
/// # Ok::<(), limiter::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
pub struct PolicySet(BTreeMap<String, Entry>);

/// A policy, and where its name stands.
#[derive(Clone, Debug)]
struct Entry {
    policy: Policy,
    at: Place,
}

/// The JSON Schema of a file of policies.
pub fn schema() -> String {
    // The alternate form ends without a line's end.
    format!("{:#}\n", fields::schema())
}

impl PolicySet {
    /// Reads a text: `policies`, and in it each policy under its name, with these members:
    ///
    /// | Member | Meaning |
    /// |---|---|
    /// | `quota` | how much in which time: `20/hour`, `5 per second`, `1_000/15 minutes`; units are `s`, `min`, `h`, `d`, `week` and `month` (30 days, but for a calendar window), short or long |
    /// | `algorithm` | `fixed_window` (the default), `calendar_window`, `sliding_window`, `sliding_log`, `token_bucket`, `concurrency` |
    /// | `burst` | with `quota`: the size of a token bucket, if it is another number |
    /// | `limit`, `per` or `per_seconds`, `refill` | in place of `quota`: the numbers by themselves; `per` is `second`, `minute`, `hour`, `day` or `month`; `concurrency` has a limit alone |
    /// | `scope` | what metrics group by |
    /// | `outage` | `deny` (the default), `allow`, or a table `local` with this instance's share, as `"1/3"` |
    /// | `shadow` | whether it only watches |
    /// | `version` | to be raised when the algorithm changes |
    /// | `unit` | `requests` (the default), `tokens` of an AI model, or a name such as `pages` |
    ///
    /// # Errors
    /// `Config`, with all that is wrong and where: the text cannot be read, a member is unknown, doubled or of the wrong kind, or
    /// a policy cannot be built.
    pub fn parse(format: Format, text: &str) -> Result<Self, Error> {
        Self::read(format, text).map_err(|problems| config_error(listed(&problems)))
    }

    fn read(format: Format, text: &str) -> Result<Self, Vec<Problem>> {
        let document = document::read(text, format)?;
        let mut problems = Vec::new();
        let mut policies = BTreeMap::new();
        for (name, node) in members_of(&document, &mut problems) {
            let told = problems.len();
            let about = |problem: Problem| Problem {
                what: format!("policy {}: {}", name.text, problem.what),
                ..problem
            };
            let Value::Table(members) = &node.value else {
                let what = format!(
                    "policy {} is {}; it is a table",
                    name.text,
                    node.value.kind()
                );
                problems.push(Problem::new(node.at, what));
                continue;
            };
            let mut wrong = Vec::new();
            let members = Members::read(name.at, members, &mut wrong);
            let built = policy::build(&name.text, &members);
            match built {
                Ok(policy) if wrong.is_empty() => {
                    let at = name.at;
                    policies.insert(name.text.clone(), Entry { policy, at });
                }
                Ok(_) => {}
                Err(more) => {
                    // What is of the wrong kind is no number out of its range, too; and one fault at a place is enough.
                    for problem in more {
                        if wrong.iter().all(|it| it.at != problem.at) {
                            wrong.push(problem);
                        }
                    }
                }
            }
            problems.extend(wrong.into_iter().map(about));
            problems[told..].sort();
        }
        if problems.is_empty() {
            return Ok(Self(policies));
        }
        problems.sort();
        Err(problems)
    }

    /// The policy of a name.
    ///
    /// # Errors
    /// `Config` if there is none.
    pub fn get(&self, name: &str) -> Result<&Policy, Error> {
        let entry = self.0.get(name).ok_or_else(|| no_policy(name))?;
        Ok(&entry.policy)
    }

    /// Every policy, by name.
    pub fn iter(&self) -> impl Iterator<Item = &Policy> {
        self.0.values().map(|entry| &entry.policy)
    }

    /// Why requests cannot be charged to some of these, with their places; empty if they can.
    fn concurrent<'a>(&self, names: impl Iterator<Item = &'a str>) -> Vec<Problem> {
        let entries = names.filter_map(|name| self.0.get(name));
        let concurrent = entries.filter(|entry| entry.policy.quota().is_concurrency());
        let mut problems: Vec<_> = concurrent
            .map(|entry| {
                let what = format!(
                    "policy {} is of concurrency, on which leases are taken, and requests are charged to it; give it a quota such as 20/hour",
                    entry.policy.name()
                );
                Problem::new(entry.at, what)
            })
            .collect();
        problems.sort();
        problems
    }

    /// What keeps these from taking the place of policies that are used.
    fn obstacles(&self, live: &BTreeMap<String, LivePolicy>) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (name, live) in live {
            match self.0.get(name) {
                Some(after) => {
                    let before = live.current();
                    if let Err(error) = before.replaced_by(after.policy.clone()) {
                        problems.push(Problem::new(after.at, error.message()));
                    } else if before.unit() != after.policy.unit() {
                        let what = format!(
                            "policy {name} cannot count {} in place of {} while it is in use; give the policy another name",
                            after.policy.unit().as_str(),
                            before.unit().as_str()
                        );
                        problems.push(Problem::new(after.at, what));
                    } else if before.quota().is_concurrency()
                        != after.policy.quota().is_concurrency()
                    {
                        let what = format!(
                            "policy {name} cannot become concurrency, or another algorithm after it, while it is in use: leases are taken on one and charges on the others; give the policy another name"
                        );
                        problems.push(Problem::new(after.at, what));
                    }
                }
                None => {
                    let at = Place { line: 1, column: 1 };
                    let what = format!(
                        "policy {name} is gone, and it is in use; keep it, or restart the service without it"
                    );
                    problems.push(Problem::new(at, what));
                }
            }
        }
        problems.sort();
        problems
    }
}

/// The policies of a document, of which none was looked at.
fn members_of<'a>(document: &'a Node, problems: &mut Vec<Problem>) -> &'a [(Name, Node)] {
    const FORM: &str = "give policies, and in it each policy under its name";
    let Value::Table(members) = &document.value else {
        let what = format!("the file is {}; {FORM}", document.value.kind());
        problems.push(Problem::new(document.at, what));
        return &[];
    };
    for (name, _) in members {
        if name.text != "policies" && name.text != "$schema" {
            let what = format!("{:?} is unknown; {FORM}", name.text);
            problems.push(Problem::new(name.at, what));
        }
    }
    if let Some((_, node)) = members.iter().find(|(name, _)| name.text == "$schema")
        && !matches!(node.value, Value::Text(_))
    {
        problems.push(Problem::new(
            node.at,
            "$schema is the address of a schema, a text",
        ));
    }
    match members.iter().find(|(name, _)| name.text == "policies") {
        Some((_, node)) => match &node.value {
            Value::Table(policies) => policies,
            other => {
                let what = format!("policies is {}; {FORM}", other.kind());
                problems.push(Problem::new(node.at, what));
                &[]
            }
        },
        None => {
            problems.push(Problem::new(
                document.at,
                format!("policies is missing; {FORM}"),
            ));
            &[]
        }
    }
}

/// How many faults of a text are told: whoever mends those sees the others.
const MOST_TOLD: usize = 20;

/// "line 2, column 5: ...; line 3, column 1: ..."
fn listed(problems: &[Problem]) -> String {
    let told = problems.iter().map(|problem| {
        let Place { line, column } = problem.at;
        format!("line {line}, column {column}: {}", problem.what)
    });
    let mut told: Vec<_> = told.take(MOST_TOLD).collect();
    if problems.len() > MOST_TOLD {
        told.push(format!("and {} more", problems.len() - MOST_TOLD));
    }
    told.join("; ")
}

fn no_policy(name: &str) -> Error {
    config_error(format!("no policy is named {name}; add it to the policies"))
}

fn config_error(message: String) -> Error {
    Error::new(ErrorKind::Config, "limiter.config", message)
}

#[cfg(test)]
mod tests;
