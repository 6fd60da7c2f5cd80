//! Files and folders of an index, opened only if they are what they should be, and replaced atomically.
//!
//! An index may come from somebody else, or lie where others can write: in place of any file there may be a
//! link to a file of the user's, a pipe that is never written to, or a file of terabytes.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::path::Path;

/// Opens a file for reading. A link, a pipe, a device or a folder is an error, and is not waited for.
pub(crate) fn open_regular(path: &Path) -> io::Result<File> {
    open_regular_with(OpenOptions::new().read(true), path)
}

/// As [`open_regular`], with options.
pub(crate) fn open_regular_with(options: &mut OpenOptions, path: &Path) -> io::Result<File> {
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::custom_flags(options, libc::O_NOFOLLOW | libc::O_NONBLOCK);
    let not_regular = || io::Error::new(io::ErrorKind::InvalidInput, "not a regular file");
    let file = match options.open(path) {
        #[cfg(unix)]
        Err(error) if [libc::ELOOP, libc::ENXIO].map(Some).contains(&error.raw_os_error()) => {
            return Err(not_regular());
        }
        other => other?,
    };
    if file.metadata()?.is_file() { Ok(file) } else { Err(not_regular()) }
}

/// Reads a file of at most `longest` bytes. A longer one is an error, and is not read.
pub(crate) fn read_small(path: &Path, longest: u64) -> io::Result<Vec<u8>> {
    let file = open_regular(path)?;
    let too_long = |length: u64| {
        let reason = format!("{length} bytes, where at most {longest} are possible");
        io::Error::new(io::ErrorKind::InvalidData, reason)
    };
    let length = file.metadata()?.len();
    if length > longest {
        return Err(too_long(length));
    }
    let mut bytes = Vec::new();
    file.take(longest + 1).read_to_end(&mut bytes)?;
    // It may have grown.
    if bytes.len() as u64 > longest { Err(too_long(bytes.len() as u64)) } else { Ok(bytes) }
}

/// Checks that a path is a folder, and not a link to one.
pub(crate) fn check_folder(path: &Path) -> io::Result<()> {
    if fs::symlink_metadata(path)?.is_dir() {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::NotADirectory, "not a folder"))
}

/// Makes the entries of a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> io::Result<()> {
    // Windows cannot open a folder as a file; NTFS journals its entries.
    if cfg!(windows) { Ok(()) } else { File::open(folder)?.sync_all() }
}

/// Creates a folder and what is missing above it, durably.
pub(crate) fn create_folders(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        create_folders(parent)?;
        match fs::create_dir(path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => {}
            other => other?,
        }
        return sync_folder(parent);
    }
    fs::create_dir(path)
}

/// Replaces a small file durably and atomically.
pub(crate) fn replace(folder: &Path, name: &str, bytes: &[u8]) -> io::Result<()> {
    let unfinished = folder.join(format!("{name}.unfinished"));
    // Left by a crash. If it is a link, the link goes; what it points to is never opened.
    match fs::remove_file(&unfinished) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let mut file = File::create_new(&unfinished)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(unfinished, folder.join(name))?;
    sync_folder(folder)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Catches a replaced file that goes through a link to a file outside, or trips over what a crash left.
    #[test]
    fn replace_takes_the_place_of_what_a_crash_or_an_enemy_left() {
        let folder = tempfile::tempdir().unwrap();
        let victim = folder.path().join("victim");
        fs::write(&victim, b"mine").unwrap();
        fs::write(folder.path().join("A.unfinished"), b"half").unwrap();
        replace(folder.path(), "A", b"one").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(&victim, folder.path().join("A.unfinished")).unwrap();
        replace(folder.path(), "A", b"two").unwrap();
        assert_eq!(read_small(&folder.path().join("A"), 3).unwrap(), b"two");
        assert_eq!(fs::read(&victim).unwrap(), b"mine");
        assert!(!folder.path().join("A.unfinished").exists());
        assert_eq!(read_small(&victim, 3).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    /// Catches a file of terabytes that is read, or whose length memory is taken for, before it is refused.
    #[test]
    fn read_small_looks_at_the_length_first() {
        let folder = tempfile::tempdir().unwrap();
        let giant = folder.path().join("giant");
        File::create(&giant).unwrap().set_len(1 << 40).unwrap();
        let error = read_small(&giant, 20).unwrap_err();
        assert_eq!(
            (error.kind(), error.to_string().contains("1099511627776")),
            (io::ErrorKind::InvalidData, true)
        );
    }

    /// Catches a link that is followed, and a pipe that is waited for.
    #[cfg(unix)]
    #[test]
    fn open_regular_takes_files_only() {
        let folder = tempfile::tempdir().unwrap();
        let (file, link, pipe) = (folder.path().join("f"), folder.path().join("l"), folder.path().join("p"));
        fs::write(&file, b"x").unwrap();
        std::os::unix::fs::symlink(&file, &link).unwrap();
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success() && open_regular(&file).is_ok());
        for path in [&link, &pipe, &folder.path().to_owned()] {
            assert_eq!(open_regular(path).unwrap_err().kind(), io::ErrorKind::InvalidInput, "{path:?}");
        }
        assert_eq!(open_regular(&folder.path().join("none")).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    /// Catches an index whose new parent folders a power cut takes away, as only the last was synced: each must
    /// be created from above, where its entry can be synced. (`tests/torture` looks at the syncs.)
    #[test]
    fn create_folders_creates_all_that_is_missing() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("a/b/c");
        create_folders(&deep).unwrap();
        create_folders(&deep).unwrap();
        assert!(deep.is_dir());
        fs::write(folder.path().join("file"), b"").unwrap();
        assert!(create_folders(&folder.path().join("file/x")).is_err());
    }
}
