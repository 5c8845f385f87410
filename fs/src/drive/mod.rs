//! `Drive`: one home folder's log, index and pieces as the daemon sees them.
//!
//! Owns: opening, closing and wiring of store, VFS, chunk source and sealing. Promises: what `seal` returned is durable;
//! nothing is evicted that is not placed; a crash at any point repeats at most one step. Refuses: a second opener of the same
//! home (the daemon's lock file), a piece id that it does not know, eviction without a `DurabilitySource`.
//!
//!     open ──► mount ──► (FUSE serves) ──► dirty()? ──► seal() ──► pieces()/open_piece() ──► daemon places ──► evict_piece()
//!     attach(RestorePoint) ──► the same, the tree and the chunks coming through the Retriever as they are read
//!
//! All methods take `&self`, and `Drive` is a cheap clone (an `Arc`). `seal`, `sync_all`, `evict_piece`, `put_checkpoint_piece`
//! and `check` block for long and belong on a thread of their own; everything else returns promptly.
//!
//! # API (the bodies follow as store, content and rows land)
//!
//! ```text
//! Drive::open(home: &Path, keys: Arc<DriveKeys>, store_keys: StoreKeys, options: DriveOptions,
//!             retriever: Arc<dyn Retriever>, ambient: Ambient) -> Result<Drive, DriveError>       Ambient::system()
//! Drive::attach(home, keys, store_keys, options, point: RestorePoint, retriever, ambient) -> Result<Drive, DriveError>
//! drive.recovery() -> &RecoveryReport
//! drive.vfs() -> &Arc<Vfs>
//! drive.mount(mountpoint: &Path, options: MountOptions) -> Result<MountHandle, DriveError>
//! drive.dirty() -> Result<DirtyState, DriveError>
//! drive.seal() -> Result<Option<CommitInfo>, DriveError>          None: nothing had changed since the last commit
//! drive.latest_commit() -> Result<Option<CommitInfo>, DriveError>
//! drive.commits_after(sequence: u64) -> Result<Vec<CommitInfo>, DriveError>     ascending
//! drive.pieces() -> Result<Vec<PieceInfo>, DriveError>             oldest first
//! drive.piece(id: PieceId) -> Result<Option<PieceInfo>, DriveError>
//! drive.open_piece(id: PieceId) -> Result<PieceFile, DriveError>   PieceFile{len(), read_at(offset, buf)}; pins the piece while it lives
//! drive.evict_piece(id: PieceId) -> Result<(), DriveError>         DriveError::NotEvictable{reason}
//! drive.put_checkpoint_piece(|sink: &mut dyn BlockSink| -> Result<T, DriveError>) -> Result<(PieceInfo, T), DriveError>
//! drive.drop_checkpoint_piece(id: PieceId) -> Result<(), DriveError>
//! drive.read_block(&BlockAt) -> Result<Block, DriveError>          local piece, else the Retriever, verified
//! drive.jobs() -> Jobs      get(key) / scan(prefix) / commit(&[(key, Option<value>)]) (durable on return)
//! drive.set_durability_source(Arc<dyn DurabilitySource>)
//! drive.durability(path: &str) / durability_of(ino: u64) -> Result<Durability, DriveError>
//! drive.usage() -> Result<DriveUsage, DriveError>
//! drive.sync_all() -> Result<(), DriveError>
//! drive.check(CheckOptions{deep: bool}) -> Result<check::Report, DriveError>
//! drive.close() -> Result<(), DriveError>                          sync and flush; the mount must be gone
//! ```

pub mod types;
