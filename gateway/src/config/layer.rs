//! Layers: partial configurations of which the upper ones win, key by key.

use std::collections::BTreeMap;

use serde_yaml_ng::Value;

use super::units::{Size, Span};

/// A part of the configuration in which any key may be absent.
pub(super) trait Layer {
    /// Takes every key that `upper` has; a list is taken as a whole.
    fn overlay(&mut self, upper: Self);

    /// Adds the path of every key below `path`; a list's elements are `path[]`.
    fn keys(path: &str, out: &mut Vec<String>);
}

impl<T: Layer> Layer for Option<T> {
    fn overlay(&mut self, upper: Self) {
        match (self, upper) {
            (Some(lower), Some(upper)) => lower.overlay(upper),
            (lower, Some(upper)) => *lower = Some(upper),
            (_, None) => {}
        }
    }

    fn keys(path: &str, out: &mut Vec<String>) {
        T::keys(path, out);
    }
}

impl<T: Layer> Layer for Vec<T> {
    fn overlay(&mut self, upper: Self) {
        *self = upper;
    }

    fn keys(path: &str, out: &mut Vec<String>) {
        T::keys(&format!("{path}[]"), out);
    }
}

/// Values: an upper one replaces the lower one.
macro_rules! value {
    ($($type:ty),+) => {$(
        impl Layer for $type {
            fn overlay(&mut self, upper: Self) {
                *self = upper;
            }

            fn keys(path: &str, out: &mut Vec<String>) {
                out.push(path.to_owned());
            }
        }
    )+};
}

value!(String, bool, u64, f64, Span, Size, Value, BTreeMap<String, String>);

/// Declares a section of the file: every key optional, unknown keys refused.
macro_rules! section {
    ($(#[$meta:meta])* $name:ident { $($(#[$key_meta:meta])* $key:ident: $type:ty,)+ }) => {
        $(#[$meta])*
        #[derive(Debug, Clone, Default, serde::Deserialize)]
        #[serde(default, deny_unknown_fields)]
        pub(super) struct $name {
            $($(#[$key_meta])* pub $key: Option<$type>,)+
        }

        impl $crate::config::layer::Layer for $name {
            fn overlay(&mut self, upper: Self) {
                $(self.$key.overlay(upper.$key);)+
            }

            fn keys(path: &str, out: &mut Vec<String>) {
                $(
                    let key = stringify!($key).trim_start_matches("r#");
                    let below = if path.is_empty() { key.to_owned() } else { format!("{path}.{key}") };
                    <$type as $crate::config::layer::Layer>::keys(&below, out);
                )+
            }
        }
    };
}

pub(super) use section;
