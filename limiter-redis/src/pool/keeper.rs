//! Keeps a pool's connections while nobody uses them.

use std::sync::Arc;
use std::time::Duration;

use bb8_redis::bb8;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::pool::connection::{LONG_GAP, Manager, Origin, jitter};

/// A pool with fewer connections gets new ones, whether or not anybody asks for one.
const FEW: u32 = 2;

/// So many connections may be made in a row without a call in between, and as many again in a day, one pool's worth after the
/// other. Servers that end idle connections would be asked for ever, and those that are paid by the command count what a connection
/// costs: AUTH and ROLE.
const CONNECTIONS: u32 = 40;
const DAY: Duration = Duration::from_secs(86_400);

/// The instances that lost their connections together do not come back together.
const SPREAD: Duration = Duration::from_millis(50);

/// How long a server that is away is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// How often sentinels are asked, while the server is used: nobody tells of a failover as long as the old primary answers.
const FOLLOW: Duration = Duration::from_secs(1);

/// Runs until it is aborted, or its runtime ends.
pub(crate) fn start(pool: bb8::Pool<Manager>, origin: Arc<Origin>, size: u32) -> AbortHandle {
    let task = async move {
        if origin.is_watched() {
            tokio::join!(keep(pool, origin.clone(), size), follow(origin));
        } else {
            keep(pool, origin, size).await;
        }
    };
    tokio::spawn(task).abort_handle()
}

async fn follow(origin: Arc<Origin>) {
    let mut answers = origin.answers();
    loop {
        sleep(FOLLOW / 2 + jitter(FOLLOW)).await;
        if origin.answers() != answers {
            answers = origin.answers();
            origin.follow().await;
        }
    }
}

async fn keep(pool: bb8::Pool<Manager>, origin: Arc<Origin>, size: u32) {
    let few = usize::try_from(size.min(FEW)).unwrap_or(1);
    let times = (CONNECTIONS / size.max(1)).max(1);
    let mut live = origin.live();
    // Connections are made when they are first asked for.
    let mut is_enough = live.wait_for(|live| *live >= few).await.is_ok();
    let (mut left, mut answers) = (times, origin.answers());
    while is_enough {
        if live.wait_for(|live| *live < few).await.is_err() {
            return;
        }
        if origin.answers() != answers {
            (left, answers) = (times, origin.answers());
        }
        if left == 0 {
            pause(&origin, DAY / times).await;
        }
        sleep(SPREAD / 2 + jitter(SPREAD)).await;
        if origin.has_failed() && origin.has_tried(LONG_GAP) {
            // Somebody knocks already.
            sleep(LONG_GAP / 4).await;
            continue;
        }
        // Drops those that have ended, and has the pool make others.
        let _ = pool.get().await;
        let again = timeout(PAUSE, live.wait_for(|live| *live >= few)).await;
        // Attempts that fail cost a server nothing.
        left = left.saturating_sub(u32::from(again.is_ok()));
        is_enough = again.is_err() || again.is_ok_and(|again| again.is_ok());
    }
}

/// Until there is a call, or for a long time.
async fn pause(origin: &Origin, most: Duration) {
    let (answers, mut passed) = (origin.answers(), Duration::ZERO);
    while passed < most && origin.answers() == answers {
        sleep(PAUSE).await;
        passed += PAUSE;
    }
}
