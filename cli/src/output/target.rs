//! Where output goes: standard output, or a file that appears only when it is complete.

use std::{
    io::{self, BufWriter, Write},
    path::{Path, PathBuf},
};

use conun_types::{Error, Result};

/// Standard output or a file in the making.
pub(crate) enum Target {
    /// Standard output.
    Stdout(BufWriter<io::Stdout>),
    /// A pipe or device, such as `/dev/null`: it cannot be replaced, only written to.
    Device(BufWriter<std::fs::File>),
    /// A file beside its final place, renamed to it at the end.
    File { writer: BufWriter<tempfile::NamedTempFile>, path: PathBuf },
    /// Bytes in memory, for tests.
    #[cfg(test)]
    Memory(std::sync::Arc<std::sync::Mutex<Vec<u8>>>),
}

impl Target {
    /// Standard output.
    pub(crate) fn stdout() -> Self {
        Self::Stdout(BufWriter::with_capacity(1 << 16, io::stdout()))
    }

    /// The file `path`; it is created or replaced when the output is complete, and untouched otherwise.
    pub(crate) fn file(path: &Path) -> Result<Self> {
        let name = |e: io::Error| Error::from(e).context(format!("cannot write {}", path.display()));
        if path.is_dir() {
            return Err(Error::usage(format!("cannot write {}: it is a folder", path.display())));
        }
        if std::fs::metadata(path).is_ok_and(|m| !m.is_file()) {
            let file = std::fs::OpenOptions::new().write(true).open(path).map_err(name)?;
            return Ok(Self::Device(BufWriter::with_capacity(1 << 16, file)));
        }
        let dir = path.parent().filter(|p| !p.as_os_str().is_empty()).unwrap_or(Path::new("."));
        let temporary = tempfile::Builder::new().prefix(".conun-").tempfile_in(dir).map_err(name)?;
        Ok(Self::File { writer: BufWriter::with_capacity(1 << 16, temporary), path: path.to_owned() })
    }

    /// Flushes; moves a file to its place.
    pub(crate) fn complete(self) -> Result<()> {
        match self {
            Self::Stdout(mut out) => out.flush().or_else(closed_pipe).map_err(Error::from),
            Self::Device(mut out) => out.flush().map_err(Error::from),
            Self::File { writer, path } => {
                persist(writer, &path).map_err(|e| Error::from(e).context(format!("cannot write {}", path.display())))
            }
            #[cfg(test)]
            Self::Memory(_) => Ok(()),
        }
    }
}

fn persist(writer: BufWriter<tempfile::NamedTempFile>, path: &Path) -> io::Result<()> {
    let file = writer.into_inner().map_err(io::IntoInnerError::into_error)?;
    default_mode(file.as_file())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    Ok(())
}

/// Temporary files are private; results get the mode that a plain file would have had under the usual umask.
fn default_mode(file: &std::fs::File) -> io::Result<()> {
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        file.set_permissions(std::fs::Permissions::from_mode(0o644))?;
    }
    let _ = file;
    Ok(())
}

/// A reader that had enough (`conun sql … | head`) is no failure: there is nobody left to tell.
fn closed_pipe<T>(error: io::Error) -> io::Result<T> {
    if error.kind() == io::ErrorKind::BrokenPipe {
        std::process::exit(0);
    }
    Err(error)
}

impl Write for Target {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Stdout(out) => out.write(bytes).or_else(closed_pipe),
            Self::Device(out) => out.write(bytes),
            Self::File { writer, .. } => writer.write(bytes),
            #[cfg(test)]
            Self::Memory(out) => {
                out.lock().map_err(|_| io::Error::other("poisoned"))?.extend_from_slice(bytes);
                Ok(bytes.len())
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Stdout(out) => out.flush().or_else(closed_pipe),
            Self::Device(out) => out.flush(),
            Self::File { writer, .. } => writer.flush(),
            #[cfg(test)]
            Self::Memory(_) => Ok(()),
        }
    }
}
