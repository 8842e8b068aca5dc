//! Changes to inputs, from a single bit to another tree.

use rand::{rngs::StdRng, seq::SliceRandom, Rng};
use serde_json::{json, Value};

/// Longest input that is tried.
const BYTES_MAX: usize = 256 * 1024;
const CHANGES_MAX: usize = 4;
/// Numbers at which arithmetic breaks.
const EDGES: [u64; 12] = [
    0,
    1,
    0x7f,
    0x80,
    0xff,
    0xffff,
    0x7fff_ffff,
    0xffff_ffff,
    1 << 32,
    i64::MAX as u64,
    1 << 63,
    u64::MAX,
];

/// Another input.
pub(crate) fn changed(samples: &[Vec<u8>], random: &mut StdRng) -> Vec<u8> {
    let Some(sample) = samples.choose(random).filter(|_| random.gen_ratio(15, 16)) else {
        let length = random.gen_range(0..200);
        return (0..length).map(|_| random.gen()).collect();
    };
    let mut bytes = sample.clone();
    for _ in 0..random.gen_range(1..=CHANGES_MAX) {
        let other = samples.choose(random).unwrap();
        let tree = random
            .gen_bool(0.5)
            .then(|| serde_json::from_slice::<Value>(&bytes).ok())
            .flatten();
        match tree {
            Some(mut tree) => {
                change_tree(&mut tree, random);
                bytes = serde_json::to_vec(&tree).unwrap();
            }
            None => change_bytes(&mut bytes, other, random),
        }
    }
    bytes.truncate(BYTES_MAX);
    bytes
}

fn change_bytes(bytes: &mut Vec<u8>, other: &[u8], random: &mut StdRng) {
    if bytes.is_empty() {
        return bytes.push(random.gen());
    }
    let at = random.gen_range(0..bytes.len());
    let to = at + random.gen_range(0..=(bytes.len() - at).min(64));
    match random.gen_range(0..9) {
        0 => bytes[at] ^= 1 << random.gen_range(0..8),
        1 => bytes[at] = random.gen(),
        2 => bytes.truncate(at),
        3 => drop(bytes.drain(at..to)),
        4 => {
            let piece = bytes[at..to].to_vec();
            bytes.splice(at..at, piece);
        }
        5 => overwrite(bytes, at, random),
        6 => bytes.insert(at, *b"\0\"{}[],:=\n\xff9-".choose(random).unwrap()),
        7 => {
            let from = random.gen_range(0..=other.len());
            let until = from + random.gen_range(0..=(other.len() - from).min(256));
            bytes.splice(at..to, other[from..until].iter().copied());
        }
        _ => {
            let digits = bytes.iter().filter(|byte| byte.is_ascii_digit()).count();
            let place = random.gen_range(0..digits.max(1));
            if let Some(digit) = bytes.iter_mut().filter(|byte| byte.is_ascii_digit()).nth(place) {
                *digit = random.gen_range(b'0'..=b'9');
            }
        }
    }
}

/// A number of 1, 2, 4 or 8 bytes, as lengths are written.
fn overwrite(bytes: &mut [u8], at: usize, random: &mut StdRng) {
    let edge = *EDGES.choose(random).unwrap();
    let width = 1 << random.gen_range(0..4);
    let number = match random.gen() {
        true => edge.to_le_bytes()[..width].to_vec(),
        false => edge.to_be_bytes()[8 - width..].to_vec(),
    };
    for (byte, new) in bytes[at..].iter_mut().zip(number) {
        *byte = new;
    }
}

fn nodes(tree: &Value) -> usize {
    1 + match tree {
        Value::Array(list) => list.iter().map(nodes).sum(),
        Value::Object(fields) => fields.values().map(nodes).sum(),
        _ => 0,
    }
}

fn node<'a>(tree: &'a mut Value, index: &mut usize) -> Option<&'a mut Value> {
    if *index == 0 {
        return Some(tree);
    }
    *index -= 1;
    match tree {
        Value::Array(list) => list.iter_mut().find_map(|value| node(value, index)),
        Value::Object(fields) => fields.values_mut().find_map(|value| node(value, index)),
        _ => None,
    }
}

fn change_tree(tree: &mut Value, random: &mut StdRng) {
    let count = nodes(tree);
    let pick = |random: &mut StdRng| random.gen_range(0..count);
    let (mut here, mut there) = (pick(random), pick(random));
    let copy = node(tree, &mut there).cloned().unwrap_or(Value::Null);
    let Some(place) = node(tree, &mut here) else {
        return;
    };
    match (random.gen_range(0..4), &mut *place) {
        (0, Value::Object(fields)) if !fields.is_empty() => {
            let key = fields.keys().nth(random.gen_range(0..fields.len())).unwrap().clone();
            let value = fields.remove(&key).unwrap();
            if random.gen() {
                fields.insert(format!("{key}s"), value);
            }
        }
        (0, Value::Array(list)) if !list.is_empty() => {
            let index = random.gen_range(0..list.len());
            match random.gen_range(0..3) {
                0 => drop(list.remove(index)),
                1 => list.push(copy),
                _ => *list = vec![list[index].clone(); random.gen_range(0..600)],
            }
        }
        (1, _) => *place = copy,
        _ => *place = value(random),
    }
}

fn value(random: &mut StdRng) -> Value {
    match random.gen_range(0..10) {
        0 => Value::Null,
        1 => json!(random.gen::<bool>()),
        2 => json!(*EDGES.choose(random).unwrap()),
        3 => json!(-random.gen_range(1..i64::MAX)),
        4 => json!(random.gen::<f64>() * 1e300),
        5 => json!(""),
        6 => json!("9".repeat(random.gen_range(1..60))),
        7 => json!("é\u{0}\u{202e}/..".repeat(random.gen_range(1..20))),
        8 => json!("x".repeat(10_000)),
        _ => {
            let nested = (0..random.gen_range(1..200)).fold(json!(1), |inside, _| json!([inside]));
            json!({ "a": nested })
        }
    }
}
