//! The form of MetalLB's log: one JSON object on a line, with `ts`, `level`, `caller`, `op` and `msg`, then the rest.

use std::fmt::{self, Debug};
use std::time::SystemTime;

use serde_json::Value;
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::fmt::format::Writer;
use tracing_subscriber::fmt::{FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::registry::LookupSpan;

/// Writes an event as a line.
pub(super) struct Lines;

impl<S, N> FormatEvent<S, N> for Lines
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    #[expect(clippy::disallowed_methods, reason = "a line says when it was written")]
    fn format_event(&self, _: &FmtContext<'_, S, N>, mut writer: Writer<'_>, event: &Event<'_>) -> fmt::Result {
        let metadata = event.metadata();
        let (file, line) = (metadata.file().unwrap_or_default(), metadata.line().unwrap_or_default());
        let mut fields = Fields::default();
        event.record(&mut fields);
        let head = Head {
            ts: humantime::format_rfc3339_millis(SystemTime::now()).to_string(),
            level: metadata.level().as_str().to_ascii_lowercase(),
            caller: caller(file, line),
            op: operation(metadata.target()),
        };
        writeln!(writer, "{}", line_of(head, fields))
    }
}

/// What every line begins with.
struct Head {
    ts: String,
    level: String,
    caller: String,
    op: String,
}

/// What an event says.
#[derive(Default)]
struct Fields {
    message: String,
    others: Vec<(&'static str, Value)>,
}

/// Quotation marks and line breaks of whatever is logged are escaped: a line stays one line and one object.
fn line_of(head: Head, fields: Fields) -> String {
    let Head { ts, level, caller, op } = head;
    let known = [("ts", ts), ("level", level), ("caller", caller), ("op", op), ("msg", fields.message)];
    let known = known.into_iter().map(|(key, text)| (key, Value::String(text)));
    // A key that is there twice would be read as either.
    let others = fields.others.into_iter().filter(|(key, _)| !KEYS.contains(key));
    let pairs = known.chain(others).map(|(key, value)| format!("{}:{value}", Value::String(key.to_owned())));
    format!("{{{}}}", pairs.collect::<Vec<_>>().join(","))
}

/// The last part of the path and the line, as `publish.rs:57`.
fn caller(file: &str, line: u32) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    format!("{name}:{line}")
}

/// What was being done: the module without the prefix that all have, as `speaker::run::publish`.
fn operation(target: &str) -> String {
    target.strip_prefix("garpike_").unwrap_or(target).to_owned()
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        let text = format!("{value:?}");
        match field.name() {
            "message" => self.message = text,
            name => self.others.push((name, Value::String(text))),
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        match field.name() {
            "message" => value.clone_into(&mut self.message),
            name => self.others.push((name, value.into())),
        }
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.others.push((field.name(), value.into()));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.others.push((field.name(), value.into()));
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.others.push((field.name(), value.into()));
    }
}

const KEYS: [&str; 5] = ["ts", "level", "caller", "op", "msg"];

#[cfg(test)]
mod tests {
    use std::io;
    use std::sync::{Arc, Mutex};

    use tracing::{info, warn};
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn a_line_is_an_object_with_the_keys_that_metallb_writes() {
        let lines = logged(|| info!(service_ip = %"10.0.0.1", addresses = 3, "owner changed"));

        let [line] = &lines[..] else { panic!("{lines:?}") };
        assert!(line.starts_with(r#"{"ts":"20"#), "{line}");
        let object: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&object["level"], &object["msg"]), (&"info".into(), &"owner changed".into()));
        assert_eq!((&object["service_ip"], &object["addresses"]), (&"10.0.0.1".into(), &3.into()));
        assert!(object["caller"].as_str().unwrap().starts_with("json.rs:"), "{line}");
        assert!(object["op"].as_str().unwrap().ends_with("logging::json::tests"), "{line}");
        humantime::parse_rfc3339(object["ts"].as_str().unwrap()).unwrap();
    }

    #[test]
    fn what_others_wrote_breaks_no_line() {
        let lines = logged(|| warn!(msg = "shadows", error = "a \"b\"\nc", "said {:?}", "x\ny"));

        let [line] = &lines[..] else { panic!("{lines:?}") };
        let object: Value = serde_json::from_str(line).unwrap();
        assert_eq!((&object["error"], &object["level"]), (&"a \"b\"\nc".into(), &"warn".into()));
        assert_eq!(line.matches("\"msg\"").count(), 1, "{line}");
        assert_eq!(object["msg"], r#"said "x\ny""#);
    }

    /// The lines that `act` logs.
    fn logged(act: impl FnOnce()) -> Vec<String> {
        let written = Written::default();
        let writer = written.clone();
        let lines = tracing_subscriber::fmt::layer().with_writer(move || writer.clone()).event_format(Lines);
        tracing::subscriber::with_default(tracing_subscriber::registry().with(lines), act);
        let bytes = written.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap().lines().map(str::to_owned).collect()
    }

    #[derive(Clone, Default)]
    struct Written(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Written {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }
}
