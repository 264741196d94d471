//! `REDIS_URL=redis://127.0.0.1:6379 limiter-state KEY...`: prints for people what Redis holds under the keys of limits.
//! Only reads.

#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "a command: it prints"
)]

use std::process::ExitCode;

fn main() -> ExitCode {
    let keys: Vec<String> = std::env::args().skip(1).collect();
    let Ok(url) = std::env::var("REDIS_URL") else {
        eprintln!("REDIS_URL is not set; give the Redis that counts");
        return ExitCode::from(2);
    };
    if keys.is_empty() || keys.iter().any(|key| key.starts_with('-')) {
        eprintln!("usage: limiter-state KEY...");
        return ExitCode::from(2);
    }
    match show(&url, &keys) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("Redis does not answer: {error}");
            ExitCode::FAILURE
        }
    }
}

fn show(url: &str, keys: &[String]) -> redis::RedisResult<()> {
    let mut connection = redis::Client::open(url)?.get_connection()?;
    for key in keys {
        let left: i64 = redis::cmd("PTTL").arg(key).query(&mut connection)?;
        match state(key, &mut connection)? {
            Some(state) => println!("{key} (expires in {left} ms)\n{state}"),
            None => println!("{key} is not there"),
        }
    }
    Ok(())
}

fn state(key: &str, connection: &mut redis::Connection) -> redis::RedisResult<Option<String>> {
    let value: redis::RedisResult<Option<Vec<u8>>> = redis::cmd("GET").arg(key).query(connection);
    match value {
        Ok(value) => Ok(value.map(|value| limiter_redis::describe(&value))),
        // Leases are a sorted set.
        Err(error) if error.code() == Some("WRONGTYPE") => {
            let mut range = redis::cmd("ZRANGE");
            range.arg(key).arg(0).arg(-1).arg("WITHSCORES");
            let set: Vec<(Vec<u8>, f64)> = range.query(connection)?;
            Ok(Some(limiter_redis::describe_leases(&set)))
        }
        Err(error) => Err(error),
    }
}
