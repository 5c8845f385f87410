//! The keeper as a process: orders from standard input, a status to standard output and into the folder.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::sync::mpsc::{self, Receiver, RecvTimeoutError};
use std::time::Duration;

use holdfast_proofs::sealing::{LINE_BYTES_MAX, Order, STATUS_FILE, SealingStatus};

use super::{Keeper, KeeperError};
use crate::durable;
use crate::engine::{Clock, Executor};

/// How often the keeper looks at its tasks when nobody says anything.
const TICK: Duration = Duration::from_millis(200);
/// Milliseconds between two statuses.
const STATUS_MILLIS: u64 = 1_000;
/// Orders that may wait: then the provider waits too.
const ORDERS_MAX: usize = 1_024;
/// Orders taken between two ticks: a long list must not keep a proof waiting.
const ORDERS_A_TICK_MAX: usize = 4_096;

/// Keeps the folder until standard input ends.
///
/// # Errors
/// As `Keeper::tick`; what cannot be written down ends the keeper, and the provider starts it again.
pub fn run<E: Executor, C: Clock + Clone>(
    mut keeper: Keeper<E, C>,
    folder: &Path,
    clock: &C,
) -> Result<(), KeeperError> {
    let orders = listen();
    let mut told_at = 0;
    loop {
        match orders.recv_timeout(TICK) {
            Ok(order) => {
                keeper.order(order);
                for order in orders.try_iter().take(ORDERS_A_TICK_MAX) {
                    keeper.order(order);
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        }
        keeper.tick()?;
        let now = clock.now();
        if now.abs_diff(told_at) >= STATUS_MILLIS {
            told_at = now;
            tell(&keeper.status(), folder)?;
        }
    }
}

/// Reads orders until the input ends. A line that is none is said and left out.
fn listen() -> Receiver<Order> {
    let (send, orders) = mpsc::sync_channel(ORDERS_MAX);
    std::thread::spawn(move || {
        let mut input = BufReader::new(io::stdin());
        let mut line = Vec::new();
        loop {
            line.clear();
            match (&mut input).take(LINE_BYTES_MAX as u64).read_until(b'\n', &mut line) {
                Ok(1..) => {}
                Ok(0) | Err(_) => break,
            }
            match serde_json::from_slice(&line) {
                Ok(order) => {
                    if send.send(order).is_err() {
                        break;
                    }
                }
                Err(error) => eprintln!("holdfast-prover: an order that is none: {error}"),
            }
        }
    });
    orders
}

fn tell(status: &SealingStatus, folder: &Path) -> Result<(), KeeperError> {
    let path = folder.join(STATUS_FILE);
    let failed = || KeeperError::io(&path);
    let mut line = serde_json::to_vec(status).map_err(|error| failed()(io::Error::from(error)))?;
    line.push(b'\n');
    // Not synced: after a power cut the next status is a second away.
    let beside = durable::partial(&path);
    std::fs::write(&beside, &line).and_then(|()| std::fs::rename(&beside, &path)).map_err(failed())?;
    let mut out = io::stdout().lock();
    // A provider that no longer listens closes our input as well, which ends us.
    let _ = out.write_all(&line).and_then(|()| out.flush());
    Ok(())
}
