//! Completion in a shell: commands, options, and the names that the running switch knows.
//!
//! **How it works.** `labsw-ctl completions SHELL` prints a script by which the shell runs labsw-ctl at each
//! completion, with [`VARIABLE`] set and the words so far as arguments. clap_complete answers from the commands of the
//! parser. An argument that holds the name of a port, a mirror, a sensor, a profile or a VLAN is told by its identifier
//! ([`Names::of`]); for such an argument the switch is asked.
//!
//! **Limits.** One request, and no names if the switch has not answered after [`PATIENCE`]. No message: a shell prints
//! it into the line that is typed.

use std::ffi::OsString;
use std::path::PathBuf;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use clap::builder::StyledStr;
use clap::{Arg, Command};
use clap_complete::Shell;
use clap_complete::engine::{ArgValueCandidates, CompletionCandidate};
use clap_complete::env::{CompleteEnv, Shells};
use labsw_switch::impair::Profile;

use super::USUAL_SOCKET;
use super::output::Output;
use super::session::{Failure, Session};
use crate::api::{Reply, Request};

/// The environment variable by which the shell's script asks for completions.
const VARIABLE: &str = "LABSW_COMPLETE";
/// The variable in which the scripts of bash, zsh and elvish give the number of the word that is completed; the others
/// complete the last word.
const WORD: &str = "_CLAP_COMPLETE_INDEX";
/// The longest wait for the switch: whoever types feels a longer one.
const PATIENCE: Duration = Duration::from_millis(200);
const PROGRAM: &str = "labsw-ctl";

/// A kind of names that the switch knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Names {
    Ports,
    /// The ports that have an impairment.
    ImpairedPorts,
    Mirrors,
    Sensors,
    Profiles,
    Vlans,
}

/// If a shell asks for completions, prints them and ends the program.
pub(super) fn answer(commands: fn() -> Command) {
    let completed = move || {
        let mut commands = commands();
        // Adds `help`, `--help` and the options of every command, so that they are treated as all others are.
        commands.build();
        with_names(commands, "", !begins_with_a_dash(&words()))
    };
    CompleteEnv::with_factory(completed).var(VARIABLE).complete();
}

/// Prints the script for a shell.
///
/// # Errors
/// Those of writing.
pub(super) fn script(shell: Shell, output: &mut Output) -> Result<(), Failure> {
    let shells = Shells::builtins();
    let completer = shells.completer(&shell.to_string()).ok_or(Failure::Usage("no completions for this shell"))?;
    let mut script = Vec::new();
    completer.write_registration(VARIABLE, PROGRAM, PROGRAM, PROGRAM, &mut script)?;
    if shell == Shell::Zsh {
        // At the first completion zsh runs the file as the body of a function, and expects an answer from that, too.
        script.extend(b"[ \"$funcstack[1]\" = _labsw-ctl ] && _clap_dynamic_completer_labsw_ctl \"$@\"\n");
    }
    output.bytes(&script)
}

/// The command and its subcommands, with the candidates of each argument that holds a name. `above` is the name of the
/// command above. With `hide_options`, options are offered only where nothing else is.
fn with_names(command: Command, above: &str, hide_options: bool) -> Command {
    let (verb, noun) = (command.get_name().to_owned(), above.to_owned());
    let command = command.mut_args(|argument| {
        let hidden = argument.is_hide_set() || (hide_options && !argument.is_positional());
        let argument = argument.hide(hidden);
        match Names::of(&argument, &noun, &verb) {
            Some(names) => argument.add(ArgValueCandidates::new(move || names.known())),
            None => argument,
        }
    });
    command.mut_subcommands(|below| with_names(below, &verb, hide_options))
}

/// The words of the line that is completed.
fn words() -> Vec<OsString> {
    std::env::args_os().skip_while(|argument| argument != "--").skip(1).collect()
}

/// True if the word that is completed begins as an option does.
fn begins_with_a_dash(words: &[OsString]) -> bool {
    let number = std::env::var(WORD).ok().and_then(|number| number.parse().ok());
    let word = words.get(number.unwrap_or_else(|| words.len().saturating_sub(1)));
    word.is_some_and(|word| word.to_string_lossy().starts_with('-'))
}

