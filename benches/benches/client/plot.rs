//! Plots, as SVG.

use std::path::Path;

use kwal_benches::shared::Failure;
use plotters::{
    chart::ChartContext,
    coord::{
        Shift,
        cartesian::Cartesian2d,
        ranged1d::{Ranged, ValueFormatter},
    },
    element::{PathElement, Rectangle, Text},
    prelude::{
        BLACK, ChartBuilder, Circle, DrawingArea, IntoDrawingArea, IntoLogRange, LineSeries, RGBColor,
        SVGBackend, SeriesLabelPosition, WHITE,
    },
    style::{
        Color, IntoFont, IntoTextStyle, TextStyle,
        text_anchor::{HPos, Pos, VPos},
    },
};

use super::{results::Results, rows::Figure};

/// The clients in their order, each with its colour: those of Okabe and Ito, which all people can tell apart.
const COLOURS: [(&str, RGBColor); 8] = [
    ("kwal", RGBColor(0, 114, 178)),
    ("kwal-borrowed", RGBColor(0, 114, 178)),
    ("kwal-owned", RGBColor(86, 180, 233)),
    ("rskafka", RGBColor(230, 159, 0)),
    ("rdkafka", RGBColor(0, 158, 115)),
    ("krafka", RGBColor(204, 121, 167)),
    ("floor", RGBColor(120, 120, 120)),
    ("floor-slices", RGBColor(60, 60, 60)),
];
/// The first of them are clients, and have bars.
const CLIENTS: usize = 6;
const GREY: RGBColor = RGBColor(200, 200, 200);
const OTHER: RGBColor = RGBColor(120, 120, 120);

fn colour(subject: &str) -> RGBColor {
    COLOURS.iter().find(|(name, _)| *name == subject).map_or(OTHER, |(_, colour)| *colour)
}

fn text(size: i32, horizontal: HPos, vertical: VPos) -> TextStyle<'static> {
    ("sans-serif", size).into_font().color(&BLACK).pos(Pos::new(horizontal, vertical))
}

/// Bars of one figure, in groups.
pub(crate) struct Bars<'a> {
    pub(crate) title: &'a str,
    pub(crate) figure: Figure,
    /// Longer bars are cut off, and say how long they are.
    pub(crate) most: f64,
    /// Name of a row, and its base.
    pub(crate) rows: Vec<(String, &'static str)>,
}

const WIDTH: i32 = 900;
const LEFT: i32 = 250;
const RIGHT: i32 = 70;
const TOP: i32 = 76;
const BOTTOM: i32 = 44;
const BAR: i32 = 13;
const GAP: i32 = 9;

impl Bars<'_> {
    /// Draws them into a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn draw(&self, results: &Results, path: &Path) -> Result<(), Failure> {
        let groups: Vec<_> =
            self.rows.iter().map(|(row, base)| (row, self.group(results, row, base))).collect();
        let groups: Vec<_> = groups.into_iter().filter(|(_, bars)| !bars.is_empty()).collect();
        if groups.is_empty() {
            return Ok(());
        }
        let height: i32 = groups.iter().map(|(_, bars)| bars.len() as i32 * BAR + GAP).sum();
        let end = TOP + height;
        let root = SVGBackend::new(path, (WIDTH as u32, (end + BOTTOM) as u32)).into_drawing_area();
        root.fill(&WHITE)?;
        self.axis(&root, end)?;
        legend(&root, groups.iter().flat_map(|(_, bars)| bars.iter().map(|(subject, _)| &**subject)))?;
        let mut y = TOP;
        for (row, bars) in &groups {
            let middle = y + (bars.len() as i32 * BAR + GAP) / 2;
            root.draw(&Text::new((*row).clone(), (LEFT - 8, middle), text(15, HPos::Right, VPos::Center)))?;
            y += GAP / 2;
            for (subject, figure) in bars {
                let x = self.x(*figure);
                let bar = [(LEFT, y + 1), (x, y + BAR - 1)];
                root.draw(&Rectangle::new(bar, colour(subject).filled()))?;
                let label = (x + 4, y + BAR / 2);
                root.draw(&Text::new(format!("{figure:.2}"), label, text(13, HPos::Left, VPos::Center)))?;
                y += BAR;
            }
            y += GAP - GAP / 2;
        }
        root.present()?;
        Ok(())
    }

    fn group(&self, results: &Results, row: &str, base: &str) -> Vec<(String, f64)> {
        let bar = |(subject, _): &(&str, RGBColor)| {
            Some(((*subject).to_owned(), results.figure(row, subject, base, self.figure)?))
        };
        COLOURS[..CLIENTS].iter().filter_map(bar).collect()
    }

    fn x(&self, figure: f64) -> i32 {
        let width = f64::from(WIDTH - LEFT - RIGHT);
        LEFT + (figure.clamp(0.0, self.most) / self.most * width) as i32
    }

    fn axis(&self, root: &DrawingArea<SVGBackend<'_>, Shift>, end: i32) -> Result<(), Failure> {
        root.draw(&Text::new(self.title.to_owned(), (WIDTH / 2, 14), text(20, HPos::Center, VPos::Top)))?;
        let step = self.most / 8.0;
        for tick in 0..=8 {
            let figure = f64::from(tick) * step;
            let x = self.x(figure);
            root.draw(&PathElement::new([(x, TOP), (x, end)], GREY.stroke_width(1)))?;
            root.draw(&Text::new(format!("{figure}"), (x, end + 5), text(14, HPos::Center, VPos::Top)))?;
        }
        if self.figure != Figure::OnCodec {
            root.draw(&PathElement::new([(self.x(1.0), TOP), (self.x(1.0), end)], BLACK.stroke_width(1)))?;
        }
        let unit = match self.figure {
            Figure::Cpu => "processor time of the client, as a ratio to the floor",
            Figure::OnCodec => "processor time of the client on top of the codec alone, seconds per GB",
            Figure::CpuOfRskafka => "processor time of the client, as a ratio to rskafka",
            Figure::TimeOfRskafka => "time per record, as a ratio to rskafka",
            Figure::Latency => "median latency, as a ratio",
            Figure::Memory => "memory at most, MB",
        };
        root.draw(&Text::new(
            unit,
            ((LEFT + WIDTH - RIGHT) / 2, end + 24),
            text(14, HPos::Center, VPos::Top),
        ))?;
        Ok(())
    }
}

