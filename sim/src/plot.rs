//! The curve as a picture: accepted wrong answers and extra work over the share of liars, a panel for each kind.

use std::fmt::Write;

use crate::table::{LIARS, Row};

const POLICIES: [(&str, &str); 4] =
    [("conun", "#0b6e4f"), ("boinc", "#c1440e"), ("vote", "#3056a0"), ("poco", "#8a5a9e")];
const KINDS: [&str; 3] = ["random", "colluding", "sleeper"];
const WIDTH: f64 = 250.0;
const HEIGHT: f64 = 190.0;
/// Powers of ten from the bottom to the top of the upper panels. Zero is drawn at the bottom.
const DECADES: (f64, f64) = (-6.0, 0.0);
const MOST_WORK: f64 = 3.0;

/// The picture.
#[must_use]
pub fn svg(rows: &[Row]) -> String {
    let mut out = String::from(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 920 540\" font-family=\"sans-serif\" font-size=\"11\">\n\
         <rect width=\"920\" height=\"540\" fill=\"white\"/>\n",
    );
    for (at, kind) in KINDS.iter().enumerate() {
        let left = 70.0 + at as f64 * (WIDTH + 35.0);
        text(&mut out, left + WIDTH / 2.0, 24.0, "middle", kind);
        wrong_panel(&mut out, rows, kind, (left, 36.0));
        work_panel(&mut out, rows, kind, (left, 272.0));
    }
    text(
        &mut out,
        70.0,
        510.0,
        "start",
        "above: share of released answers that are wrong (log; 0 at the bottom), below: extra work after the warm-up; over the share of liars",
    );
    for (at, (policy, colour)) in POLICIES.iter().enumerate() {
        let x = 70.0 + at as f64 * 110.0;
        let _ = writeln!(out, "<rect x=\"{x}\" y=\"520\" width=\"18\" height=\"4\" fill=\"{colour}\"/>");
        text(&mut out, x + 24.0, 526.0, "start", policy);
    }
    out.push_str("</svg>\n");
    out
}

fn text(out: &mut String, x: f64, y: f64, anchor: &str, what: &str) {
    let _ = writeln!(out, "<text x=\"{x}\" y=\"{y}\" text-anchor=\"{anchor}\">{what}</text>");
}

fn line(out: &mut String, from: (f64, f64), to: (f64, f64)) {
    let ((x1, y1), (x2, y2)) = (from, to);
    let _ = writeln!(out, "<line x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" stroke=\"#ddd\"/>");
}

fn wrong_panel(out: &mut String, rows: &[Row], kind: &str, at: (f64, f64)) {
    let (low, high) = DECADES;
    let height = |v: f64| (v.max(1e-12).log10().clamp(low, high) - low) / (high - low);
    let marks: Vec<(f64, String)> = (low as i32..=high as i32).map(|d| (10f64.powi(d), format!("1e{d}"))).collect();
    panel(out, at, &marks, height);
    curves(out, rows, kind, at, |row| height(row.report.accepted_wrong));
}

fn work_panel(out: &mut String, rows: &[Row], kind: &str, at: (f64, f64)) {
    let height = |v: f64| v.clamp(0.0, MOST_WORK) / MOST_WORK;
    let marks: Vec<(f64, String)> = [0.1, 1.0, 2.0, 3.0].map(|v| (v, format!("{v}"))).to_vec();
    panel(out, at, &marks, height);
    curves(out, rows, kind, at, |row| height(row.report.extra_work));
}

fn across(liars: f64) -> f64 {
    liars / 0.45 * WIDTH
}

fn panel(out: &mut String, (left, top): (f64, f64), marks: &[(f64, String)], height: impl Fn(f64) -> f64) {
    for (value, name) in marks {
        let y = top + HEIGHT * (1.0 - height(*value));
        line(out, (left, y), (left + WIDTH, y));
        text(out, left - 6.0, y + 4.0, "end", name);
    }
    for liars in LIARS {
        let x = left + across(liars);
        line(out, (x, top), (x, top + HEIGHT));
        text(out, x, top + HEIGHT + 15.0, "middle", &format!("{:.0}%", liars * 100.0));
    }
}

fn curves(out: &mut String, rows: &[Row], kind: &str, (left, top): (f64, f64), height: impl Fn(&Row) -> f64) {
    for (policy, colour) in POLICIES {
        let mine = rows.iter().filter(|r| r.part == "curve" && r.report.kind == kind && r.report.policy == policy);
        let point = |row: &Row| (left + across(row.report.liars), top + HEIGHT * (1.0 - height(row)));
        let points: Vec<(f64, f64)> = mine.map(point).collect();
        let path: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        let _ = writeln!(
            out,
            "<polyline points=\"{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>",
            path.join(" ")
        );
        for (x, y) in points {
            let _ = writeln!(out, "<circle cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"3\" fill=\"{colour}\"/>");
        }
    }
}
