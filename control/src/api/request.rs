//! Requests: every method of the interface, with its parameters validated.

use std::collections::BTreeMap;

use labsw_switch::Mac;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::parameters::Parameters;
use super::vlan::is_vlan_id;
use super::{
    CaptureSpec, Error, INTERFACE, Inject, InjectFrame, PortDirection, PortType, Reply, Source, UnexpectedReply,
    frame_text, parse_frame,
};

/// A call of a method of `org.labsw.Switch1`. See the interface description for what each does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Request {
    /// The switch at a glance → [`Reply::Status`].
    GetStatus,
    /// All workers → [`Reply::Workers`].
    ListWorkers,
    /// All ports → [`Reply::Ports`].
    ListPorts,
    /// One port → [`Reply::Port`].
    ShowPort {
        /// Name of the port.
        name: String,
    },
    /// All VLANs that a port names → [`Reply::Vlans`].
    ListVlans,
    /// The forwarding database → [`Reply::Fdb`].
    ListFdb {
        /// Only this VLAN.
        vlan: Option<u16>,
        /// Only entries at this port.
        port: Option<String>,
    },
    /// What multicast snooping knows → [`Reply::Multicast`].
    ListMulticast {
        /// Only this VLAN.
        vlan: Option<u16>,
    },
    /// All mirrors → [`Reply::Mirrors`].
    ListMirrors,
    /// One mirror → [`Reply::Mirror`].
    ShowMirror {
        /// Name of the mirror.
        name: String,
    },
    /// All impairments → [`Reply::Impairments`].
    ListImpairments,
    /// Counters → [`Reply::Stats`]. With `more` the server asks again every interval.
    GetStats {
        /// Only this port.
        port: Option<String>,
        /// Milliseconds between the replies of a stream; for the server, the handler need not look.
        interval_milliseconds: Option<u32>,
    },
    /// What would become of a frame → [`Reply::Trace`].
    TraceFrame {
        /// Name of the port it would come in by.
        port: String,
        /// The frame, without the check sequence.
        frame: Vec<u8>,
    },
    /// The configuration that runs → [`Reply::Config`].
    ShowConfig,
    /// Whether a configuration could be applied → [`Reply::Awaited`].
    CheckConfig(ConfigText),
    /// What applying a configuration would change → [`Reply::Changes`].
    DiffConfig {
        /// The configuration.
        config: ConfigText,
        /// What was changed at run time would stay.
        keep_runtime: bool,
    },
    /// Frames, as they pass or are dropped → [`Reply::CapturePiece`], many. Not for [`Handler::call`](super::Handler::call).
    Capture(CaptureSpec),
    /// The captures that run → [`Reply::Captures`].
    ListCaptures,
    /// Something that changes the switch.
    Change(Change),
}

/// A configuration file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigText {
    /// What messages call it.
    pub file: String,
    /// What is in it.
    pub text: String,
}

