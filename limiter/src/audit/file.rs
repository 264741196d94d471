//! A file that is replaced by a new one when it is large enough.

use std::fs::{File, OpenOptions};
use std::io::{self, Read as _, Seek as _, SeekFrom, Write as _};
use std::path::{Path, PathBuf};

use limiter_core::{Error, ErrorKind};

use super::AuditSink;

/// A file of lines. When it would grow beyond its size it becomes `NAME.1`, what was `NAME.1` becomes `NAME.2`, and so on; the oldest
/// ends. Only its owner may read it.
///
/// Lines are in the system's hands when they are written, so a process that is killed loses none of them; they are not forced to
/// the disk, so a machine that loses power may. Half a line, of a process or a disk that ended under way, is closed by the next
/// one.
#[derive(Debug)]
pub struct AuditFile {
    path: PathBuf,
    most: u64,
    keep: usize,
    /// None after it could not be opened anew.
    file: Option<File>,
    size: u64,
    /// Whether the last write may have ended within a line.
    is_torn: bool,
    /// It could not be replaced: at which size that is tried again.
    tried_again_at: u64,
}

impl AuditFile {
    /// Opens a file, or goes on with one that is there. At `most` bytes it is replaced; `keep` old ones are kept.
    ///
    /// # Errors
    /// `Config` if it cannot be opened or written.
    pub fn open(path: impl Into<PathBuf>, most: u64, keep: usize) -> Result<Self, Error> {
        let path = path.into();
        let (file, size, is_torn) = open(&path).map_err(|error| {
            let message = format!(
                "the audit trail cannot be written to {} ({error})",
                path.display()
            );
            Error::new(ErrorKind::Config, "audit.open", message)
        })?;
        Ok(Self {
            path,
            most: most.max(1),
            keep,
            file: Some(file),
            size,
            is_torn,
            tried_again_at: 0,
        })
    }

    /// The file of a number; 0 is the one that is written.
    fn numbered(&self, number: usize) -> PathBuf {
        if number == 0 {
            return self.path.clone();
        }
        let mut name = self.path.clone().into_os_string();
        name.push(format!(".{number}"));
        name.into()
    }

    fn replace(&mut self) -> io::Result<()> {
        self.file = None;
        if self.keep == 0 {
            return match std::fs::remove_file(&self.path) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
                _ => Ok(()),
            };
        }
        for number in (0..self.keep).rev() {
            match std::fs::rename(self.numbered(number), self.numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    }
}

/// Opens for appending; how large it is, and whether it ends within a line.
fn open(path: &Path) -> io::Result<(File, u64, bool)> {
    let mut options = OpenOptions::new();
    options.read(true).append(true).create(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    let size = file.metadata()?.len();
    let mut last = [b'\n'];
    if size > 0 {
        file.seek(SeekFrom::End(-1))?;
        file.read_exact(&mut last)?;
    }
    Ok((file, size, last != *b"\n"))
}

impl AuditSink for AuditFile {
    fn write(&mut self, lines: &[u8]) -> io::Result<()> {
        let length = lines.len() as u64;
        let most = self.most.max(self.tried_again_at);
        if self.file.is_some() && self.size > 0 && self.size + length > most {
            match self.replace() {
                Ok(()) => self.tried_again_at = 0,
                // A file that is too large is better than none.
                Err(error) => {
                    self.tried_again_at = self.size + self.most / 8;
                    tracing::error!(%error, file = %self.path.display(), "the audit trail's file cannot be replaced, and grows");
                }
            }
        }
        let file = match &mut self.file {
            Some(file) => file,
            None => {
                let (file, size, is_torn) = open(&self.path)?;
                (self.size, self.is_torn) = (size, is_torn);
                self.file.insert(file)
            }
        };
        let written = if self.is_torn {
            file.write_all(b"\n").and_then(|()| file.write_all(lines))
        } else {
            file.write_all(lines)
        };
        match written {
            Ok(()) => {
                self.size += length + u64::from(self.is_torn);
                self.is_torn = false;
            }
            // What of it was written is seen when it is opened anew.
            Err(_) => self.file = None,
        }
        written
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_follow_each_other() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        let mut file = AuditFile::open(&path, 20, 2).unwrap();
        for number in 0..10 {
            file.write(format!("line {number}!\n").as_bytes()).unwrap();
        }
        let read = |number| std::fs::read_to_string(file.numbered(number));
        assert_eq!(read(0).unwrap(), "line 8!\nline 9!\n");
        assert_eq!(read(1).unwrap(), "line 6!\nline 7!\n");
        assert_eq!(read(2).unwrap(), "line 4!\nline 5!\n");
        assert!(read(3).is_err());
        // A batch that is larger than a file has one for itself.
        file.write(&[b'x'; 30]).unwrap();
        file.write(b"y\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "y\n");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
    }

    #[test]
    fn half_a_line_is_closed_and_what_is_there_is_kept() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        std::fs::write(&path, "{\"whole\":1}\n{\"half\":").unwrap();
        let mut file = AuditFile::open(&path, 1_000, 2).unwrap();
        file.write(b"{\"next\":1}\n").unwrap();
        file.write(b"{\"last\":1}\n").unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(
            text,
            "{\"whole\":1}\n{\"half\":\n{\"next\":1}\n{\"last\":1}\n"
        );
    }

    /// A directory that is gone fails, and is written again when it is back.
    #[test]
    fn what_cannot_be_written_is_said() {
        let directory = tempfile::tempdir().unwrap();
        let place = directory.path().join("logs");
        assert!(AuditFile::open(place.join("a"), 10, 1).is_err());
        std::fs::create_dir(&place).unwrap();
        let mut file = AuditFile::open(place.join("a"), 10, 1).unwrap();
        file.write(b"12345678\n").unwrap();
        std::fs::remove_dir_all(&place).unwrap();
        assert!(file.write(b"12345678\n").is_err(), "it is to be replaced");
        std::fs::create_dir(&place).unwrap();
        file.write(b"back\n").unwrap();
        assert_eq!(std::fs::read_to_string(place.join("a")).unwrap(), "back\n");
    }

    /// A directory that lets nobody rename in it: the file grows, and nothing is lost.
    #[test]
    fn a_file_that_cannot_be_replaced_grows() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("audit.jsonl");
        // What stands in the way of a rename, for root too.
        std::fs::create_dir_all(directory.path().join("audit.jsonl.1").join("in the way")).unwrap();
        let mut file = AuditFile::open(&path, 20, 1).unwrap();
        for number in 0..10 {
            file.write(format!("line {number}!\n").as_bytes()).unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text.lines().count(), 10, "{text}");
        std::fs::remove_dir_all(directory.path().join("audit.jsonl.1")).unwrap();
        file.write(b"replaced\n").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "replaced\n");
    }
}
