//! `-o` options, as FUSE programs take them.

use super::MountError;

/// How to mount.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MountOptions {
    pub read_only: bool,
    /// Other users than the owner of the mount may use it.
    pub allow_other: bool,
    /// Honour setuid bits.
    pub suid: bool,
    /// Honour device files.
    pub dev: bool,
    pub exec: bool,
    pub atime: bool,
    /// Reading a directory moves its atime.
    pub dir_atime: bool,
    /// Every change is on disk when it returns.
    pub sync: bool,
    /// Every change of names is.
    pub dirsync: bool,
    /// The kernel gathers small writes (3.7 times cheaper); off, each write arrives as it is made.
    pub writeback: bool,
    pub max_read: Option<u32>,
    pub fsname: String,
    pub subtype: String,
    /// Threads that read requests; more than cores only costs. `None`: as many as cores.
    pub threads: Option<usize>,
    /// Programs that draw small pictures of files may bring them over the network.
    pub thumbnails: bool,
    /// Those threads follow a program that asks one thing after the other to its CPU.
    pub follow: bool,
}

impl Default for MountOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            allow_other: false,
            suid: false,
            dev: false,
            exec: true,
            atime: true,
            dir_atime: true,
            sync: false,
            dirsync: false,
            writeback: true,
            max_read: None,
            fsname: "holdfast".to_owned(),
            subtype: "holdfast".to_owned(),
            threads: None,
            thumbnails: false,
            follow: true,
        }
    }
}

impl MountOptions {
    /// Applies a comma-separated list; later options win. Nothing is changed by a list with an error.
    pub fn parse(&mut self, list: &str) -> Result<(), MountError> {
        let mut new = self.clone();
        for option in list.split(',').map(str::trim).filter(|option| !option.is_empty()) {
            new.apply(option)?;
        }
        *self = new;
        Ok(())
    }

    fn apply(&mut self, option: &str) -> Result<(), MountError> {
        let bad = |why| MountError::BadOption { option: option.to_owned(), why };
        if let Some((name, value)) = option.split_once('=') {
            match name {
                "fsname" => self.fsname = plain(value).ok_or_else(|| bad("an empty or odd name"))?,
                "subtype" => self.subtype = plain(value).ok_or_else(|| bad("an empty or odd name"))?,
                "max_read" => {
                    let bytes = value.parse::<u32>().map_err(|_| bad("not a number of bytes"))?;
                    self.max_read = Some(bytes).filter(|n| *n >= 4096);
                    self.max_read.ok_or_else(|| bad("less than 4096"))?;
                }
                "threads" => {
                    let n = value.parse::<usize>().map_err(|_| bad("not a number"))?;
                    self.threads = Some(n).filter(|n| (1..=64).contains(n));
                    self.threads.ok_or_else(|| bad("not between 1 and 64"))?;
                }
                // What systemd and user tools put into fstab for themselves.
                _ if name.starts_with("x-") => {}
                _ => return Err(MountError::UnknownOption(option.to_owned())),
            }
            return Ok(());
        }
        match option {
            "rw" => self.read_only = false,
            "ro" => self.read_only = true,
            "allow_other" => self.allow_other = true,
            "suid" => self.suid = true,
            "nosuid" => self.suid = false,
            "dev" => self.dev = true,
            "nodev" => self.dev = false,
            "exec" => self.exec = true,
            "noexec" => self.exec = false,
            // Always relatime: reads that the kernel answers from its cache are not seen here.
            "atime" | "relatime" | "strictatime" | "norelatime" | "nostrictatime" => self.atime = true,
            "noatime" => self.atime = false,
            "diratime" => self.dir_atime = true,
            "nodiratime" => self.dir_atime = false,
            "sync" => self.sync = true,
            "async" => self.sync = false,
            "dirsync" => self.dirsync = true,
            "writeback" | "writeback_cache" => self.writeback = true,
            "follow" => self.follow = true,
            "thumbnails" => self.thumbnails = true,
            "nothumbnails" => self.thumbnails = false,
            "nofollow" => self.follow = false,
            "nowriteback" | "nowriteback_cache" => self.writeback = false,
            // Always so: the kernel checks permissions, its cache is coherent, calls can be interrupted, inode numbers
            // are ours, big requests are the rule, and times are written with the next change.
            "default_permissions"
            | "defaults"
            | "big_writes"
            | "large_read"
            | "nonempty"
            | "kernel_cache"
            | "auto_cache"
            | "intr"
            | "use_ino"
            | "readdir_ino"
            | "lazytime"
            | "nolazytime"
            | "symfollow"
            | "silent"
            | "loud"
            | "nomand"
            | "noiversion" => {}
            // For fstab and its readers, without meaning for a mount that is being made.
            "auto" | "noauto" | "nofail" | "_netdev" | "user" | "users" | "nouser" | "owner" | "group" => {}
            _ if option.starts_with("x-") => {}
            _ => return Err(MountError::UnknownOption(option.to_owned())),
        }
        Ok(())
    }
}

/// A name that stands in a comma-separated list and in /proc/mounts without quoting.
fn plain(value: &str) -> Option<String> {
    let odd = |c: char| c.is_control() || c == ',' || c == '\\';
    (!value.is_empty() && value.len() <= 128 && !value.contains(odd)).then(|| value.to_owned())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]

    use super::*;

    #[test]
    fn options_that_programs_give_are_understood() {
        let mut options = MountOptions::default();
        options
            .parse("allow_other,default_permissions,ro,noatime,suid,dev,max_read=131072,fsname=a b")
            .unwrap();
        assert!(options.allow_other && options.read_only && options.suid && options.dev && !options.atime);
        assert_eq!((options.max_read, options.fsname.as_str()), (Some(131_072), "a b"));
        options.parse("rw,x-systemd.automount,,nosuid,strictatime,nodiratime,lazytime,kernel_cache").unwrap();
        assert!(!options.read_only && !options.suid && options.atime && !options.dir_atime);
    }

    #[test]
    fn unknown_options_are_refused_by_name_and_change_nothing() {
        let mut options = MountOptions::default();
        for list in ["ro,frobnicate", "ro,frobnicate=1", "ro,max_read=x", "ro,max_read=1", "ro,fsname="] {
            let error = options.parse(list).unwrap_err().to_string();
            assert!(error.contains(list.split_once(',').unwrap().1), "{error}");
            assert_eq!(options, MountOptions::default());
        }
    }
}
