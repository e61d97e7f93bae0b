//! Frames from a mirror destination: injected if its [`Injection`](crate::inject::Injection) admits them, otherwise
//! dropped.
//!
//! An injected frame is decided about as a frame received on another port: one of the switch's own, or the virtual port
//! of the injection, which is in one VLAN and learns nothing. All of this is off the path of ports that take frames in.

use super::{Arrival, Dropped, Forwarder, Ingress, Observer, Outcome, Step};
use crate::inject::IngressAs;
use crate::tables::Inject;
use crate::{DropReason, PortId};

impl<'a> Forwarder<'a> {
    /// The injection of a port that takes nothing in otherwise.
    #[cold]
    pub(super) fn injection_of(self, port: PortId) -> Option<&'a Inject> {
        self.tables.port(port).filter(|port| port.rules.enabled)?.inject.as_ref()
    }
}

impl<'a> Ingress<'a> {
    /// True if frames of this port are injected.
    #[inline]
    pub fn is_injecting(&self) -> bool {
        self.inject.is_some()
    }

    /// Handles a frame from a mirror destination, or a port that is down: injects it if the port has an injection that
    /// admits it, otherwise drops it for `reason`.
    pub(super) fn inject<O: Observer>(&mut self, arrival: &Arrival<'_>, reason: DropReason, out: &mut Outcome<'_, O>) {
        match self.admit_injected(arrival, reason, out) {
            Ok(mut ingress) => {
                ingress.now_ns = self.now_ns;
                match (ingress.port, self.by.tables.part(ingress.id)) {
                    // A virtual or real port that takes frames in.
                    (Ok(port), _) => ingress.decide(port, arrival, out),
                    (Err(_), Some(part)) => ingress.pass(part, arrival, out),
                    (Err(_), None) => {}
                }
            }
            Err(Dropped { at, reason }) => {
                out.egress.leave_unmirrored(arrival.index);
                out.observer.dropped(arrival.index, at, reason);
            }
        }
    }

    /// The ingress by which an admitted frame enters; its port is there.
    fn admit_injected<O: Observer>(
        &self,
        arrival: &Arrival<'_>,
        reason: DropReason,
        out: &mut Outcome<'_, O>,
    ) -> Result<Ingress<'a>, Dropped> {
        let (Some(Inject { injection, .. }), Some(ingress)) = (self.inject, self.injected_ingress()) else {
            return Err(Dropped { at: self.id, reason });
        };
        injection
            .admit(arrival.snapshot, arrival.bytes, self.now_ns, O::DRY_RUN)
            .map_err(|reason| Dropped { at: self.id, reason })?;
        out.observer.step(arrival.index, || Step::Injected(injection.spec().ingress));
        match ingress.port {
            Ok(_) => Ok(ingress),
            Err(_) if self.by.tables.part(ingress.id).is_some() => Ok(ingress),
            Err(reason) => Err(Dropped { at: ingress.id, reason }),
        }
    }

    /// The ingress by which injected frames enter.
    pub(super) fn injected_ingress(&self) -> Option<Ingress<'a>> {
        let Inject { injection, virtual_port } = self.inject?;
        match (injection.spec().ingress, virtual_port) {
            (IngressAs::Vlan(_), Some(port)) => Some(Ingress { port: Ok(port), ..self.by.ingress(self.id) }),
            (IngressAs::Port(port), _) => Some(self.by.ingress(port)),
            (IngressAs::Vlan(_), None) => None,
        }
    }
}