/// The requests that change the switch, for peers that may do so.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Change {
    /// Adds a port → [`Reply::Done`].
    AddPort {
        /// Name of the new port.
        name: String,
        /// Its type.
        port_type: PortType,
        /// Keys and values as in the configuration, keys of tables with a dot (`vlan.tag`); strings may go without
        /// quotes.
        settings: BTreeMap<String, String>,
    },
    /// Changes settings of a port → [`Reply::Done`].
    SetPort {
        /// Name of the port.
        name: String,
        /// As for [`Change::AddPort`].
        settings: BTreeMap<String, String>,
    },
    /// Removes a port → [`Reply::Done`].
    DeletePort {
        /// Name of the port.
        name: String,
    },
    /// Has a port go down and up again, so many times → [`Reply::Done`].
    FlapPort {
        /// Name of the port.
        name: String,
        /// From one time it goes down to the next.
        every_milliseconds: u64,
        /// How many times it goes down.
        count: u32,
    },
    /// Switches a port on or off → [`Reply::Done`].
    SetPortState {
        /// Name of the port.
        name: String,
        /// Whether frames shall pass.
        up: bool,
    },
    /// Adds or replaces a static entry → [`Reply::Done`].
    AddFdb {
        /// VLAN id, 1 to 4094.
        vlan: u16,
        /// A unicast address.
        mac: Mac,
        /// Name of the port.
        port: String,
    },
    /// Removes an entry, static or learned → [`Reply::Done`].
    DeleteFdb {
        /// VLAN id, 1 to 4094.
        vlan: u16,
        /// The address.
        mac: Mac,
    },
    /// Removes learned entries → [`Reply::Removed`].
    FlushFdb {
        /// Only this VLAN.
        vlan: Option<u16>,
        /// Only entries at this port.
        port: Option<String>,
    },
    /// Makes or replaces a mirror → [`Reply::Done`].
    SetMirror {
        /// Name of the mirror.
        name: String,
        /// What to copy; not empty.
        sources: Vec<Source>,
        /// Only these VLANs; empty: all.
        vlans: Vec<u16>,
        /// Only frames that this expression selects; `None`: all.
        filter: Option<String>,
        /// Bytes copied of each frame; 0: all.
        snaplen: u32,
        /// Name of the destination port.
        to: String,
        /// What that port may inject.
        inject: Option<Inject>,
    },
    /// Removes a mirror → [`Reply::Done`].
    DeleteMirror {
        /// Name of the mirror.
        name: String,
    },
    /// Sets or replaces the impairment of a port → [`Reply::Done`].
    SetImpairment {
        /// Name of the port.
        port: String,
        /// Keys and values as in the configuration; strings may go without quotes.
        settings: BTreeMap<String, String>,
    },
    /// Ends the impairment of a port → [`Reply::Done`].
    ClearImpairment {
        /// Name of the port.
        port: String,
        /// Only in this direction.
        direction: Option<PortDirection>,
    },
    /// Has a port receive frames → [`Reply::Injected`].
    Inject {
        /// Name of the port.
        port: String,
        /// The injection they belong to; none: a new one.
        injection: Option<u64>,
        /// The frames.
        frames: Vec<InjectFrame>,
        /// Whether the injection is over; frames that wait are dropped.
        end: bool,
    },
    /// Applies a configuration, as a whole or not at all → [`Reply::Changes`].
    ApplyConfig {
        /// The configuration.
        config: ConfigText,
        /// What was changed at run time stays.
        keep_runtime: bool,
    },
    /// Has a receive queue served by this worker until the port goes → [`Reply::Done`].
    PinQueue {
        /// Name of the port.
        port: String,
        /// Number of the queue at the port, from 0.
        queue: u32,
        /// Number of the worker.
        worker: u32,
    },
}

