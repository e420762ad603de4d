//! Why the tool ends with another exit code than 0: one sentence, naming value and remedy.

use std::{fmt, io::Write, process::ExitCode};

/// A refusal. 1 is the exit code of what was refused or failed, 2 that of a wrong command line.
#[derive(Debug)]
pub struct Failure {
    sentence: String,
    code: u8,
}

impl Failure {
    /// Something was refused or failed.
    pub fn new(sentence: impl Into<String>) -> Self {
        Failure { sentence: sentence.into(), code: 1 }
    }

    /// The command line makes no sense.
    pub fn usage(sentence: impl Into<String>) -> Self {
        Failure { sentence: sentence.into(), code: 2 }
    }

    /// The same failure, with what can be done about it here.
    pub fn with_advice(mut self, advice: &str) -> Self {
        self.sentence = format!("{}; {advice}", self.sentence);
        self
    }

    /// Writes the sentence to standard error and gives the process's exit code.
    pub fn report(&self) -> ExitCode {
        // Nobody is left to tell when standard error is closed.
        let _ = writeln!(std::io::stderr(), "akv-pkcs11: {self}");
        ExitCode::from(self.code)
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.sentence)
    }
}

impl From<akv_pkcs11::error::Error> for Failure {
    fn from(error: akv_pkcs11::error::Error) -> Self {
        Failure::new(error.to_string())
    }
}
