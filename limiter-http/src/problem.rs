//! Refusals as problem details, `application/problem+json` (RFC 9457).

use http::StatusCode;
use limiter_core::limit::Outcome;
use serde::{Serialize, Serializer};

use crate::decided::{Decided, window_seconds};

/// The media type of a [`Problem`].
pub const CONTENT_TYPE: &str = "application/problem+json";

/// What kind of refusal it is: the `type` of a [`Problem`], which clients branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ProblemType {
    /// 429, `urn:limiter:problem:rate-limit-exceeded`: waiting helps.
    RateLimitExceeded,
    /// 400, `urn:limiter:problem:cost-above-limit`: waiting does not help, asking for less does.
    CostAboveLimit,
    /// 429, `urn:limiter:problem:limiter-unavailable`: the limit could not be checked now.
    LimiterUnavailable,
    /// 503, `https://iana.org/assignments/http-problem-types#temporary-reduced-capacity` (draft-ietf-httpapi-ratelimit-headers,
    /// section "Temporary Reduced Capacity"): the same under [`UnavailableStatus::ServiceUnavailable`].
    TemporaryReducedCapacity,
    /// 400 or what [`Target::refuse`](crate::Target::refuse) says, `urn:limiter:problem:unknown-client`: the request names
    /// nobody to whom it could be charged.
    UnknownClient,
    /// 500, `urn:limiter:problem:limiter-error`: the server is misconfigured.
    LimiterError,
}

impl ProblemType {
    /// The `type` URI.
    pub fn uri(self) -> &'static str {
        match self {
            Self::RateLimitExceeded => "urn:limiter:problem:rate-limit-exceeded",
            Self::CostAboveLimit => "urn:limiter:problem:cost-above-limit",
            Self::LimiterUnavailable => "urn:limiter:problem:limiter-unavailable",
            Self::TemporaryReducedCapacity => {
                "https://iana.org/assignments/http-problem-types#temporary-reduced-capacity"
            }
            Self::UnknownClient => "urn:limiter:problem:unknown-client",
            Self::LimiterError => "urn:limiter:problem:limiter-error",
        }
    }

    /// The `title`: the same for every problem of the type.
    pub fn title(self) -> &'static str {
        match self {
            Self::RateLimitExceeded => "Rate limit exceeded",
            Self::CostAboveLimit => "Cost above the limit",
            Self::LimiterUnavailable => "Rate limit could not be checked",
            Self::TemporaryReducedCapacity => {
                "Request cannot be satisfied due to temporary server capacity constraints"
            }
            Self::UnknownClient => "Client not identified",
            Self::LimiterError => "Rate limiter error",
        }
    }
}

impl Serialize for ProblemType {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.uri())
    }
}

/// The status when the limit could not be checked and the policy denies then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[expect(
    clippy::exhaustive_enums,
    reason = "no other status says that waiting helps"
)]
pub enum UnavailableStatus {
    /// 429. The default: what clients of a limited route are prepared for.
    #[default]
    TooManyRequests,
    /// 503: tells monitoring the outage and the client's own fault apart.
    ServiceUnavailable,
}

/// What the client asked for, as a problem names it. Also made from a `&str`, the operation.
#[derive(Clone, Copy, Debug, Default)]
pub struct Asked<'a> {
    pub(crate) operation: Option<&'a str>,
    pub(crate) cost: Option<u64>,
}

impl<'a> Asked<'a> {
    /// The operation's name. The policy's name by default.
    #[must_use]
    pub fn operation(self, name: &'a str) -> Self {
        Self {
            operation: Some(name),
            ..self
        }
    }

    /// The cost that was asked of the policy, shown when it can never be granted.
    #[must_use]
    pub fn cost(self, cost: u64) -> Self {
        Self {
            cost: Some(cost),
            ..self
        }
    }
}

impl<'a> From<&'a str> for Asked<'a> {
    fn from(operation: &'a str) -> Self {
        Self::default().operation(operation)
    }
}

