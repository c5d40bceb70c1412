//! The floors of Redis, with few publishes: that they run and what they leave behind, not how fast they are.

#![allow(clippy::unwrap_used, reason = "in a test the panic is the report")]

use std::{fs, process::Command};

use serde_json::Value;

/// Runs a scenario; what it printed, and its result.
fn run(scenario: &str, more: &[&str]) -> (String, Value) {
    let file =
        std::env::temp_dir().join(format!("loadtest-{}-{scenario}-{}.json", std::process::id(), more.len()));
    let page = file.with_extension("html");
    let output = Command::new(env!("CARGO_BIN_EXE_loadtest"))
        .arg(scenario)
        .args(["--publishes", "640", "--rounds", "2", "--json"])
        .arg(&file)
        .arg("--html")
        .arg(&page)
        .args(more)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let result = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    fs::remove_file(&file).unwrap();
    let text = fs::read_to_string(&page).unwrap();
    fs::remove_file(&page).unwrap();
    assert!(text.contains("plain XADD") && !text.contains("<svg"), "{text}");
    (String::from_utf8(output.stdout).unwrap(), result)
}

/// The value of a figure, which must be positive.
fn value(result: &Value, name: &str) -> f64 {
    let figures = result["figures"].as_array().unwrap();
    let figure = figures.iter().find(|figure| figure["name"] == name).unwrap_or_else(|| panic!("no {name}"));
    let value = figure["value"].as_f64().unwrap_or_else(|| panic!("{name} was not measured"));
    assert!(value > 0.0, "{name}: {value}");
    value
}

#[test]
fn floor_redis_measures_plain_commands() {
    let (text, result) = run("floor-redis", &[]);
    assert!(text.contains("plain XADD and XREAD"), "{text}");
    assert_eq!((&result["scenario"], &result["format"]), (&"floor-redis".into(), &1.into()));
    value(&result, "redis us per publish, plain XADD");
    let both = value(&result, "redis us per publish, plain XADD and XREAD");
    assert!(both > value(&result, "redis us per publish for reading, plain XADD and XREAD"));
}

#[test]
fn floor_script_measures_every_batch_with_and_without_keys() {
    let (text, result) = run("floor-script", &["--nodes", "4"]);
    assert!(text.contains("publish script, 32 to a call, with keys"), "{text}");
    for batch in [1, 8, 32] {
        for what in ["", ", with keys", ", reader blocks"] {
            value(&result, &format!("redis us per publish, {batch} to a call{what}"));
        }
        value(&result, &format!("redis us per publish for reading, {batch} to a call"));
        value(&result, &format!("times plain XADD, {batch} to a call"));
    }
    assert_eq!(result["options"]["nodes"], 4);
}

#[test]
fn a_sweep_measures_every_size() {
    let (text, result) = run("redis-publish", &["--sweep", "--max-channels", "200"]);
    assert!(text.contains("x first"), "{text}");
    for place in ["200 channels, 1 nodes", "200 channels, 4 nodes", "200 channels, 16 nodes"] {
        value(&result, &format!("redis us per publish, 8 to a call, {place}"));
        value(&result, &format!("times the first, 32 to a call, {place}"));
        value(&result, &format!("redis memory, {place}"));
    }
}
