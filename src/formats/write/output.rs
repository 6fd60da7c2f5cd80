//! A file that gets its name when it is whole.

use std::fs::File;
use std::io::{self, Seek as _, Write as _};
use std::path::{Path, PathBuf};

use tempfile::NamedTempFile;

use crate::files::sync_folder;
use crate::formats::FormatError;

/// A file under a temporary name in the folder of its path; for `-`, one whose bytes go to standard output.
pub(super) struct Output {
    path: PathBuf,
    file: NamedTempFile,
}

impl Output {
    pub(super) fn create(path: &Path) -> Result<Self, FormatError> {
        let fails = |source| FormatError::Io { path: path.to_owned(), operation: "create", source };
        let mut name = std::ffi::OsString::from(".");
        name.push(path.file_name().unwrap_or_default());
        name.push(".");
        let mut builder = tempfile::Builder::new();
        builder.prefix(&name).suffix(".unfinished");
        let file = if path == Path::new("-") {
            tempfile::Builder::new().tempfile()
        } else {
            #[cfg(unix)]
            builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o666));
            builder.tempfile_in(folder_of(path))
        };
        Ok(Self { path: path.to_owned(), file: file.map_err(fails)? })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    pub(super) fn file(&mut self) -> &mut File {
        self.file.as_file_mut()
    }

    /// The folder where what is needed until the end may lie too.
    pub(super) fn folder(&self) -> PathBuf {
        self.file.path().parent().map(Path::to_owned).unwrap_or_default()
    }

    pub(super) fn write(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        let written = self.file.as_file_mut().write_all(bytes);
        written.map_err(|source| self.fails("write", source))
    }

    pub(super) fn fails(&self, operation: &'static str, source: io::Error) -> FormatError {
        FormatError::Io { path: self.path.clone(), operation, source }
    }

    /// Syncs the file and gives it its name, or copies it to standard output.
    pub(super) fn finish(mut self) -> Result<(), FormatError> {
        let path = self.path;
        let fails = |operation, source| FormatError::Io { path: path.clone(), operation, source };
        if path == Path::new("-") {
            let copied = self.file.rewind().and_then(|()| {
                let mut out = io::stdout().lock();
                io::copy(self.file.as_file_mut(), &mut out)?;
                out.flush()
            });
            return copied.map_err(|source| fails("write", source));
        }
        self.file.as_file().sync_all().map_err(|source| fails("sync", source))?;
        self.file.persist(&path).map_err(|error| fails("rename the finished file to", error.error))?;
        sync_folder(&folder_of(&path)).map_err(|source| fails("sync the folder of", source))
    }
}

fn folder_of(path: &Path) -> PathBuf {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new(".")).to_owned()
}
