//! The control side of labsw: everything that is not done per frame.
//!
//! [`config`] reads and checks the configuration, whose settings [`model`] defines. [`confine`] gives up unneeded
//! privileges, [`device`] prepares network devices, [`daemon`] runs the switch and serves the control socket ([`api`]:
//! the messages, [`varlink`]: the protocol) and the [`metrics`] ([`http`]: the server). [`plan`] finds the steps to
//! another configuration, `trace` explains how the switch would handle a frame, [`takeover`] is the protocol between
//! the old and the new process. [`ctl`] is the control tool, [`arguments`] are those of the daemon; [`glue`] writes
//! configuration snippets for guests, [`doctor`] examines the host, [`score`] says what a sensor noticed, `dissect`
//! puts frames in words. [`filter`] compiles expressions in tcpdump's syntax.

pub mod api;
pub mod arguments;
pub mod config;
pub mod confine;
pub mod ctl;
pub mod daemon;
mod derived_mac;
pub mod detach;
pub mod device;
mod dissect;
pub mod doctor;
pub mod filter;
pub mod glue;
pub mod http;
pub mod metrics;
pub mod model;
pub mod pcapng;
pub mod plan;
pub mod score;
pub mod takeover;
mod trace;
pub mod varlink;
