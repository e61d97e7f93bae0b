//! Requests: every method of the interface, with its parameters validated.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use super::change::Change;
use super::parameters::{frame, name, optional_vlan};
use super::{CaptureSpec, ConfigText, Error, INTERFACE, WantedConfig};
use crate::model::{Tree, de};

/// A call of a method of `org.labsw.Switch1`. The interface description says what each method does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub enum Request {
    /// The switch at a glance → [`Reply::Status`](super::Reply::Status).
    GetStatus,
    /// All workers → [`Reply::Workers`](super::Reply::Workers).
    ListWorkers,
    /// All ports → [`Reply::Ports`](super::Reply::Ports).
    ListPorts,
    /// One port → [`Reply::Port`](super::Reply::Port).
    ShowPort {
        /// Name of the port.
        #[serde(deserialize_with = "name")]
        name: String,
    },
    /// All VLANs that a port names → [`Reply::Vlans`](super::Reply::Vlans).
    ListVlans,
    /// The forwarding database → [`Reply::Fdb`](super::Reply::Fdb).
    ListFdb {
        /// Only this VLAN.
        #[serde(default, deserialize_with = "optional_vlan", skip_serializing_if = "Option::is_none")]
        vlan: Option<u16>,
        /// Only entries at this port.
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<String>,
    },
    /// The state of multicast snooping → [`Reply::Multicast`](super::Reply::Multicast).
    ListMulticast {
        /// Only this VLAN.
        #[serde(default, deserialize_with = "optional_vlan", skip_serializing_if = "Option::is_none")]
        vlan: Option<u16>,
    },
    /// All mirrors → [`Reply::Mirrors`](super::Reply::Mirrors).
    ListMirrors,
    /// One mirror → [`Reply::Mirror`](super::Reply::Mirror).
    ShowMirror {
        /// Name of the mirror.
        #[serde(deserialize_with = "name")]
        name: String,
    },
    /// All sensors in the wires of ports → [`Reply::Inlines`](super::Reply::Inlines).
    ListInlines,
    /// One sensor → [`Reply::Inline`](super::Reply::Inline).
    ShowInline {
        /// Name of the sensor.
        #[serde(deserialize_with = "name")]
        name: String,
    },
    /// All impairments → [`Reply::Impairments`](super::Reply::Impairments).
    ListImpairments,
    /// Counters → [`Reply::Stats`](super::Reply::Stats). With `more` the server repeats the request every interval.
    GetStats {
        /// Only this port.
        #[serde(skip_serializing_if = "Option::is_none")]
        port: Option<String>,
        /// Milliseconds between the replies of a stream; used by the server, not by the handler.
        #[serde(skip_serializing_if = "Option::is_none")]
        interval_milliseconds: Option<u32>,
    },
    /// The steps and the outcome for a frame → [`Reply::Trace`](super::Reply::Trace).
    TraceFrame {
        /// Name of the port that the frame would arrive at.
        #[serde(deserialize_with = "name")]
        port: String,
        /// The frame, without the frame check sequence.
        #[serde(with = "frame")]
        frame: Vec<u8>,
    },
    /// The running configuration → [`Reply::Config`](super::Reply::Config).
    ShowConfig,
    /// Checks that a configuration could be applied → [`Reply::Awaited`](super::Reply::Awaited).
    CheckConfig(ConfigText),
    /// The changes that applying a configuration would make → [`Reply::Changes`](super::Reply::Changes).
    DiffConfig(WantedConfig),
    /// Frames as they pass or are dropped → a stream of [`Reply::CapturePiece`](super::Reply::CapturePiece).
    /// [`Handler::capture`](super::Handler::capture) answers this request, not [`Handler::call`](super::Handler::call).
    Capture(CaptureSpec),
    /// The running captures → [`Reply::Captures`](super::Reply::Captures).
    ListCaptures,
    /// Events, as they happen → [`Reply::Events`](super::Reply::Events), many. Not for
    /// [`Handler::call`](super::Handler::call).
    Monitor {
        /// Begin with so many events that have happened already.
        #[serde(skip_serializing_if = "Option::is_none")]
        last: Option<u64>,
    },
    /// A method that changes the switch.
    #[serde(skip)]
    Change(Change),
}

impl Request {
    /// Reads a call. A null parameter counts as left out; a null in `settings` unsets a key.
    ///
    /// # Errors
    /// [`Error::InterfaceNotFound`], [`Error::MethodNotFound`], or [`Error::InvalidParameter`] naming the parameter.
    pub fn parse(full_method: &str, parameters: Map<String, Value>) -> Result<Request, Error> {
        let (interface, method) = full_method.rsplit_once('.').unwrap_or(("", full_method));
        if interface != INTERFACE {
            return Err(Error::InterfaceNotFound { interface: interface.to_owned() });
        }
        let given = parameters.get("settings").and_then(Value::as_object).cloned();
        let parameters = Tree::from(&Value::Object(parameters));
        let mut request = if de::keys::<Change>().contains(&method) {
            de::call(method, &parameters).map(Request::Change)
        } else if de::keys::<Request>().contains(&method) {
            de::call(method, &parameters)
        } else {
            return Err(Error::MethodNotFound { method: full_method.to_owned() });
        };
        if let (
            Some(given),
            Ok(Request::Change(
                Change::AddPort { settings, .. }
                | Change::SetPort { settings, .. }
                | Change::SetImpairment { settings, .. },
            )),
        ) = (given, &mut request)
        {
            // A tree has no nulls.
            *settings = given;
        }
        let request = request.map_err(Error::invalid)?;
        match &request {
            Request::Capture(spec) => spec.check().map(|()| request),
            _ => Ok(request),
        }
    }

    /// Name of the method, without the interface.
    pub fn method(&self) -> &'static str {
        let (method, _) = self.to_call();
        let methods = [de::keys::<Request>(), de::keys::<Change>()];
        methods.concat().into_iter().find(|known| *known == method).unwrap_or_default()
    }

    /// The parameters, as sent on the socket.
    pub fn to_parameters(&self) -> Value {
        self.to_call().1
    }

    /// The method and the parameters: serde writes a variant as an object with its name, or as its name alone.
    fn to_call(&self) -> (String, Value) {
        let call = match self {
            Request::Change(change) => serde_json::to_value(change),
            request => serde_json::to_value(request),
        };
        match call {
            Ok(Value::Object(variant)) => variant.into_iter().next().unwrap_or_default(),
            Ok(Value::String(method)) => (method, Value::Object(Map::new())),
            _ => (String::new(), Value::Null),
        }
    }
}
