//! A sweep as a picture, by plotters. Owns how it looks, not what is in it.

use std::fs;
use std::ops::Range;
use std::path::Path;

use plotters::coord::Shift;
use plotters::coord::ranged1d::{Ranged, ValueFormatter};
use plotters::prelude::*;

use crate::sweep::Sweep;

/// Width and height, in pixels.
const SIZE: (u32, u32) = (640, 360);
/// Colours that people who see fewer colours can tell apart, too.
const COLOURS: [RGBColor; 4] =
    [RGBColor(0, 114, 178), RGBColor(213, 94, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167)];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn<'a> = Result<(), DrawingAreaErrorKind<<SVGBackend<'a> as DrawingBackend>::ErrorType>>;

/// Draws the sweep into the directory; what was varied on a scale where equal factors take equal room.
pub fn draw(sweep: &Sweep, directory: &Path) {
    fs::create_dir_all(directory).expect("the source tree is writable");
    let path = directory.join(format!("{}.svg", sweep.name));
    let area = SVGBackend::new(&path, SIZE).into_drawing_area();
    lines(sweep, &area).and_then(|()| area.present()).expect("a picture is text");
}

fn lines<'a>(sweep: &Sweep, area: &Area<'a>) -> Drawn<'a> {
    area.fill(&WHITE)?;
    let (x, y) = (room(sweep, |point| point.0), room(sweep, |point| point.1));
    let mut builder = ChartBuilder::on(area);
    builder.caption(&sweep.title, ("sans-serif", 16)).margin(10).x_label_area_size(40).y_label_area_size(60);
    if sweep.log_y {
        plot(sweep, builder.build_cartesian_2d(x.log_scale(), y.log_scale())?)
    } else {
        plot(sweep, builder.build_cartesian_2d(x.log_scale(), 0.0..y.end)?)
    }
}

fn plot<'a, X, Y>(sweep: &Sweep, mut chart: ChartContext<'a, SVGBackend<'a>, Cartesian2d<X, Y>>) -> Drawn<'a>
where
    X: Ranged<ValueType = f64> + ValueFormatter<f64>,
    Y: Ranged<ValueType = f64> + ValueFormatter<f64>,
{
    let text = |value: &f64| if *value < 1.0 { format!("{value:.2}") } else { format!("{value}") };
    let mut mesh = chart.configure_mesh();
    mesh.x_desc(sweep.x)
        .y_desc(sweep.y)
        .x_label_formatter(&text)
        .y_label_formatter(&text)
        .light_line_style(WHITE)
        .draw()?;
    for (series, colour) in sweep.series.iter().zip(COLOURS.iter().cycle()) {
        let line = LineSeries::new(series.points.iter().copied(), colour.stroke_width(2)).point_size(3);
        let legend = |(x, y)| PathElement::new([(x, y), (x + 16, y)], colour.stroke_width(2));
        chart.draw_series(line)?.label(&series.name).legend(legend);
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).position(SeriesLabelPosition::UpperLeft).draw()
}

/// From a little less than the least to a little more than the most.
fn room(sweep: &Sweep, of: impl Fn(&(f64, f64)) -> f64) -> Range<f64> {
    let values = sweep.series.iter().flat_map(|series| &series.points).map(of).filter(|value| *value > 0.0);
    let (least, most) =
        values.fold((f64::INFINITY, 0.0_f64), |(least, most), value| (least.min(value), most.max(value)));
    if least > most { 1.0..10.0 } else { least / 1.5..most * 1.5 }
}
