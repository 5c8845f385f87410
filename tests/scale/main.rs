//! What a drive costs as it grows: the same work at 10,000, 100,000 and a million files, and a file of 1 TiB.
//!
//! ```text
//! scale [--dir DIR] [--sizes 10000,100000,1000000] [--write]
//! ```
//!
//! `--write` puts the tables between the marks of fs/SCALE.md and the picture beside it. Each size has a drive of its own, without providers: a commit is
//! sealed and packed on this disk. Wall time per file tells what a person waits; the daemon's CPU time per file is the steadier figure on a busy machine.

mod work;

use std::fmt::Write as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result};
use clap::Parser;
use holdfast_tests::harness::{Context, clean_up};
use holdfast_tests::plot::{Axis, Chart};

use work::{Figures, Sparse};

#[derive(Parser)]
#[command(about = "Measures what a drive costs as it grows")]
struct Args {
    /// Work in this folder [default: the build folder]
    #[arg(long)]
    dir: Option<PathBuf>,
    /// Numbers of files
    #[arg(long, value_delimiter = ',', default_value = "10000,100000,1000000")]
    sizes: Vec<u64>,
    /// Places at which the file of 1 TiB is written; 0 leaves it out
    #[arg(long, default_value_t = 100_000)]
    places: u64,
    /// Write tables and picture into the documentation
    #[arg(long)]
    write: bool,
    /// The project's folder of tests
    #[arg(long, default_value = env!("CARGO_MANIFEST_DIR"), hide = true)]
    tests: PathBuf,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let base = match &args.dir {
        Some(dir) => dir.clone(),
        None => std::env::current_exe()?.parent().context("no folder")?.to_owned(),
    };
    let dir = base.join(format!("scale-{}", std::process::id()));
    let ctx = Context::new(&dir, true)?;
    let result = run(&ctx, &args);
    clean_up(&dir);
    // A bare mountpoint is marked unwritable, which stands in the way of removing it.
    let _ = Command::new("chattr").args(["-R", "-i"]).arg(&dir).output();
    std::fs::remove_dir_all(&dir).context("removing the folder")?;
    result
}

fn run(ctx: &Context, args: &Args) -> Result<()> {
    let mut all = Vec::new();
    for size in &args.sizes {
        let figures = work::many_files(ctx, *size)?;
        ctx.note(format!("{size} files: {figures:?}"));
        all.push(figures);
    }
    let sparse = match args.places {
        0 => None,
        places => Some(work::sparse_file(ctx, places)?),
    };
    let table = table(&all, sparse.as_ref());
    println!("{table}");
    if args.write {
        let fs = args.tests.join("../fs");
        let path = fs.join("SCALE.md");
        let text = std::fs::read_to_string(&path).with_context(|| path.display().to_string())?;
        std::fs::write(&path, between_marks(&text, &table).context("fs/SCALE.md lacks its marks")?)?;
        std::fs::write(fs.join("scale.svg"), chart(&all).svg())?;
    }
    Ok(())
}

/// Row by row: what, its unit, its figure at each size, and the last over the first.
fn rows(all: &[Figures]) -> Vec<(&'static str, Vec<f64>)> {
    let names = work::NAMES;
    names
        .iter()
        .enumerate()
        .map(|(nth, name)| (*name, all.iter().map(|figures| figures.values[nth]).collect()))
        .collect()
}

fn table(all: &[Figures], sparse: Option<&Sparse>) -> String {
    let mut out = String::from("| |");
    for figures in all {
        let _ = write!(out, " {} files |", figures.files);
    }
    out.push_str(" largest / smallest |\n|---|");
    out.push_str(&"---:|".repeat(all.len() + 1));
    out.push('\n');
    for (name, values) in rows(all) {
        let _ = write!(out, "| {name} |");
        for value in &values {
            let _ = write!(out, " {} |", figure(*value));
        }
        let ratio = match (values.first(), values.last()) {
            (Some(first), Some(last)) if *first > 0.0 => format!("{:.2}", last / first),
            _ => "-".to_owned(),
        };
        let _ = writeln!(out, " {ratio} |");
    }
    let Some(sparse) = sparse else { return out };
    let _ = write!(
        out,
        "\nA file of 1 TiB, 4 KiB written at {} places: {:.1} µs a write, commit {:.1} s, {:.1} s to read {} of them back after a remount; the daemon's memory was \
         at most {} MiB.\n",
        sparse.places, sparse.write_us, sparse.commit_s, sparse.read_s, sparse.read, sparse.memory_mib
    );
    out
}

fn figure(value: f64) -> String {
    if value >= 100.0 { format!("{value:.0}") } else { format!("{value:.2}") }
}

fn between_marks(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once("<!-- figures -->\n")?;
    let (_, after) = rest.split_once("<!-- end -->")?;
    Some(format!("{before}<!-- figures -->\n{table}<!-- end -->{after}"))
}

/// Cost per file against the number of files, relative to the smallest.
fn chart(all: &[Figures]) -> Chart {
    let per_file = |name: &str| name.contains("a file") || name.contains("an entry");
    let lines = rows(all)
        .into_iter()
        .filter(|(name, _)| per_file(name) && !name.contains("CPU"))
        .map(|(name, values)| {
            let first = values.first().copied().unwrap_or(1.0).max(f64::MIN_POSITIVE);
            let points =
                all.iter().zip(&values).map(|(at, value)| (at.files as f64, value / first)).collect();
            (name.split(',').next().unwrap_or(name).to_owned(), points)
        })
        .collect();
    let sizes: Vec<f64> = all.iter().map(|figures| figures.files as f64).collect();
    let (from, to) = (sizes.first().copied().unwrap_or(1.0), sizes.last().copied().unwrap_or(10.0));
    Chart {
        title: "Cost per file as the drive grows, smallest = 1".to_owned(),
        x: Axis {
            title: "files".to_owned(),
            from,
            to,
            marks: sizes.iter().map(|at| (*at, format!("{at}"))).collect(),
            logarithmic: true,
        },
        y: Axis {
            title: "relative cost".to_owned(),
            from: 0.0,
            to: 3.0,
            marks: [0.5, 1.0, 1.5, 2.0, 2.5].iter().map(|at| (*at, format!("{at}"))).collect(),
            logarithmic: false,
        },
        lines,
    }
}
