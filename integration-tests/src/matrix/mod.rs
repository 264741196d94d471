//! Every fault, with the three rules for outages side by side, and an independent checker of what came of it.
//!
//! - `world`: the servers and the network of a cell, and who calls. `faults`: what may become of them. `inject`: how that is done.
//! - `load`: calls at a rate, each of them noted. `log`: the notes.
//! - `checker`: what the notes may be, computed from the definitions of the limits and from nothing else.
//! - `sabotage`: products that are broken on purpose. `report`: how it is told.
//!
//! Data flows one way: a fault changes the world while the load notes its calls; the checker reads the notes.

mod checker;
mod faults;
mod inject;
mod load;
mod log;
mod report;
mod sabotage;
mod world;

use std::time::Duration;

use tokio::time::{Instant, sleep};

pub use self::checker::Verdict;
pub use self::faults::Fault;
pub use self::report::Report;
pub use self::sabotage::Sabotage;

/// How long the parts of a cell are.
#[derive(Clone, Copy, Debug)]
pub struct Lengths {
    /// Before the fault.
    pub before: Duration,
    /// Of the fault.
    pub fault: Duration,
    /// After the two seconds that a recovery may take.
    pub after: Duration,
}

/// How long a recovery may take, from the server's first PONG.
pub const RECOVERY: Duration = Duration::from_secs(2);

/// Runs one fault; what the checker says of it.
pub async fn cell(
    fault: Fault,
    lengths: Lengths,
    seed: u64,
    sabotage: Option<Sabotage>,
) -> Verdict {
    let mut world = world::World::start(fault.place(), sabotage).await;
    let load = load::Load::start(&world, seed).await;
    let mut log = log::Log::new();
    sleep(lengths.before).await;
    log.begin(Instant::now());
    let losses = inject::inject(fault, &mut world, lengths.fault).await;
    log.losses = losses;
    log.healed = Some(Instant::now());
    log.pong = Some(world.first_pong().await);
    sleep(RECOVERY).await;
    log.recovered = Some((Instant::now(), world.counted(), Instant::now()));
    sleep(lengths.after).await;
    log.end = Some(Instant::now());
    load.stop(&mut log).await;
    log.counted = world.counted();
    checker::check(fault, &log)
}
