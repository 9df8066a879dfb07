//! One chart as SVG: lines over time, the phases behind them.
//!
//! Pure functions. What always holds: a point is a sample, and nothing is drawn between samples but a straight line;
//! what was not measured is a hole; every axis says its unit; nothing outside the picture is referred to.

use std::fmt::Write;

use super::figures::Span;

const TOP: f64 = 8.0;
const BOTTOM: f64 = 30.0;
const LEFT: f64 = 58.0;
const RIGHT: f64 = 12.0;

/// How large a picture is, in the units in which its letters have eleven.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Size {
    /// For a screen.
    Wide,
    /// For a telephone held upright: as wide as that, so that letters keep their size.
    Narrow,
}

/// What follows from a size.
struct Measures {
    width: f64,
    height: f64,
    /// Lines across the picture, about.
    ticks_up: f64,
    /// Times below it, about.
    ticks_along: f64,
    /// Points drawn of one line: there are not more pixels.
    points_max: usize,
}

impl Size {
    fn measures(self) -> Measures {
        match self {
            Size::Wide => Measures { width: 960.0, height: 240.0, ticks_up: 5.0, ticks_along: 8.0, points_max: 1_200 },
            Size::Narrow => Measures { width: 360.0, height: 200.0, ticks_up: 4.0, ticks_along: 4.0, points_max: 400 },
        }
    }

    /// As the style sheet calls it.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Size::Wide => "wide",
            Size::Narrow => "narrow",
        }
    }
}

/// How values are laid out.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    /// In powers of ten: for values that differ a hundredfold.
    Logarithmic,
}

/// A chart.
#[derive(Clone, Debug)]
pub(crate) struct Chart {
    /// What it shows, with the unit.
    pub title: &'static str,
    /// How values are laid out.
    pub scale: Scale,
    /// Its lines.
    pub lines: Vec<Line>,
}

/// One line: seconds and values; a hole where a value is missing.
#[derive(Clone, Debug)]
pub(crate) struct Line {
    /// What it is.
    pub name: &'static str,
    /// By time.
    pub points: Vec<(f64, Option<f64>)>,
}

/// Where values go in the picture.
struct Axes {
    measures: Measures,
    seconds: f64,
    low: f64,
    high: f64,
    scale: Scale,
}

impl Chart {
    /// The chart; `None`: there is nothing to show.
    pub(crate) fn svg(&self, spans: &[Span], size: Size) -> Option<String> {
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
            Scale::Linear => {
                let high = nice_top(high.max(1e-9) * 1.02, size.measures().ticks_up);
                Axes { measures: size.measures(), seconds, low: 0.0, high, scale: self.scale }
            }
            Scale::Logarithmic => Axes {
                measures: size.measures(),
                seconds,
                low: 10f64.powf(low.log10().floor()),
                high: 10f64.powf((high * 1.001).log10().ceil()),
                scale: self.scale,
            },
        };
        let mut svg = String::new();
        let title = escape(self.title);
        // Writing to a String cannot fail.
        let (class, Measures { width, height, .. }) = (size.class(), size.measures());
        write!(svg, "<svg class=\"{class}\" viewBox=\"0 0 {width} {height}\" role=\"img\" aria-label=\"{title}\">")
            .ok();
        axes.phases(spans, &mut svg);
        axes.grid(&mut svg);
        for (at, line) in self.lines.iter().enumerate() {
            axes.line(at, line, &mut svg);
        }
        svg.push_str("</svg>");
        Some(svg)
    }

    /// What its lines are, as HTML, which breaks where there is no room; nothing if there is but one.
    pub(crate) fn keys(&self) -> String {
        if self.lines.len() < 2 {
            return String::new();
        }
        let key = |(at, line): (usize, &Line)| format!("<span><i class=\"l{at}\"></i>{}</span>", escape(line.name));
        format!("<p class=\"keys\">{}</p>", self.lines.iter().enumerate().map(key).collect::<String>())
    }
}

impl Axes {
    fn x(&self, seconds: f64) -> f64 {
        LEFT + (self.measures.width - LEFT - RIGHT) * (seconds / self.seconds).clamp(0.0, 1.0)
    }

    fn y(&self, value: f64) -> f64 {
        let part = match self.scale {
            Scale::Linear => (value - self.low) / (self.high - self.low),
            Scale::Logarithmic => (value / self.low).log10() / (self.high / self.low).log10(),
        };
        self.measures.height - BOTTOM - (self.measures.height - TOP - BOTTOM) * part.clamp(0.0, 1.0)
    }

