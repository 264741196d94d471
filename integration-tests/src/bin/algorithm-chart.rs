//! Draws `docs/algorithms.svg` and fills the table of measured worst cases in `docs/algorithms.md`.
//!
//! Every number comes from the limiter itself, over the memory store and a clock that stands still
//! until it is moved, so a second run writes the same bytes. With `--check` nothing is written: the
//! exit code says whether the files are what a run would write.
#![expect(clippy::print_stdout, reason = "the table is what the program is for")]

use std::error::Error;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use limiter_core::Key;
use limiter_core::clock::{ManualClock, Timestamp};
use limiter_core::limit::{Limiter, Period, Policy, Quota};
use limiter_memory::{MemoryConfig, MemoryStore};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

type Result<T> = std::result::Result<T, Box<dyn Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

const COMMAND: &str = "cargo run -p integration-tests --bin algorithm-chart";
const TABLE_BEGINS: &str = "<!-- measured: begin -->";
const TABLE_ENDS: &str = "<!-- measured: end -->";

/// What every algorithm is asked for: this many a minute.
const LIMIT: u64 = 10;
const WINDOW: Duration = Duration::from_secs(60);
/// A minute's start, at which an aligned window begins too: 2026-11-21 00:00:00 UTC.
const START: Timestamp = Timestamp::from_micros(1_795_219_200_000_000);
/// How long each shape of traffic lasts.
const LENGTH: Duration = Duration::from_secs(240);
/// What one bar counts.
const BAR: Duration = Duration::from_secs(6);
/// The spans that the table speaks of.
const SPANS: [Duration; 2] = [Duration::from_secs(10), WINDOW];

const SIZE: (u32, u32) = (1280, 980);
/// Where a panel's plot begins.
const PLOT_LEFT: i32 = 64;
const INK: RGBColor = RGBColor(40, 40, 40);
const OFFERED: RGBColor = RGBColor(212, 212, 212);
const GRID: RGBColor = RGBColor(236, 236, 236);

/// Requests at given times since the start, one of cost 1 each.
struct Traffic {
    name: &'static str,
    requests: Vec<Duration>,
}

/// An algorithm and what it did with each shape of traffic.
struct Row {
    name: &'static str,
    gist: &'static str,
    quota: Quota,
    color: RGBColor,
    admitted: Vec<Vec<Duration>>,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<ExitCode> {
    let check = match std::env::args().nth(1).as_deref() {
        None => false,
        Some("--check") => true,
        Some(other) => return Err(format!("{other:?} is unknown; give --check or nothing").into()),
    };
    let shapes = shapes();
    let rows = run_all(&shapes).await?;
    let table = table(&rows)?;
    print!("{table}");

    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs");
    let text = docs.join("algorithms.md");
    let files = [
        (docs.join("algorithms.svg"), picture(&shapes, &rows)?),
        (
            text.clone(),
            with_table(&fs::read_to_string(&text)?, &table)?,
        ),
    ];
    if check { compare(&files) } else { save(&files) }
}

fn save(files: &[(PathBuf, String)]) -> Result<ExitCode> {
    for (path, content) in files {
        fs::write(path, content)?;
    }
    Ok(ExitCode::SUCCESS)
}

fn compare(files: &[(PathBuf, String)]) -> Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    for (path, content) in files {
        if fs::read_to_string(path).ok().as_ref() != Some(content) {
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            eprintln!("docs/{name} is not what the algorithms do now; write it with `{COMMAND}`");
            code = ExitCode::FAILURE;
        }
    }
    Ok(code)
}

