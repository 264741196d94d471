//! Policies that change when their file does.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use limiter_core::Error;
use limiter_core::limit::{LivePolicy, Policy};

use super::file::{ConfigFile, FileWatch, Looked};
use super::{PolicySet, no_policy};

/// The policies of a file, which can be read again while they are used. Clones share them.
///
/// A change holds from the next decision on, and keeps what was counted. A file that cannot be used (it cannot be read, a policy is
/// wrong, one that was there is gone, an algorithm changes under the same version) changes nothing; it is logged once, and told by
/// [`status`](Self::status).
///
/// ```
/// use limiter::config::{LivePolicies, ConfigFile};
///
/// # let directory = tempfile::tempdir().unwrap();
/// # let path = directory.path().join("limits.toml");
/// std::fs::write(&path, "[policies.letters]\nquota = '20/hour'\n").unwrap();
/// let policies = LivePolicies::load(ConfigFile::new(&path)?)?;
/// let letters = policies.get("letters")?;
/// assert_eq!(letters.current().quota().capacity(), 20);
///
/// std::fs::write(&path, "[policies.letters]\nquota = '50/hour'\n").unwrap();
/// policies.reload()?; // or `policies.watch(..)`, which does it by itself
/// assert_eq!(letters.current().quota().capacity(), 50);
///
/// std::fs::write(&path, "[policies.letters]\nquota = '50/hourr'\n").unwrap();
/// assert!(policies.reload().unwrap_err().to_string().contains("line 2, column 9"));
/// assert_eq!(letters.current().quota().capacity(), 50);
/// # Ok::<(), limiter::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct LivePolicies(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// None for policies that are in no file.
    file: Option<ConfigFile>,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    looked: Looked,
    policies: Policies,
}

#[derive(Debug)]
struct Policies {
    live: BTreeMap<String, LivePolicy>,
    /// What the file said last that was used.
    set: PolicySet,
}

/// What a file that was read again has changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Reload {
    /// The names of the policies that changed or are new.
    pub changed: Vec<String>,
}

impl LivePolicies {
    /// Reads a file.
    ///
    /// # Errors
    /// As [`ConfigFile::load`].
    pub fn load(file: ConfigFile) -> Result<Self, Error> {
        let text = file.text()?;
        let set = file.parse(&text, PolicySet::read)?;
        Ok(Self::made(set, Some(file), text))
    }

    /// Policies that are in no file: nothing changes them but [`LivePolicy::replace`].
    pub fn fixed(set: PolicySet) -> Self {
        Self::made(set, None, Vec::new())
    }

    fn made(set: PolicySet, file: Option<ConfigFile>, text: Vec<u8>) -> Self {
        let live = |policy: &Policy| (policy.name().to_owned(), LivePolicy::new(policy.clone()));
        Self(Arc::new(Inner {
            file,
            state: Mutex::new(State {
                looked: Looked::at(text),
                policies: Policies {
                    live: set.iter().map(live).collect(),
                    set,
                },
            }),
        }))
    }

    /// The policy of a name, which changes with the file.
    ///
    /// # Errors
    /// `Config` if there is none.
    pub fn get(&self, name: &str) -> Result<LivePolicy, Error> {
        let live = self.lock().policies.live.get(name).cloned();
        live.ok_or_else(|| no_policy(name))
    }

