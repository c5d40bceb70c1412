//! Whether a client takes anything of what waits for it. Pure.

/// Since when a client has taken nothing, while something of it waits for room.
#[derive(Debug, Default)]
pub(super) struct Stall(Option<Since>);

#[derive(Debug)]
struct Since {
    /// Bytes that had been taken then.
    taken: u64,
    at_ms: u64,
}

impl Stall {
    /// Something waits for room; `taken`: bytes that the client has taken so far. Answers for how many milliseconds it has
    /// taken none.
    pub fn lasts_ms(&mut self, taken: u64, now_ms: u64) -> u64 {
        match &self.0 {
            Some(since) if since.taken == taken => now_ms.saturating_sub(since.at_ms),
            _ => {
                self.0 = Some(Since { taken, at_ms: now_ms });
                0
            }
        }
    }

    /// There is room.
    pub fn ends(&mut self) {
        self.0 = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_lasts_from_the_last_byte_that_was_taken() {
        let mut stall = Stall::default();
        assert_eq!(stall.lasts_ms(10, 1_000), 0);
        assert_eq!(stall.lasts_ms(10, 31_000), 30_000);
        assert_eq!(stall.lasts_ms(11, 32_000), 0);
        assert_eq!(stall.lasts_ms(11, 40_000), 8_000);
        stall.ends();
        assert_eq!(stall.lasts_ms(11, 90_000), 0);
    }
}