fn shapes() -> Vec<Traffic> {
    // `count` requests from `first` milliseconds on, one every `step` milliseconds.
    let every = |first: u64, step: u64, count: u64| {
        (0..count).map(move |n| Duration::from_millis(first + n * step))
    };
    vec![
        Traffic {
            name: "Steady: three times the limit",
            requests: every(0, 2_000, 120).collect(),
        },
        // The request at 57 s opens a fixed window that ends at 117 s; an aligned one ends at 120 s.
        Traffic {
            name: "A burst as a window ends, then steady",
            requests: every(57_000, 0, 1)
                .chain(every(116_500, 0, 10))
                .chain(every(117_000, 0, 10))
                .chain(every(118_500, 2_000, 61))
                .collect(),
        },
        Traffic {
            name: "Bursts with pauses between them",
            requests: (0..6)
                .flat_map(|burst| every(20_000 + burst * 40_000, 100, 12))
                .collect(),
        },
    ]
}

async fn run_all(shapes: &[Traffic]) -> Result<Vec<Row>> {
    let algorithms = [
        (
            "Fixed window",
            "the count starts at zero again when the window ends",
            Quota::fixed_window(LIMIT, Period::new(WINDOW)?)?,
            RGBColor(200, 80, 0),
        ),
        (
            "Sliding window counter",
            "the last window still counts, less and less",
            Quota::sliding_window(LIMIT, Period::new(WINDOW)?)?,
            RGBColor(0, 105, 170),
        ),
        (
            "Token bucket",
            "a full bucket at once, then as fast as it refills",
            Quota::token_bucket(LIMIT, LIMIT, Period::new(WINDOW)?)?,
            RGBColor(0, 130, 90),
        ),
    ];
    let mut rows = Vec::new();
    for (name, gist, quota, color) in algorithms {
        let mut admitted = Vec::new();
        for shape in shapes {
            admitted.push(run(quota, &shape.requests).await?);
        }
        rows.push(Row {
            name,
            gist,
            quota,
            color,
            admitted,
        });
    }
    Ok(rows)
}

/// Sends the requests to a limiter of its own; when the admitted ones came.
async fn run(quota: Quota, requests: &[Duration]) -> Result<Vec<Duration>> {
    let clock = ManualClock::at(START);
    let config = MemoryConfig::default().with_clock(clock.clone());
    let limiter = Limiter::new(MemoryStore::with_config(&config));
    let policy = Policy::new("chart", quota)?;
    let key = Key::new(["ratelimit", "chart"]);
    let mut admitted = Vec::new();
    for at in requests {
        clock.set(START.saturating_add(*at));
        if limiter.try_check(&policy, &key).await?.is_allowed() {
            admitted.push(*at);
        }
    }
    Ok(admitted)
}

/// The most of these times that lie within `span`, both of its ends included.
fn most_within(times: &[Duration], span: Duration) -> u64 {
    let mut most = 0;
    for (first, start) in times.iter().enumerate() {
        let count = times[first..]
            .iter()
            .take_while(|time| **time - *start <= span)
            .count();
        most = most.max(count);
    }
    most as u64
}

/// The documented bound: what can be admitted within `span`, which is at most one window.
fn bound(quota: &Quota, span: Duration) -> Result<u64> {
    let span = u64::try_from(span.as_micros())?;
    match quota {
        Quota::FixedWindow(quota) => {
            // The charge that opened a window is nearly a window's length before the next one.
            let apart = quota.window().as_micros() - 1_000;
            Ok(2 * quota.limit() - u64::from(span <= apart))
        }
        Quota::SlidingWindow(quota) => {
            let window = quota.window().as_micros();
            Ok(quota.limit() + (quota.limit() * span).div_ceil(window))
        }
        Quota::TokenBucket(quota) => {
            let (gain, token) = quota.fractions();
            let units = span / quota.unit_micros();
            Ok(quota.capacity() + gain * (units + 1) / token)
        }
        other => Err(format!("no bound is documented for {other:?}").into()),
    }
}

