//! The plot of a benchmark: throughput over time, and latencies under it.

use std::{fs, path::Path};

use plotters::{
    coord::Shift,
    prelude::{
        BLACK, ChartBuilder, Color as _, DrawingArea, IntoDrawingArea as _, LineSeries, PathElement,
        RGBColor, SVGBackend, SeriesLabelPosition, WHITE,
    },
};

use super::samples::{Phase, Sample};
use crate::exit::Failure;

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;
/// Name, color and points.
type Line<'a> = (&'a str, RGBColor, Vec<(f64, f64)>);

/// Writes an SVG.
pub(super) fn write(file: &Path, append: &Phase, read: &Phase) -> Result<(), Failure> {
    let mut svg = String::new();
    draw(&mut svg, append, read)
        .map_err(|error| Failure::Local(format!("the plot cannot be drawn: {error}")))?;
    fs::write(file, svg)
        .map_err(|error| Failure::local(format!("{} cannot be written", file.display()), &error))
}

const APPEND: RGBColor = RGBColor(0x1f, 0x77, 0xb4);
const READ: RGBColor = RGBColor(0x2c, 0xa0, 0x2c);
const P99: RGBColor = RGBColor(0xff, 0x7f, 0x0e);
const ERROR: RGBColor = RGBColor(0xd6, 0x27, 0x28);

fn draw(svg: &mut String, append: &Phase, read: &Phase) -> Drawn {
    let area = SVGBackend::with_string(svg, (900, 640)).into_drawing_area();
    area.fill(&WHITE)?;
    let (upper, lower) = area.split_vertically(320);
    let rate = |phase: &Phase| points(phase, |sample, seconds| Some(sample.bytes as f64 / 1e6 / seconds));
    let throughput = [("append", APPEND, rate(append)), ("read", READ, rate(read))];
    chart(&upper, "Throughput", "MB/s", append, &throughput)?;
    let latencies = [
        ("p50", APPEND, points(append, |sample, _| sample.p50_ms)),
        ("p99", P99, points(append, |sample, _| sample.p99_ms)),
    ];
    chart(&lower, "Latency of appends", "ms", append, &latencies)?;
    area.present()?;
    Ok(())
}

/// A value of each sample, over the seconds since the begin of the phase.
fn points(phase: &Phase, value: impl Fn(&Sample, f64) -> Option<f64>) -> Vec<(f64, f64)> {
    let mut before = 0.0;
    let mut points = Vec::with_capacity(phase.samples.len());
    for sample in &phase.samples {
        let seconds = (sample.second - before).max(1e-6);
        before = sample.second;
        points.extend(value(sample, seconds).map(|value| (sample.second, value)));
    }
    points
}

fn chart(area: &Area<'_>, title: &str, unit: &str, append: &Phase, lines: &[Line<'_>]) -> Drawn {
    let all = || lines.iter().flat_map(|(_, _, points)| points);
    let last = all().map(|(second, _)| *second).fold(append.seconds, f64::max);
    let top = all().map(|(_, value)| *value).fold(0.0, f64::max).max(1e-3) * 1.1;
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 18))
        .margin(12)
        .x_label_area_size(32)
        .y_label_area_size(60)
        .build_cartesian_2d(0.0..last, 0.0..top)?;
    chart.configure_mesh().light_line_style(WHITE).x_desc("s").y_desc(unit).draw()?;
    for (name, color, points) in lines {
        let color = *color;
        chart
            .draw_series(LineSeries::new(points.iter().copied(), color.stroke_width(2)))?
            .label(*name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2)));
    }
    let errors: Vec<_> = append.samples.iter().filter(|sample| sample.errors > 0).collect();
    if !errors.is_empty() {
        let line = |sample: &&Sample| {
            PathElement::new([(sample.second, 0.0), (sample.second, top)], ERROR.mix(0.6).stroke_width(2))
        };
        chart
            .draw_series(errors.iter().map(line))?
            .label("errors")
            .legend(|(x, y)| PathElement::new([(x, y), (x + 16, y)], ERROR.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}
