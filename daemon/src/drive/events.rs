//! The story of a drive: what happened lately, in words that `holdfast status` shows and the log file keeps.

use std::collections::VecDeque;

use parking_lot::Mutex;

use crate::control::EventReport;

/// Events kept in memory; older ones are in the log file.
const EVENTS_MAX: usize = 50;
/// Part of a text may come from a peer.
const TEXT_CHARS_MAX: usize = 300;

/// How much an event matters to a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// Something went as it should.
    Info,
    /// Something is in the way, and is being dealt with.
    Warning,
    /// Something needs a person.
    Error,
}

/// A bounded list of events.
#[derive(Default)]
pub struct Events {
    list: Mutex<VecDeque<EventReport>>,
}

impl Events {
    /// Adds one; the same text twice in a row is kept once, with the later time.
    pub fn add(&self, at: u64, level: Level, text: impl AsRef<str>) {
        let text: String = text.as_ref().chars().filter(|c| !c.is_control()).take(TEXT_CHARS_MAX).collect();
        let name = match level {
            Level::Info => "info",
            Level::Warning => "warning",
            Level::Error => "error",
        };
        match level {
            Level::Info => tracing::info!("{text}"),
            Level::Warning => tracing::warn!("{text}"),
            Level::Error => tracing::error!("{text}"),
        }
        let mut list = self.list.lock();
        if let Some(last) = list.back_mut()
            && last.text == text
        {
            last.at = at;
            return;
        }
        if list.len() == EVENTS_MAX {
            list.pop_front();
        }
        list.push_back(EventReport { at, level: name.to_owned(), text });
    }

    /// Oldest first.
    pub fn list(&self) -> Vec<EventReport> {
        self.list.lock().iter().cloned().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounded_without_echoes_and_without_control_characters() {
        let events = Events::default();
        for n in 0..200 {
            events.add(n, Level::Info, format!("piece {n}\n"));
            events.add(n + 1, Level::Info, format!("piece {n}"));
        }
        let list = events.list();
        assert_eq!(list.len(), EVENTS_MAX);
        assert_eq!(list.last().map(|e| (e.at, e.text.as_str())), Some((200, "piece 199")));
    }
}
