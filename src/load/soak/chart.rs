//! One chart as SVG: lines over time, the phases behind them.
//!
//! Pure functions. What always holds: a point is a sample, and nothing is drawn between samples but a straight line;
//! what was not measured is a hole; every axis says its unit; nothing outside the picture is referred to.

use std::fmt::Write;

use super::figures::Span;

const WIDTH: f64 = 960.0;
const HEIGHT: f64 = 260.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 24.0;
const BOTTOM: f64 = 30.0;
/// Lines across the picture, about.
const TICKS: f64 = 5.0;
/// Points drawn of one line: there are not more pixels.
const POINTS_MAX: usize = 1_200;

/// How values are laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scale {
    /// From zero.
    Linear,
    /// In powers of ten: for values that differ a hundredfold.
    Logarithmic,
}

/// A chart.
#[derive(Clone, Debug)]
pub struct Chart {
    /// What it shows, with the unit.
    pub title: &'static str,
    /// How values are laid out.
    pub scale: Scale,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// One line: seconds and values; a hole where a value is missing.
#[derive(Clone, Debug)]
pub struct Line {
    /// What it is.
    pub name: &'static str,
    /// By time.
    pub points: Vec<(f64, Option<f64>)>,
}

/// Where values go in the picture.
struct Axes {
    seconds: f64,
    low: f64,
    high: f64,
    scale: Scale,
}

impl Chart {
    /// The chart; `None`: there is nothing to show.
    pub fn svg(&self, spans: &[Span]) -> Option<String> {
        let values = || self.lines.iter().flat_map(|line| &line.points).filter_map(|(_, value)| *value);
        let positive = |scale| move |value: &f64| scale == Scale::Linear || *value > 0.0;
        let high = values().filter(positive(self.scale)).fold(f64::NEG_INFINITY, f64::max);
        let low = values().filter(positive(self.scale)).fold(f64::INFINITY, f64::min);
        if !high.is_finite() {
            return None;
        }
        let last = |line: &Line| line.points.last().map_or(0.0, |(at, _)| *at);
        let seconds = self.lines.iter().map(last).chain(spans.iter().map(|s| s.to_s)).fold(1.0, f64::max);
        let axes = match self.scale {
            Scale::Linear => Axes { seconds, low: 0.0, high: nice(high.max(1e-9) * 1.05), scale: self.scale },
            Scale::Logarithmic => Axes {
                seconds,
                low: 10f64.powf(low.log10().floor()),
                high: 10f64.powf((high * 1.001).log10().ceil()),
                scale: self.scale,
            },
        };
        let mut svg = String::new();
        let title = escape(self.title);
        // Writing to a String cannot fail.
        write!(svg, "<svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\" aria-label=\"{title}\">").ok();
        axes.phases(spans, &mut svg);
        axes.grid(&mut svg);
        for (at, line) in self.lines.iter().enumerate() {
            axes.line(at, line, &mut svg);
        }
        svg.push_str("</svg>");
        Some(svg)
    }
}

impl Axes {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (WIDTH - LEFT - RIGHT) * (seconds / self.seconds).clamp(0.0, 1.0)
    }

