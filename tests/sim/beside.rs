//! What goes on beside the owner's daemon in the same world: watchers, a rogue, whoever reads a link. Each is a future that is polled
//! while seconds pass; to drop it is its process's death, between two of its steps.

use std::time::Duration;

use futures::FutureExt as _;
use futures::future::{Either, Fuse, FusedFuture as _, LocalBoxFuture, join_all, select};

/// See the module.
pub type Running = Fuse<LocalBoxFuture<'static, ()>>;

/// Begins to run.
pub fn running(what: impl Future<Output = ()> + 'static) -> Running {
    what.boxed_local().fuse()
}

/// Lets some seconds pass for all of them; what has ended is done.
pub async fn pass(seconds: u64, all: Vec<&mut Running>) {
    let sleep = Box::pin(tokio::time::sleep(Duration::from_secs(seconds)));
    let going: Vec<&mut Running> = all.into_iter().filter(|one| !one.is_terminated()).collect();
    match select(sleep, Box::pin(join_all(going))).await {
        Either::Left(_) => {}
        Either::Right((_, sleep)) => sleep.await,
    }
}
