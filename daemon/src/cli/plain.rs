//! The commands about public data on this machine's disk: `export`, `import`.

use super::{
    Cli, Exit, Failure, Outcome,
    args::{ExportArgs, ImportArgs},
    print,
};
use crate::{
    control::{ProgressLine, render::size},
    plain::{
        TreeError,
        add::AddOptions,
        car::{export as export_car, import as import_car},
    },
    progress::Progress,
};
use holdfast_content::plain::{PlainError, car::CarFileError};

pub fn export(cli: &Cli, args: &ExportArgs) -> Outcome {
    let options = AddOptions { profile: args.add.profile, hidden: args.add.hidden, avoid: None };
    let mut progress = Progress::new(cli.json);
    let report = export_car(&args.path, &args.car, options, &mut telling(&mut progress, "exporting"))?;
    drop(progress);
    print(cli.json, &report, &report.render())
}

pub fn import(cli: &Cli, args: &ImportArgs) -> Outcome {
    let mut progress = Progress::new(cli.json);
    let report = import_car(&args.car, &args.path, args.root, &mut telling(&mut progress, "importing"))?;
    drop(progress);
    print(cli.json, &report, &report.render())
}

/// Shows how many bytes are done, now and then.
pub(super) fn telling<'a>(progress: &'a mut Progress, phase: &'static str) -> impl FnMut(u64) + 'a {
    /// A line for each MiB is enough for any terminal.
    const STEP_BYTES: u64 = 1 << 20;
    let mut next = 0;
    move |done| {
        // A second phase counts from the beginning.
        if done >= next || done.saturating_add(2 * STEP_BYTES) < next {
            next = done.saturating_add(STEP_BYTES);
            let note = Some(size(done));
            progress.show(ProgressLine { phase: phase.to_owned(), note, ..ProgressLine::default() });
        }
    }
}

impl From<TreeError> for Failure {
    fn from(error: TreeError) -> Failure {
        let message = error.to_string();
        match &error {
            TreeError::Exists(_) => {
                Failure::new(Exit::Usage, message).hint("Name one that is not there yet.")
            }
            TreeError::Busy(_) => Failure::new(Exit::Usage, message).hint("Wait for it, or write elsewhere."),
            TreeError::Foreign(_) => Failure::new(Exit::Usage, message).hint("Write elsewhere."),
            TreeError::Special(_) => Failure::new(Exit::Failed, message)
                .hint("IPFS knows files, folders and links. Nothing was written."),
            TreeError::NotUtf8(_) => {
                Failure::new(Exit::Failed, message).hint("Rename it. Nothing was written.")
            }
            TreeError::Itself(_) | TreeError::Roots { .. } => Failure::new(Exit::Usage, message),
            TreeError::Car { source: CarFileError::Version(_), .. } => {
                Failure::new(Exit::NewerFormat, message)
            }
            TreeError::Car {
                source: CarFileError::Malformed { .. } | CarFileError::Damaged { .. }, ..
            }
            | TreeError::Dag {
                source:
                    PlainError::Missing(_)
                    | PlainError::Block(_)
                    | PlainError::Malformed { .. }
                    | PlainError::Name(_)
                    | PlainError::Limit { .. },
                ..
            }
            | TreeError::Limit { .. } => Failure::new(Exit::Damage, message).hint("Nothing was written."),
            _ => anyhow::Error::from(error).into(),
        }
    }
}
