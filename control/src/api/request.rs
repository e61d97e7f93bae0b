//! Requests: every method of the interface, with its parameters validated.

use labsw_switch::Mac;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

use super::change::{Change, config_parameters, without_nulls};
use super::parameters::Parameters;
use super::vlan::is_vlan_id;
use super::{CaptureSpec, Error, INTERFACE, Reply, Source, UnexpectedReply, frame_text, parse_frame};

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
    /// Frames, as they pass or are dropped → [`Reply::CapturePiece`], many. Not for
    /// [`Handler::call`](super::Handler::call).
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
                to: read.optional("to")?,
                to_vlan: read.optional("to_vlan")?,
                force: read.optional("force")?.unwrap_or_default(),
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

fn read<T: DeserializeOwned>(method: &'static str, value: Value) -> Result<T, UnexpectedReply> {
    serde_json::from_value(value).map_err(|error| UnexpectedReply { method, reason: error.to_string() })
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
