//! The text format of Prometheus, version 0.0.4: families of samples, each with what it means.

use std::fmt::{Display, Write as _};

/// A page that is being written.
#[derive(Default)]
pub(super) struct Exposition {
    out: String,
}

/// One family: all samples of a name stand together, below its help and type.
pub(super) struct Family<'a> {
    out: &'a mut String,
    name: &'static str,
}

impl Exposition {
    /// A value that rises and falls.
    pub(super) fn gauge(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "gauge", help)
    }

    /// A value that only rises, until what counts it is started again.
    pub(super) fn counter(&mut self, name: &'static str, help: &str) -> Family<'_> {
        self.family(name, "counter", help)
    }

    fn family(&mut self, name: &'static str, kind: &str, help: &str) -> Family<'_> {
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        Family { out: &mut self.out, name }
    }

    pub(super) fn finish(self) -> String {
        self.out
    }
}

impl Family<'_> {
    /// The only sample.
    pub(super) fn value(self, value: impl Display) {
        let _ = writeln!(self.out, "{} {value}", self.name);
    }

    /// The only sample, where it is known.
    pub(super) fn maybe(self, value: Option<impl Display>) {
        if let Some(value) = value {
            self.value(value);
        }
    }

    /// One sample of several, told apart by a label.
    pub(super) fn labelled(self, label: &str, is: &str, value: impl Display) -> Self {
        let _ = writeln!(self.out, "{}{{{label}=\"{}\"}} {value}", self.name, escaped(is));
        self
    }
}

fn escaped(text: &str) -> String {
    text.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
}

#[cfg(test)]
pub(super) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use std::collections::BTreeSet;

    /// Reads a page as a scraper does, and gives `name{labels}` with its value.
    pub(crate) fn read(page: &str) -> Vec<(String, f64)> {
        let (mut families, mut samples, mut current) = (BTreeSet::new(), Vec::new(), String::new());
        let mut lines = page.lines();
        while let Some(line) = lines.next() {
            if let Some(help) = line.strip_prefix("# HELP ") {
                let (name, words) = help.split_once(' ').unwrap();
                assert!(words.len() > 10, "{line}");
                assert!(name.starts_with("holdfast_") && families.insert(name.to_owned()), "{line}");
                let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap().to_owned();
                assert!(["gauge", "counter"].contains(&kind.as_str()));
                assert_eq!(kind == "counter", name.ends_with("_total"), "{name}");
                current = name.to_owned();
                continue;
            }
            let (name, value) = line.rsplit_once(' ').unwrap();
            let value: f64 = value.parse().unwrap();
            let bare = name.split('{').next().unwrap();
            assert_eq!(bare, current, "a sample outside its family");
            assert!(samples.iter().all(|(known, _)| known != name), "{name} twice");
            samples.push((name.to_owned(), value));
        }
        assert!(page.ends_with('\n'));
        samples
    }

    /// A sample's value.
    pub(crate) fn value(samples: &[(String, f64)], name: &str) -> f64 {
        let found = samples.iter().find(|(known, _)| known == name);
        found.unwrap_or_else(|| panic!("{name} is not there: {samples:#?}")).1
    }

    #[test]
    fn a_page_is_read_back_with_its_labels_escaped() {
        let mut page = Exposition::default();
        page.gauge("holdfast_a_bytes", "Bytes of something.").value(7);
        page.counter("holdfast_b_total", "Things that happened.")
            .labelled("kind", "a \"b\"\\\n", 1)
            .labelled("kind", "c", 2.5);
        page.gauge("holdfast_c", "What is not known.").maybe(None::<u64>);
        let page = page.finish();
        let samples = read(&page);
        assert_eq!(samples.len(), 3);
        assert_eq!(value(&samples, "holdfast_a_bytes"), 7.0);
        assert_eq!(value(&samples, "holdfast_b_total{kind=\"a \\\"b\\\"\\\\\\n\"}"), 1.0);
    }
}
