//! Chunks fetched before somebody waits for them.
//!
//! Owns: the threads that fetch ahead. Promises: at most [`JOB_BYTES`] for each thread are under way; a reader never waits for room in the
//! queue (what does not fit is not fetched ahead); what fails is no error, since its reader asks again.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use super::Vfs;
use super::node::Node;
use crate::rows::Ino;

/// About what one fetch ahead brings: large enough to cost little for each byte, small enough that several providers have something to do.
const JOB_BYTES: u64 = 1 << 20;
/// Fetches that wait for a thread.
const JOBS_MAX: usize = 64;

/// Chunks of a file to fetch.
struct Job {
    ino: Ino,
    chunks: Vec<u64>,
}

/// The way to the threads; they end when it goes.
pub(crate) struct Readahead {
    jobs: SyncSender<Job>,
    /// Bytes that may lie ahead of one reader.
    window_bytes: u64,
}

impl Vfs {
    /// From now on what readers will ask for next is fetched by so many threads, at most `window_bytes` ahead of each. Once, before anybody reads.
    pub fn read_ahead(self: &Arc<Self>, threads: usize, window_bytes: u64) -> std::io::Result<()> {
        if threads == 0 {
            return Ok(());
        }
        let (jobs, queue) = sync_channel(JOBS_MAX);
        let queue = Arc::new(Mutex::new(queue));
        for n in 0..threads {
            let (vfs, queue) = (Arc::downgrade(self), queue.clone());
            std::thread::Builder::new().name(format!("readahead-{n}")).spawn(move || serve(&vfs, &queue))?;
        }
        let _ = self.readahead.set(Readahead { jobs, window_bytes });
        Ok(())
    }

    /// Somebody reads these chunks of a file. `far`: some had to come over the network.
    pub(super) fn look_ahead(&self, node: &Node, chunks: std::ops::RangeInclusive<u64>, far: bool) {
        let Some(readahead) = self.readahead.get() else { return };
        let (chunk_bytes, end, next) = {
            let state = node.read();
            let mut ahead = state.ahead.lock();
            if ahead.is_none() && !far {
                return;
            }
            let chunk_bytes = state.row.chunk_bytes();
            let end = state.row.size.div_ceil(chunk_bytes);
            let window = readahead.window_bytes / chunk_bytes;
            let next = ahead.get_or_insert_default().note(*chunks.start(), *chunks.end(), end, window);
            (chunk_bytes, end, next)
        };
        let together = usize::try_from(JOB_BYTES / chunk_bytes).unwrap_or(1).max(1);
        debug_assert!(next.iter().all(|n| *n < end));
        for part in next.chunks(together) {
            // Full: the reader is no slower for it than without.
            let _ = readahead.jobs.try_send(Job { ino: node.ino, chunks: part.to_vec() });
        }
    }

    fn fetch_ahead(&self, job: &Job) {
        // Whatever goes wrong here the reader meets himself, and is told.
        let Ok(node) = self.node(job.ino) else { return };
        let mut rows = Vec::with_capacity(job.chunks.len());
        {
            let state = node.read();
            for n in &job.chunks {
                if let Ok(Some(Some(row))) = self.chunk_row(job.ino, &state, *n, true) {
                    rows.push(row);
                }
            }
        }
        self.chunks.fetch_ahead(&rows);
    }
}

fn serve(vfs: &Weak<Vfs>, queue: &Mutex<Receiver<Job>>) {
    loop {
        let job = queue.lock().recv();
        let (Ok(job), Some(vfs)) = (job, vfs.upgrade()) else { return };
        vfs.fetch_ahead(&job);
    }
}
