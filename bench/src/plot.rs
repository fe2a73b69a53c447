//! How the seconds of a round and the server's memory grow with the model, for each contestant, and how ours grow with the clients.

use std::collections::BTreeMap;
use std::error::Error;
use std::path::Path;

use anyhow::{Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;

use crate::result::Row;

const SIZE: (u32, u32) = (1500, 440);
const FONT: &str = "sans-serif";
/// Distinct for colour-blind eyes too (Okabe and Ito).
const COLORS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

/// Whose rounds are drawn by clients too.
const OURS: &str = "Sheaf";

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Lines = BTreeMap<String, Vec<(f64, f64)>>;

/// Draws what was measured of rounds; false if that is too little.
pub(crate) fn draw(rows: &[Row], path: &Path) -> Result<bool> {
    let rounds = || rows.iter().filter(|row| row.workload == "round" && row.seconds.is_some());
    let mut measured: BTreeMap<u32, u32> = BTreeMap::new();
    rounds().for_each(|row| *measured.entry(row.clients).or_default() += 1);
    // With most contestants and sizes.
    let Some((clients, _)) = measured.into_iter().max_by_key(|(_, rows)| *rows) else { return Ok(false) };
    let by_size = |value: fn(&Row) -> Option<f64>| {
        let mut lines = Lines::new();
        for row in rounds().filter(|row| row.clients == clients) {
            let line = lines.entry(row.contestant.to_owned()).or_default();
            line.extend(value(row).map(|value| (row.size_mb, value)));
        }
        lines
    };
    let mut by_clients = Lines::new();
    for row in rounds().filter(|row| row.contestant == OURS) {
        let line = by_clients.entry(format!("{OURS}, {} MB", row.size_mb)).or_default();
        line.extend(row.seconds.map(|seconds| (f64::from(row.clients), seconds)));
    }
    let charts = [
        ("MB of the model", format!("seconds of a round, {clients} clients"), by_size(|row| row.seconds)),
        (
            "MB of the model",
            format!("server's peak memory in MB, {clients} clients"),
            by_size(|row| row.server_rss_mb),
        ),
        ("clients", "seconds of a round".to_owned(), by_clients),
    ];
    if !charts.iter().any(|(_, _, lines)| is_drawn(lines)) {
        return Ok(false);
    }
    let area = SVGBackend::new(path, SIZE).into_drawing_area();
    all(&area, &charts).map_err(|error| anyhow!("cannot draw {}: {error}", path.display()))?;
    Ok(true)
}

/// Of points that stand alone there is nothing to see.
fn is_drawn(lines: &Lines) -> bool {
    lines.values().any(|points| points.len() > 1)
}

fn all(area: &Area<'_>, charts: &[(&str, String, Lines)]) -> Result<(), Box<dyn Error>> {
    area.fill(&WHITE)?;
    let titled = area.titled("A round without training, clients and server on one machine", (FONT, 18))?;
    for (area, (along, what, lines)) in titled.split_evenly((1, charts.len())).iter().zip(charts) {
        if is_drawn(lines) {
            chart(area, along, what, lines)?;
        }
    }
    Ok(area.present()?)
}

fn chart(area: &Area<'_>, along: &str, what: &str, lines: &Lines) -> Result<(), Box<dyn Error>> {
    let points = || lines.values().flatten();
    let around = |above: f64, values: &mut dyn Iterator<Item = f64>| {
        let (low, high) = values.fold((f64::MAX, f64::MIN), |(low, high), v| (low.min(v), high.max(v)));
        (low / 1.5..high * above).log_scale()
    };
    let mut chart = ChartBuilder::on(area)
        .margin(12)
        .x_label_area_size(42)
        .y_label_area_size(80)
        // Above the lines is room for their names.
        .build_cartesian_2d(
            around(1.5, &mut points().map(|p| p.0)),
            around(16.0, &mut points().map(|p| p.1)),
        )?;
    chart
        .configure_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(BLACK.mix(0.12))
        .x_labels(5)
        .x_desc(along)
        .y_desc(what)
        .label_style((FONT, 14))
        .draw()?;
    for ((name, points), color) in lines.iter().zip(COLORS.iter().cycle()) {
        let style = color.stroke_width(2);
        chart
            .draw_series(LineSeries::new(points.iter().copied(), style))?
            .label(name)
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
