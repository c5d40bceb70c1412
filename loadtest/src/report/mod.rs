//! What a run leaves behind: its result as a JSON file, and all that is made of such a file.
//!
//! Nothing here measures. A table, a page or a comparison reads [`result::RunResult`] and nothing else, so that a file
//! from another day or machine shows the same as when it was written.

pub mod compare;
pub mod html;
pub mod number;
pub mod progress;
pub mod repeat;
pub mod result;
#[cfg(test)]
mod sample;
mod section;
pub mod table;

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use serde::{Deserialize, Serialize as _, Serializer};
use sha1::{Digest as _, Sha1};

use result::{FORMAT, RunResult};

/// The part of a result that every format has.
#[derive(Debug, Deserialize)]
struct Header {
    format: u32,
}

/// Reads the result of a run.
///
/// # Errors
/// The file cannot be read, is no result, or has a format that is newer than [`FORMAT`].
pub fn read(path: &Path) -> anyhow::Result<RunResult> {
    let json = fs::read(path).with_context(|| format!("cannot read {}", path.display()))?;
    parse(&json).with_context(|| format!("{} is not a result that can be read", path.display()))
}

/// Writes the result of a run, for people to look into as well: indented.
///
/// # Errors
/// The file cannot be written.
pub fn write(path: &Path, result: &RunResult) -> anyhow::Result<()> {
    let mut json = serde_json::to_string_pretty(result)?;
    json.push('\n');
    fs::write(path, json).with_context(|| format!("cannot write {}", path.display()))
}

/// That a file can be written, before a long run that ends with it. What is in it stays.
///
/// # Errors
/// It cannot.
pub fn check(path: &Path) -> anyhow::Result<()> {
    let new = !path.exists();
    let opened = fs::OpenOptions::new().append(true).create(true).open(path);
    opened.with_context(|| format!("cannot write {}", path.display()))?;
    if new {
        fs::remove_file(path)?;
    }
    Ok(())
}

/// Records a file that is an option: its path, and a digest of what is in it, which makes two runs differ as well.
///
/// # Errors
/// Those of the serialiser.
pub fn record_file<S: Serializer>(path: &Option<PathBuf>, serializer: S) -> Result<S::Ok, S::Error> {
    let with_digest = |path: &PathBuf| match fs::read(path) {
        Ok(content) => {
            let digest: [u8; 20] = Sha1::digest(content).into();
            let short = u32::from_be_bytes([digest[0], digest[1], digest[2], digest[3]]);
            format!("{} ({short:08x})", path.display())
        }
        // Whoever needs it says why it cannot be read.
        Err(_) => path.display().to_string(),
    };
    path.as_ref().map(with_digest).serialize(serializer)
}

/// The format is looked at first: the rest of a newer one may have any shape.
fn parse(json: &[u8]) -> anyhow::Result<RunResult> {
    let Header { format } = serde_json::from_slice(json)?;
    ensure!(format <= FORMAT, "format {format} is newer than {FORMAT}, the newest that this loadtest reads");
    Ok(serde_json::from_slice(json)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_result_survives_its_file() {
        let path = std::env::temp_dir().join(format!("loadtest-result-{}.json", std::process::id()));
        let result = sample::fanout();
        write(&path, &result).unwrap();
        let back = read(&path);
        fs::remove_file(&path).unwrap();
        assert_eq!(back.unwrap(), result);
    }

    #[test]
    fn whether_a_file_can_be_written_is_known_without_changing_it() {
        let path = std::env::temp_dir().join(format!("loadtest-check-{}.json", std::process::id()));
        check(&path).unwrap();
        assert!(!path.exists());
        fs::write(&path, "old").unwrap();
        check(&path).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "old");
        fs::remove_file(&path).unwrap();
        let error = check(Path::new("/nowhere/result.json")).unwrap_err();
        assert_eq!(error.to_string(), "cannot write /nowhere/result.json");
    }

    #[test]
    fn results_of_before_are_read() {
        let json = serde_json::to_string(&sample::fanout()).unwrap().replace("\"beside\"", "\"floors\"");
        assert_eq!(parse(json.as_bytes()).unwrap(), sample::fanout());
    }

    #[test]
    fn a_file_is_recorded_with_what_is_in_it() {
        #[derive(serde::Serialize)]
        struct Options(#[serde(serialize_with = "record_file")] Option<PathBuf>);
        let recorded = |path| serde_json::to_value(Options(path)).unwrap();
        let path = std::env::temp_dir().join(format!("loadtest-digest-{}", std::process::id()));
        let text = [b"one", b"two"].map(|content| {
            fs::write(&path, content).unwrap();
            recorded(Some(path.clone()))
        });
        fs::remove_file(&path).unwrap();
        assert_ne!(text[0], text[1]);
        assert_eq!(recorded(Some(path.clone())), path.display().to_string());
        assert_eq!(recorded(None), serde_json::Value::Null);
    }

    #[test]
    fn a_newer_format_is_refused_whatever_else_it_holds() {
        let error = parse(br#"{"format": 2, "figures": "elsewhere"}"#).unwrap_err();
        assert_eq!(error.to_string(), "format 2 is newer than 1, the newest that this loadtest reads");
    }

    #[test]
    fn a_file_that_cannot_be_read_is_named() {
        let error = read(Path::new("/nowhere/result.json")).unwrap_err();
        assert_eq!(error.to_string(), "cannot read /nowhere/result.json");
    }
}
