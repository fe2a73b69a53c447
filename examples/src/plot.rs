//! The plot of metrics by round: on the left what should rise, on the right what should fall.

use std::error::Error;
use std::ops::Range;
use std::path::PathBuf;

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::example::Example;
use crate::history::{History, Point};
use crate::metric::{LOSS, Metric};
use crate::outcome::PLOT_FILE;
use crate::work::Work;

const SIZE: (u32, u32) = (1000, 420);
const FONT: &str = "sans-serif";
/// Distinct for colour-blind eyes too (Okabe and Ito).
const BLUE: RGBColor = RGBColor(0, 114, 178);
const ORANGE: RGBColor = RGBColor(213, 94, 0);

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// The plot was not drawn.
#[derive(Debug, thiserror::Error)]
#[error("the plot {path} cannot be drawn: {reason}", path = .0.display(), reason = .1)]
pub(crate) struct PlotError(PathBuf, String);

/// A line of a chart.
struct Series {
    name: &'static str,
    color: RGBColor,
    points: Vec<(f64, f64)>,
}

/// Draws the run's metrics.
pub(crate) fn draw(history: &History, example: &Example, work: &Work) -> Result<(), PlotError> {
    let path = work.path(PLOT_FILE);
    let drawn = {
        let area = SVGBackend::new(&path, SIZE).into_drawing_area();
        both(history, example, &area).map_err(|error| error.to_string())
    };
    drawn.map_err(|reason| PlotError(path, reason))
}

fn both(history: &History, example: &Example, area: &Area<'_>) -> Result<(), Box<dyn Error>> {
    area.fill(&WHITE)?;
    let title = format!(
        "{}: the global model on the validation examples of {} sites, seed {}",
        example.choice.example, example.choice.sites, example.choice.seed
    );
    let (left, right) = area.titled(&title, (FONT, 18))?.split_horizontally(SIZE.0 / 2);
    let global = |name, metric: Metric, color| {
        let value = |point: &Point| Some((f64::from(point.round), point.metrics.value(metric)?));
        Series { name, color, points: history.global.iter().filter_map(value).collect() }
    };
    let shares = example.metrics.iter().filter(|metric| metric.share).zip([BLUE, ORANGE]);
    let rising: Vec<Series> = shares.map(|(metric, color)| global(metric.title, *metric, color)).collect();
    let train_loss = history.train_loss.iter().map(|(round, loss)| (f64::from(*round), *loss));
    let falling = [
        global("validation loss", LOSS, BLUE),
        Series { name: "training loss at the sites", color: ORANGE, points: train_loss.collect() },
    ];
    let highest = falling.iter().flat_map(|series| &series.points).map(|point| point.1).fold(0.1, f64::max);
    chart(&left, "share", &rising, 0.0..1.0, SeriesLabelPosition::LowerRight)?;
    chart(&right, "nats", &falling, 0.0..highest * 1.05, SeriesLabelPosition::LowerLeft)?;
    Ok(area.present()?)
}

fn chart(
    area: &Area<'_>,
    unit: &str,
    lines: &[Series],
    heights: Range<f64>,
    legend: SeriesLabelPosition,
) -> Result<(), Box<dyn Error>> {
    let last = lines.iter().flat_map(|line| &line.points).map(|point| point.0).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..last, heights)?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_labels(last.min(12.0) as usize + 1)
        .x_label_formatter(&|round| format!("{round:.0}"))
        .y_labels(6)
        .y_label_formatter(&|value| format!("{value:.1}"))
        .x_desc("rounds completed")
        .y_desc(unit)
        .label_style((FONT, 14))
        .draw()?;
    for Series { name, color, points } in lines {
        let style = color.stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(legend)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .label_font((FONT, 14))
        .draw()?;
    Ok(())
}
