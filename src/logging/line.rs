//! The text of a line.

use std::{
    fmt::{self, Write},
    time::SystemTime,
};

use log::Record;

/// Longest line, its end included: what a pipe takes in one piece (PIPE_BUF).
pub const MAX_LINE: usize = 4096;

/// What stands at the end of a line that was cut.
const CUT: &str = "…";

/// One line, its end included, of at most [`MAX_LINE`] bytes.
pub struct Line(String);

impl Line {
    /// `2026-01-31T12:00:00.000Z 4711 INFO akv_pkcs11::vault message`
    pub fn stamped(record: &Record<'_>) -> Self {
        // A clock before 1970 is shown as 1970; the formatter panics otherwise.
        let now = SystemTime::now().max(SystemTime::UNIX_EPOCH);
        let now = humantime::format_rfc3339_millis(now);
        let (level, target) = (record.level(), record.target());
        Line::of(format_args!("{now} {} {level} {target} ", std::process::id()), record.args())
    }

    /// `<11>akv-pkcs11[4711]: akv_pkcs11::vault message`; the receiver has its own clock.
    pub fn syslog(record: &Record<'_>) -> Self {
        const USER: u8 = 1 << 3;
        let severity = match record.level() {
            log::Level::Error => 3,
            log::Level::Warn => 4,
            log::Level::Info => 6,
            log::Level::Debug | log::Level::Trace => 7,
        };
        let (pid, target) = (std::process::id(), record.target());
        Line::of(format_args!("<{}>akv-pkcs11[{pid}]: {target} ", USER | severity), record.args())
    }

    /// `akv-pkcs11: sentence`
    pub fn plain(sentence: &str) -> Self {
        Line::of(format_args!("akv-pkcs11: "), &format_args!("{sentence}"))
    }

    /// The bytes to write, the end of line among them.
    pub fn as_bytes(&self) -> &[u8] {
        self.0.as_bytes()
    }

    fn of(head: fmt::Arguments<'_>, message: &fmt::Arguments<'_>) -> Self {
        let mut text = Escaping(String::with_capacity(256));
        // Failing means that the line is full, or that a value does not want to be printed.
        let whole = text.write_fmt(head).and_then(|()| text.write_fmt(*message));
        let Escaping(mut text) = text;
        if whole.is_err() {
            text.push_str(CUT);
        }
        text.push('\n');
        Line(text)
    }
}

/// Keeps what is written on one line, and the line within its limit.
struct Escaping(String);

impl Write for Escaping {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for character in text.chars() {
            let before = self.0.len();
            match character {
                '\n' => self.0.push_str("\\n"),
                '\u{2028}' | '\u{2029}' => self.0.extend(character.escape_unicode()),
                character if character.is_control() => self.0.extend(character.escape_default()),
                character => self.0.push(character),
            }
            if self.0.len() + CUT.len() + 1 > MAX_LINE {
                self.0.truncate(before);
                return Err(fmt::Error);
            }
        }
        Ok(())
    }
}
