use proptest::collection::vec;
use proptest::prelude::*;
use sfv::{BareItem, Dictionary, Item, List, ListEntry, Parser};

use super::*;

fn policy() -> impl Strategy<Value = Policy> {
    let quota = (
        any::<bool>(),
        1u64..1 << 50,
        1u64..1 << 20,
        1u64..100_000_000,
    )
        .prop_filter_map("a quota that exists", |(bucket, limit, refill, millis)| {
            let period = Period::new(Duration::from_millis(millis)).ok()?;
            if bucket {
                Quota::token_bucket(limit >> 30 | 1, refill, period).ok()
            } else {
                Quota::fixed_window(limit, period).ok()
            }
        });
    let unit = prop_oneof![
        Just(Unit::Requests),
        Just(Unit::Tokens),
        Just(Unit::named("pages").unwrap())
    ];
    ("[A-Za-z0-9_.\\-]{1,64}", quota, unit, any::<bool>()).prop_map(
        |(name, quota, unit, shadow)| {
            let policy = Policy::new(&name, quota).unwrap();
            policy.with_unit(unit).with_shadow(shadow)
        },
    )
}

fn decision() -> impl Strategy<Value = Decision> {
    let micros = || (0u64..1 << 52).prop_map(Duration::from_micros);
    let verdict = prop_oneof![
        Just(Verdict::Admit),
        Just(Verdict::Never),
        micros().prop_map(|retry_after| Verdict::Deny { retry_after }),
    ];
    (policy(), verdict, any::<u64>(), micros()).prop_map(|(policy, verdict, used, reset)| {
        Decision::new(&policy, &Observed::new(verdict, used, reset, Source::Store))
    })
}

fn integer(item: &BareItem) -> u64 {
    let BareItem::Integer(integer) = item else {
        panic!("{item:?} is no integer");
    };
    u64::try_from(i64::from(*integer)).unwrap()
}

fn param(item: &Item, name: &str) -> Option<u64> {
    item.params.get(name).map(integer)
}

fn items(headers: &HeaderMap, name: &str) -> Vec<Item> {
    let list: List = Parser::new(headers.get(name).unwrap().as_bytes())
        .parse()
        .unwrap();
    list.into_iter()
        .map(|entry| match entry {
            ListEntry::Item(item) => item,
            ListEntry::InnerList(list) => panic!("{list:?} is no item"),
        })
        .collect()
}

proptest! {
    /// An independent parser of RFC 9651 reads what draft 10 wants, whatever the decisions are.
    #[test]
    fn draft_10_is_a_structured_field(decisions in vec(decision(), 1..6)) {
        let group = GroupDecision::new(decisions);
        let headers = written(&HeaderStyle::default(), &group);
        let enforced: Vec<_> =
            group.decisions.iter().filter(|decision| decision.shadow.is_none()).collect();
        prop_assert_eq!(headers.is_empty(), enforced.is_empty());
        if enforced.is_empty() {
            return Ok(());
        }
        let policies = items(&headers, "ratelimit-policy");
        let limits = items(&headers, "ratelimit");
        prop_assert_eq!(policies.len(), enforced.len());
        prop_assert_eq!(limits.len(), enforced.len());
        let retry_after: Option<u64> =
            text(&headers, "retry-after").map(|text| text.parse().unwrap());
        prop_assert!(retry_after != Some(0));
        for ((policy, limit), decision) in policies.iter().zip(&limits).zip(enforced) {
            let name = BareItem::String(decision.policy.name().to_owned().try_into().unwrap());
            prop_assert_eq!(&policy.bare_item, &name);
            prop_assert_eq!(&limit.bare_item, &name);
            prop_assert_eq!(param(policy, "q"), Some(decision.limit.min(999_999_999_999_999)));
            prop_assert!(param(policy, "w").unwrap() > 0);
            let unit = policy.params.get("qu").map(|unit| unit.as_string().unwrap().as_str());
            let counted = decision.policy.unit();
            prop_assert_eq!(unit.unwrap_or("requests"), counted.as_str());
            prop_assert!(param(limit, "r") <= param(policy, "q"));
            if let (Some(retry_after), Some(t)) = (retry_after, param(limit, "t")) {
                prop_assert!(t <= retry_after);
            }
        }
    }

    /// The same for draft 07, whose `RateLimit` is a dictionary.
    #[test]
    fn draft_07_is_a_structured_field(decisions in vec(decision(), 1..6)) {
        let group = GroupDecision::new(decisions);
        let style = HeaderStyle::default().ietf(IetfDraft::V07);
        let headers = written(&style, &group);
        let Some(binding) = group.binding() else {
            prop_assert!(headers.is_empty());
            return Ok(());
        };
        let limits: Dictionary =
            Parser::new(headers["ratelimit"].as_bytes()).parse().unwrap();
        let value = |name: &str| match &limits[name] {
            ListEntry::Item(item) => integer(&item.bare_item),
            other => panic!("{other:?} is no item"),
        };
        prop_assert_eq!(limits.len(), 3);
        prop_assert_eq!(value("limit"), binding.limit.min(999_999_999_999_999));
        prop_assert!(value("remaining") <= value("limit"));
        if let Some(retry_after) = text(&headers, "retry-after") {
            prop_assert_eq!(value("reset").to_string(), retry_after);
        }
        let mut quotas: Vec<u64> = Vec::new();
        for policy in items(&headers, "ratelimit-policy") {
            prop_assert!(param(&policy, "w").unwrap() > 0);
            let quota = integer(&policy.bare_item);
            prop_assert!(!quotas.contains(&quota), "a quota stands twice");
            quotas.push(quota);
        }
    }

    /// A decision is a group of one.
    #[test]
    fn one_decision_and_a_group_of_it_have_the_same_headers(decision in decision()) {
        for style in [HeaderStyle::default(), HeaderStyle::default().ietf(IetfDraft::V07)] {
            let group = GroupDecision::new(vec![decision.clone()]);
            prop_assert_eq!(written(&style, &decision), written(&style, &group));
        }
    }
}
