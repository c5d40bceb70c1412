//! The limit of open files, which every connection counts against.

use anyhow::Context as _;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Files of a process besides its connections: standard streams, listeners, pipes, the runtime's own.
const BESIDES: u64 = 100;

/// Raises the soft limit of this process to the hard one and tells it. Processes started afterwards have it, too.
///
/// # Errors
/// The system refuses.
pub fn raise_open_files() -> anyhow::Result<u64> {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    if current != maximum {
        setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
            .context("cannot raise the limit of open files to its hard limit")?;
    }
    Ok(maximum.unwrap_or(u64::MAX))
}

/// Makes room for so many connections of this process, before any is opened.
///
/// # Errors
/// The hard limit is lower; the text says both numbers and what to do.
pub fn make_room_for(connections: u64) -> anyhow::Result<()> {
    enough(connections, raise_open_files()?)
}

fn enough(connections: u64, limit: u64) -> anyhow::Result<()> {
    let needed = connections.saturating_add(BESIDES);
    anyhow::ensure!(
        needed <= limit,
        "{connections} connections need {needed} open files, the limit of a process is {limit} (ulimit -Hn): at most \
         {} connections here, or raise the limit",
        limit.saturating_sub(BESIDES)
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_follows_the_hard_one() {
        let limit = raise_open_files().unwrap();
        let now = getrlimit(Resource::Nofile);
        assert_eq!(now.current, now.maximum);
        assert_eq!(limit, now.maximum.unwrap_or(u64::MAX));
        make_room_for(10).unwrap();
    }

    #[test]
    fn too_many_are_refused_with_all_numbers() {
        enough(19_900, 20_000).unwrap();
        let error = enough(20_000, 20_000).unwrap_err().to_string();
        assert!(error.contains("20100") && error.contains("limit of a process is 20000"), "{error}");
        assert!(error.contains("at most 19900 connections"), "{error}");
        enough(u64::MAX, 20_000).unwrap_err();
    }
}
