//! What fs/SEMANTICS.md promises, seen by a program on a mounted directory. Each check has an empty folder.
//!
//! A check says what it found by its error; one that cannot run here prints `skipped: WHY` and succeeds.

mod access;
mod contents;
mod holes;
mod kit;
mod names;
mod odd_calls;
mod patterns;
mod set_ids;
mod times;
mod tools;

use std::path::Path;

use anyhow::Result;

pub struct Check {
    pub name: &'static str,
    pub needs_root: bool,
    pub only_full: bool,
    pub run: fn(&Path) -> Result<()>,
}

const fn check(name: &'static str, run: fn(&Path) -> Result<()>) -> Check {
    Check { name, needs_root: false, only_full: false, run }
}

const fn as_root(name: &'static str, run: fn(&Path) -> Result<()>) -> Check {
    Check { name, needs_root: true, only_full: false, run }
}

const fn long(name: &'static str, run: fn(&Path) -> Result<()>) -> Check {
    Check { name, needs_root: false, only_full: true, run }
}

pub const ALL: &[Check] = &[
    check("names_of_any_bytes", names::names_of_any_bytes),
    long("links_count_and_stop_at_the_limit", names::links),
    check("renames_keep_the_rules", names::renames),
    check("rename_flags", names::rename_flags),
    check("a_replaced_name_is_never_missing", names::never_missing),
    check("a_listing_survives_changes", names::listing),
    check("a_removed_directory_stays_a_directory", names::removed_directory),
    check("symbolic_links", names::symlinks),
    long("a_directory_of_200000_entries", names::large_directory),
    check("an_unlinked_file_is_whole_while_open", contents::unlinked),
    check("a_replaced_file_is_whole_while_open", contents::replaced),
    check("appends_do_not_overwrite", contents::appends),
    check("mapped_pages_are_the_file", contents::mapped),
    check("direct_and_cached_io_agree", contents::direct),
    check("truncation_leaves_zeros", contents::truncation),
    check("the_largest_offset", contents::largest_offset),
    check("open_flags", contents::open_flags),
    check("dirty_pages_are_data", holes::dirty_pages),
    check("holes_are_found", holes::found),
    check("room_is_made_and_taken", holes::room),
    check("room_shows_while_a_file_is_open", holes::shown),
    check("copies_share", holes::copies),
    as_root("odd_calls_are_answered_as_on_the_native_disk", odd_calls::beside_native),
    check("times_follow_each_call", times::follow),
    check("times_are_kept_as_set", times::kept),
    check("reading_moves_atime_as_relatime_does", times::relatime),
    as_root("setuid_goes_when_a_stranger_writes", access::kill_setuid),
    as_root("setuid_and_setgid_go_as_on_the_native_disk", set_ids::beside_native),
    as_root("setgid_and_sticky_directories", access::directories),
    as_root("setgid_goes_with_a_foreign_group", access::foreign_group),
    as_root("acls_are_obeyed_and_inherited", access::acls),
    as_root("special_files", access::special_files),
    check("extended_attributes", access::xattrs),
    check("locks", access::locks),
    check("changes_are_watched", tools::watched),
    check("statfs_is_plausible", tools::statfs),
    check("programs_run", tools::programs_run),
    check("an_atomic_save_is_atomic", patterns::atomic_save),
    check("fsync_of_anything", patterns::fsync),
    check("sqlite_keeps_its_tables", patterns::sqlite),
    check("git_keeps_its_objects", patterns::git),
];
