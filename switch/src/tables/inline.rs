//! The parts that ports take for sensors, as the tables have them: asked for ports whose frames do not take the usual
//! way only.

use super::{Port, PortRules, Tables};
use crate::inline::Part;
use crate::{DropReason, PortId};

impl Port {
    /// The part that it takes for a sensor, while it is up.
    #[cold]
    pub(crate) fn part(&self) -> Option<Part> {
        self.part.filter(|_| self.rules.enabled)
    }

    /// Why nothing is received from it, or sent to it, in the usual way.
    #[cold]
    pub(crate) fn refusal(port: Option<&Port>) -> DropReason {
        match port {
            Some(port) if !port.rules.enabled => DropReason::PortDown,
            Some(Port { part: Some(Part::Closed), .. }) => DropReason::InlineClosed,
            Some(Port { part: Some(_), .. }) => DropReason::InlineSensor,
            Some(_) => DropReason::MirrorDestination,
            None => DropReason::PortDown,
        }
    }
}

impl Tables {
    /// The part that the port takes for a sensor, while it is up.
    pub fn part(&self, port: PortId) -> Option<Part> {
        self.port(port)?.part()
    }

    /// The port in whose wire frames to `port` are: itself, or that of whose sensor it is.
    pub fn wire_of(&self, port: PortId) -> PortId {
        match self.part(port) {
            Some(Part::Near { of, passes: true } | Part::Far { of, passes: true }) => of,
            _ => port,
        }
    }

    /// The rules of the port `to`, and the port of the sensor by which its frames leave.
    ///
    /// # Errors
    /// No sensor in its wire lets frames pass: why it takes none.
    #[cold]
    pub(crate) fn egress_through(&self, to: PortId) -> Result<(&PortRules, PortId), DropReason> {
        let port = self.port(to);
        match port.and_then(|port| Some((port, port.part()?))) {
            Some((port, Part::Port { far, .. })) => Ok((&port.rules, far)),
            _ => Err(Port::refusal(port)),
        }
    }
}
