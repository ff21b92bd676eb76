//! One suite, run on the embedded chain and on anvil: every step's gas, every log, every error and the state that is left
//! are equal.

use crate::{story::life, support::World};

#[tokio::test]
async fn the_embedded_chain_and_anvil_tell_the_same_story() {
    let ours = life(&World::embedded()).await;
    assert!(ours.0.len() > 100, "{} steps", ours.0.len());
    let Some(anvil) = World::anvil().await else { return };
    let theirs = life(&anvil).await;
    for (a, b) in ours.0.iter().zip(&theirs.0) {
        assert_eq!(a, b);
    }
    assert_eq!(ours.0.len(), theirs.0.len());
}
