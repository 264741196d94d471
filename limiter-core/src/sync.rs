//! Locks, tasks and waiting, where synchronisation is written by hand. Shuttle's take their place in its
//! tests, which then try many interleavings.

#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::Mutex;
#[cfg(not(all(test, shuttle)))]
pub(crate) use tokio::spawn;
#[cfg(not(all(test, shuttle)))]
pub(crate) use tokio::task::AbortHandle;
#[cfg(not(all(test, shuttle)))]
pub(crate) use tokio::time::{sleep, timeout_at};

#[cfg(all(test, shuttle))]
pub(crate) use locks::Mutex;
#[cfg(all(test, shuttle))]
pub(crate) use shuttle::future::{AbortHandle, spawn};
#[cfg(all(test, shuttle))]
pub(crate) use untimed::{sleep, timeout_at};

/// Shuttle's lock, after which others may run at once: shuttle itself lets them run before an operation,
/// and does not know the count of an `Arc` for one.
#[cfg(all(test, shuttle))]
#[allow(clippy::unwrap_used, reason = "a test: its failures are panics")]
mod locks {
    use std::ops::{Deref, DerefMut};
    use std::time::Duration;

    use shuttle::sync::{LockResult, MutexGuard};

    #[derive(Debug, Default)]
    pub(crate) struct Mutex<T>(shuttle::sync::Mutex<T>);

    pub(crate) struct Guard<'a, T>(Option<MutexGuard<'a, T>>);

    impl<T> Mutex<T> {
        pub(crate) fn lock(&self) -> LockResult<Guard<'_, T>> {
            self.0
                .lock()
                .map(|guard| Guard(Some(guard)))
                .map_err(|_| unreachable!())
        }
    }

    impl<T> Deref for Guard<'_, T> {
        type Target = T;

        fn deref(&self) -> &T {
            self.0.as_ref().unwrap()
        }
    }

    impl<T> DerefMut for Guard<'_, T> {
        fn deref_mut(&mut self) -> &mut T {
            self.0.as_mut().unwrap()
        }
    }

    impl<T> Drop for Guard<'_, T> {
        fn drop(&mut self) {
            self.0 = None;
            if !std::thread::panicking() {
                shuttle::thread::sleep(Duration::ZERO);
            }
        }
    }
}

/// Shuttle knows no time: a sleep ends whenever shuttle likes.
#[cfg(all(test, shuttle))]
mod untimed {
    use std::future::poll_fn;
    use std::pin::pin;
    use std::task::Poll;
    use std::time::Duration;

    use shuttle::rand::{Rng, thread_rng};
    use tokio::time::Instant;

    pub(crate) async fn sleep(_: Duration) {
        shuttle::future::yield_now().await;
    }

    /// Gives up at some moment if the end is within a minute, and else never, so that a wake-up that does
    /// not come is a deadlock.
    pub(crate) async fn timeout_at<F: Future>(end: Instant, future: F) -> Result<F::Output, ()> {
        let gives_up = end < Instant::now() + Duration::from_secs(60);
        let mut future = pin!(future);
        poll_fn(|context| match future.as_mut().poll(context) {
            Poll::Ready(output) => Poll::Ready(Ok(output)),
            Poll::Pending if !gives_up => Poll::Pending,
            Poll::Pending if thread_rng().gen_ratio(1, 4) => Poll::Ready(Err(())),
            Poll::Pending => {
                shuttle::hint::spin_loop();
                context.waker().wake_by_ref();
                Poll::Pending
            }
        })
        .await
    }
}
