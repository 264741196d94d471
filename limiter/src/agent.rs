//! Limits on the tools that an AI agent calls: per turn and per session, each tool for itself (E1).

use std::collections::HashMap;
use std::fmt;

use limiter_core::limit::{Charge, GroupDecision, Limiter, LivePolicy, Period, Policy, Quota};
use limiter_core::{Error, Key, KeyBuilder};

/// How often each tool may be called in a turn and in a session.
///
/// A call charges both or neither, in one step, so several instances that serve one session count
/// together. A new turn starts at zero; the session's count goes on (E3). The keys are
/// `rate:{session}:{tool}` and `rate:{session}:{turn}:{tool}`.
///
#[cfg_attr(
    feature = "memory",
    doc = r##"
```
use limiter::{AgentLimits, Period, Quota};

# tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
let backends = limiter::connect("memory:").await?;
let limits = AgentLimits::new(backends.limiter)?
    // A dear tool: twice a turn, ten times a session.
    .with_tool("web_search", Quota::fixed_window(2, Period::HOUR)?, Quota::fixed_window(10, Period::DAY)?);

let turn = limits.turn("session-1", "turn-1");
assert!(turn.call("web_search").await.is_allowed());
assert!(turn.call("web_search").await.is_allowed());
let denied = turn.call("web_search").await;
assert_eq!(denied.violated().next().unwrap().policy.name(), "agent-turn");

let next = limits.turn("session-1", "turn-2").call("web_search").await;
assert!(next.is_allowed());
assert_eq!((next.decisions[0].used, next.decisions[1].used), (1, 3));
# Ok::<(), limiter::Error>(())
# }).unwrap();
```
"##
)]
///
/// Session and turn names that users choose make a counter each: charge a limit of the user's in the
/// same step ([`AgentTurn::call_with`]), and say whose the session is ([`AgentLimits::turn_of`]).
#[derive(Clone, Debug)]
pub struct AgentLimits {
    limiter: Limiter,
    general: Levels,
    tools: HashMap<String, Levels>,
    one_slot: bool,
}

#[derive(Clone, Debug)]
struct Levels {
    turn: LivePolicy,
    session: LivePolicy,
}

impl AgentLimits {
    /// Each tool 10 times a turn (which counts for an hour at most) and 100 times a session (a day).
    ///
    /// # Errors
    /// None at present; the policies could be refused.
    pub fn new(limiter: Limiter) -> Result<Self, Error> {
        let turn = Quota::fixed_window(10, Period::HOUR)?;
        let session = Quota::fixed_window(100, Period::DAY)?;
        Ok(Self::with_policies(
            limiter,
            Policy::new("agent-turn", turn)?.with_scope("agent")?,
            Policy::new("agent-session", session)?.with_scope("agent")?,
        ))
    }

    /// With policies of the caller's for every tool without quotas of its own; they may change while they are used.
    pub fn with_policies(
        limiter: Limiter,
        turn: impl Into<LivePolicy>,
        session: impl Into<LivePolicy>,
    ) -> Self {
        Self {
            limiter,
            general: Levels {
                turn: turn.into(),
                session: session.into(),
            },
            tools: HashMap::new(),
            one_slot: false,
        }
    }

    /// Other quotas for one tool, under the policies that hold now.
    #[must_use]
    pub fn with_tool(mut self, tool: &str, turn: Quota, session: Quota) -> Self {
        let levels = Levels {
            turn: self.general.turn.current().with_quota(turn).into(),
            session: self.general.session.current().with_quota(session).into(),
        };
        self.tools.insert(tool.to_owned(), levels);
        self
    }

    /// Puts the session into a hash tag, so that a session's keys share a slot of a Redis Cluster:
    /// `rate:{{session}}:{tool}`, with braces. Another key: a count that is running starts again.
    #[must_use]
    pub fn in_one_slot(self) -> Self {
        Self {
            one_slot: true,
            ..self
        }
    }

    /// A turn of a user's session. The user's name is the hash tag of the keys, `rate:{{user}}:{session}:{tool}` with braces, so
    /// that all of them share a slot of a Redis Cluster, also with other limits of the user's in the same step, if their keys
    /// have that tag too ([`KeyBuilder::hash_tag`]). Asks nothing.
    pub fn turn_of(&self, user: &str, session: &str, turn: &str) -> AgentTurn<'_> {
        let rate = Key::builder().segment("rate");
        AgentTurn {
            limits: self,
            session: rate.hash_tag(user).segment(session),
            turn: turn.to_owned(),
        }
    }

    /// A turn of a session. Asks nothing.
    pub fn turn(&self, session: &str, turn: &str) -> AgentTurn<'_> {
        let rate = Key::builder().segment("rate");
        AgentTurn {
            limits: self,
            session: if self.one_slot {
                rate.hash_tag(session)
            } else {
                rate.segment(session)
            },
            turn: turn.to_owned(),
        }
    }
}

/// One turn of one session, whose tool calls are charged.
#[derive(Clone)]
pub struct AgentTurn<'a> {
    limits: &'a AgentLimits,
    session: KeyBuilder,
    turn: String,
}

/// Session and turn may name a user.
impl fmt::Debug for AgentTurn<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let limits = self.limits;
        f.debug_struct("AgentTurn")
            .field("limits", limits)
            .finish_non_exhaustive()
    }
}

impl AgentTurn<'_> {
    /// Charges one call of a tool.
    pub async fn call(&self, tool: &str) -> GroupDecision {
        self.call_with(tool, 1, &[]).await
    }

    /// Charges a call of a tool that counts `cost`, together with `others` (a limit of the user's, a
    /// budget): all or nothing. The decisions are the turn's, the session's, and those of `others`.
    pub async fn call_with(&self, tool: &str, cost: u64, others: &[Charge<'_>]) -> GroupDecision {
        let (turn, session) = self.keys(tool);
        let levels = self.levels(tool);
        let (of_turn, of_session) = (levels.turn.of(&turn), levels.session.of(&session));
        let mut charges = vec![
            Charge::new(&of_turn, &turn).with_cost(cost),
            Charge::new(&of_session, &session).with_cost(cost),
        ];
        charges.extend_from_slice(others);
        self.limits.limiter.check_all(&charges).await
    }

    /// The keys of a tool's counters: the turn's and the session's.
    pub fn keys(&self, tool: &str) -> (Key, Key) {
        let turn = self.session.clone().segment(&self.turn).segment(tool);
        (turn.build(), self.session.clone().segment(tool).build())
    }

    fn levels(&self, tool: &str) -> &Levels {
        self.limits.tools.get(tool).unwrap_or(&self.limits.general)
    }
}
