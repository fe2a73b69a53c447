//! Which of the project's targets hold. Each is a ratio of two medians of the same run wherever that is possible.

use std::fmt;

use clap::ValueEnum;

use crate::result::Row;
use crate::training::{Model, ON_CPU, ON_GPU};

/// One target, and what was reached; `None` where the run has not measured it.
pub(crate) struct Target {
    what: String,
    reached: Option<f64>,
    bound: Bound,
}

enum Bound {
    AtMost(f64),
    AtLeast(f64),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { what, reached, bound } = self;
        let (holds, word, bound): (fn(f64, f64) -> bool, _, _) = match bound {
            Bound::AtMost(most) => (|reached, most| reached <= most, "at most", *most),
            Bound::AtLeast(least) => (|reached, least| reached >= least, "at least", *least),
        };
        match reached {
            None => write!(f, "not measured  {what}: {word} {bound:.3}"),
            Some(reached) if reached.is_nan() => write!(f, "FAILED        {what}: {word} {bound:.3}"),
            Some(reached) if holds(*reached, bound) => {
                write!(f, "holds         {what}: {reached:.3}, {word} {bound:.3}")
            }
            Some(reached) => write!(f, "MISSED        {what}: {reached:.3}, {word} {bound:.3}"),
        }
    }
}

