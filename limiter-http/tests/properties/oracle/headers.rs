//! What every rendering of every decision has in common.

use std::time::Duration;

use http::header::HeaderMap;
use limiter_core::ErrorKind;
use limiter_core::clock::{MAX_INTEGER, Timestamp};
use limiter_core::limit::{Decision, GroupDecision, Outcome, Unit};
use limiter_http::{Decided, HeaderStyle, IetfDraft, ResetFormat};
use sfv::{Dictionary, List, ListEntry, Parser};

/// Writes the headers of a group in every style and judges them. The decisions were made at
/// `decided`, the headers are written at `now`.
pub(crate) fn check(decisions: Vec<Decision>, decided: Timestamp, now: Timestamp) {
    let group = GroupDecision::new(decisions);
    for legacy in [false, true] {
        for reset in [ResetFormat::Epoch, ResetFormat::Delta] {
            for ietf in [None, Some(IetfDraft::V07), Some(IetfDraft::V10)] {
                for openai in [false, true] {
                    let style = HeaderStyle::default()
                        .legacy(legacy)
                        .reset(reset)
                        .ietf(ietf)
                        .openai(openai);
                    let mut headers = HeaderMap::new();
                    let answer = Decided::from(&group).at(decided);
                    style.write(answer, now, &mut headers);
                    let written = Written {
                        group: &group,
                        headers: &headers,
                        decided,
                        now,
                        elapsed: now.saturating_since(decided),
                    };
                    written.check_names(&style);
                    written.check_all(legacy, reset, ietf, openai);
                }
            }
        }
    }
}

struct Written<'a> {
    group: &'a GroupDecision,
    headers: &'a HeaderMap,
    decided: Timestamp,
    now: Timestamp,
    elapsed: Duration,
}

