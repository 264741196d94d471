//! What is done to the servers and the network, and undone.

use std::time::Duration;

use tokio::task::block_in_place;
use tokio::time::{Instant, sleep};

use super::faults::Fault;
use super::log::Loss;
use super::world::{Servers, World};
use crate::{Proxy, RedisServer};

/// What the rest of the fault's time is waited out with.
async fn again(length: Duration, gap: Duration, mut act: impl FnMut()) {
    let end = Instant::now() + length;
    while Instant::now() < end {
        block_in_place(&mut act);
        sleep(gap).await;
    }
}

/// Makes a fault last so long; what was lost by it.
pub(super) async fn inject(fault: Fault, world: &mut World, length: Duration) -> Vec<Loss> {
    let from = Instant::now();
    let millis = Duration::from_millis;
    let lost = |times| Loss {
        from,
        until: Instant::now(),
        times,
    };
    match fault {
        Fault::Killed | Fault::TlsKilled => {
            block_in_place(|| world.server().stop());
            sleep(length).await;
            block_in_place(|| world.server().restart());
            return vec![lost(1)];
        }
        Fault::Stopped => {
            let stalled = block_in_place(|| world.server().stall());
            sleep(length).await;
            drop(stalled);
        }
        Fault::ClientKill => {
            let server = world.server();
            again(length, millis(200), || {
                server.command::<u64>(&["CLIENT", "KILL", "USER", "limiter"]);
            })
            .await;
        }
        Fault::ClientPause => {
            let pause = length.as_millis().to_string();
            block_in_place(|| {
                world
                    .server()
                    .command::<()>(&["CLIENT", "PAUSE", &pause, "ALL"]);
            });
            sleep(length).await;
        }
        Fault::ScriptFlush => {
            let server = world.server();
            again(length, millis(100), || {
                server.command::<()>(&["SCRIPT", "FLUSH"]);
            })
            .await;
        }
        Fault::Busy => busy(world.server(), length).await,
        Fault::Loading => {
            block_in_place(|| load_slowly(world.server(), length));
            return vec![lost(1)];
        }
        Fault::ReadOnly => {
            let server = world.server();
            // Port 1 is never a Redis.
            block_in_place(|| server.command::<()>(&["REPLICAOF", "127.0.0.1", "1"]));
            sleep(length).await;
            block_in_place(|| server.command::<()>(&["REPLICAOF", "NO", "ONE"]));
        }
        Fault::Misconf => misconfigure(world.server(), length).await,
        Fault::MissingRight => {
            let server = world.server();
            let may = |right: &str| {
                block_in_place(|| server.command::<()>(&["ACL", "SETUSER", "limiter", right]));
            };
            may("-evalsha");
            sleep(length).await;
            may("+evalsha");
        }
        Fault::Refusals | Fault::ScriptsRefused => {
            let replies = world.replies.clone().expect("a cell that refuses");
            let commands: &[&str] = match fault {
                Fault::Refusals => &[],
                _ => &["EVALSHA", "EVAL"],
            };
            let mut errors = REFUSALS.iter().cycle();
            again(length, millis(150), || {
                replies.refuse(commands, errors.next().expect("it goes round"));
            })
            .await;
            assert!(replies.answered() > 10, "it was asked");
            replies.heal();
        }
        Fault::WrongPassword => {
            let server = world.server();
            block_in_place(|| {
                server.command::<()>(&["ACL", "SETUSER", "limiter", "resetpass", ">another"]);
                server.command::<u64>(&["CLIENT", "KILL", "USER", "limiter"]);
            });
            sleep(length).await;
            block_in_place(|| {
                server.command::<()>(&["ACL", "SETUSER", "limiter", ">limiter-secret"]);
            });
        }
        Fault::PrimaryKilled | Fault::Partition => return fail_over(fault, world, length).await,
        Fault::MasterKilled | Fault::SlotMoves => return change(fault, world, length).await,
        Fault::OutOfMemory => {
            fill(world.server(), "noeviction", length).await;
        }
        _ => {
            if let Some(policy) = fault.eviction() {
                let evicted = fill(world.server(), policy, length).await;
                assert!(evicted > 0, "{policy}: nothing was evicted");
                // Each may have been the key's.
                return vec![lost(evicted)];
            }
            let proxy = world.proxy.clone().expect("a cell with a proxy");
            disturb(fault, &proxy, length).await;
        }
    }
    Vec::new()
}

