//! Private links, as people pass them on.
//!
//! ```text
//! holdfast://share/NAME?at=MULTIADDR&at=...#SECRET
//! NAME    base32 (lower case, no padding) of version u8 = 1 | author's key 32 | check 4
//! SECRET  base32 of 32 bytes; `check` shows whether it came through whole
//! ```
//!
//! What stands before `#` leads to bytes that nobody can read; whoever has all of it reads what was shared. The author's key names
//! the record with the providers, and signs it: whoever keeps it can withhold it, not change it.

use std::fmt;
use std::str::FromStr;

use holdfast_content::keys::SecretKey32;
use holdfast_content::share::LinkKeys;

use crate::home::ProviderAddr;
use crate::link::{ADDRESSES_MAX, LINK_BYTES_MAX, decode, encode};

/// How it begins.
pub const SCHEME: &str = "holdfast://share/";
const VERSION: u8 = 1;
const NAME_BYTES: usize = 37;

/// See the module. Its text is a secret.
#[derive(Clone, PartialEq, Eq)]
pub struct PrivateLink {
    /// Names and signs the record.
    pub author: [u8; 32],
    /// What opens it.
    pub secret: SecretKey32,
    /// Who kept it when the link was made.
    pub at: Vec<ProviderAddr>,
}

/// Why text is no private link.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PrivateLinkError {
    #[error("this is no private link: its name is damaged")]
    Name,
    #[error("the link was made by a newer version of Holdfast; update it")]
    Newer,
    #[error(
        "the link ends without its key, which stands after `#`: it was cut off on its way (quote it in a shell)"
    )]
    Cut,
    #[error("the key after `#` is not the link's: it was changed on its way")]
    Key,
    #[error("a link with an address that cannot be: {0}")]
    Address(String),
    #[error("the link is too long")]
    TooLong,
}

impl PrivateLink {
    /// What follows from its secret.
    pub fn keys(&self) -> LinkKeys {
        LinkKeys::from_secret(&self.secret)
    }
}

impl fmt::Debug for PrivateLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("PrivateLink(..)")
    }
}

fn unbase32(text: &str) -> Option<Vec<u8>> {
    data_encoding::BASE32_NOPAD.decode(text.to_ascii_uppercase().as_bytes()).ok()
}

fn base32(bytes: &[u8]) -> String {
    data_encoding::BASE32_NOPAD.encode(bytes).to_ascii_lowercase()
}

impl FromStr for PrivateLink {
    type Err = PrivateLinkError;

    fn from_str(text: &str) -> Result<PrivateLink, PrivateLinkError> {
        let text = text.trim();
        if text.len() > LINK_BYTES_MAX {
            return Err(PrivateLinkError::TooLong);
        }
        let rest = text.strip_prefix(SCHEME).ok_or(PrivateLinkError::Name)?;
        let (rest, fragment) = rest.split_once('#').unwrap_or((rest, ""));
        let (name, query) = rest.split_once('?').unwrap_or((rest, ""));
        let name = unbase32(name).ok_or(PrivateLinkError::Name)?;
        match name.split_first() {
            Some((&VERSION, _)) if name.len() == NAME_BYTES => {}
            Some((&version, _)) if version > VERSION => return Err(PrivateLinkError::Newer),
            _ => return Err(PrivateLinkError::Name),
        }
        let (author, check) =
            name.get(1..).and_then(|n| n.split_first_chunk::<32>()).ok_or(PrivateLinkError::Name)?;
        let mut at = Vec::new();
        for pair in query.split('&').filter(|pair| !pair.is_empty()) {
            // What a later version may add is passed over.
            let Some(value) = pair.strip_prefix("at=") else { continue };
            let bad = || PrivateLinkError::Address(value.chars().take(200).collect());
            let address: ProviderAddr = decode(value).and_then(|text| text.parse().ok()).ok_or_else(bad)?;
            ProviderAddr::merge(&mut at, [address]);
        }
        if at.len() > ADDRESSES_MAX {
            return Err(PrivateLinkError::TooLong);
        }
        if fragment.is_empty() {
            return Err(PrivateLinkError::Cut);
        }
        let secret = unbase32(fragment).and_then(|bytes| <[u8; 32]>::try_from(bytes).ok());
        let secret = SecretKey32::from_bytes(secret.ok_or(PrivateLinkError::Key)?);
        if LinkKeys::from_secret(&secret).check != check {
            return Err(PrivateLinkError::Key);
        }
        Ok(PrivateLink { author: *author, secret, at })
    }
}

impl fmt::Display for PrivateLink {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let name = [&[VERSION][..], &self.author, &self.keys().check].concat();
        write!(f, "{SCHEME}{}", base32(&name))?;
        let addresses = self.at.iter().flat_map(ProviderAddr::full_addrs);
        for (n, address) in addresses.enumerate() {
            let mark = if n == 0 { '?' } else { '&' };
            write!(f, "{mark}at={}", encode(&address, "/:"))?;
        }
        write!(f, "#{}", base32(self.secret.as_bytes()))
    }
}

#[cfg(test)]
pub(crate) mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    pub(crate) fn sample() -> PrivateLink {
        let at = "/ip4/192.0.2.7/tcp/4001/p2p/12D3KooWGzJ3FZnGPJGLjjZ7Xc9oRkQhRhNq5xnYVvaAPkjCBxUM";
        PrivateLink {
            author: [5; 32],
            secret: SecretKey32::from_bytes([6; 32]),
            at: vec![at.parse().unwrap()],
        }
    }

    #[test]
    fn links_come_back_and_say_what_is_wrong_with_them() {
        let text = sample().to_string();
        assert!(text.starts_with("holdfast://share/aecqkbifauc"), "{text}");
        assert_eq!(text.parse::<PrivateLink>().unwrap(), sample());
        assert_eq!(text.replace("?at=", "?later=7&at=").parse::<PrivateLink>().unwrap(), sample());
        let (before, secret) = text.split_once('#').unwrap();
        let parse = |text: &str| text.parse::<PrivateLink>().unwrap_err();
        assert_eq!(parse(before), PrivateLinkError::Cut);
        assert_eq!(parse(&format!("{before}#{}", &secret[1..])), PrivateLinkError::Key);
        let other = base32(&[7; 32]);
        assert_eq!(parse(&format!("{before}#{other}")), PrivateLinkError::Key);
        let mut name = [&[2][..], &[5; 32], &[0; 4], b"more"].concat();
        assert_eq!(parse(&format!("{SCHEME}{}#{secret}", base32(&name))), PrivateLinkError::Newer);
        name[0] = 1;
        assert_eq!(parse(&format!("{SCHEME}{}#{secret}", base32(&name))), PrivateLinkError::Name);
        assert_eq!(parse("holdfast://share/"), PrivateLinkError::Name);
        assert!(matches!(parse(&format!("{before}&at=/ip4#{secret}")), PrivateLinkError::Address(_)));
        assert_eq!(parse(&format!("{text}{}", " x".repeat(LINK_BYTES_MAX))), PrivateLinkError::TooLong);
        assert!(!format!("{:?}", sample()).contains(secret));
    }
}
