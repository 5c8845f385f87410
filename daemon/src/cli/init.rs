//! `holdfast init`: words, passphrase, home.

use std::path::{Path, PathBuf};

use serde_json::json;

use super::{
    Cli, Exit, Failure, Outcome,
    args::{InitArgs, Switch},
    print,
    provider::few_enough,
};
use crate::{
    home::{Config, Home, Passphrase, Policy, ProviderAddr, passphrase::write_secrets},
    local_network,
};

pub fn run(cli: &Cli, args: &InitArgs) -> Outcome {
    let path = cli.home_path();
    // Refusals come before anything is drawn or asked.
    Home::check_free(&path)?;
    if let Some(secrets) = &args.secrets {
        check_secrets_path(secrets, &path)?;
    } else if cli.json {
        return Err(Failure::new(Exit::Usage, "with --json the words go to a file: --secrets FILE"));
    }
    let mut config = Config::new(String::new());
    config.policy =
        Policy { survive_losses: args.survive, stripe_data_max: args.stripe, ..Policy::default() };
    config.discovery.mdns = args.mdns == Switch::On;
    ProviderAddr::merge(&mut config.providers, args.providers.iter().cloned());
    if let Some(dir) = &args.local_network {
        ProviderAddr::merge(&mut config.providers, local_network::addresses(dir)?);
    }
    few_enough(&config.providers)?;
    let file = args.passphrase.passphrase_file.as_deref();
    let passphrase = match (&args.secrets, Passphrase::from_files(file)?) {
        (_, Some(given)) => given,
        (Some(_), None) => Passphrase::random()?,
        (None, None) => Passphrase::obtain_new(None)?,
    };
    let mut kept = false;
    let made = Home::init(&path, &passphrase, config, |drive, words| match &args.secrets {
        Some(secrets) => {
            write_secrets(secrets, &drive.to_string(), &words.phrase(), &passphrase).map(|()| kept = true)
        }
        None => Ok(()),
    });
    let (home, words) = made.inspect_err(|_| {
        if let Some(secrets) = args.secrets.as_ref().filter(|_| kept) {
            // Words of a drive that never was.
            let _ = std::fs::remove_file(secrets);
        }
    })?;
    let (drive, phrase) = (home.config().drive.clone(), words.phrase());
    let have = home.config().providers.len();
    let wanted = usize::from(home.config().policy.copies_wanted());
    let report = json!({
        "drive": drive, "home": home.path(), "secrets": args.secrets, "providers": home.config().providers,
        "copies_wanted": wanted,
    });
    let mut text = format!("Made the drive {drive}\nin {}.\n\n", home.path().display());
    match &args.secrets {
        Some(secrets) => text += &format!("Its words and passphrase are in {}.\n", secrets.display()),
        None => text += &words_page(&phrase),
    }
    text += "The words alone bring everything back on any machine. Whoever has them owns the drive; without them and \
             without this machine nobody can read it, ever. Keep them on paper, not here.\n\n";
    if have < wanted {
        text += &format!(
            "It has {have} of the {wanted} providers that it needs: `holdfast provider add ADDRESS`, or for a trial \
             `holdfast local-network start --dir DIR`.\n"
        );
    }
    text += "Next: holdfast mount ~/Holdfast\n";
    print(cli.json, &report, &text)
}

/// Four to a line, numbered, as people copy them to paper.
fn words_page(phrase: &str) -> String {
    let words: Vec<&str> = phrase.split(' ').collect();
    let mut page = String::from("Write down these 24 words, now. They are not shown again.\n\n");
    for (row, four) in words.chunks(4).enumerate() {
        for (column, word) in four.iter().enumerate() {
            page += &format!("  {:>2}. {word:<10}", row * 4 + column + 1);
        }
        page.push('\n');
    }
    page.push('\n');
    page
}

fn check_secrets_path(secrets: &Path, home: &Path) -> Outcome {
    if secrets.exists() {
        return Err(Failure::new(Exit::Usage, format!("{} exists already", secrets.display())).hint(
            "It may be the only copy of another drive's words, so it is not overwritten. Name a new file.",
        ));
    }
    let secrets = real_path(secrets).map_err(Failure::internal)?;
    if secrets.starts_with(real_path(home).map_err(Failure::internal)?) {
        return Err(Failure::new(Exit::Usage, "the words must not lie in the home folder that they protect")
            .hint("Name a file elsewhere, best on another disk."));
    }
    Ok(())
}

/// Where a path that need not exist leads: what exists of it without links, `.` and `..`.
fn real_path(path: &Path) -> std::io::Result<PathBuf> {
    let mut path = std::path::absolute(path)?;
    let mut missing = Vec::new();
    loop {
        match path.canonicalize() {
            Ok(real) => return Ok(missing.iter().rev().fold(real, |real, name| real.join(name))),
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => return Err(error),
            Err(error) => match (path.file_name().map(ToOwned::to_owned), path.pop()) {
                (Some(name), true) => missing.push(name),
                // What does not exist has no parent either.
                _ => return Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[allow(clippy::unwrap_used)]
    fn words_never_lie_below_the_home_by_whatever_path() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("home");
        std::fs::create_dir(&home).unwrap();
        std::os::unix::fs::symlink(&home, dir.path().join("link")).unwrap();
        for inside in ["home/words", "home/new/words", "link/words", "link/../home/words", "home/./words"] {
            assert!(check_secrets_path(&dir.path().join(inside), &home).is_err(), "{inside}");
            assert!(
                check_secrets_path(&dir.path().join(inside), &dir.path().join("link")).is_err(),
                "{inside}"
            );
        }
        for outside in ["words", "new/words", "homework"] {
            assert!(check_secrets_path(&dir.path().join(outside), &home).is_ok(), "{outside}");
        }
    }
}