impl Request {
    /// Reads a call.
    ///
    /// # Errors
    /// [`Error::InterfaceNotFound`], [`Error::MethodNotFound`], or [`Error::InvalidParameter`] naming the parameter.
    pub fn parse(full_method: &str, parameters: Map<String, Value>) -> Result<Request, Error> {
        let (interface, method) = full_method.rsplit_once('.').unwrap_or(("", full_method));
        if interface != INTERFACE {
            return Err(Error::InterfaceNotFound { interface: interface.to_owned() });
        }
        let mut read = Parameters::new(parameters);
        let request = match method {
            "GetStatus" => Request::GetStatus,
            "ListWorkers" => Request::ListWorkers,
            "ListPorts" => Request::ListPorts,
            "ShowPort" => Request::ShowPort { name: name(&mut read, "name")? },
            "ListVlans" => Request::ListVlans,
            "ListFdb" => Request::ListFdb { vlan: optional_vlan(&mut read)?, port: read.optional("port")? },
            "ListMulticast" => Request::ListMulticast { vlan: optional_vlan(&mut read)? },
            "ListMirrors" => Request::ListMirrors,
            "ShowMirror" => Request::ShowMirror { name: name(&mut read, "name")? },
            "ListImpairments" => Request::ListImpairments,
            "GetStats" => Request::GetStats {
                port: read.optional("port")?,
                interval_milliseconds: read.optional("interval_milliseconds")?,
            },
            "TraceFrame" => Request::TraceFrame {
                port: name(&mut read, "port")?,
                frame: parse_frame(&read.required::<String>("frame")?).map_err(|_| Error::invalid("frame"))?,
            },
            "ShowConfig" => Request::ShowConfig,
            "CheckConfig" => Request::CheckConfig(config_text(&mut read)?),
            "DiffConfig" => {
                Request::DiffConfig { config: config_text(&mut read)?, keep_runtime: keep_runtime(&mut read)? }
            }
            "Capture" => Request::Capture(CaptureSpec::parse(&mut read)?),
            "ListCaptures" => Request::ListCaptures,
            "ApplyConfig" => Request::Change(Change::ApplyConfig {
                config: config_text(&mut read)?,
                keep_runtime: keep_runtime(&mut read)?,
            }),
            "AddPort" => Request::Change(Change::AddPort {
                name: name(&mut read, "name")?,
                port_type: read.required("type")?,
                settings: read.optional("settings")?.unwrap_or_default(),
            }),
            "SetPort" => Request::Change(Change::SetPort {
                name: name(&mut read, "name")?,
                settings: read.required("settings")?,
            }),
            "DeletePort" => Request::Change(Change::DeletePort { name: name(&mut read, "name")? }),
            "SetPortState" => {
                Request::Change(Change::SetPortState { name: name(&mut read, "name")?, up: read.required("up")? })
            }
            "FlapPort" => Request::Change(Change::FlapPort {
                name: name(&mut read, "name")?,
                every_milliseconds: read.required("every_milliseconds")?,
                count: read.required("count")?,
            }),
            "AddFdb" => Request::Change(Change::AddFdb {
                vlan: vlan(&mut read)?,
                mac: mac(&mut read)?,
                port: name(&mut read, "port")?,
            }),
            "DeleteFdb" => Request::Change(Change::DeleteFdb { vlan: vlan(&mut read)?, mac: mac(&mut read)? }),
            "FlushFdb" => {
                Request::Change(Change::FlushFdb { vlan: optional_vlan(&mut read)?, port: read.optional("port")? })
            }
            "SetMirror" => Request::Change(Change::SetMirror {
                name: name(&mut read, "name")?,
                sources: Some(read.required::<Vec<Source>>("sources")?)
                    .filter(|sources| !sources.is_empty())
                    .ok_or_else(|| Error::invalid("sources"))?,
                vlans: Some(read.optional::<Vec<u16>>("vlans")?.unwrap_or_default())
                    .filter(|vlans| vlans.iter().copied().all(is_vlan_id))
                    .ok_or_else(|| Error::invalid("vlans"))?,
                filter: read.optional("filter")?,
                snaplen: read.optional("snaplen")?.unwrap_or_default(),
                to: name(&mut read, "to")?,
                inject: read.optional("inject")?,
            }),
            "DeleteMirror" => Request::Change(Change::DeleteMirror { name: name(&mut read, "name")? }),
            "SetImpairment" => Request::Change(Change::SetImpairment {
                port: name(&mut read, "port")?,
                settings: read.required("settings")?,
            }),
            "ClearImpairment" => Request::Change(Change::ClearImpairment {
                port: name(&mut read, "port")?,
                direction: read.optional("direction")?,
            }),
            "Inject" => Request::Change(Change::Inject {
                port: name(&mut read, "port")?,
                injection: read.optional("injection")?,
                frames: read.optional("frames")?.unwrap_or_default(),
                end: read.optional("end")?.unwrap_or_default(),
            }),
            "PinQueue" => Request::Change(Change::PinQueue {
                port: name(&mut read, "port")?,
                queue: read.required("queue")?,
                worker: read.required("worker")?,
            }),
            _ => return Err(Error::MethodNotFound { method: full_method.to_owned() }),
        };
        read.finish()?;
        Ok(request)
    }