    fn y(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value / self.low).log10() / (self.high / self.low).log10(),
        };
        HEIGHT - BOTTOM - (HEIGHT - TOP - BOTTOM) * part.clamp(0.0, 1.0)
    }

    fn phases(&self, spans: &[Span], svg: &mut String) {
        let (top, height) = (TOP, HEIGHT - TOP - BOTTOM);
        for (at, span) in spans.iter().enumerate() {
            let (from, to) = (self.x(span.from_s), self.x(span.to_s));
            let (width, band) = (to - from, at % 2);
            write!(
                svg,
                "<rect class=\"band{band}\" x=\"{from:.1}\" y=\"{top}\" width=\"{width:.1}\" height=\"{height}\"/>"
            )
            .ok();
            if width > 40.0 {
                write!(
                    svg,
                    "<text class=\"phase\" x=\"{:.1}\" y=\"{:.1}\">{}</text>",
                    from + 4.0,
                    top + 11.0,
                    span.phase.name()
                )
                .ok();
            }
        }
    }

    fn grid(&self, svg: &mut String) {
        let mut across = |value: f64| {
            let (y, right) = (self.y(value), WIDTH - RIGHT);
            write!(svg, "<line class=\"grid\" x1=\"{LEFT}\" x2=\"{right}\" y1=\"{y:.1}\" y2=\"{y:.1}\"/>").ok();
            write!(
                svg,
                "<text class=\"tick\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
                LEFT - 6.0,
                y + 4.0,
                short(value)
            )
            .ok();
        };
        match self.scale {
            Scale::Linear => steps(self.high).for_each(&mut across),
            Scale::Logarithmic => {
                let mut value = self.low;
                while value <= self.high * 1.001 {
                    across(value);
                    value *= 10.0;
                }
            }
        }
        for seconds in steps(self.seconds) {
            let (x, y) = (self.x(seconds), HEIGHT - BOTTOM + 16.0);
            write!(
                svg,
                "<text class=\"tick\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{} s</text>",
                short(seconds)
            )
            .ok();
        }
    }

    fn line(&self, at: usize, line: &Line, svg: &mut String) {
        let mut path = String::new();
        let mut pen_up = true;
        let stride = line.points.len().div_ceil(POINTS_MAX).max(1);
        for (seconds, value) in line.points.iter().step_by(stride) {
            let Some(value) = value else {
                pen_up = true;
                continue;
            };
            write!(path, "{}{:.1} {:.1}", if pen_up { 'M' } else { 'L' }, self.x(*seconds), self.y(*value)).ok();
            pen_up = false;
        }
        write!(svg, "<path class=\"line l{at}\" d=\"{path}\"/>").ok();
        let x = LEFT + 150.0 * at as f64;
        write!(svg, "<rect class=\"key l{at}\" x=\"{x}\" y=\"6\" width=\"14\" height=\"4\"/>").ok();
        write!(svg, "<text class=\"name\" x=\"{}\" y=\"12\">{}</text>", x + 20.0, escape(line.name)).ok();
    }
}

/// Text as HTML may hold it.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The next round number: 1, 2, 2.5 or 5 times a power of ten.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].iter().map(|step| step * power).find(|nice| *nice >= value).unwrap_or(value)
}

/// Round numbers from 0 to `high`, about [`TICKS`] of them.
fn steps(high: f64) -> impl Iterator<Item = f64> {
    let step = nice(high / TICKS);
    (0..).map(move |at| f64::from(at) * step).take_while(move |value| *value <= high * 1.001)
}

/// A number as an axis has room for.
fn short(value: f64) -> String {
    match value {
        v if v >= 1e6 => format!("{} M", trimmed(v / 1e6)),
        v if v >= 1e4 => format!("{} k", trimmed(v / 1e3)),
        v => trimmed(v),
    }
}

fn trimmed(value: f64) -> String {
    let text = format!("{value:.3}");
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;
    use crate::soak::figures::Phase;

    fn chart(scale: Scale, points: &[(f64, Option<f64>)]) -> Option<String> {
        let span = Span { phase: Phase::Ramp, from_s: 0.0, to_s: 10.0 };
        Chart { title: "A & B", scale, lines: vec![Line { name: "<a>", points: points.to_vec() }] }.svg(&[span])
    }

    #[test]
    fn a_line_has_a_hole_where_nothing_was_measured() {
        let svg = chart(Scale::Linear, &[(0.0, Some(0.0)), (5.0, Some(95.0)), (6.0, None), (10.0, Some(1.0))]).unwrap();
        let path = svg.split("class=\"line l0\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        // Zero is at the bottom on the left, 95 of 100 near the top in the middle.
        assert!(path.starts_with("M64.0 230.0L506.0 34."), "{path}");
        assert!(svg.contains("A &amp; B") && svg.contains("&lt;a&gt;") && !svg.contains("<a>"));
    }

    #[test]
    fn powers_of_ten_are_evenly_apart() {
        let svg = chart(Scale::Logarithmic, &[(0.0, Some(0.5)), (1.0, Some(50.0)), (2.0, Some(0.0))]).unwrap();
        let at = |label: &str| -> f64 {
            let before = svg.split(&format!("text-anchor=\"end\">{label}</text>")).next().unwrap();
            before.rsplit("y=\"").next().unwrap().trim_end_matches("\" ").parse().unwrap()
        };
        assert!((at("0.1") - at("1") - (at("10") - at("100"))).abs() < 0.2);
    }

    #[test]
    fn without_a_value_there_is_no_chart() {
        assert_eq!(chart(Scale::Linear, &[(0.0, None)]), None);
        assert_eq!(chart(Scale::Logarithmic, &[(0.0, Some(0.0))]), None);
    }

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!([1.0, 1.1, 21.0, 260.0, 0.03].map(nice), [1.0, 2.0, 25.0, 500.0, 0.05]);
        assert_eq!(steps(100.0).collect::<Vec<_>>(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!([500_000.0, 2_500_000.0, 2.5, 0.001].map(short), ["500 k", "2.5 M", "2.5", "0.001"]);
    }
}
