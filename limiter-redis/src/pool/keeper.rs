//! Keeps a pool's connections while nobody uses them.

use std::sync::Arc;
use std::time::Duration;

use bb8_redis::bb8;
use tokio::task::AbortHandle;
use tokio::time::{sleep, timeout};

use crate::pool::connection::{Manager, Origin, jitter};

/// A pool with fewer connections gets new ones, whether or not anybody asks for one.
const FEW: u32 = 2;

/// How often that may happen without a call in between; and after how long once more. Servers that end idle connections would be
/// asked for ever, and those that are paid by the command count what a connection costs.
const TIMES: u32 = 10;
const AGAIN: Duration = Duration::from_secs(8_640);

/// The instances that lost their connections together do not come back together.
const SPREAD: Duration = Duration::from_millis(50);

/// How long a server that is away is left alone.
const PAUSE: Duration = Duration::from_secs(1);

/// Runs until it is aborted, or its runtime ends.
pub(crate) fn start(pool: bb8::Pool<Manager>, origin: Arc<Origin>, size: u32) -> AbortHandle {
    let few = usize::try_from(size.min(FEW)).unwrap_or(1);
    tokio::spawn(keep(pool, origin, few)).abort_handle()
}

async fn keep(pool: bb8::Pool<Manager>, origin: Arc<Origin>, few: usize) {
    let mut live = origin.live();
    // Connections are made when they are first asked for.
    let mut is_enough = live.wait_for(|live| *live >= few).await.is_ok();
    let (mut left, mut answers) = (TIMES, origin.answers());
    while is_enough {
        if live.wait_for(|live| *live < few).await.is_err() {
            return;
        }
        if origin.answers() != answers {
            (left, answers) = (TIMES, origin.answers());
        }
        if left == 0 {
            pause(&origin).await;
        }
        sleep(SPREAD / 2 + jitter(SPREAD)).await;
        // Drops those that have ended, and has the pool make others.
        let _ = pool.get().await;
        let again = timeout(PAUSE, live.wait_for(|live| *live >= few)).await;
        // Attempts that fail cost a server nothing.
        left = left.saturating_sub(u32::from(again.is_ok()));
        is_enough = again.is_err() || again.is_ok_and(|again| again.is_ok());
    }
}

/// Until there is a call, or for a long time.
async fn pause(origin: &Origin) {
    let (answers, mut passed) = (origin.answers(), Duration::ZERO);
    while passed < AGAIN && origin.answers() == answers {
        sleep(PAUSE).await;
        passed += PAUSE;
    }
}