impl Written<'_> {
    /// Every name that is written is one that a page of another origin may be told to read.
    fn check_names(&self, style: &HeaderStyle) {
        let names = style.names();
        for name in self.headers.keys() {
            assert!(names.contains(name), "{name} is not among {names:?}");
        }
    }

    fn check_all(&self, legacy: bool, reset: ResetFormat, ietf: Option<IetfDraft>, openai: bool) {
        for (name, value) in self.headers {
            let visible = |byte: &u8| (0x20..0x7f).contains(byte);
            assert!(value.as_bytes().iter().all(visible), "{name}: {value:?}");
            assert!(!value.is_empty(), "{name} is empty");
        }
        let enforced = || {
            let decisions = self.group.decisions.iter();
            decisions.filter(|decision| !decision.policy.is_shadow())
        };
        let fails =
            matches!(self.group.outcome, Outcome::Unavailable { kind } if !is_passing(kind));
        if fails || enforced().next().is_none() {
            assert!(self.headers.is_empty(), "{:?}", self.headers);
            return;
        }
        let wait = self.check_wait(openai);
        assert_eq!(
            self.headers.contains_key("x-ratelimit-limit"),
            legacy || wait.is_some()
        );
        if legacy || wait.is_some() {
            self.check_legacy(reset);
        }
        match ietf {
            None => assert!(!self.headers.contains_key("ratelimit")),
            Some(IetfDraft::V07) => self.check_dictionary(),
            Some(_) => self.check_lists(enforced().count()),
        }
        for unit in [Unit::Requests, Unit::Tokens] {
            let of_unit = || enforced().filter(|decision| decision.policy.unit() == unit);
            self.check_unit(unit.as_str(), openai, &of_unit().collect::<Vec<_>>());
        }
    }

    /// `Retry-After` is at least 1 and never less than what is left of the wait. Gives the wait.
    fn check_wait(&self, openai: bool) -> Option<Duration> {
        let wait = match self.group.outcome {
            Outcome::Denied { retry_after } => Some(retry_after.saturating_sub(self.elapsed)),
            Outcome::Unavailable { .. } => Some(Duration::from_secs(1)),
            _ => None,
        };
        let Some(wait) = wait else {
            assert!(!self.headers.contains_key("retry-after"));
            assert!(!self.headers.contains_key("retry-after-ms"));
            return None;
        };
        let seconds = self.number("retry-after");
        assert!(seconds >= 1);
        assert!(Duration::from_secs(seconds) >= wait || seconds == u64::MAX);
        assert!(seconds == 1 || Duration::from_secs(seconds - 1) < wait);
        assert_eq!(self.headers.contains_key("retry-after-ms"), openai);
        if openai {
            let millis = self.number("retry-after-ms");
            assert!(millis >= 1);
            assert!(Duration::from_millis(millis) >= wait || millis == u64::MAX);
            let give_up = wait > Duration::from_secs(60);
            assert_eq!(self.headers.contains_key("x-should-retry"), give_up);
        }
        Some(wait)
    }

    fn check_legacy(&self, reset: ResetFormat) {
        let binding = self.group.binding().unwrap();
        assert_eq!(self.number("x-ratelimit-limit"), binding.limit);
        assert!(self.number("x-ratelimit-remaining") <= binding.limit);
        let shown = self.number("x-ratelimit-reset");
        let left = binding.reset_after.saturating_sub(self.elapsed);
        match reset {
            ResetFormat::Delta => {
                assert!(Duration::from_secs(shown) >= left || shown == u64::MAX);
            }
            ResetFormat::Epoch => {
                // In an outage no moment is known, so the second counts from the writing.
                let (from, span) = match binding.outcome {
                    Outcome::Unavailable { .. } => (self.now, Duration::from_secs(1)),
                    _ => (self.decided, binding.reset_after),
                };
                let at = u128::from(from.as_micros()) + span.as_micros();
                let at = at.min(u128::from(MAX_INTEGER));
                assert!(u128::from(shown) * 1_000_000 >= at);
                assert!(shown <= MAX_INTEGER.div_ceil(1_000_000));
            }
        }
    }

    /// Draft 07: an integer of a structured field is at most 15 digits, or its parser refuses it.
    fn check_dictionary(&self) {
        let text = &self.headers["ratelimit"];
        let limit: Dictionary = Parser::new(text.as_bytes()).parse().unwrap();
        assert_eq!(limit.len(), 3, "{text:?}");
        self.check_list("ratelimit-policy");
    }

    /// The later drafts: both fields are lists of every enforced policy.
    fn check_lists(&self, enforced: usize) {
        assert_eq!(self.check_list("ratelimit-policy"), enforced);
        assert_eq!(self.check_list("ratelimit"), enforced);
    }

    fn check_list(&self, name: &str) -> usize {
        let text = &self.headers[name];
        let list: List = Parser::new(text.as_bytes()).parse().unwrap();
        for entry in &list {
            let ListEntry::Item(item) = entry else {
                panic!("{name}: {text:?} has an inner list");
            };
            for (key, value) in &item.params {
                let integer = value.as_integer().map(i64::from);
                let negative = key.as_str() != "qu" && integer.is_none_or(|integer| integer < 0);
                assert!(!negative, "{name}: {text:?}");
            }
        }
        list.len()
    }

    fn check_unit(&self, unit: &str, openai: bool, of_unit: &[&Decision]) {
        let name = |what: &str| format!("x-ratelimit-{what}-{unit}");
        if !openai || of_unit.is_empty() {
            for what in ["limit", "remaining", "reset"] {
                assert!(!self.headers.contains_key(name(what)));
            }
            return;
        }
        let (limit, remaining) = (self.number(&name("limit")), self.number(&name("remaining")));
        let reset = span(self.headers[name("reset")].to_str().unwrap());
        let shown = of_unit.iter().filter(|decision| {
            let left = decision.reset_after.saturating_sub(self.elapsed);
            (decision.limit, decision.remaining) == (limit, remaining)
                && reset >= left.as_nanos().div_ceil(1_000_000)
        });
        // One of them is shown, and none that denies stands behind one that does not.
        let denies = of_unit.iter().any(|decision| !decision.is_allowed());
        let share = |decision: &Decision, other: &Decision| {
            u128::from(decision.remaining) * u128::from(other.limit)
        };
        let binds = |decision: &&&Decision| {
            if denies {
                return !decision.is_allowed();
            }
            let smallest = |other: &&Decision| share(decision, other) <= share(other, decision);
            of_unit.iter().all(smallest)
        };
        assert!(
            shown.clone().any(|decision| binds(&decision)),
            "{unit}: {:?}",
            self.headers
        );
    }

    fn number(&self, name: &str) -> u64 {
        let text = self.headers[name].to_str().unwrap();
        assert!(text.bytes().all(|byte| byte.is_ascii_digit()), "{text}");
        text.parse().unwrap()
    }
}

/// Reads a span in Go's form, in milliseconds.
fn span(text: &str) -> u128 {
    let integer = |text: &str| text.parse::<u128>().unwrap();
    if let Some(millis) = text.strip_suffix("ms") {
        return integer(millis);
    }
    let rest = text.strip_suffix('s').unwrap();
    let (hours, rest) = rest.split_once('h').unwrap_or(("0", rest));
    let (minutes, rest) = rest.split_once('m').unwrap_or(("0", rest));
    let (seconds, fraction) = rest.split_once('.').unwrap_or((rest, "0"));
    let (minutes, seconds) = (integer(minutes), integer(seconds));
    assert!(
        minutes < 60 && seconds < 60 && fraction.len() <= 3,
        "{text}"
    );
    let millis = integer(&format!("{fraction:0<3}"));
    ((integer(hours) * 60 + minutes) * 60 + seconds) * 1_000 + millis
}

fn is_passing(kind: ErrorKind) -> bool {
    kind.is_outage() || kind == ErrorKind::Capacity
}
