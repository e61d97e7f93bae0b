//! Frames from a port with a sensor in its wire, and from the ports of the sensor; see [`crate::inline`].
//!
//! A frame from the port, or one that the sensor sends to it, is passed on as it is: only its beginning is read, for
//! mirrors that select by VLAN and for frames that end at every port. A frame that the sensor sends to the switch takes
//! the steps of a frame of the port. All of this is off the path of other ports.

use super::{ANY, Arrival, Ingress, Observer, Outcome, Step, TagEdit, TxItem};
use crate::header::Header;
use crate::inline::{Part, is_probe};
use crate::tables::Port;
use crate::{DropReason, PortId};

impl<'a> Ingress<'a> {
    /// Handles a frame from a port whose frames are not simply decided about; `reason` says why.
    #[cold]
    #[inline(never)]
    pub(super) fn take_otherwise<O: Observer>(
        &mut self,
        arrival: &Arrival<'_>,
        reason: DropReason,
        out: &mut Outcome<'_, O>,
    ) {
        if self.is_for_switch(arrival.snapshot) {
            out.observer.step(arrival.index, || Step::Own);
            out.egress.leave_unmirrored(arrival.index);
            return out.egress.mark_probe(arrival.index);
        }
        match self.by.tables.part(self.id) {
            Some(part) => self.pass(part, arrival, out),
            None => self.inject(arrival, reason, out),
        }
    }

    /// True for a message between neighbours at a mirror destination whose copies go to another machine.
    fn is_for_switch(&self, snapshot: &[u8]) -> bool {
        let rules = self.by.tables.rules(self.id).filter(|rules| rules.enabled);
        let remote =
            rules.filter(|_| self.by.tables.is_mirror_destination(self.id)).and_then(|rules| rules.remote.as_ref());
        remote.is_some_and(|remote| remote.concerns(snapshot))
    }

    /// Handles a frame from a port that takes this part.
    pub(super) fn pass<O: Observer>(&mut self, part: Part, arrival: &Arrival<'_>, out: &mut Outcome<'_, O>) {
        if part.is_of_sensor() && is_probe(arrival.snapshot) {
            out.egress.leave_unmirrored(arrival.index);
            return out.egress.mark_probe(arrival.index);
        }
        let passed = match part {
            Part::Port { near, .. } => self.pass_on(part, (self.id, near), arrival, out),
            Part::Near { of, passes: true } => self.pass_on(part, (of, of), arrival, out),
            Part::Far { of, passes: true } => self.enter_as(part, of, arrival, out),
            Part::Closed => Err(DropReason::InlineClosed),
            Part::Near { .. } | Part::Far { .. } => Err(DropReason::InlineSensor),
        };
        if let Err(reason) = passed {
            out.egress.leave_unmirrored(arrival.index);
            out.observer.dropped(arrival.index, self.id, reason);
        }
    }

    /// Sends a frame of the wire of the port `of` to `to`, as it is.
    fn pass_on<O: Observer>(
        &self,
        part: Part,
        (of, to): (PortId, PortId),
        arrival: &Arrival<'_>,
        out: &mut Outcome<'_, O>,
    ) -> Result<(), DropReason> {
        let header = Header::parse(arrival.snapshot)?;
        // They are for the other end of one cable, and nobody else.
        if header.is_mac_control() {
            return Err(DropReason::MacControl);
        }
        let port = self.open(of)?;
        out.observer.step(arrival.index, || Step::Inline(part));
        if self.classify::<ANY, O>(port, arrival.index, &header, out).rspan {
            out.egress.leave_unmirrored(arrival.index);
        }
        out.egress.send(to, TxItem::whole(arrival.index, TagEdit::KEEP));
        Ok(())
    }

    /// Decides about a frame that a sensor lets pass, as one of the port `of`.
    fn enter_as<O: Observer>(
        &self,
        part: Part,
        of: PortId,
        arrival: &Arrival<'_>,
        out: &mut Outcome<'_, O>,
    ) -> Result<(), DropReason> {
        let port = self.open(of)?;
        out.observer.step(arrival.index, || Step::Inline(part));
        let mut ingress =
            Ingress { by: self.by, id: of, now_ns: self.now_ns, port: Ok(port), last: None, inject: None };
        ingress.decide(port, arrival, out);
        Ok(())
    }

    /// The port in whose wire the sensor is, if it is up.
    fn open(&self, of: PortId) -> Result<&'a Port, DropReason> {
        self.by.tables.port(of).filter(|port| port.rules.enabled).ok_or(DropReason::PortDown)
    }
}
