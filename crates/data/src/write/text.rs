//! JSON lines, plain or compressed.

use std::fmt;
use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Map, Value as Json};

use super::staged::Staged;
use crate::error::{Error, Result};

/// Bytes written at once.
const BUFFER: usize = 1 << 18;

/// The level of zstd's program.
pub(super) const LEVEL: i32 = 3;

pub(super) struct Text {
    encoder: Encoder,
    staged: Staged,
}

enum Encoder {
    Plain(BufWriter<File>),
    Gzip(GzEncoder<BufWriter<File>>),
    Zstd(zstd::Encoder<'static, BufWriter<File>>),
}

impl Encoder {
    fn writer(&mut self) -> &mut dyn Write {
        match self {
            Self::Plain(writer) => writer,
            Self::Gzip(writer) => writer,
            Self::Zstd(writer) => writer,
        }
    }

    fn finish(self) -> io::Result<File> {
        let buffer = match self {
            Self::Plain(writer) => writer,
            Self::Gzip(writer) => writer.finish()?,
            Self::Zstd(writer) => writer.finish()?,
        };
        buffer.into_inner().map_err(io::IntoInnerError::into_error)
    }
}

impl Text {
    pub(super) fn plain(path: &Path) -> Result<Self> {
        Self::new(path, |buffer| Ok(Encoder::Plain(buffer)))
    }

    pub(super) fn gzip(path: &Path) -> Result<Self> {
        Self::new(path, |buffer| Ok(Encoder::Gzip(GzEncoder::new(buffer, Compression::default()))))
    }

    pub(super) fn zstd(path: &Path, level: i32) -> Result<Self> {
        Self::new(path, |buffer| Ok(Encoder::Zstd(zstd::Encoder::new(buffer, level)?)))
    }

    fn new(
        path: &Path,
        encoder: impl FnOnce(BufWriter<File>) -> io::Result<Encoder>,
    ) -> Result<Self> {
        let (staged, file) = Staged::create(path)?;
        let encoder = encoder(BufWriter::with_capacity(BUFFER, file)).map_err(Error::io(path))?;
        Ok(Self { encoder, staged })
    }

    pub(super) fn write(&mut self, object: &Map<String, Json>) -> Result<()> {
        let writer = self.encoder.writer();
        let written = serde_json::to_writer(&mut *writer, object).map_err(io::Error::from);
        let written = written.and_then(|()| writer.write_all(b"\n"));
        written.map_err(Error::io(self.staged.path()))
    }

    pub(super) fn finish(self) -> Result<()> {
        let file = self.encoder.finish().map_err(Error::io(self.staged.path()))?;
        self.staged.commit(&file)
    }

    /// Completes a file that is only read by this process, and never gets its name.
    pub(super) fn into_file(self) -> Result<(Staged, File)> {
        let file = self.encoder.finish().map_err(Error::io(self.staged.path()))?;
        Ok((self.staged, file))
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Text").field(&self.staged).finish()
    }
}
