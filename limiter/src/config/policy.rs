//! From the members of a policy to the policy.

use limiter_core::Error;
use limiter_core::limit::{Outage, Policy, Quota, Unit};

use super::document::{Place, Problem, Value};
use super::fields::{ALGORITHMS, EXCLUSIVE, Members};
use super::quota::{self, Per};

/// Builds a policy; says all that is wrong with it.
pub(super) fn build(name: &str, members: &Members<'_>) -> Result<Policy, Vec<Problem>> {
    let mut problems = misfits(members);
    let mut keep = |at: Place, what: String| problems.push(Problem::new(at, what));
    let quota = quota_of(members).map_err(|(at, what)| keep(at, what)).ok();
    let outage = outage_of(members).map_err(|(at, what)| keep(at, what)).ok();
    let version = members.number("version").unwrap_or(1);
    // Above that it is of the wrong kind, which was told.
    let version = u32::try_from(version).unwrap_or(1);
    // With any quota, so that a name that cannot be used is told together with a quota that cannot.
    let named = quota.map_or_else(|| Quota::concurrency(1), Ok);
    let named = named.and_then(|quota| Policy::new(name, quota));
    let policy = named.map_err(|error| keep(members.at, said(&error)));
    let policy = policy.and_then(|policy| match members.text("scope") {
        Some(scope) => policy
            .with_scope(scope)
            .map_err(|error| keep(members.place(&["scope"]), said(&error))),
        None => Ok(policy),
    });
    let unit = members.text("unit").map_or(Ok(Unit::Requests), Unit::named);
    let unit =
        unit.map_err(|error| problems.push(Problem::new(members.place(&["unit"]), said(&error))));
    match (policy, outage, unit) {
        (Ok(policy), Some(outage), Ok(unit)) if problems.is_empty() => Ok(policy
            .with_outage(outage)
            .with_shadow(members.is_true("shadow"))
            .with_version(version)
            .with_unit(unit)),
        _ => Err(problems),
    }
}

type Wrong = (Place, String);

fn said(error: &Error) -> String {
    error.message().to_owned()
}

fn outage_of(members: &Members<'_>) -> Result<Outage, Wrong> {
    let Some(node) = members.node("outage") else {
        return Ok(Outage::Deny);
    };
    match &node.value {
        Value::Text(word) if word == "allow" => Ok(Outage::Allow),
        Value::Table(table) => {
            let share = table.iter().find_map(|(_, share)| match &share.value {
                Value::Text(text) => Some((share.at, text.parse())),
                _ => None,
            });
            match share {
                Some((_, Ok(share))) => Ok(Outage::Local { share }),
                Some((at, Err(error))) => Err((at, said(&error))),
                // Its kind is wrong, which was said.
                None => Ok(Outage::Deny),
            }
        }
        _ => Ok(Outage::Deny),
    }
}

/// Members that do not go together, or not with the algorithm.
fn misfits(members: &Members<'_>) -> Vec<Problem> {
    let mut problems = Vec::new();
    let algorithm = members.text("algorithm").unwrap_or("fixed_window");
    // One that is not known was told.
    if algorithm != "token_bucket" && ALGORITHMS.contains(&algorithm) {
        for name in ["refill", "burst"] {
            if let Some(node) = members.node(name) {
                let what = format!("only a token_bucket has a {name}");
                problems.push(Problem::new(node.at, what));
            }
        }
    }
    for (one, other) in EXCLUSIVE {
        if let (Some(_), Some(node)) = (members.node(one), members.node(other)) {
            let what = format!("{one} and {other} say the same; give one of them");
            problems.push(Problem::new(node.at, what));
        }
    }
    problems
}

fn quota_of(members: &Members<'_>) -> Result<Quota, Wrong> {
    let algorithm = members.text("algorithm").unwrap_or("fixed_window");
    let (limit, refill, per) = numbers(members)?;
    let at = members.place(&["quota", "limit"]);
    let period = |per: Option<Per>| {
        let per = per.ok_or_else(|| {
            let what = "a period is missing; give per, per_seconds, or a quota as 20/hour";
            (at, what.to_owned())
        })?;
        let at = members.place(&["quota", "per_seconds", "per"]);
        Ok((at, per))
    };
    let of_period = |per| {
        let (at, per) = period(per)?;
        per.period().map_err(|what| (at, what))
    };
    let quota = match algorithm {
        "calendar_window" => {
            let (at, per) = period(per)?;
            Quota::calendar_window(limit, per.calendar().map_err(|what| (at, what))?)
        }
        "sliding_window" => Quota::sliding_window(limit, of_period(per)?),
        "sliding_log" => Quota::sliding_log(limit, of_period(per)?),
        "token_bucket" => {
            let per = of_period(per)?;
            // By itself each is at its own place.
            Quota::token_bucket(1, refill, per)
                .map_err(|error| (members.place(&["refill", "quota", "limit"]), said(&error)))?;
            let quota = Quota::token_bucket(limit, refill, per);
            let at = members.place(&["burst", "limit", "quota"]);
            return quota.map_err(|error| (at, said(&error)));
        }
        "concurrency" => match per {
            None => Quota::concurrency(limit),
            Some(_) => {
                let at = members.place(&["per", "per_seconds", "quota"]);
                return Err((
                    at,
                    "concurrency has no period; give a limit alone".to_owned(),
                ));
            }
        },
        _ => Quota::fixed_window(limit, of_period(per)?),
    };
    quota.map_err(|error| (at, said(&error)))
}

/// The limit, the refill, and the period if there is one.
fn numbers(members: &Members<'_>) -> Result<(u64, u64, Option<Per>), Wrong> {
    if let Some(node) = members.node("quota") {
        let rate = quota::parse(members.text("quota").unwrap_or_default());
        let rate = rate.map_err(|what| (node.at, what))?;
        let limit = members.number("burst").unwrap_or(rate.number);
        return Ok((limit, rate.number, Some(rate.per)));
    }
    if members.node("limit").is_none() {
        let what = "a quota is missing; give one as quota = \"20/hour\", or limit and per";
        return Err((members.at, what.to_owned()));
    }
    // One of the wrong kind was said.
    let limit = members.number("limit").unwrap_or(1);
    let refill = members.number("refill").unwrap_or(limit);
    let of_unit = |unit| Per { count: 1, unit };
    let per = match members.text("per") {
        Some("second") => Some(of_unit(quota::Unit::Second)),
        Some("minute") => Some(of_unit(quota::Unit::Minute)),
        Some("hour") => Some(of_unit(quota::Unit::Hour)),
        Some("day") => Some(of_unit(quota::Unit::Day)),
        Some(_) => Some(of_unit(quota::Unit::Month)),
        None => members.node("per_seconds").map(|_| Per {
            count: members.number("per_seconds").unwrap_or(1),
            unit: quota::Unit::Second,
        }),
    };
    Ok((limit, refill, per))
}
