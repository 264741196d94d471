//! Where limits are counted, and for which part of the traffic: what an operator says while a service runs (C6).

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use crate::error::{Error, ErrorKind};
use crate::limit::share::Share;

/// Who decides.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Route {
    /// The store. The default.
    #[default]
    Store,
    /// This process, for itself: a share of each limit.
    Local,
    /// Nobody: everything is admitted, and nothing is counted.
    Off,
}

/// Where limits are counted: one place for a portion of the keys on a portion of the instances, another for the rest.
///
/// Which keys and which instances these are follows from their names alone, so all instances agree, and a portion that grows keeps
/// those that it had.
///
/// ```
/// use limiter_core::limit::wrap::{Portion, Route, Routing};
///
/// // A quarter of the keys is counted in Redis, the others in each instance.
/// let quarter = Routing::to(Route::Store).with_keys("25%".parse()?).with_rest(Route::Local);
/// assert_eq!(quarter.to_string(), "store for 25% of the keys, the rest local");
/// assert_eq!(Routing::default(), Routing::to(Route::Store));
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Routing {
    to: Route,
    keys: Portion,
    instances: Portion,
    rest: Route,
    share: Share,
}

impl Default for Routing {
    fn default() -> Self {
        Self::to(Route::Store)
    }
}

impl Routing {
    /// Everything to one place. The rest, of which there is none yet, is local; each process takes all of a limit.
    pub fn to(to: Route) -> Self {
        Self {
            to,
            keys: Portion::ALL,
            instances: Portion::ALL,
            rest: Route::Local,
            share: Share::WHOLE,
        }
    }

    /// The same for another place.
    #[must_use]
    pub fn with_route(self, to: Route) -> Self {
        Self { to, ..self }
    }

    /// Only for a portion of the keys: of their [hash tags](crate::KeyBuilder::hash_tag), for those that have one. A group of
    /// several keys goes where its first one goes.
    #[must_use]
    pub fn with_keys(self, keys: Portion) -> Self {
        Self { keys, ..self }
    }

    /// Only on a portion of the instances, by their names.
    #[must_use]
    pub fn with_instances(self, instances: Portion) -> Self {
        Self { instances, ..self }
    }

    /// Where the rest goes.
    #[must_use]
    pub fn with_rest(self, rest: Route) -> Self {
        Self { rest, ..self }
    }

    /// Which share of each limit a process counts that counts for itself: with `n` instances, 1/n keeps the limit.
    #[must_use]
    pub fn with_share(self, share: Share) -> Self {
        Self { share, ..self }
    }

    /// Where the portion goes.
    pub fn route(&self) -> Route {
        self.to
    }

    /// Which portion of the keys.
    pub fn keys(&self) -> Portion {
        self.keys
    }

    /// Which portion of the instances.
    pub fn instances(&self) -> Portion {
        self.instances
    }

    /// Where the rest goes.
    pub fn rest(&self) -> Route {
        self.rest
    }

    /// Which share of a limit is one process's.
    pub fn share(&self) -> Share {
        self.share
    }

    /// Where an instance sends a key.
    pub(super) fn of(&self, instance: Bucket, key: &str) -> Route {
        let is_in = |portion: Portion, bucket: &dyn Fn() -> Bucket| {
            portion == Portion::ALL || portion != Portion::NONE && portion.has(bucket())
        };
        let key = || Bucket::of(tag(key));
        if is_in(self.instances, &|| instance) && is_in(self.keys, &key) {
            self.to
        } else {
            self.rest
        }
    }

    /// Where an instance sends keys.
    pub(super) fn routes(&self, instance: Bucket) -> Vec<Route> {
        let is_in = self.instances == Portion::ALL || self.instances.has(instance);
        match (is_in, self.keys) {
            (true, Portion::ALL) => vec![self.to],
            (false, _) | (true, Portion::NONE) => vec![self.rest],
            (true, _) if self.to == self.rest => vec![self.to],
            (true, _) => vec![self.to, self.rest],
        }
    }

