//! What the fuzz targets run: one function per place where bytes from outside come in.
//!
//! Each function takes any bytes, builds a situation from them, and panics if the code under test does what it must
//! not. The fuzzer (`tests/fuzz`) and the replay of its corpora (`tests/fuzz_corpus.rs`) call the same functions, so
//! that what was once found stays found. Where a simpler program can say what has to come out, that program is asked,
//! too, and the two are compared.
//!
//! **Invariant.** The same bytes do the same thing, whatever was run before in the process.

mod capture;
mod config;
mod control;
mod feed;
mod filter;
mod forward;
mod offload;
mod ring;
mod session;
mod work;

pub use capture::capture;
pub use config::config;
pub use control::control;
pub use filter::filter;
pub use forward::forward;
pub use offload::offload;
pub use ring::{packed, packed_operations, ring, ring_operations};
pub use session::session;
pub use work::work;

/// A target: it takes any bytes and panics on a finding.
pub type Target = fn(&[u8]);

/// All targets by name; the name is also that of the corpus in `tests/fuzz/corpus`.
pub const TARGETS: [(&str, Target); 10] = [
    ("capture", capture),
    ("config", config),
    ("control", control),
    ("filter", filter),
    ("forward", forward),
    ("offload", offload),
    ("packed", packed),
    ("ring", ring),
    ("session", session),
    ("work", work),
];
