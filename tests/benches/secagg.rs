//! What a secure sum costs one core, by its parts: `cargo bench -p sheaf-tests --bench secagg`.
//!
//! Each figure stands beside a plain memory copy that was timed in turn with it, because machines differ and are shared.

use std::hint::black_box;
use std::time::Instant;

use sheaf_common::secagg::check::LinearCheck;
use sheaf_common::secagg::prg::{Sign, apply_ring, fill_ring};
use sheaf_common::secagg::quantize::Encoding;
use sheaf_common::secagg::ring::{pack, unpack_add};

/// Elements: 40 MB of them, which no cache holds.
const ELEMENTS: usize = 10_000_000;

/// Elements that are worked on at a time, as a site and the server do.
const CHUNK: usize = 1 << 18;

/// Each part is timed so often; the median counts.
const TIMES: usize = 7;

fn main() {
    let values: Vec<f32> = (0..ELEMENTS).map(|at| (at as f32 * 0.37).sin() * 0.9).collect();
    let mut ring = vec![0u32; ELEMENTS];
    let mut noise = vec![0u32; CHUNK];
    let mut copy = vec![0f32; ELEMENTS];
    let mut packed = Vec::with_capacity(4 * CHUNK);
    let encoding = Encoding::new(16, 8).expect("sixteen bits of eight sites fit");
    let masks: Vec<(Sign, [u8; 16])> = (0..8).map(|number| (Sign::Add, [number; 16])).collect();
    let check = LinearCheck::new(&[9; 16]);
    println!("{:<28}{:>12}{:>12}{:>22}", "", "G element/s", "GB/s", "times a memory copy");
    let mut report = |name: &str, per_element: f64, work: &mut dyn FnMut()| {
        let (mut part, mut plain) = (Vec::new(), Vec::new());
        for _ in 0..TIMES {
            plain.push(seconds(&mut || {
                copy.copy_from_slice(black_box(&values));
                black_box(&copy);
            }));
            part.push(seconds(work));
        }
        let (part, plain) = (median(part), median(plain));
        let rate = ELEMENTS as f64 * per_element / part / 1e9;
        println!("{name:<28}{rate:>12.2}{:>12.2}{:>22.1}", rate * 4.0, part / plain / per_element);
    };
    report("one mask of eight", 8.0, &mut || {
        for (number, chunk) in ring.chunks_mut(CHUNK).enumerate() {
            apply_ring(&masks, (number * CHUNK) as u64, chunk);
        }
    });
    report("one mask alone", 1.0, &mut || {
        for (number, chunk) in ring.chunks_mut(CHUNK).enumerate() {
            apply_ring(&masks[..1], (number * CHUNK) as u64, chunk);
        }
    });
    let source = values.clone();
    report("quantisation", 1.0, &mut || {
        for (number, (values, out)) in source.chunks(CHUNK).zip(ring.chunks_mut(CHUNK)).enumerate() {
            let noise = &mut noise[..values.len()];
            fill_ring(&[3; 16], (number * CHUNK) as u64, noise);
            let clamped = encoding.quantize(values, 0.5, 1.0, noise, out);
            black_box(clamped.expect("the values are finite"));
        }
    });
    report("one linear check", 1.0, &mut || {
        for (number, chunk) in ring.chunks(CHUNK).enumerate() {
            black_box(check.fold((number * CHUNK) as u64, chunk));
        }
    });
    report("packing to three bytes", 1.0, &mut || {
        for chunk in ring.chunks(CHUNK) {
            packed.clear();
            pack(chunk, 3, &mut packed);
            black_box(&packed);
        }
    });
    packed.clear();
    pack(&ring[..CHUNK], 3, &mut packed);
    report("adding three packed bytes", 1.0, &mut || {
        for chunk in ring.chunks_mut(CHUNK) {
            unpack_add(&packed[..chunk.len() * 3], 3, chunk);
        }
    });
}

fn seconds(work: &mut dyn FnMut()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

fn median(mut times: Vec<f64>) -> f64 {
    times.sort_by(f64::total_cmp);
    times[times.len() / 2]
}
