//! What a URL and its headers ask a trustless gateway for.
//!
//! ```text
//! /ipfs/CID[/path]?format=raw|car&dag-scope=block|entity|all&entity-bytes=FROM:TO       or Accept: application/vnd.ipld.raw, …car
//! ```
//!
//! Pure: text in, a question or a refusal out. (specs.ipfs.tech, Trustless Gateway; IPIP-402, IPIP-412.)

use std::ops::Range;

use cid::Cid;

use crate::link::decode;

/// A URL is at most this long; hyper's own limit for all headers is higher.
pub const URL_BYTES_MAX: usize = 8 << 10;
/// Names in a path.
const SEGMENTS_MAX: usize = 256;

/// What is asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Question {
    pub root: Cid,
    /// Names below the root.
    pub path: Vec<String>,
    pub form: Form,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Form {
    /// One block.
    Raw,
    /// Blocks in a CAR.
    Car(Scope),
}

/// How much of what stands at the end of the path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Scope {
    /// Its first block.
    Block,
    /// The file (or these bytes of it), or the folder without what is in it.
    Entity(Option<ByteSpan>),
    /// All below it.
    All,
}

/// `from:to`, both inclusive; negative numbers count from the end, `*` is the end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ByteSpan {
    pub from: i64,
    pub to: Option<i64>,
}

/// Why nothing can be answered: the status, and a line of text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    pub status: u16,
    pub text: String,
}

impl Refusal {
    pub fn new(status: u16, text: impl Into<String>) -> Refusal {
        Refusal { status, text: text.into() }
    }
}

impl ByteSpan {
    /// As offsets of a file of `size` bytes; empty when it lies outside.
    pub fn range(self, size: u64) -> Range<u64> {
        let place = |at: i64| match u64::try_from(at) {
            Ok(at) => at.min(size),
            Err(_) => size.saturating_sub(at.unsigned_abs()),
        };
        let from = place(self.from);
        let to = match self.to {
            None => size,
            Some(to) if to < 0 && to.unsigned_abs() > size => 0,
            Some(to) => place(to).saturating_add(1).min(size),
        };
        from..to.max(from)
    }
}

/// Understands a request.
pub fn parse(path_and_query: &str, accept: &[&str]) -> Result<Question, Refusal> {
    if path_and_query.len() > URL_BYTES_MAX {
        return Err(Refusal::new(414, "the URL is too long"));
    }
    let (path, query) = path_and_query.split_once('?').unwrap_or((path_and_query, ""));
    let not_here = || Refusal::new(404, "this is a trustless IPFS gateway: /ipfs/CID");
    let mut segments = path.strip_prefix("/ipfs/").ok_or_else(not_here)?.split('/');
    let root = segments.next().unwrap_or_default();
    let root: Cid = decode(root)
        .and_then(|text| text.parse().ok())
        .ok_or_else(|| Refusal::new(400, "what follows /ipfs/ is no CID"))?;
    let mut names = Vec::new();
    for segment in segments.filter(|segment| !segment.is_empty()) {
        let name = decode(segment).filter(|name| holdfast_content::plain::add::check_name(name).is_ok());
        names.push(name.ok_or_else(|| Refusal::new(400, "a path with a name that nothing can have"))?);
        if names.len() > SEGMENTS_MAX {
            return Err(Refusal::new(400, "the path is too long"));
        }
    }
    let form = form(query, accept)?;
    if form == Form::Raw && !names.is_empty() {
        return Err(Refusal::new(400, "a raw block is asked for by its own CID, without a path"));
    }
    Ok(Question { root, path: names, form })
}

fn form(query: &str, accept: &[&str]) -> Result<Form, Refusal> {
    let bad = |name: &str| Refusal::new(400, format!("{name} has a value that is not known"));
    let (mut format, mut scope, mut span) = (None, None, None);
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
        let value = decode(value).ok_or_else(|| bad(name))?;
        match name {
            "format" => format = Some(value),
            "dag-scope" => scope = Some(value),
            "entity-bytes" => span = Some(parse_span(&value).ok_or_else(|| bad(name))?),
            "car-version" if value != "1" => return Err(bad(name)),
            _ => {}
        }
    }
    let is_car = match format.as_deref() {
        Some("raw") => false,
        Some("car") => true,
        Some(_) => return Err(Refusal::new(406, "there are format=raw and format=car")),
        None => accepted(accept).ok_or_else(|| {
            Refusal::new(
                406,
                "ask for application/vnd.ipld.raw or application/vnd.ipld.car, or with ?format=",
            )
        })?,
    };
    if !is_car {
        return Ok(Form::Raw);
    }
    Ok(Form::Car(match scope.as_deref() {
        Some("block") => Scope::Block,
        Some("entity") => Scope::Entity(span),
        // Bytes are of one entity.
        None if span.is_some() => Scope::Entity(span),
        Some("all") | None => Scope::All,
        Some(_) => return Err(bad("dag-scope")),
    }))
}

/// Whether a CAR is accepted rather than a block; nothing when neither is.
fn accepted(accept: &[&str]) -> Option<bool> {
    let kinds = accept.iter().flat_map(|header| header.split(','));
    let mut kinds = kinds.map(|kind| {
        let mut parts = kind.split(';').map(str::trim);
        let name = parts.next().unwrap_or_default().to_ascii_lowercase();
        let other_version = parts.any(|part| part.starts_with("version=") && part != "version=1");
        (name, other_version)
    });
    kinds.find_map(|(name, other_version)| match name.as_str() {
        "application/vnd.ipld.raw" => Some(false),
        "application/vnd.ipld.car" if !other_version => Some(true),
        _ => None,
    })
}

