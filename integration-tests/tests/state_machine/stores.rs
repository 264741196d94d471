//! The stores under test, and the runs.

use std::cell::RefCell;
use std::collections::HashMap;
use std::marker::PhantomData;

use integration_tests::model::Seen;
use integration_tests::{Bench, random};
use limiter_core::Key;
use limiter_core::limit::{Capabilities, LimitStore, Observed, OperationId, Receipt, Verdict};
use proptest_state_machine::{ReferenceStateMachine, StateMachineTest};
use tokio::runtime::Runtime;

use super::events::Event;
use super::quotas::Subject;
use super::reference::{Machine, State, steps, with_group};

/// One server for all histories of a test; each has keys of its own.
struct Kit {
    bench: Bench,
    runtime: Runtime,
    histories: u32,
    steps: u64,
    calls: u64,
    denied: u64,
    refused: u64,
}

thread_local! {
    static KIT: RefCell<Option<Kit>> = const { RefCell::new(None) };
}

fn with_kit<T>(then: impl FnOnce(&mut Kit) -> T) -> T {
    KIT.with_borrow_mut(|kit| then(kit.as_mut().unwrap()))
}

/// Both stores, as one history sees them.
pub(crate) struct Stores<S> {
    keys: Vec<Key>,
    memory: HashMap<String, Receipt>,
    redis: HashMap<String, Receipt>,
    subject: PhantomData<S>,
}

impl<S: Subject> StateMachineTest for Stores<S> {
    type SystemUnderTest = Self;
    type Reference = Machine<S>;

    fn init_test(state: &State) -> Self {
        let history = with_kit(|kit| {
            kit.histories += 1;
            kit.runtime.block_on(kit.bench.set(state.now));
            kit.histories.to_string()
        });
        let keys = 0..state.policies.len();
        Self {
            keys: keys
                .map(|key| Key::new(["ratelimit", "history", &history, &key.to_string()]))
                .collect(),
            memory: HashMap::new(),
            redis: HashMap::new(),
            subject: PhantomData,
        }
    }

    fn apply(mut stores: Self, state: &State, event: Event) -> Self {
        with_kit(|kit| {
            kit.steps += 1;
            if kit.bench.now() != state.now {
                kit.runtime.block_on(kit.bench.set(state.now));
            }
            let (Some(call), Some(expected)) = (&state.call, &state.answer) else {
                return;
            };
            kit.calls += 1;
            let denial = |seen: &Seen| seen.verdict != Verdict::Admit;
            match expected {
                Ok(seen) => kit.denied += u64::from(seen.iter().any(denial)),
                Err(_) => kit.refused += 1,
            }
            let (memory, redis) = (kit.bench.memory.clone(), kit.bench.redis().clone());
            let sides: [(&str, &dyn LimitStore, &mut HashMap<String, Receipt>); 2] = [
                ("memory", &memory, &mut stores.memory),
                ("Redis", &redis, &mut stores.redis),
            ];
            for (name, store, receipts) in sides {
                assert_eq!(store.capabilities(), Capabilities::ALL);
                let mut observed = vec![Observed::default(); call.0.len()];
                let answer = {
                    let steps = steps(call, &state.policies, &stores.keys, receipts);
                    with_group(&steps, call, |group| {
                        kit.runtime.block_on(store.apply(&group, &mut observed))
                    })
                };
                let answer = answer.map(|()| observed.iter().map(seen).collect::<Vec<_>>());
                let answer = answer.map_err(|error| error.kind());
                assert_eq!(
                    &answer, expected,
                    "{name} against the model: {call:?} at {:?} after {event:?}",
                    state.now
                );
                for (index, id, cost) in &state.issued {
                    let id_of = OperationId::new(id.as_str());
                    let receipt = Receipt::new(id_of, observed[*index].mark, *cost);
                    receipts.insert(id.clone(), receipt);
                }
            }
        });
        stores
    }
}

fn seen(observed: &Observed) -> Seen {
    Seen {
        verdict: observed.verdict,
        used: observed.used,
        reset_after: observed.reset_after,
        charged: observed.charged,
        replayed: observed.replayed,
        life: observed.life,
    }
}

/// Runs so many histories of 20 to 60 steps.
pub(crate) fn run<S: Subject>(histories: u32) {
    let config = random::config(histories);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .unwrap();
    let bench = runtime.block_on(Bench::new());
    KIT.set(Some(Kit {
        bench,
        runtime,
        histories: 0,
        steps: 0,
        calls: 0,
        denied: 0,
        refused: 0,
    }));
    let histories = Machine::<S>::sequential_strategy(20..=60);
    random::check(&config, &histories, |(state, events, seen)| {
        Stores::<S>::test_sequential(config.clone(), state, events, seen);
        Ok(())
    });
    let kit = KIT.take().unwrap();
    println!(
        "{}: {} histories, {} steps, {} calls, {} with a denial, {} refused",
        S::NAME,
        kit.histories,
        kit.steps,
        kit.calls,
        kit.denied,
        kit.refused
    );
    // The histories reach every answer, or they compare nothing.
    assert!(kit.steps >= 7_500, "{} steps", kit.steps);
    assert!(kit.denied > kit.calls / 20 && kit.denied < kit.calls / 2);
    assert!(kit.refused > 0 && kit.refused < kit.calls / 3);
}
