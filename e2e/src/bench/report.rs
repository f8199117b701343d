//! The figures side by side.

use super::server::Kind;
use anyhow::Result;
use serde_json::{Value, json};
use std::fmt::Write;

/// One server's figures for one kind of work.
#[derive(Clone, Debug)]
pub(super) struct Cell {
    kind: Kind,
    /// Sorted.
    costs: Vec<f64>,
}

impl Cell {
    /// Of one figure a round.
    pub(super) fn new(kind: Kind, mut costs: Vec<f64>) -> Self {
        costs.sort_by(f64::total_cmp);
        Self { kind, costs }
    }

    fn median(&self) -> f64 {
        self.costs.get(self.costs.len() / 2).copied().unwrap_or(f64::NAN)
    }

    /// Least and most.
    fn spread(&self) -> (f64, f64) {
        let end = |cost: Option<&f64>| cost.copied().unwrap_or(f64::NAN);
        (end(self.costs.first()), end(self.costs.last()))
    }
}

/// One kind of work.
#[derive(Clone, Debug)]
pub(super) struct Row {
    /// For people.
    pub(super) name: String,
    /// Of the figures.
    pub(super) unit: &'static str,
    /// The least ratio wanted.
    pub(super) goal: Option<f64>,
    /// A server each.
    pub(super) cells: Vec<Cell>,
}

impl Row {
    fn cell(&self, kind: Kind) -> Option<&Cell> {
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
    let _ = write!(text, "| {:<24} |", "");
    for kind in kinds {
        let _ = write!(text, " {kind:<20} |");
    }
    let _ = writeln!(text, " other ÷ mizuya | goal |");
    let _ = writeln!(text, "|---|{}---|---|", "---|".repeat(kinds.len()));
    for row in rows {
        let _ = write!(text, "| {:<24} |", row.name);
        for kind in kinds {
            let cell = row.cell(*kind).map_or_else(String::new, |cell| {
                let (least, most) = cell.spread();
                if cell.costs.len() == 1 {
                    format!("{least:.0}")
                } else {
                    format!("{:.2} ({least:.2}–{most:.2})", cell.median())
                }
            });
            let _ = write!(text, " {cell:<20} |");
        }
        let ratio = row.ratio().map_or_else(String::new, |ratio| format!("{ratio:.2}"));
        let goal = row.goal.map_or_else(String::new, |goal| format!("{goal:.1}"));
        let _ = writeln!(text, " {ratio:<14} | {goal:<4} |");
    }
    text.push_str("\nµs of server CPU for each operation, medians (least–most); memory in bytes beside an entry's key and value\n");
    text
}

/// For programs.
pub(super) fn json(rows: &[Row]) -> Result<String> {
    let cell = |cell: &Cell| (cell.kind.to_string(), json!({ "median": cell.median(), "all": cell.costs }));
    let row = |row: &Row| {
        let servers: serde_json::Map<String, Value> = row.cells.iter().map(cell).collect();
        json!({ "work": row.name, "unit": row.unit, "servers": servers, "ratio": row.ratio(), "goal": row.goal })
    };
    Ok(serde_json::to_string_pretty(&rows.iter().map(row).collect::<Vec<_>>())?)
}
