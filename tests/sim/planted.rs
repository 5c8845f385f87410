//! Bugs that are planted, to see that the simulation finds them. They are in the world or around a seam, none in the product: a
//! provider that does what ours must not, rows that are not kept, a worker that does not rest, a policy that nobody has.

/// See the module.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Rows of pieces that were committed are not there after the owner's crash.
    RowsForgotten,
    /// Providers sign for what a restart takes from them.
    ReceiptsBeforeSync,
    /// Liars pass their re-checks and audits, out of bytes that no disk has.
    AuditsPass,
    /// Providers that are gone for ever are answered for: repair never begins.
    GhostsAnswer,
    /// Providers say of what they have that it is lost, now and then: it is moved on and on.
    Restless,
    /// A deal that was ended is kept all the same.
    ReleasesLost,
    /// Providers of one operator say that they belong to nobody.
    TagsHidden,
    /// A worker looks again at once, and again.
    Livelock,
    /// Audits challenge, and never read.
    NeverReads,
    /// Watchers do not hear of each other, and providers take a slot twice.
    FellowsUnheard,
    /// Providers say to watchers, now and then, that a slot is damaged which is well.
    WatchersMisled,
    /// What a watcher says it placed is kept by nobody.
    LogsLost,
    /// Who may read by a permit may end deals, too.
    PermitsRelease,
    /// Of what a private link leads to providers keep the first version.
    SharesStale,
}

impl Bug {
    /// What a history needs for it to show.
    pub fn wants(self) -> Option<Kind> {
        match self {
            Bug::FellowsUnheard | Bug::WatchersMisled | Bug::LogsLost => Some(Kind::Watched),
            Bug::PermitsRelease => Some(Kind::Betrayed),
            Bug::SharesStale => Some(Kind::Linked),
            _ => None,
        }
    }
}

/// What a history has that not every one has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The owner is away for long, and watchers repair.
    Watched,
    /// The same, and one of them lies.
    Betrayed,
    /// Private links are made, and read.
    Linked,
}

/// Every bug, how its kind is called, and within how many seeds it must be found.
pub const ALL: [(Bug, &str, u64); 14] = [
    (Bug::RowsForgotten, "rows-forgotten", 20),
    (Bug::ReceiptsBeforeSync, "receipts-before-sync", 20),
    (Bug::AuditsPass, "audits-pass", 20),
    (Bug::GhostsAnswer, "ghosts-answer", 20),
    (Bug::Restless, "restless", 20),
    (Bug::ReleasesLost, "releases-lost", 20),
    (Bug::TagsHidden, "tags-hidden", 20),
    (Bug::Livelock, "livelock", 20),
    (Bug::NeverReads, "never-reads", 20),
    (Bug::FellowsUnheard, "fellows-unheard", 20),
    (Bug::WatchersMisled, "watchers-misled", 20),
    (Bug::LogsLost, "logs-lost", 20),
    (Bug::PermitsRelease, "permits-release", 20),
    (Bug::SharesStale, "shares-stale", 20),
];

/// By name.
pub fn named(name: &str) -> Option<Bug> {
    ALL.iter().find(|(_, known, _)| *known == name).map(|(bug, ..)| *bug)
}
