//! The figures side by side.

use super::server::Kind;
use anyhow::Result;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::{self, Write};

/// Unit of most rows.
pub(super) const CPU: &str = "µs of CPU";
/// Unit of rows about memory.
pub(super) const BYTES: &str = "bytes beside an entry";
/// Unit of rows about waiting.
pub(super) const WAIT: &str = "µs until the answer";

/// What is wanted.
#[derive(Clone, Copy, Debug)]
pub(super) enum Goal {
    /// The other's figure is at least so many times ours.
    Ratio(f64),
    /// Ours is at most so much.
    AtMost(f64),
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&match self {
            Self::Ratio(ratio) => format!("{ratio:.2}"),
            Self::AtMost(most) => format!("≤ {most}"),
        })
    }
}

/// One server's figures for one kind of work.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    /// Whose.
    pub(super) kind: Kind,
    /// Sorted.
    costs: Vec<f64>,
}

impl Cell {
    /// Of one figure a round.
    pub(super) fn new(kind: Kind, mut costs: Vec<f64>) -> Self {
        costs.sort_by(f64::total_cmp);
        Self { kind, costs }
    }

    /// The middle one.
    pub(super) fn median(&self) -> f64 {
        self.costs.get(self.costs.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Least and most.
    fn spread(&self) -> (f64, f64) {
        let end = |cost: Option<&f64>| cost.copied().unwrap_or(f64::NAN);
        (end(self.costs.first()), end(self.costs.last()))
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = self.spread();
        f.pad(&match self.costs.len() {
            1 => short(least),
            _ => format!("{} ({}–{})", short(self.median()), short(least), short(most)),
        })
    }
}

/// Three digits.
pub(super) fn short(figure: f64) -> String {
    let digits = if figure < 9.995 { 2 } else { usize::from(figure < 99.95) };
    format!("{figure:.digits$}")
}

/// One kind of work.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// For people.
    pub(super) name: String,
    /// Of the figures.
    pub(super) unit: &'static str,
    /// What is wanted.
    pub(super) goal: Option<Goal>,
    /// What grows with what, and how large the latter is here.
    pub(super) curve: Option<(String, f64)>,
    /// A server each.
    pub(super) cells: Vec<Cell>,
}

impl Row {
    /// One server's.
    pub(super) fn cell(&self, kind: Kind) -> Option<&Cell> {
        self.cells.iter().find(|cell| cell.kind == kind)
    }

    /// The better of Redis and Valkey, or ours with one thread, divided by ours.
    fn ratio(&self) -> Option<f64> {
        let others = [Kind::Redis, Kind::Valkey, Kind::OneThread]
            .into_iter()
            .filter_map(|kind| self.cell(kind))
            .map(Cell::median);
        Some(others.min_by(f64::total_cmp)? / self.cell(Kind::Mizuya)?.median())
    }
}

/// For people.
pub(super) fn table(rows: &[Row], kinds: &[Kind]) -> String {
    let mut text = String::new();
    let _ = write!(text, "| {:<36} | {:<21} |", "", "unit");
    for kind in kinds {
        let _ = write!(text, " {kind:<20} |");
    }
    let _ = writeln!(text, " other ÷ mizuya | goal  |");
    let _ = writeln!(text, "|---|---|{}---|---|", "---|".repeat(kinds.len()));
    for row in rows {
        let _ = write!(text, "| {:<36} | {:<21} |", row.name, row.unit);
        for kind in kinds {
            let cell = row.cell(*kind).map_or_else(String::new, Cell::to_string);
            let _ = write!(text, " {cell:<20} |");
        }
        let ratio = row.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let goal = row.goal.map_or_else(String::new, |goal| goal.to_string());
        let _ = writeln!(text, " {ratio:<14} | {goal:<5} |");
    }
    text.push_str(
        "\nmedians (least–most); CPU is the server's and for each operation, bytes are those beside key and value\n",
    );
    for line in curves(rows) {
        let _ = writeln!(text, "{line}");
    }
    text
}

/// How figures of ours grow, in a sentence each.
fn curves(rows: &[Row]) -> Vec<String> {
    let mut curves: BTreeMap<(&str, &str), Vec<(f64, f64)>> = BTreeMap::new();
    for row in rows {
        if let (Some((of, size)), Some(cell)) = (&row.curve, row.cell(Kind::Mizuya)) {
            curves.entry((of, row.unit)).or_default().push((*size, cell.median()));
        }
    }
    let sentence = |((of, unit), points): (&(&str, &str), &mut Vec<(f64, f64)>)| {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
        // The smallest is another case: a node alone has nobody to ask, and few entries do not outweigh buffers.
        let grows = exponent(&points[1..])?;
        let figures: Vec<String> =
            points.iter().map(|(size, figure)| format!("{} at {size}", short(*figure))).collect();
        Some(format!("{of}, {unit}: {}; from {} on it grows as n^{grows:.2}", figures.join(", "), points[1].0))
    };
    curves.iter_mut().filter_map(sentence).collect()
}

/// Of the power that fits best: the slope between logarithms, by least squares.
fn exponent(points: &[(f64, f64)]) -> Option<f64> {
    let logarithms: Vec<(f64, f64)> = points.iter().map(|(size, figure)| (size.ln(), figure.ln())).collect();
    let count = logarithms.len() as f64;
    let mean = |of: fn(&(f64, f64)) -> f64| logarithms.iter().map(of).sum::<f64>() / count;
    let (x, y) = (mean(|point| point.0), mean(|point| point.1));
    let over: f64 = logarithms.iter().map(|point| (point.0 - x) * (point.1 - y)).sum();
    let under: f64 = logarithms.iter().map(|point| (point.0 - x).powi(2)).sum();
    (points.len() > 1).then_some(over / under)
}

/// For programs.
pub(super) fn json(rows: &[Row]) -> Result<String> {
    let cell = |cell: &Cell| (cell.kind.to_string(), json!({ "median": cell.median(), "all": cell.costs }));
    let row = |row: &Row| {
        let servers: serde_json::Map<String, Value> = row.cells.iter().map(cell).collect();
        let (ratio, most) = match row.goal {
            Some(Goal::Ratio(ratio)) => (Some(ratio), None),
            Some(Goal::AtMost(most)) => (None, Some(most)),
            None => (None, None),
        };
        json!({
            "work": row.name, "unit": row.unit, "servers": servers, "ratio": row.ratio(), "goal": ratio, "at_most": most
        })
    };
    Ok(serde_json::to_string_pretty(&rows.iter().map(row).collect::<Vec<_>>())?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_exponent_of_a_power_is_found() {
        let square: Vec<(f64, f64)> = [2.0, 3.0, 9.0].into_iter().map(|size| (size, 7.0 * size * size)).collect();
        assert!((exponent(&square).unwrap_or_default() - 2.0).abs() < 1e-9);
        assert_eq!(exponent(&square[..1]), None);
    }
}