    /// Checks that policies are there, and that requests can be charged to them, for a service that needs them.
    ///
    /// # Errors
    /// `Config`, with the file, and all that are missing or that are of concurrency, on which leases are taken.
    pub fn require<'a>(
        &self,
        names: impl IntoIterator<Item = &'a str, IntoIter: Clone>,
    ) -> Result<(), Error> {
        let names = names.into_iter();
        let state = self.lock();
        let is_missing = |name: &&str| !state.policies.live.contains_key(*name);
        let missing: Vec<_> = names.clone().filter(is_missing).collect();
        let why = if missing.is_empty() {
            match state.policies.set.concurrent(names) {
                wrong if wrong.is_empty() => return Ok(()),
                wrong => super::listed(&wrong),
            }
        } else {
            format!("these policies are missing: {}", missing.join(", "))
        };
        Err(self.unusable(&why))
    }

    /// An error about the policies, with the file and the variable that names it: for what only the service that uses them can
    /// tell.
    pub fn unusable(&self, why: &str) -> Error {
        match &self.0.file {
            Some(file) => file.unusable(why),
            None => super::config_error(why.to_owned()),
        }
    }

    /// Every policy as it is now, by name.
    pub fn current(&self) -> Vec<Policy> {
        let state = self.lock();
        let live = state.policies.live.values();
        live.map(LivePolicy::current).collect()
    }

    /// What is wrong with the file as it is now; `None` if it is what holds.
    pub fn status(&self) -> Option<String> {
        self.lock().looked.error()
    }

    /// Reads the file now.
    ///
    /// # Errors
    /// `Config` if it cannot be used: then everything stays as it is. Also for policies that are in no file.
    pub fn reload(&self) -> Result<Reload, Error> {
        let file = self.file()?;
        // A file system that hangs keeps nobody else waiting.
        let read = file.text();
        let State { looked, policies } = &mut *self.lock();
        looked.reload(read, |text| policies.take(file, text))
    }

    /// Looks at the file every so often and reads it when it has changed, until the watch is dropped. What is in it has to be the
    /// same twice: a file that is being written is not read.
    ///
    /// # Errors
    /// `Config` for policies that are in no file, or if no thread can be started.
    pub fn watch(&self, every: Duration) -> Result<FileWatch, Error> {
        self.file()?;
        let policies = self.clone();
        FileWatch::start(every, move || policies.look())
    }

    fn file(&self) -> Result<&ConfigFile, Error> {
        let file = self.0.file.as_ref();
        file.ok_or_else(|| super::config_error("the policies are in no file".to_owned()))
    }

    fn look(&self) {
        if let Ok(file) = self.file() {
            let read = file.text();
            let State { looked, policies } = &mut *self.lock();
            looked.look(read, |text| policies.take(file, text));
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Policies {
    /// Puts what a text says in the place of what holds, all of it or nothing.
    fn take(&mut self, file: &ConfigFile, text: &[u8]) -> Result<Reload, Error> {
        let next = file.parse(text, |format, text| {
            let next = PolicySet::read(format, text)?;
            match next.obstacles(&self.live) {
                problems if problems.is_empty() => Ok(next),
                problems => Err(problems),
            }
        })?;
        let mut changed = Vec::new();
        for policy in next
            .iter()
            .filter(|it| self.set.get(it.name()).ok() != Some(it))
        {
            let name = policy.name().to_owned();
            match self.live.get(&name) {
                Some(live) => {
                    if let Err(error) = live.replace(policy.clone()) {
                        tracing::error!(%error, "a policy stays what it was set to beside its file");
                        continue;
                    }
                }
                None => {
                    let live = LivePolicy::new(policy.clone());
                    self.live.insert(name.clone(), live);
                }
            }
            changed.push(name);
        }
        self.set = next;
        tracing::info!(file = %file.path().display(), ?changed, "policies were read again");
        Ok(Reload { changed })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn capacity(policies: &LivePolicies, name: &str) -> u64 {
        policies.get(name).unwrap().current().quota().capacity()
    }

    /// A file is read when it is the same twice; what is wrong with it is told until it is right.
    #[test]
    fn a_file_is_looked_at_twice() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("limits.toml");
        let write = |quota: &str| {
            std::fs::write(&path, format!("[policies.a]\nquota = '{quota}'\n")).unwrap();
        };
        write("1/hour");
        let file = ConfigFile::new(&path).unwrap().named_by("LIMITS_FILE");
        let policies = LivePolicies::load(file).unwrap();
        let look = |expected: u64| {
            policies.look();
            assert_eq!(capacity(&policies, "a"), expected);
        };
        look(1);
        write("2/hour");
        look(1);
        look(2);
        write("3/hour");
        look(2);
        write("4/hour");
        look(2);
        look(4);
        write("5/hourr");
        look(4);
        look(4);
        look(4);
        let wrong = policies.status().unwrap();
        let place = format!(
            "LIMITS_FILE names {}, which cannot be used: line 2, column 9",
            path.display()
        );
        assert!(wrong.starts_with(&place), "{wrong}");
        std::fs::remove_file(&path).unwrap();
        look(4);
        assert!(policies.status().unwrap().contains("which cannot be read"));
        write("4/hour");
        look(4);
        look(4);
        assert_eq!(policies.status(), None);
        let revision = policies.get("a").unwrap().current().revision();
        assert_eq!(
            revision, 2,
            "one for each change, and none for the same again"
        );
    }

    #[test]
    fn what_is_in_use_stays() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("limits.yaml");
        let write = |text: &str| std::fs::write(&path, text).unwrap();
        write("policies:\n  a: { quota: 5/hour }\n  b: { quota: 5/hour }\n");
        let policies = LivePolicies::load(ConfigFile::new(&path).unwrap()).unwrap();
        // All of it or nothing: `a` changes with the others, or not at all.
        write("policies:\n  a: { quota: 9/hour }\n");
        let gone = policies.reload().unwrap_err();
        assert!(
            gone.message()
                .contains("line 1, column 1: policy b is gone"),
            "{gone}"
        );
        write(
            "policies:\n  a: { quota: 9/hour }\n  b: { quota: 5/hour, algorithm: sliding_log }\n",
        );
        let other = policies.reload().unwrap_err();
        assert!(other.message().contains("line 3, column 3: "), "{other}");
        // A service that reserves tokens of it would be refused, whatever the version.
        write(
            "policies:\n  a: { quota: 5/hour, unit: pages, version: 2 }\n  b: { quota: 5/hour }\n",
        );
        let other = policies.reload().unwrap_err();
        assert!(
            other
                .message()
                .contains("line 2, column 3: policy a cannot count pages"),
            "{other}"
        );
        // Charges are made on one and leases taken on the other, whatever the version.
        write(
            "policies:\n  a: { limit: 3, algorithm: concurrency, version: 2 }\n  b: { quota: 5/hour }\n",
        );
        let other = policies.reload().unwrap_err();
        assert!(
            other
                .message()
                .contains("line 2, column 3: policy a cannot become"),
            "{other}"
        );
        assert_eq!(capacity(&policies, "a"), 5);
        write(
            "policies:\n  a: { quota: 9/hour }\n  b: { quota: 5/hour }\n  c: { quota: 1/hour }\n",
        );
        assert_eq!(policies.reload().unwrap().changed, ["a", "c"]);
        assert_eq!((capacity(&policies, "a"), capacity(&policies, "c")), (9, 1));
        let fixed = LivePolicies::fixed(PolicySet::default());
        assert!(fixed.reload().is_err() && fixed.watch(Duration::from_secs(1)).is_err());
        assert!(ConfigFile::new("limits.ini").is_err());
    }

    #[test]
    fn what_requests_are_charged_to_is_no_concurrency() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("limits.yaml");
        let text = "policies:\n  a: { quota: 5/hour }\n  b: { limit: 5, algorithm: concurrency }\n";
        std::fs::write(&path, text).unwrap();
        let policies = LivePolicies::load(ConfigFile::new(&path).unwrap()).unwrap();
        assert!(policies.require(["a"]).is_ok());
        let error = policies.require(["a", "b"]).unwrap_err();
        for told in [
            "limits.yaml",
            "line 3, column 3: policy b is of concurrency",
        ] {
            assert!(error.message().contains(told), "{error}");
        }
        let missing = policies.require(["b", "c"]).unwrap_err();
        assert!(missing.message().contains("missing: c"), "{missing}");
    }

    #[test]
    fn what_is_no_text_has_a_place_too() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("limits.json");
        // UTF-16, with its byte order mark.
        for (bytes, place) in [
            (&b"\xff\xfe{\0"[..], "line 1, column 1"),
            (b"{}\n  \xff", "line 2, column 3"),
        ] {
            std::fs::write(&path, bytes).unwrap();
            let error = ConfigFile::new(&path).unwrap().load().unwrap_err();
            assert!(error.message().contains(place), "{error}");
            assert!(error.message().contains("no UTF-8"), "{error}");
        }
        std::fs::write(&path, vec![b' '; 2 << 20]).unwrap();
        assert!(ConfigFile::new(&path).unwrap().load().is_err());
    }
}
