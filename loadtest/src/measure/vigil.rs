//! Notices at once that a process under load has ended, and not when its costs are read for the last time.

use std::time::Duration;

use anyhow::Context as _;
use tokio::time::sleep;

use super::{
    process::Process,
    sampler::{Source, Watched},
};

/// How often is looked. Reading one small file for each process, it costs nothing that could be measured.
const LOOK: Duration = Duration::from_millis(200);

/// The processes of this machine that must not end.
#[derive(Debug)]
pub struct Vigil(Vec<(String, Process)>);

impl Vigil {
    /// Of all that are watched by their id.
    ///
    /// # Errors
    /// One has ended already; the text names it.
    pub fn of(watched: &[Watched]) -> anyhow::Result<Self> {
        let processes = watched.iter().filter_map(|Watched { name, source }| match source {
            Source::Process(pid) => Some((name, *pid)),
            Source::Redis(_) => None,
        });
        let open = |(name, pid): (&String, u32)| {
            let process = Process::open(pid).with_context(|| name.clone())?;
            Ok((name.clone(), process))
        };
        Ok(Self(processes.map(open).collect::<anyhow::Result<_>>()?))
    }

    /// Waits until one has ended; which one. Safe to cancel.
    pub async fn broken(&self) -> anyhow::Error {
        loop {
            if let Err(error) = self.look() {
                return error;
            }
            sleep(LOOK).await;
        }
    }

    /// Another error, with what it most likely comes from if a process has ended.
    pub async fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        // Connections break a little before the process is seen to be gone.
        sleep(LOOK).await;
        self.look().err().unwrap_or(error)
    }

    fn look(&self) -> anyhow::Result<()> {
        self.0.iter().try_for_each(|(name, process)| {
            process.check().with_context(|| format!("{name} ended during the run"))
        })
    }
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[tokio::test]
    async fn a_process_that_ends_is_told_by_name_and_is_why() {
        let mut command = Command::new("sh");
        let mut child = command.args(["-c", "read -r _"]).stdin(Stdio::piped()).spawn().unwrap();
        let watched = Watched { name: "gateway 2".to_owned(), source: Source::Process(child.id()) };
        let vigil = Vigil::of(std::slice::from_ref(&watched)).unwrap();
        let other = vigil.explain(anyhow::anyhow!("refused")).await;
        assert_eq!(other.to_string(), "refused");
        child.kill().unwrap();
        for error in [vigil.broken().await, vigil.explain(anyhow::anyhow!("refused")).await] {
            let text = format!("{error:#}");
            assert!(text.contains("gateway 2 ended during the run: process"), "{text}");
        }
        child.wait().unwrap();
        assert!(format!("{:#}", Vigil::of(&[watched]).unwrap_err()).contains("gateway 2"));
    }
}