impl Names {
    /// The names that an argument of `noun verb` holds; `noun` is the program's name where there is no verb.
    fn of(argument: &Arg, noun: &str, verb: &str) -> Option<Names> {
        match (argument.get_id().as_str(), noun, verb) {
            ("name", "port", "add") => None,
            ("port", "impair", "clear") => Some(Names::ImpairedPorts),
            ("name" | "names", "port", _) | ("port" | "ports" | "as_port" | "split", _, _) => Some(Names::Ports),
            ("sources" | "to" | "by", "mirror", _) | ("of" | "through", "inline", _) => Some(Names::Ports),
            ("name" | "names", "mirror", _) => Some(Names::Mirrors),
            ("name" | "names", "inline", _) => Some(Names::Sensors),
            ("profile", "impair", _) => Some(Names::Profiles),
            ("vlan" | "vlans" | "to_vlan" | "outer_vlan", _, _) => Some(Names::Vlans),
            _ => None,
        }
    }

    /// The names that the running switch knows; none if it does not answer in time.
    fn known(self) -> Vec<CompletionCandidate> {
        let request = match self {
            Names::Ports => Request::ListPorts,
            Names::ImpairedPorts => Request::ListImpairments,
            Names::Mirrors => Request::ListMirrors,
            Names::Sensors => Request::ListInlines,
            Names::Profiles => Request::ShowConfig,
            Names::Vlans => Request::ListVlans,
        };
        ask(request).map(names_in).unwrap_or_default()
    }
}

/// The names in a reply, each with a word about it.
fn names_in(reply: Reply) -> Vec<CompletionCandidate> {
    let named = |name: &str, about: String| CompletionCandidate::new(name).help(Some(StyledStr::from(about)));
    match reply {
        Reply::Ports(list) => {
            list.ports.iter().map(|port| named(&port.name, format!("{}, {}", port.port_type, port.state))).collect()
        }
        Reply::Mirrors(list) => {
            list.mirrors.iter().map(|mirror| named(&mirror.name, format!("to {}", mirror.destination()))).collect()
        }
        Reply::Inlines(list) => {
            list.inlines.iter().map(|sensor| named(&sensor.name, format!("in the wire of {}", sensor.of))).collect()
        }
        Reply::Impairments(list) => {
            let mut ports: Vec<String> = list.impairments.into_iter().map(|impairment| impairment.port).collect();
            ports.dedup();
            ports.into_iter().map(CompletionCandidate::new).collect()
        }
        Reply::Vlans(list) => {
            let about = |members: usize| if members == 1 { "1 port".to_owned() } else { format!("{members} ports") };
            list.vlans.iter().map(|vlan| named(&vlan.vlan.to_string(), about(vlan.ports.len()))).collect()
        }
        Reply::Config(shown) => {
            let own = shown.config.get("profiles").and_then(|profiles| profiles.as_object());
            let own = own.into_iter().flat_map(|profiles| profiles.keys().cloned());
            let built_in = Profile::BUILT_IN.iter().map(|profile| profile.name.to_owned());
            own.chain(built_in).map(CompletionCandidate::new).collect()
        }
        _ => Vec::new(),
    }
}

/// Asks the switch, and waits for the reply for at most [`PATIENCE`].
fn ask(request: Request) -> Option<Reply> {
    let socket = socket(&words(), std::env::var_os("LABSW_SOCKET"));
    let (sender, reply) = mpsc::channel();
    let asking = move || {
        let answered = Session::open(&socket).and_then(|mut session| session.call(&request));
        // The receiver is gone if the reply took too long.
        let _ = sender.send(answered.ok());
    };
    thread::Builder::new().name("completion".to_owned()).spawn(asking).ok()?;
    reply.recv_timeout(PATIENCE).ok().flatten()
}

/// The control socket of the command that is typed. bash gives `--socket=PATH` as three words.
fn socket(words: &[OsString], variable: Option<OsString>) -> PathBuf {
    let typed = words.iter().enumerate().find_map(|(number, word)| {
        let value = word.to_str()?.strip_prefix("--socket")?;
        let next = |by: usize| words.get(number + by).cloned();
        match value.strip_prefix('=') {
            Some(value) => Some(OsString::from(value)),
            None if !value.is_empty() => None,
            None => next(1).and_then(|word| if word == "=" { next(2) } else { Some(word) }),
        }
    });
    typed.or(variable).map_or_else(|| PathBuf::from(USUAL_SOCKET), PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_socket_is_the_one_of_the_line() {
        let of = |line: &str| socket(&line.split(' ').map(OsString::from).collect::<Vec<_>>(), Some("/run/env".into()));
        assert_eq!(of("labsw-ctl port show"), PathBuf::from("/run/env"));
        assert_eq!(of("labsw-ctl --socket /run/a port"), PathBuf::from("/run/a"));
        assert_eq!(of("labsw-ctl port --socket=/run/a show"), PathBuf::from("/run/a"));
        assert_eq!(of("labsw-ctl port --socket = /run/a show"), PathBuf::from("/run/a"));
        assert_eq!(socket(&[], None), PathBuf::from(USUAL_SOCKET));
    }
}
