//! Peers that break the protocol, written against raw libp2p: nothing crashes, memory stays bounded, honest peers are
//! served on.
#![allow(clippy::unwrap_used, missing_docs, reason = "tests")]

mod support;

use std::{
    sync::{Arc, atomic::Ordering::SeqCst},
    time::Duration,
};

use bytes::Bytes;
use conun_network::{ClientOnly, Host};
use conun_types::{
    Cid, NodeKey, OsRng, PeerAddr, Source, TaskOffer, codec,
    port::{CallError, Network, OfferReply, Volunteer},
    task::{MAX_BLOCKS, MAX_ENVELOPE},
    wire::{ControlReply, ControlRequest, MAX_BLOCK, ReadBlock},
};
use futures::{AsyncReadExt, AsyncWriteExt, StreamExt};
use libp2p::{PeerId, Stream, StreamProtocol, Swarm, SwarmBuilder, identity, noise, swarm::SwarmEvent, tcp, yamux};
use libp2p_stream::{Behaviour, Control, OpenStreamError};
use serde::{Deserialize, Serialize};
use support::{Fake, coordinator, log, misbehaved, node, offer, unforgiving, until};

const SOON: Duration = Duration::from_secs(5);
const CONTROL: &str = "/conun/control/1";
const BLOCK: &str = "/conun/block/1";
const TASK: &str = "/conun/task/1";

/// What the protocol's own types encode to.
#[derive(Serialize)]
enum ToNode {
    Hello { versions: Vec<u16> },
    Offer(Box<TaskOffer>),
}

#[derive(Debug, Serialize, Deserialize)]
enum FromNode {
    Hello { versions: Vec<u16> },
    Refused(String),
}

#[derive(Serialize)]
enum ControlAnswer {
    Reply(ControlReply),
}

#[derive(Serialize)]
enum BlockReply {
    Ready { total: u64 },
}

/// A raw libp2p peer.
struct Raw {
    control: Control,
    addr: PeerAddr,
    driver: tokio::task::JoinHandle<()>,
}

impl Drop for Raw {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl Raw {
    async fn new() -> Self {
        let key = NodeKey::generate(&OsRng);
        let secret = identity::secp256k1::SecretKey::try_from_bytes(key.to_bytes()).unwrap();
        let mut swarm: Swarm<Behaviour> =
            SwarmBuilder::with_existing_identity(identity::secp256k1::Keypair::from(secret).into())
                .with_tokio()
                .with_tcp(tcp::Config::new(), noise::Config::new, yamux::Config::default)
                .unwrap()
                .with_behaviour(|_| Behaviour::new())
                .unwrap()
                .with_swarm_config(|c| c.with_idle_connection_timeout(SOON * 10))
                .build();
        let control = swarm.behaviour().new_control();
        swarm.listen_on("/ip4/127.0.0.1/tcp/0".parse().unwrap()).unwrap();
        let addr = loop {
            if let SwarmEvent::NewListenAddr { address, .. } = swarm.select_next_some().await {
                break address.to_string();
            }
        };
        let driver = tokio::spawn(async move {
            loop {
                swarm.select_next_some().await;
            }
        });
        Self { control, addr: PeerAddr { id: key.id(), addrs: vec![addr] }, driver }
    }

    /// A raw peer that `host` has connected to.
    async fn known_to(host: &Arc<Host>) -> Self {
        let raw = Self::new().await;
        let _ = host.control(&raw.addr, ControlRequest::Hello).await;
        raw
    }

    async fn open(&self, host: &Arc<Host>, protocol: &'static str) -> Result<Stream, OpenStreamError> {
        let peer: PeerId = host.local_id().to_string().parse().unwrap();
        self.control.clone().open_stream(peer, StreamProtocol::new(protocol)).await
    }

