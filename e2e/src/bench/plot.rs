//! The figures as a picture: a bar for each server, row by row, each row to a scale of its own.

use super::report::{CPU, Row, short};
use super::server::Kind;
use std::fmt::Write;

const KINDS: [(Kind, &str); 4] =
    [(Kind::Mizuya, "#1b7f79"), (Kind::Redis, "#c0504d"), (Kind::Valkey, "#8064a2"), (Kind::Memcached, "#7f7f7f")];
/// Where bars begin, and how long the longest of a row is.
const LEFT: f64 = 270.0;
const LONGEST: f64 = 420.0;
const WIDTH: f64 = 780.0;
const BAR: f64 = 13.0;
const GAP: f64 = 11.0;
/// Room for the title and what the colours mean.
const TOP: f64 = 56.0;

/// An SVG of the rows that compare CPU.
pub(super) fn svg(rows: &[Row]) -> String {
    let is_compared =
        |row: &&Row| row.unit == CPU && KINDS.iter().filter(|(kind, _)| row.cell(*kind).is_some()).count() > 1;
    let (mut bars, mut y) = (String::new(), TOP);
    for row in rows.iter().filter(is_compared) {
        let cells: Vec<_> =
            KINDS.iter().filter_map(|(kind, colour)| Some((row.cell(*kind)?.median(), colour))).collect();
        let most = cells.iter().map(|(cost, _)| *cost).fold(0.0, f64::max);
        let middle = y + BAR * cells.len() as f64 / 2.0 + 4.0;
        let _ = writeln!(bars, r#"<text x="{}" y="{middle}" text-anchor="end">{}</text>"#, LEFT - 8.0, row.name);
        for (cost, colour) in cells {
            let (length, height) = (cost / most * LONGEST, BAR - 1.0);
            let _ =
                writeln!(bars, r#"<rect x="{LEFT}" y="{y}" width="{length:.1}" height="{height}" fill="{colour}"/>"#);
            let (x, base) = (LEFT + length + 5.0, y + BAR - 3.0);
            let _ = writeln!(bars, r#"<text x="{x:.1}" y="{base}">{}</text>"#, short(cost));
            y += BAR;
        }
        y += GAP;
    }
    let mut text = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {y}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"12\" y=\"20\" font-size=\"14\">{CPU} of the server for each operation (shorter is better; each row has its own scale)</text>\n"
    );
    let shown = |kind: Kind| rows.iter().filter(is_compared).any(|row| row.cell(kind).is_some());
    for (at, (kind, colour)) in KINDS.iter().filter(|(kind, _)| shown(*kind)).enumerate() {
        let x = LEFT + at as f64 * 110.0;
        let _ = writeln!(text, r#"<rect x="{x}" y="30" width="12" height="12" fill="{colour}"/>"#);
        let _ = writeln!(text, r#"<text x="{}" y="40">{kind}</text>"#, x + 17.0);
    }
    text + &bars + "</svg>\n"
}
