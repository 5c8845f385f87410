//! Bytes in and out for rows: little-endian, bounds-checked, total.
//!
//! A decoder never panics and never allocates beyond what it was given.

use super::RowError;

/// Reads fixed-width fields from the front of a row.
pub(crate) struct Reader<'a> {
    rest: &'a [u8],
    what: &'static str,
}

impl<'a> Reader<'a> {
    pub(crate) fn new(what: &'static str, bytes: &'a [u8]) -> Self {
        Self { rest: bytes, what }
    }

    fn corrupt(&self) -> RowError {
        RowError::Corrupt { what: self.what }
    }

    pub(crate) fn take(&mut self, n: usize) -> Result<&'a [u8], RowError> {
        let (head, tail) = self.rest.split_at_checked(n).ok_or_else(|| self.corrupt())?;
        self.rest = tail;
        Ok(head)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], RowError> {
        let corrupt = self.corrupt();
        self.take(N)?.try_into().map_err(|_| corrupt)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, RowError> {
        Ok(u8::from_le_bytes(self.array()?))
    }

    pub(crate) fn u16(&mut self) -> Result<u16, RowError> {
        Ok(u16::from_le_bytes(self.array()?))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, RowError> {
        Ok(u32::from_le_bytes(self.array()?))
    }

    pub(crate) fn u64(&mut self) -> Result<u64, RowError> {
        Ok(u64::from_le_bytes(self.array()?))
    }

    pub(crate) fn i64(&mut self) -> Result<i64, RowError> {
        Ok(i64::from_le_bytes(self.array()?))
    }

    /// The version byte of a row: 1 is ours, anything higher is from a newer Holdfast.
    pub(crate) fn version(&mut self) -> Result<(), RowError> {
        self.version_up_to(super::ROW_VERSION).map(|_| ())
    }

    /// The same of a kind of row that has several.
    pub(crate) fn version_up_to(&mut self, newest: u8) -> Result<u8, RowError> {
        match self.u8()? {
            0 => Err(self.corrupt()),
            found if found > newest => Err(RowError::Newer { what: self.what, found }),
            found => Ok(found),
        }
    }

    pub(crate) fn rest(self) -> &'a [u8] {
        self.rest
    }

    /// Refuses trailing bytes: one value has one encoding.
    pub(crate) fn end(self) -> Result<(), RowError> {
        if self.rest.is_empty() { Ok(()) } else { Err(self.corrupt()) }
    }
}