/// The table of worst cases over all shapes.
///
/// # Errors
/// If an algorithm admitted more than its bound.
fn table(rows: &[Row]) -> Result<String> {
    let mut text = format!("| {LIMIT} per {} |", Period::new(WINDOW)?);
    for span in SPANS {
        let seconds = span.as_secs();
        write!(text, " most in any {seconds} s | bound |")?;
    }
    writeln!(text, "\n|---|{}", "--:|--:|".repeat(SPANS.len()))?;
    for row in rows {
        write!(text, "| {} |", row.name)?;
        for span in SPANS {
            let runs = row.admitted.iter();
            let most = runs
                .map(|times| most_within(times, span))
                .max()
                .unwrap_or(0);
            let bound = bound(&row.quota, span)?;
            if most > bound {
                return Err(format!("{}: {most} in {span:?}, above {bound}", row.name).into());
            }
            write!(text, " {most} | {bound} |")?;
        }
        writeln!(text)?;
    }
    Ok(text)
}

/// The document with the table between its two marks.
fn with_table(document: &str, table: &str) -> Result<String> {
    let (before, rest) = document.split_once(TABLE_BEGINS).ok_or(TABLE_BEGINS)?;
    let (_, after) = rest.split_once(TABLE_ENDS).ok_or(TABLE_ENDS)?;
    Ok(format!(
        "{before}{TABLE_BEGINS}\n{table}{TABLE_ENDS}{after}"
    ))
}

fn picture(shapes: &[Traffic], rows: &[Row]) -> Result<String> {
    let mut svg = String::new();
    {
        let root = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        root.fill(&WHITE)?;
        let (head, body) = root.margin(0, 8, 0, 0).split_vertically(120);
        header(&head, shapes)?;
        for (row, area) in rows.iter().zip(body.split_evenly((rows.len(), 1))) {
            let (title, panels) = area.split_vertically(38);
            write_at(&title, row.name, (18, 12), bold(20, row.color))?;
            // At a place of its own: how wide the name is, only the reader's browser knows.
            write_at(&title, row.gist, (272, 15), plain(16))?;
            let panels = panels.split_evenly((1, shapes.len()));
            for ((shape, admitted), area) in shapes.iter().zip(&row.admitted).zip(&panels) {
                panel(area, shape, admitted, row.color)?;
            }
        }
        root.present()?;
    }
    svg.push('\n');
    Ok(svg)
}

/// Title, legend and the names of the columns.
fn header(area: &Area<'_>, shapes: &[Traffic]) -> Result<()> {
    let title = format!("Three algorithms, one quota: {LIMIT} requests a minute");
    write_at(area, &title, (18, 14), bold(26, INK))?;

    let y = 68;
    let bar = |x: i32, color: RGBColor| {
        let corners = [(x, y - 7), (x + 22, y + 7)];
        area.draw(&Rectangle::new(corners, color.filled()))
    };
    let legend = plain(16).pos(Pos::new(HPos::Left, VPos::Center));
    bar(18, OFFERED)?;
    let offered = format!("offered in {} s", BAR.as_secs());
    write_at(area, &offered, (48, y), legend.clone())?;
    bar(192, tint(INK))?;
    let admitted = format!("admitted in {} s", BAR.as_secs());
    write_at(area, &admitted, (222, y), legend.clone())?;
    area.draw(&PathElement::new([(382, y), (404, y)], INK.stroke_width(3)))?;
    let line = "admitted in a minute that ends here";
    write_at(area, line, (412, y), legend.clone())?;
    for x in [722, 734] {
        area.draw(&PathElement::new([(x, y), (x + 7, y)], INK.stroke_width(2)))?;
    }
    write_at(area, "the limit", (750, y), legend)?;

    for (shape, column) in shapes.iter().zip(area.split_evenly((1, shapes.len()))) {
        write_at(&column, shape.name, (PLOT_LEFT, 98), bold(17, INK))?;
    }
    Ok(())
}

