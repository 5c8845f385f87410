//! The gateway's connections: HTTP/1.1 over TCP, bounded in number and time. TLS belongs to a proxy in front of it.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::Duration;

use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

use super::PublicIndex;
use super::respond::{Shared, respond};

/// What strangers may cause.
#[derive(Debug, Clone)]
pub struct GatewayLimits {
    pub connections_max: usize,
    /// Of one address.
    pub connections_per_address_max: usize,
    /// Blocks that are read at once, of at most 2 MiB each.
    pub reads_max: usize,
    /// CARs that are sent at once; one more is told to come again.
    pub cars_max: usize,
    /// From a connection's beginning, or the end of an answer, to the end of the next request's headers.
    pub headers_timeout: Duration,
    /// A client that takes nothing for so long is let go.
    pub stall_timeout: Duration,
}

impl Default for GatewayLimits {
    fn default() -> GatewayLimits {
        GatewayLimits {
            connections_max: 512,
            connections_per_address_max: 64,
            reads_max: 32,
            cars_max: 32,
            headers_timeout: Duration::from_secs(30),
            stall_timeout: Duration::from_secs(60),
        }
    }
}

/// Bytes of a request's headers.
const HEADERS_BYTES_MAX: usize = 16 << 10;

/// A gateway that listens.
pub struct Gateway {
    listener: TcpListener,
    shared: Arc<Shared>,
    limits: GatewayLimits,
}

impl Gateway {
    /// Listens.
    pub async fn bind(
        address: SocketAddr,
        index: PublicIndex,
        limits: GatewayLimits,
    ) -> std::io::Result<Gateway> {
        let shared = Arc::new(Shared {
            index,
            reads: Arc::new(Semaphore::new(limits.reads_max)),
            cars: Arc::new(Semaphore::new(limits.cars_max)),
        });
        Ok(Gateway { listener: TcpListener::bind(address).await?, shared, limits })
    }

    /// Where.
    pub fn address(&self) -> std::io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Serves until `stop`.
    pub async fn run(self, stop: CancellationToken) {
        let slots = Arc::new(Semaphore::new(self.limits.connections_max));
        let counts: Arc<Mutex<HashMap<IpAddr, usize>>> = Arc::default();
        loop {
            let accepted = tokio::select! {
                () = stop.cancelled() => return,
                accepted = self.listener.accept() => accepted,
            };
            let (stream, peer) = match accepted {
                Ok(accepted) => accepted,
                Err(error) => {
                    tracing::debug!(%error, "the gateway cannot accept");
                    tokio::time::sleep(Duration::from_millis(200)).await;
                    continue;
                }
            };
            let Ok(slot) = slots.clone().try_acquire_owned() else { continue };
            let Some(counted) = Counted::new(&counts, peer.ip(), self.limits.connections_per_address_max)
            else {
                continue;
            };
            let _ = stream.set_nodelay(true);
            let _ = give_up_after(&stream, self.limits.stall_timeout);
            let (shared, limits, stop) = (self.shared.clone(), self.limits.clone(), stop.clone());
            tokio::spawn(async move {
                let _held = (slot, counted);
                tokio::select! {
                    () = stop.cancelled() => {}
                    () = serve(stream, shared, &limits) => {}
                }
            });
        }
    }
}

async fn serve(stream: TcpStream, shared: Arc<Shared>, limits: &GatewayLimits) {
    let service = service_fn(move |request| {
        let shared = shared.clone();
        async move { Ok::<_, Infallible>(respond(shared, request).await) }
    });
    let served = hyper::server::conn::http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers_timeout)
        .max_buf_size(HEADERS_BYTES_MAX)
        .serve_connection(TokioIo::new(stream), service)
        .await;
    if let Err(error) = served {
        tracing::debug!(%error, "a connection of the gateway ended");
    }
}

/// The kernel ends the connection when what was sent is not taken for so long.
fn give_up_after(stream: &TcpStream, after: Duration) -> std::io::Result<()> {
    let milliseconds = libc::c_uint::try_from(after.as_millis()).unwrap_or(libc::c_uint::MAX);
    // SAFETY: the descriptor is open, and the value lives as long as the call.
    let set = unsafe {
        libc::setsockopt(
            stream.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_USER_TIMEOUT,
            std::ptr::from_ref(&milliseconds).cast(),
            libc::socklen_t::try_from(size_of::<libc::c_uint>()).unwrap_or(4),
        )
    };
    if set == 0 { Ok(()) } else { Err(std::io::Error::last_os_error()) }
}

/// One connection of an address.
struct Counted {
    counts: Arc<Mutex<HashMap<IpAddr, usize>>>,
    address: IpAddr,
}

impl Counted {
    fn new(counts: &Arc<Mutex<HashMap<IpAddr, usize>>>, address: IpAddr, max: usize) -> Option<Counted> {
        let mut all = counts.lock();
        let count = all.entry(address).or_default();
        if *count >= max {
            return None;
        }
        *count += 1;
        Some(Counted { counts: counts.clone(), address })
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        let mut all = self.counts.lock();
        if let Some(count) = all.get_mut(&self.address) {
            *count -= 1;
            if *count == 0 {
                all.remove(&self.address);
            }
        }
    }
}

#[cfg(test)]
mod tests;
