//! What the trainer computes, held against plain Rust in f64 and against another implementation's figures.

mod batch_norm;
mod data;
mod encoders;
mod fine_tuning;
mod fixture;
mod forward;
mod images;
mod language;
mod minilm;
mod mixup;
mod optimizers;
mod reference;
mod refusals;
mod rounds;
mod script;
mod stored;
mod vision;
mod vit;
