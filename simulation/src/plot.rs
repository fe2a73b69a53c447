//! The plot of a comparison: a metric by round, by bytes and by simulated time, a line for each variant.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::{Path, PathBuf};

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::compare::{Point, Variant, points};

const SIZE: (u32, u32) = (1380, 440);
const FONT: &str = "sans-serif";
/// Distinct for colour-blind eyes too (Okabe and Ito).
const COLORS: [RGBColor; 6] = [
    RGBColor(0, 114, 178),
    RGBColor(213, 94, 0),
    RGBColor(0, 158, 115),
    RGBColor(204, 121, 167),
    RGBColor(86, 180, 233),
    RGBColor(230, 159, 0),
];

/// Larger ones are those of a model that has diverged, and no axis reaches so far.
const LARGEST: f64 = 1e12;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The plot was not drawn.
#[derive(Debug, thiserror::Error)]
#[error("the plot {path} cannot be drawn: {reason}", path = .0.display(), reason = .1)]
pub struct PlotError(PathBuf, String);

/// What is drawn from left to right.
struct Axis {
    title: &'static str,
    place: fn(&Point) -> f64,
}

/// Draws how `metric` went in every variant, as the mean over its seeds.
pub fn draw(variants: &[Variant], metric: &str, path: &Path) -> Result<(), PlotError> {
    let drawn = {
        let area = SVGBackend::new(path, SIZE).into_drawing_area();
        all(variants, metric, &area).map_err(|error| error.to_string())
    };
    drawn.map_err(|reason| PlotError(path.to_owned(), reason))
}

fn all(variants: &[Variant], metric: &str, area: &Area<'_>) -> Result<(), Box<dyn Error>> {
    area.fill(&WHITE)?;
    let axes = [
        Axis { title: "rounds completed", place: |point| f64::from(point.round) },
        Axis { title: "MiB sent, up and down", place: |point| point.bytes as f64 / f64::from(1 << 20) },
        Axis { title: "simulated minutes", place: |point| point.seconds / 60.0 },
    ];
    let lines: Vec<(&str, Vec<Point>)> =
        variants.iter().map(|variant| (variant.name.as_str(), mean(variant, metric))).collect();
    for (part, axis) in area.split_evenly((1, axes.len())).iter().zip(&axes) {
        chart(part, axis, metric, &lines)?;
    }
    Ok(area.present()?)
}

/// The mean over seeds, round by round, of those that all seeds completed.
fn mean(variant: &Variant, metric: &str) -> Vec<Point> {
    let mut rounds = BTreeMap::<u32, Vec<Point>>::new();
    let drawn = |point: &Point| point.value.abs() <= LARGEST;
    for point in variant.reports.iter().flat_map(|report| points(report, metric)).filter(drawn) {
        rounds.entry(point.round).or_default().push(point);
    }
    let all = variant.reports.len();
    let whole = rounds.into_iter().filter(|(_, points)| points.len() == all);
    let mean = |(round, points): (u32, Vec<Point>)| {
        let over = |of: fn(&Point) -> f64| points.iter().map(of).sum::<f64>() / points.len() as f64;
        let bytes = over(|point| point.bytes as f64) as u64;
        Point { round, bytes, seconds: over(|point| point.seconds), value: over(|point| point.value) }
    };
    whole.map(mean).collect()
}

fn chart(
    area: &Area<'_>,
    axis: &Axis,
    metric: &str,
    lines: &[(&str, Vec<Point>)],
) -> Result<(), Box<dyn Error>> {
    let points = || lines.iter().flat_map(|(_, points)| points);
    let furthest = points().map(axis.place).fold(f64::MIN_POSITIVE, f64::max);
    let (low, high) = points()
        .fold((f64::MAX, f64::MIN), |(low, high), point| (low.min(point.value), high.max(point.value)));
    let (low, high) = if low < high { (low, high) } else { (0.0, 1.0) };
    let room = (high - low) * 0.05;
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..furthest, low - room..high + room)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_labels(6)
        .y_labels(8)
        .x_desc(axis.title)
        .y_desc(metric)
        .label_style((FONT, 14))
        .draw()?;
    for ((name, points), color) in lines.iter().zip(COLORS.iter().cycle()) {
        let style = color.stroke_width(2);
        let line = points.iter().map(|point| ((axis.place)(point), point.value));
        chart
            .draw_series(LineSeries::new(line, style))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .label_font((FONT, 14))
        .draw()?;
    Ok(())
}
