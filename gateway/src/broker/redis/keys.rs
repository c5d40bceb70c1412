//! Names of keys and the partition of a channel (DESIGN section 5, the table of keys).
//!
//! Changing anything here loses the data of existing deployments: raise `DATA_VERSION` then.

use bytes::Bytes;

/// Slots of a Redis Cluster.
const SLOTS: u32 = 16_384;

/// Names every key of a deployment.
#[derive(Debug, Clone)]
pub struct Keys {
    prefix: String,
    /// `<prefix>:{<tag>}:` of each partition.
    bases: Vec<Bytes>,
}

impl Keys {
    /// Keys that start with `prefix`, in `partitions` partitions.
    ///
    /// # Errors
    /// Says what is wrong with the prefix or the number of partitions.
    pub fn new(prefix: &str, partitions: u16) -> Result<Self, String> {
        if prefix.is_empty() || prefix.contains(['{', '}']) {
            return Err(format!("the key prefix {prefix:?} must not be empty and must have no braces"));
        }
        if !(1..=1024).contains(&partitions) {
            return Err(format!("{partitions} partitions: from 1 to 1024 are possible"));
        }
        let base = |p| Bytes::from(format!("{prefix}:{{{}}}:", tag(p, partitions)));
        Ok(Self { prefix: prefix.to_owned(), bases: (0..partitions).map(base).collect() })
    }

    /// Number of partitions.
    #[must_use]
    pub fn partitions(&self) -> usize {
        self.bases.len()
    }

    /// What every key of `partition` starts with.
    #[must_use]
    pub fn base(&self, partition: usize) -> Bytes {
        self.bases.get(partition).cloned().unwrap_or_default()
    }

    /// The key `name` of `partition`.
    #[must_use]
    pub fn key(&self, partition: usize, name: &str) -> Bytes {
        let base = self.base(partition);
        let mut key = Vec::with_capacity(base.len() + name.len());
        key.extend_from_slice(&base);
        key.extend_from_slice(name.as_bytes());
        key.into()
    }

    /// A key of the deployment as a whole; all of these are in one slot.
    #[must_use]
    pub fn deployment(&self, name: &str) -> Bytes {
        format!("{}:{{deployment}}:{name}", self.prefix).into()
    }

    /// The partition that owns `name` (a channel or a session id). The same on every machine and in every version.
    #[must_use]
    pub fn partition_of(&self, name: &str) -> usize {
        let partitions = self.bases.len() as u64;
        usize::try_from(stable_hash(name.as_bytes()) % partitions).unwrap_or(0)
    }
}

/// Name of an idempotency record; lengths keep user, channel and key from running into each other.
#[must_use]
pub fn idempotency_record(user: &str, channel: &str, key: &str) -> String {
    format!("{}:{user}{}:{channel}{key}", user.len(), channel.len())
}

/// FNV-1a (64 bit) with the finalizer of MurmurHash3, so that the low bits are good as well.
fn stable_hash(bytes: &[u8]) -> u64 {
    let fnv = bytes.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let mixed = (fnv ^ (fnv >> 33)).wrapping_mul(0xff51_afd7_ed55_8ccd);
    let mixed = (mixed ^ (mixed >> 33)).wrapping_mul(0xc4ce_b9fe_1a85_ec53);
    mixed ^ (mixed >> 33)
}

/// A hash tag whose slot lies in the middle of the partition's share of the slots, so that masters with even shares of
/// the slots get even shares of the partitions.
fn tag(partition: u16, partitions: u16) -> String {
    let (partition, partitions) = (u32::from(partition), u32::from(partitions));
    let wanted = (2 * partition + 1) * SLOTS / (2 * partitions);
    let tolerance = SLOTS / partitions / 64;
    (0u32..)
        .map(|n| format!("p{partition}.{n}"))
        .find(|tag| u32::from(slot(tag.as_bytes())).abs_diff(wanted) <= tolerance)
        // The range is endless.
        .unwrap_or_default()
}

/// The slot of a key that [`Keys`] made: that of its hash tag.
#[must_use]
pub fn slot_of(key: &[u8]) -> u16 {
    let tag = |key: &[u8]| {
        let from = key.iter().position(|byte| *byte == b'{')? + 1;
        let length = key.get(from..)?.iter().position(|byte| *byte == b'}')?;
        key.get(from..from + length).map(slot)
    };
    tag(key).unwrap_or_else(|| slot(key))
}

/// The slot of a hash tag: CRC16 (XMODEM) modulo the number of slots (Redis Cluster specification).
fn slot(tag: &[u8]) -> u16 {
    let crc = tag.iter().fold(0u16, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            if crc & 0x8000 == 0 { crc << 1 } else { (crc << 1) ^ 0x1021 }
        })
    });
    crc % 16_384
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_redis_cluster() {
        // CLUSTER KEYSLOT of 123456789, foo and user1000.
        assert_eq!(slot(b"123456789"), 12_739);
        assert_eq!(slot(b"foo"), 12_182);
        assert_eq!(slot(b"user1000"), 3_443);
        assert_eq!((slot_of(b"x:{foo}:{y}"), slot_of(b"foo")), (12_182, 12_182));
    }

    #[test]
    fn partitions_spread_evenly_over_three_six_and_eight_masters() {
        for masters in [3u32, 6, 8] {
            let mut held = vec![0u32; masters as usize];
            for partition in 0..16 {
                let slot = u32::from(slot(tag(partition, 16).as_bytes()));
                held[(slot * masters / SLOTS) as usize] += 1;
            }
            let (least, most) = (held.iter().min().unwrap(), held.iter().max().unwrap());
            assert!(most - least <= 1, "{masters} masters hold {held:?}");
        }
    }

    #[test]
    fn the_partition_of_a_channel_never_changes() {
        let keys = Keys::new("sg", 16).unwrap();
        let partitions: Vec<_> = ["a", "room.blue", "room.red", "ä.ö", "x.y.z"]
            .iter()
            .map(|channel| (keys.partition_of(channel), stable_hash(channel.as_bytes())))
            .collect();
        assert_eq!(partitions, VECTORS);
        assert_eq!(keys.base(0), "sg:{p0.156}:");
    }

    /// Computed apart from this code.
    const VECTORS: [(usize, u64); 5] = [
        (11, 9_413_272_369_427_828_315),
        (3, 1_310_754_635_040_407_907),
        (14, 17_913_898_719_661_951_502),
        (15, 8_333_801_990_639_146_607),
        (2, 8_927_270_583_295_865_842),
    ];

    #[test]
    fn channels_spread_over_the_partitions() {
        let keys = Keys::new("sg", 16).unwrap();
        let mut count = [0u32; 16];
        for n in 0..16_000 {
            count[keys.partition_of(&format!("room.{n}"))] += 1;
        }
        assert!(count.iter().all(|n| (850..1_150).contains(n)), "{count:?}");
    }

    #[test]
    fn idempotency_records_of_different_scopes_differ() {
        assert_ne!(idempotency_record("a", "bc", "d"), idempotency_record("ab", "c", "d"));
        assert_ne!(idempotency_record("", "a", "1:b"), idempotency_record("", "a1", ":b"));
    }

    #[test]
    fn a_prefix_with_braces_is_refused() {
        assert!(Keys::new("a{b", 16).is_err() && Keys::new("", 16).is_err() && Keys::new("a", 0).is_err());
    }
}
