//! What a limiter answers for a store that cannot.

use crate::error::{Error, ErrorKind};
use crate::health::Health;
use crate::key::Key;
use crate::limit::{
    Capabilities, Charge, Group, Issuer, LimitStore, Limiter, Observed, Outage, Outcome, Period,
    Policy, Quota, Source,
};

/// A store that is never there.
#[derive(Debug)]
struct Broken(ErrorKind);

#[async_trait::async_trait]
impl LimitStore for Broken {
    fn capabilities(&self) -> Capabilities {
        Capabilities::default()
    }

    fn is_issuer(&self, _: Issuer) -> bool {
        false
    }

    fn try_apply_now(
        &self,
        _group: &Group<'_>,
        _observed: &mut [Observed],
    ) -> Option<Result<(), Error>> {
        None
    }

    async fn apply(&self, _group: &Group<'_>, _: &mut [Observed]) -> Result<(), Error> {
        Err(Error::new(self.0, "limit.apply", "not there"))
    }

    async fn health(&self) -> Health {
        Health::new("broken", false, None, "not there")
    }
}

fn policy(outage: Outage) -> Policy {
    let quota = Quota::fixed_window(5, Period::HOUR).unwrap();
    Policy::new("p", quota).unwrap().with_outage(outage)
}

/// C2: fail closed or open, as the policy says; misuse is neither.
#[tokio::test]
async fn outage_rules_apply_to_outages_only() {
    let key = Key::new(["ratelimit", "a"]);
    let down = Limiter::new(Broken(ErrorKind::Connection));
    let denied = down.check(&policy(Outage::Deny), &key).await;
    let kind = ErrorKind::Connection;
    assert_eq!(denied.outcome, Outcome::Unavailable { kind });
    let allowed = down.check(&policy(Outage::Allow), &key).await;
    assert!(allowed.is_allowed() && allowed.degraded);
    assert_eq!(allowed.source, Source::Outage);
    let never = down.check_n(&policy(Outage::Allow), &key, 6).await;
    assert_eq!(
        never.outcome,
        Outcome::Never,
        "an outage does not raise a limit"
    );
    assert!(down.reset(&policy(Outage::Allow), &key).await.is_err());
    assert!(!down.is_healthy().await);

    let (allow, deny) = (policy(Outage::Allow), policy(Outage::Deny));
    let other = Key::new(["ratelimit", "b"]);
    let mixed = [Charge::new(&allow, &key), Charge::new(&deny, &other)];
    assert!(!down.check_all(&mixed).await.is_allowed(), "Deny wins");

    let misused = Limiter::new(Broken(ErrorKind::Unsupported));
    let refused = misused.check(&policy(Outage::Allow), &key).await;
    assert!(!refused.is_allowed(), "misuse is no outage");
}

#[tokio::test]
async fn a_shadow_never_blocks_and_misuse_never_admits() {
    let broken = Limiter::new(Broken(ErrorKind::Unsupported));
    let key = Key::new(["ratelimit", "a"]);
    let shadow = policy(Outage::Deny).with_shadow(true);
    let watched = broken.check(&shadow, &key).await;
    assert!(watched.is_allowed());
    assert!(matches!(watched.shadow, Some(Outcome::Unavailable { .. })));
    assert!(
        broken
            .check_all(&[Charge::new(&shadow, &key)])
            .await
            .is_allowed()
    );
    assert!(!broken.check_all(&[]).await.is_allowed());
}