    /// Whether everything goes to the store.
    pub(super) fn is_plain(&self) -> bool {
        let everywhere = self.keys == Portion::ALL && self.instances == Portion::ALL;
        self.to == Route::Store && (everywhere || self.rest == Route::Store)
    }
}

/// The hash tag of a key, as Redis Cluster sees it, or else the whole key.
fn tag(key: &str) -> &str {
    let tagged = key
        .split_once('{')
        .and_then(|(_, rest)| rest.split_once('}'));
    tagged.map_or(key, |(tag, _)| tag)
}

/// One of [`Portion::PARTS`] parts into which names fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Bucket(u16);

impl Bucket {
    /// The same one in every process and every version: by the first 8 bytes of the name's SHA-256.
    pub(super) fn of(name: &str) -> Self {
        let digest = Sha256::digest(name.as_bytes());
        let first = digest.iter().take(8);
        let number = first.fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        // Below PARTS.
        Self(u16::try_from(number % u64::from(Portion::PARTS)).unwrap_or(0))
    }
}

/// A part of all keys, or of all instances, in hundredths of a percent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Portion(u16);

impl Portion {
    /// None of them.
    pub const NONE: Self = Self(0);
    /// All of them.
    pub const ALL: Self = Self(Self::PARTS);
    const PARTS: u16 = 10_000;

    /// So many percent.
    ///
    /// # Errors
    /// `InvalidInput` above 100.
    pub fn percent(percent: u16) -> Result<Self, Error> {
        match percent {
            0..=100 => Ok(Self(percent * 100)),
            _ => Err(refused(&format!("{percent}%"))),
        }
    }

    fn has(self, bucket: Bucket) -> bool {
        bucket.0 < self.0
    }
}

fn refused(text: &str) -> Error {
    Error::new(
        ErrorKind::InvalidInput,
        "portion",
        format!("{text:?} is no portion; write 0% to 100%, with two decimal places at most"),
    )
}

/// "25%", "0.5%".
impl FromStr for Portion {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let parse = || {
            let number = text.strip_suffix('%')?;
            let (whole, part) = number.split_once('.').unwrap_or((number, "0"));
            let digits = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
            if !digits(whole) || !digits(part) || part.is_empty() || part.len() > 2 {
                return None;
            }
            let part = part.parse::<u16>().ok()? * if part.len() == 1 { 10 } else { 1 };
            let parts = whole
                .parse::<u16>()
                .ok()?
                .checked_mul(100)?
                .checked_add(part)?;
            (parts <= Self::PARTS).then_some(Self(parts))
        };
        parse().ok_or_else(|| refused(text))
    }
}

/// "25%", "0.5%".
impl fmt::Display for Portion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.0 / 100, self.0 % 100) {
            (whole, 0) => write!(f, "{whole}%"),
            (whole, part) if part % 10 == 0 => write!(f, "{whole}.{}%", part / 10),
            (whole, part) => write!(f, "{whole}.{part:02}%"),
        }
    }
}

impl Route {
    /// `store`, `local` or `off`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Store => "store",
            Self::Local => "local",
            Self::Off => "off",
        }
    }
}

impl FromStr for Route {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let routes = [Self::Store, Self::Local, Self::Off];
        let named = routes.into_iter().find(|route| route.as_str() == text);
        named.ok_or_else(|| {
            let message = format!("limits cannot be {text:?}; they can be store, local or off");
            Error::new(ErrorKind::InvalidInput, "route", message)
        })
    }
}

