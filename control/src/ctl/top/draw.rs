//! Draws the view: readable at 80 × 24, with more rows on a larger screen.
//!
//! From top to bottom: the switch, its workers, the sums; the ports; the marked port in full, otherwise the mirrors and
//! the sensors in wires; the keys.

use std::time::Duration;

use ratatui::Frame;
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Modifier, Style};
use ratatui::text::{Line, Span};
use ratatui::widgets::{Cell, Paragraph, Row, Table};

use super::view::{MirrorRow, Order, PortRow, View};
use crate::api::{Inline, MirrorState, PortState, Status, Worker};
use crate::ctl::port::vlan;
use crate::ctl::rates::short;
use crate::ctl::table::{one_line, shortened};

/// Lines for the marked port in full.
const DETAIL_LINES: u16 = 9;
/// Most mirrors shown, and most sensors; a larger screen shows more.
const LIST_LINES: u16 = 4;

const BOLD: Style = Style::new().add_modifier(Modifier::BOLD);
const DIM: Style = Style::new().add_modifier(Modifier::DIM);
const MARKED: Style = Style::new().add_modifier(Modifier::REVERSED);

pub(super) fn draw(frame: &mut Frame<'_>, view: &mut View) {
    let area = frame.area();
    // Rows below a heading with a blank line above it; nothing without any.
    let list = |rows: usize| match u16::try_from(rows).unwrap_or(u16::MAX) {
        0 => 0,
        rows => rows.min(LIST_LINES.max(area.height / 6)).saturating_add(2),
    };
    let inlines = view.now.as_ref().map(|status| status.inlines.clone()).unwrap_or_default();
    let (mirror_lines, inline_lines) = (list(view.mirrors.len()), list(inlines.len()));
    let below = if view.details { DETAIL_LINES.min(area.height / 2) } else { mirror_lines + inline_lines };
    let rows = [Constraint::Length(3), Constraint::Min(2), Constraint::Length(below), Constraint::Length(1)];
    let [top, ports, bottom, keys] = Layout::vertical(rows).areas(area);
    frame.render_widget(Paragraph::new(head(view, area.width)), top);
    draw_ports(frame, view, ports);
    if view.details {
        let lines = view.marked().map_or_else(|| vec![Line::raw("no port")], |row| details(row, bottom.width));
        frame.render_widget(Paragraph::new(lines), bottom);
    } else {
        let lists = [Constraint::Length(mirror_lines), Constraint::Length(inline_lines)];
        let [mirrors, sensors] = Layout::vertical(lists).areas(bottom);
        if mirror_lines > 0 {
            draw_mirrors(frame, &view.mirrors, mirrors);
        }
        if inline_lines > 0 {
            draw_inlines(frame, &inlines, sensors);
        }
    }
    frame.render_widget(Paragraph::new(keys_line(view)), keys);
}

/// The first lines: the switch, or why it does not answer; its workers; the sums of all ports.
fn head(view: &View, width: u16) -> Vec<Line<'static>> {
    let interval = humantime::format_duration(view.interval).to_string();
    let first = match (&view.trouble, &view.now) {
        (Some(trouble), _) => {
            Line::styled(shortened(&format!("trying again: {}", one_line(trouble)), width.into()), MARKED)
        }
        (None, None) => Line::raw("waiting for the switch"),
        (None, Some(status)) => Line::from(vec![
            Span::styled(format!("labswd {}", one_line(&status.version)), BOLD),
            Span::raw(format!(
                "  up {}  power {}  every {interval}",
                humantime::format_duration(Duration::from_secs(status.uptime_seconds)),
                one_line(&status.power)
            )),
        ]),
    };
    let Some(status) = &view.now else { return vec![first] };
    vec![first, Line::raw(workers(&status.workers, width.into())), Line::raw(sums(view, status))]
}

/// A line like `workers busy: 0 12 %  1 0 %`, with as many workers as there is room for.
fn workers(workers: &[Worker], width: usize) -> String {
    let mut line = "workers busy:".to_owned();
    for (at, worker) in workers.iter().enumerate() {
        let one = format!("  {} {:.0} %", worker.id, worker.busy_percent);
        // Room for the sign that there are more.
        let room = if at + 1 == workers.len() { 0 } else { 3 };
        if line.chars().count() + one.len() + room > width {
            line += "  …";
            break;
        }
        line += &one;
    }
    line
}