    /// Serves one stream of `protocol` after the other.
    fn serve<F>(&self, protocol: &'static str, answer: impl Fn(Stream) -> F + Send + 'static)
    where
        F: Future<Output = ()> + Send,
    {
        let mut streams = self.control.clone().accept(StreamProtocol::new(protocol)).unwrap();
        tokio::spawn(async move {
            while let Some((_, stream)) = streams.next().await {
                answer(stream).await;
            }
        });
    }
}

impl Raw {
    /// Answers each question.
    fn answer(&self, answer: impl Fn(ControlRequest) -> ControlReply + Send + Sync + 'static) {
        let answer = Arc::new(answer);
        self.serve(CONTROL, move |mut stream| {
            let answer = Arc::clone(&answer);
            async move {
                let Ok(asked) = read_frame(&mut stream).await else { return };
                let reply = answer(codec::decode(&asked).unwrap());
                let _ = stream.write_all(&frame(&ControlAnswer::Reply(reply))).await;
                let _ = stream.close().await;
            }
        });
    }

    /// Offers a task; gives what the node says to the offer.
    async fn offer(&self, host: &Arc<Host>, offer: TaskOffer) -> FromNode {
        let mut stream = self.open(host, TASK).await.unwrap();
        let hello = frame(&ToNode::Hello { versions: vec![1] });
        stream.write_all(&[hello, frame(&ToNode::Offer(Box::new(offer)))].concat()).await.unwrap();
        read_frame(&mut stream).await.unwrap();
        codec::decode(&read_frame(&mut stream).await.unwrap()).unwrap()
    }
}

fn frame<T: Serialize>(message: &T) -> Vec<u8> {
    let body = codec::encode(message).unwrap();
    [&(body.len() as u32).to_be_bytes()[..], &body].concat()
}

async fn read_frame(stream: &mut Stream) -> std::io::Result<Vec<u8>> {
    let mut head = [0; 4];
    stream.read_exact(&mut head).await?;
    let mut body = vec![0; u32::from_be_bytes(head) as usize];
    stream.read_exact(&mut body).await?;
    Ok(body)
}

/// An honest coordinator still gets what it asks for.
async fn assert_alive(host: &Arc<Host>) {
    let honest = coordinator(&[]).await;
    honest.control(&host.local_addr(), ControlRequest::Hello).await.unwrap();
    let envelope = Bytes::from_static(b"task");
    honest.run_task(&host.local_addr(), offer(&envelope, SOON), envelope).await.unwrap();
}

/// What hostile peers send at the beginning of a stream.
fn attacks() -> Vec<Vec<u8>> {
    let hello = frame(&ToNode::Hello { versions: vec![1] });
    let absurd = TaskOffer { envelope_len: u64::MAX, ..offer(b"x", SOON) };
    vec![
        vec![0xff; 4],
        vec![0xff; 100_000],
        [&(16u32 << 20).to_be_bytes()[..], b"only this"].concat(),
        [&3u32.to_be_bytes()[..], b"\xff\xff\xff"].concat(),
        // A DAG-CBOR list that claims 2^63 entries, and a hundred lists within each other.
        [&9u32.to_be_bytes()[..], b"\x9b\x7f\xff\xff\xff\xff\xff\xff\xff"].concat(),
        [&100u32.to_be_bytes()[..], &[0x81; 100]].concat(),
        vec![0, 0, 0, 0],
        hello.clone(),
        [hello.clone(), hello.clone()].concat(),
        [hello.clone(), frame(&ToNode::Offer(Box::new(absurd)))].concat(),
        [hello, frame(&ToNode::Offer(Box::new(offer(b"x", SOON)))), vec![0xff; 64]].concat(),
        frame(&ToNode::Hello { versions: Vec::new() }),
    ]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn garbage_ends_its_own_stream_only() {
    let fake = Fake::new();
    let host = node(&fake, &[]).await;
    for attack in attacks() {
        for protocol in [CONTROL, BLOCK, TASK] {
            let raw = Raw::known_to(&host).await;
            let Ok(mut stream) = raw.open(&host, protocol).await else { panic!("{protocol}") };
            let _ = stream.write_all(&attack).await;
            let _ = stream.close().await;
            let mut rest = Vec::new();
            let _ = tokio::time::timeout(SOON, stream.read_to_end(&mut rest)).await.expect("the stream ends");
        }
    }
    until("every place is given back", || fake.running() == 0).await;
    assert_alive(&host).await;
}

#[tokio::test]
async fn who_breaks_the_protocol_is_shut_out_for_a_while() {
    let host = node(&Fake::new(), &[]).await;
    let raw = Raw::known_to(&host).await;
    let mut stream = raw.open(&host, CONTROL).await.unwrap();
    stream.write_all(&[0xff; 8]).await.unwrap();
    until("it is disconnected", || host.connected() == 0).await;
    let denied = host.control(&raw.addr, ControlRequest::Hello).await;
    assert!(matches!(denied, Err(CallError::Unreachable { .. })), "{denied:?}");
    tokio::time::sleep(support::timing().ban).await;
    let _ = host.control(&raw.addr, ControlRequest::Hello).await;
    until("it may come back", || host.connected() == 1).await;
}

/// `host` is rid of `peer`, warned of it for `reason`, and lets it in no more.
async fn assert_shut_out(host: &Arc<Host>, peer: &PeerAddr, reason: &str) {
    until("a warning names the peer and the reason", || log::warned(&[&peer.id.to_string(), reason])).await;
    until("it is disconnected", || host.connected() == 0).await;
    support::unreachable(host.control(peer, ControlRequest::Hello).await);
}

#[tokio::test]
async fn who_offers_what_no_honest_peer_offers_is_told_why_and_shut_out() {
    log::capture();
    let fake = Fake::new();
    let host = Host::start(unforgiving(), &fake.key, Arc::clone(&fake) as _).await.unwrap();
    let envelope = Bytes::from_static(b"task");
    let offered = async |reason: &str| {
        let hostile = coordinator(&[]).await;
        let refused = hostile.run_task(&host.local_addr(), offer(&envelope, SOON), envelope.clone()).await;
        let told = |r: &Result<_, CallError>| matches!(r, Err(CallError::Refused { reason: why, .. }) if why == reason);
        assert!(told(&refused), "{refused:?}");
        assert_shut_out(&host, &hostile.local_addr(), reason).await;
        // Nor can it come in by itself: there is a connection, or none, but no answer.
        support::unreachable(hostile.control(&host.local_addr(), ControlRequest::Hello).await);
    };
    fake.answers(OfferReply::Breach("a forged order".to_owned()));
    offered("a forged order").await;
    assert_eq!(fake.started.load(SeqCst), 0);

    fake.answers(OfferReply::Accept);
    *fake.unfit.lock().unwrap() = Some("an envelope of another job".to_owned());
    offered("an envelope of another job").await;
    assert_eq!((fake.started.load(SeqCst), fake.released.load(SeqCst)), (0, 1), "its place is given back");

    *fake.unfit.lock().unwrap() = None;
    assert_alive(&host).await;
    // A refusal for other reasons costs nothing.
    fake.answers(OfferReply::Refused("another profile".to_owned()));
    let honest = coordinator(&[]).await;
    for _ in 0..3 {
        let refused = honest.run_task(&host.local_addr(), offer(&envelope, SOON), envelope.clone()).await;
        assert!(matches!(refused, Err(CallError::Refused { .. })), "{refused:?}");
    }
    assert!(!log::warned(&[&honest.local_id().to_string()]));
}

#[tokio::test]
async fn plans_beyond_the_limit_and_absurd_counts_are_refused_and_shut_out() {
    log::capture();
    let fake = Fake::new();
    let host = Host::start(unforgiving(), &fake.key, Arc::clone(&fake) as _).await.unwrap();
    let source = Source { cid: Cid::raw(b"x"), len: 1, holders: Vec::new(), recovery: None };
    let cases = [
        (TaskOffer { envelope_len: MAX_ENVELOPE as u64 + 1, ..offer(b"x", SOON) }, "a task of 8388609 bytes"),
        (TaskOffer { envelope_len: u64::MAX, ..offer(b"x", SOON) }, "a task of"),
        (TaskOffer { sources: vec![source; MAX_BLOCKS + 1], ..offer(b"x", SOON) }, "65537 sources"),
    ];
    for (absurd, reason) in cases {
        let raw = Raw::known_to(&host).await;
        let told = raw.offer(&host, absurd).await;
        assert!(matches!(&told, FromNode::Refused(why) if why.contains(reason)), "{told:?}");
        assert_shut_out(&host, &raw.addr, reason).await;
        assert!(raw.open(&host, TASK).await.is_err());
    }
    assert_eq!(fake.released.load(SeqCst), 0, "the volunteer never saw them");
    assert_alive(&host).await;
}

/// Has `host` connect to `peer`, whatever comes of it: a call that is under way when its peer is shut out may take its
/// whole time to fail.
async fn meet(host: &Arc<Host>, peer: &PeerAddr) {
    let _ = tokio::time::timeout(Duration::from_millis(500), host.control(peer, ControlRequest::Pointers)).await;
}

#[tokio::test]
async fn who_answers_the_hosts_own_questions_wrongly_is_shut_out() {
    log::capture();
    let service = Arc::new(ClientOnly::default());
    let host = Host::start(unforgiving(), &NodeKey::generate(&OsRng), service).await.unwrap();
    let said = |honest_hello: bool| {
        move |asked| match asked {
            ControlRequest::Hello if !honest_hello => ControlReply::Has(vec![true]),
            ControlRequest::Hello => ControlReply::Hello(ClientOnly::default().hello()),
            _ => ControlReply::Has(vec![true]),
        }
    };
    for honest_hello in [false, true] {
        let raw = Raw::new().await;
        raw.answer(said(honest_hello));
        meet(&host, &raw.addr).await;
        assert_shut_out(&host, &raw.addr, "the reply does not fit the question").await;
    }
    let garbage = Raw::new().await;
    garbage.serve(CONTROL, |mut stream| async move {
        let _ = stream.write_all(&[0xff; 64]).await;
        let _ = stream.close().await;
    });
    meet(&host, &garbage.addr).await;
    assert_shut_out(&host, &garbage.addr, "a message of").await;
    // Who does not answer at all only fails.
    let silent = Raw::known_to(&host).await;
    tokio::time::sleep(support::timing().hello_every * 3).await;
    assert!(host.connected() == 1 && !log::warned(&[&silent.addr.id.to_string()]));
}

#[tokio::test]
async fn a_flood_of_idle_streams_starves_nobody() {
    let host = node(&Fake::new(), &[]).await;
    let raw = Raw::known_to(&host).await;
    let mut held = Vec::new();
    for _ in 0..200 {
        held.extend(raw.open(&host, CONTROL).await.ok());
    }
    assert!(held.len() > 100);
    assert_alive(&host).await;
}

#[tokio::test]
async fn a_coordinator_that_vanishes_before_its_envelope_leaves_no_place_taken() {
    let fake = Fake::new();
    let host = node(&fake, &[]).await;
    let raw = Raw::known_to(&host).await;
    let mut stream = raw.open(&host, TASK).await.unwrap();
    let hello = frame(&ToNode::Hello { versions: vec![1, 9] });
    stream.write_all(&[hello, frame(&ToNode::Offer(Box::new(offer(b"x", SOON))))].concat()).await.unwrap();
    read_frame(&mut stream).await.unwrap();
    read_frame(&mut stream).await.unwrap();
    drop(stream);
    until("the place is given back", || fake.released.load(SeqCst) == 1).await;
    assert_eq!(fake.started.load(SeqCst), 0);
}

#[tokio::test]
async fn wrong_bytes_are_not_stored() {
    #[derive(Serialize)]
    enum BlockRequest {
        Write(conun_types::wire::WriteBlock),
    }
    let fake = Fake::new();
    let host = node(&fake, &[]).await;
    let raw = Raw::known_to(&host).await;
    let mut stream = raw.open(&host, BLOCK).await.unwrap();
    stream.write_all(&frame(&BlockRequest::Write(support::write_of(b"truth")))).await.unwrap();
    read_frame(&mut stream).await.unwrap();
    stream.write_all(b"liars").await.unwrap();
    until("it is shut out", || host.connected() == 0).await;
    assert!(fake.blocks.lock().unwrap().is_empty());
}

#[tokio::test]
async fn another_version_is_refused_by_name() {
    let host = node(&Fake::new(), &[]).await;
    let raw = Raw::known_to(&host).await;
    let opened = raw.open(&host, "/conun/task/2").await;
    assert!(matches!(opened, Err(OpenStreamError::UnsupportedProtocol(_))), "{opened:?}");

    let run = || host.run_task(&raw.addr, offer(b"x", SOON), Bytes::from_static(b"x"));
    raw.serve("/conun/task/2", |_| async {});
    let refused = run().await;
    let other = |result: &Result<_, CallError>| matches!(result, Err(CallError::Refused { reason, .. }) if reason.contains("another protocol version"));
    assert!(other(&refused), "{refused:?}");
    let refused = host.read_block(&raw.addr, ReadBlock::whole(Cid::raw(b"x"), None)).await;
    assert!(matches!(&refused, Err(CallError::Refused { .. })), "{refused:?}");

    raw.serve(TASK, |mut stream| async move {
        let _ = stream.write_all(&frame(&FromNode::Hello { versions: vec![2, 3] })).await;
        let _ = stream.close().await;
    });
    let refused = run().await;
    assert!(other(&refused), "{refused:?}");
}

#[tokio::test]
async fn lying_and_failing_servers_are_told_apart() {
    let host = coordinator(&[]).await;
    let ready = |total| frame(&BlockReply::Ready { total });
    // What the server sends, and whether that is a breach (else a fault).
    let cases = [
        (vec![0xff; 16], true),
        (ready(u64::MAX), true),
        (ready(MAX_BLOCK + 1), true),
        ([ready(5), b"wrong".to_vec()].concat(), true),
        ([ready(1 << 20), vec![1; 1 << 20]].concat(), true),
        (Vec::new(), false),
        (ready(5)[..7].to_vec(), false),
        (ready(5), false),
        ([ready(5), b"tru".to_vec()].concat(), false),
    ];
    for (sent, breach) in cases {
        let raw = Raw::new().await;
        let answer = sent.clone();
        raw.serve(BLOCK, move |mut stream| {
            let answer = answer.clone();
            async move {
                let _ = read_frame(&mut stream).await;
                let _ = stream.write_all(&answer).await;
                let _ = stream.close().await;
            }
        });
        let got = host.read_block(&raw.addr, ReadBlock::whole(Cid::raw(b"truth"), None)).await;
        match got {
            Err(CallError::Misbehaved { .. }) if breach => {}
            Err(CallError::Unreachable { .. }) if !breach => {}
            other => panic!("{} bytes, breach {breach}: {other:?}", sent.len()),
        }
    }
}

#[tokio::test]
async fn answers_that_do_not_fit_the_question_are_breaches() {
    // The host's own questions are answered as badly, and would have the peer shut out before ours are.
    let mut lenient = support::config(&[]);
    lenient.timing.ban = Duration::ZERO;
    let service = Arc::new(ClientOnly::default());
    let host = Host::start(lenient, &NodeKey::generate(&OsRng), service).await.unwrap();
    let raw = Raw::new().await;
    raw.answer(|_| ControlReply::Has(vec![true; 3]));
    misbehaved(host.control(&raw.addr, ControlRequest::Has(vec![Cid::raw(b"x")])).await);
    misbehaved(host.control(&raw.addr, ControlRequest::Peers).await);
    assert!(host.volunteers().is_empty());
}

#[tokio::test]
async fn a_node_that_accepts_and_falls_silent_is_given_up() {
    let key = NodeKey::generate(&OsRng);
    let mut config = support::config(&[]);
    config.timing.silence = Duration::from_millis(300);
    let service = Arc::new(conun_network::ClientOnly::default()) as Arc<dyn Volunteer>;
    let host = Host::start(config, &key, service).await.unwrap();
    let raw = Raw::new().await;
    raw.serve(TASK, |mut stream| async move {
        let _ = stream.write_all(&frame(&FromNode::Hello { versions: vec![1] })).await;
        let _ = stream.write_all(&frame(&"Accept")).await;
        let _ = stream.flush().await;
        tokio::time::sleep(SOON * 10).await;
    });
    let call = host.run_task(&raw.addr, offer(b"x", SOON * 100), Bytes::from_static(b"x"));
    let result = tokio::time::timeout(SOON, call).await.expect("given up");
    support::unreachable(result);
}
