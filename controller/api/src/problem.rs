//! What is wrong with an object, in one line that names the object, the field, the value and the mend.
//!
//! Problems are data: nothing here decides whether to go on, and nothing is printed.

use std::fmt;
use std::sync::Arc;

/// One thing that is wrong, or worth knowing, about one object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// How bad it is.
    pub severity: Severity,
    /// The file, when the object was read from one.
    pub file: Option<Arc<str>>,
    /// The line in that file, from 1.
    pub line: Option<u32>,
    /// Kind, namespace and name, such as `IPAddressPool metallb-system/first-pool`.
    pub object: Option<String>,
    /// The field of the object.
    pub field: Option<FieldPath>,
    /// What the field holds.
    pub value: Option<String>,
    /// What is wrong; with a value, the rest of a sentence that begins with the value.
    pub text: String,
    /// What would be right.
    pub mend: Option<String>,
}

/// How bad a [`Problem`] is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Something that people may want to know; all is well.
    Note,
    /// The object is used, probably not as it was meant.
    Warning,
    /// The object, or the named part of it, has no effect.
    Error,
}

impl Severity {
    /// The word for it.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

impl Problem {
    /// An error that is not tied to an object yet.
    pub fn error(text: impl Into<String>) -> Self {
        Self::new(Severity::Error, text.into())
    }

    /// A warning that is not tied to an object yet.
    pub fn warning(text: impl Into<String>) -> Self {
        Self::new(Severity::Warning, text.into())
    }

    /// A note that is not tied to an object yet.
    pub fn note(text: impl Into<String>) -> Self {
        Self::new(Severity::Note, text.into())
    }

    fn new(severity: Severity, text: String) -> Self {
        Self { severity, file: None, line: None, object: None, field: None, value: None, text, mend: None }
    }

    /// Names the file.
    #[must_use]
    pub fn in_file(mut self, file: Arc<str>) -> Self {
        self.file = Some(file);
        self
    }

    /// Names the object.
    #[must_use]
    pub fn of(mut self, object: impl fmt::Display) -> Self {
        self.object = Some(object.to_string());
        self
    }

    /// Names the field.
    #[must_use]
    pub fn at(mut self, field: FieldPath) -> Self {
        self.field = Some(field);
        self
    }

    /// Names what the field holds.
    #[must_use]
    pub fn value(mut self, value: impl fmt::Display) -> Self {
        self.value = Some(value.to_string());
        self
    }

    /// Says what would be right.
    #[must_use]
    pub fn mend(mut self, mend: impl Into<String>) -> Self {
        self.mend = Some(mend.into());
        self
    }
}

/// `pools.yaml:7: IPAddressPool metallb-system/first-pool: spec.addresses[1]: "x" is not ...; write ...`, always one
/// line, whatever the object holds.
impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(file) = &self.file {
            write!(f, "{}:", OneLine(file))?;
            if let Some(line) = self.line {
                write!(f, "{line}:")?;
            }
            f.write_str(" ")?;
        }
        if let Some(object) = &self.object {
            write!(f, "{}: ", OneLine(object))?;
        }
        if let Some(field) = &self.field {
            write!(f, "{}: ", OneLine(&field.to_string()))?;
        }
        if let Some(value) = &self.value {
            write!(f, "\"{}\" ", OneLine(value))?;
        }
        write!(f, "{}", OneLine(&self.text))?;
        if let Some(mend) = &self.mend {
            write!(f, "; {}", OneLine(mend))?;
        }
        Ok(())
    }
}

/// Where in an object a field is, such as `spec.addresses[1]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FieldPath(Vec<Step>);

/// One step from a value to a value inside it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Key(String),
    Index(usize),
}

impl FieldPath {
    /// The path of keys.
    pub fn of<const N: usize>(keys: [&str; N]) -> Self {
        Self(keys.into_iter().map(|key| Step::Key(key.to_owned())).collect())
    }

    /// The path of one annotation.
    pub fn annotation(name: &str) -> Self {
        Self::of(["metadata", "annotations", name])
    }

    /// This path and one key more.
    #[must_use]
    pub fn key(&self, key: &str) -> Self {
        self.step(Step::Key(key.to_owned()))
    }

    /// This path and one index more.
    #[must_use]
    pub fn index(&self, index: usize) -> Self {
        self.step(Step::Index(index))
    }

    pub(crate) fn steps(&self) -> &[Step] {
        &self.0
    }

    fn step(&self, step: Step) -> Self {
        Self(self.0.iter().cloned().chain([step]).collect())
    }
}

impl fmt::Display for FieldPath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.0.iter().enumerate() {
            match step {
                Step::Key(key) if key.contains(['.', '/']) => write!(f, "[{key}]")?,
                Step::Key(key) if at == 0 => f.write_str(key)?,
                Step::Key(key) => write!(f, ".{key}")?,
                Step::Index(index) => write!(f, "[{index}]")?,
            }
        }
        Ok(())
    }
}

/// A text of unknown origin, without line breaks and terminal escapes, cut where it gets long.
struct OneLine<'a>(&'a str);

impl fmt::Display for OneLine<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for c in self.0.chars().take(MAX_SHOWN_CHARS) {
            if c.is_control() {
                write!(f, "{}", c.escape_default())?;
            } else {
                write!(f, "{c}")?;
            }
        }
        if self.0.chars().nth(MAX_SHOWN_CHARS).is_some() {
            f.write_str("...")?;
        }
        Ok(())
    }
}

/// The longest part of a problem that is shown. Chosen: two names of the greatest length fit.
const MAX_SHOWN_CHARS: usize = 600;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_file_line_object_field_value_and_mend_in_one_line() {
        let problem = Problem {
            line: Some(7),
            ..Problem::error("is not an address range")
                .in_file("pools.yaml".into())
                .of("IPAddressPool metallb-system/first-pool")
                .at(FieldPath::of(["spec", "addresses"]).index(1))
                .value("1.2.3.300")
                .mend("write CIDR such as 192.168.10.0/24")
        };

        assert_eq!(
            problem.to_string(),
            "pools.yaml:7: IPAddressPool metallb-system/first-pool: spec.addresses[1]: \"1.2.3.300\" is not an \
             address range; write CIDR such as 192.168.10.0/24"
        );
    }

    #[test]
    fn keeps_foreign_control_characters_off_the_terminal() {
        let line = Problem::error("bad").of("Service a/\n\u{1b}[31mb").value("x\ty").to_string();

        assert!(!line.chars().any(char::is_control), "{line:?}");
        assert!(Problem::error("x".repeat(10_000)).to_string().len() < 700);
    }

    #[test]
    fn writes_annotations_in_brackets() {
        assert_eq!(
            FieldPath::annotation("metallb.io/loadBalancerIPs").to_string(),
            "metadata.annotations[metallb.io/loadBalancerIPs]"
        );
    }
}
