//! Files for programs that want one.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

/// A file that is gone when the test is over.
pub(crate) struct TemporaryFile(PathBuf);

/// Where nobody else has anything.
fn unused_path() -> PathBuf {
    static NUMBER: AtomicU32 = AtomicU32::new(0);
    let number = NUMBER.fetch_add(1, Ordering::Relaxed);
    std::env::temp_dir().join(format!("glacier-gateway-it-{}-{number}", std::process::id()))
}

impl TemporaryFile {
    pub(crate) fn new(content: &str) -> Self {
        let path = unused_path();
        fs::write(&path, content).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for TemporaryFile {
    fn drop(&mut self) {
        // What cannot be removed now, the system's own cleaning removes.
        let _ = fs::remove_file(&self.0);
    }
}

/// Files as Kubernetes mounts a secret: each is a symbolic link into `..data`, itself one to a directory that is never
/// written to again. New content comes as another directory, and `..data` is replaced in one step. Gone with the test.
pub(crate) struct MountedSecret {
    directory: PathBuf,
    version: u32,
}

impl MountedSecret {
    pub(crate) fn new(files: &[(&str, &str)]) -> Self {
        let mut secret = Self { directory: unused_path(), version: 0 };
        fs::create_dir(&secret.directory).unwrap();
        secret.replace(files);
        for (name, _) in files {
            symlink(Path::new("..data").join(name), secret.path(name)).unwrap();
        }
        secret
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// All files at once, those that are not given vanish.
    pub(crate) fn replace(&mut self, files: &[(&str, &str)]) {
        self.version += 1;
        let version = format!("..version_{}", self.version);
        let directory = self.directory.join(&version);
        fs::create_dir(&directory).unwrap();
        for (name, content) in files {
            fs::write(directory.join(name), content).unwrap();
        }
        let next = self.directory.join("..data_tmp");
        symlink(version, &next).unwrap();
        fs::rename(next, self.directory.join("..data")).unwrap();
    }

    /// One file in place, as somebody would who knows nothing of links.
    pub(crate) fn overwrite(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
    }
}

impl Drop for MountedSecret {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.directory);
    }
}
