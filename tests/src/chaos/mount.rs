//! Small disks of our own: one that fills up, and one that loses power.
//!
//! Needs to be root and allowed to mount. What cannot be had here is said, and the test that wants it ends.

use anyhow::{Context, Result, bail};
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

/// A mounted file system. Unmounted when dropped; whoever uses it must have ended by then.
#[derive(Debug)]
pub struct Mount {
    point: TempDir,
}

impl Mount {
    /// A file system in memory with room for so many bytes.
    ///
    /// # Errors
    /// If it cannot be mounted here.
    pub fn memory(bytes: u64) -> Result<Self> {
        let point = tempfile::tempdir()?;
        let size = format!("size={bytes}");
        run(Command::new("mount")
            .args(["-t", "tmpfs", "-o", &size, "tmpfs"])
            .arg(point.path()))?;
        Ok(Self { point })
    }

    /// Makes an ext4 file system in the file `image`.
    ///
    /// # Errors
    /// If it cannot be made here.
    pub fn make_image(image: &Path, bytes: u64) -> Result<()> {
        File::create(image)?.set_len(bytes)?;
        run(Command::new("mkfs.ext4").arg("-q").arg(image))
    }

    /// Mounts the file system in the file `image`.
    ///
    /// # Errors
    /// If it cannot be mounted here.
    pub fn image(image: &Path) -> Result<Self> {
        let point = tempfile::tempdir()?;
        run(Command::new("mount")
            .args(["-o", "loop"])
            .arg(image)
            .arg(point.path()))?;
        Ok(Self { point })
    }

    /// Copies the image of a mounted file system as it is at one moment, which is what a power cut leaves behind. Whoever
    /// writes to it must be frozen; what the system itself still writes is waited for.
    ///
    /// # Errors
    /// If it cannot be copied, or does not come to rest.
    pub fn copy_image(image: &Path, copy: &Path) -> Result<()> {
        const ATTEMPTS: usize = 50;
        for _ in 0..ATTEMPTS {
            fs::copy(image, copy)?;
            // What was read once, and is still the same after all was read, was all there in between.
            if fs::read(image)? == fs::read(copy)? {
                return Ok(());
            }
        }
        bail!("{} does not come to rest", image.display())
    }

    /// Whether images can be made and mounted here.
    ///
    /// # Errors
    /// If not, with the reason.
    pub fn image_works() -> Result<()> {
        const SMALL_BYTES: u64 = 8 << 20;
        let directory = tempfile::tempdir()?;
        let image = directory.path().join("image");
        Self::make_image(&image, SMALL_BYTES)?;
        Self::image(&image).map(drop)
    }

    /// Where it is mounted.
    pub fn path(&self) -> &Path {
        self.point.path()
    }

    /// Fills it up to the last byte. The room comes back when what is returned is dropped.
    ///
    /// # Errors
    /// If it cannot be written to for another reason.
    pub fn fill(&self) -> Result<Filler> {
        let filler = Filler(self.path().join("filler"));
        let mut file = File::create(&filler.0)?;
        // Smaller and smaller pieces, so that not even a page is left.
        for size in [1 << 20, 1 << 12, 1] {
            let piece = vec![1; size];
            while file.write_all(&piece).is_ok() {}
        }
        match file.write_all(&[1]) {
            Err(error) if error.kind() == std::io::ErrorKind::StorageFull => Ok(filler),
            Err(error) => Err(error).context("could not fill the disk"),
            Ok(()) => bail!("the disk does not fill up"),
        }
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        if run(Command::new("umount").arg(self.path())).is_err() {
            // Somebody still has a file open there: it goes when they do.
            let _ = run(Command::new("umount").arg("--lazy").arg(self.path()));
        }
    }
}

/// What takes up the room of a disk.
#[derive(Debug)]
pub struct Filler(PathBuf);

impl Drop for Filler {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
    }
}

fn run(command: &mut Command) -> Result<()> {
    let done = command
        .output()
        .with_context(|| format!("could not run {command:?}"))?;
    if done.status.success() {
        return Ok(());
    }
    bail!(
        "{command:?}: {}",
        String::from_utf8_lossy(&done.stderr).trim_end()
    )
}
