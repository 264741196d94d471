use limiter_core::limit::wrap::Route;

use super::*;

async fn control() -> (Switch, SwitchControl) {
    let switch = Switch::new("a");
    let builder = crate::Builder::new().switch(switch.clone());
    let backends = builder.connect("memory:").await.unwrap();
    (switch.clone(), SwitchControl::new(switch, backends.cache))
}

#[tokio::test(start_paused = true)]
async fn an_override_goes_before_the_file_and_ends() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("switch.toml");
    std::fs::write(&path, "limits = 'local'").unwrap();
    let (switch, control) = control().await;
    let file = ConfigFile::new(&path).unwrap().named_by("SWITCH_FILE");
    // The file is looked at by hand below.
    let _watch = control.watch(file, Duration::from_secs(86_400)).unwrap();
    assert_eq!(switch.routing(), Routing::to(Route::Local));
    assert_eq!(control.status().set_by, "file");
    control.override_here(Routing::to(Route::Off), Duration::from_secs(60));
    let status = control.status();
    assert_eq!(
        (status.routing, status.set_by),
        (Routing::to(Route::Off), "instance")
    );
    assert_eq!(status.left, Some(Duration::from_secs(60)));
    std::fs::write(&path, "limits = 'stor'").unwrap();
    control.look();
    control.look();
    let wrong = control.status().error.unwrap();
    assert!(
        wrong.starts_with("SWITCH_FILE names") && wrong.contains("line 1, column 10"),
        "{wrong}"
    );
    assert_eq!(switch.routing(), Routing::to(Route::Off));
    // It ends by itself. The sleep is of paused time: unlike `advance`, it lets the override's timer run.
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!(switch.routing(), Routing::to(Route::Local));
    std::fs::write(&path, "limits = 'store'").unwrap();
    control.look();
    control.look();
    assert_eq!(
        (switch.routing(), control.status().error),
        (Routing::default(), None)
    );
}

/// What is kept where only this process sees it reaches this process.
#[tokio::test]
async fn memory_reaches_this_instance() {
    let (switch, control) = control().await;
    control.follow();
    let reach = control
        .override_all(Routing::to(Route::Off), Duration::from_secs(60))
        .await;
    assert!(matches!(reach, Reach::ThisInstance { .. }));
    control.read().await;
    assert_eq!(
        switch.routing(),
        Routing::to(Route::Off),
        "a store that says nothing takes nothing back"
    );
    control.clear().await;
    assert_eq!(switch.routing(), Routing::default());
}

/// A store that instances share, for the control.
#[derive(Debug)]
struct Shared {
    inner: limiter_memory::MemoryCache,
    is_away: std::sync::atomic::AtomicBool,
}

impl Shared {
    fn check(&self) -> Result<(), Error> {
        match self.is_away.load(std::sync::atomic::Ordering::SeqCst) {
            true => Err(Error::new(
                limiter_core::ErrorKind::Connection,
                "cache",
                "away",
            )),
            false => Ok(()),
        }
    }
}

#[async_trait::async_trait]
impl CacheStore for Shared {
    fn capabilities(&self) -> limiter_core::cache::CacheCapabilities {
        self.inner.capabilities()
    }

    async fn get(&self, key: &CacheKey) -> Result<Option<limiter_core::cache::Entry>, Error> {
        self.check()?;
        self.inner.get(key).await
    }

    async fn get_many(
        &self,
        keys: &[CacheKey],
    ) -> Result<Vec<Option<limiter_core::cache::Entry>>, Error> {
        self.inner.get_many(keys).await
    }

    async fn set(&self, key: &CacheKey, entry: NewEntry<'_>) -> Result<(), Error> {
        self.check()?;
        self.inner.set(key, entry).await
    }

    async fn delete(&self, key: &CacheKey) -> Result<bool, Error> {
        self.check()?;
        self.inner.delete(key).await
    }

    async fn increment(&self, key: &CacheKey, by: i64, ttl: Duration) -> Result<i64, Error> {
        self.inner.increment(key, by, ttl).await
    }

    async fn clear(&self, namespace: &Key) -> Result<u64, Error> {
        self.inner.clear(namespace).await
    }

    async fn health(&self) -> limiter_core::Health {
        limiter_core::Health::new("shared", true, None, "")
    }
}

/// Who said it last is whom an instance follows, as far as it can know.
#[tokio::test]
async fn the_last_word_holds() {
    let shared = Arc::new(Shared {
        inner: limiter_memory::MemoryCache::new(),
        is_away: false.into(),
    });
    let away = |is: bool| {
        shared
            .is_away
            .store(is, std::sync::atomic::Ordering::SeqCst)
    };
    let instances = ["a", "b"].map(|name| {
        let control = SwitchControl::new(Switch::new(name), shared.clone());
        control.follow();
        control
    });
    let [one, other] = &instances;
    let read = async || {
        for instance in &instances {
            instance.read().await;
        }
        instances.each_ref().map(|it| it.status().routing.route())
    };
    let hour = Duration::from_secs(3_600);
    let to = |route| Routing::to(route);
    assert_eq!(
        one.override_all(to(Route::Off), hour).await,
        Reach::EveryInstance
    );
    assert_eq!(read().await, [Route::Off, Route::Off]);
    // Of this instance, after the word to all.
    other.override_here(to(Route::Local), hour);
    assert_eq!(read().await, [Route::Off, Route::Local]);
    assert_eq!(
        (one.status().set_by, other.status().set_by),
        ("override", "instance")
    );
    // A newer word to all.
    one.override_all(to(Route::Store), hour).await;
    assert_eq!(read().await, [Route::Store, Route::Store]);
    one.override_all(to(Route::Off), hour).await;
    read().await;
    // Taken back where the store is away: here, and until somebody says something else.
    away(true);
    assert!(matches!(other.clear().await, Reach::ThisInstance { .. }));
    away(false);
    assert_eq!(read().await, [Route::Off, Route::Store]);
    one.clear().await;
    assert_eq!(read().await, [Route::Store, Route::Store]);
    one.override_all(to(Route::Off), hour).await;
    assert_eq!(
        read().await,
        [Route::Off, Route::Off],
        "the same word, said again"
    );
    // Taken back by one, and said again by the other before the first has looked.
    one.clear().await;
    other.override_all(to(Route::Off), hour).await;
    assert_eq!(read().await, [Route::Off, Route::Off]);
    // An instance that does not follow reads nothing.
    let alone = SwitchControl::new(Switch::new("c"), shared.clone());
    alone.read().await;
    assert_eq!(alone.status().routing, Routing::default());
}
