//! A stranger's search: planted bytes looked for in everything that lies in a folder, raw and in every form that a
//! stranger would think of.
//!
//! Forms: the file's bytes; any zstd frame, zlib or gzip stream that begins anywhere in it, decompressed; text in hex and
//! base64 is covered by searching for the needles in these spellings too.

use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// A decompressed candidate longer than this is cut: no planted needle lies deeper.
const EXPANDED_BYTES_MAX: u64 = 8 << 20;
const ZSTD_MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// What is looked for, with a name for the report.
#[derive(Clone, Debug)]
pub struct Needle {
    pub what: String,
    pub bytes: Vec<u8>,
}

impl Needle {
    /// The bytes as they are, in hex (both cases) and in base64 (the part that does not depend on what stands around).
    pub fn all_spellings(what: &str, bytes: &[u8]) -> Vec<Needle> {
        let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        let mut found = vec![(String::new(), bytes.to_vec())];
        found.push((" in hex".into(), hex.clone().into_bytes()));
        found.push((" in upper hex".into(), hex.to_uppercase().into_bytes()));
        for shift in 0..3 {
            let whole = &bytes[shift.min(bytes.len())..];
            let whole = &whole[..whole.len() / 3 * 3];
            if whole.len() >= 9 {
                found.push((format!(" in base64 from byte {shift}"), base64(whole).into_bytes()));
            }
        }
        found.into_iter().map(|(how, bytes)| Needle { what: format!("{what}{how}"), bytes }).collect()
    }
}

fn base64(bytes: &[u8]) -> String {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut out = String::new();
    for three in bytes.chunks_exact(3) {
        let word = u32::from(three[0]) << 16 | u32::from(three[1]) << 8 | u32::from(three[2]);
        for shift in [18, 12, 6, 0] {
            out.push(ALPHABET[(word >> shift & 63) as usize] as char);
        }
    }
    out
}

/// What a search looked at and found.
#[derive(Clone, Debug, Default)]
pub struct Report {
    pub hits: Vec<String>,
    pub files: u64,
    pub bytes: u64,
    pub expanded: u64,
}

/// Looks for the needles in all files below the folders, and in their names.
pub fn search(folders: &[&Path], needles: &[Needle]) -> io::Result<Report> {
    let mut report = Report::default();
    let mut todo: Vec<PathBuf> = folders.iter().map(|path| path.to_path_buf()).collect();
    while let Some(path) = todo.pop() {
        let meta = path.symlink_metadata()?;
        if let Some(name) = path.file_name() {
            look(name.as_encoded_bytes(), needles, &format!("the name {}", path.display()), &mut report);
        }
        if meta.is_dir() {
            for entry in std::fs::read_dir(&path)? {
                todo.push(entry?.path());
            }
        } else if meta.is_file() {
            let bytes = std::fs::read(&path)?;
            report.files += 1;
            report.bytes += bytes.len() as u64;
            look(&bytes, needles, &path.display().to_string(), &mut report);
            expand(&bytes, needles, &path, &mut report);
        }
    }
    Ok(report)
}

fn look(bytes: &[u8], needles: &[Needle], place: &str, report: &mut Report) {
    for needle in needles {
        if let Some(at) = memchr::memmem::find(bytes, &needle.bytes) {
            report.hits.push(format!("{} at byte {at} of {place}", needle.what));
        }
    }
}

fn expand(bytes: &[u8], needles: &[Needle], path: &Path, report: &mut Report) {
    let mut out = Vec::new();
    for (at, window) in bytes.windows(4).enumerate() {
        let Some(rest) = bytes.get(at..) else { break };
        let form = match window {
            window if window == ZSTD_MAGIC => "zstd",
            [0x1f, 0x8b, 8, _] => "gzip",
            // A zlib header is two bytes whose value is a multiple of 31.
            [0x78, flags, ..] if (0x7800 + u16::from(*flags)) % 31 == 0 => "zlib",
            _ => continue,
        };
        out.clear();
        // An error after some bytes is the end of what is there; those bytes are searched.
        let _ = match form {
            "zstd" => zstd::stream::Decoder::new(rest)
                .and_then(|decoder| decoder.single_frame().take(EXPANDED_BYTES_MAX).read_to_end(&mut out)),
            "gzip" => flate2::read::GzDecoder::new(rest).take(EXPANDED_BYTES_MAX).read_to_end(&mut out),
            _ => flate2::read::ZlibDecoder::new(rest).take(EXPANDED_BYTES_MAX).read_to_end(&mut out),
        };
        if !out.is_empty() {
            report.expanded += 1;
            look(&out, needles, &format!("{form} data at byte {at} of {}", path.display()), report);
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn planted_bytes_are_found_in_every_form() {
        let secret: Vec<u8> = (0..48u8).map(|n| n.wrapping_mul(37) ^ 0x5a).collect();
        let needles = Needle::all_spellings("the secret", &secret);
        let mut plain = vec![7; 1000];
        plain.extend(&secret);
        let hex: String = secret.iter().map(|byte| format!("{byte:02X}")).collect();
        let mut behind = b"some header that is no header".to_vec();
        behind.extend(zstd::encode_all(&plain[..], 3).unwrap());
        behind.extend(b"and a tail");
        for (form, bytes) in [("raw", plain.clone()), ("hex", hex.into_bytes()), ("zstd", behind)] {
            let dir = tempfile::tempdir().unwrap();
            std::fs::write(dir.path().join("file"), bytes).unwrap();
            assert!(!search(&[dir.path()], &needles).unwrap().hits.is_empty(), "{form}");
        }
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("file"), vec![0x5a; 4096]).unwrap();
        let report = search(&[dir.path()], &needles).unwrap();
        assert!(report.hits.is_empty(), "{report:?}");
        assert_eq!((report.files, report.bytes), (1, 4096));
    }

    #[test]
    fn names_are_searched_too() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("my-planted-name.txt"), b"").unwrap();
        let needles = Needle::all_spellings("a name", b"planted-name");
        assert_eq!(search(&[dir.path()], &needles).unwrap().hits.len(), 1);
    }
}
