//! `durability`: what the policies are worth at the scale of a public network.
//!
//! `durability --write` puts its tables between the marks in net/DURABILITY.md and its pictures beside it;
//! `durability network` lives through ten years of 10,000 providers. The model, its sources and what it leaves out are on that page.

mod chain;
mod network;
mod page;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use clap::{Parser, Subcommand};

#[derive(Parser)]
#[command(about = "Models the durability of Holdfast's policies")]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
    /// Write tables and pictures into the documentation
    #[arg(long)]
    write: bool,
    /// The project's folder
    #[arg(long, default_value = env!("CARGO_MANIFEST_DIR"))]
    tests: PathBuf,
}

#[derive(Subcommand)]
enum Command {
    /// Ten years of 10,000 providers, event by event
    Network {
        #[arg(long, default_value_t = 1)]
        seed: u64,
    },
}

fn main() -> Result<()> {
    let cli = Cli::parse();
    if let Some(Command::Network { seed }) = cli.command {
        print!("{}", page::network_table(seed));
        return Ok(());
    }
    let tables = page::tables();
    if !cli.write {
        for (name, table) in &tables {
            println!("{name}\n\n{table}");
        }
        return Ok(());
    }
    let net = cli.tests.join("../net");
    let path = net.join("DURABILITY.md");
    let text = std::fs::read_to_string(&path).with_context(|| format!("cannot read {}", path.display()))?;
    let text = tables.iter().try_fold(text, |text, (name, table)| page::replace(&text, name, table))?;
    std::fs::write(&path, text)?;
    std::fs::create_dir_all(net.join("durability"))?;
    for (name, chart) in page::charts() {
        std::fs::write(net.join("durability").join(format!("{name}.svg")), chart.svg())?;
    }
    println!("wrote {}", path.display());
    Ok(())
}