    fn phases(&self, spans: &[Span], svg: &mut String) {
        let (top, height) = (TOP, self.measures.height - TOP - BOTTOM);
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
            let (y, right) = (self.y(value), self.measures.width - RIGHT);
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
            Scale::Linear => steps(self.high, self.measures.ticks_up).for_each(&mut across),
            Scale::Logarithmic => {
                let mut value = self.low;
                while value <= self.high * 1.001 {
                    across(value);
                    value *= 10.0;
                }
            }
        }
        let (unit, unit_s) = match self.seconds {
            ..600.0 => ("s", 1.0),
            ..18_000.0 => ("min", 60.0),
            _ => ("h", 3_600.0),
        };
        for along in steps(self.seconds / unit_s, self.measures.ticks_along) {
            let (x, y) = (self.x(along * unit_s), self.measures.height - BOTTOM + 16.0);
            let along = short(along);
            write!(svg, "<text class=\"tick\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"middle\">{along} {unit}</text>")
                .ok();
        }
    }

    fn line(&self, at: usize, line: &Line, svg: &mut String) {
        let mut path = String::new();
        let mut pen_up = true;
        let stride = line.points.len().div_ceil(self.measures.points_max).max(1);
        for (seconds, value) in line.points.iter().step_by(stride) {
            let Some(value) = value else {
                pen_up = true;
                continue;
            };
            write!(path, "{}{:.1} {:.1}", if pen_up { 'M' } else { 'L' }, self.x(*seconds), self.y(*value)).ok();
            pen_up = false;
        }
        write!(svg, "<path class=\"line l{at}\" d=\"{path}\"/>").ok();
    }
}

/// Text as HTML may hold it.
pub(crate) fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

/// The next round number: 1, 2, 2.5 or 5 times a power of ten.
fn nice(value: f64) -> f64 {
    let power = 10f64.powf(value.log10().floor());
    [1.0, 2.0, 2.5, 5.0, 10.0].iter().map(|step| step * power).find(|nice| *nice >= value).unwrap_or(value)
}

/// The next multiple of a round number of which about so many lie below.
fn nice_top(value: f64, ticks: f64) -> f64 {
    let step = nice(value / ticks);
    (value / step).ceil() * step
}

/// Round numbers from 0 to `high`, about so many of them.
fn steps(high: f64, ticks: f64) -> impl Iterator<Item = f64> {
    let step = nice(high / ticks);
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
        Chart { title: "A & B", scale, lines: vec![Line { name: "<a>", points: points.to_vec() }] }
            .svg(&[span], Size::Wide)
    }

    #[test]
    fn a_line_has_a_hole_where_nothing_was_measured() {
        let svg = chart(Scale::Linear, &[(0.0, Some(0.0)), (5.0, Some(95.0)), (6.0, None), (10.0, Some(1.0))]).unwrap();
        let path = svg.split("class=\"line l0\" d=\"").nth(1).unwrap().split('"').next().unwrap();
        assert_eq!(path.matches('M').count(), 2, "{path}");
        // Zero is at the bottom on the left, 95 of 100 near the top in the middle.
        assert!(path.starts_with("M58.0 210.0L503.0 18."), "{path}");
        assert!(svg.contains("A &amp; B"));
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
    fn letters_keep_their_size_on_a_narrow_screen_and_names_cannot_be_markup() {
        let line = |name| Line { name, points: vec![(0.0, Some(1.0)), (900.0, Some(2.0))] };
        let chart = Chart { title: "t", scale: Scale::Linear, lines: vec![line("<a>"), line("b")] };
        let narrow = chart.svg(&[], Size::Narrow).unwrap();
        assert!(narrow.contains("class=\"narrow\" viewBox=\"0 0 360 "), "{narrow}");
        assert!(narrow.contains(">15 min<") && narrow.matches(" min<").count() <= 6, "{narrow}");
        assert!(chart.keys().contains("&lt;a&gt;") && !chart.keys().contains("<a>"));
    }

    #[test]
    fn axes_have_round_numbers() {
        assert_eq!([1.0, 1.1, 21.0, 260.0, 0.03].map(nice), [1.0, 2.0, 25.0, 500.0, 0.05]);
        assert_eq!(nice_top(29.4, 5.0), 30.0);
        assert_eq!(steps(100.0, 5.0).collect::<Vec<_>>(), [0.0, 20.0, 40.0, 60.0, 80.0, 100.0]);
        assert_eq!([500_000.0, 2_500_000.0, 2.5, 0.001].map(short), ["500 k", "2.5 M", "2.5", "0.001"]);
    }
}
