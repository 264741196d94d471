//! Every history of a small breaker, against what its documentation says, told from the history alone.

use std::time::Duration;

use super::*;

const TICK: Duration = Duration::from_millis(10);

/// What can happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Event {
    /// A call comes.
    Ask,
    /// The oldest call, or the newest one, that is under way ends so.
    End { newest: bool, how: Completion },
    /// Time passes.
    Wait,
}

/// A call or knock that was admitted and has not ended.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    permit: Permit,
    is_knock: bool,
    /// How many changes there had been.
    epoch: usize,
    at: Duration,
}

/// The same, from the documentation: a list of what was admitted and how it ended, and no state machine but the word for the
/// state.
#[derive(Clone, Debug)]
struct World {
    circuit: Circuit,
    now: Duration,
    under_way: Vec<UnderWay>,
    word: Word,
    epoch: usize,
    /// Failures since the last answer that began after it, while closed.
    failures: u32,
    answered: Option<Duration>,
    opened_at: Duration,
    knocked_at: Duration,
    /// When it closed after it had been open.
    closed_at: Option<Duration>,
    times: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Word {
    Closed,
    Open,
    Knocking,
    HalfOpen,
}

fn config() -> BreakerConfig {
    BreakerConfig::default()
        .with_failures_in_a_row(2)
        .without_failure_rate()
        .with_open(2 * TICK, 4 * TICK)
        .with_probes(2)
}

impl World {
    fn new(seed: u64) -> Self {
        Self {
            circuit: Circuit::new(config(), seed),
            now: Duration::ZERO,
            under_way: Vec::new(),
            word: Word::Closed,
            epoch: 0,
            failures: 0,
            answered: None,
            opened_at: Duration::ZERO,
            knocked_at: Duration::ZERO,
            closed_at: None,
            times: 0,
        }
    }

    fn turn(&mut self, word: Word) {
        self.word = word;
        self.epoch += 1;
        (self.failures, self.answered) = (0, None);
        if word == Word::Open {
            self.opened_at = self.now;
        }
    }

    fn live(&self, knock: bool) -> usize {
        let now = |call: &&UnderWay| call.epoch == self.epoch && call.is_knock == knock;
        self.under_way.iter().filter(now).count()
    }

    fn ask(&mut self) {
        let longest = config().open(self.times);
        let admission = self.circuit.admit(self.now);
        let (permit, is_knock) = match (self.word, admission) {
            (Word::Closed, Admission::Call(permit)) => (permit, false),
            (Word::Open, Admission::Refused { retry_after }) => {
                // I-B3: not asked before half of the time is over, and never later than all of it.
                assert!(self.now - self.opened_at < longest, "it opens no more");
                assert!(!retry_after.is_zero() && retry_after <= longest);
                return;
            }
            (Word::Open, Admission::Knock(permit)) => {
                assert!(self.now - self.opened_at >= longest / 2, "too early");
                self.turn(Word::Knocking);
                self.knocked_at = self.now;
                (permit, true)
            }
            // I-B3: its probes and no more.
            (Word::HalfOpen, Admission::Call(permit)) => {
                assert!(self.live(false) < 2, "more probes than there may be");
                (permit, false)
            }
            (Word::HalfOpen, Admission::Refused { .. }) => {
                assert_eq!(self.live(false), 2, "a probe is lost");
                return;
            }
            (Word::Knocking, Admission::Refused { .. }) => {
                assert!(self.live(true) >= 1, "nobody knocks");
                assert!(self.now - self.knocked_at < 4 * TICK, "for ever");
                return;
            }
            // Who knocks may have no time for it.
            (Word::Knocking, Admission::Knock(permit)) => {
                assert!(self.now - self.knocked_at >= 4 * TICK, "two knock");
                self.knocked_at = self.now;
                (permit, true)
            }
            (word, admission) => panic!("{word:?} answers {admission:?}"),
        };
        self.under_way.push(UnderWay {
            permit,
            is_knock,
            epoch: self.epoch,
            at: self.now,
        });
    }

