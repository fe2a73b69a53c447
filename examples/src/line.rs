//! A command line: what is run, and what is printed of it.

use std::fmt;

/// A command, as a user would type it in the work folder.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    /// The program, one of ours.
    pub(crate) program: &'static str,
    /// Its arguments.
    pub(crate) arguments: Vec<String>,
    /// Variables that it gets.
    pub(crate) variables: Vec<(&'static str, String)>,
    /// The file that takes what it prints, instead of the terminal.
    pub(crate) output: Option<String>,
    /// The file that takes its log, instead of the terminal.
    pub(crate) log: Option<String>,
}

impl Line {
    /// A program and its arguments, separated by spaces.
    pub(crate) fn new(program: &'static str, words: &str) -> Self {
        let (variables, output, log) = (Vec::new(), None, None);
        Self { program, arguments: Vec::new(), variables, output, log }.words(words)
    }

    /// More arguments, separated by spaces.
    pub(crate) fn words(mut self, words: &str) -> Self {
        self.arguments.extend(words.split_whitespace().map(str::to_owned));
        self
    }

    /// One more argument, whatever is in it.
    pub(crate) fn argument(mut self, argument: impl Into<String>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// With a variable.
    pub(crate) fn variable(mut self, name: &'static str, value: impl ToString) -> Self {
        self.variables.push((name, value.to_string()));
        self
    }

    /// What it prints goes to a file.
    pub(crate) fn output_to(mut self, file: impl Into<String>) -> Self {
        self.output = Some(file.into());
        self
    }

    /// Its log goes to a file.
    pub(crate) fn log_to(mut self, file: impl Into<String>) -> Self {
        self.log = Some(file.into());
        self
    }
}

impl fmt::Display for Line {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (name, value) in &self.variables {
            write!(f, "{name}={} ", Quoted(value))?;
        }
        f.write_str(self.program)?;
        for argument in &self.arguments {
            write!(f, " {}", Quoted(argument))?;
        }
        if let Some(file) = &self.output {
            write!(f, " > {}", Quoted(file))?;
        }
        if let Some(file) = &self.log {
            write!(f, " 2> {}", Quoted(file))?;
        }
        Ok(())
    }
}

/// A word as a shell takes it.
struct Quoted<'a>(&'a str);

impl fmt::Display for Quoted<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let plain = |c: char| c.is_ascii_alphanumeric() || "-_./:=,+@".contains(c);
        if !self.0.is_empty() && self.0.chars().all(plain) {
            f.write_str(self.0)
        } else {
            write!(f, "'{}'", self.0.replace('\'', r"'\''"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_reads_as_it_would_be_typed() {
        let line = Line::new("sheaf", "model import")
            .argument("/my models/it's")
            .words("--name minilm")
            .variable("OMP_NUM_THREADS", 1)
            .output_to("a.json")
            .log_to("a.log");
        let typed =
            r"OMP_NUM_THREADS=1 sheaf model import '/my models/it'\''s' --name minilm > a.json 2> a.log";
        assert_eq!(line.to_string(), typed);
    }
}
