//! One call, sent to where its slot is. What a node has refused before it ran is sent again, within one
//! deadline; nothing else is, once its bytes may have left.

use std::error::Error as _;
use std::sync::Arc;
use std::time::Duration;

use limiter_core::{Effect, Error, ErrorKind};
use redis::{RedisError, ServerErrorKind};
use tokio::time::{Instant, sleep};

use super::map::Address;
use super::nodes::Nodes;
use crate::batch::{Place, Undone};
use crate::error::server_error;
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

/// Applies a policy's group whose keys stand in `slot`, until `end`; what the script replies to it.
pub(super) async fn call(
    nodes: &Arc<Nodes>,
    slot: u16,
    policy: &str,
    mut call: Call,
    end: Instant,
) -> Result<Reply, Error> {
    let operation = OPERATION;
    let begun = Instant::now().min(end);
    let mut target = Target::Owner;
    let mut pause = FIRST_PAUSE;
    let mut redirects = 0;
    let mut last: Option<Error> = None;
    loop {
        let map;
        let (address, is_asking) = match &target {
            Target::Named(address) => (address, false),
            Target::Asking(address) => (address, true),
            Target::Owner => {
                map = nodes.map(operation, end).await?;
                let Some(owner) = map.owner(slot) else {
                    let message = format!("no master of the Redis Cluster has slot {slot}");
                    last = Some(Error::new(ErrorKind::Server, operation, message));
                    nodes.refresh_soon(None);
                    pause_until(&mut pause, begun, end, operation, &mut last).await?;
                    continue;
                };
                (owner, false)
            }
        };
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(late(operation, end - begun, last));
        }
        let node = nodes.node(address)?;
        let told = node.apply(policy, call, Place { slot, is_asking }, end);
        let error = match told.await {
            Ok(reply) => return Ok(reply),
            Err(Undone { error, call: None }) => {
                if error.kind().is_outage() {
                    nodes.refresh_soon(None);
                }
                return Err(error);
            }
            Err(Undone {
                error,
                call: Some(undone),
            }) => {
                call = undone;
                error
            }
        };
        let refusal = Refusal::of(&error, address, nodes);
        let wait;
        (target, wait) = match refusal {
            Some(Refusal::Moved(named)) => {
                nodes.refresh_soon(Some(named.clone()));
                redirects += 1;
                (Target::Named(named), redirects > HASTY)
            }
            Some(Refusal::Ask(named)) => {
                redirects += 1;
                (Target::Asking(named), redirects > HASTY)
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
                    true => nodes.owner_anew(slot, end).await,
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
        last = Some(error);
        if wait {
            pause_until(&mut pause, begun, end, operation, &mut last).await?;
        }
    }
}

/// A short pause before the next try, each twice as long as the last; an error if there is no time left.
async fn pause_until(
    pause: &mut Duration,
    begun: Instant,
    end: Instant,
    operation: &'static str,
    last: &mut Option<Error>,
) -> Result<(), Error> {
    if Instant::now() + *pause >= end {
        return Err(late(operation, end - begun, last.take()));
    }
    sleep(*pause).await;
    *pause = (2 * *pause).min(LONGEST_PAUSE);
    Ok(())
}

/// No node took the call in time: it did not run.
fn late(operation: &'static str, within: Duration, last: Option<Error>) -> Error {
    let reason = last.as_ref().map_or("no answer", |error| error.message());
    let millis = within.as_micros().div_ceil(1_000);
    let message =
        format!("no node of the Redis Cluster took the call within {millis} ms: {reason}");
    let error = Error::new(ErrorKind::Timeout, operation, message);
    match last {
        Some(last) => error.with_source(last),
        None => error,
    }
}
