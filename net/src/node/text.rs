//! Why nobody answered, as a person reads it.

use libp2p::Multiaddr;
use libp2p::multiaddr::Protocol;
use libp2p::swarm::DialError;

/// What the system said of each address, each once.
pub(super) fn dial_text(error: &DialError) -> String {
    let DialError::Transport(tried) = error else { return crate::codec::shorten(&error.to_string()) };
    let mut said: Vec<String> = Vec::new();
    for (address, error) in tried {
        let mut root: &dyn std::error::Error = error;
        while let Some(deeper) = root.source() {
            root = deeper;
        }
        let host: Multiaddr = address.iter().filter(|p| !matches!(p, Protocol::P2p(_))).collect();
        said.push(format!("{host}: {}", system_words(&root.to_string())));
    }
    said.sort_unstable();
    said.dedup();
    crate::codec::shorten(&said.join("; "))
}

/// libp2p wraps the system's error in sentences that repeat it; the innermost is the one that helps.
fn system_words(text: &str) -> &str {
    let Some(end) = text.find(" (os error") else { return text.trim() };
    let before = text.get(..end).unwrap_or(text);
    let start = [": ", "- "].iter().filter_map(|mark| before.rfind(mark).map(|at| at + mark.len())).max();
    before.get(start.unwrap_or(0)..).unwrap_or(before).trim()
}

#[cfg(test)]
mod tests {
    use super::system_words;

    #[test]
    fn of_a_wrapped_error_the_systems_own_words_are_left() {
        let wrapped =
            ": Multiple dial errors occurred:\n - Connection refused (os error 111): Multiple dial errors";
        assert_eq!(system_words(wrapped), "Connection refused");
        assert_eq!(system_words("Handshake failed: input error"), "Handshake failed: input error");
        assert_eq!(system_words("No route to host (os error 113)"), "No route to host");
    }
}
