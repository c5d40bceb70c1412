//! The clock of all times here: monotonic, the same for every process of the machine.

use rustix::time::{ClockId, clock_gettime};

/// Nanoseconds since some moment before this machine's processes began.
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // Neither part is negative on a monotonic clock.
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}
