//! The control tool; see `labsw_control::ctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    labsw_control::ctl::main()
}
