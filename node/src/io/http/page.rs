//! The status page: plain HTML, no scripts.

use std::fmt::Write as _;

use mizuya_wire::admin::{MemberSummary, StatusReply};

use super::{metrics::state_word, stats::hit_ratio};

const STYLE: &str = "body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:60rem;padding:0 1rem;color:#1d2b36}\
    h1{font-weight:600}table{border-collapse:collapse;width:100%;margin:1rem 0}\
    th,td{text-align:left;padding:.3rem .6rem;border-bottom:1px solid #d8dee4}td.n,th.n{text-align:right}\
    .bad{color:#a4262c}.good{color:#0b6a2b}";

/// The page.
pub(super) fn html(status: &StatusReply) -> String {
    let totals = status.totals.unwrap_or_default();
    let ready = if status.ready {
        "<span class=good>ready</span>".to_owned()
    } else {
        format!("<span class=bad>not ready: {}</span>", escape(&status.not_ready_because))
    };
    let ratio = hit_ratio(totals.hits, totals.misses)
        .map_or_else(|| "no reads yet".to_owned(), |r| format!("{:.1} %", r * 100.0));
    let mut page = format!(
        "<!doctype html><html lang=en><meta charset=utf-8><title>Mizuya {name}</title><style>{STYLE}</style>\
         <h1>Mizuya {name}</h1><p>{ready}, mode {mode}, version {version}</p>\
         <p>{keys} keys here, {used} of {budget} used, hit ratio {ratio}, {evictions} evictions, {connections} connections</p>\
         <p>Table {epoch}, coordinator {coordinator}, {reachable} voters reachable, {quorum} needed. Partitions: {partitions}, \
         short of copies {short}, unavailable {unavailable}, moving {moving}.</p>",
        name = escape(&status.member),
        mode = escape(&status.mode),
        version = escape(&status.program_version),
        keys = totals.keys,
        used = mebibytes(totals.bytes),
        budget = mebibytes(totals.max_bytes),
        evictions = totals.evictions,
        connections = totals.connections,
        epoch = status.epoch,
        coordinator = escape(&status.coordinator),
        reachable = status.voters_reachable,
        quorum = status.member_quorum,
        partitions = status.partitions,
        short = status.partitions_short_of_copies,
        unavailable = status.partitions_unavailable,
        moving = status.partitions_moving,
    );
    page.push_str("<table><tr><th>Member<th>State<th>Reachable<th class=n>Primaries<th class=n>Copies<th class=n>Keys<th class=n>Used");
    for member in &status.members {
        page.push_str(&row(member));
    }
    page.push_str("</table>");
    if !status.problems.is_empty() {
        page.push_str("<h2>Problems</h2><ul>");
        for problem in &status.problems {
            let _ = write!(page, "<li><b>{}</b> {}", escape(&problem.code), escape(&problem.message));
        }
        page.push_str("</ul>");
    }
    page.push_str("<p><a href=/_stats>statistics</a> <a href=/metrics>metrics</a></p></html>");
    page
}

fn row(member: &MemberSummary) -> String {
    let totals = member.totals.unwrap_or_default();
    format!(
        "<tr><td>{}<td>{}<td>{}<td class=n>{}<td class=n>{}<td class=n>{}<td class=n>{}",
        escape(&member.name),
        state_word(member.state),
        if member.reachable { "yes" } else { "<span class=bad>no</span>" },
        member.primaries,
        member.backups,
        totals.keys,
        mebibytes(totals.bytes),
    )
}

fn mebibytes(bytes: u64) -> String {
    format!("{:.1} MiB", bytes as f64 / f64::from(1 << 20))
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_cannot_bring_markup_into_the_page() {
        let status = StatusReply { member: "<script>".to_owned(), ..StatusReply::default() };
        let page = html(&status);
        assert!(page.contains("&lt;script&gt;") && !page.contains("<script>"));
    }
}
