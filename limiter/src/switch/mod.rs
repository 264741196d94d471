//! Who throws a [`Switch`]: a file, and an operator over all instances (C6).
//!
//! The file says what holds for good. An override, which an operator sets for a time, goes before it; it is kept in the store of the
//! caches, where all instances that share that store see it, and ends by itself.
//!
//! ```
//! use limiter::{Route, Routing, Switch};
//! use limiter::switch::{Reach, SwitchControl};
//! use std::time::Duration;
//!
//! # tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(async {
//! let switch = Switch::new("instance-1");
//! let backends = limiter::Builder::new().switch(switch.clone()).connect("memory:").await?;
//! let control = SwitchControl::new(switch, backends.cache.clone());
//! let reach = control.override_all(Routing::to(Route::Off), Duration::from_secs(3_600)).await;
//! assert!(matches!(reach, Reach::ThisInstance { .. }), "memory is not shared: {reach:?}");
//! assert_eq!(control.status().routing.to_string(), "off");
//! # Ok::<(), limiter::Error>(())
//! # }).unwrap();
//! ```
//!
//! # What a change may cost
//!
//! A key that is counted somewhere else from now on starts there from what was counted there before. So it may be admitted one
//! capacity more: in Redis its limit, and in each process the [share](Routing::share) of it, however often the switch is thrown.
//! With `n` instances and a share of `1/n` that is twice the limit.
//!
//! # What it costs to follow
//!
//! An instance that is used reads the override every 2 s (one transaction); an idle one never. An idle instance reads it when it is
//! used again: what comes in that round trip is decided by what held before.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use limiter_core::cache::{CacheKey, CacheStore, NewEntry};
use limiter_core::limit::wrap::{Routing, Switch};
use limiter_core::{Effect, Error, Key};
use tokio::task::AbortHandle;
use tokio::time::Instant;

use crate::config::{ConfigFile, FileWatch, Format, Looked, parse_routing, write_routing};

/// How often an instance that is used reads the override.
const EVERY: Duration = Duration::from_secs(2);

/// How long it takes at most until all instances that are used do what an override says, if the store answers.
pub const REACHES_WITHIN: Duration = Duration::from_secs(5);

/// The longest time of an override.
const LONGEST: Duration = Duration::from_secs(30 * 86_400);

fn clamped(within: Duration) -> Duration {
    within.clamp(Duration::from_secs(1), LONGEST)
}

/// Throws the switch of this instance as a file and operators say. Clones are one.
#[derive(Clone, Debug)]
pub struct SwitchControl(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    switch: Switch,
    shared: Arc<dyn CacheStore>,
    key: CacheKey,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the file says, or what held at first.
    base: Routing,
    file: Option<(ConfigFile, Looked)>,
    over: Option<Override>,
    /// What the store said last of all instances.
    told: Option<String>,
    /// Of that, what is not done here: this instance was told otherwise since.
    ignored: Option<String>,
    /// How often this process has set one: what was read before that is old.
    changes: u64,
    follower: Option<Task>,
    /// Takes the override back when its time is over.
    end: Option<Task>,
}

#[derive(Clone, Copy, Debug, PartialEq)]
struct Override {
    routing: Routing,
    until: Instant,
    /// Whether it is of this instance alone.
    is_own: bool,
}

/// Whom an override reaches.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reach {
    /// Every instance that shares the caches' store, within [`REACHES_WITHIN`] of being used.
    EveryInstance,
    /// This one alone.
    ThisInstance {
        /// Why no other one.
        why: String,
    },
}

/// What holds on this instance, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct SwitchStatus {
    /// What holds.
    pub routing: Routing,
    /// What says so: `default`, `file`, `override` (of all instances) or `instance` (an override of this one).
    pub set_by: &'static str,
    /// How long an override still holds.
    pub left: Option<Duration>,
    /// What is wrong with the file.
    pub error: Option<String>,
}

/// Ends when it is dropped.
#[derive(Debug)]
struct Task(AbortHandle);

