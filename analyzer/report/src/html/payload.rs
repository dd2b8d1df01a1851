//! The data of a page: a JSON header and binary columns, compressed with deflate.
//!
//! ```text
//! bytes 0..4   length of the header, little-endian
//!       4..    the header: JSON, with `columns: {name: [offset, bytes]}`, offsets from the end of the header
//!       ...    the columns: LEB128 numbers, or doubles (little-endian, not aligned), or bytes
//! ```
//!
//! The page holds a zlib stream in base 64. In the browser, `DecompressionStream("deflate")` decompresses the
//! zlib stream.

use flate2::Compression;
use flate2::write::ZlibEncoder;
use serde_json::{Map, Value, json};
use std::io::{self, Write};

/// The greatest number in the payload. JavaScript has only doubles, and above 2^53 − 1 a double cannot
/// represent all integers. In place of a greater number, the payload stores 2^53 − 1.
const MOST: u64 = (1 << 53) - 1;

/// The columns that were added so far.
#[derive(Default)]
pub(super) struct Payload {
    columns: Map<String, Value>,
    blob: Vec<u8>,
}

impl Payload {
    /// Adds a column of bytes to the payload.
    pub(super) fn bytes(&mut self, name: impl Into<String>, bytes: &[u8]) {
        let offset = self.blob.len();
        self.blob.extend_from_slice(bytes);
        self.columns.insert(name.into(), json!([offset, bytes.len()]));
    }

    /// Adds a column of integers to the payload.
    pub(super) fn numbers(&mut self, name: impl Into<String>, numbers: impl Iterator<Item = u64>) {
        let mut bytes = Vec::new();
        for number in numbers {
            let mut number = number.min(MOST);
            while number >= 0x80 {
                bytes.push(number as u8 | 0x80);
                number >>= 7;
            }
            bytes.push(number as u8);
        }
        self.bytes(name, &bytes);
    }

    /// Adds a column of numbers, some of which may be unknown. The column stores 0 for an unknown number, and
    /// the number plus 1 for any other number.
    pub(super) fn options(&mut self, name: impl Into<String>, numbers: impl Iterator<Item = Option<u64>>) {
        self.numbers(name, numbers.map(|number| number.map_or(0, |number| number.min(MOST - 1) + 1)));
    }

    /// Adds a column of doubles to the payload.
    pub(super) fn doubles(&mut self, name: impl Into<String>, numbers: impl Iterator<Item = f64>) {
        let bytes: Vec<u8> = numbers.flat_map(f64::to_le_bytes).collect();
        self.bytes(name, &bytes);
    }

    /// Joins the header and the columns, and compresses the result with deflate.
    pub(super) fn deflate(self, mut header: Map<String, Value>) -> io::Result<Vec<u8>> {
        header.insert("columns".into(), Value::Object(self.columns));
        let header = serde_json::to_vec(&header)?;
        let length = u32::try_from(header.len()).map_err(io::Error::other)?;
        deflated(&[&length.to_le_bytes(), &header, &self.blob])
    }
}

/// Joins byte strings and compresses the result into one zlib stream.
pub(super) fn deflated(parts: &[&[u8]]) -> io::Result<Vec<u8>> {
    let mut out = ZlibEncoder::new(Vec::new(), Compression::new(6));
    parts.iter().try_for_each(|part| out.write_all(part))?;
    out.finish()
}
