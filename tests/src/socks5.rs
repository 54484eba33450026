//! A SOCKS5 server as a child process: microsocks, an independent implementation.

use std::ffi::OsString;
use std::net::TcpStream;
use std::time::Duration;

use crate::kafka::{free_port, install};
use crate::process::Guarded;

/// A running proxy. It ends when this value is dropped or this process ends.
#[derive(Debug)]
pub struct Socks5 {
    port: u16,
    _process: Guarded,
}

impl Socks5 {
    /// Starts a proxy on a free port of 127.0.0.1 and waits until it listens. With a `login`, it requires
    /// this user and password.
    ///
    /// # Panics
    ///
    /// If it cannot be started.
    pub fn start(login: Option<(&str, &str)>) -> Self {
        Self::try_start(login).unwrap_or_else(|e| panic!("no SOCKS5 proxy: {e}"))
    }

    /// Returns `host:port`.
    pub fn address(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }

    fn try_start(login: Option<(&str, &str)>) -> Result<Self, String> {
        let run = install::RUN.as_ref().map_err(Clone::clone)?;
        let port = free_port();
        let dir = run.dir.join(format!("socks5-{port}"));
        std::fs::create_dir(&dir).map_err(|e| format!("{}: {e}", dir.display()))?;
        let port_text = port.to_string();
        // Bound to an IPv4 address, it connects to the IPv4 address of a name that has both, such as
        // `localhost`.
        let mut command = vec!["microsocks", "-i", "127.0.0.1", "-b", "127.0.0.1", "-p", &port_text];
        if let Some((user, password)) = login {
            command.extend(["-u", user, "-P", password]);
        }
        let command = command.into_iter().map(OsString::from);
        let log = dir.join("log");
        let process = Guarded::start(command, &log, &dir.join("data")).map_err(|e| e.to_string())?;
        for _ in 0..400 {
            if TcpStream::connect(("127.0.0.1", port)).is_ok() {
                return Ok(Self { port, _process: process });
            }
            if !process.is_running() {
                break;
            }
            std::thread::sleep(Duration::from_millis(25));
        }
        let output = std::fs::read_to_string(&log).unwrap_or_default();
        Err(format!("microsocks, a package of Debian, does not listen on {port}: {output}"))
    }
}
