//! The machine that the load generator runs on.

use std::{
    fs,
    thread::available_parallelism,
    time::{SystemTime, UNIX_EPOCH},
};

use streamgate_proto::wkt::Timestamp;

use crate::report::result::Machine;

/// What is known of it; what cannot be read stays empty.
pub fn machine() -> Machine {
    Machine {
        cores: available_parallelism().map_or(0, usize::from),
        processor: processor(&fs::read_to_string("/proc/cpuinfo").unwrap_or_default()),
        kernel: fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
    }
}

/// A time in whole seconds, RFC 3339, UTC; empty for one that has no such form.
pub fn rfc3339(time: SystemTime) -> String {
    let seconds = time.duration_since(UNIX_EPOCH).ok().and_then(|since| i64::try_from(since.as_secs()).ok());
    let json = seconds.map(|seconds| serde_json::to_value(Timestamp { seconds, nanos: 0 }));
    // As the protocol writes times in JSON.
    json.and_then(Result::ok).and_then(|json| json.as_str().map(str::to_owned)).unwrap_or_default()
}

/// The model of the first processor, by whatever name the architecture has for it.
fn processor(cpuinfo: &str) -> String {
    let value = |name: &str| {
        let lines = cpuinfo.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(key, _)| key.trim() == name).map(|(_, value)| value.trim()).find(|v| !v.is_empty())
    };
    ["model name", "cpu model", "Model", "CPU part"]
        .into_iter()
        .find_map(value)
        .unwrap_or_default()
        .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_model_is_found_under_its_names() {
        assert_eq!(
            processor("processor\t: 0\nmodel\t\t: 85\nmodel name\t: Fast: CPU @ 3 GHz\n"),
            "Fast: CPU @ 3 GHz"
        );
        assert_eq!(processor("processor\t: 0\nCPU part\t: 0xd0c\n"), "0xd0c");
        assert_eq!(processor(""), "");
    }

    #[test]
    fn this_machine_is_known() {
        let machine = machine();
        assert!(machine.cores > 0 && !machine.kernel.is_empty(), "{machine:?}");
    }
}
