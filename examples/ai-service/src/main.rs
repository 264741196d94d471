//! A running AI service: limits and caches on memory, or with `REDIS_URL` across instances.
//!
//! A request runs through: [`http`] (connections, the log), the limit of its address in [`app`], its file in [`routes`], there
//! [`users`] (whose key is it), then the limits of [`app`] and the [`model`]. `GET /` is a console to try it.

mod app;
mod audit;
mod http;
mod model;
mod routes;
mod settings;
mod users;

use std::io::IsTerminal;
use std::process::ExitCode;
use std::time::Duration;

use tokio::net::TcpListener;
use tracing_subscriber::EnvFilter;

use crate::app::App;
use crate::http::serve::serve;
use crate::settings::Settings;

#[tokio::main]
async fn main() -> ExitCode {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Serves until a signal comes; an error is one line that says what to do.
async fn run() -> Result<(), String> {
    let settings = Settings::from_env()?;
    let (bind, connections) = (settings.bind.clone(), settings.connections);
    let clients = settings.client.clone();
    let app = App::new(settings).await?;
    let listener = TcpListener::bind(&bind).await.map_err(|error| {
        format!("cannot listen on {bind} ({error}); set BIND=host:port to another address")
    })?;
    let address = listener.local_addr().map_err(|error| error.to_string())?;
    tracing::info!("listening on http://{address}");
    let (stopping, stop) = tokio::sync::oneshot::channel();
    let serve = serve(
        listener,
        app.clone().router(),
        connections,
        clients,
        async {
            stop_signal().await;
            // Lost only if nobody waits any more.
            let _ = stopping.send(());
        },
    );
    tokio::select! {
        () = serve => tracing::info!("stopped; open requests were answered"),
        () = drained(stop) => tracing::warn!("stopped; some requests were still open"),
    }
    let given_back = app.limiter.drain(FLUSH).await;
    let waiting = given_back.waiting + given_back.trying;
    if waiting > 0 {
        tracing::error!(waiting, "not given back: Redis does not answer");
    }
    if let Err(error) = app.offenders.flush().await {
        tracing::warn!(%error, "the last denials are not in the lists of who is denied most");
    }
    if !app.audit.flush(FLUSH) {
        let stats = app.audit.stats();
        tracing::error!(
            lost = stats.lost,
            waiting = stats.waiting,
            "the audit trail is not complete"
        );
    }
    Ok(())
}

/// How long the end waits for what is to be given back, and for the audit trail.
const FLUSH: Duration = Duration::from_secs(5);

/// How long open requests may go on after a stop.
const DRAIN: Duration = Duration::from_secs(70);

/// Ends when a stop has taken too long, or at a second signal.
async fn drained(stop: tokio::sync::oneshot::Receiver<()>) {
    if stop.await.is_err() {
        std::future::pending::<()>().await;
    }
    let _ = tokio::time::timeout(DRAIN, stop_signal()).await;
}

/// Ctrl-C, or SIGTERM from a container platform.
async fn stop_signal() {
    let interrupt = async {
        if tokio::signal::ctrl_c().await.is_err() {
            std::future::pending::<()>().await;
        }
    };
    #[cfg(unix)]
    let terminate = async {
        match tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate()) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    #[cfg(not(unix))]
    let terminate = std::future::pending::<()>();
    tokio::select! {
        () = interrupt => {}
        () = terminate => {}
    }
}
