//! How a drive reads and places over lines with a length and a rate, beside bare streams over the same lines, and beside Tahoe-LAFS.
//!
//! ```text
//! retrieval [--quick] [--dir DIR] [--tahoe PROGRAM] [PART..]      prints a Markdown table; root only
//! ```
//!
//! Providers and the drive run in network namespaces of their own (`harness::Internet`). Each part is a process and builds its own network; what it
//! prints are rows `| what | figure | beside | ratio |`. Cold means: evicted, and mounted anew.

mod place;
mod read;
mod tahoe;
mod world;

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail, ensure};
use clap::Parser;
use holdfast_tests::harness::{Context, clean_up, wire};
use holdfast_tests::raw;

/// Measures reading and placing over lines with lengths and rates.
#[derive(Parser)]
struct Args {
    /// Only these: lan, four, far, uplink, tahoe.
    parts: Vec<String>,
    /// Work in this folder [default: the build folder]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// A quarter of the bytes.
    #[arg(long)]
    quick: bool,
    /// Tahoe-LAFS's program, from PyPI; without it its rows are left out.
    #[arg(long, default_value = "tahoe")]
    tahoe: PathBuf,
    #[arg(long, hide = true)]
    part: Option<String>,
    #[arg(long, hide = true, value_name = "IP")]
    serve_raw: Option<String>,
    #[arg(long, hide = true, value_name = "IP")]
    serve_tcp: Option<String>,
}

const PARTS: [&str; 5] = ["lan", "four", "far", "uplink", "tahoe"];

fn main() -> Result<()> {
    let args = Args::parse();
    if let Some(ip) = &args.serve_raw {
        return raw::serve(ip);
    }
    if let Some(ip) = &args.serve_tcp {
        return world::serve_tcp(ip);
    }
    let base = match &args.dir {
        Some(dir) => dir.clone(),
        None => std::env::current_exe()?.parent().context("no folder")?.to_owned(),
    };
    if let Some(part) = &args.part {
        return run_part(part, &base, &args);
    }
    let unknown = args.parts.iter().find(|part| !PARTS.contains(&part.as_str()));
    ensure!(unknown.is_none(), "no part is called {}", unknown.map_or("", String::as_str));
    println!("| what | Holdfast | beside it | ratio |\n|---|---|---|---|");
    let mut failed = false;
    for part in PARTS.iter().filter(|part| args.parts.is_empty() || args.parts.iter().any(|p| p == *part)) {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["--part", part]).arg("--dir").arg(&base).arg("--tahoe").arg(&args.tahoe);
        if args.quick {
            command.arg("--quick");
        }
        failed |= !command.env("HOLDFAST_MDNS", "off").status()?.success();
    }
    ensure!(!failed, "a part failed");
    Ok(())
}

fn run_part(part: &str, base: &std::path::Path, args: &Args) -> Result<()> {
    let dir = base.join(format!("retrieval-{}", std::process::id()));
    let ctx = Context::new(&dir, !args.quick)?;
    ensure!(wire::enter_own_network(), "a network of its own takes root");
    let result = match part {
        "lan" => read::beside_a_stream(&ctx),
        "four" => read::from_four(&ctx),
        "far" => read::far_away(&ctx),
        "uplink" => place::up_a_line(&ctx),
        "tahoe" => tahoe::beside(&ctx, &args.tahoe),
        other => bail!("no part is called {other}"),
    };
    clean_up(&dir);
    // A bare mountpoint is marked unwritable, which stands in the way of removing it.
    let _ = Command::new("chattr").args(["-R", "-i"]).arg(&dir).output();
    std::fs::remove_dir_all(&dir).context("removing the folder of the run")?;
    result
}
