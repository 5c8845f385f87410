//! Links to public data, as people pass them on; private ones are `crate::share::link`.
//!
//! ```text
//! holdfast://pub/CID[/path][?at=MULTIADDR&at=...]       who has it: addresses of providers, each ending in /p2p/...
//! ipfs://CID[/path]    /ipfs/CID[/path]    CID          the same of others; who has it must be said beside
//! ```
//!
//! Names and addresses are percent-encoded. A link names what it leads to by its hash: whoever serves it can withhold it, not
//! change it.

use std::fmt;
use std::str::FromStr;

use cid::Cid;
use holdfast_content::plain::add::check_name;

use crate::home::ProviderAddr;
use crate::share::link::{PrivateLink, PrivateLinkError};

/// No link is longer.
pub const LINK_BYTES_MAX: usize = 16 << 10;
/// Addresses in a link.
pub const ADDRESSES_MAX: usize = 64;
/// Names in its path.
const NAMES_MAX: usize = 256;
const SCHEME: &str = "holdfast://pub/";

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Link {
    pub root: Cid,
    /// Names below the root.
    pub path: Vec<String>,
    /// Who has it.
    pub at: Vec<ProviderAddr>,
}

/// A public link or a private one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AnyLink {
    Public(Link),
    Private(PrivateLink),
}

/// Why text is neither.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AnyLinkError {
    #[error(transparent)]
    Public(#[from] LinkError),
    #[error(transparent)]
    Private(#[from] PrivateLinkError),
}

impl FromStr for AnyLink {
    type Err = AnyLinkError;

    fn from_str(text: &str) -> Result<AnyLink, AnyLinkError> {
        Ok(match text.trim().starts_with(crate::share::link::SCHEME) {
            true => AnyLink::Private(text.parse()?),
            false => AnyLink::Public(text.parse()?),
        })
    }
}

/// Why text is no link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    #[error("`{0}` is neither a holdfast://pub/ link nor a CID")]
    NotALink(String),
    #[error("a link with a name or an address that cannot be: {0}")]
    Part(String),
    #[error("the link is too long")]
    TooLong,
}

impl FromStr for Link {
    type Err = LinkError;

    fn from_str(text: &str) -> Result<Link, LinkError> {
        let text = text.trim();
        if text.len() > LINK_BYTES_MAX {
            return Err(LinkError::TooLong);
        }
        let own = text.strip_prefix(SCHEME);
        let rest = own.or_else(|| text.strip_prefix("ipfs://")).or_else(|| text.strip_prefix("/ipfs/"));
        let rest = rest.unwrap_or(text);
        let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
        let mut names = rest.split('/');
        let root = names.next().unwrap_or_default().parse();
        let root = root.map_err(|_| LinkError::NotALink(text.chars().take(80).collect()))?;
        let mut link = Link { root, path: Vec::new(), at: Vec::new() };
        for part in names.filter(|part| !part.is_empty()) {
            let bad = || LinkError::Part(part.to_owned());
            let name = decode(part).ok_or_else(bad)?;
            check_name(&name).map_err(|_| bad())?;
            link.path.push(name);
        }
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            // What a later version may add is passed over.
            let Some(value) = pair.strip_prefix("at=") else { continue };
            let bad = || LinkError::Part(value.to_owned());
            let address = decode(value).ok_or_else(bad)?;
            let address: ProviderAddr = address.parse().map_err(|_| bad())?;
            ProviderAddr::merge(&mut link.at, [address]);
        }
        if link.path.len() > NAMES_MAX || link.at.len() > ADDRESSES_MAX {
            return Err(LinkError::TooLong);
        }
        Ok(link)
    }
}

impl fmt::Display for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}", self.root)?;
        for name in &self.path {
            write!(f, "/{}", encode(name, ""))?;
        }
        let addresses = self.at.iter().flat_map(ProviderAddr::full_addrs);
        for (n, address) in addresses.enumerate() {
            let mark = if n == 0 { '?' } else { '&' };
            write!(f, "{mark}at={}", encode(&address, "/:"))?;
        }
        Ok(())
    }
}

/// Percent-encodes all but letters, digits, `-._~` and what is in `also`.
pub(crate) fn encode(text: &str, also: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        let c = char::from(byte);
        if c.is_ascii_alphanumeric() || "-._~".contains(c) || (c.is_ascii() && also.contains(c)) {
            out.push(c);
        } else {
            out.push_str(&format!("%{byte:02X}"));
        }
    }
    out
}

/// Undoes it; nothing for what is no UTF-8.
pub(crate) fn decode(text: &str) -> Option<String> {
    let mut out = Vec::with_capacity(text.len());
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        if byte != b'%' {
            out.push(byte);
            continue;
        }
        let digit = |byte: Option<u8>| char::from(byte?).to_digit(16);
        let value = digit(bytes.next())? * 16 + digit(bytes.next())?;
        out.push(u8::try_from(value).ok()?);
    }
    String::from_utf8(out).ok()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    const CID: &str = "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH";
    const PEER: &str = "12D3KooWGzJ3FZnGPJGLjjZ7Xc9oRkQhRhNq5xnYVvaAPkjCBxUM";

    #[test]
    fn links_come_back() {
        let at = |n: u8| format!("/ip4/192.0.2.{n}/tcp/4001/p2p/{PEER}").parse().unwrap();
        let link = Link {
            root: CID.parse().unwrap(),
            path: vec!["a b".into(), "ä%/?&#".replace('/', "_")],
            at: vec![at(7)],
        };
        let text = link.to_string();
        assert!(
            text.starts_with("holdfast://pub/Qm")
                && text.contains("/a%20b/")
                && text.contains("?at=/ip4/192")
        );
        assert_eq!(text.parse::<Link>().unwrap(), link);
        for other in [CID.to_owned(), format!("ipfs://{CID}/"), format!("/ipfs/{CID}"), format!(" {CID}\n")] {
            let link = other.parse::<Link>().unwrap();
            assert_eq!((link.root.to_string(), link.path.len(), link.at.len()), (CID.to_owned(), 0, 0));
        }
        let later = format!("holdfast://pub/{CID}?size=7&at=/ip4/192.0.2.1/tcp/1/p2p/{PEER}");
        assert_eq!(later.parse::<Link>().unwrap().at.len(), 1);
    }

    #[test]
    fn what_is_no_link_is_refused() {
        for bad in [
            "",
            "http://example.org",
            "holdfast://pub/",
            &format!("{CID}/../x"),
            &format!("{CID}/%2e%2e"),
            &format!("{CID}/a%2Fb"),
            &format!("{CID}/%zz"),
            &format!("{CID}?at=here"),
            &format!("{CID}?at=/ip4/192.0.2.1/tcp/1"),
            &format!("{CID}/{}", "a/".repeat(300)),
            &format!("{CID}/{}", "a".repeat(LINK_BYTES_MAX)),
        ] {
            assert!(bad.parse::<Link>().is_err(), "{bad}");
        }
    }
}
