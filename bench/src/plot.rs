//! The figures as a picture: SVG, by hand, since bars and lines are all that is in it.

use std::fmt::Write as _;

use crate::growth::by_function;
use crate::{Cost, Growth, Samples};

const ROW: f64 = 15.0;
const LEFT: f64 = 170.0;
const BARS: f64 = 290.0;
const GAP: f64 = 60.0;
const TOP: f64 = 40.0;
const LINES_HEIGHT: f64 = 260.0;
const COLOURS: [&str; 6] = ["#2563eb", "#d97706", "#059669", "#dc2626", "#7c3aed", "#475569"];

/// Start and processor time of each function as bars, beside the first, which does nothing; and below them how the
/// time of those in `growth` grows.
#[must_use]
pub fn plot(costs: &[Cost], growth: &[Growth]) -> String {
    let rows = f64::from(u32::try_from(costs.len()).unwrap_or_default());
    let bars_end = TOP + rows * ROW;
    let (width, height) = (LEFT + 2.0 * BARS + GAP + 60.0, bars_end + LINES_HEIGHT + 130.0);
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" font-family=\"sans-serif\" \
         font-size=\"11\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n"
    );
    for (row, cost) in (0_u32..).zip(costs) {
        let y = TOP + f64::from(row) * ROW + 11.0;
        text(&mut svg, (LEFT - 8.0, y), "end", &cost.name);
    }
    bars(&mut svg, LEFT, "Start to first request for an event, ms", costs, |cost| &cost.init);
    bars(&mut svg, LEFT + BARS + GAP, "Processor time per warm event, µs", costs, |cost| &cost.cpu);
    lines(&mut svg, bars_end + 70.0, growth);
    svg + "</svg>\n"
}

fn text(svg: &mut String, (x, y): (f64, f64), anchor: &str, text: &str) {
    let text = text.replace('&', "&amp;").replace('<', "&lt;");
    let _infallible = writeln!(svg, "<text x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{text}</text>");
}

fn line(svg: &mut String, from: (f64, f64), to: (f64, f64), stroke: &str) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _infallible = writeln!(
        svg,
        "<line x1=\"{x1:.1}\" y1=\"{y1:.1}\" x2=\"{x2:.1}\" y2=\"{y2:.1}\" stroke=\"{stroke}\"/>"
    );
}

fn bars(svg: &mut String, left: f64, title: &str, costs: &[Cost], of: impl Fn(&Cost) -> &Samples) {
    let most = costs.iter().filter_map(|cost| of(cost).median()).fold(f64::MIN_POSITIVE, f64::max);
    text(svg, (left, TOP - 14.0), "start", title);
    for (row, cost) in (0_u32..).zip(costs) {
        let Some(median) = of(cost).median() else { continue };
        let (y, width) = (TOP + f64::from(row) * ROW, BARS * median / most);
        let colour = if row == 0 { "#94a3b8" } else { "#2563eb" };
        let _infallible = writeln!(
            svg,
            "<rect x=\"{left:.1}\" y=\"{:.1}\" width=\"{width:.1}\" height=\"{:.1}\" fill=\"{colour}\"/>",
            y + 2.0,
            ROW - 4.0,
        );
        text(svg, (left + width + 4.0, y + 11.0), "start", &crate::document::figure(Some(median)));
    }
    if let Some(hello) = costs.first().and_then(|cost| of(cost).median()) {
        let rows = f64::from(u32::try_from(costs.len()).unwrap_or_default());
        let x = left + BARS * hello / most;
        line(svg, (x, TOP), (x, TOP + rows * ROW), "#94a3b8");
    }
}

/// Both axes are logarithmic.
fn lines(svg: &mut String, top: f64, growth: &[Growth]) {
    let medians = growth.iter().filter_map(|one| Some((f64::from(one.count), one.took.median()?)));
    let (counts, times): (Vec<_>, Vec<_>) =
        medians.map(|(count, time)| (count.log10(), time.log10())).unzip();
    let least = |values: &[f64]| values.iter().copied().fold(f64::INFINITY, f64::min).floor();
    let most = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max).ceil();
    if counts.is_empty() {
        return;
    }
    let ((x0, x1), (y0, y1)) = ((least(&counts), most(&counts)), (least(&times), most(&times)));
    let width = 2.0 * BARS + GAP - 150.0;
    let at = |count: f64, time: f64| {
        let (x, y) = ((count - x0) / (x1 - x0).max(1.0), (time - y0) / (y1 - y0).max(1.0));
        (LEFT + x * width, top + LINES_HEIGHT * (1.0 - y))
    };
    text(
        svg,
        (LEFT, top - 14.0),
        "start",
        "Median of a warm event as there is more of it, ms (both axes logarithmic)",
    );
    let ticks = |from: f64, to: f64| {
        (0_u32..10).map(f64::from).map(move |step| from + step).take_while(move |at| *at <= to)
    };
    for count in ticks(x0, x1) {
        let (x, bottom) = at(count, y0);
        line(svg, (x, top), (x, bottom), "#e2e8f0");
        text(svg, (x, bottom + 14.0), "middle", &format!("{:.0}", 10_f64.powf(count)));
    }
    for time in ticks(y0, y1) {
        let (left, y) = at(x0, time);
        line(svg, (left, y), (left + width, y), "#e2e8f0");
        text(svg, (left - 6.0, y + 4.0), "end", &format!("{}", 10_f64.powf(time)));
    }
    for (((function, what), points), colour) in by_function(growth).into_iter().zip(COLOURS.iter().cycle()) {
        let points = points
            .into_iter()
            .filter_map(|one| Some((f64::from(one.count).log10(), one.took.median()?.log10())));
        let points: Vec<_> = points.map(|(count, time)| at(count, time)).collect();
        for (from, to) in points.iter().zip(points.iter().skip(1)) {
            line(svg, *from, *to, colour);
        }
        for (x, y) in &points {
            let _infallible =
                writeln!(svg, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
        if let Some((x, y)) = points.last() {
            text(svg, (x + 8.0, y + 4.0), "start", &format!("{function}, {what}"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_function_has_a_bar_and_each_size_a_point() {
        let samples = |value: f64| {
            let mut samples = Samples::default();
            samples.push(value);
            samples
        };
        let cost = |name: &str, init| Cost {
            name: name.to_owned(),
            init: samples(init),
            cpu: samples(init),
            ..Cost::default()
        };
        let growth = |count, took| Growth {
            function: "retrieve",
            what: "members",
            count,
            took: samples(took),
            cpu: None,
            calls: 1,
            read_units: 1.0,
            write_units: 0.0,
            bytes: 1,
            memory: None,
        };

        let svg = plot(&[cost("hello", 1.0), cost("retrieve", 2.0)], &[growth(10, 1.0), growth(1000, 20.0)]);

        assert_eq!(svg.matches("height=\"11.0\"").count(), 4);
        assert_eq!(svg.matches("<circle").count(), 2);
        assert!(svg.contains(">retrieve, members<") && !svg.contains("NaN"), "{svg}");
    }
}
