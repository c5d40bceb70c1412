//! The log: text or JSON lines on standard error, with a level that can change while running.

use std::{
    io::{self, IsTerminal as _},
    sync::OnceLock,
};

use tracing::Subscriber;
use tracing_subscriber::{
    EnvFilter, Layer as _, Registry, fmt::MakeWriter, layer::SubscriberExt as _, reload,
    util::SubscriberInitExt as _,
};

use crate::config::{LogConfig, LogFormat};

/// Why the log could not be set up or changed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoggingError {
    /// The level's directives are not understood.
    #[error("log level `{level}` is not understood: {message}")]
    Level {
        /// What was asked for.
        level: String,
        /// What the filter says.
        message: String,
    },
    /// The process already has a log that is not ours, as an embedding program may.
    #[error("the log of this process is already set up: {0}")]
    Taken(String),
}

/// Changes the level of the running log. Cheap to clone.
#[derive(Debug, Clone)]
pub struct LogHandle(reload::Handle<EnvFilter, Registry>);

impl LogHandle {
    /// Makes `level` (as in `log.level`) hold from now on.
    ///
    /// # Errors
    /// [`LoggingError::Level`]; the level then stays as it was. [`LoggingError::Taken`] if the log is gone.
    pub fn set_level(&self, level: &str) -> Result<(), LoggingError> {
        self.0.reload(filter(level)?).map_err(|error| LoggingError::Taken(error.to_string()))
    }
}

/// Sets up the log of the process. Only the first call does; later ones (several nodes in one process) get the
/// handle of the first, whatever they ask for.
///
/// # Errors
/// [`LoggingError`]
pub fn install(config: &LogConfig) -> Result<LogHandle, LoggingError> {
    static INSTALLED: OnceLock<Result<LogHandle, LoggingError>> = OnceLock::new();
    INSTALLED
        .get_or_init(|| {
            let (subscriber, handle) = subscriber(config, io::stderr, io::stderr().is_terminal())?;
            subscriber.try_init().map_err(|error| LoggingError::Taken(error.to_string()))?;
            Ok(handle)
        })
        .clone()
}

/// The log as a subscriber that writes to `writer`, for those who do not want it as the process's own.
///
/// # Errors
/// [`LoggingError::Level`]
pub fn subscriber<W>(
    config: &LogConfig,
    writer: W,
    colours: bool,
) -> Result<(impl Subscriber + Send + Sync, LogHandle), LoggingError>
where
    W: for<'w> MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, handle) = reload::Layer::new(filter(&config.level)?);
    let lines = tracing_subscriber::fmt::layer().with_writer(writer);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(colours).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    Ok((tracing_subscriber::registry().with(filter).with(lines), LogHandle(handle)))
}

/// The filter of `level`. A bare level is for our own crates: what libraries say below `info` may hold payloads
/// and credentials, and appears only where a directive names the library.
fn filter(level: &str) -> Result<EnvFilter, LoggingError> {
    let mut directives = Vec::new();
    for directive in level.split(',').map(str::trim) {
        let verbose = ["debug", "trace"].iter().any(|verbose| directive.eq_ignore_ascii_case(verbose));
        if verbose {
            directives.push("info".to_owned());
            directives.push(format!("streamgate={directive}"));
        } else {
            directives.push(directive.to_owned());
        }
    }
    EnvFilter::try_new(directives.join(","))
        .map_err(|error| LoggingError::Level { level: level.to_owned(), message: error.to_string() })
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl Captured {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().clone()).unwrap()
        }
    }

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'w> MakeWriter<'w> for Captured {
        type Writer = Self;

        fn make_writer(&'w self) -> Self {
            self.clone()
        }
    }

    fn logged(level: &str, format: LogFormat, body: impl FnOnce(LogHandle)) -> String {
        let captured = Captured::default();
        let config = LogConfig { level: level.to_owned(), format };
        let (subscriber, handle) = subscriber(&config, captured.clone(), false).unwrap();
        tracing::subscriber::with_default(subscriber, || body(handle));
        captured.text()
    }

    #[test]
    fn json_lines_are_json() {
        let text = logged("info", LogFormat::Json, |_| tracing::info!(port = 9080, "listening"));
        let line: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!((&line["message"], &line["port"]), (&"listening".into(), &9080.into()));
    }

    #[test]
    fn the_level_changes_while_running() {
        let text = logged("warn", LogFormat::Text, |handle| {
            tracing::info!("first");
            handle.set_level("info").unwrap();
            tracing::info!("second");
            assert!(handle.set_level("a=b=c").is_err());
            tracing::info!("third");
        });
        assert!(!text.contains("first") && text.contains("second") && text.contains("third"), "{text}");
    }

    #[test]
    fn libraries_stay_quiet_unless_named() {
        let say = |_| {
            tracing::trace!(target: "streamgate::node", "ours");
            tracing::debug!(target: "hyper::proto", "theirs");
            tracing::info!(target: "hyper::proto", "news");
        };
        let text = logged("trace", LogFormat::Text, say);
        assert!(text.contains("ours") && text.contains("news") && !text.contains("theirs"), "{text}");
        assert!(logged("info,hyper=debug", LogFormat::Text, say).contains("theirs"));
    }
}
