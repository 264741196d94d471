//! Pictures of what was measured.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::report::Chart;

const SIZE: (u32, u32) = (1_280, 860);
const FONT: (&str, u32) = ("sans-serif", 16);
const COLORS: [RGBColor; 4] = [
    RGBColor(150, 150, 150),
    RGBColor(230, 159, 0),
    RGBColor(0, 114, 178),
    RGBColor(0, 130, 90),
];

/// All charts in one SVG, two in a row.
pub(crate) fn picture(charts: &[Chart]) -> String {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE).expect("a picture in memory");
        let rows = charts.len().div_ceil(2).max(1);
        for (area, chart) in root.split_evenly((rows, 2)).iter().zip(charts) {
            draw(area, chart).expect("a picture in memory");
        }
    }
    svg
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(area: &Area<'_>, chart: &Chart) -> Result<(), Box<dyn std::error::Error>> {
    let points = || chart.lines.iter().flat_map(|(_, points)| points);
    let most = points().fold(0.0_f64, |most, (_, rate)| most.max(*rate));
    let last = points().fold(1.0_f64, |most, (count, _)| most.max(*count));
    let mut drawn = ChartBuilder::on(area)
        .caption(&chart.title, ("sans-serif", 20))
        .margin(14)
        .x_label_area_size(40)
        .y_label_area_size(70)
        .build_cartesian_2d((1.0..last).log_scale(), 0.0..most * 1.1)?;
    let thousands = |rate: &f64| format!("{:.0} k", rate / 1_000.0);
    drawn
        .configure_mesh()
        .x_desc(&chart.counts)
        .x_label_formatter(&|count| format!("{count:.0}"))
        .y_label_formatter(&thousands)
        .label_style(FONT)
        .draw()?;
    // The colours from the back: these crates are the last line.
    let first = COLORS.len().saturating_sub(chart.lines.len());
    for ((name, points), color) in chart.lines.iter().zip(&COLORS[first..]) {
        let line = LineSeries::new(points.iter().copied(), color.stroke_width(3)).point_size(4);
        drawn
            .draw_series(line)?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(3)));
    }
    drawn
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .label_font(FONT)
        .border_style(BLACK.mix(0.2))
        .background_style(WHITE)
        .draw()?;
    Ok(())
}
