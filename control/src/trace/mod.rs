//! Explains how the switch would handle a frame: the decisions of [`labsw_switch::trace`], in names and words for
//! people.
//!
//! **How it works.** The control thread passes a [`Scene`]: the tables and the forwarding database in force, the names
//! of ports and mirrors, and the state of ports that are not up. [`explain`] has the frame traced and turns the
//! decisions into steps, each with its subject, its outcome, the reason, and a hint how to change the outcome
//! ([`words`]). Pure: no worker, device or clock takes part.
//!
//! **Invariants.** If the switch sends a frame to a port that takes none (not connected, device absent), the frame is
//! shown as dropped there for [`DropReason::NotConnected`], as the port counts it.

use std::collections::BTreeMap;

use labsw_dataplane::fast_path::Record;
use labsw_switch::fdb::Learned;
use labsw_switch::forward::{Forwarder, Selection, Step, TagEdit};
use labsw_switch::header::Header;
use labsw_switch::inject::IngressAs;
use labsw_switch::inline::Part;
use labsw_switch::trace::{Copy, Event, trace};
use labsw_switch::vlan::PortVlan;
use labsw_switch::wire::TPID_C_TAG;
use labsw_switch::{DropReason, MirrorId, PortId, Vid};

use crate::api::{PortState, Trace, TraceOutcome, TraceStage, TraceStep, TraceVerdict, frame_text};

#[cfg(test)]
mod tests;
mod words;

pub(crate) use words::ETHERTYPES;

/// The surroundings of a traced frame.
pub(crate) struct Scene<'a> {
    /// The tables and the forwarding database that decide.
    pub by: Forwarder<'a>,
    /// The time of the trace, in nanoseconds.
    pub now_ns: u64,
    /// All ports.
    pub ports: BTreeMap<PortId, PortView>,
    /// Names of the mirrors.
    pub mirrors: BTreeMap<MirrorId, String>,
}

/// The state of a port beside its rules.
#[derive(Debug)]
pub(crate) struct PortView {
    /// The name of the port.
    pub name: String,
    /// Why the port is not up.
    pub trouble: Option<Trouble>,
    /// The impairments of frames from the port, and to it.
    pub impaired_rx: Option<String>,
    pub impaired_tx: Option<String>,
    /// The gate of the kernel fast path: known unicast between two ports that are open passes in the kernel.
    pub fast_path: Option<&'static Record>,
}

/// The state of a port that is not up.
#[derive(Debug)]
pub(crate) struct Trouble {
    /// The state.
    pub state: PortState,
    /// The reason, in one clause.
    pub reason: String,
    /// The port takes frames nevertheless, as a device without carrier does.
    pub takes_frames: bool,
}

/// Traces `frame` as received on `ingress`.
pub(crate) fn explain(scene: &Scene<'_>, ingress: PortId, frame: &[u8]) -> Trace {
    let told = trace(scene.by, scene.now_ns, ingress, frame, |port| scene.takes(port));
    let (known, known_source, steps) = (false, false, Vec::new());
    let mut teller =
        Teller { scene, ingress, frame, seen_at: ingress, header: None, vid: None, known, known_source, steps };
    teller.received();
    let mut leaving: Vec<(PortId, Result<TagEdit, DropReason>)> =
        told.sent.iter().map(|(port, edit)| (*port, Ok(*edit))).collect();
    for event in &told.events {
        match event {
            Event::Step(step) => teller.step(step),
            Event::Dropped(port, reason) if *port == teller.ingress => teller.dropped(*port, *reason),
            Event::Dropped(port, reason) => leaving.push((*port, Err(*reason))),
        }
    }
    leaving.sort_unstable_by_key(|(port, _)| scene.name(*port));
    for (port, outcome) in &leaving {
        match outcome {
            Ok(edit) => teller.sent(*port, *edit),
            Err(reason) => teller.dropped(*port, *reason),
        }
    }
    if !teller.known && !leaving.is_empty() {
        teller.left_out(&leaving);
    }
    let mut copies = told.copies;
    for selection in &told.selected {
        teller.selected(selection, &mut copies);
    }
    teller.verdict()
}

