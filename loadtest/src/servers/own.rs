//! Servers that are this program itself, as processes of their own: so their CPU time is told apart.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};

/// The process of such a server; dropping it ends it.
#[derive(Debug)]
pub struct OwnServer {
    process: Child,
    /// Where it listens, `host:port`.
    pub address: String,
}

impl OwnServer {
    /// Starts a (hidden) command of this program that takes `--listen`, prints where it listens, and ends when its standard
    /// input does, on a port that the system chooses.
    ///
    /// # Errors
    /// It does not start.
    pub fn start(command: &str) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let mut process = Command::new(program)
            .args([command, "--listen", "127.0.0.1:0"])
            // It ends when this process does, however that ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .with_context(|| format!("cannot start {command}"))?;
        let mut line = String::new();
        let Some(out) = process.stdout.take() else { bail!("{command} has no output") };
        BufReader::new(out).read_line(&mut line).with_context(|| format!("{command} says nothing"))?;
        let address = line.trim().to_owned();
        if address.is_empty() {
            let _ = process.kill();
            bail!("{command} does not say where it listens: {:?}", process.wait());
        }
        Ok(Self { process, address })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        // An error: it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
