//! A client that goes on with another process: its connection, and what was read from it and not answered, answered and
//! not written.
//!
//! A client whose call waits for a filter, or whose stream can't go on, has to connect again.

use std::os::fd::AsFd;
use std::time::Instant;

use labsw_dataplane::handover::{Given, HandoverError};

use super::{Connection, Stream, stream_of};
use crate::api::{Handler, INTERFACE, Request};
use crate::takeover::client::{ClientRecord, StreamRecord};

impl Connection {
    /// The client, as it is handed over. Nothing changes here.
    pub(in crate::varlink) fn hand_over<'a>(&'a self, given: &mut Given<'a>) -> Option<ClientRecord> {
        if self.is_own || self.held.is_some() {
            return None;
        }
        let stream = match &self.stream {
            None => None,
            Some(Stream::Repeat { request, .. }) => {
                let method = format!("{INTERFACE}.{}", request.method());
                let serde_json::Value::Object(parameters) = request.to_parameters() else { return None };
                Some(StreamRecord::Repeat { method, parameters })
            }
            Some(Stream::Feed(feed)) => Some(StreamRecord::Feed(feed.hand_over()?)),
        };
        Some(ClientRecord {
            socket: given.put(self.socket.as_fd()),
            input: self.input[..].into(),
            output: self.output.get(self.written..).unwrap_or_default().into(),
            ending: self.ending,
            stream,
        })
    }

    /// Goes on with a client of another process.
    pub(in crate::varlink) fn take_over(
        &mut self,
        record: ClientRecord,
        now: Instant,
        handler: &mut dyn Handler,
    ) -> Result<(), HandoverError> {
        let garbled = || HandoverError::new("a client of the control socket is garbled");
        self.input = record.input.decode().ok_or_else(garbled)?;
        self.output = record.output.decode().ok_or_else(garbled)?;
        self.ending = record.ending;
        self.stream = match record.stream {
            None => None,
            Some(StreamRecord::Repeat { method, parameters }) => {
                let request = Request::parse(&method, parameters).map_err(HandoverError::new)?;
                stream_of(request, now)
            }
            Some(StreamRecord::Feed(state)) => {
                Some(Stream::Feed(handler.go_on(&self.peer, state).map_err(HandoverError::new)?))
            }
        };
        // The events that told the other process of what it has not done yet do not come again.
        self.again = true;
        Ok(())
    }
}
