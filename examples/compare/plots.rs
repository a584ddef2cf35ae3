//! Medians over a growing quantity, as a picture. Each point is a run of this program in a process
//! of its own, since what a caller has had before leaves traces.

use std::collections::BTreeMap;
use std::path::Path;
use std::process::{Command, Stdio};

use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};
use serde_json::Value;

/// The curves, from the back to the front. The colours can be distinguished on white and on black.
const SERIES: [(&str, RGBColor); 9] = [
    ("std", RGBColor(139, 148, 158)),
    ("runc", RGBColor(229, 83, 75)),
    ("crun", RGBColor(163, 113, 247)),
    ("bwrap", RGBColor(46, 160, 67)),
    ("hakoniwa", RGBColor(191, 135, 0)),
    ("ferroday-cage", RGBColor(219, 109, 40)),
    ("floor", RGBColor(99, 179, 237)),
    ("pool", RGBColor(20, 160, 170)),
    ("sandbox", RGBColor(31, 111, 235)),
];
/// The names of rows in the picture, where they differ from the rows' own names.
const LABELS: [(&str, &str); 3] =
    [("sandbox", "ringfence"), ("pool", "ringfence, pool"), ("floor", "bare system calls")];
const INK: RGBColor = RGBColor(125, 133, 144);
const SIZE: (u32, u32) = (1200, 440);
const FONT: &str = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif";
/// The axis of all panels, in ms.
const LOWEST: f64 = 0.08;
const HIGHEST: f64 = 500.0;

/// One quantity that grows.
struct Panel {
    title: &'static str,
    option: &'static str,
    /// The values, as the option takes them, with their positions on the axis.
    points: &'static [(&'static str, f64)],
}

const PANELS: [Panel; 3] = [
    Panel {
        title: "GiB resident in the caller",
        option: "--heap",
        points: &[("0", 0.0), ("512M", 0.5), ("1G", 1.0), ("2G", 2.0), ("4G", 4.0)],
    },
    Panel {
        title: "mounts on the host",
        option: "--mounts",
        points: &[("0", 0.0), ("250", 250.0), ("500", 500.0), ("1000", 1000.0), ("2000", 2000.0)],
    },
    Panel {
        title: "living sandboxes",
        option: "--living",
        points: &[("0", 0.0), ("250", 250.0), ("500", 500.0), ("1000", 1000.0)],
    },
];

/// The medians of each contender at each point, in ms.
type Curves = BTreeMap<String, Vec<(f64, f64)>>;

/// Measures everything, prints the numbers, and draws the picture.
pub fn draw_all(dir: &Path, rounds: usize) -> Result<(), String> {
    let mut all = Vec::new();
    for panel in &PANELS {
        println!("p50 in ms over {}", panel.title);
        all.push(panel.measure(rounds)?);
    }
    std::fs::create_dir_all(dir).map_err(|error| format!("{}: {error}", dir.display()))?;
    let file = dir.join("growth.svg");
    draw(&file, &all).map_err(|error| format!("{}: {error}", file.display()))
}

impl Panel {
    fn measure(&self, rounds: usize) -> Result<Curves, String> {
        let mut curves = Curves::new();
        for (value, x) in self.points {
            let mut line = format!("{value:>6}");
            for (name, p50) in point(self.option, value, rounds)? {
                line += &format!("  {name} {p50:.2}");
                curves.entry(name).or_default().push((*x, p50));
            }
            println!("{line}");
        }
        Ok(curves)
    }

    fn last(&self) -> f64 {
        self.points.last().map_or(1.0, |(_, x)| *x)
    }
}

fn point(option: &str, value: &str, rounds: usize) -> Result<Vec<(String, f64)>, String> {
    let program = std::env::current_exe().map_err(|error| error.to_string())?;
    let only = SERIES.map(|(name, _)| name).join(",");
    let mut command = Command::new(program);
    command.args(["--json", "--rounds", &rounds.to_string(), "--only", &only, option, value]);
    let output = command.stderr(Stdio::inherit()).output().map_err(|error| error.to_string())?;
    if !output.status.success() {
        return Err(format!("{option} {value}: {}", output.status));
    }
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).map_err(|error| error.to_string())?;
    let median = |row: &Value| Some((row["name"].as_str()?.to_owned(), row["p50_us"].as_f64()? / 1e3));
    Ok(rows.iter().filter_map(median).collect())
}

type Drawn = Result<(), Box<dyn std::error::Error>>;
type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

fn draw(file: &Path, all: &[Curves]) -> Drawn {
    let whole = SVGBackend::new(file, SIZE).into_drawing_area();
    let (head, body) = whole.split_vertically(52);
    legend(&head, all)?;
    for ((panel, curves), area) in PANELS.iter().zip(all).zip(body.split_evenly((1, PANELS.len()))) {
        draw_panel(panel, curves, &area)?;
    }
    Ok(whole.present()?)
}

/// Draws the legend with the colours, once for all panels.
fn legend(area: &Area<'_>, all: &[Curves]) -> Drawn {
    let text = (FONT, 15).into_font().color(&INK).pos(Pos::new(HPos::Left, VPos::Center));
    let mut x = 60;
    for (name, colour) in SERIES.iter().rev().filter(|(name, _)| all.iter().any(|curves| curves.contains_key(*name))) {
        let label = LABELS.iter().find(|(row, _)| row == name).map_or(*name, |(_, label)| *label);
        let width = line_width(name);
        area.draw(&PathElement::new([(x, 24), (x + 26, 24)], colour.stroke_width(width)))?;
        area.draw(&Circle::new((x + 13, 24), width + 1, colour.filled()))?;
        area.draw(&Text::new(label, (x + 34, 24), text.clone()))?;
        x += 34 + 8 * label.len() as i32 + 24;
    }
    Ok(())
}

fn line_width(name: &str) -> u32 {
    if ["sandbox", "pool"].contains(&name) { 4 } else { 2 }
}

fn draw_panel(panel: &Panel, curves: &Curves, area: &Area<'_>) -> Drawn {
    let mut chart = ChartBuilder::on(area)
        .margin_right(24)
        .margin_bottom(8)
        .x_label_area_size(52)
        .y_label_area_size(58)
        .build_cartesian_2d(0.0..panel.last(), (LOWEST..HIGHEST).log_scale())?;
    let text = (FONT, 14).into_font().color(&INK);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .bold_line_style(INK.mix(0.25))
        .light_line_style(TRANSPARENT)
        .axis_style(INK.mix(0.6))
        .x_labels(5)
        .y_labels(5)
        .x_desc(panel.title)
        .x_label_formatter(&|x| format!("{x}"))
        .y_label_formatter(&|y| format!("{y} ms"))
        .label_style(text.clone())
        .axis_desc_style((FONT, 15).into_font().color(&INK))
        .draw()?;
    for (name, colour) in SERIES {
        let Some(points) = curves.get(name) else { continue };
        let width = line_width(name);
        chart.draw_series(LineSeries::new(points.iter().copied(), colour.stroke_width(width)))?;
        chart.draw_series(points.iter().map(|point| Circle::new(*point, width + 1, colour.filled())))?;
    }
    Ok(())
}
