//! What the commands do once their arguments are settings.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

#[cfg(feature = "emulator")]
pub mod demo;
pub mod describe;
pub mod healthcheck;
pub mod serve;

/// The command could not start, or failed.
const FAILED: u8 = 1;
/// The configuration is not valid.
const INVALID: u8 = 2;

/// Exit code of a command that failed, after saying why.
pub fn failed(error: &dyn std::fmt::Display) -> ExitCode {
    complain(error);
    ExitCode::from(FAILED)
}

/// Exit code for a configuration that is not valid, after saying what is wrong.
pub fn invalid(problems: &dyn std::fmt::Display) -> ExitCode {
    complain(problems);
    ExitCode::from(INVALID)
}

fn complain(words: &dyn std::fmt::Display) {
    // If stderr is gone there is nobody to tell.
    let _told = writeln!(io::stderr(), "glacier-gateway: {words}");
}
