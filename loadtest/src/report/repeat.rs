//! Several runs of the same, put together: medians of the figures and their range, and the distributions and plots of a middle one.

use super::result::{Better, RunResult};

/// The result of all runs; `None` if there were none.
///
/// What every run must have done correctly is added up: a fault in one is a fault of all.
pub fn together(mut runs: Vec<RunResult>) -> Option<RunResult> {
    let leading = |run: &RunResult| {
        let figure = run.figures.iter().find(|figure| figure.better != Better::Neither);
        figure.and_then(|figure| figure.value).unwrap_or(f64::NAN)
    };
    runs.sort_by(|one, two| leading(one).total_cmp(&leading(two)));
    in_order(runs)
}

/// Of runs in the order of what is judged, the middle one with the figures of all.
fn in_order(mut runs: Vec<RunResult>) -> Option<RunResult> {
    let count = runs.len();
    if count < 2 {
        return runs.pop();
    }
    let mut result = runs[count / 2].clone();
    for run in &runs {
        let new = run.notes.iter().filter(|note| !result.notes.contains(note)).cloned().collect::<Vec<_>>();
        result.notes.extend(new);
    }
    // Those beside it are put together in the same way, and shown of the same run: a fault in one of them is one, too.
    for (at, beside) in result.beside.iter_mut().enumerate() {
        let same = runs.iter().filter_map(|run| run.beside.get(at).cloned()).collect();
        if let Some(all) = in_order(same) {
            *beside = all;
        }
    }
    for at in 0..result.figures.len() {
        let name = result.figures[at].name.clone();
        let mut values = values(&runs, &name);
        values.sort_by(f64::total_cmp);
        result.figures[at].value = median(&values);
        result.figures[at].range = values.first().zip(values.last()).map(|(least, most)| [*least, *most]);
    }
    result.correctness = Default::default();
    for run in &runs {
        result.correctness.add(&run.correctness);
    }
    if let Some(saturated) = &mut result.saturated {
        saturated.correctness = Default::default();
        for run in runs.iter().filter_map(|run| run.saturated.as_ref()) {
            saturated.correctness.add(&run.correctness);
        }
    }
    Some(result)
}

/// Of values in order; of an even number the mean of the two in the middle.
fn median(values: &[f64]) -> Option<f64> {
    let half = values.len() / 2;
    let upper = *values.get(half)?;
    Some(if values.len().is_multiple_of(2) { (values[half - 1] + upper) / 2.0 } else { upper })
}

fn values(runs: &[RunResult], name: &str) -> Vec<f64> {
    let of = |run: &RunResult| {
        run.figures.iter().find(|figure| figure.name == name).and_then(|figure| figure.value)
    };
    runs.iter().filter_map(of).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::result::Figure;

    fn run(speed: f64, lost: u64) -> RunResult {
        let figures = vec![Figure::higher("speed", Some(speed), "1/s"), Figure::fact("none", None, "")];
        let mut run = RunResult { figures, ..RunResult::default() };
        run.correctness.lost = lost;
        run.notes.push(format!("of {speed}"));
        run
    }

    #[test]
    fn figures_are_medians_and_faults_add_up() {
        let result = together(vec![run(3.0, 0), run(1.0, 2), run(2.0, 0)]).unwrap();
        assert_eq!(result.figures[0].value, Some(2.0));
        assert_eq!(result.figures[1].value, None);
        assert_eq!([result.figures[0].range, result.figures[1].range], [Some([1.0, 3.0]), None]);
        assert_eq!(result.notes, ["of 2", "of 1", "of 3"]);
        assert!(result.correctness.fault());
    }

    #[test]
    fn runs_beside_are_put_together_in_the_same_way() {
        let with_another =
            |speed: f64, lost| RunResult { beside: vec![run(speed * 10.0, lost)], ..run(speed, 0) };
        let result =
            together(vec![with_another(1.0, 0), with_another(3.0, 2), with_another(2.0, 0)]).unwrap();
        assert_eq!(result.beside[0].figures[0].value, Some(20.0));
        assert!(result.beside[0].correctness.fault());
    }

    #[test]
    fn the_run_beside_is_of_the_same_run_and_an_even_number_has_its_median_between_two() {
        let with_another =
            |speed: f64, other: f64| RunResult { beside: vec![run(other, 0)], ..run(speed, 0) };
        let runs = vec![with_another(1.0, 9.0), with_another(2.0, 3.0), with_another(3.0, 7.0)];
        let result = together(runs.clone()).unwrap();
        assert_eq!(result.beside[0].notes[0], "of 3");
        assert_eq!(together(runs[..2].to_vec()).unwrap().figures[0].value, Some(1.5));
    }

    #[test]
    fn one_run_is_itself_and_none_is_none() {
        assert_eq!(together(vec![run(3.0, 0)]), Some(run(3.0, 0)));
        assert_eq!(together(Vec::new()), None);
    }
}
