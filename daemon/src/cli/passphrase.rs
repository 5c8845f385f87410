//! `holdfast passphrase`: another passphrase for the same keys.

use std::path::Path;

use super::{Cli, Exit, Failure, Outcome, args::ChangePassphraseArgs, print};
use crate::home::{Home, Passphrase};

pub fn run(cli: &Cli, args: &ChangePassphraseArgs) -> Outcome {
    let (old, new) = (args.passphrase.passphrase_file.as_deref(), args.new_passphrase_file.as_deref());
    if old == Some(Path::new("-")) && new == Some(Path::new("-")) {
        return Err(Failure::new(
            Exit::Usage,
            "only one of the two passphrases can come from standard input",
        ));
    }
    let home = Home::open(&cli.home_path())?;
    let old = Passphrase::obtain(old)?;
    // A wrong one is said before a new one is asked for.
    home.unlock(&old)?.lock_in_memory();
    let new = Passphrase::obtain_another(new)?;
    home.change_passphrase(&old, &new)?;
    let value = serde_json::json!({"home": home.path(), "changed": true});
    let text = "The passphrase is changed. The old one opens nothing here any more; a copy of this folder that was made \
                before still opens with it.\n";
    print(cli.json, &value, text)
}
