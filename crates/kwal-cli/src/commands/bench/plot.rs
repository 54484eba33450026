//! The plot of a benchmark: throughput over time, and latencies under it.

use std::{fs, ops::Range, path::Path};

use plotters::{
    coord::{
        Shift,
        ranged1d::{DefaultFormatting, KeyPointHint},
        types::RangedCoordf64,
    },
    prelude::{
        BLACK, ChartBuilder, Color as _, DrawingArea, IntoDrawingArea as _, LineSeries, PathElement,
        RGBColor, Ranged, SVGBackend, SeriesLabelPosition, Text, WHITE,
    },
};

use super::samples::{Phase, Sample};
use crate::{exit::Failure, output::plural};

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = Result<(), Box<dyn std::error::Error>>;
type Point = (f64, f64);

/// A line with gaps: name, color, and the points between them.
struct Line {
    name: &'static str,
    color: RGBColor,
    pieces: Vec<Vec<Point>>,
}

/// Writes an SVG under a title.
pub(super) fn write(file: &Path, title: &str, append: &Phase, read: Option<&Phase>) -> Result<(), Failure> {
    let svg = plot(title, append, read)
        .map_err(|error| Failure::Local(format!("the plot cannot be drawn: {error}")))?;
    fs::write(file, svg)
        .map_err(|error| Failure::local(format!("{} cannot be written", file.display()), &error))
}

// Colors that people with any kind of color vision tell apart.
const BLUE: RGBColor = RGBColor(0x00, 0x72, 0xb2);
const ORANGE: RGBColor = RGBColor(0xe6, 0x9f, 0x00);
const RED: RGBColor = RGBColor(0xd5, 0x5e, 0x00);