fn sums(view: &View, status: &Status) -> String {
    let up = status.ports.iter().filter(|port| port.state == PortState::Up).count();
    let sum = |rate: fn(&PortRow) -> Option<f64>| {
        let rates: Option<Vec<f64>> = view.ports.iter().map(rate).collect();
        rates.map_or_else(|| "-".to_owned(), |rates| short(rates.iter().sum()))
    };
    format!(
        "{} ports, {up} up  in {}/s {}bit/s  out {}/s {}bit/s  drop {}/s",
        status.ports.len(),
        sum(|row| Some(row.rates.as_ref()?.rx_frames_per_second)),
        sum(|row| Some(row.rates.as_ref()?.rx_bits_per_second)),
        sum(|row| Some(row.rates.as_ref()?.tx_frames_per_second)),
        sum(|row| Some(row.rates.as_ref()?.tx_bits_per_second)),
        sum(|row| Some(row.rates.as_ref()?.dropped_per_second)),
    )
}

fn right(text: String) -> Cell<'static> {
    Cell::from(Line::raw(text).right_aligned())
}

fn draw_ports(frame: &mut Frame<'_>, view: &mut View, area: Rect) {
    let heading = |order: Order, name: &str| {
        // Names ascend and rates descend, unless the order is reversed.
        let descends = view.reversed == (order == Order::Name);
        let mark = match (view.order == order, descends) {
            (false, _) => "",
            (true, true) => "↓",
            (true, false) => "↑",
        };
        format!("{name}{mark}")
    };
    let header = Row::new([
        Cell::from(heading(Order::Name, "PORT")),
        Cell::from("STATE"),
        right("IN/S".to_owned()),
        right(heading(Order::Received, "BIT/S")),
        right("OUT/S".to_owned()),
        right(heading(Order::Sent, "BIT/S")),
        right(heading(Order::Dropped, "DROP/S")),
        Cell::from("MOST FOR"),
    ]);
    let row = |row: &PortRow| {
        let rate = |rate: fn(&crate::ctl::rates::Rates) -> f64| {
            right(row.rates.as_ref().map_or_else(|| "-".to_owned(), |rates| short(rate(rates))))
        };
        let reason = row.rates.as_ref().and_then(|rates| rates.main_drop_reason.as_deref()).unwrap_or_default();
        Row::new([
            Cell::from(one_line(&row.port.name)),
            Cell::from(row.port.state.to_string()),
            rate(|rates| rates.rx_frames_per_second),
            rate(|rates| rates.rx_bits_per_second),
            rate(|rates| rates.tx_frames_per_second),
            rate(|rates| rates.tx_bits_per_second),
            rate(|rates| rates.dropped_per_second),
            Cell::from(one_line(reason)),
        ])
    };
    let widths = [
        Constraint::Min(14),
        Constraint::Length(7),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(6),
        Constraint::Length(7),
        Constraint::Length(20),
    ];
    let style = if view.trouble.is_some() { DIM } else { Style::new() };
    let table = Table::new(view.ports.iter().map(row).collect::<Vec<_>>(), widths)
        .header(header.style(BOLD))
        .row_highlight_style(MARKED)
        .style(style);
    frame.render_stateful_widget(table, area, &mut view.table);
}

fn draw_mirrors(frame: &mut Frame<'_>, mirrors: &[MirrorRow], area: Rect) {
    let header = Row::new([
        Cell::from("MIRROR"),
        Cell::from("STATE"),
        Cell::from("TO"),
        right("MATCH/S".to_owned()),
        right("SENT/S".to_owned()),
        right("DROP/S".to_owned()),
    ]);
    let row = |row: &MirrorRow| {
        let state = match row.mirror.state {
            MirrorState::Up => "up",
            MirrorState::Waiting => "waiting",
            MirrorState::Failed => "failed",
        };
        let rate = |at: usize| right(row.rates.map_or_else(|| "-".to_owned(), |rates| short(rates[at])));
        let (name, to) = (one_line(&row.mirror.name), one_line(&row.mirror.destination()));
        Row::new([Cell::from(name), Cell::from(state), Cell::from(to), rate(0), rate(1), rate(2)])
    };
    let widths = [
        Constraint::Min(14),
        Constraint::Length(7),
        Constraint::Length(20),
        Constraint::Length(8),
        Constraint::Length(8),
        Constraint::Length(8),
    ];
    let rows = as_many_as_fit(mirrors.iter().map(row).collect(), area);
    frame.render_widget(Table::new(rows, widths).header(header.style(BOLD).top_margin(1)), area);
}