/// What servers say that cannot serve.
const REFUSALS: [&str; 9] = [
    "LOADING Redis is loading the dataset in memory",
    "READONLY You can't write against a read only replica.",
    "OOM command not allowed when used memory > 'maxmemory'.",
    "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
    "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE.",
    "CLUSTERDOWN The cluster is down",
    "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "NOREPLICAS Not enough good replicas to write.",
    "ERR max number of clients reached",
];

/// Somebody else fills the server with values that have no end, and it makes room by a policy; how many keys it evicted.
async fn fill(server: &RedisServer, policy: &str, length: Duration) -> u64 {
    static LARGE: [u8; 64 << 10] = [7; 64 << 10];
    // Between two large ones small ones find room.
    const SMALL: usize = 1 << 10;
    let set = |name: &str, value: &str| {
        block_in_place(|| server.command::<()>(&["CONFIG", "SET", name, value]));
    };
    let info = |name: &str| {
        let info: String = block_in_place(|| server.command(&["INFO"]));
        let mut lines = info.lines();
        let field = lines.find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        field.unwrap().trim().parse::<u64>().unwrap()
    };
    let mut connection = server.admin();
    let (used, evicted) = (info("used_memory"), info("evicted_keys"));
    set("maxmemory-policy", policy);
    set("maxmemory", &(used + (1 << 20)).to_string());
    let mut number = 0;
    again(length, Duration::from_millis(10), || {
        for size in std::iter::once(LARGE.len()).chain([SMALL; 20]) {
            let mut set = redis::cmd("SET");
            set.arg(format!("other:{number}")).arg(&LARGE[..size]);
            // Refused when it is full.
            let _ = set.exec(&mut connection);
            number += 1;
        }
    })
    .await;
    let evicted = info("evicted_keys") - evicted;
    set("maxmemory", "0");
    block_in_place(|| {
        let mut unlink = redis::cmd("UNLINK");
        for other in 0..number {
            unlink.arg(format!("other:{other}"));
        }
        unlink.exec(&mut connection).unwrap();
    });
    evicted
}

/// Spoils the network for a while.
async fn disturb(fault: Fault, proxy: &Proxy, length: Duration) {
    let millis = Duration::from_millis;
    let end = Instant::now() + length;
    match fault {
        Fault::Latency => {
            proxy.delay(millis(80));
            sleep(length).await;
            proxy.delay(Duration::ZERO);
        }
        Fault::Drip => {
            proxy.drip(Some(millis(3)));
            sleep(length).await;
            proxy.drip(None);
        }
        Fault::HeldPackets => {
            proxy.hold_at_random(10, millis(400), 7);
            sleep(length).await;
            proxy.hold_at_random(0, Duration::ZERO, 0);
        }
        Fault::LostRequests => {
            proxy.lose_requests(true);
            sleep(length).await;
            proxy.lose_requests(false);
            proxy.cut();
        }
        Fault::LostReplies => {
            proxy.lose_replies(true);
            sleep(length).await;
            proxy.lose_replies(false);
            proxy.cut();
        }
        Fault::Frozen | Fault::TlsFrozen => {
            proxy.freeze();
            sleep(length).await;
            proxy.thaw();
        }
        Fault::Resets => again(length, millis(150), || proxy.cut()).await,
        Fault::CutReplies => {
            proxy.cut_replies_after(Some(5));
            sleep(length).await;
            proxy.cut_replies_after(None);
        }
        _ => {
            while Instant::now() < end {
                proxy.freeze();
                sleep(millis(350)).await;
                proxy.thaw();
                sleep(millis(350)).await;
            }
        }
    }
}

