//! What is printed and written: one line for each figure, and whether its goal is met.

use std::{fmt, fs, io, path::Path};

use serde::Serialize;

/// What a figure should be.
#[derive(Clone, Copy, Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// This.
    Exactly(f64),
}

impl Goal {
    fn met(self, value: f64) -> bool {
        match self {
            Goal::AtMost(goal) => value <= goal,
            Goal::AtLeast(goal) => value >= goal,
            Goal::Exactly(goal) => value == goal,
        }
    }
}

impl fmt::Display for Goal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Goal::AtMost(goal) => write!(f, "<= {goal}"),
            Goal::AtLeast(goal) => write!(f, ">= {goal}"),
            Goal::Exactly(goal) => write!(f, "= {goal}"),
        }
    }
}

/// One figure.
#[derive(Clone, Debug, Serialize)]
pub struct Figure {
    /// What was measured, without spaces.
    pub name: String,
    /// The median of its rounds.
    pub value: f64,
    /// Of the value: `us`, `ratio`, `requests`, …
    pub unit: &'static str,
    /// None for what only explains another figure.
    pub goal: Option<Goal>,
}

/// All figures of a run, under their headings, in the order of measuring. Each is printed when it
/// is there.
#[derive(Default, Serialize)]
pub struct Report {
    sections: Vec<Section>,
}

#[derive(Serialize)]
struct Section {
    heading: String,
    figures: Vec<Figure>,
}

impl Report {
    /// What follows is of this kind.
    pub fn section(&mut self, heading: &str) {
        self.sections.push(Section { heading: heading.to_owned(), figures: Vec::new() });
    }

    /// A figure with a goal.
    pub fn goal(&mut self, name: impl Into<String>, value: f64, unit: &'static str, goal: Goal) {
        self.add(Figure { name: name.into(), value, unit, goal: Some(goal) });
    }

    /// A figure without one.
    pub fn figure(&mut self, name: impl Into<String>, value: f64, unit: &'static str) {
        self.add(Figure { name: name.into(), value, unit, goal: None });
    }

    fn add(&mut self, figure: Figure) {
        let Figure { name, value, unit, goal } = &figure;
        let goal_text = goal.map_or_else(String::new, |goal| format!(" (goal {goal})"));
        let miss = if figure.missed() { " miss" } else { "" };
        println!("bench {name} {} {unit}{goal_text}{miss}", number(*value));
        match self.sections.last_mut() {
            Some(section) => section.figures.push(figure),
            None => {
                self.section("");
                self.sections[0].figures.push(figure);
            }
        }
    }

    /// How many goals there are, and how many are missed.
    pub fn goals(&self) -> (usize, usize) {
        let figures = || self.sections.iter().flat_map(|section| &section.figures);
        let missed = figures().filter(|figure| figure.missed()).count();
        (figures().filter(|figure| figure.goal.is_some()).count(), missed)
    }

    /// Everything as JSON.
    ///
    /// # Errors
    /// Those of writing.
    pub fn write_json(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
    }

    /// Replaces what follows the mark in a markdown file; the prose above it stays.
    ///
    /// # Errors
    /// Those of reading and writing; a file without the mark.
    pub fn write_markdown(&self, path: &Path, command: &str) -> io::Result<()> {
        let old = fs::read_to_string(path)?;
        let Some((prose, _)) = old.split_once(MARK) else {
            return Err(io::Error::other(format!("{} has no line {MARK:?}", path.display())));
        };
        let (goals, missed) = self.goals();
        let mut text = format!(
            "{prose}{MARK}\n{}. Command: `{command}`. Goals: {goals}, missed: {missed}.\n",
            machine()
        );
        for section in &self.sections {
            text += &format!(
                "\n## {}\n\n| figure | value | goal | |\n|---|---|---|---|\n",
                section.heading
            );
            for figure in &section.figures {
                let goal = figure.goal.map_or_else(String::new, |goal| goal.to_string());
                let miss = if figure.missed() { "miss" } else { "" };
                let (name, value, unit) = (&figure.name, number(figure.value), figure.unit);
                text += &format!("| `{name}` | {value} {unit} | {goal} | {miss} |\n");
            }
        }
        fs::write(path, text)
    }
}

/// The line under which the generated part of the document begins.
const MARK: &str = "<!-- generated: `make bench` rewrites what follows -->\n";

impl Figure {
    fn missed(&self) -> bool {
        self.goal.is_some_and(|goal| !goal.met(self.value))
    }
}

/// Three digits that mean something, and no exponent.
fn number(value: f64) -> String {
    match value.abs() {
        size if size >= 100.0 || value == value.round() => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn machine() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let (cpus, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
    let after = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_once(':').map_or("", |(_, value)| value).trim().to_owned()
    };
    let cores = cpus.lines().filter(|line| line.starts_with("processor")).count();
    let kilobytes: u64 = after(&memory, "MemTotal").trim_end_matches(" kB").parse().unwrap_or(0);
    let system = after(&read("/etc/os-release").replace('=', ":"), "PRETTY_NAME").replace('"', "");
    format!(
        "Machine: {cores} × {}, {} GiB, {system}; client and twin share it",
        after(&cpus, "model name"),
        kilobytes >> 20,
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_missed_goal_is_told() {
        let mut report = Report::default();
        report.section("one");
        report.goal("good", 1.0, "ratio", Goal::AtMost(1.0));
        report.goal("slow", 1.1, "ratio", Goal::AtMost(1.0));
        report.goal("little", 0.5, "ratio", Goal::AtLeast(0.9));
        report.goal("many", 4.0, "requests", Goal::Exactly(3.0));
        report.figure("other", 7.0, "us");
        assert_eq!(report.goals(), (4, 3));
    }

    #[test]
    fn the_prose_of_a_document_stays() {
        let folder = tempfile::tempdir().expect("folder");
        let path = folder.path().join("figures.md");
        fs::write(&path, format!("Why.\n{MARK}\nold\n")).expect("write");
        let mut report = Report::default();
        report.section("One");
        report.goal("slow", 1.25, "ratio", Goal::AtMost(1.0));
        report.write_markdown(&path, "make bench").expect("written");
        let text = fs::read_to_string(&path).expect("read");
        assert!(text.starts_with("Why.\n") && !text.contains("old"), "{text}");
        assert!(text.contains("| `slow` | 1.25 ratio | <= 1 | miss |"), "{text}");
        fs::write(&path, "no mark").expect("write");
        assert!(report.write_markdown(&path, "make bench").is_err());
    }
}