fn draw_inlines(frame: &mut Frame<'_>, inlines: &[Inline], area: Rect) {
    let header = Row::new(["INLINE", "STATE", "OF", "THROUGH", "REASON"]);
    let row = |inline: &Inline| {
        let through = inline.through.join(", ");
        let reason = inline.reason.as_deref().unwrap_or_default();
        Row::new([&inline.name, &inline.state.to_string(), &inline.of, &through, reason].map(one_line))
    };
    let widths = [
        Constraint::Length(12),
        Constraint::Length(8),
        Constraint::Length(10),
        Constraint::Length(18),
        Constraint::Min(10),
    ];
    let rows = as_many_as_fit(inlines.iter().map(row).collect(), area);
    frame.render_widget(Table::new(rows, widths).header(header.style(BOLD).top_margin(1)), area);
}

/// The rows for which there is room below a heading and the blank line above it; the last one says how many more there
/// are.
fn as_many_as_fit(mut rows: Vec<Row<'static>>, area: Rect) -> Vec<Row<'static>> {
    let room = usize::from(area.height).saturating_sub(2);
    if rows.len() > room {
        let shown = room.saturating_sub(1);
        let more = rows.len() - shown;
        rows.truncate(shown);
        rows.push(Row::new([format!("and {more} more")]));
    }
    rows
}

/// The details of the marked port.
fn details(row: &PortRow, width: u16) -> Vec<Line<'static>> {
    let port = &row.port;
    let reason = port.reason.as_deref().map(|reason| format!(": {}", one_line(reason))).unwrap_or_default();
    let counters = &port.counters;
    let mut lines = vec![
        Line::raw(""),
        Line::from(vec![
            Span::styled(one_line(&port.name), BOLD),
            Span::raw(format!("  {}  {}{reason}", port.port_type, port.state)),
        ]),
        Line::raw(format!("vlan {}  mtu {}", vlan(&port.vlan), port.mtu)),
        Line::raw(format!(
            "in {} frames, {} bytes  out {} frames, {} bytes",
            counters.rx_frames, counters.rx_bytes, counters.tx_frames, counters.tx_bytes
        )),
    ];
    let seen = counters.drops.iter().filter(|(_, count)| **count > 0);
    let drops: Vec<String> = seen
        .map(|(reason, count)| {
            let rate = row.drops.iter().find(|(name, _)| name == reason);
            let rate = rate.map(|(_, rate)| format!(" ({}/s)", short(*rate))).unwrap_or_default();
            format!("{} {count}{rate}", one_line(reason))
        })
        .collect();
    if drops.is_empty() {
        lines.push(Line::raw("no drops"));
    } else {
        // As many drops beside each other as there is room for.
        let mut line = "drops: ".to_owned();
        for (at, drop) in drops.iter().enumerate() {
            if at > 0 && line.chars().count() + drop.chars().count() + 2 > width.into() {
                lines.push(Line::raw(std::mem::replace(&mut line, "       ".to_owned())));
            }
            line += &format!("{drop}  ");
        }
        lines.push(Line::raw(line));
    }
    lines.into_iter().map(|line| if line.width() > width.into() { cut(&line, width) } else { line }).collect()
}

fn cut(line: &Line<'_>, width: u16) -> Line<'static> {
    Line::raw(shortened(&line.to_string(), width.into()))
}

fn keys_line(view: &View) -> Line<'static> {
    let details = if view.details { "Enter less" } else { "Enter details" };
    Line::styled(format!("q quit  ↑↓ select  {details}  sort: n name, r in, t out, d drops (twice: ↑)"), DIM)
}
