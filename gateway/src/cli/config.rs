//! `streamgate config check FILE` and `streamgate config default`.

use std::{
    io::{self, Write},
    path::Path,
    process::ExitCode,
};

use serde_json::json;

use super::Format;
use crate::config::{ConfigError, Loaded, REFERENCE, Sources, load, process_environment};

/// Prints the reference file on standard output.
#[must_use]
pub fn default() -> ExitCode {
    exit(print_default(&mut io::stdout().lock()).map(|()| true))
}

/// Checks `file` as `serve` would run with it, `STREAMGATE_` variables included: `ok` and the warnings, or every
/// error.
#[must_use]
pub fn check(file: &Path, format: Format) -> ExitCode {
    let sources = |environment| Sources { file: Some(file.to_owned()), environment, ..Sources::default() };
    let outcome = process_environment().and_then(|environment| load(&sources(environment)));
    exit(match format {
        Format::Text => report(outcome, &mut io::stdout().lock(), &mut io::stderr().lock()),
        Format::Json => report_objects(outcome, &mut io::stdout().lock()),
    })
}

/// Nobody is left to tell about an output that is gone, but the exit code.
fn exit(outcome: io::Result<bool>) -> ExitCode {
    if matches!(outcome, Ok(true)) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn print_default(out: &mut impl Write) -> io::Result<()> {
    out.write_all(REFERENCE.as_bytes())?;
    out.flush()
}

/// Whether the configuration is good.
fn report(
    outcome: Result<Loaded, ConfigError>,
    out: &mut impl Write,
    err: &mut impl Write,
) -> io::Result<bool> {
    match outcome {
        Ok(loaded) => {
            for warning in &loaded.warnings {
                writeln!(out, "warning: {warning}")?;
            }
            writeln!(out, "ok")?;
            Ok(true)
        }
        Err(error) => {
            for problem in &error.problems {
                writeln!(err, "error: {problem}")?;
            }
            Ok(false)
        }
    }
}

/// An object a line, warnings and errors alike; whether the configuration is good.
fn report_objects(outcome: Result<Loaded, ConfigError>, out: &mut impl Write) -> io::Result<bool> {
    let (level, problems) = match &outcome {
        Ok(loaded) => ("warning", &loaded.warnings),
        Err(error) => ("error", &error.problems),
    };
    for problem in problems {
        writeln!(out, "{}", json!({"level": level, "key": problem.key, "text": problem.to_string()}))?;
    }
    out.flush()?;
    Ok(outcome.is_ok())
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;
    use crate::config::from_environment;

    fn run(file: &str, variables: &[(&str, &str)]) -> (bool, String, String) {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let sources = Sources {
            file: Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join(file)),
            environment: from_environment(variables),
            ..Sources::default()
        };
        let (mut out, mut err) = (Vec::new(), Vec::new());
        let good = report(load(&sources), &mut out, &mut err).unwrap();
        (good, String::from_utf8(out).unwrap(), String::from_utf8(err).unwrap())
    }

    #[test]
    fn a_good_file_is_ok_without_a_word() {
        assert_eq!(run("config/streamgate.yaml", &[]), (true, "ok\n".into(), String::new()));
    }

    #[test]
    fn warnings_do_not_spoil_it() {
        let file = "tests/fixtures/config/messageloop_v0_1_1.yaml";
        let (good, out, err) = run(file, &[("STREAMGATE_ALLOW_ANONYMOUS", "true")]);
        assert!(good && err.is_empty(), "{err}");
        assert!(
            out.contains("warning: ") && out.contains("broker.redis.pool_size: has no meaning here"),
            "{out}"
        );
        assert!(out.ends_with("ok\n"));
    }

    #[test]
    fn every_error_gets_a_line() {
        let (good, out, err) = run("tests/fixtures/config/wrong_values.yaml", &[]);
        assert!(!good && out.is_empty());
        assert_eq!(err.lines().filter(|line| line.starts_with("error: ")).count(), 16, "{err}");
    }

    #[test]
    fn objects_name_the_level_and_the_key() {
        let file = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/config/wrong_values.yaml");
        let mut out = Vec::new();
        let outcome = load(&Sources { file: Some(file), ..Sources::default() });
        assert!(!report_objects(outcome, &mut out).unwrap());
        let lines = String::from_utf8(out).unwrap();
        for line in lines.lines() {
            let line: serde_json::Value = serde_json::from_str(line).unwrap();
            assert!(
                line["level"] == "error" && line["key"].is_string() && line["text"].is_string(),
                "{line}"
            );
        }
        assert_eq!(lines.lines().count(), 16);
    }

    #[test]
    fn the_default_file_is_printed_as_it_is() {
        let mut out = Vec::new();
        print_default(&mut out).unwrap();
        assert_eq!(out, REFERENCE.as_bytes());
    }
}
