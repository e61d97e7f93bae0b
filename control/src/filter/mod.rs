//! Filter expressions in tcpdump's syntax (pcap-filter(7)), compiled to programs of the switch.
//!
//! libpcap compiles an expression for an Ethernet capture without an interface (a dead handle), so that a program reads
//! everything from the bytes of the frame. Before that, [`words`] checks the expression word by word. An expression
//! with a name that libpcap would look up at a resolver is refused, because the control thread must not wait. An
//! expression with the word `vlan` sees frames as they are on the wire; any other expression sees frames without their
//! outer tag.
//!
//! Invariants: an expression is at most [`MAX_BYTES`] long, which bounds the time libpcap takes (about 0.1 s on one CPU
//! for a list of hosts); a configuration has at most [`MAX_TOTAL_BYTES`] of expressions. The program of an expression
//! depends only on the expression and on the names of ports and protocols in the system's files. Errors are one line.

mod cache;
mod libpcap;
mod words;

use std::sync::Arc;

use labsw_switch::filter::{Filter, FilterError, Form};

pub use cache::{BudgetExceeded, with_budget};
pub use libpcap::compile as instructions;
use words::Words;

/// The longest expression, bytes.
pub const MAX_BYTES: usize = 2048;
/// The longest sum of expressions in one configuration, in bytes.
pub const MAX_TOTAL_BYTES: usize = 256 << 10;

/// Why an expression is not a filter.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum CompileError {
    /// The expression is empty.
    #[error("the expression is empty; leave the filter out for all frames")]
    Empty,
    /// The expression is too long.
    #[error("the expression has {0} bytes; at most {MAX_BYTES} are allowed")]
    TooLong(usize),
    /// The expression has a character that is not part of the language.
    #[error("character {0:?} can't stand in an expression")]
    Character(char),
    /// The expression has a name that libpcap would look up at a resolver.
    #[error(
        "{0:?} is no word of the filter language{alike}, and names of hosts and networks are not looked up; write the \
         address",
        alike = words::alike(.0)
    )]
    Name(String),
    /// libpcap refuses the expression: its message.
    #[error("{0}")]
    Refused(String),
    /// The switch can't run the program that libpcap made.
    #[error("{0}")]
    Program(#[from] FilterError),
}

/// An expression and its program.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Expression {
    text: String,
    filter: Arc<Filter>,
}

impl Expression {
    /// Compiles an expression.
    ///
    /// # Errors
    /// The same as for [`compile`].
    pub fn new(text: &str) -> Result<Expression, CompileError> {
        Ok(Expression { text: text.to_owned(), filter: Arc::new(compile(text)?) })
    }

    /// The text of the expression.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// The compiled program.
    pub fn filter(&self) -> &Arc<Filter> {
        &self.filter
    }
}

/// Compiles an expression.
///
/// # Errors
/// The text is not a valid expression, or not usable for frames in a switch; see [`CompileError`].
pub fn compile(expression: &str) -> Result<Filter, CompileError> {
    if expression.trim().is_empty() {
        return Err(CompileError::Empty);
    }
    if expression.len() > MAX_BYTES {
        return Err(CompileError::TooLong(expression.len()));
    }
    let is_foreign = |c: &char| !c.is_ascii() || (c.is_ascii_control() && !matches!(c, '\t' | '\n' | '\r'));
    if let Some(character) = expression.chars().find(is_foreign) {
        return Err(CompileError::Character(character));
    }
    if let Some(filter) = cache::get(expression) {
        return Ok(filter);
    }
    cache::check_budget()?;
    let words = Words::of(expression);
    if let Some(name) = words.name {
        return Err(CompileError::Name(name));
    }
    let program = libpcap::compile(expression)?;
    let filter = Filter::new(&program, if words.says_vlan { Form::Tagged } else { Form::Untagged })?;
    cache::put(expression, &filter);
    Ok(filter)
}

#[cfg(test)]
mod tests;
