//! Peers over libp2p: identity, discovery, block exchange, task streams.