pub(crate) fn all(rows: &[Row]) -> Vec<Target> {
    let find = |workload: &str, contestant: &str, size: Option<f64>, clients: u32| {
        rows.iter().find(|row| {
            row.workload == workload
                && row.contestant == contestant
                && size.is_none_or(|size| row.size_mb == size)
                && row.clients == clients
        })
    };
    let round = |contestant, megabytes| find("round", contestant, Some(megabytes), 8);
    // What failed has not reached anything.
    let of = |row: Option<&Row>, figure: fn(&Row) -> Option<f64>| {
        let row = row?;
        if row.ok { figure(row) } else { Some(f64::NAN) }
    };
    let seconds = |row| of(row, |row| row.seconds);
    let cpu = |row| of(row, |row| row.cpu_seconds);
    let ratio = |ours: Option<f64>, theirs: Option<f64>| Some(ours? / theirs?);
    let (ours, flower, nvflare) = (round("Sheaf", 100.0), round("Flower", 100.0), round("NVFLARE", 100.0));
    // Of throughput, so that more is better.
    let speed = |workload, contestant, reference| {
        ratio(seconds(find(workload, reference, None, 1)), seconds(find(workload, contestant, None, 1)))
    };
    let at_most =
        |what: &str, reached, most| Target { what: what.into(), reached, bound: Bound::AtMost(most) };
    let at_least =
        |what: &str, reached, least| Target { what: what.into(), reached, bound: Bound::AtLeast(least) };
    // Everything that travels in a round, there and back, as one transfer after another.
    let bare = of(find("transport", "bare quinn", None, 1), |row| {
        Some(2.0 * 8.0 * 100.0 / row.size_mb * row.seconds?)
    });
    let beyond = ratio(bare, seconds(ours)).map(|moving| 1.0 - moving);
    let worst = |workloads: &[&str], figure: fn(&Row) -> Option<f64>| {
        let ours = |row: &&Row| workloads.contains(&row.workload) && row.contestant.starts_with("Sheaf");
        let figures = rows.iter().filter(ours).filter_map(|row| of(Some(row), figure));
        // `f64::max` would pass over one that failed.
        figures.reduce(|most, next| if most > next || most.is_nan() { most } else { next })
    };
    let beyond_a_model = |row: &Row| Some(row.server_rss_mb? - row.size_mb);
    let steps = Model::value_variants().iter().flat_map(|model| model.parts()).flat_map(|(_, step)| {
        let of_pytorch = |[sheaf, pytorch]: [&str; 2]| {
            ratio(seconds(find(step, sheaf, None, 1)), seconds(find(step, pytorch, None, 1)))
        };
        let target = |what: &str, reached| at_most(&format!("{step}, {what}"), reached, 1.0);
        // Few have a GPU.
        let on_gpu = of_pytorch(ON_GPU).map(|reached| target("on a GPU, of PyTorch's", Some(reached)));
        [target("of PyTorch's", of_pytorch(ON_CPU))].into_iter().chain(on_gpu)
    });
    let idle = find("idle sites", "Sheaf", None, 1000);
    let others = [
        at_most("1000 idle sites, server's memory, MB", of(idle, |row| row.server_rss_mb), 200.0),
        at_most("1000 idle sites, of a core", ratio(cpu(idle), seconds(idle)), 0.01),
        at_most(
            "round of 100 MB x 8, seconds, of NVFLARE's",
            ratio(seconds(ours), seconds(nvflare)),
            1.0 / 8.0,
        ),
        at_most(
            "round of 100 MB x 8, seconds, of Flower's",
            ratio(seconds(ours), seconds(flower)),
            1.0 / 20.0,
        ),
        at_most("round of 100 MB x 8, server's CPU, of NVFLARE's", ratio(cpu(ours), cpu(nvflare)), 1.0 / 8.0),
        at_most("round of 100 MB x 8, server's CPU, of Flower's", ratio(cpu(ours), cpu(flower)), 1.0 / 15.0),
        at_most("round of 1 MB x 8, seconds", seconds(round("Sheaf", 1.0)), 0.15),
        at_most(
            "rounds that were measured, server's memory beyond one model, MB",
            worst(&["round", "secure round"], beyond_a_model),
            96.0,
        ),
        at_most("crowd, server's memory beyond one model, MB", worst(&["crowd"], beyond_a_model), 96.0),
        at_most(
            "rounds that were measured, bytes on the wire, of the payload",
            worst(&["round"], |row| row.wire),
            1.02,
        ),
        at_most(
            "round of 100 MB x 8, of its seconds beyond what bare quinn takes for the bytes",
            beyond,
            0.15,
        ),
        at_least("transfer, of bare quinn's speed", speed("transport", "Sheaf", "bare quinn"), 0.85),
        at_least(
            "exact weighted sum, all cores, of a memory copy's speed",
            speed("weighted sum", "Sheaf, all cores", "memory copy, all cores"),
            0.7,
        ),
        at_least(
            "masking, one core, G values a second and mask",
            of(find("masking", "Sheaf, one core", None, 1), |row| {
                Some(row.size_mb * 1e6 / 4.0 / row.seconds? / 1e9)
            }),
            1.0,
        ),
    ];
    others.into_iter().chain(steps).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::case::{Case, Sample};

    #[test]
    fn a_target_holds_is_missed_or_was_not_measured() {
        let said = |reached, bound| Target { what: "it".into(), reached, bound }.to_string();
        assert!(said(Some(0.85), Bound::AtLeast(0.85)).starts_with("holds"));
        assert!(said(Some(0.84), Bound::AtLeast(0.85)).starts_with("MISSED"));
        assert!(said(Some(1.03), Bound::AtMost(1.02)).starts_with("MISSED"));
        assert!(said(None, Bound::AtMost(1.02)).starts_with("not measured"));
        assert!(said(Some(f64::NAN), Bound::AtMost(1.02)).starts_with("FAILED"));
        let case = |clients| Case {
            workload: "round",
            contestant: "Sheaf",
            size_mb: 100.0,
            clients,
            run: Box::new(|| Ok(Sample::default())),
        };
        let measured = Sample { server_rss_mb: Some(150.0), ..Sample::default() };
        for order in [[0, 1], [1, 0]] {
            let rows = [
                Row::of(&case(4), Ok(vec![measured.clone()])),
                Row::of(&case(8), Err(anyhow::anyhow!("killed"))),
            ];
            let rows = order.map(|at: usize| rows[at].clone());
            let failed = all(&rows).iter().filter(|target| target.to_string().starts_with("FAILED")).count();
            // Of memory and bytes the worst is judged.
            assert_eq!(failed, 2, "a failure is no success in either order");
        }
        assert!(all(&[]).iter().all(|target| target.reached.is_none()), "nothing was measured");
    }
}
