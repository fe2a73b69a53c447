//! BERT in nested loops over f64, one text at a time: no padding, no mask, no batch.

use sheaf_common::run::Pooling;

use super::fixture::{EPSILON, HEADS, HIDDEN, LAYERS, Tensors};

type Rows = Vec<Vec<f64>>;

/// Logits of one text.
pub(super) fn logits(tensors: &Tensors, ids: &[usize], pooling: Pooling) -> Vec<f64> {
    let states = encode(tensors, ids);
    let pooled = match pooling {
        Pooling::Mean => (0..HIDDEN)
            .map(|column| states.iter().map(|row| row[column]).sum::<f64>() / states.len() as f64)
            .collect(),
        Pooling::Cls => {
            let dense = linear(tensors, "pooler.dense", &states[..1]);
            dense[0].iter().map(|value| value.tanh()).collect::<Vec<_>>()
        }
    };
    linear(tensors, "classifier", &[pooled]).remove(0)
}

/// Mean cross-entropy over texts.
pub(super) fn loss(tensors: &Tensors, texts: &[Vec<usize>], labels: &[u32], pooling: Pooling) -> f64 {
    let losses = texts.iter().zip(labels).map(|(ids, label)| {
        let logits = logits(tensors, ids, pooling);
        logits.iter().map(|logit| logit.exp()).sum::<f64>().ln() - logits[*label as usize]
    });
    losses.sum::<f64>() / texts.len() as f64
}

fn encode(tensors: &Tensors, ids: &[usize]) -> Rows {
    let row = |name: &str, row: usize| {
        let values = &tensors[&format!("embeddings.{name}_embeddings.weight")].1;
        values[row * HIDDEN..(row + 1) * HIDDEN].to_vec()
    };
    let mut states: Rows = Vec::new();
    for (position, id) in ids.iter().enumerate() {
        let (word, place, segment) = (row("word", *id), row("position", position), row("token_type", 0));
        states.push(
            (0..HIDDEN).map(|c| f64::from(word[c]) + f64::from(place[c]) + f64::from(segment[c])).collect(),
        );
    }
    states = norm(tensors, "embeddings.LayerNorm", &states);
    for layer in 0..LAYERS {
        let name = |part: &str| format!("encoder.layer.{layer}.{part}");
        let attended = linear(tensors, &name("attention.output.dense"), &attend(tensors, &name, &states));
        states = norm(tensors, &name("attention.output.LayerNorm"), &add(&attended, &states));
        let mut inner = linear(tensors, &name("intermediate.dense"), &states);
        inner.iter_mut().flatten().for_each(|value| *value = gelu(*value));
        let fed = linear(tensors, &name("output.dense"), &inner);
        states = norm(tensors, &name("output.LayerNorm"), &add(&fed, &states));
    }
    states
}

fn attend(tensors: &Tensors, name: &impl Fn(&str) -> String, states: &Rows) -> Rows {
    let part = |part: &str| linear(tensors, &name(&format!("attention.self.{part}")), states);
    let (query, key, value) = (part("query"), part("key"), part("value"));
    let size = HIDDEN / HEADS;
    let mut context = vec![vec![0.0; HIDDEN]; states.len()];
    for head in 0..HEADS {
        let columns = head * size..(head + 1) * size;
        for (asking, context) in context.iter_mut().enumerate() {
            let scores: Vec<f64> = (0..states.len())
                .map(|asked| {
                    let product: f64 = columns.clone().map(|c| query[asking][c] * key[asked][c]).sum();
                    (product / (size as f64).sqrt()).exp()
                })
                .collect();
            let total: f64 = scores.iter().sum();
            for column in columns.clone() {
                context[column] =
                    (0..states.len()).map(|asked| scores[asked] / total * value[asked][column]).sum();
            }
        }
    }
    context
}

fn linear(tensors: &Tensors, name: &str, rows: &[Vec<f64>]) -> Rows {
    let (shape, weight) = &tensors[&format!("{name}.weight")];
    let bias = &tensors[&format!("{name}.bias")].1;
    let one = |row: &Vec<f64>, output: usize| {
        let products =
            row.iter().enumerate().map(|(c, value)| value * f64::from(weight[output * shape[1] + c]));
        f64::from(bias[output]) + products.sum::<f64>()
    };
    rows.iter().map(|row| (0..shape[0]).map(|output| one(row, output)).collect()).collect()
}

fn norm(tensors: &Tensors, name: &str, rows: &[Vec<f64>]) -> Rows {
    let (weight, bias) = (&tensors[&format!("{name}.weight")].1, &tensors[&format!("{name}.bias")].1);
    let one = |row: &Vec<f64>| {
        let mean = row.iter().sum::<f64>() / HIDDEN as f64;
        let variance = row.iter().map(|value| (value - mean).powi(2)).sum::<f64>() / HIDDEN as f64;
        let scaled = row.iter().map(|value| (value - mean) / (variance + EPSILON).sqrt());
        scaled.enumerate().map(|(c, value)| value * f64::from(weight[c]) + f64::from(bias[c])).collect()
    };
    rows.iter().map(one).collect()
}

fn add(a: &Rows, b: &Rows) -> Rows {
    a.iter().zip(b).map(|(a, b)| a.iter().zip(b).map(|(a, b)| a + b).collect()).collect()
}

fn gelu(value: f64) -> f64 {
    0.5 * value * (1.0 + erf(value / std::f64::consts::SQRT_2))
}

/// The error function by its Maclaurin series, which serves as far as the tests go.
fn erf(x: f64) -> f64 {
    assert!(x.abs() < 5.0, "the series is no good at {x}");
    let (mut term, mut sum, mut n) = (x, x, 0.0);
    while term.abs() > 1e-17 {
        n += 1.0;
        term *= -x * x / n;
        sum += term / (2.0 * n + 1.0);
    }
    sum * 2.0 / std::f64::consts::PI.sqrt()
}