fn parse_span(text: &str) -> Option<ByteSpan> {
    let (from, to) = text.split_once(':')?;
    let to = if to == "*" { None } else { Some(to.parse().ok()?) };
    Some(ByteSpan { from: from.parse().ok()?, to })
}

/// `Range: bytes=A-B`, A and B included, of something of `size` bytes. Outer nothing: no range that is understood, so all of it;
/// inner nothing: it lies outside.
pub fn byte_range(header: &str, size: u64) -> Option<Option<Range<u64>>> {
    let (from, to) = header.trim().strip_prefix("bytes=")?.split_once('-')?;
    let (from, to) = (from.trim(), to.trim());
    if to.contains(',') {
        return None;
    }
    let range = match (from.parse::<u64>().ok(), to.parse::<u64>().ok()) {
        (Some(from), Some(to)) if from <= to => from..to.saturating_add(1).min(size),
        (Some(from), None) if to.is_empty() => from..size,
        (None, Some(last)) if from.is_empty() => size.saturating_sub(last)..size,
        _ => return None,
    };
    Some(Some(range).filter(|range| range.start < range.end))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CID: &str = "bafkreibm6jg3ux5qumhcn2b3flc3tyu6dmlb4xa7u5bf44yegnrjhc4yeq";

    fn ask(rest: &str, accept: &[&str]) -> Result<Question, u16> {
        parse(&format!("/ipfs/{CID}{rest}"), accept).map_err(|refusal| refusal.status)
    }

    #[test]
    fn what_is_asked_for() {
        let raw = ask("?format=raw", &[]).unwrap();
        assert_eq!((raw.form, raw.root.to_string()), (Form::Raw, CID.to_owned()));
        assert_eq!(ask("", &["application/vnd.ipld.raw"]).unwrap().form, Form::Raw);
        assert_eq!(
            ask("", &["text/html, application/vnd.ipld.car;version=1;order=dfs"]).unwrap().form,
            Form::Car(Scope::All)
        );
        // The URL says more than the header.
        assert_eq!(ask("?format=car", &["application/vnd.ipld.raw"]).unwrap().form, Form::Car(Scope::All));
        let path = ask("/a/b%20c/%C3%A4/?format=car&dag-scope=block", &[]).unwrap();
        assert_eq!(path.path, ["a", "b c", "ä"]);
        assert_eq!(path.form, Form::Car(Scope::Block));
        let span = ask("?format=car&dag-scope=entity&entity-bytes=-5:*", &[]).unwrap().form;
        assert_eq!(span, Form::Car(Scope::Entity(Some(ByteSpan { from: -5, to: None }))));
        let implied = ask("?format=car&entity-bytes=0:9", &[]).unwrap().form;
        assert_eq!(implied, Form::Car(Scope::Entity(Some(ByteSpan { from: 0, to: Some(9) }))));
    }

    #[test]
    fn what_is_refused() {
        for (rest, status) in [
            ("", 406),
            ("?format=html", 406),
            ("/a?format=raw", 400),
            ("/../a?format=car", 400),
            ("/%2e%2e/a?format=car", 400),
            ("/a%2Fb?format=car", 400),
            ("/a%00?format=car", 400),
            ("/%ff?format=car", 400),
            ("/%zz?format=car", 400),
            ("?format=car&dag-scope=most", 400),
            ("?format=car&entity-bytes=1-2", 400),
            ("?format=car&car-version=2", 400),
        ] {
            assert_eq!(ask(rest, &[]), Err(status), "{rest}");
        }
        assert_eq!(ask("", &["application/vnd.ipld.car;version=2"]), Err(406));
        let status = |url: &str| parse(url, &[]).unwrap_err().status;
        assert_eq!(status("/"), 404);
        assert_eq!(status("/ipns/name?format=raw"), 404);
        assert_eq!(status("/ipfs/nothing?format=raw"), 400);
        assert_eq!(status("/ipfs/../../etc/passwd?format=raw"), 400);
        assert_eq!(status(&format!("/ipfs/{CID}/{}?format=car", "a/".repeat(300))), 400);
        assert_eq!(status(&format!("/ipfs/{CID}/{}?format=car", "a".repeat(9000))), 414);
    }

    #[test]
    fn spans_and_ranges() {
        let span = |from, to| ByteSpan { from, to }.range(100);
        assert_eq!(span(0, None), 0..100);
        assert_eq!(span(0, Some(0)), 0..1);
        assert_eq!(span(10, Some(19)), 10..20);
        assert_eq!(span(-10, None), 90..100);
        assert_eq!(span(-10, Some(-1)), 90..100);
        assert_eq!(span(0, Some(-11)), 0..90);
        assert_eq!(span(50, Some(40)), 50..50);
        assert_eq!(span(500, None), 100..100);
        assert_eq!(span(0, Some(-200)), 0..0);
        assert_eq!(span(i64::MIN, Some(i64::MAX)), 0..100);
        let range = |header| byte_range(header, 100);
        assert_eq!(range("bytes=0-9"), Some(Some(0..10)));
        assert_eq!(range("bytes=90-"), Some(Some(90..100)));
        assert_eq!(range("bytes=-5"), Some(Some(95..100)));
        assert_eq!(range("bytes=-500"), Some(Some(0..100)));
        assert_eq!(range("bytes=100-"), Some(None));
        assert_eq!(range("bytes=200-300"), Some(None));
        assert_eq!(range("bytes=5-3"), None);
        assert_eq!(range("bytes=0-1,5-6"), None);
        assert_eq!(range("lines=0-1"), None);
        assert_eq!(range("bytes=-0"), Some(None));
    }
}