/// "store", "local with 1/2 of each limit", "store for 25% of the keys, the rest local".
impl fmt::Display for Routing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.to.as_str())?;
        if self.keys != Portion::ALL {
            write!(f, " for {} of the keys", self.keys)?;
        }
        if self.instances != Portion::ALL {
            write!(f, " on {} of the instances", self.instances)?;
        }
        let is_whole = self.keys == Portion::ALL && self.instances == Portion::ALL;
        if !is_whole {
            write!(f, ", the rest {}", self.rest.as_str())?;
        }
        let is_local = self.to == Route::Local || !is_whole && self.rest == Route::Local;
        if is_local && self.share != Share::WHOLE {
            write!(f, " with {} of each limit", self.share)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn portions_are_read_as_they_are_written() {
        for (text, parts) in [
            ("0%", 0),
            ("100%", 10_000),
            ("25%", 2_500),
            ("0.5%", 50),
            ("12.34%", 1_234),
            ("0.05%", 5),
        ] {
            let portion: Portion = text.parse().unwrap();
            assert_eq!((portion.0, portion.to_string().as_str()), (parts, text));
        }
        assert_eq!("7.50%".parse::<Portion>().unwrap().0, 750);
        for text in [
            "", "%", "25", "-1%", "+1%", "100.01%", "101%", "1.%", ".5%", "1.234%", "65536%",
            "1e1%", " 1%",
        ] {
            assert!(text.parse::<Portion>().is_err(), "{text}");
        }
        assert!(Portion::percent(101).is_err());
    }

    /// C6: by names alone, the same for ever, and a portion that grows loses nobody.
    #[test]
    fn a_portion_that_grows_keeps_those_that_it_had() {
        // By sha256sum: a rollout of another version must not move keys.
        assert_eq!(
            Bucket::of("ratelimit:user:42").0,
            u16::try_from(0xe9e7_a157_b31c_9f83_u64 % 10_000).unwrap_or(0)
        );
        let names: Vec<_> = (0..10_000).map(|n| format!("ratelimit:user:{n}")).collect();
        let mut before = 0;
        for percent in [0, 1, 10, 50, 99, 100] {
            let routing = Routing::to(Route::Store).with_keys(Portion::percent(percent).unwrap());
            let is_in = |name: &&String| routing.of(Bucket(0), name) == Route::Store;
            let count = names.iter().filter(is_in).count();
            assert!(
                count.abs_diff(usize::from(percent) * 100) < 200,
                "{percent}% are {count}"
            );
            assert!(count >= before);
            before = count;
        }
        let half = Routing::to(Route::Store).with_keys(Portion::percent(50).unwrap());
        let wide = half.with_keys(Portion::percent(51).unwrap());
        for name in &names {
            let [of_half, of_wide] = [half, wide].map(|routing| routing.of(Bucket(0), name));
            assert!(of_half == Route::Local || of_wide == Route::Store, "{name}");
        }
    }

    #[test]
    fn keys_with_one_tag_go_one_way() {
        let half = Routing::to(Route::Store).with_keys(Portion::percent(50).unwrap());
        for tenant in 0..100 {
            let of = |key: String| half.of(Bucket(0), &key);
            let first = of(format!("ratelimit:{{{tenant}}}:api"));
            assert_eq!(first, of(format!("rate:{{{tenant}}}:session:tool")));
            assert_eq!(first, of(tenant.to_string()));
        }
    }

    #[test]
    fn some_instances_alone() {
        let some = Routing::to(Route::Off).with_instances(Portion::percent(30).unwrap());
        assert_eq!(some.of(Bucket(2_999), "a"), Route::Off);
        assert_eq!(some.of(Bucket(3_000), "a"), Route::Local);
        assert_eq!(
            some.to_string(),
            "off on 30% of the instances, the rest local"
        );
        assert!(!some.is_plain() && Routing::default().is_plain());
        assert_eq!(some.routes(Bucket(0)), [Route::Off]);
        assert_eq!(some.routes(Bucket(9_999)), [Route::Local]);
        let half = some.with_keys(Portion::percent(50).unwrap());
        assert_eq!(half.routes(Bucket(0)), [Route::Off, Route::Local]);
        let none = Routing::to(Route::Off).with_keys(Portion::NONE);
        assert_eq!(none.routes(Bucket(0)), [Route::Local]);
    }
}