/// What a reader with a dark screen sees: style sheets win over the attributes of elements.
const STYLE: &str = "\
<style>@media (prefers-color-scheme: dark) {
rect[fill=\"#FFFFFF\"] { fill: #0d1117 }
text { fill: #d0d7de }
[stroke=\"#000000\"] { stroke: #d0d7de }
[stroke=\"#0072B2\"] { stroke: #56b4e9 }
}</style>
";

const SIZE: (u32, u32) = (900, 620);
const HEAD: u32 = 60;

fn plot(title: &str, append: &Phase, read: Option<&Phase>) -> Result<String, Box<dyn std::error::Error>> {
    let mut svg = String::new();
    draw(&mut svg, title, append, read)?;
    let head = svg.find('>').map_or(0, |end| end + 1);
    svg.insert_str(head, &format!("\n{STYLE}"));
    Ok(svg)
}

fn draw(svg: &mut String, title: &str, append: &Phase, read: Option<&Phase>) -> Drawn {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let (head, charts) = area.split_vertically(HEAD);
    head.draw(&Text::new(title, (20, 12), ("sans-serif", 20)))?;
    head.draw(&Text::new(figures(append, read), (20, 36), ("sans-serif", 16)))?;
    let (upper, lower) = charts.split_vertically((SIZE.1 - HEAD) / 2);

    let rates = Line { name: "append", color: BLUE, pieces: rates(append) };
    let highest = rates.highest().unwrap_or(1.0) * 1.25;
    let axis = Axis { linear: (0.0..highest).into(), ticks: None };
    chart(&upper, "Appended, MB/s", append, &[rates], axis, &|value| value.to_string())?;

    let latencies = [
        Line { name: "p50", color: BLUE, pieces: logarithms(append, |sample| sample.p50_ms) },
        Line { name: "p99", color: ORANGE, pieces: logarithms(append, |sample| sample.p99_ms) },
    ];
    let highest = latencies.iter().filter_map(Line::highest).reduce(f64::max).unwrap_or(1.0);
    let lowest = latencies.iter().filter_map(Line::lowest).reduce(f64::min).unwrap_or(0.0) - 0.2;
    // The legend lies above the lines.
    let highest = highest + 0.4 * (highest - lowest) + 0.1;
    let axis = Axis { linear: (lowest..highest).into(), ticks: Some(ticks(lowest, highest)) };
    chart(&lower, "Latency of appends, ms", append, &latencies, axis, &|value| {
        // Some ticks are no powers of ten.
        let ms = 10_f64.powf(*value);
        if ms < 0.995 { format!("{ms:.2}") } else { format!("{ms:.0}") }
    })?;
    area.present()?;
    Ok(())
}

fn figures(append: &Phase, read: Option<&Phase>) -> String {
    let mut text = format!("appended {:.1} MB/s", append.bytes_per_second / 1e6);
    if let Some(latency) = &append.latency_ms {
        text += &format!(
            ": latency p50 {:.2} ms, p99 {:.2} ms, maximum {:.2} ms",
            latency.p50, latency.p99, latency.max
        );
    }
    if append.errors > 0 {
        text += &format!("; {}", plural(append.errors, "failed append"));
    }
    if let Some(read) = read {
        text += &format!("; read {:.1} MB/s", read.bytes_per_second / 1e6);
    }
    text
}

/// Megabytes per second over the seconds since the begin.
fn rates(phase: &Phase) -> Vec<Vec<Point>> {
    let interval = phase.samples.first().map_or(0.0, |sample| sample.second);
    let mut before = 0.0;
    let mut points = Vec::with_capacity(phase.samples.len());
    for sample in &phase.samples {
        let seconds = sample.second - before;
        before = sample.second;
        // The last one may be too short to say anything.
        if seconds > interval / 2.0 {
            points.push((sample.second, sample.bytes as f64 / 1e6 / seconds));
        }
    }
    vec![points]
}

/// The logarithms of latencies over the seconds since the begin. Where nothing was appended there is a gap.
fn logarithms(phase: &Phase, value: impl Fn(&Sample) -> Option<f64>) -> Vec<Vec<Point>> {
    let mut pieces = vec![Vec::new()];
    for sample in &phase.samples {
        match (value(sample), pieces.last_mut()) {
            (Some(ms), Some(piece)) => piece.push((sample.second, ms.max(1e-3).log10())),
            _ => pieces.push(Vec::new()),
        }
    }
    pieces
}

/// The logarithms of 1, 2, 5, 10 and so on between two of them.
fn ticks(lowest: f64, highest: f64) -> Vec<f64> {
    let decades = lowest.floor() as i32..=highest.ceil() as i32;
    let ticks = decades.flat_map(|decade| [1.0_f64, 2.0, 5.0].map(|tick| tick.log10() + f64::from(decade)));
    ticks.filter(|tick| (lowest..=highest).contains(tick)).collect()
}

fn chart(
    area: &Area<'_>,
    title: &str,
    append: &Phase,
    lines: &[Line],
    axis: Axis,
    label: &dyn Fn(&f64) -> String,
) -> Drawn {
    let Range { start: bottom, end: top } = axis.range();
    let last = append.samples.last().map_or(append.seconds, |sample| sample.second);
    let mut chart = ChartBuilder::on(area)
        .caption(title, ("sans-serif", 17))
        .margin(8)
        .margin_right(24)
        .x_label_area_size(36)
        .y_label_area_size(56)
        .build_cartesian_2d(0.0..last.max(1e-3), axis)?;
    chart
        .configure_mesh()
        .light_line_style(WHITE.mix(0.0))
        .x_desc("seconds")
        .y_label_formatter(&label)
        .label_style(("sans-serif", 15))
        .draw()?;
    let failed = append.samples.iter().filter(|sample| sample.errors > 0);
    let failed: Vec<_> = failed.map(|sample| sample.second).collect();
    if !failed.is_empty() {
        let line = |second: &f64| {
            PathElement::new([(*second, bottom), (*second, top)], RED.mix(0.5).stroke_width(2))
        };
        chart.draw_series(failed.iter().map(line))?.label("failed appends").legend(legend(RED));
    }
    for Line { name, color, pieces } in lines {
        for (index, piece) in pieces.iter().filter(|piece| !piece.is_empty()).enumerate() {
            let drawn = chart
                .draw_series(LineSeries::new(piece.iter().copied(), color.stroke_width(2)).point_size(1))?;
            if index == 0 {
                drawn.label(*name).legend(legend(*color));
            }
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .label_font(("sans-serif", 15))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

fn legend(color: RGBColor) -> impl Fn((i32, i32)) -> PathElement<(i32, i32)> {
    move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color.stroke_width(2))
}

/// A linear axis, which may have ticks of its own.
struct Axis {
    linear: RangedCoordf64,
    ticks: Option<Vec<f64>>,
}

impl Ranged for Axis {
    type FormatOption = DefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.linear.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, hint: Hint) -> Vec<f64> {
        self.ticks.clone().unwrap_or_else(|| self.linear.key_points(hint))
    }

    fn range(&self) -> Range<f64> {
        self.linear.range()
    }
}

impl Line {
    fn values(&self) -> impl Iterator<Item = f64> {
        self.pieces.iter().flatten().map(|(_, value)| *value)
    }

    fn highest(&self) -> Option<f64> {
        self.values().reduce(f64::max)
    }

    fn lowest(&self) -> Option<f64> {
        self.values().reduce(f64::min)
    }
}

#[cfg(test)]
mod tests {
    use super::{super::samples::Latency, *};

    fn sample(second: f64, bytes: u64, errors: u64, ms: Option<f64>) -> Sample {
        Sample { second, records: bytes / 100, bytes, errors, p50_ms: ms, p99_ms: ms.map(|ms| ms * 4.0) }
    }

    fn phase(samples: Vec<Sample>) -> Phase {
        Phase {
            seconds: 4.0,
            records: 1,
            bytes: 1,
            records_per_second: 1.0,
            bytes_per_second: 2e6,
            errors: samples.iter().map(|sample| sample.errors).sum(),
            latency_ms: Some(Latency { p50: 1.0, p90: 2.0, p99: 4.0, p999: 5.0, max: 6.0 }),
            samples,
        }
    }

    #[test]
    fn a_stall_is_a_gap_and_the_rest_of_an_interval_no_rate() {
        let phase = phase(vec![
            sample(1.0, 1_000_000, 0, Some(1.0)),
            sample(2.0, 0, 3, None),
            sample(3.0, 2_000_000, 0, Some(100.0)),
            sample(3.001, 500_000, 0, Some(1.0)),
        ]);
        assert_eq!(rates(&phase), [[(1.0, 1.0), (2.0, 0.0), (3.0, 2.0)]]);
        let pieces = logarithms(&phase, |sample| sample.p50_ms);
        assert_eq!(pieces, [vec![(1.0, 0.0)], vec![(3.0, 2.0), (3.001, 0.0)]]);
        let svg = plot("title", &phase, None).unwrap();
        for text in ["prefers-color-scheme: dark", "title", "Latency of appends, ms", "failed appends", "p99"]
        {
            assert!(svg.contains(text), "{text}");
        }
        assert!(svg.contains("appended 2.0 MB/s: latency p50 1.00 ms"), "{svg}");
    }

    #[test]
    fn nothing_can_be_drawn_as_well() {
        let nothing = Phase { latency_ms: None, ..phase(Vec::new()) };
        assert!(plot("title", &nothing, Some(&nothing)).unwrap().starts_with("<svg"));
    }

    #[test]
    fn ticks_are_round() {
        let ms: Vec<_> = ticks(-0.5, 1.1).iter().map(|tick| (10_f64.powf(*tick) * 100.0).round()).collect();
        assert_eq!(ms, [50.0, 100.0, 200.0, 500.0, 1000.0]);
    }
}
