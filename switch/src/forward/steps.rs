//! The steps of a decision, in the order in which a frame takes them; see the [module above](super).
//!
//! A step takes the results of the steps before it, and returns the input of the next step or a drop reason. All steps
//! are compiled twice, each time into one function: for the usual frame (`USUAL`, see
//! [`Ingress::is_usual`]) and for any frame; hence `inline(always)`. `benches/instructions.sh decide/1000` counts the
//! first.

use super::{ANY, Arrival, Dropped, Ingress, LastDecision, Observer, Outcome, Step, TagEdit, TxItem};
use crate::fdb::Learned;
use crate::header::{Header, HeaderWords, Tag};
use crate::multicast::PortSet;
use crate::tables::{Member, Port, PortRules};
use crate::vlan::{self, Leaves, Tags};
use crate::{DropReason, PortId, Vid};

/// The result of `classify`.
#[derive(Clone, Copy)]
pub(super) struct Classified {
    /// The VLAN of the frame; `None` if it is in none.
    vid: Option<Vid>,
    /// The VLAN by which mirrors select the frame, if any does.
    mirror_vlan: Option<Vid>,
    /// The frame is in an RSPAN VLAN, or has the tag of one.
    pub(super) rspan: bool,
}

/// A frame that may come in.
#[derive(Clone, Copy)]
pub(super) struct Frame<'s> {
    index: u8,
    snapshot: &'s [u8],
    header: Header,
    vid: Vid,
    tags: Tags,
    payload_bytes: u32,
    /// It came from an isolated port.
    isolated: bool,
}

impl<'a> Ingress<'a> {
    /// Has the frame take its steps.
    #[inline(always)]
    pub(super) fn take_steps<const USUAL: bool, O: Observer>(
        &mut self,
        port: &'a Port,
        arrival: Arrival<'_>,
        header: Result<Header, DropReason>,
        out: &mut Outcome<'_, O>,
    ) {
        let decided = match header {
            Ok(header) => self.forward::<USUAL, O>(port, arrival, header, out),
            Err(reason) => {
                out.egress.leave_unmirrored(arrival.index);
                Err(self.dropped(reason))
            }
        };
        if let Err(Dropped { at, reason }) = decided {
            out.observer.dropped(arrival.index, at, reason);
        }
    }

    #[inline(always)]
    fn forward<const USUAL: bool, O: Observer>(
        &mut self,
        port: &'a Port,
        arrival: Arrival<'_>,
        header: Header,
        out: &mut Outcome<'_, O>,
    ) -> Result<(), Dropped> {
        out.observer.step(arrival.index, || Step::Header(header));
        let classified = self.classify::<USUAL, O>(port, arrival.index, &header, out);
        if classified.rspan {
            return self.forward_rspan(port, &{ arrival }, &{ header }, &{ classified }, out);
        }
        let frame = self.admit::<USUAL, O>(port, arrival, header, classified, out)?;
        self.learn::<USUAL, O>(port, &frame, out)?;
        match self.locate(port, &frame, out) {
            Some(to) => self.deliver::<USUAL, O>(port, &frame, &arrival, to, classified.mirror_vlan, out),
            None => self.flood_guarded::<USUAL, O>(port, &{ frame }, out),
        }
    }

    /// A frame in an RSPAN VLAN is a copy that another switch has made. It goes to every port that names the VLAN in
    /// its trunks, whatever its addresses, which are of stations elsewhere: nothing is learned from it and nothing
    /// looked up. No mirror copies it, nor a frame with such a tag from a port that is not in the VLAN: there are no
    /// copies of copies.
    #[cold]
    #[inline(never)]
    fn forward_rspan<O: Observer>(
        &self,
        port: &'a Port,
        arrival: &Arrival<'_>,
        header: &Header,
        classified: &Classified,
        out: &mut Outcome<'_, O>,
    ) -> Result<(), Dropped> {
        out.egress.leave_unmirrored(arrival.index);
        let frame = self.admit::<ANY, O>(port, *arrival, *header, *classified, out)?;
        if let Some(guards) = &port.rules.guards {
            guards.flood(header.dst, self.now_ns, O::DRY_RUN).map_err(|reason| self.dropped(reason))?;
        }
        self.flood(&frame, None, out)
    }