fn legend<'a>(
    root: &DrawingArea<SVGBackend<'_>, Shift>,
    subjects: impl Iterator<Item = &'a str> + Clone,
) -> Result<(), Failure> {
    let mut x = LEFT;
    for (subject, colour) in &COLOURS[..CLIENTS] {
        if !subjects.clone().any(|other| other == *subject) {
            continue;
        }
        root.draw(&Rectangle::new([(x, 48), (x + 11, 59)], colour.filled()))?;
        root.draw(&Text::new(*subject, (x + 16, 54), text(15, HPos::Left, VPos::Center)))?;
        x += 34 + 8 * subject.len() as i32;
    }
    Ok(())
}

/// Lines over an axis, which can have powers of ten.
pub(crate) struct Lines<'a> {
    pub(crate) title: &'a str,
    pub(crate) x: &'a str,
    pub(crate) y: &'a str,
    pub(crate) is_logarithmic: bool,
    /// Name of a subject, and its points.
    pub(crate) lines: Vec<(String, Vec<(f64, f64)>)>,
}

impl Lines<'_> {
    /// Draws them into a file.
    ///
    /// # Errors
    /// The file cannot be written.
    pub(crate) fn draw(&self, path: &Path) -> Result<(), Failure> {
        let points = || self.lines.iter().flat_map(|(_, points)| points);
        let of = |pick: fn(&(f64, f64)) -> f64| {
            points().map(pick).fold((f64::MAX, f64::MIN), |(least, most), at| (least.min(at), most.max(at)))
        };
        let ((left, right), (bottom, top)) = (of(|point| point.0), of(|point| point.1));
        if left > right {
            return Ok(());
        }
        let root = SVGBackend::new(path, (720, 420)).into_drawing_area();
        root.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&root);
        chart.caption(self.title, ("sans-serif", 20)).margin(14).x_label_area_size(46).y_label_area_size(66);
        if self.is_logarithmic {
            let (x, y) = ((left..right).log_scale(), (bottom * 0.8..top * 1.25).log_scale());
            self.series(&root, chart.build_cartesian_2d(x, y)?)?;
        } else {
            self.series(&root, chart.build_cartesian_2d(left..right, 0.0..top * 1.1)?)?;
        }
        root.present()?;
        Ok(())
    }

    fn series<'a, 'b: 'a, X, Y>(
        &self,
        root: &DrawingArea<SVGBackend<'b>, Shift>,
        mut chart: ChartContext<'a, SVGBackend<'b>, Cartesian2d<X, Y>>,
    ) -> Result<(), Failure>
    where
        X: Ranged<ValueType = f64> + ValueFormatter<f64>,
        Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
    {
        let label = ("sans-serif", 14).into_text_style(root);
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_labels(if self.is_logarithmic { 8 } else { 5 })
            .x_label_formatter(&short)
            .y_label_formatter(&short)
            .label_style(label.clone())
            .axis_desc_style(label)
            .light_line_style(WHITE)
            .bold_line_style(GREY)
            .draw()?;
        for (name, points) in &self.lines {
            let colour = colour(name);
            chart
                .draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(2)))?
                .label(name)
                .legend(move |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2)));
            chart.draw_series(points.iter().map(|point| Circle::new(*point, 3, colour.filled())))?;
        }
        chart
            .configure_series_labels()
            .position(if self.y == "GB/s" {
                SeriesLabelPosition::LowerRight
            } else {
                SeriesLabelPosition::UpperRight
            })
            .background_style(WHITE)
            .border_style(GREY)
            .label_font(("sans-serif", 14))
            .draw()?;
        Ok(())
    }
}

/// Returns a number with few digits: `0.25`, `10`, `100k`.
fn short(number: &f64) -> String {
    let (number, unit) = match *number {
        1e6.. => (number / 1e6, "M"),
        1e3.. => (number / 1e3, "k"),
        _ => (*number, ""),
    };
    let digits = if number < 10.0 && number.fract() != 0.0 { 2 } else { 0 };
    format!("{number:.digits$}{unit}")
}
