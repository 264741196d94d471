//! A real Redis Cluster for one test: three masters whose slots can be moved.

use std::time::{Duration, Instant};

use limiter_redis::RedisConfig;
use tempfile::TempDir;

use crate::launch::{certify, free_node_port, tls_arguments};
use crate::server::RedisServer;

const SLOTS: u16 = 16_384;

/// Three `redis-server` masters, each with a third of the slots. Stopped when dropped.
#[derive(Debug)]
pub struct RedisCluster {
    /// The masters, in the order of their slots.
    pub nodes: Vec<RedisServer>,
    ids: Vec<String>,
    tls: Option<Tls>,
}

/// The certificate of all nodes, and where each speaks TLS.
#[derive(Debug)]
struct Tls {
    directory: TempDir,
    ports: Vec<u16>,
}

impl RedisCluster {
    /// Starts the masters and waits until each of them says that the cluster is whole.
    pub fn start() -> Self {
        let nodes = (0..3).map(|_| RedisServer::start_node(&[])).collect();
        Self::whole(nodes, None)
    }

    /// The same, and they speak TLS, among each other too, with a certificate for `localhost` while they announce addresses. The
    /// tests' own commands go over plain connections.
    pub fn start_tls() -> Self {
        let directory = TempDir::new().unwrap();
        certify(directory.path());
        let mut ports = Vec::new();
        let nodes = (0..3).map(|_| {
            let port = free_node_port().expect("a free port");
            ports.push(port);
            let mut arguments = tls_arguments(directory.path(), port);
            arguments.extend(["--tls-cluster", "yes"].map(str::to_owned));
            RedisServer::start_node(&arguments)
        });
        let nodes = nodes.collect();
        Self::whole(nodes, Some(Tls { directory, ports }))
    }

