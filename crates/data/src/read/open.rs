//! Files told apart by their first bytes, not by their names, and decompressed.

use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::Path;

use flate2::bufread::MultiGzDecoder;

use crate::error::{Error, Result};

/// Bytes read at once.
const BUFFER: usize = 1 << 18;

/// What a file holds.
pub(crate) enum Content {
    /// One object a line.
    Lines(Input),
    /// One list of objects.
    Array(Input),
    /// Parquet.
    Parquet(File),
}

/// Decompressed text, behind a byte order mark if there is one.
pub(crate) type Input = Box<dyn BufRead + Send>;

/// Kinds of files that are met but not read.
const OTHERS: [(&[u8], &str); 6] = [
    (b"PK\x03\x04", "a zip archive"),
    (b"\xfd7zXZ\0", "compressed by xz"),
    (b"BZh", "compressed by bzip2"),
    (b"ARROW1", "an Arrow file"),
    (b"\xff\xff\xff\xff", "an Arrow stream"),
    (b"PARE", "encrypted Parquet"),
];

/// Opens a file and looks what it holds.
pub(crate) fn open(path: &Path) -> Result<Content> {
    let file = File::open(path).map_err(Error::io(path))?;
    let mut reader = BufReader::with_capacity(BUFFER, file);
    let start = reader.fill_buf().map_err(Error::io(path))?;
    if start.starts_with(b"PAR1") {
        return Ok(Content::Parquet(reader.into_inner()));
    }
    if let Some((_, found)) = OTHERS.iter().find(|(mark, _)| start.starts_with(mark)) {
        return Err(unsupported(path, found));
    }
    let input: Input = if start.starts_with(&[0x1f, 0x8b]) {
        Box::new(BufReader::with_capacity(BUFFER, MultiGzDecoder::new(reader)))
    } else if start.starts_with(&[0x28, 0xb5, 0x2f, 0xfd]) {
        let decoder = zstd::Decoder::with_buffer(reader).map_err(Error::io(path))?;
        Box::new(BufReader::with_capacity(BUFFER, decoder))
    } else {
        Box::new(reader)
    };
    text(input, path)
}

fn text(mut input: Input, path: &Path) -> Result<Content> {
    // A failure to decompress is met again, and reported with its line, when rows are read.
    let start = input.fill_buf().unwrap_or_default();
    let mark = start.starts_with(b"\xef\xbb\xbf");
    for (bytes, found) in
        [(b"\xff\xfe", "UTF-16, little-endian"), (b"\xfe\xff", "UTF-16, big-endian")]
    {
        if start.starts_with(bytes) {
            return Err(unsupported(path, found));
        }
    }
    let text = if mark { &start[3..] } else { start };
    let list = text.iter().find(|byte| !byte.is_ascii_whitespace()) == Some(&b'[');
    if mark {
        input.consume(3);
    }
    Ok(if list { Content::Array(input) } else { Content::Lines(input) })
}

fn unsupported(path: &Path, found: &str) -> Error {
    Error::Unsupported {
        path: path.to_owned(),
        what: "the file".into(),
        found: found.into(),
        expected: "UTF-8 JSON (lines or one list), plain, gzip or zstd, or Parquet",
    }
}
