//! The control side of labsw: everything that is not per frame.
//!
//! [`config`] reads and checks what is wanted, [`confine`] gives up privileges that are not needed, [`device`] prepares
//! network devices, [`daemon`] brings it about and serves the control socket ([`api`]: what is said on it, [`varlink`]:
//! how) and the [`metrics`]; [`plan`] finds what to do when something else is wanted, `trace` puts in words what would
//! become of a frame, [`takeover`] is the way from one process to the next, and [`ctl`] is the tool that talks to it.
//! [`glue`] writes down how guests are plugged in,
//! [`doctor`] looks at the host. [`filter`] compiles expressions in tcpdump's syntax.

pub mod api;
pub mod config;
pub mod confine;
pub mod ctl;
pub mod daemon;
mod derived_mac;
pub mod device;
pub mod doctor;
pub mod filter;
pub mod glue;
pub mod metrics;
pub mod model;
pub mod pcapng;
pub mod plan;
pub mod takeover;
mod trace;
pub mod varlink;
