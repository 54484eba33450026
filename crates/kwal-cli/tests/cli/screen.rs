//! The program on a pseudo-terminal, and what a person sees there.

use std::{
    fs::{File, OpenOptions},
    io::{Read, Write},
    process::{Child, Command, Stdio},
    sync::mpsc::{Receiver, channel},
    thread,
    time::Duration,
};

use rustix::{
    pty::{OpenptFlags, grantpt, openpt, ptsname, unlockpt},
    termios::{Termios, Winsize, tcgetattr, tcsetwinsize},
};

/// A program that runs on a terminal of its own.
pub(crate) struct Terminal {
    child: Child,
    /// The side of the person.
    keyboard: File,
    /// The side of the program, kept open to look at its modes.
    tty: File,
    before: Termios,
    output: Receiver<Vec<u8>>,
    raw: Vec<u8>,
    columns: u16,
}

/// What was on the terminal when the program had ended.
#[derive(Debug)]
pub(crate) struct Left {
    pub(crate) code: i32,
    /// The lines of the screen.
    pub(crate) screen: String,
}

/// Which of its streams are not the terminal.
#[derive(Default)]
pub(crate) struct Redirected {
    pub(crate) stdin: Option<Stdio>,
    pub(crate) stdout: Option<Stdio>,
    pub(crate) stderr: Option<Stdio>,
}

pub(crate) const CTRL_C: &str = "\x03";
pub(crate) const CTRL_D: &str = "\x04";

impl Terminal {
    /// Starts a program on a terminal of so many columns.
    pub(crate) fn start(program: &Command, columns: u16) -> Self {
        Self::start_with(program, columns, Redirected::default())
    }

    pub(crate) fn start_with(program: &Command, columns: u16, redirected: Redirected) -> Self {
        let controller = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).unwrap();
        grantpt(&controller).unwrap();
        unlockpt(&controller).unwrap();
        let size = Winsize { ws_row: 24, ws_col: columns, ws_xpixel: 0, ws_ypixel: 0 };
        tcsetwinsize(&controller, size).unwrap();
        let name = ptsname(&controller, Vec::new()).unwrap().into_string().unwrap();
        let tty = OpenOptions::new().read(true).write(true).open(name).unwrap();

        let Redirected { stdin, stdout, stderr } = redirected;
        // In a session of its own, and if it reads from the terminal with that as the one that Ctrl-C of its
        // keyboard is for. std can do neither without `unsafe`.
        let mut command = Command::new("setsid");
        if stdin.is_none() {
            command.arg("--ctty");
        }
        command.arg(program.get_program()).args(program.get_args());
        command.env_clear().env("TERM", "xterm-256color");
        command.envs(program.get_envs().filter_map(|(name, value)| Some((name, value?))));
        let terminal = || Stdio::from(tty.try_clone().unwrap());
        command.stdin(stdin.unwrap_or_else(terminal));
        command.stdout(stdout.unwrap_or_else(terminal)).stderr(stderr.unwrap_or_else(terminal));
        let before = tcgetattr(&tty).unwrap();
        let child = command.spawn().unwrap();

        let keyboard = File::from(controller);
        let mut screen = keyboard.try_clone().unwrap();
        let (sender, output) = channel();
        thread::spawn(move || {
            let mut bytes = [0; 4096];
            // Linux reports an error when nobody has the other side open any more.
            while let Ok(len @ 1..) = screen.read(&mut bytes) {
                if sender.send(bytes[..len].to_vec()).is_err() {
                    break;
                }
            }
        });
        Self { child, keyboard, tty, before, output, raw: Vec::new(), columns }
    }

    /// Types something.
    pub(crate) fn press(&mut self, keys: &str) {
        self.keyboard.write_all(keys.as_bytes()).unwrap();
    }

    /// Waits until a text is on the screen, and returns all of the screen.
    pub(crate) fn wait_for(&mut self, text: &str) -> String {
        loop {
            let screen = self.screen();
            if screen.contains(text) {
                return screen;
            }
            // The terminal stays open when the program has ended.
            match self.output.recv_timeout(Duration::from_secs(60)) {
                Ok(bytes) => self.raw.extend(bytes),
                Err(_) => panic!("{text:?} did not come:\n{screen}"),
            }
        }
    }

    /// Waits for the end of the program, and checks that it left the terminal as it was.
    pub(crate) fn end(mut self) -> Left {
        let code = self.child.wait().unwrap().code().unwrap();
        let after = tcgetattr(&self.tty).unwrap();
        let modes = |termios: &Termios| {
            (termios.input_modes, termios.output_modes, termios.control_modes, termios.local_modes)
        };
        assert_eq!(modes(&after), modes(&self.before), "the modes of the terminal");
        drop(self.tty);
        self.raw.extend(self.output.iter().flatten());
        let mut screen = Screen::new(self.columns);
        screen.print(&self.raw);
        assert!(screen.is_cursor_visible, "the cursor is hidden");
        Left { code, screen: screen.text() }
    }

    fn screen(&self) -> String {
        let mut screen = Screen::new(self.columns);
        screen.print(&self.raw);
        screen.text()
    }
}