/// A script of the administrator's runs until it is killed.
async fn busy(server: &RedisServer, length: Duration) {
    block_in_place(|| {
        // By the name that all versions know.
        server.command::<()>(&["CONFIG", "SET", "lua-time-limit", "50"]);
    });
    let mut connection = server.admin();
    let endless = std::thread::spawn(move || {
        let mut eval = redis::cmd("EVAL");
        eval.arg("while true do end").arg(0);
        // It ends with an error when it is killed.
        let _ = eval.exec(&mut connection);
    });
    sleep(length).await;
    block_in_place(|| {
        server.command::<()>(&["SCRIPT", "KILL"]);
        endless.join().unwrap();
    });
}

/// Starts again from a file that takes about so long to be loaded.
fn load_slowly(server: &mut RedisServer, length: Duration) {
    const KEYS: u64 = 1_000;
    for number in 0..KEYS {
        server.set(&format!("other:{number}"), b"value");
    }
    server.command::<()>(&["SAVE"]);
    let delay = u64::try_from(length.as_micros()).unwrap() / KEYS;
    server.restart_loading(delay);
}

/// The next save fails, and writes are refused until one succeeds.
async fn misconfigure(server: &RedisServer, length: Duration) {
    let set = |name: &str, value: &str| {
        server.command::<()>(&["CONFIG", "SET", name, value]);
    };
    block_in_place(|| {
        server.block_saves(true);
        set("stop-writes-on-bgsave-error", "yes");
        set("save", "3600 1");
        server.command::<()>(&["BGSAVE"]);
    });
    // The length of the fault.
    sleep(length).await;
    block_in_place(|| {
        server.block_saves(false);
        set("save", "");
        server.command::<()>(&["SAVE"]);
    });
}

async fn fail_over(fault: Fault, world: &mut World, length: Duration) -> Vec<Loss> {
    let from = Instant::now();
    let proxy = world.proxy.clone().expect("a proxy before the primary");
    let Servers::Watched(watched) = &mut world.servers else {
        unreachable!("a cell with sentinels");
    };
    match fault {
        Fault::PrimaryKilled => block_in_place(|| watched.servers[0].stop()),
        _ => proxy.freeze(),
    }
    block_in_place(|| watched.wait_for_failover());
    let promoted = Instant::now();
    sleep(length.saturating_sub(promoted - from)).await;
    // What the old one took in since the new one heard it last is lost; until they follow, both count.
    let until = match fault {
        Fault::PrimaryKilled => promoted,
        _ => Instant::now() + super::RECOVERY,
    };
    vec![Loss {
        from,
        until,
        times: 1,
    }]
}

async fn change(fault: Fault, world: &mut World, length: Duration) -> Vec<Loss> {
    let from = Instant::now();
    let Servers::Cluster(cluster) = &mut world.servers else {
        unreachable!("a cell with a cluster");
    };
    let slot = limiter_redis::slot_of(super::load::key(super::log::Rule::Deny, 0).as_str());
    let home = cluster.home(slot);
    match fault {
        Fault::SlotMoves => {
            let to = (home + 1) % 3;
            let end = Instant::now() + length;
            while Instant::now() < end {
                block_in_place(|| cluster.migrate(slot, home, to));
                sleep(Duration::from_millis(100)).await;
                block_in_place(|| cluster.migrate(slot, to, home));
                sleep(Duration::from_millis(100)).await;
            }
            Vec::new()
        }
        _ => {
            block_in_place(|| {
                cluster.nodes[home].stop();
                cluster.wait_for_replica_of(home);
            });
            sleep(length.saturating_sub(from.elapsed())).await;
            vec![Loss {
                from,
                until: Instant::now(),
                times: 1,
            }]
        }
    }
}