impl Drop for Task {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl SwitchControl {
    /// Throws `switch`; overrides are kept in `shared`, under `cache:%-:switch`.
    pub fn new(switch: Switch, shared: Arc<dyn CacheStore>) -> Self {
        let base = switch.routing();
        Self(Arc::new(Inner {
            switch,
            shared,
            // No operation of a cache has an empty name.
            key: CacheKey::new(&Key::new(["cache", ""]), "switch"),
            state: Mutex::new(State {
                base,
                ..State::default()
            }),
        }))
    }

    /// Does what a file says, and looks at it every so often until the watch is dropped: see
    /// [`parse_routing`]. One that cannot be used later changes nothing.
    ///
    /// # Errors
    /// `Config` if the file cannot be used now.
    pub fn watch(&self, file: ConfigFile, every: Duration) -> Result<FileWatch, Error> {
        let text = file.text()?;
        let base = file.routing(&text)?;
        {
            let mut state = self.lock();
            state.base = base;
            state.file = Some((file, Looked::at(text)));
            self.apply(&mut state);
        }
        let control = self.clone();
        FileWatch::start(every, move || control.look())
    }

    /// Follows what operators say of all instances, from now on until the last clone is dropped. Needs a tokio runtime.
    pub fn follow(&self) {
        let weak = Arc::downgrade(&self.0);
        let switch = self.0.switch.clone();
        let task = tokio::spawn(async move {
            loop {
                switch.used().await;
                let Some(inner) = weak.upgrade() else { return };
                Self(inner).read().await;
                tokio::time::sleep(EVERY).await;
            }
        });
        self.lock().follower = Some(Task(task.abort_handle()));
    }

    /// Sets an override for all instances, for so long: 1 s to 30 days. Says whom it reaches: this instance does it at once.
    pub async fn override_all(&self, routing: Routing, within: Duration) -> Reach {
        let within = clamped(within);
        let reach = self.share(Some((routing, within))).await;
        let is_shared = reach == Reach::EveryInstance;
        let over = Override {
            routing,
            until: Instant::now() + within,
            is_own: !is_shared,
        };
        let told = is_shared.then(|| Some(write_routing(&routing)));
        self.set_here(Some(over), told);
        reach
    }

    /// Sets an override for this instance alone, for so long: 1 s to 30 days. It goes before one of all instances, until that is
    /// another one. Needs a tokio runtime.
    pub fn override_here(&self, routing: Routing, within: Duration) {
        let over = Override {
            routing,
            until: Instant::now() + clamped(within),
            is_own: true,
        };
        self.set_here(Some(over), None);
    }

    /// Takes overrides back: everything is again as the file says, here at once.
    pub async fn clear(&self) -> Reach {
        let reach = self.share(None).await;
        let told = (reach == Reach::EveryInstance).then_some(None);
        self.set_here(None, told);
        reach
    }

    /// Reads the override of all instances now, if this instance [follows](Self::follow) it.
    pub async fn read(&self) {
        let changes = {
            let state = self.lock();
            if state.follower.is_none() {
                return;
            }
            state.changes
        };
        match self.0.shared.get(&self.0.key).await {
            Ok(entry) => {
                let told = entry.map(|entry| {
                    let text = String::from_utf8_lossy(&entry.value).into_owned();
                    (text, entry.ttl)
                });
                self.note_shared(changes, told);
            }
            // What holds, holds on until its own time is over.
            Err(error) => tracing::debug!(%error, "the switch's override cannot be read"),
        }
    }

    /// The switch that it throws.
    pub fn switch(&self) -> &Switch {
        &self.0.switch
    }

    /// What holds on this instance, and why.
    pub fn status(&self) -> SwitchStatus {
        let mut state = self.lock();
        self.apply(&mut state);
        let over = state.over;
        SwitchStatus {
            routing: over.map_or(state.base, |over| over.routing),
            set_by: match over {
                Some(over) if over.is_own => "instance",
                Some(_) => "override",
                None if state.file.is_some() => "file",
                None => "default",
            },
            left: over.map(|over| over.until.saturating_duration_since(Instant::now())),
            error: state.file.as_ref().and_then(|(_, looked)| looked.error()),
        }
    }