impl Scene<'_> {
    fn name(&self, port: PortId) -> &str {
        self.ports.get(&port).map_or("?", |port| &port.name)
    }

    fn trouble(&self, port: PortId) -> Option<&Trouble> {
        self.ports.get(&port)?.trouble.as_ref()
    }

    fn takes(&self, port: PortId) -> bool {
        self.trouble(port).is_none_or(|trouble| trouble.takes_frames)
    }
}

/// Writes the steps one after the other.
struct Teller<'a> {
    scene: &'a Scene<'a>,
    ingress: PortId,
    frame: &'a [u8],
    /// The port at which mirrors of received frames see it.
    seen_at: PortId,
    /// The facts found so far.
    header: Option<Header>,
    vid: Option<Vid>,
    /// The destination address is known at a port.
    known: bool,
    /// The source address is known at the ingress port.
    known_source: bool,
    steps: Vec<TraceStep>,
}

impl Teller<'_> {
    fn tell(&mut self, stage: TraceStage, outcome: TraceOutcome, text: String) -> &mut TraceStep {
        self.tell_at(self.steps.len(), stage, outcome, text)
    }

    fn tell_at(&mut self, at: usize, stage: TraceStage, outcome: TraceOutcome, text: String) -> &mut TraceStep {
        let vlan = self.vid.map(Vid::get);
        let (port, mirror, reason, frame, hint) = (None, None, None, None, None);
        self.steps.insert(at, TraceStep { stage, outcome, port, mirror, vlan, reason, frame, text, hint });
        &mut self.steps[at]
    }

    fn of_port(&mut self, port: PortId, stage: TraceStage, outcome: TraceOutcome, text: String) -> &mut TraceStep {
        let name = self.scene.name(port).to_owned();
        let step = self.tell(stage, outcome, text);
        step.port = Some(name);
        step
    }

    /// Writes the first step: the frame arrives.
    fn received(&mut self) {
        let name = self.scene.name(self.ingress);
        let text = match self.scene.trouble(self.ingress) {
            None => format!("received on {name}, which is up"),
            Some(trouble) => {
                format!("received on {name}, if anything were: it is {}: {}", trouble.state, trouble.reason)
            }
        };
        self.of_port(self.ingress, TraceStage::Port, TraceOutcome::Pass, text);
        let view = self.scene.ports.get(&self.ingress);
        if let Some(how) = view.and_then(|view| view.impaired_rx.as_deref()) {
            self.impaired(
                self.ingress,
                "rx",
                format!("on its way in: {how}; the next steps are for a frame that arrives"),
            );
        }
    }

    /// Notes that an impairment affects the frame.
    fn impaired(&mut self, port: PortId, direction: &str, text: String) {
        let name = self.scene.name(port).to_owned();
        let step = self.of_port(port, TraceStage::Impairment, TraceOutcome::Note, format!("{name}: impaired {text}"));
        step.hint = Some(format!("labsw-ctl impair clear {name} --direction {direction}"));
    }

    /// Writes one step of the decision; other methods write mirrors and drops.
    fn step(&mut self, step: &Step) {
        let (scene, ingress) = (self.scene, self.ingress);
        let rules = scene.by.tables.rules(ingress);
        let vlan = self.vid.map_or(0, Vid::get);
        let header = self.header;
        match step {
            Step::Header(header) => {
                self.header = Some(*header);
                self.tell(TraceStage::Header, TraceOutcome::Pass, words::header(header, self.frame.len()));
            }
            Step::Vlan(vid) => {
                self.vid = Some(*vid);
                let why = words::classified(header.and_then(|header| header.outer), scene.name(ingress), rules);
                self.of_port(ingress, TraceStage::Vlan, TraceOutcome::Pass, format!("in VLAN {vid}: {why}"));
            }
            Step::Injected(entry) => {
                let name = scene.name(ingress).to_owned();
                let how = match entry {
                    IngressAs::Vlan(vid) => format!("as a frame of VLAN {vid}"),
                    IngressAs::Port(port) => format!("as a frame that {} received", scene.name(*port)),
                };
                let text = format!("{name} is a mirror destination that may inject: the frame enters {how}");
                self.of_port(ingress, TraceStage::Injection, TraceOutcome::Pass, text);
                if let IngressAs::Port(port) = entry {
                    (self.ingress, self.seen_at) = (*port, *port);
                }
            }
            Step::Inline(part) => self.inline(*part),
            Step::Own => {
                let text = "a message between neighbours, which the switch itself takes".to_owned();
                self.of_port(ingress, TraceStage::Port, TraceOutcome::Pass, text);
            }
            Step::Guarded => {
                let text = format!("the guards of {} let it pass", scene.name(ingress));
                self.of_port(ingress, TraceStage::Guard, TraceOutcome::Pass, text);
            }
            Step::Source(learned) => {
                self.known_source = matches!(learned, Some(Learned::Known | Learned::Refreshed));
                let src = header.map(|header| header.src.to_string()).unwrap_or_default();
                let text = words::learned(*learned, &src, vlan, scene.name(ingress), |port| scene.name(port));
                self.of_port(ingress, TraceStage::Learning, TraceOutcome::Pass, text);
            }
            Step::Group | Step::Rspan | Step::Snooped | Step::Unknown | Step::Known { .. } => self.located(step),
        }
    }

    /// Writes what a sensor has to do with the frame.
    fn inline(&mut self, part: Part) {
        let scene = self.scene;
        let name = scene.name(self.ingress).to_owned();
        let text = match part {
            Part::Port { far, .. } => format!(
                "a sensor is in the wire of {name}: it gets the frame as it is; what it lets pass arrives on {}",
                scene.name(far)
            ),
            Part::Near { of, .. } => format!("a sensor has let it pass to {}, whose wire {name} is in", scene.name(of)),
            Part::Far { of, .. } => {
                format!("a sensor has let it pass: it counts as a frame that {} received", scene.name(of))
            }
            Part::Closed => return,
        };
        self.of_port(self.ingress, TraceStage::Port, TraceOutcome::Pass, text);
        match part {
            Part::Far { of, .. } => self.ingress = of,
            // It has one receiver, as a frame to a known address has.
            _ => self.known = true,
        }
    }

    /// Writes where the destination was found, or why the frame goes to several ports.
    fn located(&mut self, step: &Step) {
        let scene = self.scene;
        let vlan = self.vid.map_or(0, Vid::get);
        let dst = self.header.map(|header| header.dst.to_string()).unwrap_or_default();
        match step {
            Step::Group => {
                let text = format!("the destination is a group address: it goes to every other port of VLAN {vlan}");
                self.tell(TraceStage::Lookup, TraceOutcome::Pass, text);
            }
            Step::Rspan => {
                let text = format!(
                    "VLAN {vlan} is an RSPAN VLAN: nothing is learned or looked up, the frame goes to every other port that names it in its trunks"
                );
                self.tell(TraceStage::Lookup, TraceOutcome::Pass, text);
            }
            Step::Snooped => {
                let text = format!("snooping is on in VLAN {vlan}: only the ports that want the group get it");
                self.tell(TraceStage::Multicast, TraceOutcome::Pass, text);
            }
            Step::Unknown => {
                let text = format!("{dst} is not known in VLAN {vlan}: it goes to every other port of the VLAN");
                self.tell(TraceStage::Lookup, TraceOutcome::Pass, text);
            }
            Step::Known { at, is_static, age_seconds } => {
                self.known = true;
                let how = match is_static {
                    true => "a static entry".to_owned(),
                    false => format!("learned, last seen {age_seconds} s ago"),
                };
                let text = format!("{dst} in VLAN {vlan} is at {} ({how})", scene.name(*at));
                self.of_port(*at, TraceStage::Lookup, TraceOutcome::Pass, text);
            }
            Step::Header(_)
            | Step::Vlan(_)
            | Step::Injected(_)
            | Step::Inline(_)
            | Step::Own
            | Step::Guarded
            | Step::Source(_) => {}
        }
    }

    /// Writes that the frame, or its copy for `port`, is dropped.
    fn dropped(&mut self, port: PortId, reason: DropReason) {
        let stage = if port == self.ingress { reason.stage().into() } else { TraceStage::Egress };
        let about = words::Dropped {
            reason,
            port: self.scene.name(port),
            rules: self.scene.by.tables.rules(port),
            trouble: self.scene.trouble(port),
            header: self.header.as_ref(),
            vid: self.vid,
            frame: self.frame,
        };
        let (text, hint) = (about.text(), about.hint());
        let step = self.of_port(port, stage, TraceOutcome::Drop, text);
        (step.reason, step.hint) = (Some(reason.name().to_owned()), hint);
    }

    /// Writes that a port sends the frame.
    fn sent(&mut self, port: PortId, edit: TagEdit) {
        let scene = self.scene;
        if !scene.takes(port) {
            return self.dropped(port, DropReason::NotConnected);
        }
        if self.is_on_fast_path(port) {
            let text = "both addresses are known, and nothing else decides: it passes in the kernel".to_owned();
            self.tell(TraceStage::FastPath, TraceOutcome::Pass, text);
        }
        let wire = scene.by.tables.wire_of(port);
        let mode = scene.by.tables.rules(wire).map(|rules| words::membership(&rules.vlan)).unwrap_or_default();
        let mut text = format!("{}: sent {} ({mode})", scene.name(port), words::edited(edit, self.header.as_ref()));
        if wire != port {
            text += &format!(", to the sensor in the wire of {}", scene.name(wire));
        }
        if let Some(trouble) = scene.trouble(port) {
            text += &format!("; but the port is {}: {}", trouble.state, trouble.reason);
        }
        let frame = frame_text(&words::apply(edit, self.frame));
        self.of_port(port, TraceStage::Egress, TraceOutcome::Send, text).frame = Some(frame);
        if let Some(how) = scene.ports.get(&port).and_then(|view| view.impaired_tx.as_deref()) {
            self.impaired(port, "tx", format!("on its way out: {how}"));
        }
    }

    /// True if the frame passes in the kernel to `port`.
    fn is_on_fast_path(&self, port: PortId) -> bool {
        let (Some(header), Some(vid)) = (self.header, self.vid) else { return false };
        let record = |port: PortId| self.scene.ports.get(&port).and_then(|view| view.fast_path);
        let open = |port| record(port).is_some_and(|record| record.passes(vid));
        let is_usual =
            header.inner.is_none() && header.outer.is_none_or(|tag| tag.tpid == TPID_C_TAG && tag.vid() != 0);
        self.known && self.known_source && is_usual && open(self.ingress) && open(port)
    }

    /// Lists members of the VLAN that a flooded frame does not go to.
    fn left_out(&mut self, leaving: &[(PortId, Result<TagEdit, DropReason>)]) {
        let (tables, ingress, Some(vid)) = (self.scene.by.tables, self.ingress, self.vid) else { return };
        for port in tables.ports().filter(|port| *port != ingress) {
            let takes =
                |vlan: &PortVlan| if tables.is_rspan(vid) { vlan.lists_explicitly(vid) } else { vlan.is_member(vid) };
            let Some(rules) = tables.rules(port).filter(|rules| takes(&rules.vlan)) else { continue };
            if leaving.iter().any(|(other, _)| *other == port) {
                continue;
            }
            let why = match self.scene.trouble(port) {
                _ if tables.is_mirror_destination(port) => "takes only mirror copies".to_owned(),
                Some(trouble) if !rules.enabled => format!("is {}: {}", trouble.state, trouble.reason),
                _ if !rules.enabled => "is down".to_owned(),
                _ => continue,
            };
            let text = format!("{}: not sent, the port {why}", self.scene.name(port));
            self.of_port(port, TraceStage::Egress, TraceOutcome::Note, text);
        }
    }

    /// Writes that a mirror selects the frame. `copies` are the copies made, without those written already.
    fn selected(&mut self, selection: &Selection, copies: &mut Vec<Copy>) {
        let scene = self.scene;
        let mirror = scene.mirrors.get(&selection.mirror).map_or("?", String::as_str).to_owned();
        let to = match selection.rspan {
            None => scene.name(selection.to).to_owned(),
            Some(vid) => format!("{} in VLAN {vid}", scene.name(selection.to)),
        };
        let what = match selection.egress {
            None => format!("as {} received it", scene.name(self.seen_at)),
            Some(port) => format!("as {} sends it", scene.name(port)),
        };
        let takes = selection.egress.is_none_or(|port| scene.takes(port));
        let is_this =
            |copy: &Copy| (copy.mirror, copy.to, copy.rspan) == (selection.mirror, selection.to, selection.rspan);
        let made = copies.iter().position(is_this).filter(|_| takes).map(|made| copies.remove(made));
        let mut reason = None;
        let frame = made.map(|copy| {
            let mut bytes = words::apply(copy.edit, self.frame);
            bytes.truncate(if copy.snap_bytes == 0 { bytes.len() } else { copy.snap_bytes.into() });
            frame_text(&bytes)
        });
        let (outcome, text) = match (made, scene.trouble(selection.to)) {
            (None, _) if !takes => (TraceOutcome::Note, format!("{mirror} would select it {what}, but it is not sent")),
            (None, _) => {
                (TraceOutcome::Note, format!("{mirror} selects it {what}, too; {to} gets one copy of a frame"))
            }
            (Some(_), Some(trouble)) if !trouble.takes_frames => {
                reason = Some(DropReason::NotConnected.name().to_owned());
                let why = format!("{} is {}: {}", scene.name(selection.to), trouble.state, trouble.reason);
                (TraceOutcome::Drop, format!("{mirror} copies it {what} to {to}, where the copy is lost: {why}"))
            }
            (Some(_), _) => (TraceOutcome::Copy, format!("{mirror} copies it {what} to {to}")),
        };
        let step = self.of_port(selection.to, TraceStage::Mirror, outcome, text);
        (step.mirror, step.reason, step.frame) = (Some(mirror), reason, frame);
    }

    fn verdict(self) -> Trace {
        let ports = |outcome: TraceOutcome| {
            let of = self.steps.iter().filter(move |step| step.outcome == outcome && step.mirror.is_none());
            of.filter_map(|step| Some((step.port.as_deref()?, step.reason.as_deref().unwrap_or_default())))
        };
        let sent: Vec<&str> = ports(TraceOutcome::Send).map(|(port, _)| port).collect();
        let dropped: Vec<String> = ports(TraceOutcome::Drop).map(|(port, why)| format!("{port} ({why})")).collect();
        let (verdict, mut summary) = match (sent.is_empty(), self.known) {
            (true, _) if dropped.is_empty() => (TraceVerdict::Forwarded, "taken by the switch itself".to_owned()),
            (true, _) => (TraceVerdict::Dropped, format!("dropped at {}", dropped.join(", "))),
            (false, true) => (TraceVerdict::Forwarded, format!("forwarded to {}", sent.join(", "))),
            (false, false) => {
                let vlan = self.vid.map_or(0, Vid::get);
                (TraceVerdict::Flooded, format!("flooded in VLAN {vlan} to {}", sent.join(", ")))
            }
        };
        if !sent.is_empty() && !dropped.is_empty() {
            summary += &format!("; dropped at {}", dropped.join(", "));
        }
        let copies = self.steps.iter().filter(|step| step.outcome == TraceOutcome::Copy);
        let copies: Vec<String> = copies
            .filter_map(|step| Some(format!("{} by {}", step.port.as_deref()?, step.mirror.as_deref()?)))
            .collect();
        if !copies.is_empty() {
            summary += &format!("; copied to {}", copies.join(", "));
        }
        Trace { verdict, summary, steps: self.steps }
    }
}
