//! Arguments of `scripts/publish.lua`, from the number of settings on: what precedes them is the caller's.

use std::time::Duration;

use bytes::Bytes;

use crate::broker::queue::JobOptions;

/// What many publishes of a call have in common, so that it is sent once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Setting {
    /// Entries that a history keeps.
    pub history_size: u64,
    /// How long Redis keeps a history.
    pub keep: Duration,
    /// Whether that begins anew with this publish.
    pub refresh: bool,
    /// How long an idempotency record is kept.
    pub idempotency_window: Duration,
    /// Publications are jobs and nothing else.
    pub channel_is_queue: bool,
    /// Most jobs of a queue.
    pub max_jobs: u64,
}

/// What a publish believes of its channel's history.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Believed {
    /// Nothing: Redis says.
    Unknown,
    /// Its epoch.
    Epoch(u64),
    /// That this publish has none.
    NoHistory,
}

/// See the module. The script takes up to 1,000 publishes.
#[derive(Debug, Default)]
pub struct PublishArgs {
    settings: Vec<Setting>,
    channels: Vec<Bytes>,
    blobs: Vec<Bytes>,
    believed: Vec<Believed>,
    /// Of the setting of each, from 0.
    numbers: Vec<usize>,
    records: Vec<Bytes>,
    options: Vec<Bytes>,
}

impl PublishArgs {
    /// Number of publishes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.channels.len()
    }

    /// Whether there is no publish.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.channels.is_empty()
    }

    /// Adds a publish; `record` is the name of its idempotency record, empty without one.
    pub fn push(
        &mut self,
        channel: &str,
        blob: Bytes,
        believed: Believed,
        setting: Setting,
        record: Bytes,
        job: &JobOptions,
    ) {
        let number = self.settings.iter().position(|known| *known == setting).unwrap_or_else(|| {
            self.settings.push(setting);
            self.settings.len() - 1
        });
        self.channels.push(Bytes::copy_from_slice(channel.as_bytes()));
        self.blobs.push(blob);
        self.believed.push(believed);
        self.numbers.push(number);
        self.records.push(record);
        self.options.push(options_of(job));
    }

    /// Appends them to what precedes them.
    pub fn append_to(self, args: &mut Vec<Bytes>) {
        args.extend([self.settings.len().to_string().into(), self.len().to_string().into()]);
        for setting in &self.settings {
            args.extend([
                setting.history_size.min(i64::MAX as u64).to_string().into(),
                setting.keep.as_millis().max(1).to_string().into(),
                Bytes::from_static(if setting.refresh { b"1" } else { b"0" }),
                setting.idempotency_window.as_millis().max(1).to_string().into(),
                Bytes::from_static(if setting.channel_is_queue { b"1" } else { b"0" }),
                setting.max_jobs.min(i64::MAX as u64).to_string().into(),
            ]);
        }
        args.extend(self.channels);
        args.extend(self.blobs);
        args.extend(self.believed.into_iter().map(|believed| match believed {
            Believed::Unknown => Bytes::new(),
            Believed::Epoch(epoch) => epoch.to_string().into(),
            Believed::NoHistory => Bytes::from_static(b"-"),
        }));
        if self.settings.len() > 1 {
            args.extend(self.numbers.into_iter().map(|number| Bytes::from((number + 1).to_string())));
        }
        let waits = self.options.iter().any(|options| !options.is_empty());
        if waits || self.records.iter().any(|record| !record.is_empty()) {
            args.extend(self.records);
        }
        if waits {
            args.extend(self.options);
        }
    }
}

/// How a publish waits in queues, as the script reads it.
fn options_of(job: &JobOptions) -> Bytes {
    if *job == JobOptions::default() {
        return Bytes::new();
    }
    let delay = job.delay.unwrap_or_default().as_millis();
    format!("{delay} {}", job.ordering_key.as_deref().unwrap_or_default()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SETTING: Setting = Setting {
        history_size: 10,
        keep: Duration::from_millis(1_500),
        refresh: true,
        idempotency_window: Duration::from_secs(1),
        channel_is_queue: false,
        max_jobs: 9,
    };

    fn args_of(publishes: &[(&str, Believed, Setting, &'static str)]) -> Vec<String> {
        let mut all = PublishArgs::default();
        for (channel, believed, setting, record) in publishes {
            all.push(
                channel,
                Bytes::from(format!("<{channel}>")),
                *believed,
                *setting,
                (*record).into(),
                &JobOptions::default(),
            );
        }
        let mut args = Vec::new();
        all.append_to(&mut args);
        args.iter().map(|arg| String::from_utf8_lossy(arg).into_owned()).collect()
    }

    #[test]
    fn columns_that_say_nothing_are_left_out() {
        let args = args_of(&[("a", Believed::Epoch(7), SETTING, ""), ("b", Believed::Unknown, SETTING, "")]);
        assert_eq!(args, ["1", "2", "10", "1500", "1", "1000", "0", "9", "a", "b", "<a>", "<b>", "7", ""]);
        let other = Setting { refresh: false, ..SETTING };
        let args = args_of(&[("a", Believed::NoHistory, SETTING, ""), ("b", Believed::Unknown, other, "r")]);
        let rest = ["a", "b", "<a>", "<b>", "-", "", "1", "2", "", "r"];
        assert_eq!(args[..2], ["2", "2"]);
        assert_eq!(args[14..], rest);
    }
}
