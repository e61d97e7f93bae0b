//! The control tool. What it does is in `labsw_control::ctl`.

use std::process::ExitCode;

fn main() -> ExitCode {
    labsw_control::ctl::main()
}