    fn whole(nodes: Vec<RedisServer>, tls: Option<Tls>) -> Self {
        let mut cluster = Self {
            nodes,
            ids: Vec::new(),
            tls,
        };
        for (index, node) in cluster.nodes.iter().enumerate() {
            cluster.ids.push(node.command(&["CLUSTER", "MYID"]));
            let epoch = (index + 1).to_string();
            node.command::<()>(&["CLUSTER", "SET-CONFIG-EPOCH", &epoch]);
            let slots = (0..SLOTS).filter(|slot| third_of(*slot) == index);
            let slots: Vec<String> = slots.map(|slot| slot.to_string()).collect();
            let mut line = vec!["CLUSTER", "ADDSLOTS"];
            line.extend(slots.iter().map(String::as_str));
            node.command::<()>(&line);
        }
        for (index, node) in cluster.nodes.iter().enumerate().skip(1) {
            let tls = cluster.tls.as_ref().map(|tls| tls.ports[index]);
            let port = tls.unwrap_or(node.port()).to_string();
            cluster.nodes[0].command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port]);
        }
        wait("the cluster is not whole", || {
            cluster.nodes.iter().all(|node| {
                let info: String = node.command(&["CLUSTER", "INFO"]);
                info.contains("cluster_state:ok") && info.contains("cluster_size:3")
            })
        });
        cluster
    }

    /// Starts one more master, which has no slot, and makes it known to the others.
    pub fn add_node(&mut self) -> usize {
        let node = RedisServer::start_node(&[]);
        let id: String = node.command(&["CLUSTER", "MYID"]);
        let port = node.port().to_string();
        self.nodes[0].command::<()>(&["CLUSTER", "MEET", "127.0.0.1", &port]);
        self.nodes.push(node);
        self.ids.push(id.clone());
        wait("the new node is not known", || {
            self.nodes.iter().all(|node| {
                let nodes: String = node.command(&["CLUSTER", "NODES"]);
                let lines = nodes.lines();
                let known =
                    lines.filter(|line| line.contains(" connected") && !line.contains("handshake"));
                let info: String = node.command(&["CLUSTER", "INFO"]);
                known.count() == self.nodes.len() && info.contains("cluster_state:ok")
            })
        });
        self.nodes.len() - 1
    }

    /// Starts a replica of one of the masters, which has all of its keys when this returns.
    pub fn add_replica(&mut self, of: usize) -> usize {
        let replica = self.add_node();
        for (name, value) in [("masteruser", "admin"), ("masterauth", "admin-secret")] {
            for node in [of, replica] {
                self.nodes[node].command::<()>(&["CONFIG", "SET", name, value]);
            }
        }
        self.nodes[replica].command::<()>(&["CLUSTER", "REPLICATE", &self.ids[of]]);
        wait("the replica is not in step", || {
            let info: String = self.nodes[replica].command(&["INFO", "replication"]);
            info.contains("master_link_status:up")
        });
        replica
    }

    /// The same with a replica for each master, which takes its place when that has been away for a second.
    pub fn start_with_replicas() -> Self {
        let mut cluster = Self::start();
        for master in 0..3 {
            cluster.add_replica(master);
        }
        for node in &cluster.nodes {
            node.command::<()>(&["CONFIG", "SET", "cluster-node-timeout", "1000"]);
        }
        cluster
    }

    /// Waits until the replica of a master that [`start_with_replicas`](Self::start_with_replicas) gave it is a master itself, and
    /// the others know.
    pub fn wait_for_replica_of(&self, master: usize) {
        let id = &self.ids[3 + master];
        wait("the replica is no master", || {
            self.nodes.iter().enumerate().all(|(index, node)| {
                if index == master {
                    return true;
                }
                let nodes: String = node.command(&["CLUSTER", "NODES"]);
                let info: String = node.command(&["CLUSTER", "INFO"]);
                let line = nodes.lines().find(|line| line.starts_with(id.as_str()));
                line.is_some_and(|line| line.contains("master"))
                    && info.contains("cluster_state:ok")
            })
        });
    }

    /// Makes a replica the master, in agreement with the old one, so that nothing is lost.
    pub fn fail_over_to(&self, replica: usize) {
        // A server gives up after five seconds, if the others did not yet know it for a replica: then it is asked again.
        const PATIENCE: Duration = Duration::from_secs(6);
        let mut asked: Option<Instant> = None;
        wait("the replica is no master", || {
            if asked.is_none_or(|asked| asked.elapsed() > PATIENCE) {
                self.nodes[replica].command::<()>(&["CLUSTER", "FAILOVER"]);
                asked = Some(Instant::now());
            }
            is_master(&self.nodes[replica])
        });
        // The old one of Redis 6.2 holds scripts up for ten seconds.
        for node in &self.nodes {
            node.try_command::<u64>(&["EVAL", "return 1", "0"]);
        }
    }

    /// The URL of the least-privilege user, with every node.
    pub fn url(&self) -> String {
        self.url_of("limiter", "limiter-secret")
    }

    /// The URL of any user, with every node.
    pub fn url_of(&self, user: &str, password: &str) -> String {
        let ports = self.nodes.iter().map(RedisServer::port);
        let hosts: Vec<String> = ports.map(|port| format!("127.0.0.1:{port}")).collect();
        format!("redis+cluster://{user}:{password}@{}", hosts.join(","))
    }

    /// Settings over TLS that trust the certificate of [`start_tls`](Self::start_tls).
    pub fn tls_config(&self) -> RedisConfig {
        let tls = self.tls.as_ref().expect("a cluster that speaks TLS");
        let hosts: Vec<String> = tls
            .ports
            .iter()
            .map(|port| format!("localhost:{port}"))
            .collect();
        let url = format!(
            "rediss+cluster://limiter:limiter-secret@{}",
            hosts.join(",")
        );
        let pem = std::fs::read(tls.directory.path().join("cert.pem")).unwrap();
        let config = RedisConfig::new(&url).unwrap().with_tls_ca(pem).unwrap();
        config.with_check_deadline(Duration::from_secs(10))
    }

    /// Settings with a deadline that a busy test machine keeps.
    pub fn config(&self) -> RedisConfig {
        RedisConfig::new(&self.url())
            .unwrap()
            .with_check_deadline(Duration::from_secs(10))
    }

    /// Settings for a store on the virtual clock; see [`set_virtual_now`](Self::set_virtual_now).
    pub fn virtual_config(&self) -> RedisConfig {
        RedisConfig::new(&self.url_of("virtual", "virtual-secret"))
            .unwrap()
            .with_check_deadline(Duration::from_secs(10))
    }

    /// Sets the virtual clock, in microseconds, on every node. The slots must be where they were at the
    /// start.
    pub fn set_virtual_now(&self, micros: u64) {
        for tag in ["{a}", "{b}", "{c}"] {
            let key = format!("ratelimit:%virtual:now{tag}");
            let node = third_of(self.slot(&key));
            self.nodes[node].command::<()>(&["SET", &key, &micros.to_string()]);
        }
    }

    /// The slot of a key, as a server counts it.
    pub fn slot(&self, key: &str) -> u16 {
        self.nodes[0].command(&["CLUSTER", "KEYSLOT", key])
    }

    /// Which node has a slot by the slots of the start.
    pub fn home(&self, slot: u16) -> usize {
        third_of(slot)
    }

    /// Moves a slot with all of its keys, as an operator's tool does.
    pub fn migrate(&self, slot: u16, from: usize, to: usize) {
        let moving = self.begin(slot, from, to);
        moving.move_keys();
        moving.finish();
    }

    /// Begins to move a slot: from here on `from` sends calls for keys that it lacks to `to`.
    pub fn begin(&self, slot: u16, from: usize, to: usize) -> Moving<'_> {
        let text = slot.to_string();
        let (source, target) = (&self.ids[from], &self.ids[to]);
        self.nodes[to].command::<()>(&["CLUSTER", "SETSLOT", &text, "IMPORTING", source]);
        self.nodes[from].command::<()>(&["CLUSTER", "SETSLOT", &text, "MIGRATING", target]);
        Moving {
            cluster: self,
            slot: text,
            from,
            to,
        }
    }
}

