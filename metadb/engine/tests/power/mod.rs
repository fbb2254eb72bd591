//! A machine that really loses power, for the conformance suites: ext4 in a file behind a loop device, shut down without writing its
//! journal (`FS_IOC_SHUTDOWN`), unmounted and mounted again. What was not synced is gone, and so is a rename whose folder was not synced.
//!
//! It needs root, a loop device, `mkfs.ext4` and `perl` (for the one ioctl, as this code has no unsafe block). Where one is missing the
//! tests say so and pass, unless `CAIRN_POWER_TESTS=require` is set, as `make test` does for root.

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

/// Size of the file system: room for the few megabytes that a case writes, and for the journal.
const BYTES: u64 = 96 << 20;
/// The ioctl and its argument: no log flush.
const SHUTDOWN: &str =
    "use Fcntl; sysopen(my $d, $ARGV[0], O_RDONLY) or die $!; my $how = pack('L', 2); ioctl($d, 0x8004587d, $how) or die $!;";
/// How long the last user of a file may take to let go of it.
const UNMOUNT_WITHIN: Duration = Duration::from_secs(10);

/// A file system of its own.
pub(crate) struct PowerDisk {
    folder: tempfile::TempDir,
    mounted: bool,
}

fn run(command: &mut Command) -> Result<(), String> {
    let output = command.output().map_err(|error| format!("{command:?}: {error}"))?;
    if output.status.success() { Ok(()) } else { Err(format!("{command:?}: {}", String::from_utf8_lossy(&output.stderr).trim())) }
}

impl PowerDisk {
    /// A new one; none on a machine that can't, if nobody demands it.
    #[expect(clippy::disallowed_macros, reason = "a test that is skipped says so where its output is read")]
    pub(crate) fn new() -> Option<Self> {
        match Self::try_new() {
            Ok(disk) => Some(disk),
            Err(why) if std::env::var("CAIRN_POWER_TESTS").is_ok_and(|wanted| wanted == "require") => {
                panic!("CAIRN_POWER_TESTS=require, and this machine can't lose power in a test: {why}")
            }
            Err(why) => {
                println!("SKIPPED: no real power failure on this machine: {why}");
                None
            }
        }
    }

    fn try_new() -> Result<Self, String> {
        let folder = tempfile::tempdir().map_err(|error| error.to_string())?;
        let image = folder.path().join("image");
        let file = std::fs::File::create(&image).map_err(|error| error.to_string())?;
        file.set_len(BYTES).map_err(|error| error.to_string())?;
        run(Command::new("mkfs.ext4").args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"]).arg(&image))?;
        std::fs::create_dir(folder.path().join("mount")).map_err(|error| error.to_string())?;
        let mut disk = PowerDisk { folder, mounted: false };
        disk.mount()?;
        // A machine where this does nothing would pass every test: it must lose what was not synced.
        std::fs::write(disk.path().join("unsynced"), b"lost").map_err(|error| error.to_string())?;
        disk.fail()?;
        if std::fs::read(disk.path().join("unsynced")).is_ok_and(|bytes| bytes == b"lost") {
            return Err("a power failure took nothing away".to_owned());
        }
        Ok(disk)
    }

    fn mount(&mut self) -> Result<(), String> {
        run(Command::new("mount").args(["-o", "loop"]).arg(self.folder.path().join("image")).arg(self.path()))?;
        self.mounted = true;
        Ok(())
    }

    /// Where it is mounted.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("mount")
    }

    /// The path of a folder on it, which is not there yet.
    pub(crate) fn fresh(&self, name: &str) -> PathBuf {
        let path = self.path().join(name);
        if path.exists() {
            std::fs::remove_dir_all(&path).expect("a folder of our own can be removed");
        }
        path
    }

    /// Takes the power: from now on every call fails.
    pub(crate) fn cut(&self) -> Result<(), String> {
        run(Command::new("perl").args(["-e", SHUTDOWN]).arg(self.path()))
    }

    /// Gives the power back. Nobody may have a file open.
    #[expect(clippy::disallowed_methods, reason = "a real machine is waited for in real time")]
    pub(crate) fn restore(&mut self) -> Result<(), String> {
        let started = Instant::now();
        loop {
            match run(Command::new("umount").arg(self.path())) {
                Ok(()) => break,
                Err(why) if started.elapsed() > UNMOUNT_WITHIN => return Err(why),
                Err(_) => std::thread::sleep(Duration::from_millis(5)),
            }
        }
        self.mounted = false;
        self.mount()
    }

    /// Loses power and gets it back.
    fn fail(&mut self) -> Result<(), String> {
        self.cut()?;
        self.restore()
    }
}

impl Drop for PowerDisk {
    fn drop(&mut self) {
        if self.mounted {
            // Whoever still has a file open keeps the device a little longer.
            let _ = run(Command::new("umount").arg("-l").arg(self.path()));
        }
    }
}