/// Why a request was refused.
///
/// Serialises to a JSON object of `type`, `title`, `status` and `detail`, and, unless it is an
/// [`UnknownClient`](ProblemType::UnknownClient) or a [`LimiterError`](ProblemType::LimiterError), of what follows. All numbers are integers, rounded up.
///
/// | member | |
/// |---|---|
/// | `policy` | the name of the policy that binds |
/// | `operation` | what was asked for |
/// | `limit`, `remaining` | of that policy, as in `X-RateLimit-*` |
/// | `period_seconds` | the time in which the whole limit comes back; absent for concurrency |
/// | `cost` | what was asked, if known and above the limit |
/// | `retry_after_seconds`, `retry_after_minutes` | at least 1; absent where waiting does not help |
/// | `violated` | the names of all policies in the way |
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem<'a> {
    #[serde(rename = "type")]
    problem_type: ProblemType,
    title: &'static str,
    status: u16,
    detail: String,
    #[serde(flatten)]
    members: Option<Members<'a>>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Members<'a> {
    policy: &'a str,
    operation: &'a str,
    limit: u64,
    remaining: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    period_seconds: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    cost: Option<u64>,
    #[serde(flatten)]
    wait: Option<Wait>,
    violated: Vec<&'a str>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
struct Wait {
    retry_after_seconds: u64,
    retry_after_minutes: u64,
}

impl<'a> Problem<'a> {
    /// The problem of an answer that is not "allowed".
    pub(crate) fn new(
        answer: Decided<'a>,
        asked: Asked<'a>,
        unavailable: UnavailableStatus,
    ) -> Option<Self> {
        let problem_type = match answer.outcome() {
            Outcome::Allowed => return None,
            Outcome::Denied { .. } => ProblemType::RateLimitExceeded,
            Outcome::Never => ProblemType::CostAboveLimit,
            Outcome::Unavailable { .. } if !answer.is_failure() => match unavailable {
                UnavailableStatus::TooManyRequests => ProblemType::LimiterUnavailable,
                UnavailableStatus::ServiceUnavailable => ProblemType::TemporaryReducedCapacity,
            },
            _ => ProblemType::LimiterError,
        };
        let Some(binding) = answer.binding() else {
            return Some(Self::error());
        };
        let operation = asked.operation.unwrap_or(binding.policy.name());
        let wait = answer.retry_after_secs().map(|seconds| Wait {
            retry_after_seconds: seconds,
            retry_after_minutes: seconds.div_ceil(60),
        });
        let quota = binding.policy.quota();
        let detail = match (problem_type, wait, asked.cost) {
            (ProblemType::RateLimitExceeded, Some(wait), _) => format!(
                "{operation} is limited to {quota}; try again in {}",
                minutes(wait.retry_after_minutes)
            ),
            (ProblemType::CostAboveLimit, _, Some(cost)) => format!(
                "{operation} asked for {cost}, above the limit of {}; ask for less",
                binding.limit
            ),
            (ProblemType::CostAboveLimit, ..) => format!(
                "{operation} asked for more than the limit of {}; ask for less",
                binding.limit
            ),
            (ProblemType::LimiterUnavailable | ProblemType::TemporaryReducedCapacity, ..) => {
                format!("the limit of {operation} could not be checked; try again shortly")
            }
            _ => return Some(Self::error()),
        };
        let status = match problem_type {
            ProblemType::CostAboveLimit => StatusCode::BAD_REQUEST,
            ProblemType::TemporaryReducedCapacity => StatusCode::SERVICE_UNAVAILABLE,
            _ => StatusCode::TOO_MANY_REQUESTS,
        };
        Some(Self {
            problem_type,
            title: problem_type.title(),
            status: status.as_u16(),
            detail,
            members: Some(Members {
                policy: binding.policy.name(),
                operation,
                limit: binding.limit,
                remaining: binding.remaining,
                period_seconds: window_seconds(quota),
                cost: asked
                    .cost
                    .filter(|_| problem_type == ProblemType::CostAboveLimit),
                wait,
                violated: answer
                    .told()
                    .filter(|decision| !decision.is_allowed())
                    .map(|decision| decision.policy.name())
                    .collect(),
            }),
        })
    }

    /// A fault of the server's own. Why is in its log, not in a body that strangers read.
    pub(crate) fn error() -> Self {
        let problem_type = ProblemType::LimiterError;
        Self {
            problem_type,
            title: problem_type.title(),
            status: StatusCode::INTERNAL_SERVER_ERROR.as_u16(),
            detail: "the server could not check its limits".to_owned(),
            members: None,
        }
    }

    /// A request that names nobody.
    pub(crate) fn unknown_client(status: StatusCode) -> Self {
        let problem_type = ProblemType::UnknownClient;
        Self {
            problem_type,
            title: problem_type.title(),
            status: status.as_u16(),
            detail: match status {
                StatusCode::FORBIDDEN => "this caller is refused",
                StatusCode::UNAUTHORIZED => {
                    "the request has no credentials that this service knows"
                }
                _ => "the request does not name its caller, so it can be charged to nobody",
            }
            .to_owned(),
            members: None,
        }
    }

    /// The kind of refusal.
    pub fn problem_type(&self) -> ProblemType {
        self.problem_type
    }

    /// The HTTP status.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// The sentence for people.
    pub fn detail(&self) -> &str {
        &self.detail
    }

    /// The policy that binds; `None` where none was asked.
    pub fn policy(&self) -> Option<&str> {
        self.members.as_ref().map(|members| members.policy)
    }

    /// What was asked for; `None` where no policy was asked.
    pub fn operation(&self) -> Option<&str> {
        self.members.as_ref().map(|members| members.operation)
    }

    /// How long the client should wait, in whole seconds, rounded up, at least 1; `None` where waiting does not help.
    pub fn retry_after_secs(&self) -> Option<u64> {
        let wait = self.members.as_ref()?.wait?;
        Some(wait.retry_after_seconds)
    }

    /// The body.
    pub fn to_json(&self) -> String {
        // Strings and integers always serialise.
        serde_json::to_string(self).unwrap_or_default()
    }
}

fn minutes(count: u64) -> String {
    match count {
        1 => "1 minute".to_owned(),
        n => format!("{n} minutes"),
    }
}

#[cfg(test)]
mod tests;
