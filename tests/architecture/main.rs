//! The house rules that no compiler checks: who may import whom, how long a file may be, and that library code takes
//! time and randomness from the handles that it is given.

#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Longer files are split; STYLE aims at 400.
const FILE_LINES_MAX: usize = 600;

/// crate -> the workspace crates that it may depend on, tests included.
const ARROWS: &[(&str, &str, &[&str])] = &[
    ("holdfast-proofs", "proofs", &[]),
    ("holdfast-setup", "proofs/setup", &[]),
    ("holdfast-compressed", "proofs/compressed", &["holdfast-proofs", "holdfast-setup"]),
    ("holdfast-store", "fs/store", &[]),
    ("holdfast-content", "fs/content", &[]),
    ("holdfast-fs", "fs", &["holdfast-store", "holdfast-content"]),
    ("holdfast-net", "net", &["holdfast-proofs"]),
    (
        "holdfast",
        "daemon",
        &[
            "holdfast-store",
            "holdfast-content",
            "holdfast-fs",
            "holdfast-net",
            "holdfast-proofs",
            "holdfast-compressed",
        ],
    ),
    (
        "holdfast-tests",
        "tests",
        &["holdfast", "holdfast-store", "holdfast-content", "holdfast-fs", "holdfast-net", "holdfast-proofs"],
    ),
];

/// Crates that must not reach for the clock, the random source, the environment or the terminal by themselves.
const LIBRARIES: &[&str] =
    &["proofs", "proofs/setup", "proofs/compressed", "fs/store", "fs/content", "fs", "net"];

/// What only the file with the system's implementation of `Clock` or `Rng` may say.
const AMBIENT: &[&str] = &[
    "SystemTime::now(",
    "Instant::now(",
    "getrandom::",
    "thread_rng(",
    "rand::random",
    "OsRng",
    "rand::rng(",
];

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap().to_owned()
}

/// All sources of the crate in `folder`, leaving out crates that lie within it.
fn sources(folder: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    let mut todo = vec![root().join(folder)];
    while let Some(dir) = todo.pop() {
        for entry in std::fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_str().unwrap();
            if path.is_dir() {
                if !path.join("Cargo.toml").exists() && !["target", "node_modules"].contains(&name) {
                    todo.push(path);
                }
            } else if name.ends_with(".rs") {
                found.push(path);
            }
        }
    }
    found
}