fn panel(area: &Area<'_>, shape: &Traffic, admitted: &[Duration], color: RGBColor) -> Result<()> {
    let caption = format!(
        "{} of {} admitted, at most {} in a minute",
        admitted.len(),
        shape.requests.len(),
        most_within(admitted, WINDOW)
    );
    write_at(area, &caption, (PLOT_LEFT, 4), plain(16))?;

    let mut chart = ChartBuilder::on(area)
        .margin_top(30)
        .margin_left(8)
        .margin_right(18)
        .x_label_area_size(46)
        .y_label_area_size(PLOT_LEFT - 8)
        .build_cartesian_2d(0.0..minutes(LENGTH), 0.0..24.0)?;
    chart
        .configure_mesh()
        .bold_line_style(GRID)
        .light_line_style(TRANSPARENT)
        .axis_style(INK)
        .label_style(plain(16))
        .axis_desc_style(plain(16))
        .x_labels(5)
        .y_labels(5)
        .x_label_formatter(&|x| format!("{x:.0}"))
        .y_label_formatter(&|y| format!("{y:.0}"))
        .x_desc("minutes")
        .y_desc("requests")
        .draw()?;
    chart.draw_series(bars(&shape.requests, OFFERED))?;
    chart.draw_series(bars(admitted, tint(color)))?;
    chart.draw_series(LineSeries::new(windows(admitted), color.stroke_width(3)))?;
    let limit = LIMIT as f64;
    chart.draw_series(DashedLineSeries::new(
        [(0.0, limit), (minutes(LENGTH), limit)],
        7,
        5,
        INK.stroke_width(2),
    ))?;
    Ok(())
}

/// How many of these times fall into each bar's span.
fn bars(times: &[Duration], color: RGBColor) -> impl Iterator<Item = Rectangle<(f64, f64)>> {
    bar_starts().filter_map(move |from| {
        let inside = |time: &&Duration| (from..from + BAR).contains(*time);
        let height = times.iter().filter(inside).count();
        let gap = 0.006;
        let corners = [
            (minutes(from) + gap, 0.0),
            (minutes(from + BAR) - gap, height as f64),
        ];
        (height > 0).then(|| Rectangle::new(corners, color.filled()))
    })
}

/// For each bar: the most of these times in one window's length that ends within the bar.
fn windows(times: &[Duration]) -> Vec<(f64, f64)> {
    let mut line = Vec::new();
    for from in bar_starts() {
        // Between two times the count can only fall, so it is highest at the bar's start or at a time.
        let inside = times
            .iter()
            .filter(|time| (from..from + BAR).contains(*time));
        let most = inside
            .chain([&from])
            .map(|end| {
                let window = end.saturating_sub(WINDOW)..=*end;
                times.iter().filter(|time| window.contains(time)).count()
            })
            .max()
            .unwrap_or(0);
        line.push((minutes(from), most as f64));
        line.push((minutes(from + BAR), most as f64));
    }
    line
}

fn bar_starts() -> impl Iterator<Item = Duration> {
    (0..LENGTH.as_secs() / BAR.as_secs()).map(|index| Duration::from_secs(index * BAR.as_secs()))
}

fn minutes(time: Duration) -> f64 {
    time.as_secs_f64() / 60.0
}

/// Between the color and white; opaque, so that the bar behind does not shine through.
fn tint(color: RGBColor) -> RGBColor {
    let lighter = |part: u8| 255 - (255 - part) / 2;
    RGBColor(lighter(color.0), lighter(color.1), lighter(color.2))
}

fn plain(size: u32) -> TextStyle<'static> {
    text(size, FontStyle::Normal, INK)
}

fn bold(size: u32, color: RGBColor) -> TextStyle<'static> {
    text(size, FontStyle::Bold, color)
}

fn text(size: u32, style: FontStyle, color: RGBColor) -> TextStyle<'static> {
    let mut text = TextStyle::from(("sans-serif", size).into_font().style(style));
    text.color = color.to_backend_color();
    text
}

fn write_at(area: &Area<'_>, text: &str, at: (i32, i32), style: TextStyle<'static>) -> Result<()> {
    area.draw(&Text::new(text.to_owned(), at, style))?;
    Ok(())
}
