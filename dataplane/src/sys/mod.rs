//! System calls that several drivers need, and that no crate offers in the form needed here.
//!
//! | module | holds |
//! |---|---|
//! | `bpf` | bpf(2): programs of a few instructions, and their links |
//! | [`isolate`] | keeping the host's own stack off an interface |
//! | [`programs`] | the switch's programs in the kernel, loaded by a helper process where there is one |
//! | [`raw`] | AF_XDP and packet sockets, opened by a helper process where there is one |
//! | `steering` | the programs of the kernel fast path, as instructions |
//! | [`socket`] | UNIX sockets of guests: their files, owners and peers |

mod bpf;
pub mod isolate;
pub mod programs;
pub mod raw;
pub mod socket;
pub(crate) mod steering;
