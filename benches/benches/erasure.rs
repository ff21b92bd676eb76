//! Encoding and recovering 1 MiB shards under the codes that networks of different sizes get.

use std::hint::black_box;

use bytes::Bytes;
use conun_storage::erasure::{CodeSpec, code};
use criterion::{Criterion, Throughput, criterion_group, criterion_main};

const SHARD: usize = 1 << 20;

fn shards(count: u16) -> Vec<Bytes> {
    (0..count).map(|n| (0..SHARD).map(|i| (i * 31 + usize::from(n) * 7) as u8).collect::<Vec<u8>>().into()).collect()
}

fn erasure(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("erasure");
    for (data, parity) in [(4, 2), (4, 8), (10, 4), (16, 8)] {
        let coder = code(CodeSpec { data, parity }).expect("a valid code");
        let members = shards(data);
        let parities = coder.encode(&members).expect("encoded");
        group.throughput(Throughput::Bytes(u64::from(data) * SHARD as u64));
        group.bench_function(format!("encode {data}+{parity}"), |b| b.iter(|| coder.encode(black_box(&members))));

        let mut places: Vec<Option<Bytes>> = members.into_iter().chain(parities).map(Some).collect();
        places[0] = None;
        group.bench_function(format!("recover one of {data}+{parity}"), |b| {
            b.iter(|| coder.reconstruct(black_box(&places), SHARD, 0));
        });
    }
    group.finish();
}

criterion_group!(benches, erasure);
criterion_main!(benches);
