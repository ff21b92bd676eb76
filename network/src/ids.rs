//! Between Conun's names and libp2p's: node ids and peer ids, keys, addresses as text and parsed.

use std::net::{IpAddr, SocketAddr};

use conun_types::{Error, NodeId, NodeKey, PeerAddr, Result};
use libp2p::{Multiaddr, PeerId, identity, multiaddr::Protocol as Part};

/// Longest address taken from a peer, in bytes of text.
const MAX_ADDR: usize = 128;
/// Most addresses kept for a peer.
pub(crate) const MAX_ADDRS: usize = 8;

/// The libp2p name of a node.
pub(crate) fn peer_id(id: &NodeId) -> Result<PeerId> {
    id.to_string().parse().map_err(|_| Error::internal(format!("{id} has no libp2p form")))
}

/// The node behind a libp2p name; none for identities that are not secp256k1.
pub(crate) fn node_id(peer: &PeerId) -> Option<NodeId> {
    peer.to_base58().parse().ok()
}

/// The libp2p identity of a key.
pub(crate) fn keypair(key: &NodeKey) -> Result<identity::Keypair> {
    let secret = identity::secp256k1::SecretKey::try_from_bytes(key.to_bytes())
        .map_err(|_| Error::internal("the node key is not a secp256k1 key"))?;
    Ok(identity::secp256k1::Keypair::from(secret).into())
}

/// Parses an address that a person typed, splitting off a trailing `/p2p/…`.
///
/// # Errors
/// [`conun_types::ErrorKind::Usage`] naming the address.
pub(crate) fn parse_addr(text: &str) -> Result<(Option<NodeId>, Multiaddr)> {
    let wrong = |why: String| {
        Error::usage(format!("'{text}' is not an address: {why}"))
            .with_hint("write /ip4/<address>/tcp/<port>, with or without /p2p/<node id>")
    };
    let mut addr: Multiaddr = text.parse().map_err(|e| wrong(format!("{e}")))?;
    let id = match addr.iter().last() {
        Some(Part::P2p(peer)) => {
            addr.pop();
            Some(node_id(&peer).ok_or_else(|| wrong("its peer id is not a secp256k1 key".to_owned()))?)
        }
        _ => None,
    };
    if socket(&addr).is_some() { Ok((id, addr)) } else { Err(wrong("only TCP is spoken".to_owned())) }
}

/// An address from a peer, if it is one that we can dial. A stranger's list is cut, not trusted.
pub(crate) fn usable(text: &str) -> Option<Multiaddr> {
    if text.len() > MAX_ADDR {
        return None;
    }
    parse_addr(text).ok().map(|(_, addr)| addr)
}

/// The parsed addresses of `peer` that can be dialled.
pub(crate) fn dialable(peer: &PeerAddr) -> Vec<Multiaddr> {
    peer.addrs.iter().filter_map(|text| usable(text)).take(MAX_ADDRS).collect()
}

/// The TCP socket that an address names, if it names one and nothing more.
pub(crate) fn socket(addr: &Multiaddr) -> Option<SocketAddr> {
    let mut parts = addr.iter();
    let ip: IpAddr = match parts.next()? {
        Part::Ip4(ip) => ip.into(),
        Part::Ip6(ip) => ip.into(),
        _ => return None,
    };
    let Part::Tcp(port) = parts.next()? else { return None };
    parts.next().is_none().then_some(SocketAddr::new(ip, port))
}

#[cfg(test)]
mod tests {
    use conun_types::OsRng;

    use super::*;

    #[test]
    fn names_translate_both_ways() -> Result<()> {
        let key = NodeKey::generate(&OsRng);
        let peer = keypair(&key)?.public().to_peer_id();
        assert_eq!(peer.to_string(), key.id().to_string());
        assert_eq!(peer_id(&key.id())?, peer);
        assert_eq!(node_id(&peer), Some(key.id()));
        Ok(())
    }

    #[test]
    fn addresses_with_and_without_identity() -> Result<()> {
        let id = NodeKey::generate(&OsRng).id();
        let (none, addr) = parse_addr("/ip4/127.0.0.1/tcp/4001")?;
        assert_eq!((none, addr.to_string().as_str()), (None, "/ip4/127.0.0.1/tcp/4001"));
        let (some, same) = parse_addr(&format!("/ip4/127.0.0.1/tcp/4001/p2p/{id}"))?;
        assert_eq!((some, same), (Some(id), addr));
        Ok(())
    }

    #[test]
    fn what_cannot_be_dialled_is_refused() {
        let ed25519 = "/ip4/1.2.3.4/tcp/1/p2p/12D3KooWDpJ7As7BWAwRMfu1VU2WCqNjvq387JEYKDBj4kx6nXTN";
        for text in ["", "127.0.0.1:1", "/ip4/1.2.3.4/udp/1", "/dns4/example.org/tcp/1", "/ip4/1.2.3.4", ed25519] {
            assert!(parse_addr(text).is_err(), "{text}");
        }
        assert!(usable(&format!("/ip4/127.0.0.1/tcp/4001{}", "/".repeat(MAX_ADDR))).is_none());
    }
}
