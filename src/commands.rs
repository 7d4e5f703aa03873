//! What the commands do once their arguments are settings.

use std::{
    future::Future,
    io::{self, Write as _},
    process::ExitCode,
};

pub mod check;
#[cfg(feature = "emulator")]
pub mod demo;
pub mod describe;
pub mod healthcheck;
pub mod serve;

/// The command could not start, or failed.
const FAILED: u8 = 1;
/// The configuration is not valid.
const INVALID: u8 = 2;
/// What Rust itself exits with after a panic.
const PANICKED: u8 = 101;

/// Runs a command to its end, in a runtime of its own.
pub fn block_on(command: impl Future<Output = ExitCode> + Send + 'static) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return failed(&format!("cannot start the runtime: {error}")),
    };
    // As a task among the others: the main thread would have to be woken for each connection that is accepted.
    let code = match runtime.block_on(runtime.spawn(command)) {
        Ok(code) => code,
        // The panic has been told where it happened.
        Err(_panic) => ExitCode::from(PANICKED),
    };
    // A name look-up that hangs in a blocking thread must not hold up the exit.
    runtime.shutdown_background();
    code
}

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

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread, time::Duration};

    use super::*;

    /// As the system's look-up of a name does when no name server answers.
    #[test]
    fn a_thread_that_hangs_does_not_hold_up_the_end() {
        let (release, hang) = mpsc::channel::<()>();
        let (tell, ended) = mpsc::channel();
        thread::spawn(move || {
            let code = block_on(async {
                let (started, is_running) = tokio::sync::oneshot::channel();
                tokio::task::spawn_blocking(move || {
                    started.send(()).unwrap();
                    // Until the test is over.
                    let _ = hang.recv();
                });
                is_running.await.unwrap();
                ExitCode::SUCCESS
            });
            tell.send(code).unwrap();
        });
        assert_eq!(ended.recv_timeout(Duration::from_secs(20)), Ok(ExitCode::SUCCESS));
        drop(release);
    }
}