    /// Name of the method, without the interface.
    pub fn method(&self) -> &'static str {
        match self {
            Request::GetStatus => "GetStatus",
            Request::ListWorkers => "ListWorkers",
            Request::ListPorts => "ListPorts",
            Request::ShowPort { .. } => "ShowPort",
            Request::ListVlans => "ListVlans",
            Request::ListFdb { .. } => "ListFdb",
            Request::ListMulticast { .. } => "ListMulticast",
            Request::ListMirrors => "ListMirrors",
            Request::ShowMirror { .. } => "ShowMirror",
            Request::ListImpairments => "ListImpairments",
            Request::GetStats { .. } => "GetStats",
            Request::TraceFrame { .. } => "TraceFrame",
            Request::ShowConfig => "ShowConfig",
            Request::CheckConfig(_) => "CheckConfig",
            Request::DiffConfig { .. } => "DiffConfig",
            Request::Capture(_) => "Capture",
            Request::ListCaptures => "ListCaptures",
            Request::Change(change) => change.method(),
        }
    }

    /// The parameters, as they travel.
    pub fn to_parameters(&self) -> Value {
        match self {
            Request::GetStatus
            | Request::ListWorkers
            | Request::ListPorts
            | Request::ListVlans
            | Request::ListMirrors
            | Request::ListImpairments
            | Request::ShowConfig
            | Request::ListCaptures => json!({}),
            Request::Capture(spec) => without_nulls(spec.to_parameters()),
            Request::CheckConfig(ConfigText { file, text }) => json!({"file": file, "text": text}),
            Request::DiffConfig { config, keep_runtime } => config_parameters(config, *keep_runtime),
            Request::ShowPort { name } | Request::ShowMirror { name } => json!({"name": name}),
            Request::ListMulticast { vlan } => without_nulls(json!({"vlan": vlan})),
            Request::ListFdb { vlan, port } => without_nulls(json!({"vlan": vlan, "port": port})),
            Request::GetStats { port, interval_milliseconds } => {
                without_nulls(json!({"port": port, "interval_milliseconds": interval_milliseconds}))
            }
            Request::TraceFrame { port, frame } => json!({"port": port, "frame": frame_text(frame)}),
            Request::Change(change) => change.to_parameters(),
        }
    }

    /// Reads the parameters of the reply to this request.
    ///
    /// # Errors
    /// [`UnexpectedReply`] when they are not what this method answers.
    pub fn parse_reply(&self, mut parameters: Map<String, Value>) -> Result<Reply, UnexpectedReply> {
        let method = self.method();
        let mut field = |name: &str| parameters.remove(name).unwrap_or_default();
        Ok(match self {
            Request::GetStatus => Reply::Status(read(method, Value::Object(parameters))?),
            Request::ListWorkers => Reply::Workers(read(method, field("workers"))?),
            Request::ListPorts => Reply::Ports(read(method, field("ports"))?),
            Request::ShowPort { .. } => Reply::Port(Box::new(read(method, field("port"))?)),
            Request::ListVlans => Reply::Vlans(read(method, field("vlans"))?),
            Request::ListFdb { .. } => Reply::Fdb(read(method, field("entries"))?),
            Request::ListMulticast { .. } => Reply::Multicast(read(method, Value::Object(parameters))?),
            Request::ListMirrors => Reply::Mirrors(read(method, field("mirrors"))?),
            Request::ShowMirror { .. } => Reply::Mirror(read(method, field("mirror"))?),
            Request::ListImpairments => Reply::Impairments(read(method, field("impairments"))?),
            Request::GetStats { .. } => Reply::Stats(read(method, Value::Object(parameters))?),
            Request::TraceFrame { .. } => Reply::Trace(read(method, Value::Object(parameters))?),
            Request::ShowConfig => Reply::Config(read(method, Value::Object(parameters))?),
            Request::CheckConfig(_) => Reply::Awaited(read(method, field("awaited"))?),
            Request::DiffConfig { .. } | Request::Change(Change::ApplyConfig { .. }) => {
                Reply::Changes(read(method, field("changes"))?)
            }
            Request::Capture(_) => Reply::CapturePiece(read(method, Value::Object(parameters))?),
            Request::ListCaptures => Reply::Captures(read(method, field("captures"))?),
            Request::Change(Change::FlushFdb { .. }) => Reply::Removed(read(method, field("removed"))?),
            Request::Change(Change::Inject { .. }) => Reply::Injected(read(method, Value::Object(parameters))?),
            Request::Change(_) => Reply::Done,
        })
    }
}

