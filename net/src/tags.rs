//! Where a provider belongs: what it says of its operator, network and place, and what its owner's clients may say.
//!
//! What has the same tag is taken to fail together. Nobody proves a tag; whoever lies can only seem to fail with others.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The longest tag, in bytes.
pub const TAG_BYTES_MAX: usize = 64;

/// Where a provider belongs. An absent tag says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Tags {
    /// Who runs it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub operator: Option<String>,
    /// Whose lines it hangs on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network: Option<String>,
    /// Where it stands.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub place: Option<String>,
}

impl Tags {
    /// Whether nothing is said.
    pub fn is_empty(&self) -> bool {
        self.operator.is_none() && self.network.is_none() && self.place.is_none()
    }

    /// Whether every tag is short and can be shown on a line.
    pub fn is_valid(&self) -> bool {
        self.each().all(|(_, tag)| {
            !tag.is_empty() && tag.len() <= TAG_BYTES_MAX && !tag.chars().any(char::is_control)
        })
    }

    /// The tags by their kinds.
    pub fn to_map(&self) -> BTreeMap<String, String> {
        self.each().map(|(kind, tag)| (kind.to_owned(), tag.to_owned())).collect()
    }

    /// The same from a map. A kind that this version does not know is left out, and so are all where one is not valid.
    pub fn from_map(map: &BTreeMap<String, String>) -> Tags {
        let of = |kind: &str| map.get(kind).cloned();
        let tags = Tags { operator: of("operator"), network: of("network"), place: of("place") };
        if tags.is_valid() { tags } else { Tags::default() }
    }

    /// The tags that are there, with their kinds.
    pub fn each(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let all = [("operator", &self.operator), ("network", &self.network), ("place", &self.place)];
        all.into_iter().filter_map(|(kind, tag)| tag.as_deref().map(|tag| (kind, tag)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_short_and_plain() {
        let tags = |operator: &str| Tags { operator: Some(operator.to_owned()), ..Tags::default() };
        assert!(tags("a").is_valid() && Tags::default().is_valid());
        for bad in ["", "a\nb", &"x".repeat(65)] {
            assert!(!tags(bad).is_valid());
        }
        let all = Tags { network: Some("n".to_owned()), place: Some("oslo".to_owned()), ..tags("a") };
        assert_eq!(Tags::from_map(&all.to_map()), all);
        let mut map = all.to_map();
        map.insert("planet".to_owned(), "earth".to_owned());
        assert_eq!(Tags::from_map(&map), all, "a kind of a later version");
        map.insert("place".to_owned(), "a\nb".to_owned());
        assert_eq!(Tags::from_map(&map), Tags::default());
    }
}
