//! How the seconds of a round and the server's memory grow with the model, for each contestant.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::result::Row;

const SIZE: (u32, u32) = (1000, 440);
const FONT: &str = "sans-serif";
/// Distinct for colour-blind eyes too (Okabe and Ito).
const COLORS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Lines<'a> = BTreeMap<&'a str, Vec<(f64, f64)>>;

/// Draws the rounds with the most clients; false if too few were measured.
pub(crate) fn draw(rows: &[Row], path: &Path) -> Result<bool> {
    let rounds = || rows.iter().filter(|row| row.workload == "round" && row.seconds.is_some());
    let Some(clients) = rounds().map(|row| row.clients).max() else { return Ok(false) };
    let lines = |value: fn(&Row) -> Option<f64>| {
        let mut lines = Lines::new();
        for row in rounds().filter(|row| row.clients == clients) {
            lines.entry(row.contestant).or_default().extend(value(row).map(|value| (row.size_mb, value)));
        }
        lines
    };
    let (seconds, memory) = (lines(|row| row.seconds), lines(|row| row.server_rss_mb));
    if seconds.values().all(|points| points.len() < 2) {
        return Ok(false);
    }
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    both(&area, clients, &seconds, &memory)
        .map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))?;
    Ok(true)
}

fn both(
    area: &Area<'_>,
    clients: u32,
    seconds: &Lines<'_>,
    memory: &Lines<'_>,
) -> Result<(), Box<dyn Error>> {
    area.fill(&WHITE)?;
    let title = format!("A round without training, {clients} clients and the server on one machine");
    let (left, right) = area.titled(&title, (FONT, 18))?.split_horizontally(SIZE.0 / 2);
    chart(&left, "seconds of a round", seconds)?;
    chart(&right, "peak memory of the server, MB", memory)?;
    Ok(area.present()?)
}

fn chart(area: &Area<'_>, what: &str, lines: &Lines<'_>) -> Result<(), Box<dyn Error>> {
    let points = || lines.values().flatten();
    let around = |values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        (low / 1.5..high * 1.5).log_scale()
    };
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(64)
        .build_cartesian_2d(around(&mut points().map(|p| p.0)), around(&mut points().map(|p| p.1)))?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_desc("MB of the model")
        .y_desc(what)
        .label_style((FONT, 14))
        .draw()?;
    for ((name, points), color) in lines.iter().zip(COLORS.iter().cycle()) {
        let style = color.stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], style));
        chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, color.filled())))?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.2))
        .label_font((FONT, 14))
        .draw()?;
    Ok(())
}
