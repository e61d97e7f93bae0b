//! The tokens of the control loop's events.

use labsw_switch::PortId;
use mio::Token;

/// The workers' events.
pub(super) const WORKER_EVENTS: Token = Token(0);
/// SIGTERM and SIGINT.
pub(super) const SIGNALS: Token = Token(1);
/// News of network links.
pub(super) const LINK_EVENTS: Token = Token(2);
/// SIGHUP.
pub(super) const RELOAD: Token = Token(3);
/// The control socket; the tokens of its clients follow.
pub(super) const CONTROL_SOCKET: Token = Token(4);
/// The socket for take-overs.
pub(super) const TAKE_OVER: Token = Token(FIRST_PORT - 1);
/// Two tokens per port (listener, connection) begin here.
pub(super) const FIRST_PORT: usize = 1 << 20;

/// The tokens of a port's listener and connection.
pub(super) fn port_tokens(id: PortId) -> [Token; 2] {
    let first = FIRST_PORT + 2 * id.index();
    [Token(first), Token(first + 1)]
}

/// The slot of the port that a token belongs to.
pub(super) fn slot_of(token: Token) -> usize {
    token.0.saturating_sub(FIRST_PORT) / 2
}
