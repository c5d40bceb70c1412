//! CPU time and memory of a process of this machine, from `/proc` (proc(5)).

use std::{fs, io, time::Duration};

use anyhow::Context as _;

/// Ticks of `utime` and `stime` in a second: `USER_HZ`, 100 on every architecture of Linux that Rust has.
const TICKS: u64 = 100;

/// What a process has used up to now.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Usage {
    /// User and system time of all its threads, those that have ended included; its children are not. In steps of
    /// 10 ms if it is from `/proc`.
    pub cpu: Duration,
    /// Resident memory, KiB.
    pub rss_kib: u64,
}

/// A process that can be asked again and again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Process {
    pid: u32,
    /// When it began, in ticks since the machine did: the same id with another beginning is another process.
    began: u64,
}

/// Of `/proc/<pid>/stat`.
#[derive(Debug, PartialEq, Eq)]
struct Stat {
    state: char,
    cpu_ticks: u64,
    began: u64,
}

impl Process {
    /// The process with this id.
    ///
    /// # Errors
    /// There is none, it has ended, or there is no `/proc`.
    pub fn open(pid: u32) -> anyhow::Result<Self> {
        Ok(Self { pid, began: stat(pid)?.began })
    }

    /// That it has not ended.
    ///
    /// # Errors
    /// It has; the text names the process id.
    pub fn check(&self) -> anyhow::Result<()> {
        self.stat().map(drop)
    }

    fn stat(&self) -> anyhow::Result<Stat> {
        let (pid, stat) = (self.pid, stat(self.pid)?);
        anyhow::ensure!(stat.began == self.began, "process {pid} has ended, another one has its id now");
        Ok(stat)
    }

    /// What it has used.
    ///
    /// # Errors
    /// It has ended; the text names the process id.
    pub fn usage(&self) -> anyhow::Result<Usage> {
        let (pid, stat) = (self.pid, self.stat()?);
        let rss_kib = rss_kib(&read(pid, "status")?).with_context(|| format!("process {pid} has ended"))?;
        Ok(Usage { cpu: Duration::from_millis(stat.cpu_ticks * 1_000 / TICKS), rss_kib })
    }
}

fn stat(pid: u32) -> anyhow::Result<Stat> {
    let text = read(pid, "stat")?;
    let stat = parse_stat(&text).with_context(|| format!("/proc/{pid}/stat is not understood: {text}"))?;
    // One that nobody has waited for yet (Z), or that is about to go (X, x).
    anyhow::ensure!(!matches!(stat.state, 'Z' | 'X' | 'x'), "process {pid} has ended");
    Ok(stat)
}

fn read(pid: u32, file: &str) -> anyhow::Result<String> {
    let path = format!("/proc/{pid}/{file}");
    fs::read_to_string(&path).map_err(|error| {
        // ESRCH: it went between opening and reading.
        if error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(3) {
            anyhow::anyhow!("process {pid} has ended or never was")
        } else {
            anyhow::Error::new(error).context(format!("cannot read {path}"))
        }
    })
}

/// The name is in parentheses and may hold some itself: what counts comes behind the last one.
fn parse_stat(text: &str) -> Option<Stat> {
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_whitespace().collect();
    // Field 3, the state, is the first one here.
    let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat {
        state: fields.first()?.chars().next()?,
        cpu_ticks: number(14)? + number(15)?,
        began: number(22)?,
    })
}

/// `VmRSS`; none for a process without memory, which is one that ends.
fn rss_kib(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_name_with_parentheses_and_spaces_does_not_shift_the_fields() {
        let text = "17 (a) S (b) R 1 17 17 0 -1 4194304 100 0 0 0 250 50 7 9 20 0 4 0 12345 1000 200 184";
        assert_eq!(parse_stat(text), Some(Stat { state: 'R', cpu_ticks: 300, began: 12345 }));
        assert_eq!(parse_stat("17 (a) R 1"), None);
    }

    #[test]
    fn memory_is_read_from_its_line() {
        assert_eq!(rss_kib("VmHWM:\t  300 kB\nVmRSS:\t  123 kB\nRssAnon:\t 1 kB\n"), Some(123));
        assert_eq!(rss_kib("Name:\tsh\nState:\tZ (zombie)\n"), None);
    }

    #[test]
    fn this_process_has_memory() {
        let usage = Process::open(std::process::id()).unwrap().usage().unwrap();
        assert!(usage.rss_kib > 0, "{usage:?}");
    }

    #[test]
    fn a_process_that_nobody_has_waited_for_has_ended() {
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", "read -r _"]).stdin(Stdio::piped()).spawn().unwrap();
        let process = Process::open(child.id()).unwrap();
        process.usage().unwrap();
        child.kill().unwrap();
        let ended = || process.usage().err().map(|error| error.to_string());
        while ended().is_none() {
            std::thread::yield_now();
        }
        assert!(ended().unwrap().contains(&format!("process {} has ended", child.id())));
        child.wait().unwrap();
        assert!(ended().unwrap().contains("has ended or never was"));
    }
}
