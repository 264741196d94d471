//! What a server program may lack: the tests that need it say so, and are left out.

/// Ends the test, and says so, if the server program lacks something: `needs!(TLS)`, or a condition and what it stands for.
/// `scripts/server-matrix.sh` counts what is left out.
#[macro_export]
macro_rules! needs {
    (TLS) => {
        $crate::needs!($crate::RedisServer::has_tls(), "TLS")
    };
    ($has:expr, $what:literal) => {
        if !$has {
            return $crate::leave_out($what);
        }
    };
}

/// Says that this thread's test is left out.
#[allow(clippy::print_stdout, reason = "a test's own words")]
pub fn leave_out(what: &str) {
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    println!("left out: {test}: the server lacks {what}");
}