    fn end(&mut self, newest: bool, how: Completion) {
        let last = self.under_way.len() - 1;
        let call = self.under_way.remove(if newest { last } else { 0 });
        let change = self.circuit.complete(self.now, call.permit, how);
        let mut expected = None;
        if call.epoch == self.epoch {
            match (self.word, how) {
                (_, Completion::Nothing) if self.word != Word::Knocking => {}
                (Word::Closed, Completion::Answered) => {
                    (self.failures, self.answered) = (0, Some(self.now));
                }
                (Word::Closed, _) => {
                    if self.answered.is_none_or(|answered| answered < call.at) {
                        self.failures += 1;
                    }
                    if self.failures == 2 {
                        expected = Some(Change::Opened);
                        let soon = |at: &Duration| self.now - *at < 4 * TICK;
                        self.times = match self.closed_at.filter(soon) {
                            Some(_) => self.times + 1,
                            None => 0,
                        };
                        self.turn(Word::Open);
                    }
                }
                (Word::Knocking, Completion::Answered) => self.turn(Word::HalfOpen),
                (Word::Knocking, Completion::Nothing) => {
                    self.turn(Word::Open);
                    // At once.
                    self.opened_at = self.now.saturating_sub(config().open(self.times));
                }
                (Word::HalfOpen, Completion::Answered) => {
                    expected = Some(Change::Closed);
                    self.closed_at = Some(self.now);
                    self.turn(Word::Closed);
                }
                (Word::HalfOpen, Completion::Late) if self.failures == 0 => self.failures = 1,
                (Word::Knocking | Word::HalfOpen, _) => {
                    self.times += 1;
                    self.turn(Word::Open);
                }
                (Word::Open, _) => panic!("an open one has given no permit"),
            }
        }
        assert_eq!(change, expected);
    }

    fn play(&mut self, event: Event) {
        match event {
            Event::Ask => self.ask(),
            Event::Wait => self.now += TICK,
            Event::End { newest, how } => self.end(newest, how),
        }
        let position = match self.word {
            Word::Closed => Position::Closed,
            Word::Open | Word::Knocking => Position::Open,
            Word::HalfOpen => Position::HalfOpen,
        };
        assert_eq!(self.circuit.position(), position);
    }

    fn events(&self) -> Vec<Event> {
        let mut events = vec![Event::Wait];
        if self.under_way.len() < 3 {
            events.push(Event::Ask);
        }
        for newest in [false, true] {
            // The only one is both.
            if self.under_way.len() <= usize::from(newest) {
                continue;
            }
            let how = [
                Completion::Answered,
                Completion::Failed,
                Completion::Late,
                Completion::Nothing,
            ];
            events.extend(how.map(|how| Event::End { newest, how }));
        }
        events
    }

