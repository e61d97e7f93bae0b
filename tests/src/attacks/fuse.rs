//! A file system whose server answers until a file is open, and then never again: who reads the file waits.
//!
//! Reference: fuse(4), `<linux/fuse.h>` of protocol 7.31.

use std::ffi::CString;
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::thread::JoinHandle;

/// Size that the file claims, bytes.
pub const FILE_BYTES: u64 = 4 << 20;
/// Numbers of requests.
const LOOKUP: u32 = 1;
const GETATTR: u32 = 3;
const OPEN: u32 = 14;
const READ: u32 = 15;
const STATFS: u32 = 17;
const RELEASE: u32 = 18;
const FLUSH: u32 = 25;
const INIT: u32 = 26;
const OPENDIR: u32 = 27;
/// Requests that have no reply: FORGET, INTERRUPT, BATCH_FORGET.
const WITHOUT_REPLY: [u32; 3] = [2, 36, 42];
/// The root directory, and the file in it.
const ROOT: u64 = 1;
const FILE: u64 = 2;
const VALID_SECONDS: u64 = 3600;

/// The mounted file system; dropped, it is gone.
#[derive(Debug)]
pub struct Fuse {
    place: PathBuf,
    server: Option<JoinHandle<()>>,
}

impl Fuse {
    /// Mounts it at a directory that is made.
    ///
    /// # Errors
    /// The kernel has no FUSE, or the caller may not mount.
    pub fn mount(place: &Path) -> io::Result<Self> {
        std::fs::create_dir_all(place)?;
        let device = OpenOptions::new().read(true).write(true).open("/dev/fuse")?;
        let options = format!("fd={},rootmode=40000,user_id=0,group_id=0,allow_other", device.as_raw_fd());
        let [options, path] = [options.as_bytes(), place.as_os_str().as_bytes()].map(CString::new);
        let (options, path) = (options?, path?);
        // SAFETY: four strings that end in zero and live until the call is over.
        let result =
            unsafe { libc::mount(c"slow".as_ptr(), path.as_ptr(), c"fuse".as_ptr(), 0, options.as_ptr().cast()) };
        if result != 0 {
            return Err(io::Error::last_os_error());
        }
        let server = std::thread::spawn(move || serve(device));
        Ok(Self { place: place.to_owned(), server: Some(server) })
    }

    /// The file, open for reading and writing.
    ///
    /// # Errors
    /// Those of open(2).
    pub fn file(&self) -> io::Result<OwnedFd> {
        Ok(OpenOptions::new().read(true).write(true).open(self.place.join("memory"))?.into())
    }
}

impl Drop for Fuse {
    fn drop(&mut self) {
        if let Ok(path) = CString::new(self.place.as_os_str().as_bytes()) {
            // Whoever waits for the server gets an error.
            // SAFETY: a string that ends in zero.
            unsafe { libc::umount2(path.as_ptr(), libc::MNT_FORCE | libc::MNT_DETACH) };
        }
        drop(self.server.take().map(JoinHandle::join));
    }
}

/// The attributes of a node.
fn attributes(node: u64) -> Vec<u8> {
    let (mode, size): (u32, u64) = if node == ROOT { (0o040_755, 0) } else { (0o100_666, FILE_BYTES) };
    let words = [node, size, size / 512, 0, 0, 0].map(u64::to_ne_bytes).concat();
    let halves = [0, 0, 0, mode, 1, 0, 0, 0, 4096, 0].map(u32::to_ne_bytes).concat();
    [words, halves].concat()
}

/// The body of the reply to a request; `None`: there is no reply.
fn reply(request: u32, node: u64) -> Option<Result<Vec<u8>, i32>> {
    let valid = VALID_SECONDS.to_ne_bytes();
    Some(Ok(match request {
        READ | STATFS => return None,
        _ if WITHOUT_REPLY.contains(&request) => return None,
        INIT => {
            let mut body = [7u32, 31, 0, 0, 12 | 12 << 16, 1 << 17, 1].map(u32::to_ne_bytes).concat();
            body.resize(64, 0);
            body
        }
        LOOKUP => [&FILE.to_ne_bytes()[..], &[0; 8], &valid, &valid, &[0; 8], &attributes(FILE)].concat(),
        GETATTR => [&valid[..], &[0; 8], &attributes(node)].concat(),
        OPEN | OPENDIR => [1u64, 0].map(u64::to_ne_bytes).concat(),
        FLUSH | RELEASE => vec![],
        _ => return Some(Err(libc::ENOSYS)),
    }))
}

/// Serves until the file system is unmounted.
fn serve(mut device: File) {
    let mut request = vec![0; (1 << 20) + 8192];
    while let Ok(len) = device.read(&mut request) {
        let Some(header) = request[..len].first_chunk::<40>() else { continue };
        let word = |at: usize| u32::from_ne_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]]);
        let node = u64::from(word(16)) | u64::from(word(20)) << 32;
        let Some(outcome) = reply(word(4), node) else { continue };
        let (error, body) = outcome.map_or_else(|errno| (-errno, vec![]), |body| (0, body));
        let bytes = u32::try_from(16 + body.len()).unwrap_or(16);
        let answer = [&bytes.to_ne_bytes()[..], &error.to_ne_bytes(), &header[8..16], &body].concat();
        // The asker may have gone.
        let _ = device.write_all(&answer);
    }
}
