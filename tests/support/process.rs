//! `carillon serve`, the real program, as a process of a test's own.
#![allow(
    dead_code,
    reason = "several test binaries include this file, and each uses a part"
)]

use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};

/// Environment variables.
pub type Variables = Vec<(&'static str, String)>;

/// A running `carillon serve`; killed when dropped.
pub struct Process {
    child: Child,
    api: String,
    ops: String,
}

impl Process {
    /// Starts one, as [`command`] made it, on free ports.
    pub fn start(mut command: Command) -> Self {
        let (api, ops) = (free_address(), free_address());
        let child = command
            .arg("serve")
            .env("CARILLON_HTTP__LISTEN", &api)
            .env("CARILLON_OPS__LISTEN", &ops)
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self {
            child,
            api: format!("http://{api}"),
            ops: format!("http://{ops}"),
        }
    }

    /// Where its API is.
    pub fn api(&self) -> &str {
        &self.api
    }

    /// Where its operations listener is.
    pub fn ops(&self) -> &str {
        &self.ops
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// SIGKILL, and gone.
    pub fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// SIGTERM.
    pub fn tell_to_end(&self) {
        let pid = self.pid().to_string();
        let told = Command::new("kill").args(["-TERM", &pid]).status().unwrap();
        assert!(told.success());
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The program, with nothing in its environment that was not meant for it.
pub fn command(folder: &Path, variables: &Variables) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_carillon"));
    let log = std::env::var("CARILLON_TEST_LOG").unwrap_or_else(|_| "error,lapin=off".to_owned());
    command
        .current_dir(folder)
        .env_clear()
        .envs(std::env::vars().filter(|(name, _)| !name.starts_with("CARILLON_")))
        .envs(variables.iter().map(|(name, value)| (name, value)))
        .env("RUST_LOG", log);
    command
}

fn free_address() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listener.local_addr().unwrap().to_string()
}
