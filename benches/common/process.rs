//! A process that a bench starts: what it says, what it used, and its end.
//!
//! *Invariant: dropped, it is killed and waited for*, so that a failure leaves none behind.

use std::fs;
use std::io::{self, BufRead as _, BufReader, Read, Write as _};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context as _, anyhow, bail, ensure};
use tokio::io::{AsyncBufReadExt as _, BufReader as AsyncBufReader};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc;

/// Longest wait for anything that a process is to say or do.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// Parts of a second in which the kernel counts CPU time for programs (`USER_HZ`).
const TICKS_PER_S: f64 = 100.0;

const READY: &str = "ready";
const DONE: &str = "done";

/// Which of its outputs is listened to; the other one is this process's.
#[derive(Clone, Copy)]
pub enum Listen {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

type Output = Box<dyn Read + Send>;

/// A running process.
pub struct Process {
    name: &'static str,
    child: Child,
    said: mpsc::UnboundedReceiver<String>,
}

impl Process {
    /// Starts `command` and listens to it.
    pub fn start(name: &'static str, mut command: Command, listen: Listen) -> anyhow::Result<Self> {
        command.stdin(Stdio::piped());
        match listen {
            Listen::Stdout => command.stdout(Stdio::piped()),
            Listen::Stderr => command.stderr(Stdio::piped()),
        };
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let stdout = child.stdout.take().map(|output| Box::new(output) as Output);
        let stderr = child.stderr.take().map(|output| Box::new(output) as Output);
        let output = stdout.or(stderr).context("it has no output")?;
        let (sender, said) = mpsc::unbounded_channel();
        // Ends with the process.
        std::thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        Ok(Self { name, child, said })
    }

    /// Starts this executable in another role.
    pub fn start_self(name: &'static str, args: &[String]) -> anyhow::Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(args);
        Self::start(name, command, Listen::Stdout)
    }

    /// The next line it says.
    pub async fn line(&mut self) -> anyhow::Result<String> {
        let line = tokio::time::timeout(PATIENCE, self.said.recv()).await;
        let name = self.name;
        let line = line.map_err(|_| anyhow!("{name} said nothing for {PATIENCE:?}"))?;
        line.ok_or_else(|| anyhow!("{name} ended too soon"))
    }

    /// Waits for a line that says so.
    pub async fn says(&mut self, what: &str) -> anyhow::Result<()> {
        let line = self.line().await?;
        ensure!(line == what, "{} said {line}", self.name);
        Ok(())
    }

    /// Waits until one that runs [`when_told`] can begin.
    pub async fn ready(&mut self) -> anyhow::Result<()> {
        self.says(READY).await
    }

    /// Has it begin.
    pub fn begin(&mut self) -> anyhow::Result<()> {
        self.tell("begin")
    }

    /// Waits until it has done its work.
    pub async fn done(&mut self) -> anyhow::Result<()> {
        self.says(DONE).await
    }

    /// The lines it said that nobody asked for.
    pub fn unheard(&mut self) -> Vec<String> {
        std::iter::from_fn(|| self.said.try_recv().ok()).collect()
    }

    /// Says a line to it.
    pub fn tell(&mut self, line: &str) -> anyhow::Result<()> {
        let told = match &mut self.child.stdin {
            Some(input) => writeln!(input, "{line}"),
            None => Err(io::ErrorKind::NotConnected.into()),
        };
        told.with_context(|| format!("{} does not listen", self.name))
    }

    /// CPU seconds so far, user and system, of all its threads.
    pub fn cpu_s(&self) -> anyhow::Result<f64> {
        cpu_s(self.child.id()).with_context(|| format!("of {}", self.name))
    }

    /// The most memory it had at once, in MiB.
    pub fn peak_rss_mib(&self) -> anyhow::Result<f64> {
        let path = format!("/proc/{}/status", self.child.id());
        let status = fs::read_to_string(&path).with_context(|| path.clone())?;
        let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
        let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u32>().ok());
        Ok(f64::from(kib.context("no VmHWM in /proc")?) / 1024.0)
    }

    /// Tells it to stop (SIGTERM), and waits until it has ended in order.
    pub async fn stop(mut self) -> anyhow::Result<()> {
        // The standard library knows no other signal than SIGKILL.
        let kill = format!("kill -TERM {}", self.child.id());
        Command::new("sh").args(["-c", &kill]).status()?;
        let ended = async { while self.said.recv().await.is_some() {} };
        let ended = tokio::time::timeout(PATIENCE, ended).await;
        ended.map_err(|_| anyhow!("{} does not stop", self.name))?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{} ended with {status}", self.name);
        Ok(())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// CPU seconds so far, user and system, of all threads of a process.
pub fn cpu_s(pid: u32) -> anyhow::Result<f64> {
    let path = format!("/proc/{pid}/stat");
    let stat = fs::read_to_string(&path).context(path)?;
    // The second field is a name in parentheses, which may hold anything; the times are the
    // fields 14 and 15.
    let fields = stat.rsplit_once(')').context("no name")?.1;
    let mut times = fields.split_whitespace().skip(11);
    let mut ticks = || times.next()?.parse::<u32>().ok();
    let (user, system) = ticks().zip(ticks()).context("no times in /proc")?;
    Ok(f64::from(user + system) / TICKS_PER_S)
}

/// Ends in an error when this process is told to stop, so that what it started is ended.
pub async fn interrupted() -> anyhow::Result<()> {
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    bail!("interrupted")
}

/// Does `work` as a process that was started to do it: says when it is ready, begins when it
/// is told to, says when it is done, and ends when its input does.
pub async fn when_told(work: impl Future<Output = anyhow::Result<()>>) -> anyhow::Result<()> {
    let mut told = AsyncBufReader::new(tokio::io::stdin()).lines();
    say(READY);
    if told.next_line().await?.is_none() {
        return Ok(());
    }
    tokio::select! {
        done = work => done?,
        // Whoever started it is gone.
        _ = told.next_line() => return Ok(()),
    }
    say(DONE);
    told.next_line().await?;
    Ok(())
}

/// Says a line to the process that started this one.
pub fn say(line: &str) {
    let mut output = io::stdout().lock();
    // Whoever started it may be gone; then its input ends as well.
    let _ = writeln!(output, "{line}").and_then(|()| output.flush());
}
