//! Child processes that do not outlive this one, however it ends.

use std::ffi::OsStr;
#[cfg(target_os = "linux")]
use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// A process under a shell that kills it when the pipe from this process is closed: by [`Drop`], or when this
/// process ends, even by SIGKILL.
#[derive(Debug)]
pub(crate) struct Guarded {
    shell: Child,
    pid: Pid,
    pipe: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

// Arguments: the log, the directory to remove afterwards, the command. Its own process group keeps the
// terminal's Ctrl-C from ending the guard alone.
const GUARD: &str = r#"
log=$1; data=$2; shift 2
exec 3<&0 2>/dev/null
"$@" </dev/null >>"$log" 2>&1 3<&- &
child=$!
{ read -r _ <&3; kill -KILL "$child"; } &
guard=$!
trap '' PIPE
echo "$child"
wait "$child"
status=$?
kill "$guard"
wait "$guard"
echo "$status"
read -r _ <&3 || rm -rf "$data"
"#;

impl Guarded {
    /// Starts `command` and appends its output to `log`. `data` is removed when it ends, unless
    /// [`Self::wait`] is called.
    pub(crate) fn start(
        command: impl IntoIterator<Item = impl AsRef<OsStr>>,
        log: &Path,
        data: &Path,
    ) -> io::Result<Self> {
        let mut shell = Command::new("sh")
            .args(["-c", GUARD, "guard"])
            .args([log, data])
            .args(command)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .process_group(0)
            .spawn()?;
        let pipe = shell.stdin.take();
        let mut output = BufReader::new(shell.stdout.take().expect("stdout is piped"));
        let mut line = String::new();
        output.read_line(&mut line)?;
        let pid = line.trim().parse().ok().and_then(Pid::from_raw);
        let pid = pid
            .ok_or_else(|| io::Error::other(format!("the guard printed {line:?} instead of a process id")))?;
        Ok(Self { shell, pid, pipe, output })
    }

    pub(crate) fn signal(&self, signal: Signal) -> io::Result<()> {
        kill_process(self.pid, signal).map_err(io::Error::from)
    }

    /// Suspends it, and returns once none of its threads runs any more. The signal alone reaches them one by
    /// one: on a busy machine, a broker may still answer then.
    pub(crate) fn suspend(&self) -> io::Result<()> {
        self.signal(Signal::STOP)?;
        // At least a minute.
        for _ in 0..60_000 {
            if self.is_suspended()? {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(1));
        }
        Err(io::Error::new(io::ErrorKind::TimedOut, "a thread did not stop in a minute"))
    }

    #[cfg(target_os = "linux")]
    fn is_suspended(&self) -> io::Result<bool> {
        for task in fs::read_dir(format!("/proc/{}/task", self.pid))? {
            match fs::read_to_string(task?.path().join("stat")) {
                // After the name in parentheses, which may contain any character: stopped, or ended.
                Ok(stat) => {
                    if stat.rsplit_once(") ").is_none_or(|(_, rest)| !rest.starts_with(['T', 'Z', 'X'])) {
                        return Ok(false);
                    }
                }
                // It has ended since the directory was listed.
                Err(e) if matches!(e.kind(), io::ErrorKind::NotFound) || e.raw_os_error() == Some(3) => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Elsewhere, the first thread stands for all.
    #[cfg(not(target_os = "linux"))]
    fn is_suspended(&self) -> io::Result<bool> {
        let output = Command::new("ps").args(["-o", "state=", "-p", &self.pid.to_string()]).output()?;
        Ok(output.stdout.trim_ascii().starts_with(b"T"))
    }

    /// Returns whether it is still running.
    pub(crate) fn is_running(&self) -> bool {
        rustix::process::test_kill_process(self.pid).is_ok()
    }

    /// Waits until it ends and keeps its data. Returns the exit status of the shell (128 + signal).
    pub(crate) fn wait(mut self) -> io::Result<String> {
        let mut status = String::new();
        self.output.read_line(&mut status)?;
        if let Some(mut pipe) = self.pipe.take() {
            pipe.write_all(b"keep\n")?;
        }
        self.shell.wait()?;
        Ok(status.trim().to_owned())
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.pipe = None;
        // The guard cleans up regardless of whether this succeeds.
        let _ = self.shell.wait();
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::path::PathBuf;

    use super::*;
    use crate::kafka::install;

    #[test]
    fn closing_the_pipe_ends_the_process_and_removes_its_data() {
        let (dir, process) = sleeper("dropped");
        let pid = process.pid;
        assert!(process.is_running());
        // The system closes the pipe in the same way when this process ends.
        drop(process);
        assert!(rustix::process::test_kill_process(pid).is_err(), "{pid:?} is still running");
        assert!(!dir.join("data").exists());
        assert_eq!(fs::read_to_string(dir.join("log")).unwrap(), "started\n");
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn waiting_keeps_the_data() {
        for (signal, status) in [(Signal::KILL, "137"), (Signal::TERM, "143")] {
            let (dir, process) = sleeper("waited");
            process.signal(signal).unwrap();
            assert_eq!(process.wait().unwrap(), status);
            assert!(dir.join("data").exists());
            fs::remove_dir_all(dir).unwrap();
        }
    }

    #[test]
    fn a_suspended_process_does_nothing() {
        let (dir, process) = sleeper("suspended");
        for _ in 0..3 {
            process.suspend().unwrap();
            assert!(process.is_suspended().unwrap());
            process.signal(Signal::CONT).unwrap();
        }
        process.signal(Signal::KILL).unwrap();
        process.wait().unwrap();
        fs::remove_dir_all(dir).unwrap();
    }

    fn sleeper(name: &str) -> (PathBuf, Guarded) {
        let dir = install::root().join(format!("{name}-{}", install::uuid()));
        fs::create_dir_all(dir.join("data")).unwrap();
        let log = dir.join("log");
        let process =
            Guarded::start(["sh", "-c", "echo started; exec sleep 1000"], &log, &dir.join("data")).unwrap();
        while fs::read_to_string(&log).unwrap_or_default().is_empty() {
            thread::yield_now();
        }
        (dir, process)
    }
}
