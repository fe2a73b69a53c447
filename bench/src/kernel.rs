//! What is done to every value of a model, in memory, beside a plain copy of as many bytes.

use std::hint::black_box;
use std::thread;
use std::time::Instant;

use anyhow::{Result, ensure};
use sheaf_common::aggregate::Aggregate;
use sheaf_common::compression::BLOCK;
use sheaf_common::secagg::prg::{Sign, apply_ring};
use sheaf_transport::chunks::in_order;

use crate::case::{Case, Group, Sample};
use crate::process::own_cpu_seconds;
use crate::settings::Settings;

/// Updates that are summed.
const UPDATES: usize = 8;

/// Values that a thread takes at a time, as at the server.
const CHUNK: usize = 1 << 18;

/// The work is done so often in a turn.
const TIMES: usize = 5;

pub(crate) fn groups(settings: &Settings) -> Vec<Group> {
    let megabytes = settings.megabytes;
    // Of all vectors together.
    let values = megabytes as usize * 1_000_000 / 4;
    let case = |workload, contestant, run: fn(usize) -> Result<Sample>| Case {
        workload,
        contestant,
        size_mb: f64::from(megabytes),
        clients: 1,
        run: Box::new(move || run(values)),
    };
    vec![
        vec![
            case("weighted sum", "Sheaf, all cores", |values| sums(values, true)),
            case("weighted sum", "memory copy, all cores", |values| copies(values, true)),
        ],
        vec![
            case("weighted sum", "Sheaf, one core", |values| sums(values, false)),
            case("weighted sum", "memory copy, one core", |values| copies(values, false)),
        ],
        vec![
            case("masking", "Sheaf, one core", |values| masks(values, Sign::Add)),
            case("masking", "memory copy, one core", |values| copies(values, false)),
        ],
        vec![
            case("unmasking", "Sheaf, one core", |values| masks(values, Sign::Subtract)),
            case("unmasking", "memory copy, one core", |values| copies(values, false)),
        ],
    ]
}

/// The seconds of each time, after a first one for which memory is fetched.
fn timed(mut work: impl FnMut() -> Result<()>) -> Result<Sample> {
    work()?;
    let (mut seconds, cpu) = (Vec::new(), own_cpu_seconds());
    for _ in 0..TIMES {
        let start = Instant::now();
        work()?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let cpu_seconds = Some((own_cpu_seconds() - cpu) / TIMES as f64);
    Ok(Sample { seconds, cpu_seconds, ..Sample::default() })
}

fn sums(values: usize, all_cores: bool) -> Result<Sample> {
    let length = values / UPDATES;
    let updates: Vec<Vec<f32>> =
        (0..UPDATES).map(|site| (0..length).map(|at| ((at + site) as f32 * 0.37).sin()).collect()).collect();
    let mut mean = vec![0f32; length];
    let expected: f64 =
        updates.iter().zip(1..).map(|(update, weight)| f64::from(update[9]) * f64::from(weight)).sum();
    let sample = timed(|| {
        if all_cores {
            let make = |start: u64, len| {
                let mut out = vec![0f32; len];
                sum(&updates, start as usize, &mut out);
                Ok::<_, anyhow::Error>(out)
            };
            in_order(length as u64, CHUNK, make, |start, made| {
                mean[start as usize..][..made.len()].copy_from_slice(&made);
                Ok(())
            })?;
        } else {
            sum(&updates, 0, &mut mean);
        }
        black_box(&mean);
        Ok(())
    })?;
    let weight = (1..=UPDATES).sum::<usize>() as f64;
    ensure!((f64::from(mean[9]) - expected / weight).abs() < 1e-6, "the sum is wrong");
    Ok(sample)
}

/// The weighted mean of the values from `start` on.
fn sum<'a>(updates: &'a [Vec<f32>], start: usize, out: &mut [f32]) {
    let mut sum = Aggregate::zero(0);
    for (number, block) in out.chunks_mut(BLOCK).enumerate() {
        let start = start + number * BLOCK;
        sum.reset(block.len());
        let block_of = |(update, weight): (&'a Vec<f32>, u64)| (&update[start..][..block.len()], weight);
        sum.add_all(&updates.iter().zip(1..).map(block_of).collect::<Vec<_>>());
        for (value, mean) in block.iter_mut().zip(sum.mean()) {
            *value = *mean as f32;
        }
    }
}

fn copies(values: usize, all_cores: bool) -> Result<Sample> {
    let from = vec![1f32; values];
    let mut to = vec![0f32; values];
    let threads = if all_cores { thread::available_parallelism()?.get() } else { 1 };
    let part = from.len().div_ceil(threads);
    let sample = timed(|| {
        thread::scope(|scope| {
            for (to, from) in to.chunks_mut(part).zip(from.chunks(part)) {
                scope.spawn(|| to.copy_from_slice(black_box(from)));
            }
        });
        black_box(&to);
        Ok(())
    })?;
    ensure!(to.last() == Some(&1.0), "the copy is wrong");
    Ok(sample)
}

fn masks(length: usize, sign: Sign) -> Result<Sample> {
    let mut values: Vec<u32> = (0..length as u32).collect();
    let mut times = 0;
    let sample = timed(|| {
        for (start, chunk) in (0..).step_by(CHUNK).zip(values.chunks_mut(CHUNK)) {
            apply_ring(&[(sign, [7; 16])], start, chunk);
        }
        times += 1;
        Ok(())
    })?;
    let undo = if sign == Sign::Add { Sign::Subtract } else { Sign::Add };
    for _ in 0..times {
        apply_ring(&[(undo, [7; 16])], 0, &mut values[..BLOCK]);
    }
    ensure!(values[..BLOCK].iter().copied().eq(0..BLOCK as u32), "the masks do not come off again");
    Ok(sample)
}