fn relative(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

/// The workspace crates named as dependencies of any kind.
fn declared(folder: &str) -> Vec<String> {
    let manifest = std::fs::read_to_string(root().join(folder).join("Cargo.toml")).unwrap();
    let mut section = String::new();
    let mut found = Vec::new();
    for line in manifest.lines().map(str::trim) {
        if let Some(name) = line.strip_prefix('[') {
            section = name.trim_end_matches(']').to_owned();
            if let Some((_, dependency)) = section.split_once("dependencies.") {
                found.push(dependency.to_owned());
            }
        } else if section.ends_with("dependencies")
            && let Some(name) = line.split(['.', '=', ' ']).next()
        {
            found.push(name.trim_matches('"').to_owned());
        }
    }
    found.retain(|name| ARROWS.iter().any(|(known, ..)| known == name));
    found
}

/// Code without comments, strings left in.
fn code(line: &str) -> &str {
    line.split_once("//").map_or(line, |(code, _)| code)
}

/// The lines of a file that are not tests, with their numbers.
fn production_lines(path: &Path) -> Vec<(usize, String)> {
    let name = relative(path);
    if name.contains("/tests/") || name.ends_with("/tests.rs") || name.contains("/benches/") {
        return Vec::new();
    }
    let text = std::fs::read_to_string(path).unwrap();
    let lines = text.lines().enumerate().map(|(n, line)| (n + 1, line.to_owned()));
    lines.take_while(|(_, line)| !line.trim_start().starts_with("#[cfg(test)]")).collect()
}

#[test]
fn crates_depend_only_along_the_arrows() {
    let mut wrong = Vec::new();
    for (name, folder, allowed) in ARROWS {
        for dependency in declared(folder) {
            if !allowed.contains(&dependency.as_str()) {
                wrong.push(format!("{folder}/Cargo.toml: {name} must not depend on {dependency}"));
            }
        }
        for path in sources(folder) {
            for (number, line) in std::fs::read_to_string(&path).unwrap().lines().enumerate() {
                for (other, ..) in
                    ARROWS.iter().filter(|(other, ..)| other != name && !allowed.contains(other))
                {
                    let import = format!("{}::", other.replace('-', "_"));
                    let before = code(line).find(&import).map(|at| code(line)[..at].chars().next_back());
                    // `holdfast::` is also the end of nothing else: a longer identifier before it is another crate.
                    if before.is_some_and(|c| !c.is_some_and(|c| c.is_alphanumeric() || c == '_')) {
                        wrong.push(format!(
                            "{}:{}: {name} must not import {other}",
                            relative(&path),
                            number + 1
                        ));
                    }
                }
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn the_workspace_has_no_other_crates() {
    let manifest = std::fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let members = manifest.lines().find(|line| line.starts_with("members")).unwrap();
    let mut found: Vec<&str> = members.split('"').skip(1).step_by(2).collect();
    let mut known: Vec<&str> = ARROWS.iter().map(|(_, folder, _)| *folder).collect();
    found.sort_unstable();
    known.sort_unstable();
    assert_eq!(found, known, "a new crate needs its place in ARROWS");
}

#[test]
fn no_file_outgrows_its_room() {
    let mut long = BTreeMap::new();
    for (_, folder, _) in ARROWS {
        for path in sources(folder) {
            let lines = std::fs::read_to_string(&path).unwrap().lines().count();
            if lines > FILE_LINES_MAX {
                long.insert(relative(&path), lines);
            }
        }
    }
    assert!(long.is_empty(), "more than {FILE_LINES_MAX} lines: {long:#?}");
}

#[test]
fn libraries_take_time_and_randomness_from_handles() {
    let mut wrong = Vec::new();
    for folder in LIBRARIES {
        for path in sources(folder) {
            let lines = production_lines(&path);
            // Where the system's clock and random source are wrapped, and the edge to the kernel, which says why.
            let wrappers = ["impl Clock for", "impl Rng for", "impl Now for"];
            let wraps = |line: &str| wrappers.iter().any(|wrapper| line.contains(wrapper));
            let says = |line: &str| line.starts_with("#![expect(clippy::disallowed_methods, reason = ");
            if lines.iter().any(|(_, line)| wraps(line) || says(line)) {
                continue;
            }
            // tokio's time can be stopped and turned by a test.
            let turned = lines
                .iter()
                .any(|(_, line)| line.starts_with("use tokio::time::") && line.contains("Instant"));
            for (number, line) in lines {
                let now = if turned { "Instant::now(" } else { "tokio::time::Instant::now(" };
                let of_tokio = code(&line).contains(now);
                if let Some(word) = AMBIENT.iter().find(|word| code(&line).contains(*word) && !of_tokio) {
                    wrong.push(format!("{}:{number}: {word}", relative(&path)));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "use the crate's Clock and Rng instead:\n{}", wrong.join("\n"));
}

#[test]
fn modules_say_what_they_are() {
    let mut wrong = Vec::new();
    for (_, folder, _) in ARROWS {
        for path in sources(folder) {
            let text = std::fs::read_to_string(&path).unwrap();
            let is_test = relative(&path).ends_with("/tests.rs") || relative(&path).contains("/tests/");
            if !is_test && !text.trim_start().starts_with("//!") {
                wrong.push(relative(&path));
            }
        }
    }
    assert!(wrong.is_empty(), "no module documentation at the top:\n{}", wrong.join("\n"));
}

/// Each promise of the file system's page names its test.
#[test]
fn semantics_name_tests_that_exist() {
    let page = std::fs::read_to_string(root().join("fs/SEMANTICS.md")).unwrap();
    let text_of = |folder: &str| {
        sources(folder).iter().map(|path| std::fs::read_to_string(path).unwrap()).collect::<String>()
    };
    let units = ["fs", "fs/store", "fs/content"].map(text_of).concat();
    let suites = text_of("tests");
    let mut wrong = Vec::new();
    for line in page.lines().filter(|line| line.starts_with("| ") && !line.starts_with("| call ")) {
        let cell = line.trim_end_matches('|').rsplit('|').next().unwrap();
        let names: Vec<&str> = cell.split('`').skip(1).step_by(2).collect();
        let exists = |name: &&str| match name.strip_prefix("unit:") {
            Some(unit) => units.contains(&format!("fn {unit}(")),
            None => suites.contains(&format!("\"{name}\"")),
        };
        if names.is_empty() || !names.iter().all(exists) {
            wrong.push(line.to_owned());
        }
    }
    assert!(wrong.is_empty(), "promises without a test:\n{}", wrong.join("\n"));
}
