//! The parts of the switch that captures and injections read.

use super::fabric::Fabric;
use super::inlines::Inlines;
use super::mirrors::Mirrors;
use super::ports::Ports;

/// Ports, mirrors, inline sensors and workers, for reading.
#[derive(Clone, Copy)]
pub(super) struct View<'a> {
    pub(super) ports: &'a Ports,
    pub(super) mirrors: &'a Mirrors,
    pub(super) inlines: &'a Inlines,
    pub(super) fabric: &'a Fabric,
}
