//! `labsw-ctl graph`: the lab as a drawing, on standard output.

use std::path::Path;

use clap::{Args, ValueEnum};

use super::output::Output;
use super::picture::{Commands, Picture, mermaid, svg};
use super::session::{Failure, Session};

/// The form of the drawing.
#[derive(Debug, Args)]
pub(super) struct Arguments {
    /// The format of the drawing.
    #[arg(long, value_enum, default_value_t = Format::Svg)]
    format: Format,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Format {
    /// An image, for light and dark pages.
    Svg,
    /// A flowchart for Markdown.
    Mermaid,
}

/// Draws the lab; as JSON, prints the picture's data.
pub(super) fn run(arguments: &Arguments, socket: &Path, output: &mut Output) -> Result<(), Failure> {
    let commands = Commands::new(socket);
    let picture = Picture::ask(&mut Session::open(socket)?, &commands)?;
    if output.is_json() {
        return output.pretty(&picture);
    }
    let text = match arguments.format {
        Format::Svg => svg::draw(&picture),
        Format::Mermaid => mermaid::draw(&picture),
    };
    output.bytes(text.as_bytes())
}
