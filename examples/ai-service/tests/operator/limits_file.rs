//! C6: policies whose file changes while they are used.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Instant;

use integration_tests::eventually;

use crate::support::Service;
use crate::{ALICE, Limits, health, letter};

/// C6: a file that changes under load. The new limit holds from one decision to the next, what was counted goes on, and no request
/// fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_changes_under_load_loses_nothing() {
    const CALLERS: usize = 8;
    let limits = Limits::new("limits.toml");
    let write = |turn: &str| {
        let large = "1_000_000_000/day";
        let quotas = [
            ("agent-turn", turn),
            ("agent-session", large),
            ("agent-user", large),
        ];
        limits.write(Limits::with(&quotas));
    };
    write("1_000_000/day");
    let service = Service::start(&[("LIMITS_FILE", limits.path())]);
    let is_over = AtomicBool::new(false);
    let count = AtomicU64::new(0);
    // The limit, and what is used of it by now.
    let ask = async || {
        let path = "/agent/s1/turns/1/tools/search";
        let reply = service.post(path, ALICE, r#"{"cost": 1}"#).await;
        assert_eq!(reply.status, 200, "{reply:?}");
        count.fetch_add(1, Ordering::Relaxed);
        let turn = &reply.body["limits"][0];
        assert_eq!(turn["policy"], "agent-turn");
        [&turn["limit"], &turn["used"]].map(|number| number.as_u64().unwrap())
    };
    let call = async |_: usize| {
        let mut seen = Vec::new();
        while !is_over.load(Ordering::Relaxed) {
            seen.push(ask().await);
        }
        seen
    };
    let change = async {
        for turn in [
            "500_000/day",
            "1_000_000/day",
            "100_000/day",
            "1_000_000/day",
        ] {
            write(turn);
            let wanted = turn.trim_end_matches("/day").replace('_', "");
            let wanted: u64 = wanted.parse().unwrap();
            eventually("the new limit", async || {
                let [limit, _] = ask().await;
                (limit == wanted).then_some(())
            })
            .await;
        }
        is_over.store(true, Ordering::Relaxed);
    };
    let start = Instant::now();
    let callers = futures_util::future::join_all((0..CALLERS).map(call));
    let (seen, ()) = tokio::join!(callers, change);
    let rate = count.load(Ordering::Relaxed) as f64 / start.elapsed().as_secs_f64();
    println!("{rate:.0} requests a second");
    for caller in &seen {
        let changes = caller.windows(2).filter(|pair| pair[0][0] != pair[1][0]);
        assert!(changes.count() <= 4, "each change happens once");
        assert!(
            caller.is_sorted_by(|a, b| a[1] < b[1]),
            "no counter is lost"
        );
    }
    let [_, used] = ask().await;
    assert_eq!(
        used,
        count.load(Ordering::Relaxed),
        "every call was counted"
    );
}

/// C6: ten files that cannot be used, each of which keeps the old limits and says where it is wrong.
#[tokio::test]
async fn a_broken_file_keeps_the_old_limits() {
    let good = Limits::letters("30/hour");
    let line = 1 + good
        .lines()
        .position(|line| line.contains("30/hour"))
        .unwrap();
    let with = |quota: &str| good.replace("quota = \"30/hour\"", quota);
    let half = &good[..good.find("30/hour").unwrap()];
    let twice = with("quota = \"5/hourr\"").replace("5/minute", "5/m");
    let second = 1 + twice
        .lines()
        .position(|line| line.contains("5/m\""))
        .unwrap();
    const KEPT: &str = "what held before still holds";
    type Broken = (&'static str, String, Vec<(usize, usize)>);
    let broken: [Broken; 10] = [
        ("typo", with("quota = \"5/huor\""), vec![(line, 9)]),
        (
            "wrong type",
            with("limit = \"five\"\nper = \"hour\""),
            vec![(line, 9)],
        ),
        (
            "unknown field",
            with("quota = \"5/hour\"\nlimmit = 5"),
            vec![(line + 1, 1)],
        ),
        (
            "duplicate",
            with("quota = \"5/hour\"\nquota = \"6/hour\""),
            vec![(line + 1, 1)],
        ),
        ("zero", with("quota = \"0/hour\""), vec![(line, 9)]),
        (
            "overflow",
            with("limit = 99999999999999999999\nper = \"hour\""),
            vec![(line, 9)],
        ),
        // One in front is read, as below; one within a text is not.
        (
            "byte order mark",
            with("\u{feff}quota = \"5/hour\""),
            vec![(line, 1)],
        ),
        ("empty", String::new(), vec![(1, 1)]),
        ("two errors", twice, vec![(line, 9), (second, 9)]),
        ("half written", half.to_owned(), vec![(line, 10)]),
    ];
    let all = broken.map(|(what, text, places)| {
        let good = good.clone();
        async move {
            let limits = Limits::new("limits.toml");
            limits.write(&good);
            let service = Service::start(&[("LIMITS_FILE", limits.path())]);
            limits.write(&text);
            let error = eventually(what, async || {
                let told = health(&service).await["limits_file_error"].clone();
                Some(told.as_str()?.to_owned())
            })
            .await;
            let file = limits.path();
            assert!(
                error.starts_with(&format!("LIMITS_FILE names {file}, ")),
                "{what}: {error}"
            );
            for (line, column) in places {
                let place = format!("line {line}, column {column}: ");
                assert!(error.contains(&place), "{what}: {place} in {error}");
            }
            let mut log = String::new();
            eventually("the log", async || {
                log += &service.log();
                log.contains(KEPT).then_some(())
            })
            .await;
            let reply = letter(&service).await;
            assert_eq!(reply.number("x-ratelimit-limit"), 30, "{what}");
            limits.write(&good);
            eventually("the good file again", async || {
                health(&service).await["limits_file_error"]
                    .is_null()
                    .then_some(())
            })
            .await;
            let reply = letter(&service).await;
            assert_eq!(
                reply.number("x-ratelimit-remaining"),
                28,
                "{what}: no count was lost"
            );
        }
    });
    futures_util::future::join_all(all).await;
}

#[tokio::test]
async fn files_come_in_other_ways_too() {
    let limits = Limits::new("limits.toml");
    limits.write(Limits::letters("30/hour"));
    let service = Service::start(&[("LIMITS_FILE", limits.path())]);
    let reads = async |what: &str, limit: u64| {
        eventually(what, async || {
            (letter(&service).await.number("x-ratelimit-limit") == limit).then_some(())
        })
        .await;
    };
    // With a byte order mark in front it is as good as without.
    limits.write(format!("\u{feff}{}", Limits::letters("31/hour")));
    reads("the new limit", 31).await;
    // As files are replaced by editors and by Kubernetes: by a rename.
    let next = limits.directory.path().join("next");
    std::fs::write(&next, Limits::letters("32/hour")).unwrap();
    std::fs::rename(&next, &limits.path).unwrap();
    reads("the renamed file", 32).await;
}
