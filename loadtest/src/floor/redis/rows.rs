//! What can be measured of Redis: one row for each way to publish, and the selections of them that are offered.

/// What a row does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Work {
    /// `XADD` to streams of its own, one for each channel.
    Xadd,
    /// `XADD` to one stream, then `XREAD` of all of it, 500 entries at a time.
    XaddXread,
    /// `PUBLISH` to one subscriber.
    Publish,
    /// `XADD` to the channels' histories, with the words of the publish script.
    XaddToHistory,
    /// `HGET` of the channels' interest.
    Interest,
    /// The publish script.
    Script(Calls),
}

/// How the publish script is called and its inbox read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Calls {
    /// Publishes to a call.
    pub batch: usize,
    /// With an idempotency key each.
    pub keyed: bool,
    /// A reader blocks on the inbox meanwhile; else it is read when all is written, 500 entries at a time.
    pub live: bool,
}

/// One row.
#[derive(Debug, Clone, Copy)]
pub struct Row {
    /// Its name in tables and figures: never changed, or results of before cannot be compared.
    pub name: &'static str,
    /// What it does.
    pub work: Work,
}

const XADD: Row = Row { name: "plain XADD", work: Work::Xadd };
const XADD_XREAD: Row = Row { name: "plain XADD and XREAD", work: Work::XaddXread };
const PUBLISH: Row = Row { name: "plain PUBLISH", work: Work::Publish };
const TO_HISTORY: Row = Row { name: "plain XADD to the histories", work: Work::XaddToHistory };
const INTEREST: Row = Row { name: "plain HGET of the interest", work: Work::Interest };
const SCRIPT: [Row; 9] = [
    script("1 to a call", 1, false, false),
    script("8 to a call", 8, false, false),
    script("32 to a call", 32, false, false),
    script("1 to a call, with keys", 1, true, false),
    script("8 to a call, with keys", 8, true, false),
    script("32 to a call, with keys", 32, true, false),
    script("1 to a call, reader blocks", 1, false, true),
    script("8 to a call, reader blocks", 8, false, true),
    script("32 to a call, reader blocks", 32, false, true),
];

const fn script(name: &'static str, batch: usize, keyed: bool, live: bool) -> Row {
    Row { name, work: Work::Script(Calls { batch, keyed, live }) }
}

impl Row {
    /// True for a row that calls the script with so many publishes, in its plainest form.
    pub fn is_script(&self, publishes: usize) -> bool {
        self.work == Work::Script(Calls { batch: publishes, keyed: false, live: false })
    }

    /// True if what was written and what was read are told apart.
    pub fn reads_apart(&self) -> bool {
        matches!(self.work, Work::XaddXread | Work::Script(Calls { live: false, .. }))
    }
}

/// The rows of one run. The first is what the others are compared to.
#[derive(Debug, Clone)]
pub struct Rows(pub Vec<Row>);

impl Rows {
    /// Of `redis-publish`: all.
    pub fn all() -> Self {
        Self([vec![XADD, XADD_XREAD, PUBLISH], SCRIPT.to_vec()].concat())
    }

    /// Of `floor-redis`: the plain commands.
    pub fn plain() -> Self {
        Self(vec![XADD, XADD_XREAD])
    }

    /// Of `floor-script`: the script, in every form, beside plain `XADD`.
    pub fn script() -> Self {
        Self([vec![XADD], SCRIPT.to_vec()].concat())
    }

    /// Of a sweep: the script at 8 and 32, and the two plain commands in it that look for something by channel.
    pub fn sweep() -> Self {
        let [_, at_8, at_32, ..] = SCRIPT;
        Self(vec![TO_HISTORY, INTEREST, at_8, at_32])
    }

    /// The script with so many publishes to a call, in its plainest form, beside plain `XADD`.
    pub fn one_script(batch: usize) -> Self {
        Self(vec![XADD, script("script", batch, false, false)])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_rows_apart() {
        for rows in [Rows::all(), Rows::plain(), Rows::script(), Rows::sweep()] {
            let mut names: Vec<_> = rows.0.iter().map(|row| row.name).collect();
            names.sort_unstable();
            names.dedup();
            assert_eq!(names.len(), rows.0.len());
        }
    }

    #[test]
    fn the_rows_with_an_aim_are_there() {
        for batch in [8, 32] {
            for rows in [Rows::all(), Rows::script(), Rows::sweep()] {
                assert_eq!(rows.0.iter().filter(|row| row.is_script(batch)).count(), 1);
            }
        }
    }
}
