//! Any m losses decode, m + 1 fail cleanly, for every code, shard lengths apart.

use proptest::prelude::*;

use super::*;

fn shards(lens: &[usize], seed: u8) -> Vec<Bytes> {
    let byte = |i: usize, n: usize| (i * 31 + n * 7 + usize::from(seed)) as u8;
    lens.iter().enumerate().map(|(i, len)| (0..*len).map(|n| byte(i, n)).collect::<Vec<u8>>().into()).collect()
}

/// The k + m places of a group with virtual data shards filled in, and its padded length.
fn group(code: &dyn ErasureCode, data: &[Bytes]) -> (Vec<Option<Bytes>>, usize) {
    let parity = code.encode(data).unwrap();
    let longest = data.iter().map(Bytes::len).max().unwrap();
    assert!(parity.len() == code.parity() && parity.iter().all(|p| p.len() == longest));
    let mut members: Vec<Option<Bytes>> = data.iter().cloned().map(Some).collect();
    members.resize(code.data(), Some(Bytes::new()));
    members.extend(parity.into_iter().map(Some));
    (members, longest)
}

fn padded(bytes: &Bytes, len: usize) -> Vec<u8> {
    let mut out = bytes.to_vec();
    out.resize(len, 0);
    out
}

proptest! {
    #[test]
    fn any_m_losses_decode_and_one_more_does_not(
        k in 1usize..8, m in 1usize..6, lens in prop::collection::vec(1usize..300, 1..8), seed: u8,
        order in Just((0..14usize).collect::<Vec<_>>()).prop_shuffle(),
    ) {
        let code = code(CodeSpec::new(k as u16, m as u16).unwrap()).unwrap();
        let data = shards(&lens[..lens.len().min(k)], seed);
        let (whole, len) = group(&*code, &data);
        let real = |i: &usize| *i < data.len() || *i >= k;
        let losable: Vec<usize> = order.into_iter().filter(|i| *i < k + m).filter(real).collect();
        let mut members = whole.clone();
        for lost in &losable[..m.min(losable.len())] {
            members[*lost] = None;
        }
        for lost in &losable[..m.min(losable.len())] {
            let got = code.reconstruct(&members, len, *lost).unwrap();
            prop_assert_eq!(got.to_vec(), padded(whole[*lost].as_ref().unwrap(), len));
        }
        if losable.len() > m {
            members[losable[m]] = None;
            let error = code.reconstruct(&members, len, losable[m]).unwrap_err();
            prop_assert_eq!(error.kind, conun_types::ErrorKind::Unavailable);
        }
    }
}

#[test]
fn copies_are_the_shard_itself() {
    let code = code(CodeSpec::new(1, 2).unwrap()).unwrap();
    let data = shards(&[100], 1);
    assert_eq!(code.encode(&data).unwrap(), [data[0].clone(), data[0].clone()]);
}

#[test]
fn nonsense_is_refused() {
    for (k, m) in [(4, 2), (1, 2), (1, 0)] {
        let code = code(CodeSpec::new(k, m).unwrap()).unwrap();
        assert!(code.encode(&[]).is_err());
        assert!(code.encode(&shards(&[1; 9], 0)).is_err());
        assert!(code.reconstruct(&[], 5, 0).is_err());
        assert!(code.reconstruct(&vec![None; usize::from(k + m)], 5, 99).is_err());
        let long = vec![Some(Bytes::from_static(b"longer")); usize::from(k + m)];
        assert!(code.reconstruct(&long, 5, 0).is_err());
    }
}
