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
        let value: Option<Vec<u8>> = redis::cmd("GET").arg(key).query(&mut connection)?;
        let left: i64 = redis::cmd("PTTL").arg(key).query(&mut connection)?;
        match value {
            Some(value) => println!(
                "{key} (expires in {left} ms)\n{}",
                limiter_redis::describe(&value)
            ),
            None => println!("{key} is not there"),
        }
    }
    Ok(())
}
