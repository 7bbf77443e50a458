//! The fleet in a terminal: drawn four times a second, until q or Ctrl-C. The terminal is always given back as it was,
//! also when the program panics.

use std::io;
use std::thread;
use std::time::Duration;

use anyhow::{Context as _, Result};
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use ratatui::layout::{Constraint, Layout, Rect};
use ratatui::style::{Color, Style, Stylize as _};
use ratatui::text::{Line, Text};
use ratatui::widgets::{Block, Paragraph, Row, Table, Wrap};
use ratatui::{DefaultTerminal, Frame};
use tokio::sync::mpsc;
use tokio::time::interval;

use super::log::Log;
use super::status::Status;
use crate::stop::Stop;

/// Time between two pictures.
const FRAME: Duration = Duration::from_millis(250);
/// How long the reader of keys waits before it looks whether anybody still wants them.
const KEY_WAIT: Duration = Duration::from_millis(100);
/// Log lines at the bottom.
const LOG_LINES: u16 = 4;
/// Rows of a table.
const ROWS_MAX: usize = 10;

/// A terminal that is drawn on until it is dropped.
pub(super) struct Screen(DefaultTerminal);

impl Drop for Screen {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Takes the terminal over.
pub(super) fn open() -> io::Result<Screen> {
    ratatui::try_init().map(Screen)
}

/// Draws until it is time to stop.
pub(super) async fn run(mut screen: Screen, status: &impl Fn() -> Status, log: &Log, stop: &mut Stop) -> Result<()> {
    let (sender, mut quit) = mpsc::channel(1);
    thread::spawn(move || read_keys(&sender));
    let mut frames = interval(FRAME);
    loop {
        tokio::select! {
            _ = frames.tick() => {}
            _ = quit.recv() => break,
            () = stop.wait() => break,
        }
        let (now, lines) = (status(), log.tail(LOG_LINES.into()));
        screen.0.draw(|frame| draw(frame, &now, &lines)).context("the terminal cannot be drawn on")?;
    }
    drop(screen);
    println!("{}", status().in_words());
    Ok(())
}

/// Waits for q or Ctrl-C, which a terminal that is drawn on does not turn into a signal.
fn read_keys(quit: &mpsc::Sender<()>) {
    while !quit.is_closed() {
        match event::poll(KEY_WAIT) {
            Ok(false) => {}
            Ok(true) => match event::read() {
                Ok(Event::Key(key)) if is_quit(key) => {
                    // A second one changes nothing.
                    let _ = quit.try_send(());
                }
                Ok(_) => {}
                Err(_) => return,
            },
            Err(_) => return,
        }
    }
}

fn is_quit(key: KeyEvent) -> bool {
    let control_c = key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press && (key.code == KeyCode::Char('q') || control_c)
}

fn draw(frame: &mut Frame<'_>, status: &Status, log: &[String]) {
    let channels: usize = status.agents.iter().map(|agent| agent.channels.len()).sum();
    let tunnels: usize = status.agents.iter().map(|agent| agent.tunnels.len()).sum();
    let table = |rows: usize| u16::try_from(rows.clamp(1, ROWS_MAX)).unwrap_or_default() + 3;
    // What matters most comes first: on a low terminal the parts at the end have no room.
    let mut left = frame.area().height;
    let wanted = [7, 4, table(channels), table(tunnels), table(status.registrations().count()), LOG_LINES + 2];
    let heights = wanted.map(|wanted| {
        let height = wanted.min(left);
        left -= height;
        Constraint::Length(height)
    });
    let [top, receive, middle, tunnels, registrations, rest] = Layout::vertical(heights).areas(frame.area());
    draw_client(frame, top, status);
    let line = status.line.as_deref().unwrap_or("this fleet has no channel");
    let what = Text::from(vec![Line::from(line.to_owned().bold())]);
    let block = Block::bordered().title(" in another terminal, type ").title_bottom(" q or Ctrl-C ends everything ");
    frame.render_widget(Paragraph::new(what).wrap(Wrap { trim: false }).block(block), receive);
    draw_channels(frame, middle, status);
    draw_tunnels(frame, tunnels, status);
    draw_registrations(frame, registrations, status);
    let lines: Vec<_> = log.iter().map(|line| Line::from(line.as_str())).collect();
    frame.render_widget(Paragraph::new(lines).block(Block::bordered().title(" log ")), rest);
}

fn draw_client(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let block = Block::bordered().title(" what the client of this fleet receives ");
    let Some(report) = status.client.report.as_ref().filter(|report| report.packets > 0) else {
        let text = Line::from(status.client.word.clone().yellow());
        frame.render_widget(Paragraph::new(text).wrap(Wrap { trim: false }).block(block), area);
        return;
    };
    let number = |count: Option<u64>| count.map_or("-".to_owned(), |count| count.to_string());
    let lost = number(report.lost);
    let lost = if report.lost.is_some_and(|lost| lost > 0) { lost.red() } else { lost.green() };
    let delay = report.delay_ms.map_or("-".to_owned(), |delay| {
        format!("{:.2} ms, 99 % within {:.2} ms, at most {:.2} ms", delay.p50, delay.p99, delay.max)
    });
    let server = report.server.clone().unwrap_or_default();
    let via = report.via.map(|via| via.to_string()).unwrap_or_default();
    let joined = report.joined_ms.map(|joined| format!(", first packet after {joined:.0} ms")).unwrap_or_default();
    let gap = report.longest_gap_ms.map_or("-".to_owned(), |gap| format!("{gap:.1} ms"));
    let lines = vec![
        Line::from(format!("{}  {via} from {server}{joined}", report.name)),
        Line::from(vec![format!("packets {}  lost ", report.packets).into(), lost]),
        Line::from(format!("duplicated {}  reordered {}", number(report.duplicated), number(report.reordered))),
        Line::from(format!("delay {delay}")),
        Line::from(format!("longest gap {gap}  handovers {}", report.handovers)),
    ];
    frame.render_widget(Paragraph::new(lines).block(block), area);
}

fn draw_channels(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let rows = status.agents.iter().flat_map(|agent| &agent.channels).map(|channel| {
        Row::new([
            channel.name.clone(),
            channel.channel.to_string(),
            channel.tunnels.to_string(),
            channel.packets.to_string(),
            // Why nothing can come is worth more than that nothing comes.
            channel.not_joined.first().cloned().unwrap_or_else(|| rate(channel.bits_per_second)),
        ])
    });
    let widths = [
        Constraint::Min(12),
        Constraint::Length(38),
        Constraint::Length(8),
        Constraint::Length(12),
        Constraint::Min(12),
    ];
    draw_table(frame, area, " channels ", ["name", "channel", "tunnels", "packets", "rate"], rows, &widths);
}

fn draw_tunnels(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let rows = status.agents.iter().flat_map(|agent| {
        agent.tunnels.iter().map(|tunnel| {
            let channels: Vec<_> = tunnel.channels.iter().map(ToString::to_string).collect();
            let age = format!("{} s", tunnel.age_seconds);
            Row::new([tunnel.address.to_string(), agent.agent.clone(), age, channels.join(" ")])
        })
    });
    let widths = [Constraint::Length(22), Constraint::Length(28), Constraint::Length(8), Constraint::Min(20)];
    draw_table(frame, area, " tunnels ", ["client", "server", "age", "channels"], rows, &widths);
}

fn draw_registrations(frame: &mut Frame<'_>, area: Rect, status: &Status) {
    let rows = status.registrations().map(|(agent, entry)| {
        let said = entry.last_refusal.clone().unwrap_or_default();
        Row::new([agent.to_owned(), entry.entry.clone(), entry.parent.clone(), format!("{} {said}", entry.state)])
    });
    let widths = [Constraint::Length(28), Constraint::Length(28), Constraint::Length(30), Constraint::Min(12)];
    draw_table(frame, area, " registrations ", ["agent", "entry", "at", "state"], rows, &widths);
}

fn draw_table<'a, const N: usize>(
    frame: &mut Frame<'_>,
    area: Rect,
    title: &'a str,
    head: [&'a str; N],
    rows: impl Iterator<Item = Row<'a>>,
    widths: &[Constraint],
) {
    let head = Row::new(head).style(Style::new().fg(Color::DarkGray));
    let table = Table::new(rows, widths.iter().copied()).header(head).block(Block::bordered().title(title));
    frame.render_widget(table, area);
}

/// A rate as `2.0 Mbit/s`.
fn rate(bits_per_second: u64) -> String {
    match bits_per_second {
        bits @ 1_000_000.. => format!("{}.{} Mbit/s", bits / 1_000_000, bits % 1_000_000 / 100_000),
        bits => format!("{} kbit/s", bits / 1_000),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::up::own_client::ClientState;
    use castgate_agent::report::{ChannelReport, RegistrationReport, Report, TunnelReport};
    use ratatui::Terminal;
    use ratatui::backend::TestBackend;

    #[test]
    fn the_picture_shows_channel_tunnel_registration_and_the_line_to_type() {
        let channel = "232.1.2.3@127.0.1.1:5004".parse().unwrap();
        let agent = Report {
            agent: "castgate/brussels".to_owned(),
            channels: vec![ChannelReport {
                name: "pattern".to_owned(),
                channel,
                tunnels: 1,
                packets: 190,
                bytes: 250_040,
                bits_per_second: 2_000_000,
                not_joined: Vec::new(),
            }],
            tunnels: vec![TunnelReport {
                address: "127.0.3.1:4000".parse().unwrap(),
                channels: vec![channel],
                age_seconds: 3,
            }],
            registrations: vec![RegistrationReport {
                parent: "127.0.5.1:5632".to_owned(),
                entry: "TS 127.0.2.1:10100 UDP".to_owned(),
                state: "registered".to_owned(),
                last_refusal: None,
            }],
            ..Report::default()
        };
        let status = Status {
            agents: vec![agent],
            client: ClientState { report: None, word: "asking 127.0.4.1".to_owned() },
            line: Some("castgate receive ham:ip:232.1.2.3@127.0.1.1:5004 --tds 127.0.4.1:5632".to_owned()),
        };
        let picture = picture(&status);
        for wanted in [
            "asking 127.0.4.1",
            "castgate receive ham:ip:232.1.2.3@127.0.1.1:5004 --tds 127.0.4.1:5632",
            "2.0 Mbit/s",
            "127.0.3.1:4000",
            "TS 127.0.2.1:10100 UDP",
            "registered",
            "a warning",
        ] {
            assert!(picture.contains(wanted), "{wanted} is not in\n{picture}");
        }
    }

    #[test]
    fn q_and_control_c_quit_and_nothing_else_does() {
        assert!(is_quit(KeyEvent::new(KeyCode::Char('q'), KeyModifiers::NONE)));
        assert!(is_quit(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::CONTROL)));
        assert!(!is_quit(KeyEvent::new(KeyCode::Char('c'), KeyModifiers::NONE)));
    }

    fn picture(status: &Status) -> String {
        let mut terminal = Terminal::new(TestBackend::new(120, 40)).unwrap();
        terminal.draw(|frame| draw(frame, status, &["a warning".to_owned()])).unwrap();
        // However low a terminal is, drawing on it must not fail.
        for height in 1..24 {
            let mut low = Terminal::new(TestBackend::new(80, height)).unwrap();
            low.draw(|frame| draw(frame, status, &[])).unwrap();
        }
        terminal.backend().to_string()
    }
}