impl Change {
    /// Name of the method, without the interface.
    pub fn method(&self) -> &'static str {
        match self {
            Change::AddPort { .. } => "AddPort",
            Change::SetPort { .. } => "SetPort",
            Change::DeletePort { .. } => "DeletePort",
            Change::SetPortState { .. } => "SetPortState",
            Change::FlapPort { .. } => "FlapPort",
            Change::AddFdb { .. } => "AddFdb",
            Change::DeleteFdb { .. } => "DeleteFdb",
            Change::FlushFdb { .. } => "FlushFdb",
            Change::SetMirror { .. } => "SetMirror",
            Change::DeleteMirror { .. } => "DeleteMirror",
            Change::SetImpairment { .. } => "SetImpairment",
            Change::ClearImpairment { .. } => "ClearImpairment",
            Change::Inject { .. } => "Inject",
            Change::PinQueue { .. } => "PinQueue",
            Change::ApplyConfig { .. } => "ApplyConfig",
        }
    }

    /// The parameters, as they travel.
    fn to_parameters(&self) -> Value {
        match self {
            Change::AddPort { name, port_type, settings } => {
                json!({"name": name, "type": port_type.name(), "settings": settings})
            }
            Change::SetPort { name, settings } => json!({"name": name, "settings": settings}),
            Change::DeletePort { name } | Change::DeleteMirror { name } => json!({"name": name}),
            Change::SetImpairment { port, settings } => json!({"port": port, "settings": settings}),
            Change::ClearImpairment { port, direction } => without_nulls(json!({"port": port, "direction": direction})),
            Change::Inject { port, injection, frames, end } => {
                without_nulls(json!({"port": port, "injection": injection, "frames": frames, "end": end}))
            }
            Change::PinQueue { port, queue, worker } => json!({"port": port, "queue": queue, "worker": worker}),
            Change::ApplyConfig { config, keep_runtime } => config_parameters(config, *keep_runtime),
            Change::SetPortState { name, up } => json!({"name": name, "up": up}),
            Change::FlapPort { name, every_milliseconds, count } => {
                json!({"name": name, "every_milliseconds": every_milliseconds, "count": count})
            }
            Change::AddFdb { vlan, mac, port } => json!({"vlan": vlan, "mac": mac.to_string(), "port": port}),
            Change::DeleteFdb { vlan, mac } => json!({"vlan": vlan, "mac": mac.to_string()}),
            Change::FlushFdb { vlan, port } => without_nulls(json!({"vlan": vlan, "port": port})),
            Change::SetMirror { name, sources, vlans, filter, snaplen, to, inject } => {
                let sources: Vec<String> = sources.iter().map(Source::to_string).collect();
                let fixed = without_nulls(json!({
                    "name": name, "sources": sources, "vlans": vlans, "filter": filter, "snaplen": snaplen, "to": to
                }));
                with(fixed, "inject", inject.as_ref())
            }
        }
    }
}

fn read<T: DeserializeOwned>(method: &'static str, value: Value) -> Result<T, UnexpectedReply> {
    serde_json::from_value(value).map_err(|error| UnexpectedReply { method, reason: error.to_string() })
}

/// An object with one more field, if it has a value.
fn with<T: Serialize>(mut object: Value, key: &str, value: Option<&T>) -> Value {
    if let (Value::Object(fields), Some(value)) = (&mut object, value) {
        fields.insert(key.to_owned(), json!(value));
    }
    object
}

fn without_nulls(mut value: Value) -> Value {
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| !value.is_null());
    }
    value
}

fn name(parameters: &mut Parameters, parameter: &str) -> Result<String, Error> {
    let name: String = parameters.required(parameter)?;
    if name.is_empty() { Err(Error::invalid(parameter)) } else { Ok(name) }
}

fn config_text(parameters: &mut Parameters) -> Result<ConfigText, Error> {
    Ok(ConfigText { file: name(parameters, "file")?, text: parameters.required("text")? })
}

fn keep_runtime(parameters: &mut Parameters) -> Result<bool, Error> {
    Ok(parameters.optional("keep_runtime")?.unwrap_or_default())
}

fn config_parameters(config: &ConfigText, keep_runtime: bool) -> Value {
    json!({"file": config.file, "text": config.text, "keep_runtime": keep_runtime})
}

fn vlan(parameters: &mut Parameters) -> Result<u16, Error> {
    optional_vlan(parameters)?.ok_or_else(|| Error::invalid("vlan"))
}

fn optional_vlan(parameters: &mut Parameters) -> Result<Option<u16>, Error> {
    match parameters.optional("vlan")? {
        Some(vlan) if !is_vlan_id(vlan) => Err(Error::invalid("vlan")),
        vlan => Ok(vlan),
    }
}

fn mac(parameters: &mut Parameters) -> Result<Mac, Error> {
    parameters.required::<String>("mac")?.parse().map_err(|_| Error::invalid("mac"))
}