    /// Finds the VLAN of the frame, and marks it for mirrors that select by VLAN.
    #[inline(always)]
    pub(super) fn classify<const USUAL: bool, O>(
        &self,
        port: &Port,
        index: u8,
        header: &Header,
        out: &mut Outcome<'_, O>,
    ) -> Classified {
        if USUAL {
            return Classified { vid: port.rules.vlan.tag(), mirror_vlan: None, rspan: false };
        }
        let tables = self.by.tables;
        let vid = port.rules.vlan.classify(header.outer).ok();
        let mut classified = Classified { vid, mirror_vlan: None, rspan: false };
        if let Some(vlans) = tables.mirror_vlans()
            && let Some(vid) = vid.or_else(|| header.outer.and_then(Vid::from_tag))
            && vlans.contains(vid)
        {
            classified.rspan = tables.is_rspan(vid);
            if !classified.rspan {
                out.egress.mark_vlan(index, vid);
                classified.mirror_vlan = Some(vid);
            }
        }
        classified
    }

    /// Checks that the frame may come in: its length, protocols between neighbours, its VLAN, the guards of the port.
    #[inline(always)]
    fn admit<'s, const USUAL: bool, O: Observer>(
        &self,
        port: &Port,
        arrival: Arrival<'s>,
        header: Header,
        classified: Classified,
        out: &mut Outcome<'_, O>,
    ) -> Result<Frame<'s>, Dropped> {
        let Arrival { index, snapshot, bytes, .. } = arrival;
        let payload_bytes = bytes.saturating_sub(u32::from(header.l3_offset));
        if payload_bytes > port.rules.mtu_bytes {
            return Err(self.dropped(DropReason::Oversize));
        }
        if header.is_of_neighbours() {
            port.rules.link_local.admit(&{ header }).map_err(|reason| self.dropped(reason))?;
        }
        let Some(vid) = classified.vid else { return Err(self.in_no_vlan(port, header.outer)) };
        out.observer.step(index, || Step::Vlan(vid));
        if !USUAL {
            self.guard(port, &arrival, &header, classified.rspan, out)?;
        }
        let isolated = !USUAL && port.is_isolated();
        let tags = if USUAL { Tags::NONE } else { port.rules.vlan.tags(&header) };
        Ok(Frame { index, snapshot, header, vid, tags, payload_bytes, isolated })
    }

    /// Why a frame with this tag is in no VLAN.
    #[cold]
    fn in_no_vlan(&self, port: &Port, outer: Option<Tag>) -> Dropped {
        self.dropped(port.rules.vlan.classify(outer).err().unwrap_or(DropReason::VlanNotMember))
    }

    /// Asks the guards of the port about the frame.
    fn guard<O: Observer>(
        &self,
        port: &Port,
        arrival: &Arrival<'_>,
        header: &Header,
        rspan: bool,
        out: &mut Outcome<'_, O>,
    ) -> Result<(), Dropped> {
        if rspan {
            out.observer.step(arrival.index, || Step::Rspan);
        }
        let Some(guards) = &port.rules.guards else { return Ok(()) };
        guards.admit(header.src, arrival.snapshot).map_err(|reason| self.dropped(reason))?;
        if !rspan {
            out.observer.step(arrival.index, || Step::Guarded);
        }
        Ok(())
    }

    /// Learns where the source of the frame is.
    #[inline(always)]
    fn learn<const USUAL: bool, O: Observer>(
        &self,
        port: &Port,
        frame: &Frame<'_>,
        out: &mut Outcome<'_, O>,
    ) -> Result<(), Dropped> {
        if !USUAL && !port.rules.learning {
            out.observer.step(frame.index, || Step::Source(None));
            return Ok(());
        }
        let (fdb, now_seconds, src) = (self.by.fdb, self.by.now_seconds, frame.header.src);
        let learned = match O::DRY_RUN {
            false => fdb.learn(frame.vid, src, self.id, now_seconds),
            true => fdb.would_learn(frame.vid, src, self.id, now_seconds),
        };
        out.observer.step(frame.index, || Step::Source(Some(learned)));
        match (learned, &port.rules.guards) {
            (Learned::Sticky, _) => Err(self.dropped(DropReason::MacSticky)),
            (Learned::PortLimit, Some(guards)) if !USUAL => {
                guards.over_limit(src, O::DRY_RUN).map_err(|reason| self.dropped(reason))
            }
            _ => Ok(()),
        }
    }

    /// The port of the destination; `None`: the frame floods.
    #[inline(always)]
    fn locate<O: Observer>(&self, port: &Port, frame: &Frame<'_>, out: &mut Outcome<'_, O>) -> Option<PortId> {
        let Frame { header: Header { dst, src, .. }, vid, .. } = *frame;
        let (fdb, now_seconds) = (self.by.fdb, self.by.now_seconds);
        // A station that sends to itself is known by its own frame, which a dry run does not learn.
        let is_own = || {
            let learned = || fdb.would_learn(vid, src, self.id, now_seconds);
            O::DRY_RUN && port.rules.learning && dst == src && learned().is_here()
        };
        let known = match dst.is_group() {
            true => None,
            false if is_own() => Some(self.id),
            false => fdb.lookup(vid, dst, now_seconds),
        };
        out.observer.step(frame.index, || self.located(known, frame));
        known
    }

    /// The step that an observer is told of.
    fn located(&self, known: Option<PortId>, frame: &Frame<'_>) -> Step {
        let dst = frame.header.dst;
        match known {
            None if dst.is_group() => Step::Group,
            None => Step::Unknown,
            Some(at) => {
                let entry = self.by.fdb.entry(frame.vid, dst, self.by.now_seconds).filter(|entry| entry.port == at);
                let (is_static, age_seconds) = entry.map_or((false, 0), |entry| (entry.is_static, entry.age_seconds));
                Step::Known { at, is_static, age_seconds }
            }
        }
    }

    /// Sends the frame to the port of its destination, and remembers the decision.
    #[inline(always)]
    fn deliver<const USUAL: bool, O: Observer>(
        &mut self,
        port: &Port,
        frame: &Frame<'_>,
        arrival: &Arrival<'_>,
        to: PortId,
        mirror_vlan: Option<Vid>,
        out: &mut Outcome<'_, O>,
    ) -> Result<(), Dropped> {
        if to == self.id {
            return Err(self.dropped(DropReason::SamePort));
        }
        match self.by.tables.egress_rules(to) {
            Some(rules) => self.deliver_by::<USUAL, O>(port, frame, arrival, (to, to, rules), mirror_vlan, out),
            None => self.deliver_through(port, &{ *frame }, &{ *arrival }, to, mirror_vlan, out),
        }
    }

    /// Like [`Ingress::deliver`], to a port that does not simply take frames: its frames leave by that of a sensor.
    #[cold]
    #[inline(never)]
    fn deliver_through<O: Observer>(
        &mut self,
        port: &Port,
        frame: &Frame<'_>,
        arrival: &Arrival<'_>,
        to: PortId,
        mirror_vlan: Option<Vid>,
        out: &mut Outcome<'_, O>,
    ) -> Result<(), Dropped> {
        let (rules, by) = self.by.tables.egress_through(to).map_err(|reason| Dropped { at: to, reason })?;
        self.deliver_by::<ANY, O>(port, frame, arrival, (to, by, rules), mirror_vlan, out)
    }

    /// Sends the frame to the port `to`, which has these rules, by the port `by`.
    #[inline(always)]
    fn deliver_by<const USUAL: bool, O: Observer>(
        &mut self,
        port: &Port,
        frame: &Frame<'_>,
        arrival: &Arrival<'_>,
        (to, by, rules): (PortId, PortId, &PortRules),
        mirror_vlan: Option<Vid>,
        out: &mut Outcome<'_, O>,
    ) -> Result<(), Dropped> {
        let at_egress = |reason| Dropped { at: to, reason };
        let leaves = rules.vlan.admit(frame.vid, frame.tags).map_err(at_egress)?;
        if USUAL && leaves != Leaves::Untagged {
            return self.deliver_tagged(port, &{ *frame }, &{ *arrival }, to, out);
        }
        // Known to the compiler from here on.
        let leaves = if USUAL { Leaves::Untagged } else { leaves };
        let isolated = !USUAL && rules.is_isolated();
        let member = Member { port: to, by, leaves, isolated, mtu_bytes: rules.mtu_bytes };
        let edit = egress(member, frame).map_err(at_egress)?;
        let repeats = USUAL || port.rules.guards.as_ref().is_none_or(|guards| guards.is_of_headers());
        let l3_offset = frame.header.l3_offset;
        let most_payload = port.rules.mtu_bytes.min(most_payload(member, frame, edit));
        let last = LastDecision {
            header: arrival.words,
            third_word_mask: HeaderWords::third_word_mask(l3_offset),
            most_bytes: most_payload.saturating_add(l3_offset.into()),
            to: by,
            edit,
            mirror_vlan,
        };
        last.deliver(frame.index, out.egress);
        // A header cut short (22 bytes are looked at, 14 are enough) is not compared with others.
        self.last = (arrival.has_words && repeats).then_some(last);
        Ok(())
    }

    /// Like [`Ingress::deliver`], for a usual frame that leaves with a tag.
    #[inline(never)]
    fn deliver_tagged<O: Observer>(
        &mut self,
        port: &Port,
        frame: &Frame<'_>,
        arrival: &Arrival<'_>,
        to: PortId,
        out: &mut Outcome<'_, O>,
    ) -> Result<(), Dropped> {
        self.deliver::<ANY, O>(port, frame, arrival, to, None, out)
    }

    /// Floods the frame to the ports that want it, if the guards of the port let it.
    #[inline(always)]
    fn flood_guarded<const USUAL: bool, O: Observer>(
        &self,
        port: &Port,
        frame: &Frame<'_>,
        out: &mut Outcome<'_, O>,
    ) -> Result<(), Dropped> {
        let dst = frame.header.dst;
        if !USUAL && let Some(guards) = &port.rules.guards {
            guards.flood(dst, self.now_ns, O::DRY_RUN).map_err(|reason| self.dropped(reason))?;
        }
        let Frame { index, vid, ref header, ref tags, snapshot, .. } = *frame;
        let audience = match dst.is_group() {
            true => self.by.audience(index, vid, header, tags, snapshot, out.egress),
            false => None,
        };
        if audience.is_some() {
            out.observer.step(index, || Step::Snooped);
        }
        self.flood(frame, audience.as_ref(), out)
    }

    /// Sends the frame to every other port of its VLAN that is in `audience` (`None`: to all of them).
    #[inline(never)]
    fn flood<O: Observer>(
        &self,
        frame: &Frame<'_>,
        audience: Option<&PortSet>,
        out: &mut Outcome<'_, O>,
    ) -> Result<(), Dropped> {
        let tables = self.by.tables;
        let mut nobody = true;
        for member in tables.flood(frame.vid).iter().filter(|member| member.port != self.id) {
            let wanted = audience.is_none_or(|audience| audience.contains(member.port));
            if !wanted || (member.is_tunnel() && !tables.takes_customer(member.port, frame.tags.inner)) {
                continue;
            }
            nobody = false;
            match egress(*member, frame) {
                Ok(edit) => out.egress.send(member.by, TxItem::whole(frame.index, edit)),
                Err(reason) => out.observer.dropped(frame.index, member.port, reason),
            }
        }
        match (nobody, audience) {
            (false, _) => Ok(()),
            (true, None) => Err(self.dropped(DropReason::NoDestination)),
            (true, Some(_)) => Err(self.dropped(DropReason::MulticastNotWanted)),
        }
    }

    /// A drop that counts at the ingress port.
    #[inline(always)]
    fn dropped(&self, reason: DropReason) -> Dropped {
        Dropped { at: self.id, reason }
    }
}

/// The egress rule: how a frame leaves by a port of its VLAN.
///
/// # Errors
/// [`DropReason::DoubleTag`], [`DropReason::Oversize`], [`DropReason::Isolated`].
#[inline(always)]
fn egress(member: Member, frame: &Frame<'_>) -> Result<TagEdit, DropReason> {
    let edit = vlan::edit(member.leaves, frame.vid, frame.tags)?;
    if frame.payload_bytes > most_payload(member, frame, edit) {
        return Err(DropReason::Oversize);
    }
    if frame.isolated && member.isolated {
        return Err(DropReason::Isolated);
    }
    Ok(edit)
}

/// The most payload with which the frame leaves by a port with this edit, bytes. Tags of a customer behind that of the
/// VLAN are payload.
#[inline(always)]
fn most_payload(member: Member, frame: &Frame<'_>, edit: TagEdit) -> u32 {
    let customer_bytes = if edit.insert.is_some() { frame.tags.customer_bytes.into() } else { 0 };
    member.mtu_bytes.saturating_sub(customer_bytes)
}
