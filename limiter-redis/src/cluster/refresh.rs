//! How the slot map is asked for: in the background, by one refresh at a time.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use limiter_core::{Error, ErrorKind};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until};

use super::map::{Address, SlotMap};
use super::nodes::{Failure, Nodes, REFRESH_GAP, View};
use crate::pool::request::Request;

/// How many nodes are asked for the map at once; the first answer counts.
const ASKED_AT_ONCE: usize = 3;

const SLOTS_OPERATION: &str = "cluster.slots";

impl Nodes {
    /// Refreshes the map in the background: one refresh at a time, one every 100 ms at most. `hint` is
    /// asked first.
    pub(super) fn refresh_soon(self: &Arc<Self>, hint: Option<Address>) {
        let mut begun = false;
        self.view.send_if_modified(|view| {
            begun = !std::mem::replace(&mut view.refreshing, true);
            false
        });
        if !begun {
            return;
        }
        let refresh = Refreshing {
            nodes: self.clone(),
            told: false,
        };
        tokio::spawn(async move {
            let nodes = refresh.nodes.clone();
            let last = nodes.view.borrow().at;
            if let Some(last) = last {
                sleep_until(last + REFRESH_GAP).await;
            }
            refresh.end(nodes.refresh(hint).await);
        });
    }

    async fn refresh(self: &Arc<Self>, hint: Option<Address>) -> Result<SlotMap, Failure> {
        let mut failure = (ErrorKind::Connection, "no node could be asked".to_owned());
        for nodes in self.candidates(hint).chunks(ASKED_AT_ONCE) {
            let mut asked = JoinSet::new();
            for node in nodes {
                let (this, node) = (self.clone(), node.clone());
                asked.spawn(async move { this.ask(&node).await });
            }
            while let Some(answer) = asked.join_next().await {
                match answer {
                    Ok(Ok(map)) => {
                        // A question that is cut off costs the connection that it was sent on.
                        asked.detach_all();
                        return Ok(map);
                    }
                    Ok(Err(error)) => failure = (error.kind(), error.message().to_owned()),
                    Err(_) => {}
                }
            }
        }
        Err(failure)
    }

    /// Whom to ask, best first: who just named itself or was named, the masters in turn, what the URL names.
    fn candidates(&self, hint: Option<Address>) -> Vec<Address> {
        let mut candidates: Vec<Address> = hint.into_iter().collect();
        let map = self.view.borrow().map.clone();
        let masters = map.as_ref().map_or(&[][..], |map| map.masters());
        let turn = self.turn.fetch_add(1, Ordering::Relaxed) % masters.len().max(1);
        let in_turn = masters.iter().cycle().skip(turn).take(masters.len());
        for address in in_turn.chain(&self.seeds) {
            if !candidates.contains(address) {
                candidates.push(address.clone());
            }
        }
        candidates
    }

    async fn ask(self: &Arc<Self>, node: &Address) -> Result<SlotMap, Error> {
        let mut command = redis::cmd("CLUSTER");
        command.arg("SLOTS");
        let asked = self.node(node)?;
        let ask = Request::Command(command);
        let reply = asked
            .batches
            .pool()
            .call_within(self.config.warm_up, SLOTS_OPERATION, ask)
            .await?;
        SlotMap::parse(&reply, node, self.config.prefers_names()).ok_or_else(|| {
            let message =
                format!("Redis at {node} tells no slots: is it a cluster that was set up?");
            Error::new(ErrorKind::Server, SLOTS_OPERATION, message)
        })
    }

    fn install(self: &Arc<Self>, map: SlotMap) {
        let map = Arc::new(map);
        let before = self.view.borrow().map.clone();
        match &before {
            // Nodes that left, and names of the URL that the cluster itself does not use.
            Some(_) => self
                .nodes
                .write()
                .retain(|address, _| map.masters().contains(address)),
            // Connections that were made without a map have not tried their rights.
            None => self.nodes.write().clear(),
        }
        if before.is_none_or(|before| before.masters() != map.masters()) {
            let masters: Vec<String> = map.masters().iter().map(ToString::to_string).collect();
            let unowned = map.unowned();
            tracing::info!(?masters, unowned, "the masters of the Redis Cluster");
        }
        let masters = map.masters().iter();
        let masters = masters.map(|master| self.node(master).ok()).collect();
        self.view.send_replace(View {
            refreshing: false,
            map: Some(map),
            masters,
            at: Some(Instant::now()),
            failure: None,
        });
    }

    fn report(&self, failure: Failure) {
        let (host, reason) = (self.config.host(), &failure.1);
        if let Some(more) = self.log.pass("slots") {
            tracing::warn!(
                host,
                reason,
                more,
                "no node of the Redis Cluster tells its slots"
            );
        }
        self.view.send_modify(|view| {
            view.refreshing = false;
            view.at = Some(Instant::now());
            view.failure = Some(failure);
        });
    }
}

/// A refresh under way. One that its runtime has ended is over too.
struct Refreshing {
    nodes: Arc<Nodes>,
    told: bool,
}

impl Refreshing {
    fn end(mut self, result: Result<SlotMap, Failure>) {
        match result {
            Ok(map) => self.nodes.install(map),
            Err(failure) => self.nodes.report(failure),
        }
        self.told = true;
    }
}

impl Drop for Refreshing {
    fn drop(&mut self) {
        if !self.told {
            self.nodes.view.send_modify(|view| view.refreshing = false);
        }
    }
}