    /// Once the store is well and everybody goes on, calls go through again.
    fn recovers(mut self) {
        for call in std::mem::take(&mut self.under_way) {
            self.circuit
                .complete(self.now, call.permit, Completion::Nothing);
        }
        for _ in 0..8 {
            self.now += config().open(31);
            match self.circuit.admit(self.now) {
                Admission::Call(permit) | Admission::Knock(permit) => {
                    self.circuit
                        .complete(self.now, permit, Completion::Answered);
                }
                Admission::Refused { .. } => panic!("wedged: {:?}", self.circuit),
            }
        }
        assert_eq!(self.circuit.position(), Position::Closed);
    }
}

/// All of them up to a length, one after the other.
fn explore(world: &World, left: usize, histories: &mut usize) {
    if left == 0 {
        *histories += 1;
        world.clone().recovers();
        return;
    }
    for event in world.events() {
        let mut next = world.clone();
        next.play(event);
        explore(&next, left - 1, histories);
    }
}

/// I-B3, and a known fault: "half-open breaker wedged for six days by a dropped probe".
#[test]
fn every_short_history_is_as_documented() {
    let mut histories = 0;
    explore(&World::new(1), 9, &mut histories);
    assert!(histories > 100_000, "{histories}");
}

/// From an open breaker on, which a short history hardly leaves.
#[test]
fn every_short_history_from_open_on_is_as_documented() {
    for seed in 0..8 {
        let mut world = World::new(seed);
        for _ in 0..2 {
            world.play(Event::Ask);
            let how = Completion::Failed;
            world.play(Event::End { newest: true, how });
        }
        assert_eq!(world.word, Word::Open);
        for _ in 0..2 {
            world.play(Event::Wait);
        }
        let mut histories = 0;
        explore(&world, 7, &mut histories);
        assert!(histories > 1_000, "{histories}");
    }
}

/// Half of the calls fail, and never two in a row.
#[test]
fn a_share_of_failures_opens_it() {
    let config = BreakerConfig::default()
        .with_failures_in_a_row(2)
        .with_failure_rate(50, 20, 10 * TICK);
    let opens_after = |config: BreakerConfig, pause: Duration, failing: fn(usize) -> bool| {
        let mut circuit = Circuit::new(config, 7);
        let mut now = Duration::ZERO;
        (1..=1_000).find(|number| {
            now += pause;
            let Admission::Call(permit) = circuit.admit(now) else {
                panic!("closed until then");
            };
            let how = match failing(*number) {
                true => Completion::Failed,
                false => Completion::Answered,
            };
            circuit.complete(now, permit, how) == Some(Change::Opened)
        })
    };
    let half: fn(usize) -> bool = |number| number % 2 == 0;
    let third: fn(usize) -> bool = |number| number % 3 == 0;
    assert_eq!(opens_after(config, TICK / 10, half), Some(20));
    assert_eq!(opens_after(config, TICK / 10, third), None, "too few fail");
    assert_eq!(opens_after(config, TICK, half), None, "too few calls");
    assert_eq!(
        opens_after(config.without_failure_rate(), TICK / 10, half),
        None
    );
}

/// A packet that is held up fails a whole batch at once, while others have answers.
#[test]
fn who_was_overtaken_by_answers_is_no_failure_in_a_row() {
    let mut circuit = Circuit::new(config(), 7);
    let mut permits = (0..100).map(|_| match circuit.admit(TICK) {
        Admission::Call(permit) => permit,
        other => panic!("{other:?}"),
    });
    let permits: Vec<Permit> = permits.by_ref().collect();
    circuit.complete(2 * TICK, permits[0], Completion::Answered);
    for permit in &permits[1..] {
        assert_eq!(
            circuit.complete(3 * TICK, *permit, Completion::Failed),
            None
        );
    }
    assert_eq!(circuit.position(), Position::Closed);
}

/// A server further away than a backoff is long: the first knock is answered when others have been sent.
#[test]
fn a_slow_answer_to_a_knock_is_one() {
    let mut circuit = Circuit::new(config().with_failures_in_a_row(1), 7);
    let admitted = |admission| match admission {
        Admission::Call(permit) | Admission::Knock(permit) => permit,
        Admission::Refused { .. } => panic!("refused"),
    };
    let call = admitted(circuit.admit(TICK));
    circuit.complete(TICK, call, Completion::Failed);
    let first = admitted(circuit.admit(4 * TICK));
    admitted(circuit.admit(8 * TICK));
    admitted(circuit.admit(12 * TICK));
    circuit.complete(13 * TICK, first, Completion::Answered);
    assert_eq!(circuit.position(), Position::HalfOpen);
}

/// The waits grow to the longest, and no further.
#[test]
fn waits_double_up_to_the_longest() {
    let config = BreakerConfig::default();
    let open = [0, 1, 2, 3, 4, 40].map(|times| config.open(times).as_millis());
    assert_eq!(open, [100, 200, 400, 800, 1_000, 1_000]);
}
