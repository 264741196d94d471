//! Many interleavings of those who wait for one key, by shuttle: `scripts/interleavings.sh`. A failure
//! prints the schedule, which `shuttle::replay` runs again.
#![allow(clippy::unwrap_used, reason = "a test: its failures are panics")]

use shuttle::future::block_on;
use shuttle::rand::{Rng, thread_rng};
use shuttle::thread;

use super::*;
use crate::health::Health;
use crate::limit::{
    Action, Capabilities, Group, Issuer, LimitStore, Observed, Period, Quota, Source, Verdict,
};
use crate::sync::Mutex;

const SOON: Duration = Duration::from_secs(1);
const EVER: Duration = Duration::from_secs(3_600);

/// Lets a charge pass when it likes, and sees who asks: nobody else may until one is admitted. Who asks is
/// told by the cost.
#[derive(Debug, Default)]
struct Turnstile {
    asking: Mutex<Option<u64>>,
}

#[async_trait::async_trait]
impl LimitStore for Turnstile {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn is_issuer(&self, _: Issuer) -> bool {
        false
    }

    fn try_apply_now(&self, _: &Group<'_>, _: &mut [Observed]) -> Option<Result<(), Error>> {
        None
    }

    async fn apply(&self, group: &Group<'_>, observed: &mut [Observed]) -> Result<(), Error> {
        let denied = Verdict::Deny {
            retry_after: Duration::from_micros(1),
        };
        let verdict = if let Action::Charge { cost } = group.steps()[0].action {
            shuttle::future::yield_now().await;
            let mut asking = self.asking.lock().unwrap();
            let turn = asking.get_or_insert(cost);
            assert_eq!(*turn, cost, "two at once");
            if thread_rng().gen_ratio(1, 3) {
                denied
            } else {
                *asking = None;
                Verdict::Admit
            }
        } else {
            denied
        };
        observed[0] = Observed::new(verdict, 0, Duration::ZERO, Source::Store);
        Ok(())
    }

    async fn health(&self) -> Health {
        Health::new("turnstile", true, None, "")
    }
}

/// Each waits for one key, at most so long; whether they were admitted.
fn wait_at_once<const N: usize>(waits: [Duration; N]) -> [bool; N] {
    let limiter = Limiter::new(Turnstile::default());
    let mut cost = 0;
    let waiting = waits.map(|longest| {
        cost += 1;
        let limiter = limiter.clone();
        thread::spawn(move || {
            let policy = Policy::new("p", Quota::fixed_window(9, Period::HOUR).unwrap()).unwrap();
            let key = Key::new(["ratelimit", "a"]);
            let decision = block_on(limiter.until_ready(&policy, &key, cost, longest));
            decision.unwrap().is_allowed()
        })
    });
    let admitted = waiting.map(|thread| thread.join().unwrap());
    let queues = limiter.queues().0.lock().unwrap();
    assert!(queues.is_empty(), "a queue that nobody waits in is left");
    admitted
}

fn explore(test: impl Fn() + Send + Sync + Copy + 'static) {
    shuttle::check_pct(test, 2_000, 3);
    shuttle::check_random(test, 2_000);
}

#[test]
fn everybody_has_a_turn_alone() {
    explore(|| assert_eq!(wait_at_once([EVER; 4]), [true; 4]));
}

/// One who gives up takes nobody's turn along.
#[test]
fn who_gives_up_leaves_the_queue() {
    explore(|| {
        let [_, one, _, other] = wait_at_once([SOON, EVER, SOON, EVER]);
        assert!(one && other);
    });
}
