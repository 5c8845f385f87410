//! Failure domains: what fails together counts once.
//!
//! Owns the tags by which providers are known to belong together, and the rule that makes domains of them: two providers
//! with the same operator, network or place are one domain, and so is whoever is one domain with either. Tags come from the
//! provider or from the owner; either can only merge domains, since saying nothing, or something else, splits none that the
//! other has merged. Refuses tags that are too long to be shown.

use std::collections::HashMap;

pub use holdfast_net::tags::Tags;

/// Numbers providers by domain: the same number, the same domain. `tags` are those of each provider, from all sources.
pub fn group<'a>(tags: &[[&'a Tags; 2]]) -> Vec<usize> {
    let mut parent: Vec<usize> = (0..tags.len()).collect();
    let mut first: HashMap<(&'static str, &'a str), usize> = HashMap::new();
    for (n, sources) in tags.iter().enumerate() {
        for tag in sources.iter().flat_map(|tags| tags.each()) {
            let other = *first.entry(tag).or_insert(n);
            let (a, b) = (root(&parent, n), root(&parent, other));
            if let Some(place) = parent.get_mut(a.max(b)) {
                *place = a.min(b);
            }
        }
    }
    (0..tags.len()).map(|n| root(&parent, n)).collect()
}

/// Whoever stands for the domain of `n`: parents have smaller numbers, so this ends.
fn root(parent: &[usize], n: usize) -> usize {
    let mut at = n;
    while let Some(up) = parent.get(at).copied().filter(|up| *up != at) {
        at = up;
    }
    at
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags(operator: &str, network: &str, place: &str) -> Tags {
        let tag = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Tags { operator: tag(operator), network: tag(network), place: tag(place) }
    }

    #[test]
    fn equal_tags_merge_and_nothing_splits() {
        let none = Tags::default();
        let (a, b, c) = (tags("acme", "", ""), tags("acme", "n1", "oslo"), tags("", "", "oslo"));
        let (other, same_word) = (tags("", "n2", ""), tags("n1", "", ""));
        assert_eq!(group(&[[&a, &none], [&b, &none], [&c, &none]]), [0, 0, 0], "a chain of equal tags");
        assert_eq!(group(&[[&none, &none], [&none, &none]]), [0, 1], "silence merges nobody");
        assert_eq!(group(&[[&b, &none], [&same_word, &none], [&other, &none]]), [0, 1, 2]);
        // The owner says more than the provider, and the other way round.
        assert_eq!(group(&[[&other, &a], [&none, &b], [&c, &none]]), [0, 0, 0]);
        assert_eq!(group(&[[&none, &a], [&other, &none], [&c, &none], [&b, &none]]), [0, 1, 0, 0]);
    }
}
