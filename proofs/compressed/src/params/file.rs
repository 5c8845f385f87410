//! Files of parameters: written once under the name of their hash, checked whole before use.

use std::fs::{self, File};
use std::io::{self, BufReader, BufWriter, Read, Write};
use std::path::{Path, PathBuf};

use bellperson::groth16::Parameters;
use blstrs::Bls12;
use sha2::{Digest, Sha256};

use super::{LocalParameters, MARK, ORIGIN_LOCAL, ParamsError, SUITE, VERSION};
use crate::circuit::circuit_size;
use crate::shape::Shape;

const MAGIC: [u8; 4] = *b"HFCP";
const HEADER_LEN: usize = 32;
const HASH_LEN: u64 = 32;
/// Bytes read at once while a file is hashed.
const READ_BYTES: usize = 1 << 20;

/// The first 32 bytes of files and keys.
pub(super) fn header(magic: [u8; 4], shape: Shape) -> [u8; HEADER_LEN] {
    let mut out = [0; HEADER_LEN];
    out[..2].copy_from_slice(&[VERSION, SUITE]);
    out[2..6].copy_from_slice(&magic);
    out[6] = ORIGIN_LOCAL;
    out[7..10].copy_from_slice(&shape.to_bytes());
    out
}

pub(super) fn read_header(magic: [u8; 4], bytes: &[u8; HEADER_LEN]) -> Result<Shape, ParamsError> {
    let [version, suite, found @ ..] = bytes;
    if found[..4] != magic {
        return Err(ParamsError::Header);
    }
    if (*version, *suite) != (VERSION, SUITE) {
        return Err(ParamsError::Newer { version: *version, suite: *suite });
    }
    let shape = Shape::from_bytes([bytes[7], bytes[8], bytes[9]]).ok_or(ParamsError::Header)?;
    if *bytes != header(magic, shape) {
        return Err(ParamsError::Header);
    }
    Ok(shape)
}

/// `holdfast-compressed-v1-d5-c32-LOCAL-<16 bytes of the hash>.params`
fn name(shape: Shape, hash: &[u8; 32]) -> String {
    let hash: String = hash.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    let (depth, draws) = (shape.set_depth(), shape.draws());
    format!("holdfast-compressed-v{VERSION}-d{depth}-c{draws}-LOCAL-{hash}.params")
}

/// Hashes what passes by.
struct Hashing<W> {
    inner: W,
    hash: Sha256,
}

impl<W: Write> Write for Hashing<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let written = self.inner.write(bytes)?;
        self.hash.update(bytes.get(..written).unwrap_or_default());
        Ok(written)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

impl LocalParameters {
    /// Keeps the parameters in a folder, under the name of their hash: written aside, synced, then
    /// renamed, so that no half file ever has the name.
    ///
    /// # Errors
    /// `Io`.
    pub fn store(&self, folder: &Path) -> Result<PathBuf, ParamsError> {
        let aside = folder.join(format!("{}.part", name(self.shape, self.verifying_key().digest())));
        let mut out = Hashing { inner: BufWriter::new(File::create(&aside)?), hash: Sha256::new() };
        out.write_all(&header(MAGIC, self.shape))?;
        out.write_all(&MARK)?;
        self.groth.write(&mut out)?;
        let hash: [u8; 32] = out.hash.finalize().into();
        out.inner.write_all(&hash)?;
        out.inner.into_inner().map_err(io::IntoInnerError::into_error)?.sync_all()?;
        let path = folder.join(name(self.shape, &hash));
        fs::rename(&aside, &path)?;
        File::open(folder)?.sync_all()?;
        Ok(path)
    }

    /// Reads parameters of a shape, after their hash, their name and the lengths of their lists were
    /// checked. The points are not: a wrong one makes proofs that `prove` refuses itself.
    ///
    /// # Errors
    /// `Header`, `Newer`, `Damaged`, `Name`, `OtherCircuit`, `Io`.
    pub fn load(path: &Path, shape: Shape) -> Result<Self, ParamsError> {
        let file = File::open(path)?;
        let len = file.metadata()?.len();
        let body = len.checked_sub(HASH_LEN).ok_or(ParamsError::Header)?;
        let mut start = [0; HEADER_LEN + MARK.len()];
        (&file).read_exact(&mut start).map_err(|_| ParamsError::Header)?;
        let (head, mark) = start.split_first_chunk::<HEADER_LEN>().ok_or(ParamsError::Header)?;
        let found = read_header(MAGIC, head)?;
        if mark != MARK {
            return Err(ParamsError::Header);
        }
        if found != shape {
            return Err(ParamsError::OtherCircuit);
        }
        let hash = hash_of(&File::open(path)?, body)?;
        if path.file_name().and_then(|name| name.to_str()) != Some(&name(shape, &hash)) {
            return Err(ParamsError::Name(name(shape, &hash)));
        }
        let lists = body - start.len() as u64;
        let mut reader = BufReader::with_capacity(READ_BYTES, file).take(lists);
        let groth = Parameters::<Bls12>::read(&mut reader, false)?;
        if reader.limit() != 0 || !fits(&groth, shape)? {
            return Err(ParamsError::OtherCircuit);
        }
        Ok(Self { shape, groth })
    }

    /// The parameters of a shape that a folder holds, if it holds any; the first by name of several.
    ///
    /// # Errors
    /// `Io`.
    pub fn find(folder: &Path, shape: Shape) -> Result<Option<PathBuf>, ParamsError> {
        let stem = name(shape, &[0; 32]);
        let stem = stem.split_once("LOCAL-").map_or("", |(stem, _)| stem);
        let mut found: Vec<PathBuf> =
            fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect::<io::Result<_>>()?;
        found.retain(|path| {
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            name.starts_with(stem) && name.ends_with(".params")
        });
        found.sort();
        Ok(found.into_iter().next())
    }
}

/// The hash of the first `body` bytes, which is the one that follows them.
fn hash_of(file: &File, body: u64) -> Result<[u8; 32], ParamsError> {
    let mut hash = Sha256::new();
    let mut buffer = vec![0; READ_BYTES];
    let mut rest = file.take(body);
    loop {
        let count = rest.read(&mut buffer)?;
        if count == 0 {
            break;
        }
        hash.update(buffer.get(..count).unwrap_or_default());
    }
    let mut carried = [0; HASH_LEN as usize];
    rest.into_inner().read_exact(&mut carried)?;
    let hash: [u8; 32] = hash.finalize().into();
    if hash != carried {
        return Err(ParamsError::Damaged);
    }
    Ok(hash)
}

/// Whether each list is as long as the circuit's, so that no prover reads beyond one.
fn fits(groth: &Parameters<Bls12>, shape: Shape) -> Result<bool, ParamsError> {
    let size = circuit_size(shape)?;
    let found = [groth.vk.ic.len(), groth.h.len(), groth.l.len(), groth.a.len(), groth.b_g1.len()];
    let expected = [size.public_inputs + 1, size.domain() - 1, size.variables, size.left, size.right];
    Ok(found == expected && groth.b_g2.len() == size.right)
}