/// What a terminal shows, with all that was scrolled away.
struct Screen {
    columns: usize,
    rows: Vec<Vec<char>>,
    row: usize,
    /// Behind the last column until the next character, which goes to the next row then.
    column: usize,
    is_cursor_visible: bool,
}

impl Screen {
    fn new(columns: u16) -> Self {
        let rows = vec![Vec::new()];
        Self { columns: columns.into(), rows, row: 0, column: 0, is_cursor_visible: true }
    }

    /// Prints bytes, the last of which may be a part of a character or of a sequence.
    fn print(&mut self, bytes: &[u8]) {
        let text = bytes.utf8_chunks().map(|chunk| chunk.valid()).collect::<String>();
        let mut chars = text.chars();
        while let Some(c) = chars.next() {
            match c {
                '\r' => self.column = 0,
                '\n' => self.go_to(self.row + 1),
                '\u{8}' => self.column = self.column.min(self.columns).saturating_sub(1),
                '\t' => self.column = (self.column / 8 * 8 + 8).min(self.columns - 1),
                '\x1b' => {
                    let rest = chars.as_str();
                    let Some(sequence) = rest.strip_prefix('[') else {
                        assert!(rest.is_empty(), "ESC {:?}", rest.chars().next());
                        break;
                    };
                    let Some(end) = sequence.find(|c: char| c.is_ascii_alphabetic()) else { break };
                    let command = sequence.as_bytes()[end];
                    self.control(&sequence[..end], command);
                    chars = sequence[end + 1..].chars();
                }
                c => {
                    assert!(!c.is_control(), "{c:?}");
                    if self.column == self.columns {
                        self.go_to(self.row + 1);
                        self.column = 0;
                    }
                    let row = &mut self.rows[self.row];
                    if row.len() <= self.column {
                        row.resize(self.column + 1, ' ');
                    }
                    row[self.column] = c;
                    self.column += 1;
                }
            }
        }
    }

    /// A control sequence of ECMA-48.
    fn control(&mut self, parameters: &str, command: u8) {
        let count = || parameters.parse::<usize>().unwrap_or(1).max(1);
        match (command, parameters) {
            (b'A', _) => self.row = self.row.saturating_sub(count()),
            (b'B', _) => self.go_to(self.row + count()),
            (b'K', "" | "0") => self.rows[self.row].truncate(self.column),
            (b'K', "2") => self.rows[self.row].clear(),
            (b'm', _) => {}
            (b'h', "?25") => self.is_cursor_visible = true,
            (b'l', "?25") => self.is_cursor_visible = false,
            other => panic!("an unknown control sequence: {other:?}"),
        }
    }

    fn go_to(&mut self, row: usize) {
        self.row = row;
        if self.rows.len() <= row {
            self.rows.resize_with(row + 1, Vec::new);
        }
    }

    fn text(&self) -> String {
        let rows = self.rows.iter().map(|row| row.iter().collect::<String>().trim_end().to_owned());
        rows.collect::<Vec<_>>().join("\n").trim_end().to_owned()
    }
}

#[test]
fn a_screen_shows_what_a_terminal_does() {
    for (bytes, text) in [
        ("a\r\nb", "a\nb"),
        ("abcd\rX", "Xbcd"),
        ("abcdefgh\r\ni", "abcdefgh\ni"),
        ("abcdefghi", "abcdefgh\ni"),
        ("abc\x1b[2K\rde", "de"),
        ("ab\r\ncd\x1b[1A\r\x1b[Kx", "x\ncd"),
        ("a\tb", "a      b"),
        ("abc\x1b[", "abc"),
        ("abc\u{8}\u{8}X", "aXc"),
    ] {
        let mut screen = Screen::new(8);
        screen.print(bytes.as_bytes());
        assert_eq!(screen.text(), text, "{bytes:?}");
    }
}
