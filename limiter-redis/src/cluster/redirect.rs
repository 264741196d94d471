//! One call, sent to where its slot is. What a node has refused before it ran is sent again, within one
//! deadline; nothing else is, once its bytes may have left.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use limiter_core::{Effect, Error, ErrorKind};
use redis::{RedisError, ServerErrorKind};
use tokio::time::{Instant, sleep};

use super::map::Address;
use super::nodes::{Node, Nodes};
use crate::batch::{Place, Undone};
use crate::error::server_error;
use crate::guard::Span;
use crate::script::call::{Call, OPERATION};
use crate::script::reply::Reply;

const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(20);

/// How many redirects in a row are followed without a pause: more are nodes that disagree.
const HASTY: u32 = 4;

/// Where to send the call.
enum Target {
    /// Who has the slot by the map.
    Owner,
    /// Who has it by what another node said.
    Named(Address),
    /// Who is getting it.
    Asking(Address),
}

/// Why a node refused the call before it ran.
enum Refusal {
    Moved(Address),
    Ask(Address),
    /// The keys of the call are on two nodes while their slot moves.
    TryAgain,
    /// The node cannot serve for now, or is a replica, or has just forgotten the script.
    NotNow,
}

impl Refusal {
    /// `None` if the call may have run, or cannot be helped by sending it again.
    fn of(error: &Error, asked: &Address, nodes: &Nodes) -> Option<Self> {
        let error = error.source()?.downcast_ref::<RedisError>()?;
        let named = || Some(nodes.known(Address::parse(error.redirect_node()?.0, asked)?));
        match server_error(error)? {
            ServerErrorKind::Moved => named().map(Self::Moved),
            ServerErrorKind::Ask => named().map(Self::Ask),
            ServerErrorKind::TryAgain => Some(Self::TryAgain),
            ServerErrorKind::ClusterDown
            | ServerErrorKind::BusyLoading
            | ServerErrorKind::ReadOnly
            | ServerErrorKind::NoScript => Some(Self::NotNow),
            _ => None,
        }
    }
}

/// The way of a call that has no answer yet.
pub(super) struct Route<'a> {
    nodes: &'a Arc<Nodes>,
    slot: u16,
    span: Span,
    target: Target,
    pause: Duration,
    redirects: u32,
    last: Option<Error>,
}

impl<'a> Route<'a> {
    pub(super) fn new(nodes: &'a Arc<Nodes>, slot: u16, span: Span) -> Self {
        Self {
            nodes,
            slot,
            span,
            target: Target::Owner,
            pause: FIRST_PAUSE,
            redirects: 0,
            last: None,
        }
    }

    /// Sends the call until there is an answer, or no time left.
    pub(super) async fn follow(mut self, policy: &str, mut call: Call) -> Result<Reply, Error> {
        loop {
            let Some(node) = self.node().await? else {
                let message = format!("no master of the Redis Cluster has slot {}", self.slot);
                self.last = Some(Error::new(ErrorKind::Server, OPERATION, message));
                self.nodes.refresh_soon(None);
                self.wait().await?;
                continue;
            };
            let span = Span::until(self.span.end);
            if span.begun >= span.end {
                return Err(late(self.span, self.last.take()));
            }
            let place = Place {
                slot: self.slot,
                is_asking: matches!(self.target, Target::Asking(_)),
            };
            match node.batches.apply(policy, call, place, span).await {
                Ok(reply) => return Ok(reply),
                Err(undone) => call = self.refused(&node, undone).await?,
            }
        }
    }

    /// Whom to ask next; `None` if nobody has the slot.
    async fn node(&self) -> Result<Option<Arc<Node>>, Error> {
        if let Target::Named(address) | Target::Asking(address) = &self.target {
            return self.nodes.node(address).map(Some);
        }
        let map = self.nodes.map(OPERATION, self.span.end).await?;
        let owner = map.owner(self.slot);
        owner.map(|owner| self.nodes.node(owner)).transpose()
    }

    /// What comes of a call that a node did not answer.
    pub(super) async fn go_on(
        mut self,
        policy: &str,
        node: &Node,
        undone: Undone,
    ) -> Result<Reply, Error> {
        let call = self.refused(node, undone).await?;
        self.follow(policy, call).await
    }

    /// The call again, to be sent to the next target; the error, if there is nowhere to send it, or it may have run.
    async fn refused(&mut self, node: &Node, undone: Undone) -> Result<Call, Error> {
        let nodes = self.nodes;
        let Undone { error, call } = undone;
        let Some(call) = call else {
            if error.kind().is_outage() {
                nodes.refresh_soon(None);
            }
            return Err(error);
        };
        let address = &node.address;
        let waits;
        (self.target, waits) = match Refusal::of(&error, address, nodes) {
            Some(Refusal::Moved(named)) => {
                nodes.refresh_soon(Some(named.clone()));
                self.redirects += 1;
                (Target::Named(named), self.redirects > HASTY)
            }
            Some(Refusal::Ask(named)) => {
                self.redirects += 1;
                (Target::Asking(named), self.redirects > HASTY)
            }
            Some(Refusal::TryAgain) => (Target::Owner, true),
            Some(Refusal::NotNow) => {
                nodes.refresh_soon(None);
                (Target::Owner, true)
            }
            None => {
                // A node that is gone and took nothing: another may have its slots by now.
                let gone = error.kind() == ErrorKind::Connection && error.effect() == Effect::No;
                let owner = match gone {
                    true => nodes.owner_anew(self.slot, self.span.end).await,
                    false => None,
                };
                match owner.filter(|owner| owner != address) {
                    Some(owner) => (Target::Named(owner), false),
                    None => {
                        if error.kind().is_outage() {
                            nodes.refresh_soon(None);
                        }
                        return Err(nodes.advise(error, address));
                    }
                }
            }
        };
        self.last = Some(error);
        if waits {
            self.wait().await?;
        }
        Ok(call)
    }

    /// A short pause before the next try, each twice as long as the last; an error if there is no time left.
    async fn wait(&mut self) -> Result<(), Error> {
        if Instant::now() + self.pause >= self.span.end {
            return Err(late(self.span, self.last.take()));
        }
        sleep(self.pause).await;
        self.pause = (2 * self.pause).min(LONGEST_PAUSE);
        Ok(())
    }
}

/// No node took the call in time: it did not run.
fn late(span: Span, last: Option<Error>) -> Error {
    let reason = last.as_ref().map_or("no answer", |error| error.message());
    let millis = (span.end - span.begun).as_micros().div_ceil(1_000);
    let message =
        format!("no node of the Redis Cluster took the call within {millis} ms: {reason}");
    let error = Error::new(ErrorKind::Timeout, OPERATION, message);
    match last {
        Some(last) => error.with_source(last),
        None => error,
    }
}
