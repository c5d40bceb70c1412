//! One plot: lines over two axes, drawn as SVG.
//!
//! Text keeps the font of the page, so nothing here knows how wide it is: room for labels is fixed, and ticks are
//! chosen so far apart that their labels have it.

use plotters::{coord::cartesian::Cartesian2d, prelude::*};

use super::axis::{Axis, Fitted};

/// What lines are drawn into.
type Chart<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Fitted, Fitted>>;

/// Width and height, pixels.
const SIZE: (u32, u32) = (1_000, 320);
/// Pixels of 13-pixel text; plotters writes a font size of this over 1.24.
const TEXT: f64 = 13.0 * 1.24;
/// Room for the labels of the y axis, pixels: `14,000,000` and the description.
const LEFT: u32 = 115;
/// Room for those of the x axis, pixels.
const BELOW: u32 = 46;
/// Room for the half of the last label that is outside of the plot, pixels.
const RIGHT: u32 = 40;
/// Room above, pixels.
const ABOVE: u32 = 12;
/// Pixels of the mark at a tick.
const TICK: u32 = 4;
/// Pixels of a line's width.
const WIDTH: u32 = 2;
/// Pixels of a dash and of the gap behind it.
const DASH: u32 = 6;
/// Radius of a point that has no line, pixels.
const DOT: u32 = 3;
/// The page gives these another color in the dark.
const GRID: RGBColor = RGBColor(0xd8, 0xdc, 0xe0);
const AXIS: RGBColor = RGBColor(0x8a, 0x90, 0x99);
const INK: RGBColor = RGBColor(0x1c, 0x1e, 0x21);
/// Colors of lines, to be told apart on light and on dark.
const COLORS: [RGBColor; 12] = [
    RGBColor(0x2f, 0x7d, 0xe1),
    RGBColor(0xe8, 0x71, 0x0a),
    RGBColor(0x1b, 0x9e, 0x77),
    RGBColor(0xd6, 0x33, 0x6c),
    RGBColor(0x8b, 0x5c, 0xf6),
    RGBColor(0xb0, 0x86, 0x0b),
    RGBColor(0x17, 0xa2, 0xb8),
    RGBColor(0x80, 0x80, 0x80),
    RGBColor(0x9c, 0x5a, 0x3c),
    RGBColor(0x7c, 0xa8, 0x1f),
    RGBColor(0xd4, 0x7f, 0xd4),
    RGBColor(0x5a, 0x6f, 0xb0),
];

/// One plot.
#[derive(Debug, Clone)]
pub struct Plot {
    /// What it shows.
    pub title: String,
    /// The axis below.
    pub x: Axis,
    /// The axis to the left.
    pub y: Axis,
    /// Lines, each in the [`color`] of its index.
    pub lines: Vec<Line>,
}

/// One line of a plot.
#[derive(Debug, Clone)]
pub struct Line {
    /// What the legend says.
    pub name: String,
    /// Dashed, not solid.
    pub dashed: bool,
    /// Points in the order of x; the line is broken where there is none.
    pub points: Vec<Option<(f64, f64)>>,
}

/// The color of the line of that index, red, green and blue. Colors come again after some.
pub fn color(index: usize) -> RGBColor {
    COLORS[index % COLORS.len()]
}

impl Plot {
    /// The plot as an SVG element, without its title and legend.
    ///
    /// # Errors
    /// It cannot be drawn, which writing to memory is not known to cause.
    pub fn draw(&self) -> anyhow::Result<String> {
        let points = || self.lines.iter().flat_map(|line| line.points.iter().flatten());
        let x = self.x.fit(points().map(|&(x, _)| x));
        let y = self.y.fit(points().map(|&(_, y)| y));
        let mut svg = String::new();
        // The backend writes the end of the element when it is dropped.
        {
            let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
            let mut chart = ChartBuilder::on(&root)
                .margin_top(ABOVE)
                .margin_right(RIGHT)
                .x_label_area_size(BELOW)
                .y_label_area_size(LEFT)
                .build_cartesian_2d(x, y)?;
            let text = ("sans-serif", TEXT).into_font().color(&INK);
            chart
                .configure_mesh()
                .bold_line_style(GRID)
                .axis_style(AXIS)
                .label_style(text.clone())
                .set_all_tick_mark_size(TICK)
                .x_desc(self.x.label)
                .y_desc(self.y.label)
                .x_label_formatter(&|place| self.x.tick(*place))
                .y_label_formatter(&|place| self.y.tick(*place))
                .draw()?;
            if !self.draw_lines(&mut chart)? {
                let middle = ((SIZE.0 + LEFT) as i32 / 2, (SIZE.1 - BELOW) as i32 / 2);
                root.draw(&Text::new("no data", middle, text))?;
            }
            root.present()?;
        }
        Ok(svg)
    }

    /// True if there was anything to draw.
    fn draw_lines(&self, chart: &mut Chart<'_, '_>) -> anyhow::Result<bool> {
        let mut drawn = false;
        for (index, line) in self.lines.iter().enumerate() {
            let style = color(index).stroke_width(WIDTH);
            for piece in self.pieces(line) {
                drawn = true;
                match piece.as_slice() {
                    [alone] => chart.draw_series([Circle::new(*alone, DOT, color(index).filled())]),
                    _ if line.dashed => chart.draw_series(DashedLineSeries::new(piece, DASH, DASH, style)),
                    _ => chart.draw_series(LineSeries::new(piece, style)),
                }?;
            }
        }
        Ok(drawn)
    }

    /// The unbroken pieces of a line, as places on the axes.
    fn pieces(&self, line: &Line) -> Vec<Vec<(f64, f64)>> {
        let place = |point: &Option<(f64, f64)>| {
            let (x, y) = (*point)?;
            Some((self.x.place(x)?, self.y.place(y)?))
        };
        let places: Vec<_> = line.points.iter().map(place).collect();
        let pieces =
            places.split(Option::is_none).map(|piece| piece.iter().copied().flatten().collect::<Vec<_>>());
        pieces.filter(|piece| !piece.is_empty()).collect()
    }
}
