//! Faults, each a small wrapper of what it spoils: a store's contract, or the network in front of a server.
//!
//! - [`Faulty`]: a store that loses requests and replies.
//! - [`Proxy`]: a network that delays, holds packets back, freezes and cuts.
//! - [`ReplyProxy`]: a server that answers what a test says.

mod proxy;
mod replies;
mod store;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub use proxy::Proxy;
pub use replies::ReplyProxy;
pub use store::{Fault, Faulty};

/// Takes connections at a free loopback port until the second value is dropped, and gives each a task. Needs a tokio runtime.
async fn accept<J>(join: impl Fn(TcpStream) -> J + Send + 'static) -> (u16, Aborts)
where
    J: Future<Output = ()> + Send + 'static,
{
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let accepting = tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            tokio::spawn(join(client));
        }
    });
    (port, Aborts(accepting))
}

/// The way on, to a server at a loopback port; `None` if nobody is there.
async fn on_from(client: &TcpStream, server: u16) -> Option<TcpStream> {
    let server = TcpStream::connect(("127.0.0.1", server)).await.ok()?;
    // Packets are small, and some are measured one by one.
    let _ = (client.set_nodelay(true), server.set_nodelay(true));
    Some(server)
}

/// Ends a task.
#[derive(Debug)]
struct Aborts(JoinHandle<()>);

impl Drop for Aborts {
    fn drop(&mut self) {
        self.0.abort();
    }
}
