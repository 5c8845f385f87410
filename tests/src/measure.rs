//! Wall time and CPU time of a piece of work, and a table of them.

use std::fmt;
use std::time::Instant;

use anyhow::Result;
use nix::sys::resource::{UsageWho, getrusage};

#[derive(Clone, Copy, Debug, Default)]
pub struct Cost {
    pub wall: f64,
    /// Of this program and the programs that it ran.
    pub cpu_client: f64,
    /// Of the processes that serve the file system.
    pub cpu_server: f64,
}

impl Cost {
    pub fn cpu(&self) -> f64 {
        self.cpu_client + self.cpu_server
    }
}

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} s, CPU {:.3} s", self.wall, self.cpu())
    }
}

pub fn measure(pids: &[u32], work: impl FnOnce() -> Result<()>) -> Result<Cost> {
    let (client, server) = (own_cpu()?, cpu_of(pids));
    let start = Instant::now();
    work()?;
    let wall = start.elapsed().as_secs_f64();
    Ok(Cost { wall, cpu_client: own_cpu()? - client, cpu_server: cpu_of(pids) - server })
}

fn own_cpu() -> Result<f64> {
    let mut total = 0.0;
    for who in [UsageWho::RUSAGE_SELF, UsageWho::RUSAGE_CHILDREN] {
        let usage = getrusage(who)?;
        for time in [usage.user_time(), usage.system_time()] {
            total += time.tv_sec() as f64 + time.tv_usec() as f64 / 1e6;
        }
    }
    Ok(total)
}

/// A process that is gone counts nothing: then the difference is wrong, and plainly so.
fn cpu_of(pids: &[u32]) -> f64 {
    pids.iter().map(|pid| process_cpu(*pid).unwrap_or(0.0)).sum()
}

/// Fields 14 and 15 of /proc/PID/stat, in ticks of 10 ms.
fn process_cpu(pid: u32) -> Option<f64> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    Some(ticks as f64 / 100.0)
}

/// Rows of costs; the first column is what the others are compared with.
pub struct Table {
    columns: Vec<&'static str>,
    rows: Vec<(String, Vec<Cost>)>,
}

impl Table {
    pub fn new(columns: Vec<&'static str>) -> Table {
        Table { columns, rows: Vec::new() }
    }

    pub fn add(&mut self, name: String, costs: Vec<Cost>) {
        self.rows.push((name, costs));
    }
}

impl fmt::Display for Table {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "| up to Staged |")?;
        for name in &self.columns {
            write!(f, " {name}, s (CPU) |")?;
        }
        for name in self.columns.iter().skip(1) {
            write!(f, " {name} / {}, wall (CPU) |", self.columns[0])?;
        }
        writeln!(f)?;
        writeln!(f, "|{}", "---|".repeat(self.columns.len() * 2))?;
        for (name, costs) in &self.rows {
            write!(f, "| {name} |")?;
            for cost in costs {
                write!(f, " {:.2} ({:.2}) |", cost.wall, cost.cpu())?;
            }
            for cost in costs.iter().skip(1) {
                let wall = cost.wall / costs[0].wall.max(1e-6);
                let cpu = cost.cpu() / costs[0].cpu().max(1e-6);
                write!(f, " {wall:.1} ({cpu:.1}) |")?;
            }
            writeln!(f)?;
        }
        Ok(())
    }
}
