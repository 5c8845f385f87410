//! Progress of long commands, on standard error: a bar on a terminal, a line now and then elsewhere.

use std::{
    io::IsTerminal,
    time::{Duration, Instant},
};

use indicatif::{ProgressBar, ProgressStyle};

use crate::control::{ProgressLine, render::size};

/// Into a log or a pipe a line goes this often.
const LINE_INTERVAL: Duration = Duration::from_secs(10);

/// Shows `ProgressLine`s until it is dropped.
pub struct Progress {
    bar: Option<ProgressBar>,
    last: Option<(Instant, String)>,
    quiet: bool,
    phase: String,
}

impl Progress {
    /// `quiet`: for programs that read the output (`--json`).
    pub fn new(quiet: bool) -> Progress {
        let bar = (!quiet && std::io::stderr().is_terminal()).then(|| {
            let bar = ProgressBar::new_spinner();
            bar.enable_steady_tick(Duration::from_millis(150));
            bar
        });
        Progress { bar, last: None, quiet, phase: String::new() }
    }

    pub fn show(&mut self, line: ProgressLine) {
        if self.quiet {
            return;
        }
        match &self.bar {
            Some(bar) => {
                if line.phase != self.phase {
                    bar.set_style(style(&line));
                    self.phase.clone_from(&line.phase);
                }
                if line.total > 0 {
                    bar.set_length(line.total);
                    bar.set_position(line.done.min(line.total));
                }
                let note = line.note.map_or_else(String::new, |n| format!(" ({n})"));
                bar.set_message(format!("{}{note}", line.phase));
            }
            None => {
                let text = words(&line);
                let due = match &self.last {
                    None => true,
                    Some((at, last)) => at.elapsed() >= LINE_INTERVAL && *last != text,
                };
                if due {
                    eprintln!("{text}");
                    self.last = Some((Instant::now(), text));
                }
            }
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

fn style(line: &ProgressLine) -> ProgressStyle {
    let template = match (line.total, line.unit.as_str()) {
        (0, _) => "{spinner} {msg}",
        (_, "bytes") => "{msg:24} [{bar:30}] {bytes}/{total_bytes} {binary_bytes_per_sec} {eta}",
        _ => "{msg:24} [{bar:30}] {pos}/{len} {eta}",
    };
    ProgressStyle::with_template(template)
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

fn words(line: &ProgressLine) -> String {
    let amount = match (line.total, line.unit.as_str()) {
        (0, _) => String::new(),
        (_, "bytes") => format!(": {} of {}", size(line.done), size(line.total)),
        (_, unit) => format!(": {} of {} {unit}", line.done, line.total),
    };
    let note = line.note.as_ref().map_or_else(String::new, |n| format!(" ({n})"));
    format!("{}{amount}{note}", line.phase)
}