    /// Tells all instances; whom that reaches.
    async fn share(&self, over: Option<(Routing, Duration)>) -> Reach {
        let shared = &self.0.shared;
        let here = |why: String| Reach::ThisInstance { why };
        if shared.health().await.backend == "memory" {
            return here(
                "the caches are kept in this process; name a Redis to share them".to_owned(),
            );
        }
        if self.lock().follower.is_none() {
            return here("instances do not follow each other".to_owned());
        }
        let told = match over {
            Some((routing, within)) => {
                let entry = NewEntry::new(write_routing(&routing), within);
                shared.set(&self.0.key, entry).await
            }
            None => shared.delete(&self.0.key).await.map(drop),
        };
        match told {
            Ok(()) => Reach::EveryInstance,
            Err(error) if error.effect() == Effect::Unknown => {
                here(format!("others may do it or not: {}", error.message()))
            }
            Err(error) => here(error.message().to_owned()),
        }
    }

    /// What the store says of all instances. It goes before what this instance was told earlier, and not before what it was told
    /// since.
    fn note_shared(&self, changes: u64, told: Option<(String, Duration)>) {
        let mut state = self.lock();
        if state.changes != changes {
            // It was read before.
            return;
        }
        let text = told.as_ref().map(|(text, _)| text.clone());
        if text != state.ignored {
            state.ignored = None;
        }
        let is_ignored = text.is_some() && text == state.ignored;
        state.told = text;
        match told {
            _ if is_ignored => {}
            Some((text, left)) => match parse_routing(Format::Json, &text) {
                Ok(routing) => {
                    let over = Override {
                        routing,
                        until: Instant::now() + left,
                        is_own: false,
                    };
                    self.set_over(&mut state, Some(over));
                }
                Err(error) => {
                    tracing::error!(%error, "the switch's override cannot be used; what held before still holds");
                }
            },
            None if state.over.is_some_and(|over| !over.is_own) => self.set_over(&mut state, None),
            None => {}
        }
        self.apply(&mut state);
    }

    /// What an operator says here. If it was told to all, that is what the store says by now; if not, it goes before what the store
    /// says, until that is something else.
    fn set_here(&self, over: Option<Override>, told: Option<Option<String>>) {
        let mut state = self.lock();
        state.changes += 1;
        match told {
            Some(told) => (state.told, state.ignored) = (told, None),
            None => state.ignored = state.told.clone(),
        }
        self.set_over(&mut state, over);
    }

    fn set_over(&self, state: &mut State, over: Option<Override>) {
        state.over = over;
        state.end = over.map(|over| {
            let weak = Arc::downgrade(&self.0);
            let task = tokio::spawn(async move {
                tokio::time::sleep_until(over.until).await;
                if let Some(inner) = weak.upgrade() {
                    let control = Self(inner);
                    let mut state = control.lock();
                    // What is said of all instances holds again.
                    state.ignored = None;
                    control.apply(&mut state);
                }
            });
            Task(task.abort_handle())
        });
        self.apply(state);
    }

    fn look(&self) {
        let Some(file) = self.lock().file.as_ref().map(|(file, _)| file.clone()) else {
            return;
        };
        // A file system that hangs keeps nobody else waiting.
        let read = file.text();
        let mut state = self.lock();
        let State {
            file: known, base, ..
        } = &mut *state;
        if let Some((_, looked)) = known {
            looked.look(read, |text| {
                *base = file.routing(text)?;
                Ok(())
            });
        }
        self.apply(&mut state);
    }

    /// Throws the switch, if what holds has changed.
    fn apply(&self, state: &mut State) {
        state.over = state.over.filter(|over| Instant::now() < over.until);
        let next = state.over.map_or(state.base, |over| over.routing);
        if self.0.switch.routing() != next {
            let before = self.0.switch.set(next);
            tracing::warn!(%before, now = %next, "where limits are counted has changed");
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
#[cfg(feature = "memory")]
mod tests;
