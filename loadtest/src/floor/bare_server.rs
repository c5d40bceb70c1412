//! The bare writer as a server under load.

use std::{
    io::{BufRead as _, BufReader},
    process::{Child, Command, Stdio},
};

use anyhow::{Context as _, bail};

/// The process of the bare writer; dropping it ends it.
#[derive(Debug)]
pub struct BareWriter {
    process: Child,
    /// Where it listens, `host:port`.
    pub address: String,
}

impl BareWriter {
    /// Starts it: this program itself, on a port that the system chooses.
    ///
    /// # Errors
    /// It does not start.
    pub fn start() -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("the path of this program")?;
        let mut process = Command::new(program)
            .args(["floor-writer", "--listen", "127.0.0.1:0"])
            // It ends when this process does, however that ends.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .context("cannot start the bare writer")?;
        let mut line = String::new();
        let Some(out) = process.stdout.take() else { bail!("the bare writer has no output") };
        BufReader::new(out).read_line(&mut line).context("the bare writer says nothing")?;
        let address = line.trim().to_owned();
        if address.is_empty() {
            let _ = process.kill();
            bail!("the bare writer does not say where it listens: {:?}", process.wait());
        }
        Ok(Self { process, address })
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }
}

impl Drop for BareWriter {
    fn drop(&mut self) {
        // An error: it has ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