/// A slot that is between two nodes, until [`finish`](Self::finish).
#[derive(Debug)]
#[must_use = "the slot is between two nodes until `finish`"]
pub struct Moving<'a> {
    cluster: &'a RedisCluster,
    slot: String,
    from: usize,
    to: usize,
}

impl Moving<'_> {
    /// Moves some keys.
    pub fn move_these(&self, keys: &[String]) {
        let port = self.cluster.nodes[self.to].port().to_string();
        let mut line = vec!["MIGRATE", "127.0.0.1", &port, "", "0", "5000"];
        line.extend(["AUTH2", "admin", "admin-secret", "KEYS"]);
        line.extend(keys.iter().map(String::as_str));
        self.cluster.nodes[self.from].command::<()>(&line);
    }

    /// Moves every key that the source has now.
    pub fn move_keys(&self) {
        loop {
            let line = ["CLUSTER", "GETKEYSINSLOT", &self.slot, "10"];
            let keys: Vec<String> = self.cluster.nodes[self.from].command(&line);
            if keys.is_empty() {
                return;
            }
            self.move_these(&keys);
        }
    }

    /// Gives the slot to the target. The source must have no key of it.
    pub fn finish(self) {
        let target = &self.cluster.ids[self.to];
        // Replicas hear of it.
        let is_master = |node: &usize| is_master(&self.cluster.nodes[*node]);
        let mut nodes: Vec<usize> = (0..self.cluster.nodes.len()).filter(is_master).collect();
        // The target first, then the source: there is no moment in which neither serves.
        nodes.sort_by_key(|node| (*node != self.to, *node != self.from));
        for node in nodes {
            let line = ["CLUSTER", "SETSLOT", &self.slot, "NODE", target];
            self.cluster.nodes[node].command::<()>(&line);
        }
        // The next move would else take an epoch that this one has taken: then a node that hears of both
        // gives the slot back to the one that has just lost it, and the other drops its keys.
        let epochs = || self.cluster.nodes.iter().map(|node| epoch(node, target));
        wait("the masters do not agree on the move", || {
            let own = epoch(&self.cluster.nodes[self.to], target);
            epochs().all(|epoch| epoch == own)
        });
    }
}

/// Whether a server says that it is a master.
pub(crate) fn is_master(node: &RedisServer) -> bool {
    let role: Option<Vec<redis::Value>> = node.try_command(&["ROLE"]);
    role.is_some_and(
        |role| matches!(role.first(), Some(redis::Value::BulkString(role)) if role == b"master"),
    )
}

/// The configuration epoch that a node ascribes to another.
fn epoch(node: &RedisServer, id: &str) -> Option<u64> {
    let nodes: String = node.command(&["CLUSTER", "NODES"]);
    let line = nodes.lines().find(|line| line.starts_with(id))?;
    line.split(' ').nth(6)?.parse().ok()
}

fn third_of(slot: u16) -> usize {
    usize::from(slot) * 3 / usize::from(SLOTS)
}

/// Polls until it is done, at most 30 s. The sleep is the pause of the poll and waits for no time: three
/// servers that agree with each other need the cores that polling without one would take.
pub(crate) fn wait(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "{what}");
        // The pause of the poll: the servers' processes need the core that polling without one would take.
        std::thread::sleep(Duration::from_millis(10));
    }
}
