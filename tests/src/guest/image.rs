//! The kernels and initramfs that guests boot, and an initramfs with further programs.

use std::collections::BTreeSet;
use std::io;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::installed::cache;
use crate::process;

/// A kernel and the initramfs that goes with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Image {
    /// For guests.
    Cloud,
    /// For guests with emulated NICs; boots more slowly.
    General,
    /// For lab hosts ([`lab_host`](crate::lab_host)).
    Host,
}

/// Kernel and initramfs.
///
/// # Errors
/// Which file is missing and what makes it.
pub fn image(of: Image) -> Result<(PathBuf, PathBuf), String> {
    let cache = cache();
    let kind = match of {
        Image::Cloud => "",
        Image::General => "-general",
        Image::Host => "-host",
    };
    let (kernel, initramfs) = (cache.join(format!("vmlinuz{kind}")), cache.join(format!("initramfs{kind}.cpio")));
    if let Some(file) = [&kernel, &initramfs].into_iter().find(|file| !file.is_file()) {
        return Err(format!("{} (tests/setup-debian.sh)", file.display()));
    }
    Ok((kernel, initramfs))
}

/// Writes an initramfs with `programs` and their shared libraries behind it: the kernel unpacks one archive after the
/// other.
pub(crate) fn write_image(of: Image, programs: &[&Path], image_file: &Path) -> io::Result<()> {
    let (_, usual) = image(of).map_err(io::Error::other)?;
    let mut archive = std::fs::read(usual)?;
    let mut libraries = BTreeSet::new();
    for program in programs {
        let name = program.file_name().unwrap_or_default().to_string_lossy();
        archive_file(&mut archive, &format!("bin/{name}"), 0o100_755, &std::fs::read(program)?);
        let listed = process::run(Command::new("ldd").arg(program));
        libraries.extend(listed.split_whitespace().filter(|word| word.starts_with('/')).map(str::to_owned));
    }
    for library in &libraries {
        let directories: Vec<&str> = library.rsplit_once('/').map_or("", |(path, _)| path).split('/').skip(1).collect();
        for depth in 1..=directories.len() {
            archive_file(&mut archive, &directories[..depth].join("/"), 0o040_755, &[]);
        }
        archive_file(&mut archive, &library[1..], 0o100_755, &std::fs::read(library)?);
    }
    archive_file(&mut archive, "TRAILER!!!", 0, &[]);
    std::fs::write(image_file, archive)
}

/// Appends a file to a cpio archive of the format "newc": fields of eight hexadecimal digits, then name and contents,
/// each padded to four bytes (cpio(5)).
fn archive_file(archive: &mut Vec<u8>, name: &str, mode: u32, contents: &[u8]) {
    archive.extend(b"070701");
    let (bytes, name_bytes) = (contents.len(), name.len() + 1);
    for field in [0, mode as usize, 0, 0, 1, 0, bytes, 0, 0, 0, 0, name_bytes, 0] {
        archive.extend(format!("{field:08x}").bytes());
    }
    archive.extend(name.bytes().chain([0]));
    archive.resize(archive.len().next_multiple_of(4), 0);
    archive.extend(contents);
    archive.resize(archive.len().next_multiple_of(4), 0);
}
